//! The one error type of this crate.
//!
//! Callers branch on [`Error::kind`]; people read the text, which names the file, template or
//! token first and then what was wrong, and the [`Error::hints`], which say what to do next.

use std::fmt;
use std::path::Path;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong with a model's files, its tokenizer, its chat template, or a generation.
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

#[derive(Debug, thiserror::Error)]
#[error("{message}{}", Cause(source.as_deref()))]
struct Repr {
    kind: ErrorKind,
    message: String,
    hints: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or directory does not exist.
    NotFound,
    /// An argument does not fit: a path that is no directory, an empty conversation.
    InvalidArgument,
    /// Reading or writing a file failed.
    Io,
    /// A file's content is not what its format demands.
    Format,
    /// The files are sound, but this crate has no code for what they ask.
    Unsupported,
    /// The prompt does not fit the model's context window.
    ContextLength,
    /// A chat template does not compile, or refuses the messages.
    Template,
    /// Text could not be encoded, or tokens could not be decoded.
    Tokenizer,
    /// An array operation or a set of weights failed in the core.
    Core,
    /// The caller cancelled the work.
    Cancelled,
}

impl Error {
    /// Makes an error of `kind` with a text such as `config.json: "hidden_size" is missing`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Repr { kind, message: message.into(), hints: Vec::new(), source: None }))
    }

    /// Makes an error that says what is wrong with the content of `file`.
    pub fn format(file: impl fmt::Display, message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Format, format!("{file}: {message}"))
    }

    /// Makes an error of a file operation on `path`; a missing file gets its own kind.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Error::new(kind, path.display().to_string()).with_source(source)
    }

    /// Adds a line that says what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Adds the error behind this one; its text follows a colon.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `what` and a colon before the text.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns what the reader can do about it, one sentence each.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }
}

/// Prints a colon and the error behind, where there is one.
struct Cause<'a>(Option<&'a (dyn std::error::Error + Send + Sync)>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
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

impl From<mlx_core::Error> for Error {
    fn from(error: mlx_core::Error) -> Self {
        use mlx_core::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Io => ErrorKind::Io,
            Kind::Format | Kind::Weights => ErrorKind::Format,
            Kind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Core,
        };
        let result = Error::new(kind, error.to_string());
        match error.kind() {
            Kind::Weights => result.with_hint(
                "the weights and config.json belong to different models, or one of them is damaged",
            ),
            _ => result,
        }
    }
}
