//! The cache of models on disk, as hub clients lay it out.
//!
//! ```text
//! hub/                                   Cache
//!   models--org--name/                   CachedModel
//!     blobs/<sha256 or git's sha1>       the files' contents
//!     refs/main                          the commit that a branch or tag points to
//!     snapshots/<commit>/config.json     Snapshot: links to blobs, under the files' names
//!   .locks/models--org--name/<blob>.lock held while a blob is downloaded
//! ```
//!
//! [`Cache`] and [`CachedModel`] list and never change anything; [`remove`] deletes, [`usage`]
//! counts bytes and finds what nothing refers to, [`verify`] compares contents with names.
//! Nothing here follows a link out of a model's own directory to delete something.

mod files;
mod locks;
mod model;
mod name;
mod remove;
mod usage;
mod verify;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use files::files;
use locks::remove_locks;
pub(crate) use locks::{Lock, locks};
pub(crate) use model::{CachedModel, Snapshot};
pub(crate) use name::{directory_name, short_name};
pub(crate) use remove::RemovePlan;
pub(crate) use usage::{Garbage, GarbageKind, ModelUsage};
pub(crate) use verify::{BlobReport, Outcome, verify};

/// A directory of cached models, which need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Cache { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Lists the models by name; one without a root has none.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub(crate) fn models(&self) -> io::Result<Vec<CachedModel>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut models = Vec::new();
        for entry in entries {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(name::id_of_directory);
            if let Some(id) = id
                && is_dir(&entry)
            {
                models.push(CachedModel::new(id, entry.path()));
            }
        }
        models.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(models)
    }

    /// Returns the model of exactly this name, where it is there.
    pub(crate) fn model(&self, id: &str) -> Option<CachedModel> {
        let name = directory_name(id);
        // The name is one component, so it cannot lead out of the root.
        let is_plain = !name.contains(['/', '\\', '\0']);
        let dir = self.root.join(&name);
        // A decoded name is what listings show: `a/b--c`, not the `a--b/c` that encodes the same.
        let is_canonical = name::id_of_directory(&name).as_deref() == Some(id);
        (is_plain && is_canonical && has_entry(&self.root, &name) && dir.is_dir())
            .then(|| CachedModel::new(id.to_owned(), dir))
    }
}

/// Whether an entry is a directory, or a link to one. What it is itself is told with its name; to look at
/// hundreds one by one takes a disk a tenth of a second.
fn is_dir(entry: &fs::DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if !kind.is_symlink() => kind.is_dir(),
        _ => entry.path().is_dir(),
    }
}

/// Whether a directory has an entry spelled like this, also where the file system ignores case.
fn has_entry(dir: &Path, name: &str) -> bool {
    if cfg!(target_os = "linux") {
        return fs::symlink_metadata(dir.join(name)).is_ok();
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name() == name)
}
