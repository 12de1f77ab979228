//! Any bytes as an npz file: errors, or arrays that are no larger than deflate can make them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mlx_core::io::NpzFile;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = NpzFile::from_bytes("x", data.to_vec()) else { return };
    let mut total = 0;
    for name in file.names() {
        let Ok(array) = file.read(name) else { continue };
        let count: usize = array.shape().iter().map(|&dim| usize::try_from(dim).unwrap()).product();
        let size = array.tensor_bytes().as_slice().len();
        assert_eq!(size, count * array.dtype().size());
        total += size;
    }
    assert!(total <= data.len() * 1032);
});
