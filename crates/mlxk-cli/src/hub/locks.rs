//! The lock files of a cache. A client holds one while it downloads a blob; the file itself stays.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::CachedModel;

/// A lock file.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) path: PathBuf,
    /// Whether a running program holds it, or it cannot be told.
    pub(crate) is_held: bool,
}

impl Lock {
    /// Returns the name of the blob that it guards.
    pub(crate) fn blob(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }
}

/// Lists the lock files of a model.
pub(crate) fn locks(model: &CachedModel) -> Vec<Lock> {
    let Some(dir) = lock_dir(model) else { return Vec::new() };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut locks: Vec<Lock> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lock"))
        .map(|path| Lock { is_held: is_held(&path), path })
        .collect();
    locks.sort_by(|a, b| a.path.cmp(&b.path));
    locks
}

/// Removes the lock files of a model; returns how many there were.
///
/// # Errors
/// When they cannot be removed.
pub(crate) fn remove_locks(model: &CachedModel) -> io::Result<usize> {
    let count = locks(model).len();
    match lock_dir(model).map(fs::remove_dir_all) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(count),
    }
}

fn lock_dir(model: &CachedModel) -> Option<PathBuf> {
    Some(model.dir().parent()?.join(".locks").join(model.dir().file_name()?))
}

fn is_held(path: &Path) -> bool {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return true };
    match file.try_lock() {
        // It is given back as the file is closed.
        Ok(()) => false,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
    }
}
