//! Where the space goes, and what nothing refers to.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::remove::{DELETED, blobs_of, discard, disk_bytes, file_bytes};
use super::{Cache, CachedModel, locks};

/// The space that a model takes.
pub(crate) struct ModelUsage {
    pub(crate) id: String,
    /// All of its files, each blob once.
    pub(crate) bytes: u64,
    pub(crate) revisions: Vec<RevisionUsage>,
    pub(crate) garbage: Vec<Garbage>,
}

/// The space that a revision takes.
pub(crate) struct RevisionUsage {
    pub(crate) commit: String,
    /// The branches and tags that point to it.
    pub(crate) refs: Vec<String>,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// What would be free without it: blobs that no other revision uses.
    pub(crate) own_bytes: u64,
}

/// Something in the cache that no model needs.
#[derive(Clone, Debug)]
pub(crate) struct Garbage {
    pub(crate) kind: GarbageKind,
    /// The model that it belongs to, where that can be told.
    pub(crate) model: Option<String>,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Why something is not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GarbageKind {
    /// A download that did not end.
    IncompleteDownload,
    /// A blob that no revision links to.
    UnreferencedBlob,
    /// A deletion that did not end.
    InterruptedDeletion,
}

impl GarbageKind {
    pub(crate) fn words(self) -> &'static str {
        match self {
            GarbageKind::IncompleteDownload => "incomplete download",
            GarbageKind::UnreferencedBlob => "unreferenced blob",
            GarbageKind::InterruptedDeletion => "interrupted deletion",
        }
    }
}

impl ModelUsage {
    /// Counts a model's files.
    pub(crate) fn of(model: &CachedModel) -> ModelUsage {
        let snapshots = model.snapshots();
        let blobs: Vec<BTreeSet<PathBuf>> = snapshots.iter().map(|s| blobs_of(model, s)).collect();
        let refs = model.refs();
        let revisions = snapshots.iter().enumerate().map(|(i, snapshot)| {
            let shared = |path: &&PathBuf| {
                blobs.iter().enumerate().any(|(j, others)| j != i && others.contains(*path))
            };
            let files = super::files(&snapshot.dir);
            let own = blobs[i].iter().filter(|path| !shared(path));
            let own_bytes: u64 = own.map(|path| file_bytes(path)).sum();
            let commit = snapshot.commit.clone();
            let names = refs.iter().filter(|(_, target)| **target == commit);
            RevisionUsage {
                refs: names.map(|(name, _)| name.clone()).collect(),
                commit,
                files: files.len(),
                bytes: files.iter().filter_map(|file| file.size).sum(),
                own_bytes: own_bytes + disk_bytes(&snapshot.dir),
            }
        });
        ModelUsage {
            id: model.id().to_owned(),
            bytes: disk_bytes(model.dir()),
            revisions: revisions.collect(),
            garbage: garbage_of(model, &blobs.iter().flatten().cloned().collect()),
        }
    }
}

impl Garbage {
    /// Finds what was left in the cache's root.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub(crate) fn in_root(cache: &Cache) -> io::Result<Vec<Garbage>> {
        match deleted_in(cache.root(), None) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result,
        }
    }

    /// Deletes it.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path)?.is_dir() {
            true => match self.path.parent() {
                Some(parent) => discard(&self.path, parent),
                None => Ok(()),
            },
            false => fs::remove_file(&self.path),
        }
    }
}

/// Finds what no revision of a model needs. What is being downloaded is left alone.
fn garbage_of(model: &CachedModel, used: &BTreeSet<PathBuf>) -> Vec<Garbage> {
    let held: BTreeSet<String> = locks(model)
        .iter()
        .filter(|lock| lock.is_held)
        .map(|lock| lock.blob().to_owned())
        .collect();
    let mut garbage = deleted_in(model.dir(), Some(model.id())).unwrap_or_default();
    let Ok(dir) = model.dir().join("blobs").canonicalize() else { return garbage };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let blob = name.split('.').next().unwrap_or_default();
        let kind = match name.ends_with(".incomplete") {
            true => GarbageKind::IncompleteDownload,
            false => GarbageKind::UnreferencedBlob,
        };
        let path = entry.path();
        if held.contains(blob) || used.contains(&path) {
            continue;
        }
        let bytes = file_bytes(&path);
        garbage.push(Garbage { kind, model: Some(model.id().to_owned()), path, bytes });
    }
    garbage.sort_by(|a, b| a.path.cmp(&b.path));
    garbage
}

fn deleted_in(dir: &std::path::Path, model: Option<&str>) -> io::Result<Vec<Garbage>> {
    let mut garbage = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(DELETED) {
            garbage.push(Garbage {
                kind: GarbageKind::InterruptedDeletion,
                model: model.map(str::to_owned),
                bytes: disk_bytes(&entry.path()),
                path: entry.path(),
            });
        }
    }
    Ok(garbage)
}
