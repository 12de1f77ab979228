//! The content itself: hashes of cached files, and tensors that hold no numbers.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use mlx_lm::core::io::{SafetensorsFile, non_finite};
use sha1::Digest as _;

use super::listing::blobs_of;
use super::{Findings, Model, codes};

pub(super) fn check(model: &Model<'_>, weights: &[SafetensorsFile], findings: &mut Findings) {
    if blobs_of(model.dir).is_some() {
        for entry in model.listing.entries.iter().filter(|entry| entry.is_file()) {
            blob(&model.dir.join(&entry.name), &entry.name, findings);
        }
    }
    for file in weights {
        let file_name = file.path().file_name().unwrap_or_default().to_string_lossy();
        for (name, info) in file.tensors() {
            let bytes = file.bytes(name).unwrap_or_default();
            let counts = non_finite(info.dtype, bytes);
            let place = format!("{file_name}: tensor {name:?}");
            if counts.nan > 0 {
                findings.add(&codes::TENSOR_NAN, format!("{place} holds NaN {} times", counts.nan));
            }
            if counts.infinite > 0 {
                let text = format!("{place} holds an infinity {} times", counts.infinite);
                findings.add(&codes::TENSOR_INFINITE, text);
            }
        }
    }
}

/// Compares a cached file with the name of its blob: SHA-256 of what git-lfs keeps, else git's own
/// hash.
fn blob(path: &Path, name: &str, findings: &mut Findings) {
    let Ok(target) = path.canonicalize() else { return };
    let expected = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_hash = expected.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = match expected.len() {
        64 if is_hash => sha256(&target),
        40 if is_hash => git_sha1(&target),
        _ => return,
    };
    match found {
        Ok(found) if found == expected => {}
        Ok(found) => {
            findings.add(
                &codes::BLOB_MISMATCH,
                format!("{name}: its content hashes to {found}, not to {expected}"),
            );
        }
        Err(error) => findings.add(&codes::FILE_UNREADABLE, format!("{name}: {error}")),
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = sha2::Sha256::new();
    read_all(path, |bytes| hash.update(bytes))?;
    Ok(hex(&hash.finalize()))
}

fn git_sha1(path: &Path) -> io::Result<String> {
    let mut hash = sha1::Sha1::new();
    hash.update(format!("blob {}\0", path.metadata()?.len()));
    read_all(path, |bytes| hash.update(bytes))?;
    Ok(hex(&hash.finalize()))
}

fn read_all(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => take(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
