//! Workspaces made of a cached model, in a directory of the suite's own.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::answers::{QUESTION, ask};
use super::portfolio::Model;
use super::report::{Performance, Row};
use super::{Session, stop_tokens};
use crate::shell;

/// Checks that a clone has the same files, is healthy, answers the same, and knows when it is changed.
pub fn check_clone(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let clone = session.scratch.place("workspaces/clone")?;
    let target = clone.to_str().context("the path is not UTF-8")?;
    let data = session.program.json(&["clone", &model.name, target])?;
    ensure!(data["clone_status"] == "success", "clone_status is {}", data["clone_status"]);
    ensure!(data["health"] == "healthy", "the clone is {}", data["health_reason"]);
    require_same_files(&session.dir(model)?, &clone)?;
    require_healthy(session, target)?;
    let original = ask(session, &model.name, QUESTION)?;
    let copy = ask(session, target, QUESTION)?;
    ensure!(
        stop_tokens::token_ids(&original)? == stop_tokens::token_ids(&copy)?,
        "the clone answers {}, the model {}",
        copy["response"],
        original["response"]
    );
    row.performance = Some(Performance::read(&copy)?);
    ensure!(clean(session, target)? == Value::Bool(true), "a new clone is not clean");
    fs::write(clone.join("notes.md"), "changed\n")?;
    ensure!(clean(session, target)? == Value::Bool(false), "a changed clone is clean");
    Ok(())
}

/// Checks the way from a cached model to a quantized one of one's own.
pub fn check_conversion(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let place = |name: &str| -> Result<String> {
        let path = session.scratch.place(&format!("workspaces/{name}"))?;
        path.to_str().map(str::to_owned).context("the path is not UTF-8")
    };
    let mut source = place("clone")?;
    session.program.json(&["clone", &model.name, &source]).context("clone")?;
    if config(&source)?["quantization"].is_object() {
        let dense = place("dense")?;
        session
            .program
            .json(&["convert", &source, &dense, "--dequantize"])
            .context("dequantize")?;
        require_healthy(session, &dense)?;
        source = dense;
    }
    let packed = place("packed")?;
    let group = group_size(&config(&source)?);
    let quantize = ["convert", &source, &packed, "--quantize", "4", "--q-group-size", group];
    session.program.json(&quantize).context("quantize")?;
    require_healthy(session, &packed)?;
    let bits = &config(&packed)?["quantization"]["bits"];
    ensure!(*bits == 4, "the result has {bits} bits");
    let data = ask(session, &packed, QUESTION).context("run")?;
    let performance = Performance::read(&data)?;
    ensure!(performance.completion_tokens > 0, "the result generates nothing");
    row.performance = Some(performance);
    Ok(())
}

fn config(dir: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(Path::new(dir).join("config.json"))?)?)
}

/// The usual one, unless the model is too narrow for it.
fn group_size(config: &Value) -> &'static str {
    let text = config.get("text_config").unwrap_or(config);
    let sizes = ["hidden_size", "intermediate_size"].map(|key| text[key].as_u64());
    if sizes.iter().flatten().all(|size| size % 64 == 0) { "64" } else { "32" }
}

/// Asks for the health of a workspace, whose path is not in the list.
fn require_healthy(session: &Session, dir: &str) -> Result<()> {
    let data = session.program.json(&["health", dir])?;
    let unhealthy = &data["unhealthy"][0]["reason"];
    ensure!(data["summary"]["unhealthy_count"] == 0, "{dir} is unhealthy: {unhealthy}");
    ensure!(data["summary"]["healthy_count"] == 1, "{dir} is not looked at");
    Ok(())
}

fn clean(session: &Session, dir: &str) -> Result<Value> {
    Ok(session.program.json(&["list", dir])?["models"][0]["clean"].take())
}

/// Compares whole directories by name and content; the sentinel is the clone's own.
fn require_same_files(original: &Path, clone: &Path) -> Result<()> {
    let names = |dir: &Path| -> Result<Vec<_>> {
        let mut names = shell::files_below(dir)?;
        names.retain(|name| name != Path::new(".mlxk_workspace.json"));
        Ok(names)
    };
    let (expected, found) = (names(original)?, names(clone)?);
    ensure!(expected == found, "the clone has {found:?}, the model {expected:?}");
    for name in expected {
        ensure!(
            is_same(&original.join(&name), &clone.join(&name))?,
            "{} is not the same in the clone",
            name.display()
        );
    }
    Ok(())
}

fn is_same(a: &Path, b: &Path) -> Result<bool> {
    use std::io::{BufRead as _, BufReader};

    let (mut a, mut b) = (BufReader::new(fs::File::open(a)?), BufReader::new(fs::File::open(b)?));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let n = left.len().min(right.len());
        if n == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..n] != right[..n] {
            return Ok(false);
        }
        a.consume(n);
        b.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_fit_the_model() {
        assert_eq!(group_size(&json!({"hidden_size": 192, "intermediate_size": 512})), "64");
        assert_eq!(group_size(&json!({"hidden_size": 32})), "32");
        assert_eq!(group_size(&json!({"text_config": {"intermediate_size": 96}})), "32");
    }

    #[test]
    fn a_clone_is_compared_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for dir in [&a, &b] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("weights"), vec![7; 100_000]).unwrap();
        }
        fs::write(b.join(".mlxk_workspace.json"), "{}").unwrap();
        require_same_files(&a, &b).unwrap();
        let mut content = vec![7; 100_000];
        content[99_999] = 8;
        for content in [content, vec![7; 99_999], vec![7; 100_001]] {
            fs::write(b.join("weights"), content).unwrap();
            assert!(require_same_files(&a, &b).is_err());
        }
        fs::write(b.join("weights"), vec![7; 100_000]).unwrap();
        fs::write(b.join("more"), "").unwrap();
        assert!(require_same_files(&a, &b).is_err());
    }
}
