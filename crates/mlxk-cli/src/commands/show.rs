//! `mlxk show`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::describe::{Health, managed};
use crate::error::{CommandError, Kind};
use crate::model;
use crate::output::{Bytes, Count, Output, printable};
use crate::resolve::Resolved;
use crate::table::relative_time;

mod report;

pub(crate) use report::Report;
use report::{Metadata, Weights};

/// Show what a model is made of
///
/// Reads the configuration, the tokenizer, and the headers of the weight files, which are checked
/// in full; the weights themselves are not read. A damaged model is shown as far as it can be read.
#[derive(clap::Args)]
#[command(after_help = supported())]
pub(crate) struct Args {
    /// The model: a name in the cache or a part of one, a directory, or `demo`
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    model: PathBuf,

    /// List all files
    #[arg(long)]
    files: bool,

    /// List all tensors, and what becomes of them
    #[arg(long)]
    weights: bool,

    /// Take the present content of a managed workspace for its clean state
    #[arg(long)]
    recalc_hash: bool,

    /// Print config.json
    #[arg(long)]
    config: bool,
}

fn supported() -> String {
    let names: Vec<&str> = mlx_lm::models::model_types().collect();
    format!("Model types that run here:\n  {}", names.join(", "))
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let resolved = model::resolve(&args.model)?;
    let files = resolved.files()?;
    let hash_updated = args.recalc_hash && pin(&resolved, output)?;
    let report = Report::gather(&resolved, &files, args.config, args.weights);
    let report = Report { hash_updated, ..report };
    if report.model.health == Health::Unhealthy {
        output.verdict(Kind::InvalidModel);
    } else if !report.model.runtime_compatible {
        output.verdict(Kind::Unsupported);
    }
    match output.is_json() {
        true => output.success("show", &report),
        false => output.write(&printable(&text(&report, args))),
    }
}

/// Takes the present content of a managed workspace for its clean state.
fn pin(resolved: &Resolved, output: &Output) -> Result<bool, CommandError> {
    let workspace = match resolved {
        Resolved::Workspace(dir) => managed(dir).map(|sentinel| (dir, sentinel)),
        Resolved::Demo | Resolved::Cached(_) => None,
    };
    let Some((dir, mut sentinel)) = workspace else {
        output.warning("--recalc-hash is for managed workspaces, which this is not");
        return Ok(false);
    };
    let pinned = sentinel.pin(dir).and_then(|()| sentinel.write(dir));
    pinned.map_err(|error| CommandError::file(dir, &error)).map(|()| true)
}

fn text(report: &Report, args: &Args) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label}: {value}");
    };
    let model = &report.model;
    let hash = model.hash.as_deref().and_then(|hash| hash.get(..7));
    line("Model", hash.map_or(model.name.clone(), |hash| format!("{}@{hash}", model.name)));
    line("Framework", model.framework.name().to_owned());
    line("Type", model.model_type.name().to_owned());
    let capabilities: Vec<&str> = model.capabilities.iter().map(|c| c.name()).collect();
    line("Capabilities", capabilities.join(", "));
    if let Some(quantization) = &report.quantization {
        line("Quantization", quantization.clone());
    }
    line("Size", Bytes(model.size_bytes).to_string());
    if let Some(modified) = &model.last_modified {
        line("Modified", relative_time(modified, jiff::Timestamp::now()));
    }
    line("Health", model.health.name().to_owned());
    line("Runs here", if model.runtime_compatible { "yes" } else { "no" }.to_owned());
    for problem in &report.problems {
        line("Reason", problem.clone());
    }
    for finding in &report.findings {
        line(
            "Finding",
            format!("{} {}: {}", finding.severity.name(), finding.code, finding.message),
        );
        if let Some(repair) = &finding.repair {
            line("Repair", repair.clone());
        }
    }
    text += "Metadata:\n";
    for (name, value) in metadata(&report.metadata) {
        let _ = writeln!(text, "  {name}: {value}");
    }
    if let Some(weights) = &report.weights {
        text += &weights_text(weights);
    }
    if let Some(tensors) = &report.tensors {
        text += "Tensors:\n";
        for tensor in tensors {
            let _ = writeln!(text, "  {}", tensor.line());
        }
    }
    if args.files {
        text += "Files:\n";
        for file in &report.files {
            let _ = writeln!(text, "  {:>9}  {:<9}  {}", file.size, file.kind, file.name);
        }
    }
    if let Some(config) = &report.config {
        let config = serde_json::to_string_pretty(config).unwrap_or_default();
        let _ = writeln!(text, "Config:\n  {}", config.replace('\n', "\n  "));
    }
    if let Some(workspace) = &report.workspace_metadata {
        text += &workspace_text(workspace, report.model.clean);
    }
    text
}

fn workspace_text(workspace: &Value, clean: Option<bool>) -> String {
    let known = [
        ("source", "source_repo"),
        ("operation", "operation"),
        ("created", "created_at"),
        ("content hash", "content_hash"),
        ("hash modified", "hash_modified"),
    ];
    let mut text = "Workspace:\n".to_owned();
    for (label, key) in known {
        if let Some(value) = workspace.get(key).and_then(Value::as_str) {
            let _ = writeln!(text, "  {label}: {value}");
        }
    }
    if let Some(clean) = clean {
        let _ = writeln!(text, "  clean: {}", if clean { "yes" } else { "no, it was changed" });
    }
    text
}

/// Returns the known entries, in the order in which they are shown.
fn metadata(metadata: &Metadata) -> Vec<(&'static str, String)> {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let heads = metadata.num_attention_heads.map(|heads| match metadata.num_key_value_heads {
        Some(kv) if kv != heads => format!("{heads} ({kv} for keys and values)"),
        _ => heads.to_string(),
    });
    let eos = metadata.eos_token_ids.iter().zip(&metadata.eos_tokens);
    let eos: Vec<String> = eos.map(|(id, token)| format!("{token} ({id})")).collect();
    let template = match metadata.chat_template {
        true => "yes",
        false => "no",
    };
    let thinking = metadata.thinking.as_ref().map(|t| format!("{} … {}", t.start, t.end));
    let entries = [
        ("model type", metadata.model_type.clone()),
        ("architecture", metadata.architecture.clone()),
        ("parameters", metadata.n_parameters.map(|n| Count(n).to_string())),
        ("bits per weight", metadata.bits_per_weight.map(|bits| format!("{bits:.2}"))),
        ("dtype", metadata.dtype.map(str::to_owned)),
        ("context length", number(metadata.context_length)),
        ("vocabulary", number(metadata.vocab_size)),
        ("layers", number(metadata.num_hidden_layers)),
        ("hidden size", number(metadata.hidden_size)),
        ("attention heads", heads),
        ("end tokens", (!eos.is_empty()).then(|| eos.join(", "))),
        ("chat template", Some(template.to_owned())),
        ("thinking", thinking),
    ];
    entries.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn weights_text(weights: &Weights) -> String {
    const MOST: usize = 5;
    let Weights { files, tensors, total_bytes, index_disagreements: disagreements } = weights;
    let files_word = if *files == 1 { "file" } else { "files" };
    let total = Bytes(*total_bytes);
    let mut text = format!("Weights: {tensors} tensors in {files} {files_word}, {total}\n");
    for disagreement in disagreements.iter().take(MOST) {
        let _ = writeln!(text, "  {disagreement}");
    }
    if disagreements.len() > MOST {
        let _ = writeln!(text, "  and {} more disagreements", disagreements.len() - MOST);
    }
    text
}
