//! Comparing what blobs hold with what they are called.
//!
//! A blob is named by a hash of its content: by SHA-256 where the hub stores it apart from git, by
//! git's own, a SHA-1 of a header and the content, where it does not. So a whole cache can be
//! checked without asking anybody.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::{CachedModel, files};
use crate::progress::Progress;

/// How many bytes are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What was found out of a file.
#[derive(Clone, Debug)]
pub(crate) struct BlobReport {
    /// Where it lies below the model's directory.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) outcome: Outcome,
}

/// Whether a content is what the name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is.
    Verified,
    /// It is not: the content was changed, or the download was cut.
    Damaged,
    /// A link that leads nowhere.
    Missing,
    /// A download that did not end.
    Incomplete,
    /// A file whose name says nothing of its content.
    Unverifiable,
    /// It cannot be read.
    Unreadable,
}

impl Outcome {
    /// Whether something is wrong, and not only unknown.
    pub(crate) fn is_defect(self) -> bool {
        matches!(self, Outcome::Damaged | Outcome::Missing | Outcome::Unreadable)
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Outcome::Verified => "verified",
            Outcome::Damaged => "damaged: the content is not what the name says",
            Outcome::Missing => "missing: a link leads nowhere",
            Outcome::Incomplete => "incomplete download",
            Outcome::Unverifiable => "cannot be verified: no hash for a name",
            Outcome::Unreadable => "cannot be read",
        }
    }
}

/// Checks every blob of a model, and that its links lead to one.
pub(crate) fn verify(model: &CachedModel, read: &Progress) -> Vec<BlobReport> {
    let below = |path: &Path| {
        path.strip_prefix(model.dir()).unwrap_or(path).to_string_lossy().replace('\\', "/")
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    let blobs = fs::read_dir(model.dir().join("blobs")).into_iter().flatten().flatten();
    paths.extend(blobs.map(|entry| entry.path()));
    let mut reports: Vec<BlobReport> = paths
        .par_iter()
        .map(|path| BlobReport {
            path: below(path),
            bytes: fs::metadata(path).map_or(0, |metadata| metadata.len()),
            outcome: check(path, read),
        })
        .collect();
    for snapshot in model.snapshots() {
        for file in files(&snapshot.dir) {
            let outcome = match (file.size, file.is_link) {
                (None, _) => Outcome::Missing,
                (Some(_), false) => Outcome::Unverifiable,
                (Some(_), true) => continue,
            };
            let bytes = file.size.unwrap_or(0);
            reports.push(BlobReport { path: below(&file.path), bytes, outcome });
        }
    }
    reports.sort_by(|a, b| a.path.cmp(&b.path));
    reports
}

fn check(path: &Path, read: &Progress) -> Outcome {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.ends_with(".incomplete") {
        return Outcome::Incomplete;
    }
    let is_hash = name.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = match name.len() {
        64 if is_hash => hash::<Sha256>(path, false, read),
        40 if is_hash => hash::<Sha1>(path, true, read),
        _ => return Outcome::Unverifiable,
    };
    match hash {
        Ok(hash) if hash.eq_ignore_ascii_case(name) => Outcome::Verified,
        Ok(_) => Outcome::Damaged,
        Err(_) => Outcome::Unreadable,
    }
}

/// Hashes a file, behind git's header of a blob where that is asked for.
fn hash<H: Digest>(path: &Path, with_header: bool, read: &Progress) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = H::new();
    if with_header {
        hasher.update(format!("blob {}\0", file.metadata()?.len()));
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => {
                hasher.update(&chunk[..n]);
                read.add(n as u64);
            }
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
