//! Any bytes as a GGUF file.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mlx_core::io::FileFormat;

fuzz_target!(|data: &[u8]| {
    // FIXME: there is no reader of GGUF yet, so that this asks for the format only.
    let format = FileFormat::detect(Path::new("x"), data);
    assert_eq!(format == Some(FileFormat::Gguf), data.starts_with(b"GGUF"));
});
