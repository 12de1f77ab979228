//! Any bytes as an npy file: an error, or an array of as many bytes as its shape asks for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mlx_core::io::NpyFile;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = NpyFile::from_bytes("x", data.to_vec()) else { return };
    let count: usize = file.shape().iter().map(|&dim| usize::try_from(dim).unwrap()).product();
    let size = file.tensor_bytes().as_slice().len();
    assert_eq!(size, count * file.dtype().size());
    assert!(size < data.len());
});
