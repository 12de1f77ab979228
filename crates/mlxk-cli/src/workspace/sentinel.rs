//! The sentinel `.mlxk_workspace.json`, as mlx-knife writes and reads it.
//!
//! Its presence, with `managed: true`, makes a directory a managed workspace. What a newer
//! mlx-knife adds to it is kept when it is written again.

use std::io;
use std::path::Path;

use mlx_lm::core::io::atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::hash::{self, ALGORITHM, ContentHash, IndexEntry};
use super::patterns;
use crate::CLI_VERSION;

/// Its name in the workspace.
pub(crate) const NAME: &str = ".mlxk_workspace.json";

/// The largest sentinel that is read, in bytes; an index of a hundred thousand files is below.
const MAX_BYTES: u64 = 64 << 20;

/// What a sentinel says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sentinel {
    pub(crate) mlxk_version: Option<String>,
    /// An ISO time in UTC.
    pub(crate) created_at: Option<String>,
    /// `org/name`, or the path of the directory that it was made from.
    pub(crate) source_repo: Option<String>,
    pub(crate) source_revision: Option<String>,
    #[serde(default)]
    pub(crate) managed: bool,
    /// `clone` or `convert`.
    pub(crate) operation: Option<String>,
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// Whether a workspace is as it was when its hash was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Clean,
    Modified,
    /// There is no hash of this version, or none that could be trusted.
    Unknown,
}

impl State {
    /// Returns it as the JSON interface has it.
    pub(crate) fn clean(self) -> Option<bool> {
        match self {
            State::Clean => Some(true),
            State::Modified => Some(false),
            State::Unknown => None,
        }
    }
}

/// Whether a directory is a managed workspace.
pub(crate) fn is_managed(dir: &Path) -> bool {
    Sentinel::read(dir).is_ok_and(|sentinel| sentinel.managed)
}

impl Sentinel {
    /// Makes the sentinel of a workspace that was made just now.
    pub(crate) fn new(operation: &str, source: Source) -> Sentinel {
        Sentinel {
            mlxk_version: Some(CLI_VERSION.to_owned()),
            created_at: Some(now()),
            source_repo: Some(source.repo),
            source_revision: source.revision,
            managed: true,
            operation: Some(operation.to_owned()),
            rest: Map::new(),
        }
    }

    /// Reads the sentinel of a directory.
    ///
    /// # Errors
    /// When there is none, or it is not one.
    pub(crate) fn read(dir: &Path) -> io::Result<Sentinel> {
        let path = dir.join(NAME);
        let size = path.metadata()?.len();
        if size > MAX_BYTES {
            let text = format!("{}: {size} bytes are too many", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Sentinel::parse(&std::fs::read(&path)?)
    }

    fn parse(text: &[u8]) -> io::Result<Sentinel> {
        serde_json::from_slice(text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{NAME}: {error}")))
    }

    /// Writes it, durably, over what there was.
    ///
    /// # Errors
    /// When the file system fails.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let path = dir.join(NAME);
        let write = |file: &mut dyn io::Write| {
            file.write_all(&text).map_err(|source| mlx_lm::core::Error::io(&path, source))
        };
        atomic::write_file(&path, write).map_err(io::Error::other)
    }

    /// Returns the hash that is pinned, if any.
    pub(crate) fn content_hash(&self) -> Option<&str> {
        self.rest.get("content_hash").and_then(Value::as_str)
    }

    /// Takes the workspace's present content for its clean state; nothing is written.
    ///
    /// # Errors
    /// As [`hash::content_hash`].
    pub(crate) fn pin(&mut self, dir: &Path) -> io::Result<()> {
        let patterns = self.exclude_patterns().unwrap_or_else(default_patterns);
        let hash = hash::content_hash(dir, &patterns)?;
        self.set_hash(&hash, patterns);
        Ok(())
    }

    fn set_hash(&mut self, hash: &ContentHash, patterns: Vec<String>) {
        let index = hash.index.iter().map(|entry| serde_json::json!(entry)).collect();
        for (key, value) in [
            ("hash_algorithm", Value::from(ALGORITHM)),
            ("content_hash", Value::from(hash.aggregate.clone())),
            ("hash_modified", Value::from(now())),
            ("exclude_patterns", Value::from(patterns)),
            ("file_index", Value::Array(index)),
        ] {
            self.rest.insert(key.to_owned(), value);
        }
    }

    fn exclude_patterns(&self) -> Option<Vec<String>> {
        let list = self.rest.get("exclude_patterns")?.as_array()?;
        list.iter().map(|pattern| pattern.as_str().map(String::from)).collect()
    }

    fn file_index(&self) -> Option<Vec<IndexEntry>> {
        let index: Vec<IndexEntry> =
            serde_json::from_value(self.rest.get("file_index")?.clone()).ok()?;
        index.iter().all(|entry| is_plain(&entry.path)).then_some(index)
    }

    /// Compares a workspace with its pinned state. Where only times differ, the file is hashed,
    /// and if it is the same its new time is written back, so that the next look is quick.
    pub(crate) fn state(&mut self, dir: &Path) -> State {
        let known = self.rest.get("hash_algorithm").and_then(Value::as_str) == Some(ALGORITHM);
        let (Some(mut index), true) = (self.file_index(), known) else { return State::Unknown };
        let patterns = self.exclude_patterns().unwrap_or_else(default_patterns);
        let Ok(found) = hash::list(dir, &patterns) else { return State::Unknown };
        if found.len() != index.len() {
            return State::Modified;
        }
        let mut healed = false;
        for (file, entry) in found.iter().zip(&mut index) {
            let Ok((size, mtime_ns)) = file.stat() else { return State::Unknown };
            if file.name != entry.path || size != entry.size {
                return State::Modified;
            }
            if mtime_ns == entry.mtime_ns && !file.is_link() {
                continue;
            }
            match file.hash() {
                Ok(now) if now.sha == entry.sha => {
                    healed |= now.mtime_ns != entry.mtime_ns;
                    *entry = now;
                }
                Ok(_) => return State::Modified,
                Err(_) => return State::Unknown,
            }
        }
        if healed {
            let index = index.iter().map(|entry| serde_json::json!(entry)).collect();
            self.rest.insert("file_index".to_owned(), Value::Array(index));
            // A workspace that cannot be written is none the less clean.
            let _ = self.write(dir);
        }
        State::Clean
    }
}

/// Where a workspace came from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `org/name`, or an absolute path.
    pub(crate) repo: String,
    pub(crate) revision: Option<String>,
}

fn default_patterns() -> Vec<String> {
    patterns::DEFAULT.map(String::from).to_vec()
}

/// Returns the time as mlx-knife writes it.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Whether a path of an index stays in the workspace, on every system.
fn is_plain(path: &str) -> bool {
    let drive = path.as_bytes().get(1) == Some(&b':')
        && path.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    !path.is_empty()
        && !path.contains(['\0', '\\'])
        && !path.starts_with('/')
        && !drive
        && path.split('/').all(|part| part != "..")
}

#[cfg(test)]
mod tests;
