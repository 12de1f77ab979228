//! Bytes as a GGUF file: reading, unpacking and packing must never panic, and what was read can
//! be written again and is then the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mlx_core::io::{GgufFile, GgufLayout, write_gguf_streamed};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = GgufFile::from_bytes("fuzz", bytes.to_vec()) else { return };
    for (name, tensor) in file.tensors() {
        assert_eq!(Some(tensor.range.len() as u64), tensor.ty.byte_size(&tensor.shape));
        assert_eq!(file.bytes(name).map(<[u8]>::len), Some(tensor.range.len()));
        let values = file.dequantize(name).expect("a sound file");
        if tensor.ty.can_quantize() {
            let _ = tensor.ty.quantize(&values);
        }
        if let Some(packed) = file.packed(name).expect("a sound file") {
            let _ = packed.to_blocks();
        }
    }
    let layout: Vec<GgufLayout> = file
        .tensors()
        .map(|(name, tensor)| GgufLayout {
            name: name.to_owned(),
            ty: tensor.ty,
            shape: tensor.shape.clone(),
        })
        .collect();
    let metadata: Vec<_> = file.metadata().map(|(key, value)| (key, value.clone())).collect();
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("x.gguf");
    let written = write_gguf_streamed(&path, &layout, &metadata, |position, sink| {
        sink.write(file.bytes(&layout[position].name).unwrap_or_default())
    });
    // A name may be longer, or an alignment larger, than may be written.
    if written.is_err() {
        return;
    }
    let again = GgufFile::open(&path).expect("a file that was just written");
    assert_eq!(again.tensors().len(), layout.len());
    for (name, tensor) in file.tensors() {
        assert_eq!(again.bytes(name), file.bytes(name));
        let found = again.tensor(name).expect("every tensor");
        assert_eq!((found.ty, &found.shape), (tensor.ty, &tensor.shape));
    }
    // By their text, because what is not a number equals nothing.
    let texts = |file: &GgufFile| format!("{:?}", file.metadata().collect::<Vec<_>>());
    assert_eq!(texts(&again), texts(&file));
});
