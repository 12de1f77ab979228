//! Whether the destination may be written to, asked before anything is done.

use std::io;
use std::path::{Path, PathBuf};

use super::file_system::FileSystem;
use super::outcome::io_error;
use crate::error::{Error, ErrorKind, Result};

/// A destination whose place is sound.
pub(super) struct Target {
    /// The directory to be.
    pub(super) path: PathBuf,
    /// The directory it will be in.
    pub(super) parent: PathBuf,
    /// Where it grows.
    pub(super) partial: PathBuf,
    /// Whether anything is at `path`, be it a link that leads nowhere.
    pub(super) exists: bool,
}

impl Target {
    /// Checks the place of a destination.
    ///
    /// # Errors
    /// When it has no name, its parent is not a directory, or it is or lies in `source`.
    pub(super) fn check(fs: &dyn FileSystem, path: &Path, source: Option<&Path>) -> Result<Target> {
        let invalid = |text: &str| {
            Error::new(ErrorKind::InvalidArgument, format!("{}: {text}", path.display()))
        };
        let Some(name) = path.file_name() else {
            return Err(invalid("not the name of a new directory"));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match fs.metadata(parent) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let text = format!("{}: not a directory", parent.display());
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let hint = format!("create {} first", parent.display());
                return Err(Error::io(parent, error).with_hint(hint));
            }
            Err(error) => return Err(io_error(parent, error)),
        }
        if let Some(source) = source {
            let real = |path: &Path| fs.canonicalize(path).map_err(|e| io_error(path, e));
            if real(parent)?.join(name).starts_with(real(source)?) {
                return Err(invalid("the destination is the source, or lies in it")
                    .with_hint("save beside the source"));
            }
        }
        let exists = match fs.symlink_metadata(path) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(io_error(path, error)),
        };
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(".mlxk-partial");
        Ok(Target {
            path: path.to_owned(),
            parent: parent.to_owned(),
            partial: parent.join(partial),
            exists,
        })
    }

    /// Makes the error for a destination where something is.
    pub(super) fn occupied(&self) -> Error {
        let text = format!("{}: already exists", self.path.display());
        Error::new(ErrorKind::InvalidArgument, text)
            .with_hint("name another destination, or remove what is there")
    }
}

/// Checks that the disk has room.
///
/// # Errors
/// When it has not. Where the room cannot be known, writing shows.
pub(super) fn check_space(fs: &dyn FileSystem, dir: &Path, n_bytes: u64) -> Result<()> {
    match fs.available_space(dir) {
        Ok(Some(available)) if available < n_bytes => {
            let missing = n_bytes - available;
            let text = format!("needs {n_bytes} bytes and has {available}, {missing} too few");
            Err(io_error(dir, io::Error::new(io::ErrorKind::StorageFull, text)))
        }
        _ => Ok(()),
    }
}
