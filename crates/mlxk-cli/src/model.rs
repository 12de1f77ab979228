//! Finding and loading the model that a command is for.

use std::path::Path;
use std::time::Instant;

use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Loaded};

use crate::error::CommandError;
use crate::output::Output;
use crate::resolve::{Purpose, Resolved, Resolver};
use crate::running;
use crate::settings::Settings;

/// Returns the resolver that this user's settings make.
///
/// # Errors
/// When a setting is broken.
pub(crate) fn resolver() -> Result<Resolver, CommandError> {
    Settings::load().map(|settings| Resolver::of(&settings))
}

/// Finds a model to run or look at.
///
/// # Errors
/// As [`Resolver::resolve`].
pub(crate) fn resolve(model: &Path) -> Result<Resolved, CommandError> {
    resolver()?.resolve(model, Purpose::Read)
}

/// Finds the files of a model to run or look at.
///
/// # Errors
/// As [`resolve`], and when the directory holds no files.
pub(crate) fn files(model: &Path) -> Result<ModelFiles, CommandError> {
    resolve(model)?.files()
}

/// Loads a model with its tokenizer, for a command that `mlxk ps` is to name; returns the seconds
/// that this took.
///
/// # Errors
/// As [`files`], and when the model does not load.
pub(crate) fn load(
    command: &str,
    model: &Path,
    options: &LoadOptions,
    output: &Output,
) -> Result<(ModelFiles, Loaded, f64), CommandError> {
    let started = Instant::now();
    let files = files(model)?;
    running::enter(command, model);
    let loaded = mlx_lm::load::load(&files, options)?;
    for note in &loaded.notes {
        output.warning(note);
    }
    Ok((files, loaded, started.elapsed().as_secs_f64()))
}
