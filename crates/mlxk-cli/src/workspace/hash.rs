//! The content hash of a workspace, version 2 of mlx-knife's, bit for bit.
//!
//! The hash is over path and hash of each file. Of safetensors files only the header is hashed,
//! and of other large files name and size, so that gigabytes need not be read; a link counts by
//! what it leads to. A link that leads out of the workspace, or a safetensors file without a
//! header, leaves no hash at all, as half of one would compare equal to something else.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;

use super::paths;
use super::patterns::{excludes_directory, excludes_file};

/// What the sentinel calls it.
pub(crate) const ALGORITHM: &str = "v2";

/// Above this size, in bytes, a file counts by its name and size.
const MAX_WHOLE: u64 = 1 << 30;

/// The longest header of a safetensors file.
const MAX_HEADER: u64 = 100 << 20;

/// The hash of a whole workspace with that of each file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContentHash {
    /// `sha256:` and 64 digits.
    pub(crate) aggregate: String,
    /// The files, in the order of their paths.
    pub(crate) index: Vec<IndexEntry>,
}

/// One file of the index that a sentinel keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexEntry {
    /// The path from the workspace on, in Unicode's normal form C.
    pub(crate) path: String,
    /// Zero for a link, as the time is.
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    /// `sha256:` and 64 digits.
    pub(crate) sha: String,
}

/// A file of a workspace, not hashed yet.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) path: PathBuf,
    kind: Kind,
}

enum Kind {
    File,
    /// A link, and from the workspace on where it leads.
    Link(String),
}

/// Hashes a workspace without what `patterns` exclude.
///
/// # Errors
/// When a file cannot be read, is a safetensors file without a header, has a name that is not
/// UTF-8, or is a link out of the workspace.
pub(crate) fn content_hash(root: &Path, patterns: &[String]) -> io::Result<ContentHash> {
    let index: io::Result<Vec<IndexEntry>> =
        list(root, patterns)?.iter().map(Found::hash).collect();
    let index = index?;
    Ok(ContentHash { aggregate: aggregate(&index), index })
}

/// Joins hashes, in the order of their paths.
pub(super) fn aggregate(index: &[IndexEntry]) -> String {
    let mut hash = Sha256::new();
    for entry in index {
        hash.update(entry.path.as_bytes());
        hash.update([0]);
        hash.update(entry.sha.as_bytes());
    }
    shown(hash)
}

/// Lists the files that count, in the order of their names.
pub(super) fn list(root: &Path, patterns: &[String]) -> io::Result<Vec<Found>> {
    let real_root = paths::resolve(root)?;
    let mut found = Vec::new();
    walk(root, "", &real_root, patterns, &mut found)?;
    // UTF-8 sorts as code points do.
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(
    dir: &Path,
    prefix: &str,
    real_root: &Path,
    patterns: &[String],
    found: &mut Vec<Found>,
) -> io::Result<()> {
    for entry in dir.read_dir().map_err(|e| named(dir, &e))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            return Err(named(&path, &"its name is not UTF-8"));
        };
        let kind = path.symlink_metadata().map_err(|e| named(&path, &e))?.file_type();
        let relative: String = format!("{prefix}{name}").nfc().collect();
        if kind.is_symlink() {
            // Whatever its name: no pattern hides a link out of the workspace.
            let target = link_target(&path, real_root)?;
            found.push(Found { name: relative, path, kind: Kind::Link(target) });
        } else if kind.is_dir() {
            if !excludes_directory(patterns, name) {
                walk(&path, &format!("{prefix}{name}/"), real_root, patterns, found)?;
            }
        } else if kind.is_file() && !excludes_file(patterns, name) {
            found.push(Found { name: relative, path, kind: Kind::File });
        }
    }
    Ok(())
}

/// Returns where a link leads, from the workspace on, in whatever normal form.
fn link_target(path: &Path, real_root: &Path) -> io::Result<String> {
    let target = paths::resolve(path)?;
    let Ok(inside) = target.strip_prefix(real_root) else {
        let text = format!("a link out of the workspace, to {}", target.display());
        return Err(named(path, &text));
    };
    let parts = inside.components().map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    let parts: Option<Vec<&str>> = parts.collect();
    let parts = parts.ok_or_else(|| named(path, &"leads to a name that is not UTF-8"))?;
    // As Python writes a path without parts.
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

impl Found {
    pub(super) fn hash(&self) -> io::Result<IndexEntry> {
        let (size, mtime_ns, sha) = match &self.kind {
            Kind::Link(target) => {
                let mut hash = Sha256::new();
                hash.update(b"SYMLINK\0");
                hash.update(target.as_bytes());
                (0, 0, shown(hash))
            }
            Kind::File => {
                let (size, mtime_ns) = self.stat()?;
                let sha = self.hash_file(size).map_err(|error| named(&self.path, &error))?;
                (size, mtime_ns, sha)
            }
        };
        Ok(IndexEntry { path: self.name.clone(), size, mtime_ns, sha })
    }

    /// Returns size and time as an index has them.
    pub(super) fn stat(&self) -> io::Result<(u64, i64)> {
        if let Kind::Link(_) = self.kind {
            return Ok((0, 0));
        }
        let metadata = self.path.symlink_metadata().map_err(|error| named(&self.path, &error))?;
        let time = metadata.modified()?;
        let nanoseconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before| -before)
            }
        };
        Ok((metadata.len(), nanoseconds))
    }

    /// Whether it is a link, whose target counts and nothing else.
    pub(super) fn is_link(&self) -> bool {
        matches!(self.kind, Kind::Link(_))
    }

    fn hash_file(&self, size: u64) -> io::Result<String> {
        let mut hash = Sha256::new();
        let file_name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if file_name.ends_with(".safetensors") {
            hash.update(safetensors_header(&self.path)?);
        } else if size > MAX_WHOLE {
            hash.update(file_name.as_bytes());
            hash.update(format!("\0{size}"));
        } else {
            let mut file = File::open(&self.path)?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    n => hash.update(&buffer[..n]),
                }
            }
        }
        Ok(shown(hash))
    }
}

/// Reads the JSON of a safetensors file, which says what tensors it has.
fn safetensors_header(path: &Path) -> io::Result<Vec<u8>> {
    let corrupt = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| corrupt("is no safetensors file"))?;
    let length = u64::from_le_bytes(length);
    if length == 0 || length > MAX_HEADER {
        return Err(corrupt("is no safetensors file"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    match header.len() as u64 == length {
        true => Ok(header),
        false => Err(corrupt("is a safetensors file that ends within its header")),
    }
}

fn shown(hash: Sha256) -> String {
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(all(test, unix))]
mod tests;
