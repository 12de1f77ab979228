//! Directories that a suite may write to, and proof that it wrote to no other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};

/// Marks a directory as one that was made for a suite.
const SENTINEL: &str = ".mlxk-test-sentinel";

/// What `mlxk` wants in the path of a cache that it deletes from while it is tested.
const PREFIX: &str = "mlxk2_test_";

/// A directory of the suite's own, which is gone afterwards. Nothing is written to it or deleted
/// where the sentinel is missing, so a wrong path costs nobody a model.
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    pub fn new() -> Result<Scratch> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
        // As links are resolved, too, it is not mistaken for another.
        let dir = dir.canonicalize()?;
        fs::write(dir.join(SENTINEL), "made for a test suite of mlxk, which deletes it\n")?;
        Ok(Scratch { dir })
    }

    /// Returns a path to write to. What it is in exists afterwards, itself does not.
    pub fn place(&self, name: &str) -> Result<PathBuf> {
        ensure!(self.is_ours(), "{} has no {SENTINEL}: it is left alone", self.dir.display());
        let path = self.dir.join(name);
        let is_inside = path.components().all(|part| part != std::path::Component::ParentDir);
        ensure!(is_inside && path.starts_with(&self.dir), "{name} is not a place for a suite");
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        fs::create_dir_all(path.parent().context("a directory has a parent")?)?;
        Ok(path)
    }

    /// Returns an empty directory.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.place(name)?;
        fs::create_dir(&path)?;
        Ok(path)
    }

    fn is_ours(&self) -> bool {
        self.dir.join(SENTINEL).is_file()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_ours() {
            // A directory that stays costs space and nothing else.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// What lies in directories, to tell whether they were changed.
#[derive(Debug, PartialEq)]
pub struct Listing(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq)]
struct Entry {
    size: u64,
    modified: Option<SystemTime>,
    /// Where a link leads.
    target: Option<PathBuf>,
}

/// A managed workspace's own file, in which `mlxk list` renews times without a change of content.
const WORKSPACE_SENTINEL: &str = ".mlxk_workspace.json";

impl Listing {
    pub fn of(roots: &[PathBuf]) -> Result<Listing> {
        let mut entries = BTreeMap::new();
        let mut pending: Vec<PathBuf> = roots.iter().filter(|dir| dir.is_dir()).cloned().collect();
        while let Some(dir) = pending.pop() {
            for entry in dir.read_dir().with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                let metadata = path.symlink_metadata()?;
                if metadata.is_dir() {
                    pending.push(path.clone());
                } else if path.ends_with(WORKSPACE_SENTINEL) {
                    continue;
                }
                // A directory's size and times also change with what is said of its files below.
                let is_file = !metadata.is_dir();
                entries.insert(
                    path.clone(),
                    Entry {
                        size: if is_file { metadata.len() } else { 0 },
                        modified: metadata.modified().ok().filter(|_| is_file),
                        target: fs::read_link(&path).ok(),
                    },
                );
            }
        }
        Ok(Listing(entries))
    }

    /// Fails when anything is not as it was.
    pub fn require_same(&self, later: &Listing) -> Result<()> {
        let paths = self.0.keys().chain(later.0.keys());
        let mut changed: Vec<&Path> = paths
            .filter(|path| self.0.get(*path) != later.0.get(*path))
            .map(PathBuf::as_path)
            .collect();
        changed.sort();
        changed.dedup();
        if let Some(first) = changed.first() {
            let (n, first) = (changed.len(), first.display());
            bail!("{n} files of yours changed while the suite ran, such as {first}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_or_deleted_without_the_sentinel() {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.dir.clone();
        let kept = scratch.make_dir("kept").unwrap();
        fs::remove_file(dir.join(SENTINEL)).unwrap();
        assert!(scratch.place("kept").unwrap_err().to_string().contains("left alone"));
        drop(scratch);
        assert!(kept.is_dir());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn it_is_gone_afterwards_and_has_no_place_outside() {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.dir.clone();
        scratch.make_dir("a/b").unwrap();
        for outside in ["..", "a/../../b", "/elsewhere"] {
            assert!(scratch.place(outside).is_err(), "{outside}");
        }
        drop(scratch);
        assert!(!dir.exists());
    }

    #[test]
    fn changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let roots = [dir.path().to_path_buf(), dir.path().join("absent")];
        let file = dir.path().join("models/a/file");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "one").unwrap();
        let before = Listing::of(&roots).unwrap();
        before.require_same(&Listing::of(&roots).unwrap()).unwrap();
        let check_seen = || {
            let error = before.require_same(&Listing::of(&roots).unwrap()).unwrap_err();
            assert!(error.to_string().contains("models/a"), "{error}");
        };
        fs::write(&file, "other").unwrap();
        check_seen();
        fs::remove_file(&file).unwrap();
        check_seen();
        fs::write(dir.path().join("models/a").join(WORKSPACE_SENTINEL), "{}").unwrap();
        let without = Listing::of(&roots).unwrap();
        fs::write(dir.path().join("models/a").join(WORKSPACE_SENTINEL), "{ }").unwrap();
        without.require_same(&Listing::of(&roots).unwrap()).unwrap();
        fs::create_dir(dir.path().join("models/a/new")).unwrap();
        assert!(without.require_same(&Listing::of(&roots).unwrap()).is_err());
    }
}
