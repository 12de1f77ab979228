//! Any bytes as a safetensors file: an error, or tensors that lie in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mlx_core::io::SafetensorsFile;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = SafetensorsFile::from_bytes("x", data.to_vec()) else { return };
    for (name, info) in file.tensors() {
        let count: usize = info.shape.iter().map(|&dim| usize::try_from(dim).unwrap()).product();
        assert_eq!(info.range.len(), count * info.dtype.size());
        assert_eq!(file.get(name), Some(info));
        assert_eq!(file.tensor_bytes(name).unwrap().as_slice(), &data[info.range.clone()]);
    }
});
