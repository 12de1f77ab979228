//! What a command failed with: a kind, the cause, and hints.
//!
//! A kind sets `error.type` of the JSON envelope and, with `--strict-exit`, the exit code. Without
//! that flag codes are mlx-knife's, for scripts that were written for it: 1 for any failure. See
//! [`EXIT_CODES`]; the table is part of the interface. Where mlx-knife has a type for a failure, ours
//! is called as it calls it; where it only says `execution_error`, ours are finer.

use std::error::Error as StdError;
use std::fmt;

use mlx_lm::core;
use serde_json::Value;

/// The exit codes, as the help and the man page show them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  failure
    2  the command line is wrong
  130  interrupted

With --strict-exit, in place of 0 or 1:
    3  the model or file named does not exist, or the name is not clear
    4  a model's files are incomplete or damaged
    5  the model is sound but not supported
    6  the prompt does not fit the context window
    7  MLX failed, or memory ran out
    8  nothing was done, because confirmation is needed
    9  permission was denied, or another program is at it";

/// The kinds of [`CommandError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    General,
    Internal,
    Usage,
    Config,
    ModelNotFound,
    AmbiguousMatch,
    RevisionNotFound,
    CacheNotFound,
    FileNotFound,
    WorkspaceModel,
    InvalidModel,
    Unsupported,
    ContextLength,
    Runtime,
    ConfirmationNeeded,
    LocksPresent,
    PermissionDenied,
    DeletionFailed,
    InvalidTarget,
    CloneFailed,
    HealthCheckFailed,
    InvalidArgument,
    Interrupted,
}

impl Kind {
    /// Every kind, for the schema.
    pub(crate) const ALL: [Kind; 23] = [
        Kind::General,
        Kind::Internal,
        Kind::Usage,
        Kind::Config,
        Kind::ModelNotFound,
        Kind::AmbiguousMatch,
        Kind::RevisionNotFound,
        Kind::CacheNotFound,
        Kind::FileNotFound,
        Kind::WorkspaceModel,
        Kind::InvalidModel,
        Kind::Unsupported,
        Kind::ContextLength,
        Kind::Runtime,
        Kind::ConfirmationNeeded,
        Kind::LocksPresent,
        Kind::PermissionDenied,
        Kind::DeletionFailed,
        Kind::InvalidTarget,
        Kind::CloneFailed,
        Kind::HealthCheckFailed,
        Kind::InvalidArgument,
        Kind::Interrupted,
    ];

    /// Returns the exit code of a failure.
    pub(crate) fn exit_code(self, strict: bool) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Interrupted => 130,
            _ if !strict => 1,
            Kind::General | Kind::Internal | Kind::Config | Kind::CloneFailed => 1,
            Kind::InvalidTarget | Kind::InvalidArgument => 1,
            Kind::ModelNotFound
            | Kind::AmbiguousMatch
            | Kind::RevisionNotFound
            | Kind::CacheNotFound
            | Kind::FileNotFound => 3,
            Kind::InvalidModel | Kind::HealthCheckFailed => 4,
            Kind::Unsupported | Kind::WorkspaceModel => 5,
            Kind::ContextLength => 6,
            Kind::Runtime => 7,
            Kind::ConfirmationNeeded => 8,
            Kind::LocksPresent | Kind::PermissionDenied | Kind::DeletionFailed => 9,
        }
    }

    /// Returns `error.type` of the JSON envelope.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::General => "execution_error",
            Kind::Internal => "InternalError",
            Kind::Usage => "CommandError",
            Kind::Config => "config_error",
            Kind::ModelNotFound => "model_not_found",
            Kind::AmbiguousMatch => "ambiguous_match",
            Kind::RevisionNotFound => "hash_not_found",
            Kind::CacheNotFound => "cache_not_found",
            Kind::FileNotFound => "file_not_found",
            Kind::WorkspaceModel => "workspace_model",
            Kind::InvalidModel => "invalid_model",
            Kind::Unsupported => "unsupported",
            Kind::ContextLength => "context_length_exceeded",
            Kind::Runtime => "runtime_error",
            Kind::ConfirmationNeeded => "requires_confirmation",
            Kind::LocksPresent => "locks_present",
            Kind::PermissionDenied => "permission_denied",
            Kind::DeletionFailed => "deletion_failed",
            Kind::InvalidTarget => "InvalidTargetError",
            Kind::CloneFailed => "CloneFailedError",
            Kind::HealthCheckFailed => "HealthCheckFailed",
            Kind::InvalidArgument => "InvalidArgumentError",
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
    /// The models that a name could have meant.
    pub(crate) matches: Vec<String>,
    /// The revisions that there are, where another was asked for.
    pub(crate) available_hashes: Vec<String>,
    /// What there was before it failed, for the JSON envelope.
    pub(crate) data: Option<Box<Value>>,
}

impl CommandError {
    pub(crate) fn new(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        CommandError {
            kind,
            source: source.into(),
            hints: Vec::new(),
            matches: Vec::new(),
            available_hashes: Vec::new(),
            data: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CommandError::new(Kind::Usage, message.into())
    }

    /// Makes the error of a file operation on something that the user named.
    pub(crate) fn file(path: &std::path::Path, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::FileNotFound,
            std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::General,
        };
        CommandError::new(kind, format!("{}: {source}", path.display()))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn matches(mut self, matches: Vec<String>) -> Self {
        self.matches = matches;
        self
    }

    pub(crate) fn data(mut self, data: Value) -> Self {
        self.data = Some(Box::new(data));
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
