//! Deleting a model, or one revision of it.
//!
//! What is deleted first gets a name under which no program looks for models, in one step; only
//! then does it go, file by file. A deletion that is interrupted leaves something that nobody takes
//! for a model, and `prune` clears it away.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::files;
use super::{CachedModel, Snapshot, locks, remove_locks};

/// How the names begin of what is being deleted.
pub(super) const DELETED: &str = ".mlxk-deleted-";

/// What a deletion would do, worked out before anything is touched.
#[derive(Clone, Debug)]
pub(crate) struct RemovePlan {
    model: CachedModel,
    scope: Scope,
}

#[derive(Clone, Debug)]
enum Scope {
    Model,
    Revision { snapshot: Snapshot, refs: Vec<String>, blobs: Vec<PathBuf> },
}

/// What a deletion did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Removed {
    pub(crate) freed_bytes: u64,
    pub(crate) locks: usize,
}

impl RemovePlan {
    /// Plans to delete the whole model.
    pub(crate) fn model(model: CachedModel) -> Self {
        RemovePlan { model, scope: Scope::Model }
    }

    /// Plans to delete one revision, with the blobs that no other one uses and the references to
    /// it. The last revision goes with the model.
    pub(crate) fn revision(model: CachedModel, snapshot: Snapshot) -> Self {
        let others: Vec<Snapshot> =
            model.snapshots().into_iter().filter(|other| *other != snapshot).collect();
        if others.is_empty() {
            return RemovePlan::model(model);
        }
        let kept: BTreeSet<PathBuf> = others.iter().flat_map(|s| blobs_of(&model, s)).collect();
        let blobs = blobs_of(&model, &snapshot).difference(&kept).cloned().collect();
        let refs = model.refs().into_iter();
        let refs = refs.filter(|(_, commit)| *commit == snapshot.commit).map(|(name, _)| name);
        let scope = Scope::Revision { refs: refs.collect(), blobs, snapshot };
        RemovePlan { model, scope }
    }

    /// Whether the model is gone afterwards.
    pub(crate) fn is_whole_model(&self) -> bool {
        matches!(self.scope, Scope::Model)
    }

    /// Returns how much space it frees.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.scope {
            Scope::Model => disk_bytes(self.model.dir()),
            Scope::Revision { snapshot, blobs, .. } => {
                let blobs: u64 = blobs.iter().map(|path| file_bytes(path)).sum();
                blobs + disk_bytes(&snapshot.dir)
            }
        }
    }

    /// Deletes.
    ///
    /// # Errors
    /// When a step fails; what had been renamed is then no model any more, and `prune` takes it.
    pub(crate) fn execute(&self) -> io::Result<Removed> {
        let freed_bytes = self.bytes();
        match &self.scope {
            Scope::Model => {
                let parent = self.model.dir().parent().unwrap_or(Path::new("."));
                // Before the model: without it nothing tells whose they are.
                let locks = remove_locks(&self.model)?;
                discard(self.model.dir(), parent)?;
                Ok(Removed { freed_bytes, locks })
            }
            Scope::Revision { snapshot, refs, blobs } => {
                for name in refs {
                    remove_ref(&self.model.dir().join("refs"), name)?;
                }
                discard(&snapshot.dir, self.model.dir())?;
                let mut removed = Removed { freed_bytes, locks: 0 };
                let names: BTreeSet<_> = blobs.iter().filter_map(|b| b.file_name()).collect();
                for lock in locks(&self.model) {
                    if names.contains(std::ffi::OsStr::new(lock.blob())) {
                        fs::remove_file(&lock.path)?;
                        removed.locks += 1;
                    }
                }
                blobs.iter().try_for_each(fs::remove_file)?;
                Ok(removed)
            }
        }
    }
}

/// Returns the blobs of this model that a revision's links lead to.
pub(super) fn blobs_of(model: &CachedModel, snapshot: &Snapshot) -> BTreeSet<PathBuf> {
    let Ok(blobs) = model.dir().join("blobs").canonicalize() else { return BTreeSet::new() };
    let links = files(&snapshot.dir).into_iter().filter(|file| file.is_link);
    let targets = links.filter_map(|file| file.path.canonicalize().ok());
    targets.filter(|target| target.parent() == Some(&blobs)).collect()
}

/// Takes a directory's name away, then deletes it.
pub(super) fn discard(dir: &Path, place: &Path) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut renamed = place.join(format!("{DELETED}{name}"));
    // Left over from a deletion that was interrupted.
    for n in 1.. {
        if fs::symlink_metadata(&renamed).is_err() {
            break;
        }
        renamed = place.join(format!("{DELETED}{name}.{n}"));
    }
    fs::rename(dir, &renamed)?;
    if fs::symlink_metadata(&renamed)?.is_symlink() {
        return fs::remove_file(&renamed);
    }
    fs::remove_dir_all(&renamed)
}

/// Deletes a reference, and the directories of its name that are empty then.
fn remove_ref(refs: &Path, name: &str) -> io::Result<()> {
    let path = refs.join(name);
    fs::remove_file(&path)?;
    let above = path.ancestors().skip(1).take_while(|dir| *dir != refs);
    for dir in above {
        if fs::remove_dir(dir).is_err() {
            break;
        }
    }
    Ok(())
}

/// Returns the size of the files in a directory, without following links.
pub(super) fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(match metadata.is_dir() {
            true => disk_bytes(&entry.path()),
            false => match metadata.is_symlink() {
                true => 0,
                false => metadata.len(),
            },
        })
    });
    sizes.sum()
}

pub(super) fn file_bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}
