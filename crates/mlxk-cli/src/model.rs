//! What a MODEL argument means: a directory, or the model that is part of the program.

use std::path::Path;
use std::time::Instant;

use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Loaded};

use crate::error::{CommandError, Kind};
use crate::output::Output;

/// The name of the embedded model.
pub(crate) const DEMO: &str = "demo";

/// Finds the files of a model.
pub(crate) fn files(model: &Path) -> Result<ModelFiles, CommandError> {
    if model == Path::new(DEMO) {
        return Ok(ModelFiles::embedded(DEMO, fixtures::demo::FILES));
    }
    if !model.exists() {
        return Err(not_found(model));
    }
    ModelFiles::directory(model).map_err(|error| {
        let error = CommandError::from(error);
        match error.kind {
            Kind::Usage => CommandError { kind: Kind::InvalidModel, ..error },
            _ => error,
        }
    })
}

/// Loads a model with its tokenizer; returns the seconds that this took.
pub(crate) fn load(
    model: &Path,
    options: &LoadOptions,
    output: &Output,
) -> Result<(ModelFiles, Loaded, f64), CommandError> {
    let started = Instant::now();
    let files = files(model)?;
    let loaded = mlx_lm::load::load(&files, options)?;
    for note in &loaded.notes {
        output.warning(note);
    }
    Ok((files, loaded, started.elapsed().as_secs_f64()))
}

fn not_found(model: &Path) -> CommandError {
    let name = model.display();
    let text =
        format!("model `{name}` not found: there is no such directory, and it is not `{DEMO}`");
    let error = CommandError::new(Kind::ModelNotFound, text);
    let error = match is_hub_name(model) {
        true => error.hint(format!(
            "`{name}` looks like a name on a hub; models are not downloaded, give a directory"
        )),
        false => error.hint("give the directory that holds the model's config.json"),
    };
    error.hint(format!("`{DEMO}` is the model that is part of this program"))
}

/// Whether a path that does not exist reads like `org/name`.
fn is_hub_name(model: &Path) -> bool {
    let Some((org, name)) = model.to_str().and_then(|text| text.split_once('/')) else {
        return false;
    };
    !org.is_empty() && !org.starts_with('.') && !name.is_empty() && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_have_two_parts() {
        for (text, expected) in [
            ("org/name", true),
            ("org/name-4bit", true),
            ("name", false),
            ("./name", false),
            ("../name", false),
            ("/name", false),
            ("a/b/c", false),
            ("org/", false),
        ] {
            assert_eq!(is_hub_name(Path::new(text)), expected, "{text}");
        }
    }
}
