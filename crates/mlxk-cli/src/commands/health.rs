//! `mlxk health`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::health::{self, Finding, HealthOptions, HealthReport};
use crate::output::Output;
use crate::workspace;

/// Check whether a model's files are all there and sound
///
/// Reads the configuration, the tokenizer, and the headers of the weight files; with --deep also
/// the weights themselves. Every finding has a code, a severity and, where something mends it,
/// the command that does. A model with an error is unhealthy, one with warnings or notes is not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory with the model's files
    #[arg(value_hint = clap::ValueHint::DirPath)]
    model: PathBuf,

    /// Read everything: hash cached files, look for NaN in weights, build the tokenizer
    #[arg(long)]
    deep: bool,

    /// End with exit code 4 when a model is unhealthy, with 3 when there is no such model
    #[arg(long)]
    strict_exit: bool,
}

/// `data` of the envelope; what mlx-knife has no field for is added.
#[derive(Serialize)]
struct Data {
    healthy: Vec<Entry>,
    unhealthy: Vec<Entry>,
    summary: Summary,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    status: &'static str,
    reason: String,
    /// Whether a workspace is a managed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<bool>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Summary {
    total: usize,
    healthy_count: usize,
    unhealthy_count: usize,
}

impl Entry {
    fn new(name: String, managed: Option<bool>, report: HealthReport) -> Entry {
        let status = if report.healthy { "healthy" } else { "unhealthy" };
        Entry { name, status, reason: report.reason(), managed, findings: report.findings }
    }
}

impl Data {
    fn new(entries: Vec<Entry>) -> Data {
        let total = entries.len();
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.status == "healthy");
        let summary = Summary {
            total,
            healthy_count: healthy.len(),
            unhealthy_count: unhealthy.len(),
        };
        Data { healthy, unhealthy, summary }
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let data = Data::new(entries(args));
    let error = args.strict_exit.then(|| failure(&data)).flatten();
    match (output.is_json(), error) {
        (true, None) => output.success("health", &data),
        (true, Some(error)) => {
            let data = serde_json::to_value(&data);
            Err(error.data(data.map_err(|e| CommandError::new(Kind::General, e))?))
        }
        (false, error) => {
            output.write(&crate::output::printable(&text(&data)))?;
            error.map_or(Ok(()), Err)
        }
    }
}

/// Checks the models that are meant.
fn entries(args: &Args) -> Vec<Entry> {
    let options = HealthOptions { name: None, deep: args.deep };
    if !args.model.exists() {
        return Vec::new();
    }
    let path = std::path::absolute(&args.model).unwrap_or_else(|_| args.model.clone());
    let report = health::check(&args.model, &options);
    let managed = workspace::is_managed(&args.model);
    vec![Entry::new(path.display().to_string(), Some(managed), report)]
}

/// Returns the error that `--strict-exit` makes of the result.
fn failure(data: &Data) -> Option<CommandError> {
    match (data.summary.total, data.unhealthy.as_slice()) {
        (0, _) => Some(CommandError::new(Kind::ModelNotFound, "there is no such model")),
        (_, []) => None,
        (_, [only]) => {
            let text = format!("{} is unhealthy: {}", only.name, only.reason);
            Some(CommandError::new(Kind::InvalidModel, text))
        }
        (_, several) => {
            let text = format!("{} models are unhealthy", several.len());
            Some(CommandError::new(Kind::InvalidModel, text))
        }
    }
}

fn text(data: &Data) -> String {
    let mut text = String::new();
    let Summary { total, healthy_count, unhealthy_count } = data.summary;
    if total != 1 {
        let _ = writeln!(
            text,
            "Summary: total {total}, healthy {healthy_count}, unhealthy {unhealthy_count}"
        );
    }
    for entry in data.healthy.iter().chain(&data.unhealthy) {
        let _ = writeln!(text, "{:<9} {} — {}", entry.status, entry.name, entry.reason);
        for finding in &entry.findings {
            let Finding { code, severity, message, repair, .. } = finding;
            let _ = writeln!(text, "  {:<7} {code}: {message}", severity.name());
            if let Some(repair) = repair {
                let _ = writeln!(text, "          repair: {repair}");
            }
        }
    }
    text
}
