//! Arrays from GGUF files, and packed weights in MLX against ggml's own numbers.

use mlx_core::io::{
    GgmlType, GgufFile, GgufLayout, GgufValue, SafetensorsFile, write_gguf_streamed,
};
use mlx_core::ops::{self, Packed};
use mlx_core::{
    Array, Device, Dtype, ErrorKind, GgufLoad, GgufSource, QuantMode, Quantization, Result,
    load_gguf, save_gguf, with_device,
};

/// The types that MLX has too.
const PACKED: [GgmlType; 13] = [
    GgmlType::Q1_0,
    GgmlType::Q2_0,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::TQ1_0,
    GgmlType::TQ2_0,
    GgmlType::MXFP4,
    GgmlType::NVFP4,
];

/// Of these a zero may have the other sign in MLX.
fn is_centred(ty: GgmlType) -> bool {
    !matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K)
}

/// Writes the fixture's blocks of `ty` that have ordinary scales, three to a row, and opens them.
fn two_rows(dir: &std::path::Path, ty: GgmlType) -> GgufFile {
    let file = SafetensorsFile::open(fixtures::path("mlx-core/gguf/blocks.safetensors")).unwrap();
    let blocks = &file.bytes(&format!("{ty}.blocks")).unwrap()[..6 * ty.block_bytes()];
    let mut blocks = blocks.to_vec();
    if ty == GgmlType::NVFP4 {
        // The fixture has the one scale of which ggml makes a zero.
        blocks[2] = 0x7e;
    }
    let shape = vec![2, 3 * ty.block_size() as i32];
    let layout = [GgufLayout { name: "x.weight".into(), ty, shape }];
    let path = dir.join(ty.name());
    write_gguf_streamed(&path, &layout, &[], |_, sink| sink.write(&blocks)).unwrap();
    GgufFile::open(path).unwrap()
}

#[test]
fn packed_weights_are_the_same_numbers() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    for ty in PACKED {
        let file = two_rows(dir.path(), ty);
        let expected = file.dequantize("x.weight")?;
        let parts = file.packed("x.weight")?.expect("MLX has this type");
        let packed = Packed::from_gguf(&parts, Dtype::Float32)?;
        let found =
            with_device(Device::Cpu, || packed.dequantize(Dtype::Float32)?.to_vec::<f32>())?;
        assert_eq!(found.len(), expected.len());
        for (position, (f, e)) in found.iter().zip(&expected).enumerate() {
            let same = f.to_bits() == e.to_bits() || (is_centred(ty) && f == e && *e == 0.0);
            assert!(same, "{ty}: element {position} is {f:e}, ggml has {e:e}");
        }
        // A product with the identity takes each number as MLX's kernels read it.
        let columns = expected.len() as i32 / 2;
        let identity = ops::eye(columns, columns, 0, Dtype::Float32)?;
        let product =
            with_device(Device::Cpu, || packed.matmul(&identity, true)?.t()?.to_vec::<f32>())?;
        assert_eq!(product, expected, "{ty}");
    }
    Ok(())
}

#[test]
fn what_mlx_has_not_stays_unpacked() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    for ty in GgmlType::ALL.into_iter().filter(|ty| ty.block_size() > 1 && !PACKED.contains(ty)) {
        let file = two_rows(dir.path(), ty);
        assert_eq!(file.packed("x.weight")?, None, "{ty}");
        let loaded = load_gguf(file.path(), GgufLoad::Packed(Dtype::Float32))?;
        // By their bits: a scale of random bytes may be no number.
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let found = bits(loaded.arrays["x.weight"].to_vec()?);
        assert!(found == bits(file.dequantize("x.weight")?), "{ty}");
        assert_eq!((loaded.arrays.len(), loaded.quantization.layers.len()), (1, 0));
    }
    // Neither does a weight with a scale that is no number, nor one that is no matrix.
    let path = dir.path().join("odd");
    let one =
        |shape: &[i32]| GgufLayout { name: "x".into(), ty: GgmlType::Q8_0, shape: shape.into() };
    let write = |shape: &[i32], scale: u16| {
        write_gguf_streamed(&path, &[one(shape)], &[], |_, sink| {
            sink.write(&scale.to_le_bytes())?;
            sink.write(&[1; 32])
        })?;
        GgufFile::open(&path)?.packed("x")
    };
    assert!(write(&[1, 32], 0x3c00)?.is_some());
    assert_eq!(write(&[1, 32], 0x7c00)?, None);
    assert_eq!(write(&[1, 32], 0x7e00)?, None);
    assert_eq!(write(&[32], 0x3c00)?, None);
    Ok(())
}

#[test]
fn loads_in_both_ways() -> Result<()> {
    let path = fixtures::path("mlx-core/gguf/writer.gguf");
    let file = GgufFile::open(&path)?;
    for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16, Dtype::Float64] {
        let plain = load_gguf(&path, GgufLoad::Dequantize(dtype))?;
        assert_eq!(plain.arrays.len(), file.tensors().len());
        assert_eq!(plain.metadata["general.architecture"].as_str(), Some("llama"));
        for (name, tensor) in file.tensors() {
            let array = &plain.arrays[name];
            assert_eq!(array.dtype(), tensor.ty.dtype().unwrap_or(dtype), "{name}");
            assert_eq!(array.shape(), tensor.shape, "{name}");
            if dtype == Dtype::Float32 {
                assert_eq!(array.to_vec_as::<f32>()?, file.dequantize(name)?, "{name}");
            }
        }
    }
    let packed = load_gguf(&path, GgufLoad::Packed(Dtype::Float16))?;
    let of = |name: &str| packed.quantization.layers.get(name).copied().flatten();
    assert_eq!(of("Q4_K"), Some(Quantization { group_size: 32, bits: 4, mode: QuantMode::Affine }));
    assert_eq!(of("MXFP4"), Some(Quantization::of(QuantMode::Mxfp4)));
    assert_eq!(of("Q6_K"), None);
    assert_eq!(packed.arrays["Q4_K.scales"].dtype(), Dtype::Float16);
    assert_eq!(packed.arrays["Q4_K.biases"].shape(), [2, 24]);
    assert_eq!(packed.arrays["MXFP4.scales"].dtype(), Dtype::Uint8);
    assert_eq!(packed.arrays["Q6_K"].dtype(), Dtype::Float16);
    let error = load_gguf(&path, GgufLoad::Dequantize(Dtype::Int32)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    Ok(())
}

#[test]
fn a_second_tensor_of_a_name_is_refused() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let w = ops::ones(&[1, 32], Dtype::Float32)?;
    let tensors =
        [("x.weight", GgufSource::Quantized(&w, GgmlType::Q4_0)), ("x.scales", (&w).into())];
    save_gguf(&path, tensors, &[])?;
    assert_eq!(load_gguf(&path, GgufLoad::Dequantize(Dtype::Float32))?.arrays.len(), 2);
    let error = load_gguf(&path, GgufLoad::Packed(Dtype::Float32)).unwrap_err();
    assert!(error.to_string().contains("second tensor \"x.scales\""), "{error}");
    Ok(())
}

#[test]
fn packed_weights_come_back() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    // Blocks of ggml, through MLX's packed form, to blocks again.
    for ty in PACKED {
        let file = two_rows(dir.path(), ty);
        let parts = file.packed("x.weight")?.expect("MLX has this type");
        let packed = Packed::from_gguf(&parts, Dtype::Float32)?;
        let path = dir.path().join("back.gguf");
        let saved = save_gguf(&path, [("x.weight", &packed)], &[]);
        match ty {
            GgmlType::Q4_K | GgmlType::Q5_K => {
                assert_eq!(saved.unwrap_err().kind(), ErrorKind::Unsupported, "{ty}");
            }
            GgmlType::Q1_0 | GgmlType::Q2_0 | GgmlType::TQ1_0 | GgmlType::TQ2_0 => {
                assert_eq!(saved.unwrap_err().kind(), ErrorKind::Unsupported, "{ty}");
            }
            _ => {
                saved?;
                let back = GgufFile::open(&path)?;
                assert_eq!(back.tensor("x.weight").unwrap().ty, ty);
                assert_eq!(back.dequantize("x.weight")?, file.dequantize("x.weight")?, "{ty}");
                let exact = !matches!(ty, GgmlType::MXFP4 | GgmlType::NVFP4);
                assert!(!exact || back.bytes("x.weight") == file.bytes("x.weight"), "{ty}");
            }
        }
    }
    Ok(())
}

#[test]
fn mlx_weights_of_larger_groups_are_saved() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let w = ops::linspace(-1.0, 1.0, 3 * 256, Dtype::Float16)?.reshape([3, 256])?;
    for (bits, group_size, ty) in
        [(4, 32, GgmlType::Q4_1), (4, 64, GgmlType::Q4_1), (5, 128, GgmlType::Q5_1)]
    {
        let quantization = Quantization { group_size, bits, mode: QuantMode::Affine };
        let packed = with_device(Device::Cpu, || ops::quantize(&w, quantization))?;
        save_gguf(&path, [("w", &packed)], &[])?;
        let file = GgufFile::open(&path)?;
        assert_eq!(file.tensor("w").unwrap().ty, ty);
        let wide = Packed {
            scales: packed.scales.astype(Dtype::Float32)?,
            biases: packed.biases.map(|b| b.astype(Dtype::Float32)).transpose()?,
            ..packed
        };
        assert_eq!(wide.dequantize(None)?.to_vec::<f32>()?, file.dequantize("w")?);
    }
    let eight = Quantization { group_size: 32, bits: 8, mode: QuantMode::Affine };
    let packed = ops::quantize(&w, eight)?;
    let error = save_gguf(&path, [("w", &packed)], &[]).unwrap_err();
    assert!(error.to_string().contains("tensor \"w\": save_gguf: no ggml type"), "{error}");
    Ok(())
}

/// A file with everything that can be written; the committed one was read by ggml's and MLX's
/// readers, which `written.json` records.
fn write_all(path: &std::path::Path) -> Result<()> {
    let w = ops::linspace(-1.0, 1.0, 4 * 64, Dtype::Float32)?.reshape([4, 64])?;
    let ints = |dtype| Array::range(6)?.reshape([2, 3])?.astype(dtype);
    let arrays = [
        ("float32", w.clone()),
        ("float16", w.astype(Dtype::Float16)?),
        ("view", w.t()?),
        ("scalar", Array::from(7.0f32)),
        ("int8", ints(Dtype::Int8)?),
        ("int16", ints(Dtype::Int16)?),
        ("int32", ints(Dtype::Int32)?),
    ];
    let four = Quantization { group_size: 64, bits: 4, mode: QuantMode::Affine };
    let packed = ops::quantize(&w.astype(Dtype::Float16)?, four)?;
    let quantized = [
        ("q8_0.weight", GgufSource::Quantized(&w, GgmlType::Q8_0)),
        ("q4_0.weight", GgufSource::Quantized(&w, GgmlType::Q4_0)),
        ("q4_1.weight", GgufSource::Quantized(&w, GgmlType::Q4_1)),
        ("bf16", GgufSource::Quantized(&w, GgmlType::BF16)),
        ("affine.weight", GgufSource::Packed(&packed)),
    ];
    let tensors = arrays.iter().map(|(name, array)| (*name, array.into())).chain(quantized);
    let metadata: [(&str, GgufValue); 8] = [
        ("general.architecture", "llama".into()),
        ("text.é", "é, 中".into()),
        ("numbers", vec![1u32, 2, 3].into()),
        ("texts", vec!["a".to_owned(), String::new()].into()),
        ("flags", vec![true, false].into()),
        ("float", 0.5f32.into()),
        ("long", u64::MAX.into()),
        ("empty", Vec::<f32>::new().into()),
    ];
    save_gguf(path, tensors, &metadata)
}

#[test]
fn others_read_what_is_written() -> Result<()> {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("written.gguf");
    with_device(Device::Cpu, || write_all(&path))?;
    let written = std::fs::read(&path).unwrap();
    let committed = fixtures::path("mlx-core/gguf").join("written.gguf");
    let same = std::fs::read(&committed).is_ok_and(|bytes| bytes == written);
    assert!(same, "{} is not {}; see fixtures/gen/README.md", committed.display(), path.display());

    let file = GgufFile::open(&path)?;
    let told = fixtures::json("mlx-core/gguf/written.json");
    let tensors = told["tensors"].as_object().expect("what ggml's reader says");
    assert_eq!(tensors.len(), file.tensors().len());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (name, tensor) in file.tensors() {
        assert_eq!(tensors[name]["type"], tensor.ty.name(), "{name}");
        assert_eq!(tensors[name]["shape"], serde_json::json!(tensor.shape), "{name}");
        assert_eq!(tensors[name]["bytes"], hex(file.bytes(name).unwrap()), "{name}");
    }
    assert_eq!(told["metadata"]["text.é"][1], "é, 中");
    // MLX reads its three packed types into float16, and bfloat16 as float16.
    let loaded = load_gguf(&path, GgufLoad::Packed(Dtype::Float16))?;
    let mlx = told["mlx"].as_object().expect("what MLX says");
    assert_eq!(mlx.len(), loaded.arrays.len());
    for (name, array) in loaded.arrays.iter().filter(|(name, _)| *name != "bf16") {
        assert_eq!(mlx[name]["dtype"], array.dtype().name(), "{name}");
        assert_eq!(mlx[name]["shape"], serde_json::json!(array.shape()), "{name}");
        assert_eq!(mlx[name]["bytes"], array.with_bytes(hex)?, "{name}");
    }
    Ok(())
}

#[test]
fn refuses_to_save_what_ggml_has_not() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let error = save_gguf(&path, [("b", &Array::from(true))], &[]).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"b\": save_gguf: ggml has no type for bool");
    let w = ops::ones(&[2, 256], Dtype::Float32)?;
    let error = save_gguf(&path, [("w", GgufSource::Quantized(&w, GgmlType::Q4_K))], &[]);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    let odd = ops::ones(&[256, 2], Dtype::Float32)?;
    let error = save_gguf(&path, [("w", GgufSource::Quantized(&odd, GgmlType::Q4_0))], &[]);
    assert!(error.unwrap_err().to_string().contains("Q4_0 [256, 2] has no size"));
    assert!(!path.exists());
    Ok(())
}
