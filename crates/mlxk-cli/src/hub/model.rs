//! A cached model: its revisions, and what branches and tags point to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How deep the names of references go, as `refs/pr/1`.
const MAX_REF_DEPTH: usize = 4;
/// The longest content of a reference that is read, in bytes; a commit has 40.
const MAX_REF_BYTES: u64 = 256;

/// A model's directory in the cache.
#[derive(Clone, Debug)]
pub(crate) struct CachedModel {
    id: String,
    dir: PathBuf,
}

/// The files of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) commit: String,
    pub(crate) dir: PathBuf,
}

impl CachedModel {
    pub(super) fn new(id: String, dir: PathBuf) -> Self {
        CachedModel { id, dir }
    }

    /// Returns the name, `org/name` as a rule.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lists the revisions by commit.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let entries = fs::read_dir(self.dir.join("snapshots")).into_iter().flatten().flatten();
        let mut snapshots: Vec<Snapshot> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| {
                let commit = entry.file_name().into_string().ok()?;
                (!commit.starts_with('.')).then(|| Snapshot { commit, dir: entry.path() })
            })
            .collect();
        snapshots.sort_by(|a, b| a.commit.cmp(&b.commit));
        snapshots
    }

    /// Returns the commit of each branch and tag.
    pub(crate) fn refs(&self) -> BTreeMap<String, String> {
        let mut refs = BTreeMap::new();
        collect_refs(&self.dir.join("refs"), "", MAX_REF_DEPTH, &mut refs);
        refs
    }

    /// Returns the commit that `refs/main` names.
    pub(crate) fn main_commit(&self) -> Option<String> {
        read_ref(&self.dir.join("refs/main"))
    }

    /// Returns the revision that the name alone means: what `refs/main` points to.
    ///
    /// Without that reference it is the only revision, or the one changed last: nothing else tells.
    /// A reference to files that are not there means none; another revision is not what was asked
    /// for.
    pub(crate) fn main(&self) -> Option<Snapshot> {
        let mut snapshots = self.snapshots();
        if let Some(commit) = self.main_commit() {
            return snapshots.into_iter().find(|snapshot| snapshot.commit == commit);
        }
        snapshots.sort_by_cached_key(Snapshot::modified);
        snapshots.pop()
    }

    /// Returns the revisions that a branch, a tag or the beginning of a commit means: several where
    /// it is not clear, none where there is none.
    pub(crate) fn revisions(&self, revision: &str) -> Vec<Snapshot> {
        let snapshots = self.snapshots();
        if let Some(commit) = self.refs().get(revision) {
            return snapshots.into_iter().filter(|s| s.commit == *commit).collect();
        }
        if let Some(exact) = snapshots.iter().find(|s| s.commit == revision) {
            return vec![exact.clone()];
        }
        let is_prefix = |s: &Snapshot| !revision.is_empty() && s.commit.starts_with(revision);
        snapshots.into_iter().filter(is_prefix).collect()
    }
}

impl Snapshot {
    /// Returns the commit where the directory is called after one, as the hub's clients do.
    pub(crate) fn hash(&self) -> Option<&str> {
        let is_hash = self.commit.len() == 40 && self.commit.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then_some(self.commit.as_str())
    }

    fn modified(&self) -> Option<SystemTime> {
        fs::metadata(&self.dir).and_then(|metadata| metadata.modified()).ok()
    }
}

fn collect_refs(dir: &Path, prefix: &str, depth: usize, refs: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let full_name = format!("{prefix}{name}");
        if kind.is_dir() && depth > 1 {
            collect_refs(&entry.path(), &format!("{full_name}/"), depth - 1, refs);
        } else if kind.is_file()
            && let Some(commit) = read_ref(&entry.path())
        {
            refs.insert(full_name, commit);
        }
    }
}

fn read_ref(path: &Path) -> Option<String> {
    let is_small = |metadata: fs::Metadata| metadata.is_file() && metadata.len() <= MAX_REF_BYTES;
    fs::metadata(path).ok().filter(|metadata| is_small(metadata.clone()))?;
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|commit| !commit.is_empty())
}
