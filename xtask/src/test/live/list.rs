//! What is listed, against what lies in the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Session;
use super::portfolio::Model;
use super::program::Program;
use super::report::Row;

/// Asks for the list: of the cache and the workspace home, or of a directory of models.
pub fn data(program: &Program, models: Option<&Path>) -> Result<Value> {
    match models {
        None => program.json(&["list"]),
        Some(dir) => program.json(&["list", dir.to_str().context("the path is not UTF-8")?]),
    }
}

/// Checks the count, the tables, and that no model of the cache is missing.
pub fn check_whole(session: &Session) -> Result<()> {
    let (program, models) = (&session.program, &session.portfolio.models);
    let data = data(program, session.models())?;
    ensure!(data["count"] == models.len(), "count is {}, not {}", data["count"], models.len());
    let names: BTreeSet<&str> = models.iter().map(|model| model.name.as_str()).collect();
    ensure!(names.len() == models.len(), "a model is listed twice");
    for dir in program.cache().read_dir().into_iter().flatten() {
        let name = dir?.file_name().to_string_lossy().into_owned();
        if let Some(id) = name.strip_prefix("models--")
            && has_revision(&program.cache().join(&name))
        {
            let is_listed = names.contains(id.replacen("--", "/", 1).as_str());
            ensure!(is_listed, "{name} is in the cache and not in the list");
        }
    }
    let mut args = vec!["list"];
    args.extend(session.models().map(|dir| dir.to_str().unwrap_or_default()));
    let lines = |more: &[&str]| -> Result<usize> {
        let table = program.run(args.iter().chain(more))?.ok()?;
        // The head of a table and the line below it.
        Ok(table.lines().count().saturating_sub(2))
    };
    let runnable = models.iter().filter(|model| model.is_healthy() && model.runtime_compatible);
    let runnable = runnable.count();
    let shown = lines(&["--verbose"])?;
    ensure!(shown >= runnable, "{shown} lines for {runnable} models that run");
    let all = lines(&["--all", "--verbose", "--health"])?;
    ensure!(all >= models.len(), "{all} lines for {} models", models.len());
    Ok(())
}

fn has_revision(dir: &Path) -> bool {
    dir.join("snapshots").read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

/// Checks the revision and the size of a model.
pub fn check_model(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    let cache = session.program.cache();
    if model.cached {
        let main = model.cache_dir(cache).join("refs/main");
        if let Ok(main) = fs::read_to_string(main) {
            let hash = model.hash.as_deref().unwrap_or("none");
            ensure!(main.trim() == hash, "refs/main means {}, listed is {hash}", main.trim());
        }
    } else {
        ensure!(Path::new(&model.name).is_absolute(), "a workspace is named by its path");
    }
    let Ok(dir) = session.dir(model) else {
        // Nothing of it is there: it is listed as one that is not whole.
        ensure!(!model.is_healthy(), "healthy, and no revision is there");
        return Ok(());
    };
    if !dir.is_dir() {
        ensure!(!model.is_healthy(), "healthy, and {} is not there", dir.display());
        return Ok(());
    }
    let size = size_below(&dir)?;
    ensure!(size == model.size_bytes, "its files have {size} bytes, not {}", model.size_bytes);
    Ok(())
}

/// Adds up the files below a directory, those that links mean, too.
fn size_below(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in dir.read_dir()? {
        let path = entry?.path();
        // A link to nothing has no size.
        let Ok(metadata) = path.metadata() else { continue };
        size += if metadata.is_dir() { size_below(&path)? } else { metadata.len() };
    }
    Ok(size)
}
