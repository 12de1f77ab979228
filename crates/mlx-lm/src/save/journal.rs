//! What an unfinished result knows of itself: from what it is made, and what of it is finished.

use std::hash::Hasher as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use mlx_core::io::TensorLayout;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::file_system::FileSystem;
use super::shards::Shard;

pub(super) const JOURNAL_NAME: &str = "journal.json";

/// The journal to be, while it is written.
pub(super) const NEW_JOURNAL_NAME: &str = "journal.json.new";

const VERSION: u32 = 1;

/// The longest journal that is read, in bytes: room for a hundred thousand files.
const MAX_BYTES: u64 = 16 << 20;

/// The journal of an unfinished result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// What the caller made of the source and the options.
    pub(super) fingerprint: String,
    /// A digest of all tensors' names, types and shapes, and of their files.
    pub(super) plan: String,
    /// The weight files that are complete and on the disk.
    pub(super) shards: Vec<FinishedShard>,
}

/// A weight file that is complete and on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FinishedShard {
    pub(super) name: String,
    pub(super) n_bytes: u64,
    pub(super) digest: String,
}

/// What is at the place of a journal.
pub(super) enum Found {
    Nothing,
    /// Something that is no journal, and why.
    Unreadable(String),
    Journal(Journal),
}

impl Journal {
    /// Begins the journal of a result of which nothing is finished.
    pub(super) fn new(fingerprint: &str, shards: &[Shard<'_>], tensors: &[TensorLayout]) -> Self {
        Journal {
            version: VERSION,
            fingerprint: fingerprint.to_owned(),
            plan: plan_digest(shards, tensors),
            shards: Vec::new(),
        }
    }

    /// Returns whether both are of the same source, options and tensors.
    pub(super) fn is_of_same_run(&self, other: &Journal) -> bool {
        (&self.fingerprint, &self.plan) == (&other.fingerprint, &other.plan)
    }

    /// Reads the journal in `dir`.
    pub(super) fn read(fs: &dyn FileSystem, dir: &Path) -> std::io::Result<Found> {
        let file = match fs.open(&dir.join(JOURNAL_NAME)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Found::Nothing);
            }
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Ok(Found::Unreadable(format!("larger than {MAX_BYTES} bytes")));
        }
        Ok(match serde_json::from_slice::<Journal>(&bytes) {
            Ok(journal) if journal.version == VERSION => Found::Journal(journal),
            Ok(journal) => Found::Unreadable(format!("version {} is unknown", journal.version)),
            Err(error) => Found::Unreadable(error.to_string()),
        })
    }

    /// Replaces the journal in `dir`, so that it is the old or the new one at any time.
    pub(super) fn write(&self, fs: &dyn FileSystem, dir: &Path) -> std::io::Result<()> {
        let (new, path) = (dir.join(NEW_JOURNAL_NAME), dir.join(JOURNAL_NAME));
        match fs.remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs.create_new(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync()?;
        drop(file);
        fs.rename(&new, &path)?;
        fs.sync(dir)
    }
}

fn plan_digest(shards: &[Shard<'_>], tensors: &[TensorLayout]) -> String {
    let mut hash = XxHash3_64::new();
    let mut add = |bytes: &[u8]| {
        hash.write(&(bytes.len() as u64).to_le_bytes());
        hash.write(bytes);
    };
    for shard in shards {
        add(shard.name.as_bytes());
        for TensorLayout { name, dtype, shape } in &tensors[shard.tensors.clone()] {
            add(name.as_bytes());
            add(dtype.name().as_bytes());
            let shape: Vec<u8> = shape.iter().flat_map(|dim| dim.to_le_bytes()).collect();
            add(&shape);
        }
    }
    digest(&hash)
}

/// Writes a hash as 16 hexadecimal digits.
pub(super) fn digest(hash: &XxHash3_64) -> String {
    format!("{:016x}", hash.finish())
}
