//! The repairs of `mlxk convert`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::Args;
use crate::commands::clone::{of_directory, pin};
use crate::error::{CommandError, Kind};
use crate::health::{self, HealthOptions, HealthReport};
use crate::output::{Output, printable};
use crate::repair::{Plan, RepairArgs, Shown, diff_text};
use crate::settings::Settings;
use crate::workspace::build::{Building, cache_of, check_target};
use crate::workspace::sentinel::Sentinel;
use crate::workspace::{paths, target_path};

/// `data` of the envelope: mlx-knife's, the changes, and whether they were made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "convert")]
pub(in crate::commands) struct Data {
    source: String,
    target: String,
    mode: &'static str,
    health_check: bool,
    health_status: Option<&'static str>,
    health_reason: Option<String>,
    message: String,
    warning: Option<String>,
    bits: Option<u32>,
    group_size: Option<u32>,
    content_hash: Option<String>,
    dry_run: bool,
    changes: Vec<Shown>,
}

pub(super) fn run(
    repair: &RepairArgs,
    mode: &'static str,
    args: &Args,
    output: &Output,
) -> Result<(), CommandError> {
    let settings = Settings::load()?;
    let caches = [settings.hub_cache.value.clone()];
    let source = check_source(&args.source, &caches)?;
    let target = target_path(&args.target, settings.workspace_home.value.as_deref());
    let target = check_target(&target, &caches)?;
    if paths::is_inside(&target, &source).unwrap_or(true) {
        let text = format!("{} lies in the source, which is not changed", target.display());
        return Err(CommandError::new(Kind::InvalidTarget, text));
    }
    let plan = Plan::new(repair, &source)?;
    let mut data = Data {
        source: source.display().to_string(),
        target: target.display().to_string(),
        mode,
        health_check: !args.skip_health && !args.dry_run,
        health_status: None,
        health_reason: None,
        message: message(&plan, args.dry_run),
        warning: (!plan.notes().is_empty()).then(|| plan.notes().join("; ")),
        bits: None,
        group_size: None,
        content_hash: None,
        dry_run: args.dry_run,
        changes: plan.shown(),
    };
    if !args.dry_run {
        make(&plan, &source, &target, &caches, &mut data)?;
    }
    match output.is_json() {
        true => output.success("convert", &data),
        false => output.write(&printable(&text(&data))),
    }
}

fn check_source(source: &Path, caches: &[PathBuf]) -> Result<PathBuf, CommandError> {
    let invalid = |text: String| CommandError::new(Kind::InvalidArgument, text);
    if let Some(cache) = cache_of(source, caches)? {
        let text = format!("{} lies in the cache of models, {}", source.display(), cache.display());
        return Err(invalid(text).hint("make a workspace of it first: mlxk clone MODEL DIR"));
    }
    if !source.is_dir() {
        let text = format!("{}: there is no such directory", source.display());
        return Err(CommandError::new(Kind::FileNotFound, text)
            .hint("a cached model becomes a directory with `mlxk clone MODEL DIR`"));
    }
    std::path::absolute(source).map_err(|error| CommandError::file(source, &error))
}

/// Builds the workspace, checks it and puts it in its place.
fn make(
    plan: &Plan,
    source: &Path,
    target: &Path,
    caches: &[PathBuf],
    data: &mut Data,
) -> Result<(), CommandError> {
    let building = Building::begin(target, caches)?;
    plan.execute(building.path())?;
    let mut sentinel = Sentinel::new("convert", of_directory(source));
    sentinel.rest.insert("mode".to_owned(), data.mode.into());
    pin(&mut sentinel, building.path());
    sentinel.write(building.path()).map_err(|error| CommandError::file(target, &error))?;
    data.content_hash = sentinel.content_hash().map(str::to_owned);
    if data.health_check {
        let options = HealthOptions { building: true, ..Default::default() };
        let report = health::check(building.path(), &options);
        data.health_status = Some(if report.healthy { "healthy" } else { "unhealthy" });
        data.health_reason = Some(report.reason());
        if !report.healthy {
            return Err(unhealthy(&report, data));
        }
    }
    building.commit()
}

fn unhealthy(report: &HealthReport, data: &Data) -> CommandError {
    let text = format!("the result would be unhealthy: {}", report.reason());
    let error = CommandError::new(Kind::HealthCheckFailed, text)
        .hint("nothing was written; --skip-health makes the workspace all the same");
    let errors = report.findings.iter().filter(|f| f.severity == health::Severity::Error);
    let error =
        errors.filter_map(|finding| finding.repair.as_ref()).fold(error, |error, repair| {
            match repair.starts_with("mlxk convert") {
                true => error.hint("--repair-all makes all repairs at once"),
                false => error.hint(repair.as_str()),
            }
        });
    match serde_json::to_value(data) {
        Ok(data) => error.data(data),
        Err(_) => error,
    }
}

fn message(plan: &Plan, dry_run: bool) -> String {
    match (plan.shown().len(), dry_run) {
        (0, _) => "nothing had to be mended".to_owned(),
        (1, true) => "1 file would change".to_owned(),
        (n, true) => format!("{n} files would change"),
        (1, false) => "1 file was changed".to_owned(),
        (n, false) => format!("{n} files were changed"),
    }
}

fn text(data: &Data) -> String {
    let Data { source, target, message, .. } = data;
    let warning = data.warning.as_ref().map_or(String::new(), |text| format!("warning: {text}\n"));
    if data.dry_run {
        return format!("{}{warning}convert: {message}\n", diff_text(&data.changes));
    }
    let health = data.health_status.map_or(String::new(), |status| format!(" ({status})"));
    format!("{warning}convert: {source} → {target}: {message}{health}\n")
}
