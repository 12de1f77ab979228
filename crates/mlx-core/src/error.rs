//! The one error type of this crate.
//!
//! Callers branch on [`Error::kind`]; people read the text, which names the operation, file or
//! tensor first and then the values that were wrong.

use std::fmt;
use std::path::Path;

use crate::weights::WeightsReport;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in an array operation, a file, or a set of weights.
///
/// ```
/// use mlx_core::{Array, ErrorKind};
///
/// # fn main() -> mlx_core::Result<()> {
/// let error = Array::range(3)?.reshape([2, 2]).unwrap_err().context("model.layers.0");
/// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
/// assert!(error.to_string().starts_with("model.layers.0: reshape: "), "{error}");
/// # Ok(())
/// # }
/// ```
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

#[derive(Debug, thiserror::Error)]
#[error("{message}{}", Cause(message, source.as_deref()))]
struct Repr {
    kind: ErrorKind,
    message: String,
    weights: Option<WeightsReport>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument does not fit the operation: shapes, dtypes, names.
    InvalidArgument,
    /// An index, axis or size is outside its range.
    OutOfRange,
    /// Memory could not be allocated.
    OutOfMemory,
    /// A file or directory does not exist.
    NotFound,
    /// Reading or writing a file failed.
    Io,
    /// A file's content is not what its format demands.
    Format,
    /// Tensors are missing, unexpected or wrongly shaped.
    Weights,
    /// The operation exists but not here: this device, dtype or mode.
    Unsupported,
    /// MLX failed while evaluating.
    Runtime,
    /// Code panicked where the panic could not go on to the caller, as on a stream's thread.
    Panic,
    /// An error of the caller's own, see [`Error::other`].
    Other,
}

impl Error {
    /// Makes an error of `kind` with a text such as `matmul: inner sizes differ, [2, 3] and [4, 5]`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Repr { kind, message: message.into(), weights: None, source: None }))
    }

    /// Makes an error that says what is wrong with the content of `path`.
    pub fn format(path: &Path, message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Format, format!("{}: {message}", path.display()))
    }

    /// Makes an error of a file operation on `path`; a missing file gets its own kind.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Error(Box::new(Repr {
            kind,
            message: path.display().to_string(),
            weights: None,
            source: Some(Box::new(source)),
        }))
    }

    /// Carries an error of the caller's own, for functions that this crate calls back.
    ///
    /// ```
    /// use mlx_core::{Error, ErrorKind};
    ///
    /// let error = Error::other("17x".parse::<i32>().unwrap_err());
    /// assert_eq!(error.kind(), ErrorKind::Other);
    /// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    /// ```
    pub fn other(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Error(Box::new(Repr {
            kind: ErrorKind::Other,
            message: String::new(),
            weights: None,
            source: Some(Box::new(source)),
        }))
    }

    pub(crate) fn weights_report(report: WeightsReport) -> Self {
        Error(Box::new(Repr {
            kind: ErrorKind::Weights,
            message: report.to_string(),
            weights: Some(report),
            source: None,
        }))
    }

    /// Puts `what` and a colon before the text.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = match self.0.message.as_str() {
            "" => what.to_string(),
            message => format!("{what}: {message}"),
        };
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the error behind, such as the one given to [`Error::other`], if it is an `E`.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// Returns the full list behind an error of kind [`ErrorKind::Weights`].
    pub fn weights(&self) -> Option<&WeightsReport> {
        self.0.weights.as_ref()
    }
}

/// Prints the error behind, where there is one, and a colon if a message precedes it.
struct Cause<'a>(&'a str, Option<&'a (dyn std::error::Error + Send + Sync)>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(source) if self.0.is_empty() => write!(f, "{source}"),
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {self})", self.0.kind)
    }
}
