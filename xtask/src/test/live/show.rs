//! What the program says of a model, one command against the other.

use anyhow::{Context as _, Result, ensure};

use super::Session;
use super::portfolio::Model;
use super::report::Row;

/// Checks that `show` and `list` agree, and that files and configuration are shown.
pub fn check_show(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    let show = |more: &[&str]| session.program.json(&[&["show", &model.name], more].concat());
    let data = show(&[])?;
    let shown = &data["model"];
    ensure!(shown["name"] == model.name.as_str(), "show calls it {}", shown["name"]);
    ensure!(shown["health"] == model.health.as_str(), "show calls it {}", shown["health"]);
    ensure!(
        shown["runtime_compatible"] == model.runtime_compatible,
        "list says that it runs: {}, show: {}",
        model.runtime_compatible,
        shown["runtime_compatible"]
    );
    let (size, listed) = (&shown["size_bytes"], model.size_bytes);
    ensure!(*size == listed, "show says {size} bytes, list {listed}");
    let files = show(&["--files"])?;
    ensure!(files["files"].is_array(), "show --files has no files");
    if model.is_healthy() {
        ensure!(show(&["--config"])?["config"].is_object(), "show --config has no configuration");
    }
    session.program.run(["show", &model.name])?.ok()?;
    Ok(())
}

/// Checks that `health` and `list` agree, and notes what is found.
pub fn check_health(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let data = session.program.json(&["health", &model.name])?;
    let (kind, other) = match model.is_healthy() {
        true => ("healthy", "unhealthy"),
        false => ("unhealthy", "healthy"),
    };
    let entry = data[kind].as_array().and_then(|entries| entries.first());
    let entry = entry.with_context(|| format!("list calls it {kind}, health {other}"))?;
    for finding in entry["findings"].as_array().into_iter().flatten() {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        row.notes.push(format!("{} {}: {}", text("severity"), text("code"), text("message")));
    }
    Ok(())
}

/// Checks that the space of its revisions is that of the model.
pub fn check_du(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    if !model.cached {
        return Ok(());
    }
    let data = session.program.json(&["du", &model.name])?;
    let entry = &data["models"][0];
    ensure!(entry["name"] == model.name.as_str(), "du calls it {}", entry["name"]);
    let revisions = entry["revisions"].as_array().context("du lists no revisions")?;
    let listed =
        revisions.iter().find(|revision| revision["hash"].as_str() == model.hash.as_deref());
    ensure!(listed.is_some() || model.hash.is_none(), "du does not know the listed revision");
    let largest = revisions.iter().filter_map(|revision| revision["size_bytes"].as_u64()).max();
    let all = entry["size_bytes"].as_u64().context("du has no size")?;
    ensure!(largest.unwrap_or(0) <= all, "a revision takes more than all of the model");
    Ok(())
}

/// Checks that each file is what its name says.
pub fn check_verify(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    if !model.cached {
        return Ok(());
    }
    let data = session.program.json(&["verify", &model.name])?;
    let findings = data["models"][0]["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let named = |finding: &serde_json::Value| format!("{} {}", finding["outcome"], finding["path"]);
    let named: Vec<String> = findings.iter().map(named).collect();
    ensure!(data["verified"] == true, "verify finds {}", named.join(", "));
    Ok(())
}
