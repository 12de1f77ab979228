//! `mlxk convert`.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mlx_lm::convert::{ConvertArgs, ConvertError, Converted, Recipe, convert};
use mlx_lm::core::QuantMode;
use mlx_lm::save::{Progress, SaveError};
use serde::Serialize;

use crate::cli::Precision;
use crate::error::{CommandError, Kind};
use crate::interrupt::Interrupt;
use crate::output::{Bytes, Output};

/// Quantize a model, unpack a quantized one, or bring it to another type
///
/// SOURCE stays as it is. DESTINATION appears when all of it is on the disk, and not before; until then the
/// work lies beside it, where --resume finds it. Layers of SOURCE that are quantized already stay so, whoever
/// quantized them; --dequantize unpacks them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory with the model's files
    #[arg(value_hint = clap::ValueHint::DirPath)]
    source: PathBuf,

    /// The directory to be made; nothing may be there
    #[arg(value_hint = clap::ValueHint::DirPath)]
    destination: PathBuf,

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

#[derive(Serialize)]
struct Data<'a> {
    source: String,
    destination: String,
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
    notes: &'a [String],
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let interrupt = Interrupt::catch()?;
    let is_asked = interrupt.flag();
    let bar = progress_bar(output);
    let mut progress = |progress: Progress| {
        bar.set_length(progress.n_total_bytes);
        if progress.n_resumed_bytes > 0 && bar.position() == 0 {
            // What was there says nothing about how fast the rest goes.
            bar.set_position(progress.n_resumed_bytes);
            bar.reset_eta();
        }
        bar.set_position(progress.n_bytes);
        match is_asked.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let converted = convert(ConvertArgs {
        source: args.source.clone(),
        destination: args.destination.clone(),
        quantize: args.quantize.is_some() || args.mixed_recipe.is_some(),
        q_group_size: args.q_group_size,
        q_bits: args.quantize.unwrap_or(0),
        q_mode: args.q_mode.into(),
        recipe: args.mixed_recipe.map(Into::into),
        dtype: args.dtype.map(Into::into),
        dequantize: args.dequantize,
        resume: args.resume,
        progress: Some(&mut progress),
        ..ConvertArgs::default()
    });
    bar.finish_and_clear();
    let converted = converted.map_err(|error| failure(args, error))?;
    report(args, &converted, output)
}

/// Bytes, rate and time left on stderr, if that is a terminal.
fn progress_bar(output: &Output) -> ProgressBar {
    let target = match output.is_json() {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let template =
        "{bar:30} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn failure(args: &Args, error: ConvertError) -> CommandError {
    let error = match error {
        ConvertError::NotStarted(error) if error.kind() == mlx_lm::ErrorKind::NotFound => {
            let kind = match args.source.exists() {
                true => Kind::InvalidModel,
                false => Kind::ModelNotFound,
            };
            return CommandError { kind, ..CommandError::from(error) };
        }
        ConvertError::NotStarted(error) => return error.into(),
        ConvertError::Save(error) => error,
    };
    match error {
        SaveError::NotCommitted { .. } => CommandError::from(mlx_lm::Error::from(error)),
        // The model is there, for now or in part.
        error => CommandError { kind: Kind::General, ..mlx_lm::Error::from(error).into() },
    }
}

fn report(args: &Args, converted: &Converted, output: &Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.success(
            "convert",
            &Data {
                source: args.source.display().to_string(),
                destination: args.destination.display().to_string(),
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
                notes: &converted.notes,
            },
        );
    }
    for note in &converted.notes {
        output.warning(note);
    }
    let mut text = String::new();
    let (before, after) = (Bytes(converted.n_source_bytes), Bytes(converted.n_bytes));
    let _ = writeln!(text, "{}", args.destination.display());
    let _ = writeln!(text, "  size: {after}, before {before}");
    let _ = writeln!(text, "  bits per weight: {:.3}", converted.bits_per_weight());
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
    output.write(&text)
}
