//! `mlxk compare`.

use std::fmt::Write as _;
use std::path::PathBuf;

use mlx_lm::core::kernels::Arithmetic;
use mlx_lm::quality::{self, CALIBRATION, CompareArgs, Comparison, LayerError, Size};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::CommandError;
use crate::model;
use crate::output::{Bytes, Output, printable};

/// Measure what quantization cost: a model beside the one it was made of
///
/// Both predict the same text. Reported are their sizes, their perplexities, the Kullback-Leibler
/// divergence of OTHER's predictions from REFERENCE's (mean, and what 99 % of them do not exceed),
/// how often both find the same token likeliest, and the layers whose weights are farthest off, by
/// the norm of the difference as a part of the norm of the weights.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model that the other was made of: a cached name, a directory, or `demo`
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    reference: PathBuf,

    /// The other model
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    other: PathBuf,

    /// The text to predict; `-` reads stdin [default: a text of the program's]
    #[arg(long, value_name = "TEXT", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Compute exactly, not with activations rounded to 8 bits as on CPUs by default
    #[arg(long)]
    exact: bool,

    /// How many layers to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    layers: usize,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "compare")]
pub(crate) struct Data {
    reference: Side,
    other: Side,
    #[serde(flatten)]
    report: Report,
}

/// One of the two.
#[derive(Serialize, JsonSchema)]
struct Side {
    model: String,
    size_bytes: u64,
    n_parameters: u64,
    bits_per_weight: f64,
    perplexity: f64,
}

/// What was measured.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "quality")]
pub(super) struct Report {
    tokens: usize,
    reference_perplexity: f64,
    perplexity: f64,
    /// Mean Kullback–Leibler divergence, in nats.
    mean_kl: f64,
    /// The divergence that 99 % of the predictions do not exceed.
    kl_99: f64,
    /// How often both find the same token likeliest, as a part of 1.
    same_top: f64,
    /// The layers that are farthest off.
    worst_layers: Vec<Layer>,
    /// How many layers differ.
    n_differing_layers: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "layer_error")]
struct Layer {
    path: String,
    bits: Option<i32>,
    group_size: Option<i32>,
    mode: Option<String>,
    relative_error: f64,
}

impl From<&LayerError> for Layer {
    fn from(layer: &LayerError) -> Layer {
        Layer {
            path: layer.path.clone(),
            bits: layer.quantization.map(|q| q.bits),
            group_size: layer.quantization.map(|q| q.group_size),
            mode: layer.quantization.map(|q| q.mode.to_string()),
            relative_error: layer.relative_error,
        }
    }
}

impl Report {
    pub(super) fn new(found: &Comparison, n_layers: usize) -> Report {
        let divergence = &found.divergence;
        Report {
            tokens: found.n_tokens,
            reference_perplexity: divergence.reference_perplexity,
            perplexity: divergence.perplexity,
            mean_kl: divergence.mean_kl,
            kl_99: divergence.kl_99,
            same_top: divergence.same_top,
            worst_layers: found.layers.iter().take(n_layers).map(Into::into).collect(),
            n_differing_layers: found.layers.len(),
        }
    }

    /// Returns the figures but for sizes, a line each.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let Report { reference_perplexity: before, perplexity: after, .. } = *self;
        let change = 100.0 * (after / before - 1.0);
        let _ = writeln!(text, "  perplexity: {after:.4}, before {before:.4} ({change:+.2} %)");
        let _ = writeln!(text, "  mean KL: {:.3e}", self.mean_kl);
        let _ = writeln!(text, "  99 % KL: {:.3e}", self.kl_99);
        let _ = writeln!(text, "  same top token: {:.2} %", 100.0 * self.same_top);
        text + &self.layers_text()
    }

    fn layers_text(&self) -> String {
        let mut text = String::new();
        if self.n_differing_layers == 0 {
            return "  no layer differs\n".to_owned();
        }
        if !self.worst_layers.is_empty() {
            let n = self.n_differing_layers;
            let _ = writeln!(text, "  farthest of {n} layers, by relative error:");
        }
        let width = self.worst_layers.iter().map(|layer| layer.path.len()).max().unwrap_or(0);
        for layer in &self.worst_layers {
            let format = match (layer.bits, layer.group_size, &layer.mode) {
                (Some(bits), Some(group_size), Some(mode)) => {
                    format!("{mode} {bits}-bit, groups of {group_size}")
                }
                _ => "dense".to_owned(),
            };
            let Layer { path, relative_error, .. } = layer;
            let _ = writeln!(text, "    {path:width$}  {relative_error:.5}  {format}");
        }
        text
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let text = match &args.file {
        Some(file) => super::perplexity::read(file)?,
        None => CALIBRATION.to_owned(),
    };
    let [reference, other] = [&args.reference, &args.other].map(|model| model::files(model));
    let (reference, other) = (reference?, other?);
    let arithmetic = if args.exact { Arithmetic::Exact } else { Arithmetic::Fast };
    let found = quality::compare(CompareArgs {
        reference: &reference,
        other: &other,
        text: &text,
        arithmetic,
    })?;
    let side = |model: &PathBuf, size: Size, perplexity| Side {
        model: model.display().to_string(),
        size_bytes: size.n_bytes,
        n_parameters: size.n_parameters,
        bits_per_weight: size.bits_per_weight(),
        perplexity,
    };
    let divergence = &found.divergence;
    let data = Data {
        reference: side(&args.reference, found.reference, divergence.reference_perplexity),
        other: side(&args.other, found.other, divergence.perplexity),
        report: Report::new(&found, args.layers),
    };
    for note in &found.notes {
        output.warning(note);
    }
    match output.is_json() {
        true => output.success("compare", &data),
        false => output.write(&printable(&self::text(&data))),
    }
}

fn text(data: &Data) -> String {
    let mut text = String::new();
    let Report { mean_kl, kl_99, same_top, tokens, .. } = data.report;
    let rows = [
        ["", "reference", "other"].map(str::to_owned),
        row("size", data, |side| Bytes(side.size_bytes).to_string()),
        row("bits per weight", data, |side| format!("{:.3}", side.bits_per_weight)),
        row("perplexity", data, |side| format!("{:.4}", side.perplexity)),
        ["mean KL".to_owned(), String::new(), format!("{mean_kl:.3e}")],
        ["99 % KL".to_owned(), String::new(), format!("{kl_99:.3e}")],
        ["same top token".to_owned(), String::new(), format!("{:.2} %", 100.0 * same_top)],
    ];
    let _ = writeln!(text, "{} and {}, {tokens} tokens", data.reference.model, data.other.model);
    for [name, reference, other] in rows {
        let _ = writeln!(text, "  {name:<15}  {reference:>10}  {other:>10}");
    }
    text + &data.report.layers_text()
}

fn row(name: &str, data: &Data, value: impl Fn(&Side) -> String) -> [String; 3] {
    [name.to_owned(), value(&data.reference), value(&data.other)]
}
