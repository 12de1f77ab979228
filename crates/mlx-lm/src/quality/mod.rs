//! What quantization costs: a model beside the one that it was made of, and bits where they matter.
//!
//! [`compare`] lets both predict a text and looks at each layer's weights. [`Sensitivities`] says how
//! much each layer of a model suffers from few bits, and shares out bits so that the whole suffers
//! least; conversion takes what comes out as its predicate. Both work on files, and on a text:
//! [`CALIBRATION`] is one for those who have none of their own.

mod layers;
mod sensitivity;

use mlx_core::Dtype;
use mlx_core::kernels::Arithmetic;

pub use layers::LayerError;
pub use sensitivity::{Assignment, LayerSensitivity, Sensitivities, SensitivityArgs};

use crate::config::ModelConfig;
use crate::convert::source::Source;
use crate::divergence::{Divergence, Run, divergence};
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;
use crate::load::{LoadOptions, Loaded, load, open_checkpoint};

/// Prose, dialogue, code, tables and several languages: a text to measure on where nothing is known of
/// what a model is for.
pub const CALIBRATION: &str = include_str!("calibration.txt");

/// What [`compare`] compares.
pub struct CompareArgs<'a> {
    /// The model that the other was made of.
    pub reference: &'a ModelFiles,
    /// The other.
    pub other: &'a ModelFiles,
    /// The text that both predict.
    pub text: &'a str,
    /// How products with packed weights are computed, on a CPU.
    pub arithmetic: Arithmetic,
}

/// A model beside the one that it was made of.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The reference.
    pub reference: Size,
    /// The other.
    pub other: Size,
    /// How many tokens the text has.
    pub n_tokens: usize,
    /// What both predict.
    pub divergence: Divergence,
    /// The layers whose weights differ, the farthest first.
    pub layers: Vec<LayerError>,
    /// What the user should know of either model, and of layers that only one of them has.
    pub notes: Vec<String>,
}

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Weights, counted before packing.
    pub n_parameters: u64,
    /// The size of the weights in bytes.
    pub n_bytes: u64,
}

impl Size {
    /// Returns the bits that a weight takes, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        self.n_bytes as f64 * 8.0 / self.n_parameters.max(1) as f64
    }
}

/// Compares a model with the one that it was made of.
///
/// ```
/// use mlx_core::kernels::Arithmetic;
/// use mlx_lm::files::ModelFiles;
/// use mlx_lm::quality::{CompareArgs, compare};
///
/// # fn main() -> mlx_lm::Result<()> {
/// # let demo = ModelFiles::embedded("demo", fixtures::demo::FILES);
/// let text = "The capital of France is Paris.";
/// let arithmetic = Arithmetic::Exact;
/// let found = compare(CompareArgs { reference: &demo, other: &demo, text, arithmetic })?;
/// assert_eq!(found.divergence.mean_kl, 0.0);
/// assert!(found.layers.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When either cannot be loaded, their tokenizers make other tokens of the text, or it has fewer than
/// two.
pub fn compare(args: CompareArgs<'_>) -> Result<Comparison> {
    let CompareArgs { reference, other, text, arithmetic } = args;
    let [a, b] = [reference, other].map(|files| load(files, &LoadOptions::default()));
    let (a, b) = (a?, b?);
    let token_ids = tokens(&a, &b, text)?;
    let sizes = [size(&a), size(&b)];
    let mut notes = [a.notes.clone(), b.notes.clone()].concat();
    let [p, q] = [&a, &b].map(|loaded| Run { model: &loaded.model, arithmetic });
    let divergence = divergence(p, q, &token_ids)?;
    // What they hold in memory is not needed any more.
    drop((a, b));
    let (layers, more) = layers::errors(reference, other)?;
    notes.extend(more);
    notes.sort();
    notes.dedup();
    let [reference, other] = sizes;
    Ok(Comparison { reference, other, n_tokens: token_ids.len(), divergence, layers, notes })
}

fn size(loaded: &Loaded) -> Size {
    Size { n_parameters: loaded.model.n_parameters(), n_bytes: loaded.model.weight_bytes() }
}

fn tokens(a: &Loaded, b: &Loaded, text: &str) -> Result<Vec<u32>> {
    let ids = a.tokenizer.encode(text, true)?;
    if b.tokenizer.encode(text, true)? != ids {
        let text = "their tokenizers make different tokens of the text, so that predictions of \
            one say nothing of the other's";
        return Err(Error::new(ErrorKind::InvalidArgument, text)
            .with_hint("compare a model with one that was made of it"));
    }
    Ok(ids)
}

/// Opens the weights of a model as mlx-lm names them.
fn source(files: &ModelFiles, config: &ModelConfig, dtype: Option<Dtype>) -> Result<Source> {
    Source::new(&open_checkpoint(files)?, config, dtype)
}
