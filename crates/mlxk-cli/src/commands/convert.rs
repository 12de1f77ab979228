//! `mlxk convert`.

mod repair;
mod weights;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::clone::{of_directory, pin};
use super::compare::Report;
use crate::error::{CommandError, Kind};
use crate::health::{self, HealthOptions, HealthReport};
use crate::output::Output;
use crate::repair::{RepairArgs, Shown};
use crate::settings::Settings;
use crate::workspace::build::{cache_of, outside_caches};
use crate::workspace::sentinel::Sentinel;
use crate::workspace::{paths, target_path};

use self::weights::{Weights, WeightsArgs};

/// Quantize a model, unpack it, bring it to another type, or mend its files
///
/// Makes a new workspace, TARGET, of the files of SOURCE, which stay as they are; nothing is ever
/// written to the cache of models. TARGET appears when all of it is on the disk and found healthy,
/// and not before.
///
/// Weights are quantized with --quantize, --mixed-recipe or --target-bpw, unpacked with --dequantize,
/// and brought to another type with --dtype alone. Layers of SOURCE that are quantized already stay
/// so, whoever quantized them, but for --dequantize and --requantize. What an interrupted run has finished lies beside TARGET,
/// where --resume finds it.
///
/// Files are mended with exactly one of the repairs, or with --repair-all.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory with a model's files
    #[arg(value_hint = clap::ValueHint::DirPath)]
    source: PathBuf,

    /// The new workspace: a path, or a name in the workspace home
    #[arg(value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,

    #[command(flatten)]
    weights: WeightsArgs,

    #[command(flatten)]
    repair: RepairArgs,

    /// Show what a repair would change and write nothing
    #[arg(long, requires = "repair")]
    dry_run: bool,

    /// Do not look whether the result is healthy
    #[arg(long)]
    skip_health: bool,
}

/// `data` of the envelope: mlx-knife's, and what was done to weights or files.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "convert")]
pub(crate) struct Data {
    source: String,
    target: String,
    mode: &'static str,
    health_check: bool,
    health_status: Option<&'static str>,
    health_reason: Option<String>,
    message: String,
    warning: Option<String>,
    bits: Option<i32>,
    group_size: Option<i32>,
    content_hash: Option<String>,
    dry_run: bool,
    changes: Vec<Shown>,
    weights: Option<Weights>,
    /// What it cost, where that was asked.
    quality: Option<Report>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let Some(mode) = args.repair.mode().or_else(|| args.weights.mode()) else {
        return Err(CommandError::new(Kind::InvalidArgument, "no mode is given")
            .hint("--quantize BITS packs the weights, --dequantize unpacks them")
            .hint("`mlxk health DIR` tells which repairs would help; --repair-all makes them"));
    };
    let settings = Settings::load()?;
    let caches = [settings.hub_cache.value.clone()];
    let source = check_source(&args.source, &caches)?;
    let target = target_path(&args.target, settings.workspace_home.value.as_deref());
    let target = outside_caches(&target, &caches)?;
    if paths::is_inside(&target, &source).unwrap_or(true) {
        let text = format!("{} is the source or lies in it", target.display());
        return Err(CommandError::new(Kind::InvalidTarget, text)
            .hint("the source is not changed; name a directory beside it"));
    }
    let making = Making { args, mode, source, target, caches };
    match args.repair.mode() {
        Some(_) => repair::run(&making, output),
        None => weights::run(&making, output),
    }
}

fn check_source(source: &Path, caches: &[PathBuf]) -> Result<PathBuf, CommandError> {
    if let Some(cache) = cache_of(source, caches)? {
        let text = format!("{} lies in the cache of models, {}", source.display(), cache.display());
        return Err(CommandError::new(Kind::InvalidArgument, text)
            .hint("make a workspace of it first: mlxk clone MODEL DIR"));
    }
    if !source.is_dir() {
        let what = if source.exists() { "not a directory" } else { "there is no such directory" };
        let text = format!("{}: {what}", source.display());
        return Err(CommandError::new(Kind::FileNotFound, text)
            .hint("a cached model becomes a directory with `mlxk clone MODEL DIR`"));
    }
    std::path::absolute(source).map_err(|error| CommandError::file(source, &error))
}

/// A workspace to be made, whose place is sound.
struct Making<'a> {
    args: &'a Args,
    mode: &'static str,
    source: PathBuf,
    target: PathBuf,
    caches: [PathBuf; 1],
}

impl Making<'_> {
    /// Returns what is known before anything is made.
    fn data(&self) -> Data {
        Data {
            source: self.source.display().to_string(),
            target: self.target.display().to_string(),
            mode: self.mode,
            health_check: !self.args.skip_health && !self.args.dry_run,
            health_status: None,
            health_reason: None,
            message: String::new(),
            warning: None,
            bits: None,
            group_size: None,
            content_hash: None,
            dry_run: self.args.dry_run,
            changes: Vec::new(),
            weights: None,
            quality: None,
        }
    }

    /// Looks at the result in `dir`, where it grew, and makes a managed workspace of it.
    ///
    /// # Errors
    /// When it is unhealthy, or the file system fails.
    fn finish(&self, dir: &Path, data: &mut Data) -> Result<(), CommandError> {
        if data.health_check {
            let options = HealthOptions { building: true, ..Default::default() };
            let report = health::check(dir, &options);
            data.health_status = Some(if report.healthy { "healthy" } else { "unhealthy" });
            data.health_reason = Some(report.reason());
            if !report.healthy {
                return Err(unhealthy(&report, data));
            }
        }
        let mut sentinel = Sentinel::new("convert", of_directory(&self.source));
        sentinel.rest.insert("mode".to_owned(), data.mode.into());
        if let (Some(bits), Some(group_size)) = (data.bits, data.group_size) {
            let quantization = serde_json::json!({"bits": bits, "group_size": group_size});
            sentinel.rest.insert("quantization".to_owned(), quantization);
        }
        pin(&mut sentinel, dir);
        sentinel.write(dir).map_err(|error| CommandError::file(&self.target, &error))?;
        data.content_hash = sentinel.content_hash().map(str::to_owned);
        Ok(())
    }
}

fn unhealthy(report: &HealthReport, data: &Data) -> CommandError {
    let text = format!("the result would be unhealthy: {}", report.reason());
    let error = CommandError::new(Kind::HealthCheckFailed, text)
        .hint("--skip-health makes the workspace all the same");
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

/// What a person reads first.
fn headline(data: &Data) -> String {
    let Data { source, target, message, .. } = data;
    let health = data.health_status.map_or(String::new(), |status| format!(" ({status})"));
    format!("convert: {source} → {target}: {message}{health}\n")
}
