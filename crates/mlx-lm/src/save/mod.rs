//! Saving a model so that what is at the destination is whole, or nothing is.
//!
//! [`save()`] writes a new directory: weights in files of at most 5 GiB, their index,
//! `config.json`, what the source has of tokenizer, templates and code, and a model card. All of it
//! grows in a directory beside the destination (`partial`) and is renamed at the end, when every
//! file and directory was forced to the disk. A journal beside it knows which weight files are
//! finished, so that a run that was killed can be continued.
//!
//! The caller says first what tensors there will be and then gives their bytes one by one
//! ([`TensorSource`]): names, sizes, index and needed space are known before the first one, and
//! memory holds one tensor. `shards` distributes them over files, `companions` chooses what is
//! copied, `json` and `card` write text; `session` is the order of it all. [`SaveError`] tells
//! whether something is at the destination and what is wrong with it. Every call goes through
//! [`FileSystem`], so that tests see each one fail.

mod card;
mod companions;
mod file_system;
mod journal;
mod json;
mod outcome;
mod partial;
mod session;
mod shards;
mod target;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;

use mlx_core::io::{TensorLayout, TensorSink};
use serde_json::Value;

pub use card::ModelCard;
pub use file_system::{FileSystem, Lock, OutputFile, RealFileSystem};
pub use outcome::{Boundary, Missing, Partial, SaveError, Saved, Unsynced};

use crate::error::Result;
use crate::files::ModelFiles;

/// The size that weight files have at most, unless a single tensor is larger: 5 GiB, as hubs like
/// it.
pub const MAX_SHARD_BYTES: u64 = 5 << 30;

/// What [`save`] is to write, and where.
pub struct SaveArgs<'a> {
    /// The directory to be made.
    pub destination: &'a Path,
    /// The tensors, in the order in which files have them.
    pub tensors: &'a [TensorLayout],
    /// How many parameters they hold, packed ones counted one by one; for the index.
    pub n_parameters: u64,
    /// The configuration; what it has no use for is left out when it is written.
    pub config: &'a Value,
    /// The model that this one was made from, whose tokenizer, templates, generation settings and
    /// code are copied.
    pub source: Option<&'a ModelFiles>,
    /// What the model card says.
    pub model_card: ModelCard,
    /// The size of weight files in bytes, [`MAX_SHARD_BYTES`] by default.
    pub max_shard_bytes: u64,
    /// Continues what an earlier run left; begins anew where there is nothing.
    pub resume: bool,
    /// Stands for source and options: what an earlier run left is continued only if it had the
    /// same.
    pub fingerprint: &'a str,
    /// The file system.
    pub file_system: &'a dyn FileSystem,
    /// Is called often with what is done; [`ControlFlow::Break`] stops the run.
    pub progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    /// Is called with the directory when all else is in it, before it is renamed to its place: it
    /// may look at the result, refuse it, and add files, which it forces to the disk itself.
    pub finish: Option<Finish<'a>>,
}

/// What [`SaveArgs::finish`] is.
pub type Finish<'a> = &'a mut (dyn FnMut(&Path) -> Result<()> + 'a);

/// How far a save is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of weight files that are written.
    pub n_bytes: u64,
    /// Those of them that an earlier run had written, which say nothing about this one's speed.
    pub n_resumed_bytes: u64,
    /// Bytes that weight files will have.
    pub n_total_bytes: u64,
}

/// Gives the bytes of tensors.
pub trait TensorSource {
    /// Writes the tensor at `index` of [`SaveArgs::tensors`].
    ///
    /// It is called once for each tensor, in their order, but not for those in files that an
    /// earlier run had finished.
    ///
    /// # Errors
    /// Any, and those of `sink`. Both end the run; nothing is then at the destination.
    fn write(&mut self, index: usize, sink: &mut TensorSink<'_>) -> Result<()>;
}

/// Saves a model to a directory that must not exist.
///
/// `Ok` means that all of it survives a power cut.
///
/// # Errors
/// [`SaveError::NotCommitted`] when the destination exists, even as a link that leads nowhere, lies
/// in the source, or has no parent; when the disk is too small; when an earlier run left something
/// there, which [`SaveArgs::resume`] continues; when a tensor, a file or the caller's wish ends the
/// run. Nothing is then at the destination, and what is finished stays beside it.
/// [`SaveError::NotDurable`] and [`SaveError::Incomplete`] when the model is there all the same.
///
/// ```
/// # fn main() -> mlx_lm::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let destination = dir.path().join("model");
/// use std::ops::ControlFlow;
///
/// use mlx_core::Dtype;
/// use mlx_core::io::{TensorLayout, TensorSink};
/// use mlx_lm::save::{MAX_SHARD_BYTES, ModelCard, RealFileSystem, SaveArgs, TensorSource, save};
///
/// struct Ones;
///
/// impl TensorSource for Ones {
///     fn write(&mut self, _index: usize, sink: &mut TensorSink<'_>) -> mlx_lm::Result<()> {
///         Ok(sink.write(&[1; 4])?)
///     }
/// }
///
/// let tensor = TensorLayout { name: "w".into(), dtype: Dtype::Uint8, shape: vec![2, 2] };
/// let args = SaveArgs {
///     destination: &destination,
///     tensors: &[tensor],
///     n_parameters: 4,
///     config: &serde_json::json!({"model_type": "llama"}),
///     source: None,
///     model_card: ModelCard::default(),
///     max_shard_bytes: MAX_SHARD_BYTES,
///     resume: false,
///     fingerprint: "ones",
///     file_system: &RealFileSystem,
///     progress: &mut |_| ControlFlow::Continue(()),
///     finish: None,
/// };
/// let saved = save(args, &mut Ones)?;
/// assert_eq!(saved.n_shards, 1);
/// assert!(destination.join("model.safetensors.index.json").is_file());
/// # Ok(())
/// # }
/// ```
pub fn save(
    args: SaveArgs<'_>,
    source: &mut dyn TensorSource,
) -> std::result::Result<Saved, SaveError> {
    session::run(args, source)
}
