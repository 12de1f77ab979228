//! The directory beside the destination in which a result grows: `.NAME.mlxk-partial`.
//!
//! ```text
//! .NAME.mlxk-partial/journal.json   what is finished, and of what
//!                    lock           held by the process that works here
//!                    model/         the result, renamed to NAME at the end
//! ```
//!
//! The journal lies beside the result and not in it, so that it is there until the very end: a run
//! that is killed anywhere, before or behind that rename, leaves something that the next one knows.

use std::io;
use std::path::{Path, PathBuf};

use super::file_system::{FileSystem, Lock};
use super::journal::{FinishedShard, Found, JOURNAL_NAME, Journal, NEW_JOURNAL_NAME};
use super::outcome::{Partial, SaveError, io_error, refused};
use super::shards::Shard;
use super::target::Target;
use super::writer::{Meter, is_intact};
use crate::error::{Error, ErrorKind, Result};

const LOCK_NAME: &str = "lock";
const MODEL_NAME: &str = "model";

/// How deep the directories of a result go, and then some.
const MAX_DEPTH: usize = 4;

/// An unfinished result that this process works on.
pub(super) struct PartialDir<'a> {
    fs: &'a dyn FileSystem,
    root: PathBuf,
    n_shards: usize,
    journal: Journal,
    _lock: Lock,
}

impl<'a> PartialDir<'a> {
    /// Opens the directory beside `target`, which is made if there is none, and takes its lock.
    ///
    /// What it has of an earlier run is then still there; its journal is `journal` where it has
    /// none.
    ///
    /// # Errors
    /// When another process works there, or it is not of this crate's making.
    pub(super) fn open(
        fs: &'a dyn FileSystem,
        target: &Target,
        journal: &Journal,
        n_shards: usize,
    ) -> Result<(Self, Option<Journal>), SaveError> {
        let root = target.partial.clone();
        let unknown = |error| {
            let partial = Partial { path: root.clone(), n_finished_shards: None, n_shards };
            SaveError::NotCommitted { error, partial: Some(partial) }
        };
        match fs.create_dir(&root) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                check_is_ours(fs, &root).map_err(unknown)?;
            }
            Err(error) => return Err(refused(io_error(&root, error))),
        }
        let lock = match fs.lock(&root.join(LOCK_NAME)) {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                let text = format!("{}: another process is saving there", root.display());
                return Err(unknown(Error::new(ErrorKind::InvalidArgument, text)));
            }
            Err(error) => {
                // Only a directory without anything goes, such as the one just made.
                let error = io_error(&root, error);
                return Err(if fs.remove_dir(&root).is_ok() {
                    refused(error)
                } else {
                    unknown(error)
                });
            }
        };
        let dir =
            PartialDir { fs, root: root.clone(), n_shards, journal: journal.clone(), _lock: lock };
        // For resuming only: a directory that a power cut takes is begun anew.
        let _ = fs.sync(&target.parent);
        match Journal::read(fs, &root) {
            Ok(Found::Nothing) => Ok((dir, None)),
            Ok(Found::Journal(journal)) => Ok((dir, Some(journal))),
            Ok(Found::Unreadable(why)) => {
                Err(unknown(not_ours(&root, &format!("{JOURNAL_NAME}: {why}"))))
            }
            Err(error) => Err(unknown(io_error(&root, error))),
        }
    }

    /// Returns the directory of the result.
    pub(super) fn model(&self) -> PathBuf {
        self.root.join(MODEL_NAME)
    }

    /// Returns whether a weight file is finished.
    pub(super) fn is_finished(&self, shard: &Shard<'_>) -> bool {
        self.journal.shards.iter().any(|finished| finished.name == shard.name)
    }

    pub(super) fn n_finished(&self) -> usize {
        self.journal.shards.len()
    }

    /// Returns how many of an earlier run's weight files seem to be here.
    pub(super) fn count_finished(&self, earlier: &Journal) -> usize {
        let is_here = |shard: &&FinishedShard| {
            is_plain_name(&shard.name)
                && self
                    .fs
                    .symlink_metadata(&self.model().join(&shard.name))
                    .is_ok_and(|m| m.is_file() && m.len() == shard.n_bytes)
        };
        earlier.shards.iter().filter(is_here).count()
    }

    /// Takes over those weight files of an earlier run that are, in `dir`, what its journal says.
    pub(super) fn adopt(
        &mut self,
        dir: &Path,
        earlier: &Journal,
        shards: &[Shard<'_>],
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        for shard in shards {
            if let Some(finished) = earlier.shards.iter().find(|f| f.name == shard.name)
                && is_intact(self.fs, &dir.join(&shard.name), finished, meter)?
            {
                self.journal.shards.push(finished.clone());
            }
        }
        Ok(())
    }

    /// Removes what is not finished and writes a journal of what is.
    pub(super) fn clear(&self) -> Result<()> {
        let io = |error| io_error(&self.root, error);
        let model = self.model();
        // Before files go, so that none is in the journal that is not there.
        self.journal.write(self.fs, &self.root).map_err(io)?;
        match self.fs.create_dir(&model) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        for path in self.fs.read_dir(&model).map_err(io)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !self.journal.shards.iter().any(|shard| shard.name == name) {
                remove_tree(self.fs, &path, MAX_DEPTH).map_err(|e| io_error(&path, e))?;
            }
        }
        Ok(())
    }

    /// Notes a weight file as finished. Where that fails, a later run makes the file again.
    pub(super) fn note(&mut self, shard: FinishedShard) {
        if self.fs.sync(&self.model()).is_err() {
            return;
        }
        self.journal.shards.push(shard);
        if self.journal.write(self.fs, &self.root).is_err() {
            self.journal.shards.pop();
        }
    }

    /// Removes everything; returns the directory when that fails.
    pub(super) fn remove(&self) -> Option<PathBuf> {
        let names = [MODEL_NAME, NEW_JOURNAL_NAME, LOCK_NAME, JOURNAL_NAME];
        for name in names {
            // A failure shows when the directory is not empty.
            let _ = remove_tree(self.fs, &self.root.join(name), MAX_DEPTH + 1);
        }
        self.fs.remove_dir(&self.root).is_err().then(|| self.root.clone())
    }

    /// Ends a run that failed: what is finished stays for the next one, else nothing does.
    pub(super) fn abandon(&self, error: Error) -> SaveError {
        let partial = match self.journal.shards.len() {
            0 => self.remove(),
            _ => Some(self.root.clone()),
        };
        let partial = partial.map(|path| self.describe(path, Some(self.n_finished())));
        SaveError::NotCommitted { error, partial }
    }

    /// Refuses to go on and leaves everything as it is.
    pub(super) fn leave(&self, error: Error, n_finished_shards: Option<usize>) -> SaveError {
        let partial = Some(self.describe(self.root.clone(), n_finished_shards));
        SaveError::NotCommitted { error, partial }
    }

    fn describe(&self, path: PathBuf, n_finished_shards: Option<usize>) -> Partial {
        Partial { path, n_finished_shards, n_shards: self.n_shards }
    }
}

/// Checks that a directory that was there has nothing but what is put there.
fn check_is_ours(fs: &dyn FileSystem, root: &Path) -> Result<()> {
    let io = |error| io_error(root, error);
    if !fs.symlink_metadata(root).map_err(io)?.is_dir() {
        return Err(not_ours(root, "not a directory"));
    }
    let entries = fs.read_dir(root).map_err(io)?;
    let names: Vec<_> =
        entries.iter().filter_map(|path| path.file_name()).map(|n| n.to_string_lossy()).collect();
    let known = [JOURNAL_NAME, NEW_JOURNAL_NAME, LOCK_NAME, MODEL_NAME];
    if let Some(other) = names.iter().find(|name| !known.contains(&name.as_ref())) {
        return Err(not_ours(root, &format!("holds {other:?}")));
    }
    let has = |name: &str| names.iter().any(|other| other == name);
    if !has(MODEL_NAME) {
        return Ok(());
    }
    // The journal comes first and goes last.
    if !has(JOURNAL_NAME) {
        return Err(not_ours(root, "has no journal"));
    }
    // What is in it will be removed, so it must not be a link to something else.
    match fs.symlink_metadata(&root.join(MODEL_NAME)).map_err(io)?.is_dir() {
        true => Ok(()),
        false => Err(not_ours(root, "its model is not a directory")),
    }
}

fn not_ours(root: &Path, why: &str) -> Error {
    let text = format!("{}: not what an interrupted run leaves: {why}", root.display());
    Error::new(ErrorKind::Format, text)
        .with_hint(format!("look into {}, then remove it", root.display()))
}

fn is_plain_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file_name| file_name == name)
}

/// Removes a file, a link, or a directory with all in it; nothing there is fine.
fn remove_tree(fs: &dyn FileSystem, path: &Path, depth: usize) -> io::Result<()> {
    let metadata = match fs.symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.is_dir() {
        return fs.remove_file(path);
    }
    if depth == 0 {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    for entry in fs.read_dir(path)? {
        remove_tree(fs, &entry, depth - 1)?;
    }
    fs.remove_dir(path)
}
