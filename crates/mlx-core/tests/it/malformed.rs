//! Files that are wrong: each gives an error, and none makes the process allocate much.
//!
//! `fixtures/data/mlx-core/malformed/<format>` holds them: those made up to be wrong in one way
//! by the generator of that name, and what fuzzing found. Extensions say nothing here; the
//! directory is the format.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use mlx_core::io::{
    Checkpoint, GgufFile, IndexDisagreement, NpyFile, NpzFile, SafetensorsFile, TensorData,
    write_safetensors,
};
use mlx_core::{Dtype, ErrorKind, Result};

use crate::alone::alone;

type Read = fn(&Path) -> Result<()>;

/// A format and a function that reads a file of it to the end.
const FORMATS: [(&str, Read); 5] = [
    ("gguf", |path| {
        let file = GgufFile::open(path)?;
        file.tensors().try_for_each(|(name, _)| file.dequantize(name).map(drop))
    }),
    ("index", |path| {
        let dir = tempfile::tempdir().unwrap();
        let data = TensorData { dtype: Dtype::Uint8, shape: vec![1], bytes: vec![7].into() };
        write_safetensors(dir.path().join("model.safetensors"), [("a", data)], &[])?;
        std::fs::copy(path, dir.path().join("model.safetensors.index.json")).unwrap();
        let checkpoint = Checkpoint::open_dir(dir.path())?;
        // An index is never trusted, so that a bad one is told but does no harm.
        match checkpoint.report() {
            [IndexDisagreement::Unreadable { reason }] => {
                Err(mlx_core::Error::new(ErrorKind::Format, reason))
            }
            _ => Ok(()),
        }
    }),
    ("npy", |path| NpyFile::open(path).map(drop)),
    ("npz", |path| {
        let file = NpzFile::open(path)?;
        // One array that cannot be read is enough.
        file.names().try_for_each(|name| file.read(name).map(drop))
    }),
    ("safetensors", |path| SafetensorsFile::open(path).map(drop)),
];

fn files(format: &str) -> Vec<PathBuf> {
    let dir = fixtures::path(&format!("mlx-core/malformed/{format}"));
    let mut files: Vec<PathBuf> =
        dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The most address space that this process ever had, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmPeak:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[test]
fn each_gives_an_error() {
    let mut count = 0;
    for (format, read) in FORMATS {
        for path in files(format) {
            let name = path.file_name().unwrap().to_string_lossy();
            let Err(error) = read(&path) else { panic!("{format}/{name} is accepted") };
            let kind = error.kind();
            let expected = [ErrorKind::Format, ErrorKind::Unsupported, ErrorKind::NotFound];
            assert!(expected.contains(&kind), "{format}/{name}: {kind:?}: {error}");
            assert!(error.to_string().len() < 8000, "{format}/{name}: {error}");
            count += 1;
        }
    }
    assert!(count > 100, "{count} files");
}

#[test]
fn none_takes_much_memory() {
    alone("malformed::none_takes_much_memory", || {
        for (format, read) in FORMATS {
            for path in files(format) {
                let size = path.metadata().unwrap().len();
                // What deflate can make of the file, and what an allocator reserves for a thread.
                let most = size * 1100 + (256 << 20);
                let before = peak_bytes();
                let _ = read(&path);
                if let Some((before, after)) = before.zip(peak_bytes()) {
                    let grown = after - before;
                    assert!(grown <= most, "{}: {size} bytes take {grown}", path.display());
                }
            }
        }
        if peak_bytes().is_none() {
            println!("skipped: this system does not tell how much memory a process had");
        }
    });
}
