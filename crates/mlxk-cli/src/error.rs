//! What a command failed with: a kind that sets the exit code, the cause, and hints.
//!
//! The exit code says what the user has to mend: 3, what was named is not there; 4, it is there
//! and not sound; 5, it is sound and not supported. The table is part of the interface, see
//! [`EXIT_CODES`].

use std::error::Error as StdError;
use std::fmt;

use mlx_lm::core;
use serde_json::Value;

/// The exit codes, as the help and the man page show them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  any other failure
    2  the command line is wrong
    3  the model or file named does not exist
    4  the model's files are incomplete or damaged
    5  the model is sound but not supported
    6  the prompt does not fit the context window
    7  MLX failed, or memory ran out
  130  interrupted";

/// The kinds of [`CommandError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    General,
    Internal,
    Usage,
    ModelNotFound,
    FileNotFound,
    InvalidModel,
    Unsupported,
    ContextLength,
    Runtime,
    Interrupted,
}

impl Kind {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Kind::General | Kind::Internal => 1,
            Kind::Usage => 2,
            Kind::ModelNotFound | Kind::FileNotFound => 3,
            Kind::InvalidModel => 4,
            Kind::Unsupported => 5,
            Kind::ContextLength => 6,
            Kind::Runtime => 7,
            Kind::Interrupted => 130,
        }
    }

    /// Returns `error.type` of the JSON envelope.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::General => "execution_error",
            Kind::Internal => "internal_error",
            Kind::Usage => "usage_error",
            Kind::ModelNotFound => "model_not_found",
            Kind::FileNotFound => "file_not_found",
            Kind::InvalidModel => "invalid_model",
            Kind::Unsupported => "unsupported",
            Kind::ContextLength => "context_length_exceeded",
            Kind::Runtime => "runtime_error",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) kind: Kind,
    pub(crate) source: Box<dyn StdError + Send + Sync>,
    pub(crate) hints: Vec<String>,
    /// What there was before it failed, for the JSON envelope.
    pub(crate) data: Option<Value>,
}

impl CommandError {
    pub(crate) fn new(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        CommandError { kind, source: source.into(), hints: Vec::new(), data: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CommandError::new(Kind::Usage, message.into())
    }

    /// Makes the error of a file operation on something that the user named.
    pub(crate) fn file(path: &std::path::Path, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::FileNotFound,
            _ => Kind::General,
        };
        CommandError::new(kind, format!("{}: {source}", path.display()))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

impl From<mlx_lm::Error> for CommandError {
    fn from(error: mlx_lm::Error) -> Self {
        use mlx_lm::ErrorKind as Lm;
        let kind = match error.kind() {
            // The model itself was found, or this error would not come from inside it.
            Lm::NotFound | Lm::Format | Lm::Template | Lm::Tokenizer => Kind::InvalidModel,
            Lm::InvalidArgument => Kind::Usage,
            Lm::Unsupported => Kind::Unsupported,
            Lm::ContextLength => Kind::ContextLength,
            Lm::Cancelled => Kind::Interrupted,
            Lm::Core => StdError::source(&error)
                .and_then(|source| source.downcast_ref::<core::Error>())
                .map_or(Kind::Runtime, core_kind),
            _ => Kind::General,
        };
        let hints = error.hints().to_vec();
        CommandError { hints, ..CommandError::new(kind, error) }
    }
}

impl From<core::Error> for CommandError {
    fn from(error: core::Error) -> Self {
        CommandError::new(core_kind(&error), error)
    }
}

fn core_kind(error: &core::Error) -> Kind {
    use core::ErrorKind as Core;
    match error.kind() {
        Core::NotFound | Core::Format | Core::Weights => Kind::InvalidModel,
        Core::Io => Kind::General,
        Core::Unsupported => Kind::Unsupported,
        _ => Kind::Runtime,
    }
}
