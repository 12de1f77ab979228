//! How a save ended: whether anything is at the destination, whether it survives a power cut, and
//! whether it is whole.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};

/// A model that is at its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The directory.
    pub path: PathBuf,
    /// How many weight files it has.
    pub n_shards: usize,
    /// How many of them an earlier, interrupted run had finished.
    pub n_resumed_shards: usize,
    /// The size of the weight files in bytes.
    pub n_weight_bytes: u64,
    /// The working directory beside it, when it could not be removed. Nothing in it is needed.
    pub left_over: Option<PathBuf>,
}

/// Why a save did not end as it should.
#[derive(Debug)]
#[non_exhaustive]
pub enum SaveError {
    /// Nothing is at the destination that was not there before.
    NotCommitted {
        /// What went wrong.
        error: Error,
        /// What this run or an earlier one left beside the destination; `None` when nothing is
        /// there, or the run ended before looking.
        partial: Option<Partial>,
    },
    /// The model is at its destination and whole, but a power cut may still take from it.
    NotDurable {
        /// What is there.
        saved: Saved,
        /// What could not be forced to the disk; at least one.
        unsynced: Vec<Unsynced>,
    },
    /// The model is at its destination, but without a file that is neither weights nor
    /// configuration nor tokenizer.
    Incomplete {
        /// What is there.
        saved: Saved,
        /// The files that are missing; at least one.
        missing: Vec<Missing>,
        /// What could not be forced to the disk.
        unsynced: Vec<Unsynced>,
    },
}

/// An unfinished result beside the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The directory.
    pub path: PathBuf,
    /// How many weight files in it are finished and need not be made again: with none there is
    /// nothing to resume. `None` when it cannot be told, because it could not be read or another
    /// process works on it.
    pub n_finished_shards: Option<usize>,
    /// How many the model has.
    pub n_shards: usize,
}

/// A point that has to be on the disk before a result survives a power cut, and is not.
#[derive(Debug)]
pub struct Unsynced {
    /// What was to be forced to the disk.
    pub boundary: Boundary,
    /// The file or directory, as it is called at the destination.
    pub path: PathBuf,
    /// What the file system said.
    pub error: io::Error,
}

/// The kinds of points that have to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Boundary {
    /// The content of a file.
    File,
    /// The entries of a directory of the model.
    Directory,
    /// The destination's own name in the directory above it.
    Rename,
}

/// A file that the destination should have and has not.
#[derive(Debug)]
pub struct Missing {
    /// The name inside the model.
    pub name: String,
    /// What went wrong; `None` when an earlier run left it out.
    pub error: Option<Error>,
}

impl SaveError {
    /// Returns the kind of error, as of [`Error::kind`].
    pub fn kind(&self) -> ErrorKind {
        match self {
            SaveError::NotCommitted { error, .. } => error.kind(),
            SaveError::NotDurable { .. } | SaveError::Incomplete { .. } => ErrorKind::Io,
        }
    }

    /// Returns what is at the destination; `None` when nothing is.
    pub fn saved(&self) -> Option<&Saved> {
        match self {
            SaveError::NotCommitted { .. } => None,
            SaveError::NotDurable { saved, .. } | SaveError::Incomplete { saved, .. } => {
                Some(saved)
            }
        }
    }

    /// Returns what the reader can do about it, one sentence each.
    pub fn hints(&self) -> Vec<String> {
        match self {
            SaveError::NotCommitted { error, partial } => {
                let mut hints = error.hints().to_vec();
                hints.extend(partial.as_ref().and_then(Partial::hint));
                hints
            }
            SaveError::NotDurable { saved, .. } => {
                vec![format!("check the disk, then remove {} and save again", saved.path.display())]
            }
            SaveError::Incomplete { .. } => {
                vec!["copy the missing files by hand; the weights are complete".to_owned()]
            }
        }
    }
}

impl Partial {
    fn hint(&self) -> Option<String> {
        let Partial { path, n_finished_shards, n_shards } = self;
        let path = path.display();
        Some(match (*n_finished_shards)? {
            0 => format!("remove {path}: nothing in it can be used"),
            n => format!(
                "{path} holds {n} of {n_shards} weight files: continue with --resume, or remove it"
            ),
        })
    }
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaveError::NotCommitted { error, .. } => error.fmt(f),
            SaveError::NotDurable { saved, unsynced } => {
                let path = saved.path.display();
                write!(f, "{path}: saved, but may not survive a power cut")?;
                unsynced.iter().try_for_each(|point| write!(f, "; {point}"))
            }
            SaveError::Incomplete { saved, missing, unsynced } => {
                write!(f, "{}: saved, but not whole", saved.path.display())?;
                missing.iter().try_for_each(|file| write!(f, "; {file}"))?;
                unsynced.iter().try_for_each(|point| write!(f, "; {point}"))
            }
        }
    }
}

impl fmt::Display for Unsynced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.boundary {
            Boundary::File => "file",
            Boundary::Directory => "directory",
            Boundary::Rename => "name of directory",
        };
        write!(f, "{what} {} is not on the disk: {}", self.path.display(), self.error)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{} could not be copied: {error}", self.name),
            None => write!(f, "{} was not copied", self.name),
        }
    }
}

impl std::error::Error for SaveError {}

impl From<SaveError> for Error {
    fn from(error: SaveError) -> Error {
        let hints = error.hints();
        let (kind, text) = (error.kind(), error.to_string());
        hints.into_iter().fold(Error::new(kind, text), Error::with_hint)
    }
}

/// Makes the outcome of a save that left nothing, here or there.
pub(super) fn refused(error: Error) -> SaveError {
    SaveError::NotCommitted { error, partial: None }
}

/// Makes the error of a call on `path` that is to say what can be done about it.
pub(super) fn io_error(path: &Path, source: io::Error) -> Error {
    use io::ErrorKind as Kind;
    let hint = match source.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => Some("free some disk space"),
        Kind::ReadOnlyFilesystem => Some("the file system is read-only: save elsewhere"),
        Kind::PermissionDenied => Some("save where you may write"),
        _ => None,
    };
    let error = Error::io(path, source);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
