//! What `mlxk convert` does to weights: quantize, unpack, bring to another type.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mlx_lm::convert::{ConvertArgs, ConvertError, Converted, QuantPredicate, Recipe, convert};
use mlx_lm::core::QuantMode;
use mlx_lm::core::kernels::{Arithmetic, ScaleSearch};
use mlx_lm::files::ModelFiles;
use mlx_lm::quality::{self, Assignment, CALIBRATION, CompareArgs, Sensitivities, SensitivityArgs};
use mlx_lm::save::{Progress, SaveError};
use mlx_lm::tokenizer::Tokenizer;
use mlx_lm::{Error, ErrorKind};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::compare::Report;
use super::super::perplexity;
use super::{Data, Making, headline};
use crate::cli::Precision;
use crate::error::{CommandError, Kind};
use crate::interrupt::Interrupt;
use crate::output::{Bytes, Output, printable};
use crate::progress::Progress as Bar;

/// What to do to the weights.
#[derive(clap::Args)]
#[group(id = "weights", multiple = true, conflicts_with = "repair")]
pub(super) struct WeightsArgs {
    /// Quantize to this many bits: 2, 3, 4, 5, 6 or 8
    #[arg(long, visible_alias = "q-bits", value_name = "BITS", allow_negative_numbers = true)]
    quantize: Option<i32>,

    /// How many weights share a scale: 32, 64 or 128 [default: the mode's own]
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    #[arg(hide_default_value = true)]
    q_group_size: i32,

    /// The format of quantized weights
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Affine)]
    q_mode: Mode,

    /// Mix bits: the second number where it matters most, the first elsewhere
    #[arg(long, value_enum, value_name = "RECIPE", conflicts_with = "dequantize")]
    mixed_recipe: Option<MixedRecipe>,

    /// Mix bits so that a weight takes this many on average, scales included: those layers get more
    /// that suffer most from few, which is measured on the calibration text
    #[arg(long, value_name = "BITS", conflicts_with_all = ["quantize", "mixed_recipe", "dequantize"])]
    target_bpw: Option<f64>,

    /// The text to measure on; `-` reads stdin [default: a text of the program's]
    #[arg(long, value_name = "TEXT", value_hint = clap::ValueHint::FilePath)]
    calibration: Option<PathBuf>,

    /// Measure what the conversion cost, as `mlxk compare` does
    #[arg(long)]
    report: bool,

    /// How scales are found, in the mode affine
    #[arg(long, value_enum, value_name = "SEARCH", default_value_t = Search::MinMax)]
    scale_search: Search,

    /// Quantize layers anew that are quantized already, from what they stand for
    #[arg(long, conflicts_with = "dequantize")]
    requantize: bool,

    /// The type of all that is not quantized [default: what config.json says]
    #[arg(long, value_enum)]
    dtype: Option<Precision>,

    /// Unpack quantized layers
    #[arg(long, conflicts_with = "quantize")]
    dequantize: bool,

    /// Go on where an earlier run of the same command was ended
    #[arg(long)]
    resume: bool,
}

impl WeightsArgs {
    /// Returns the name of the mode, if one was asked for.
    pub(super) fn mode(&self) -> Option<&'static str> {
        match (self.quantizes(), self.dequantize, self.dtype) {
            (true, ..) => Some("quantize"),
            (_, true, _) => Some("dequantize"),
            (.., Some(_)) => Some("cast"),
            _ => None,
        }
    }

    fn quantizes(&self) -> bool {
        self.quantize.is_some() || self.mixed_recipe.is_some() || self.target_bpw.is_some()
    }

    fn calibration(&self) -> Result<String, CommandError> {
        match &self.calibration {
            Some(file) => perplexity::read(file),
            None => Ok(CALIBRATION.to_owned()),
        }
    }
}

/// Tokens of the calibration text on which layers are measured, each of which takes a run of the model.
const N_TOKENS: usize = 256;

/// How scales are found.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Search {
    /// From the least and the greatest weight of a group, as mlx-lm does
    MinMax,
    /// By least squares, over ranges that leave out the farthest weights
    LeastSquares,
}

impl From<Search> for ScaleSearch {
    fn from(search: Search) -> ScaleSearch {
        match search {
            Search::MinMax => ScaleSearch::MinMax,
            Search::LeastSquares => ScaleSearch::LeastSquares,
        }
    }
}

/// The formats of quantized weights.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    Affine,
    Mxfp4,
    Nvfp4,
    Mxfp8,
}

impl From<Mode> for QuantMode {
    fn from(mode: Mode) -> QuantMode {
        match mode {
            Mode::Affine => QuantMode::Affine,
            Mode::Mxfp4 => QuantMode::Mxfp4,
            Mode::Nvfp4 => QuantMode::Nvfp4,
            Mode::Mxfp8 => QuantMode::Mxfp8,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum MixedRecipe {
    #[value(name = "mixed_2_6")]
    Mixed2_6,
    #[value(name = "mixed_3_4")]
    Mixed3_4,
    #[value(name = "mixed_3_6")]
    Mixed3_6,
    #[value(name = "mixed_4_6")]
    Mixed4_6,
}

impl From<MixedRecipe> for Recipe {
    fn from(recipe: MixedRecipe) -> Recipe {
        match recipe {
            MixedRecipe::Mixed2_6 => Recipe::Mixed2_6,
            MixedRecipe::Mixed3_4 => Recipe::Mixed3_4,
            MixedRecipe::Mixed3_6 => Recipe::Mixed3_6,
            MixedRecipe::Mixed4_6 => Recipe::Mixed4_6,
        }
    }
}

/// What became of the weights.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "converted_weights")]
pub(super) struct Weights {
    n_parameters: u64,
    source_bytes: u64,
    size_bytes: u64,
    bits_per_weight: f64,
    quantized_layers: usize,
    dequantized_layers: usize,
    kept_layers: usize,
    dense_layers: usize,
    weight_files: usize,
    resumed_files: usize,
}

impl From<&Converted> for Weights {
    fn from(converted: &Converted) -> Weights {
        Weights {
            n_parameters: converted.n_parameters,
            source_bytes: converted.n_source_bytes,
            size_bytes: converted.n_bytes,
            bits_per_weight: converted.bits_per_weight(),
            quantized_layers: converted.n_quantized,
            dequantized_layers: converted.n_dequantized,
            kept_layers: converted.n_kept,
            dense_layers: converted.n_dense,
            weight_files: converted.saved.n_shards,
            resumed_files: converted.saved.n_resumed_shards,
        }
    }
}

pub(super) fn run(making: &Making<'_>, output: &Output) -> Result<(), CommandError> {
    let args = &making.args.weights;
    // Before any work is done.
    let text = args.calibration()?;
    let interrupt = Interrupt::catch()?;
    let is_asked = interrupt.flag();
    let mut assignment = match args.target_bpw {
        Some(target) => Some(assign(making, target, &text, &is_asked, output)?),
        None => None,
    };
    let bar = Bar::bytes("converting", 0, output);
    let mut progress = |progress: Progress| {
        bar.set_total(progress.n_total_bytes);
        bar.skip(progress.n_resumed_bytes);
        bar.set(progress.n_bytes);
        match is_asked.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let mut data = making.data();
    let refused = RefCell::new(None);
    let mut finish = |dir: &Path| {
        (data.bits, data.group_size) = quantization(dir);
        making.finish(dir, &mut data).map_err(|error| {
            let text = error.to_string();
            *refused.borrow_mut() = Some(error);
            Error::new(ErrorKind::Format, text)
        })
    };
    let converted = convert(ConvertArgs {
        source: making.source.clone(),
        destination: making.target.clone(),
        quantize: args.quantizes(),
        q_group_size: args.q_group_size,
        q_bits: args.quantize.unwrap_or(0),
        q_mode: args.q_mode.into(),
        recipe: args.mixed_recipe.map(Into::into),
        predicate: assignment.as_mut().map(|assignment| assignment as &mut dyn QuantPredicate),
        scale_search: args.scale_search.into(),
        requantize: args.requantize,
        dtype: args.dtype.map(Into::into),
        dequantize: args.dequantize,
        resume: args.resume,
        progress: Some(&mut progress),
        finish: Some(&mut finish),
        ..ConvertArgs::default()
    });
    drop(bar);
    let converted = converted.map_err(|error| failure(error, refused.take()))?;
    data.warning = (!converted.notes.is_empty()).then(|| converted.notes.join("; "));
    let bits_per_weight = converted.bits_per_weight();
    data.message = format!("{bits_per_weight:.3} bits per weight");
    data.weights = Some((&converted).into());
    if args.report {
        data.quality = Some(report(making, &text)?);
    }
    if output.is_json() {
        return output.success("convert", &data);
    }
    for note in &converted.notes {
        output.warning(note);
    }
    output.write(&printable(&self::text(&data, &converted)))
}

/// Shares out bits over the layers of the source.
fn assign(
    making: &Making<'_>,
    target: f64,
    text: &str,
    is_asked: &AtomicBool,
    output: &Output,
) -> Result<Assignment, CommandError> {
    let args = &making.args.weights;
    // Conversion would say so, too, but only after minutes of measuring.
    if !args.resume && making.target.symlink_metadata().is_ok() {
        let text = format!("{} exists already", making.target.display());
        return Err(CommandError::usage(text).hint("remove it, or give another destination"));
    }
    if !matches!(args.q_mode, Mode::Affine) {
        return Err(CommandError::usage("--target-bpw mixes bits of the mode affine"));
    }
    let group_size = match args.q_group_size {
        size if size > 0 => size,
        _ => QuantMode::Affine.defaults().0,
    };
    let files = ModelFiles::directory(&making.source)?;
    let mut token_ids = Tokenizer::load(&files)?.encode(text, true)?;
    token_ids.truncate(N_TOKENS);
    let bar = Bar::steps("measuring layers", 0, output);
    let mut progress = |done: usize, total: usize| {
        bar.set_total(total as u64);
        bar.set(done as u64);
        match is_asked.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let sensitivities = Sensitivities::measure(SensitivityArgs {
        files: &files,
        token_ids: &token_ids,
        group_size,
        scale_search: args.scale_search.into(),
        dtype: args.dtype.map(Into::into),
        progress: &mut progress,
    })?;
    Ok(sensitivities.assign(target)?)
}

/// Measures what is in its place by now beside the source.
fn report(making: &Making<'_>, text: &str) -> Result<Report, CommandError> {
    const N_LAYERS: usize = 5;
    let reference = ModelFiles::directory(&making.source)?;
    let other = ModelFiles::directory(&making.target)?;
    let arithmetic = Arithmetic::Fast;
    let args = CompareArgs { reference: &reference, other: &other, text, arithmetic };
    let found = quality::compare(args).map_err(|error| {
        let error = CommandError::from(error);
        error.hint(format!("{} is whole; only the report failed", making.target.display()))
    })?;
    Ok(Report::new(&found, N_LAYERS))
}

/// Returns the bits and the group size that a configuration names for all layers.
fn quantization(dir: &Path) -> (Option<i32>, Option<i32>) {
    let config: Option<serde_json::Value> =
        std::fs::read(dir.join("config.json")).ok().and_then(|c| serde_json::from_slice(&c).ok());
    let number = |key: &str| {
        let number = config.as_ref()?.get("quantization")?.get(key)?.as_i64()?;
        i32::try_from(number).ok()
    };
    (number("bits"), number("group_size"))
}

/// Makes the error of a conversion; `refused` is why its result was.
fn failure(error: ConvertError, refused: Option<CommandError>) -> CommandError {
    let error = match error {
        ConvertError::NotStarted(error) => return error.into(),
        ConvertError::Save(error) => error,
    };
    let SaveError::NotCommitted { .. } = error else {
        // The model is there, for now or in part.
        return CommandError { kind: Kind::General, ..Error::from(error).into() };
    };
    match refused {
        Some(refused) => error.hints().into_iter().fold(refused, CommandError::hint),
        None => Error::from(error).into(),
    }
}

fn text(data: &Data, converted: &Converted) -> String {
    let mut text = headline(data);
    let (before, after) = (Bytes(converted.n_source_bytes), Bytes(converted.n_bytes));
    let _ = writeln!(text, "  size: {after}, before {before}");
    for (label, n) in [
        ("quantized layers", converted.n_quantized),
        ("unpacked layers", converted.n_dequantized),
        ("layers quantized before", converted.n_kept),
        ("dense layers", converted.n_dense),
    ] {
        if n > 0 {
            let _ = writeln!(text, "  {label}: {n}");
        }
    }
    text + &data.quality.as_ref().map(Report::text).unwrap_or_default()
}
