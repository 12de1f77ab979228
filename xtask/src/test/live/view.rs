//! A model's files as they would be with other ends of answers, without a copy of its weights.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Session;
use super::portfolio::Model;

/// A token that no model has.
const NEVER: u32 = 100_000_000;

/// A context window that no answer fills.
const ENDLESS: u32 = 1_000_000;

/// Makes a directory of links to a model's files, whose answers end at these tokens.
pub fn with_ends(session: &Session, model: &Model, ends: &[u32]) -> Result<PathBuf> {
    let view = links(session, model)?;
    edit(&view.join("config.json"), |config| config["eos_token_id"] = json!(ends))?;
    edit(&view.join("generation_config.json"), |config| config["eos_token_id"] = json!(ends))?;
    Ok(view)
}

/// Makes one whose answers do not end by themselves.
pub fn without_end(session: &Session, model: &Model) -> Result<PathBuf> {
    let view = with_ends(session, model, &[NEVER])?;
    edit(&view.join("config.json"), |config| {
        config["max_position_embeddings"] = json!(ENDLESS);
        if let Some(text) = config.get_mut("text_config") {
            text["max_position_embeddings"] = json!(ENDLESS);
        }
    })?;
    // It is an end as well, whatever the configuration says.
    edit(&view.join("tokenizer_config.json"), |config| config["eos_token"] = Value::Null)?;
    Ok(view)
}

fn links(session: &Session, model: &Model) -> Result<PathBuf> {
    let view = session.scratch.make_dir("view")?;
    for entry in session.dir(model)?.read_dir()? {
        let entry = entry?;
        link(&entry.path().canonicalize()?, &view.join(entry.file_name()))?;
    }
    Ok(view)
}

#[cfg(unix)]
fn link(original: &Path, link: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(original, link)?)
}

#[cfg(not(unix))]
fn link(original: &Path, link: &Path) -> Result<()> {
    fs::copy(original, link).map(|_| ()).context("no copy can be made")
}

/// Replaces a link by a changed file; what is not there is not needed.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mut value =
        serde_json::from_slice(&fs::read(path)?).with_context(|| path.display().to_string())?;
    change(&mut value);
    fs::remove_file(path)?;
    Ok(fs::write(path, value.to_string())?)
}
