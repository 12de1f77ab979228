//! Conversion: another type, quantization, dequantization, and checkpoints of other programs as MLX
//! has them.
//!
//! [`convert`] goes tensor by tensor from the source's mapped files to those of the destination, so
//! that memory holds a layer at most. `source` names the tensors as mlx-lm does and tells which are
//! layers; `plan` asks a [`QuantPredicate`] about each layer and lists what is to be written, before
//! anything is; `write` makes the bytes; `config` is the configuration; and [`crate::save`] has the
//! files. A [`Recipe`] is a predicate that mlx-lm knows by a name.

mod config;
pub(crate) mod layer;
pub(crate) mod plan;
mod predicate;
mod recipe;
pub(crate) mod source;
mod write;

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_core::io::{Checkpoint, TensorLayout};
use mlx_core::kernels::ScaleSearch;
use mlx_core::{Dtype, QuantMode, Quantization};
use serde_json::Value;

use self::config::ConfigArgs;
use self::plan::{Action, Plan};
use self::predicate::Composed;
use self::recipe::RecipePlan;
use self::source::Source;
use self::write::Writer;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;
use crate::load::open_checkpoint;
use crate::models;
use crate::save::{
    FileSystem, Finish, MAX_SHARD_BYTES, ModelCard, Progress, RealFileSystem, SaveArgs, SaveError,
    Saved, save,
};

pub use predicate::{Decision, LayerInfo, QuantPredicate};
pub use recipe::Recipe;

/// What [`convert`] is to do.
pub struct ConvertArgs<'a> {
    /// The directory of the model.
    pub source: PathBuf,
    /// The directory to be made; nothing may be there.
    pub destination: PathBuf,
    /// Quantizes the layers that are not.
    pub quantize: bool,
    /// How many weights share a scale; 0 or less is the mode's own number.
    pub q_group_size: i32,
    /// Bits of a weight; 0 or less is the mode's own number.
    pub q_bits: i32,
    /// The format.
    pub q_mode: QuantMode,
    /// A mix of bits over the layers; layers that choose among experts stay as their family has them.
    pub recipe: Option<Recipe>,
    /// Decides on each layer, in place of family and recipe.
    pub predicate: Option<&'a mut dyn QuantPredicate>,
    /// How scales are found, in the mode affine.
    pub scale_search: ScaleSearch,
    /// Quantizes layers anew that are quantized already, from what they stand for.
    pub requantize: bool,
    /// The type of all that is not quantized: float16, bfloat16 or float32. `None` is what the configuration
    /// says, else what each tensor has.
    pub dtype: Option<Dtype>,
    /// Unpacks the layers that are quantized.
    pub dequantize: bool,
    /// Goes on where an earlier run of the same options was ended.
    pub resume: bool,
    /// The greatest size of a weight file in bytes.
    pub max_shard_bytes: u64,
    /// What the model card says.
    pub model_card: ModelCard,
    /// The file system.
    pub file_system: &'a dyn FileSystem,
    /// Is called with what is done; [`ControlFlow::Break`] ends the run.
    pub progress: Option<&'a mut dyn FnMut(Progress) -> ControlFlow<()>>,
    /// Looks at the result before it is put in its place, as [`SaveArgs::finish`] says.
    pub finish: Option<Finish<'a>>,
}

impl Default for ConvertArgs<'_> {
    fn default() -> Self {
        ConvertArgs {
            source: PathBuf::new(),
            destination: PathBuf::new(),
            quantize: false,
            q_group_size: 0,
            q_bits: 0,
            q_mode: QuantMode::Affine,
            recipe: None,
            predicate: None,
            scale_search: ScaleSearch::MinMax,
            requantize: false,
            dtype: None,
            dequantize: false,
            resume: false,
            max_shard_bytes: MAX_SHARD_BYTES,
            model_card: ModelCard::default(),
            file_system: &RealFileSystem,
            progress: None,
            finish: None,
        }
    }
}

/// What a conversion made.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The files.
    pub saved: Saved,
    /// The size of the source's weights in bytes.
    pub n_source_bytes: u64,
    /// The size of the weights in bytes.
    pub n_bytes: u64,
    /// Weights, counted before packing.
    pub n_parameters: u64,
    /// Layers that this conversion quantized.
    pub n_quantized: usize,
    /// Layers that it unpacked.
    pub n_dequantized: usize,
    /// Layers that were quantized before and stay so.
    pub n_kept: usize,
    /// Layers that are dense.
    pub n_dense: usize,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Converted {
    /// Returns the bits that a weight takes, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        self.n_bytes as f64 * 8.0 / self.n_parameters.max(1) as f64
    }
}

/// Why a conversion did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Nothing was written: arguments that contradict one another, or a source that cannot be
    /// converted.
    #[error(transparent)]
    NotStarted(#[from] Error),
    /// It was written, and not all of it, or not surely.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// Converts a model.
///
/// A source that is quantized keeps its packed layers but for [`dequantize`](ConvertArgs::dequantize) and
/// [`requantize`](ConvertArgs::requantize), and only its dense ones are quantized.
///
/// # Errors
/// [`ConvertError::NotStarted`] when the destination exists, options contradict one another, the source
/// cannot be read or does not fit its configuration; all of that before a byte is written.
/// [`ConvertError::Save`] from then on.
pub fn convert(mut args: ConvertArgs<'_>) -> Result<Converted, ConvertError> {
    let default = check(&args)?;
    let files = ModelFiles::directory(&args.source)?;
    let config = ModelConfig::load(&files)?;
    let checkpoint = open_checkpoint(&files)?;
    let dtype = args.dtype.or_else(|| declared_dtype(&config.raw));
    let mut source = Source::new(&checkpoint, &config, dtype)?;
    let was_quantized = !source.packed.is_empty();

    let mut composed = Composed(match args.recipe {
        Some(recipe) => {
            let paths = source.layers.iter().map(String::as_str);
            Some(RecipePlan::new(recipe, default.group_size, paths)?)
        }
        None => None,
    });
    let fingerprint = fingerprint(&args, &config.raw, &checkpoint);
    let action = match (args.quantize, args.dequantize) {
        (true, _) => {
            let predicate = args.predicate.take().unwrap_or(&mut composed);
            Action::Quantize { default, predicate, anew: args.requantize }
        }
        (_, true) => Action::Dequantize,
        _ => Action::Keep,
    };
    let plan = Plan::new(&source, action, args.scale_search)?;
    let config_args = ConfigArgs {
        default: match was_quantized {
            _ if args.requantize => Some(default),
            true if source.is_foreign => None,
            true => config.quantization.as_ref().map(|quantization| quantization.default),
            false => args.quantize.then_some(default),
        },
        is_complete: was_quantized,
        eos_token_ids: eos_token_ids(&files),
        drops_vision: models::family(&config).is_ok(),
    };
    let new_config = config::converted(&config.raw, &plan, &config_args);
    let notes = notes(&source, &plan, &args);

    let tensors: Vec<TensorLayout> =
        plan.outputs.iter().map(|(layout, _)| layout.clone()).collect();
    let mut ignore = |_: Progress| ControlFlow::Continue(());
    let save_args = SaveArgs {
        destination: &args.destination,
        tensors: &tensors,
        n_parameters: plan.n_parameters,
        config: &new_config,
        source: Some(&files),
        model_card: args.model_card,
        max_shard_bytes: args.max_shard_bytes,
        resume: args.resume,
        fingerprint: &fingerprint,
        file_system: args.file_system,
        progress: args.progress.unwrap_or(&mut ignore),
        finish: args.finish.map(|finish| finish as Finish<'_>),
    };
    let saved = save(save_args, &mut Writer { source: &mut source, plan: &plan, last: None })?;
    let n_now_packed = plan.layers.values().flatten().count();
    Ok(Converted {
        saved,
        n_source_bytes: checkpoint.total_bytes(),
        n_bytes: plan.n_bytes(),
        n_parameters: plan.n_parameters,
        n_quantized: plan.n_packed,
        n_dequantized: plan.n_unpacked,
        n_kept: n_now_packed - plan.n_packed,
        n_dense: plan.layers.len() - n_now_packed,
        notes,
    })
}

/// Checks what needs no file, and returns what layers are quantized in by default.
fn check(args: &ConvertArgs<'_>) -> Result<Quantization> {
    let refused = |text: &str| Err(Error::new(ErrorKind::InvalidArgument, text));
    // Told at once, not when all is read; a link to nowhere is something, too.
    if !args.resume && std::fs::symlink_metadata(&args.destination).is_ok() {
        let text = format!("{} exists already", args.destination.display());
        return Err(Error::new(ErrorKind::InvalidArgument, text)
            .with_hint("remove it, or give another destination"));
    }
    if args.quantize && args.dequantize {
        return refused("a model is either quantized or dequantized, not both");
    }
    if args.recipe.is_some() && args.predicate.is_some() {
        return refused("a recipe and a predicate both decide on layers; give one");
    }
    if !args.quantize && (args.recipe.is_some() || args.predicate.is_some()) {
        return refused("a recipe says how to quantize, and nothing is to be quantized");
    }
    if args.requantize && !args.quantize {
        return refused("layers are quantized anew only where layers are quantized");
    }
    if args.recipe.is_some() && args.q_mode != QuantMode::Affine {
        return refused("recipes mix bits of the mode affine; there is no other");
    }
    if let Some(dtype) = args.dtype.filter(|dtype| !is_float(*dtype)) {
        let text = format!("weights cannot be {dtype}: float16, bfloat16 and float32 are possible");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let (group_size, bits) = args.q_mode.defaults();
    let given = |number: i32, default: i32| if number > 0 { number } else { default };
    let default = Quantization {
        group_size: given(args.q_group_size, group_size),
        bits: match args.recipe {
            Some(recipe) => recipe.bits()[0],
            None => given(args.q_bits, bits),
        },
        mode: args.q_mode,
    };
    check_quantization(default).map(|()| default)
}

/// Refuses formats that MLX has not.
pub(crate) fn check_quantization(quantization: Quantization) -> Result<()> {
    let Quantization { group_size, bits, mode } = quantization;
    let (own_group_size, own_bits) = mode.defaults();
    let (fits, known) = match mode {
        QuantMode::Affine => (
            matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128),
            "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128".to_owned(),
        ),
        _ => (
            (group_size, bits) == (own_group_size, own_bits),
            format!("{own_bits} bits in groups of {own_group_size}"),
        ),
    };
    if fits {
        return Ok(());
    }
    let text = format!("there is no {quantization}: {mode} has {known}");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Tells whether weights can be of a type.
fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float16 | Dtype::Bfloat16 | Dtype::Float32)
}

/// Returns the type that a configuration names first; another than the three is no wish.
pub(crate) fn declared_dtype(raw: &Value) -> Option<Dtype> {
    let text = raw.get("text_config");
    let places = [Some(raw), text].into_iter().flatten();
    let named = places.flat_map(|config| ["torch_dtype", "dtype"].map(|key| config.get(key)));
    let first = named.flatten().find(|value| !value.is_null())?;
    Dtype::from_name(first.as_str()?).filter(|dtype| is_float(*dtype))
}

/// Returns the tokens that the generation settings name, as mlx-lm takes them: those that are not
/// null, 0 or nothing. Broken settings name none.
fn eos_token_ids(files: &ModelFiles) -> Option<Value> {
    let settings = files.read_json("generation_config.json").ok()??;
    let ids = settings.get("eos_token_id")?;
    let is_any = match ids {
        Value::Number(id) => id.as_u64().is_some_and(|id| id > 0),
        Value::Array(ids) => !ids.is_empty(),
        _ => false,
    };
    is_any.then(|| ids.clone())
}

/// Returns a text that stands for source and options.
fn fingerprint(args: &ConvertArgs<'_>, config: &Value, checkpoint: &Checkpoint) -> String {
    let ConvertArgs { quantize, q_group_size, q_bits, q_mode, recipe, dtype, dequantize, .. } =
        args;
    let mut text = format!(
        "{} {quantize} {q_group_size} {q_bits} {q_mode} {recipe:?} {dtype:?} {dequantize} {:?} {} {} {config}",
        env!("CARGO_PKG_VERSION"),
        args.scale_search,
        args.requantize,
        args.predicate.is_some(),
    );
    for file in checkpoint.files() {
        let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
        let (path, size) = (file.path(), file.mapping().as_slice().len());
        let _ = write!(text, " {} {size} {:?}", path.display(), modified(path));
    }
    text
}

fn notes(source: &Source, plan: &Plan, args: &ConvertArgs<'_>) -> Vec<String> {
    let ConvertArgs { quantize: quantizes, dequantize: dequantizes, requantize, .. } = *args;
    let mut notes = source.notes.clone();
    let layers = |n: usize| if n == 1 { "1 layer".to_owned() } else { format!("{n} layers") };
    if quantizes && !requantize && !source.packed.is_empty() {
        let n = source.packed.len();
        notes.push(format!("{} of the source are quantized and stay as they are", layers(n)));
    }
    let gains = |(path, before): (&String, &Quantization)| {
        let after = plan.layers.get(path).copied().flatten();
        after.is_some_and(|after| after.bits > before.bits)
    };
    let n_raised = source.packed.iter().filter(|layer| gains(*layer)).count();
    if n_raised > 0 {
        let n = layers(n_raised);
        notes
            .push(format!("{n} have more bits than in the source, which adds size and no quality"));
    }
    if quantizes && plan.n_packed == 0 {
        notes.push("no layer was quantized".to_owned());
    }
    if plan.n_unfit > 0 {
        let n = plan.n_unfit;
        notes.push(format!("{} stay dense: rows are no multiple of the group size", layers(n)));
    }
    if dequantizes && plan.n_unpacked == 0 {
        notes.push("no layer of the source is quantized".to_owned());
    }
    notes
}
