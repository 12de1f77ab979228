//! Any text as the index of a model's directory, beside two sound files.
//!
//! Every run writes a file: with `TMPDIR` in memory, such as `/dev/shm`, it is a hundred times as fast.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlx_core::Dtype;
use mlx_core::io::{Checkpoint, TensorData, write_safetensors};

/// Made once for each process, and left behind: a fuzzer is ended, it does not end.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap().keep();
    for (file, tensor) in [("model-00001-of-00002", "a"), ("model-00002-of-00002", "b")] {
        let data = TensorData { dtype: Dtype::Uint8, shape: vec![1], bytes: vec![7].into() };
        write_safetensors(dir.join(file).with_extension("safetensors"), [(tensor, data)], &[])
            .unwrap();
    }
    dir
});

fuzz_target!(|data: &[u8]| {
    std::fs::write(DIR.join("model.safetensors.index.json"), data).unwrap();
    if let Ok(checkpoint) = Checkpoint::open_dir(&*DIR) {
        assert_eq!((checkpoint.len(), checkpoint.total_bytes()), (2, 2));
        for disagreement in checkpoint.report() {
            assert!(!disagreement.to_string().is_empty());
        }
    }
});
