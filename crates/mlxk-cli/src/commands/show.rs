//! `mlxk show`.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::error::{CommandError, Kind};
use crate::model;
use crate::output::{Bytes, Count, Output};

mod report;

use report::{Metadata, Report, Weights};

/// Show what a model is made of
///
/// Reads the configuration, the tokenizer, and the headers of the weight files, which are checked
/// in full; the weights themselves are not read. A damaged model is shown as far as it can be
/// read, and the exit code is 4.
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

    /// Print config.json
    #[arg(long)]
    config: bool,
}

fn supported() -> String {
    let names: Vec<&str> = mlx_lm::models::model_types().collect();
    format!("Model types that run here:\n  {}", names.join(", "))
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let files = model::files(&args.model)?;
    let (report, error) = Report::gather(&files, args.config, args.weights);
    match (output.is_json(), error) {
        (true, None) => output.success("show", &report),
        (true, Some(error)) => {
            let data = serde_json::to_value(&report);
            Err(error.data(data.map_err(|e| CommandError::new(Kind::General, e))?))
        }
        (false, error) => {
            output.write(&text(&report, args))?;
            error.map_or(Ok(()), Err)
        }
    }
}

fn text(report: &Report, args: &Args) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label}: {value}");
    };
    let model = &report.model;
    line("Model", model.name.clone());
    line("Framework", model.framework.to_owned());
    line("Type", model.model_type.to_owned());
    line("Capabilities", model.capabilities.join(", "));
    if let Some(quantization) = &report.quantization {
        line("Quantization", quantization.clone());
    }
    line("Size", Bytes(model.size_bytes).to_string());
    if let Some(modified) = &model.last_modified {
        line("Modified", modified.clone());
    }
    line("Health", model.health.to_owned());
    line("Runs here", if model.runtime_compatible { "yes" } else { "no" }.to_owned());
    for problem in &report.problems {
        line("Problem", problem.clone());
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
