//! GGUF files against other programs: ggml's package `gguf`, and MLX for Python.

use std::collections::BTreeSet;

use mlx_core::ErrorKind;
use mlx_core::io::{
    GgmlType, GgufArray, GgufFile, GgufLayout, GgufValue, SafetensorsFile, write_gguf_streamed,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Compares bit for bit, but takes all that is not a number for the same.
fn check_bits(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (position, (a, e)) in actual.iter().zip(expected).enumerate() {
        let same = a.to_bits() == e.to_bits() || (a.is_nan() && e.is_nan());
        assert!(same, "{what}: element {position} is {a:e}, expected {e:e}");
    }
}

#[test]
fn dequantizes_every_type_as_ggml() {
    let file = SafetensorsFile::open(fixtures::path("mlx-core/gguf/blocks.safetensors")).unwrap();
    for ty in GgmlType::ALL {
        let blocks = file.bytes(&format!("{ty}.blocks")).unwrap();
        let values = floats(file.bytes(&format!("{ty}.values")).unwrap());
        let mut out = vec![f32::NAN; values.len()];
        ty.dequantize(blocks, &mut out).unwrap();
        check_bits(ty.name(), &out, &values);
        assert!(values.iter().filter(|x| x.is_finite() && **x != 0.0).count() > values.len() / 4);
    }
}

#[test]
fn quantizes_as_ggml() {
    let file = SafetensorsFile::open(fixtures::path("mlx-core/gguf/encoded.safetensors")).unwrap();
    let values = floats(file.bytes("values").unwrap());
    for ty in [GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_1] {
        assert!(ty.can_quantize());
        assert_eq!(ty.quantize(&values).unwrap(), file.bytes(ty.name()).unwrap(), "{ty}");
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30] {
            for place in [0, 17, 31] {
                let mut block = [1.0; 32];
                block[place] = bad;
                let error = ty.quantize(&block).expect_err("no such scale");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{ty} {bad}");
            }
        }
    }
    assert!(GgmlType::Q4_0.quantize(&[0.0; 31]).is_err());
    let error = GgmlType::Q4_K.quantize(&[0.0; 256]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!GgmlType::Q4_K.can_quantize());
}

#[test]
fn the_code_books_are_what_the_generator_writes() {
    let generated = std::fs::read_to_string(fixtures::path("mlx-core/gguf/grids.rs")).unwrap();
    assert_eq!(include_str!("../../src/io/gguf/grids.rs"), generated);
}

/// The name of a value's type as the package `gguf` spells it, and the value as JSON.
fn describe_value(value: &GgufValue) -> Value {
    fn array(values: &GgufArray) -> (String, Vec<Value>) {
        macro_rules! values {
            ($name:literal, $values:expr) => {
                ($name.to_owned(), $values.iter().map(|value| json!(value)).collect())
            };
        }
        match values {
            GgufArray::U8(v) => values!("UINT8", v),
            GgufArray::I8(v) => values!("INT8", v),
            GgufArray::U16(v) => values!("UINT16", v),
            GgufArray::I16(v) => values!("INT16", v),
            GgufArray::U32(v) => values!("UINT32", v),
            GgufArray::I32(v) => values!("INT32", v),
            GgufArray::U64(v) => values!("UINT64", v),
            GgufArray::I64(v) => values!("INT64", v),
            GgufArray::F32(v) => values!("FLOAT32", v),
            GgufArray::F64(v) => values!("FLOAT64", v),
            GgufArray::Bool(v) => values!("BOOL", v),
            GgufArray::String(v) => values!("STRING", v),
            // The package flattens what is nested and names the first element's types.
            GgufArray::Array(arrays) => {
                let parts: Vec<_> = arrays.iter().map(array).collect();
                let inner = parts.first().map_or("", |(name, _)| name);
                (format!("ARRAY/{inner}"), parts.iter().flat_map(|(_, v)| v.clone()).collect())
            }
        }
    }
    match value {
        GgufValue::U8(v) => json!(["UINT8", v]),
        GgufValue::I8(v) => json!(["INT8", v]),
        GgufValue::U16(v) => json!(["UINT16", v]),
        GgufValue::I16(v) => json!(["INT16", v]),
        GgufValue::U32(v) => json!(["UINT32", v]),
        GgufValue::I32(v) => json!(["INT32", v]),
        GgufValue::U64(v) => json!(["UINT64", v]),
        GgufValue::I64(v) => json!(["INT64", v]),
        GgufValue::F32(v) => json!(["FLOAT32", v]),
        GgufValue::F64(v) => json!(["FLOAT64", v]),
        GgufValue::Bool(v) => json!(["BOOL", v]),
        GgufValue::String(v) => json!(["STRING", v]),
        GgufValue::Array(values) => {
            let (name, values) = array(values);
            json!([format!("ARRAY/{name}"), values])
        }
    }
}

fn describe(file: &GgufFile) -> Value {
    let metadata: serde_json::Map<_, _> =
        file.metadata().map(|(key, value)| (key.to_owned(), describe_value(value))).collect();
    let tensors: serde_json::Map<_, _> = file
        .tensors()
        .map(|(name, tensor)| {
            let bytes = hex(file.bytes(name).unwrap());
            let (ty, shape) = (tensor.ty.name(), &tensor.shape);
            (name.to_owned(), json!({"type": ty, "shape": shape, "bytes": bytes}))
        })
        .collect();
    json!({"metadata": metadata, "tensors": tensors})
}

/// Brings single-precision numbers to the digits of the double that Python prints.
fn widened(value: &Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => json!(n.as_f64().map(|x| x as f32)),
        Value::Array(values) => values.iter().map(widened).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), widened(v))).collect(),
        other => other.clone(),
    }
}

#[test]
fn reads_what_python_wrote() {
    let expected = fixtures::json("mlx-core/gguf/expected.json");
    for (stem, expected) in expected.as_object().unwrap() {
        let file = open(&format!("{stem}.gguf"));
        assert_eq!(file.version(), 3);
        assert_eq!(widened(&describe(&file)), widened(expected), "{stem}");
    }
    let file = open("writer.gguf");
    assert_eq!(file.alignment(), 64);
    assert_eq!(file.metadata_value("test.u8").unwrap().as_u64(), Some(200));
    assert_eq!(file.metadata_value("test.i64").unwrap().as_i64(), Some(-(1 << 62)));
    assert_eq!(file.metadata_value("test.i8").unwrap().as_u64(), None);
    assert_eq!(file.metadata_value("test.f64").unwrap().as_f64(), Some(0.1));
    assert_eq!(file.metadata_value("absent"), None);
    let nested = vec![GgufArray::I32(vec![1, 2]), GgufArray::I32(vec![3])];
    let found = file.metadata_value("test.array.ARRAY").unwrap().as_array();
    assert_eq!(found, Some(&GgufArray::Array(nested)));
    assert_eq!(file.dequantize("int8").unwrap(), [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
    assert_eq!(file.dequantize("absent").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn open(name: &str) -> GgufFile {
    GgufFile::open(fixtures::path(&format!("mlx-core/gguf/{name}"))).unwrap()
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    ty: GgmlType,
    shape: Vec<i32>,
    bytes: Vec<u8>,
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let outer = prop_oneof![
        8 => prop::collection::vec(1..4i32, 0..4),
        1 => prop::collection::vec(0..3i32, 1..4),
    ];
    let scalar = any::<bool>();
    let ty = prop::sample::select(&GgmlType::ALL[..]);
    (".{1,12}", ty, outer, 1..3i32, scalar).prop_flat_map(|(name, ty, mut shape, row, scalar)| {
        if !(scalar && shape.is_empty() && ty.block_size() == 1) {
            shape.push(row * ty.block_size() as i32);
        }
        let size = ty.byte_size(&shape).unwrap() as usize;
        prop::collection::vec(any::<u8>(), size).prop_map(move |bytes| Tensor {
            name: name.clone(),
            ty,
            shape: shape.clone(),
            bytes,
        })
    })
}

fn any_tensors() -> impl Strategy<Value = Vec<Tensor>> {
    prop::collection::vec(any_tensor(), 0..6).prop_map(|mut tensors| {
        let mut names = BTreeSet::new();
        tensors.retain(|tensor| names.insert(tensor.name.clone()));
        tensors
    })
}

fn any_array() -> impl Strategy<Value = GgufArray> {
    fn of<T: std::fmt::Debug + 'static>(
        value: impl Strategy<Value = T> + 'static,
        make: impl Fn(Vec<T>) -> GgufArray + 'static,
    ) -> BoxedStrategy<GgufArray> {
        prop::collection::vec(value, 0..5).prop_map(make).boxed()
    }
    let leaf = prop_oneof![
        of(any::<u8>(), GgufArray::U8),
        of(any::<i8>(), GgufArray::I8),
        of(any::<u16>(), GgufArray::U16),
        of(any::<i16>(), GgufArray::I16),
        of(any::<u32>(), GgufArray::U32),
        of(any::<i32>(), GgufArray::I32),
        of(any::<u64>(), GgufArray::U64),
        of(any::<i64>(), GgufArray::I64),
        of(any::<f32>(), GgufArray::F32),
        of(any::<f64>(), GgufArray::F64),
        of(any::<bool>(), GgufArray::Bool),
        of(".{0,6}", GgufArray::String),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(GgufArray::Array)
    })
}

fn any_metadata() -> impl Strategy<Value = Vec<(String, GgufValue)>> {
    let value = prop_oneof![
        any::<u8>().prop_map(GgufValue::from),
        any::<i8>().prop_map(GgufValue::from),
        any::<u16>().prop_map(GgufValue::from),
        any::<i16>().prop_map(GgufValue::from),
        any::<u32>().prop_map(GgufValue::from),
        any::<i32>().prop_map(GgufValue::from),
        any::<u64>().prop_map(GgufValue::from),
        any::<i64>().prop_map(GgufValue::from),
        any::<f32>().prop_map(GgufValue::from),
        any::<f64>().prop_map(GgufValue::from),
        any::<bool>().prop_map(GgufValue::from),
        ".{0,12}".prop_map(GgufValue::from),
        any_array().prop_map(GgufValue::from),
    ];
    let alignment = prop::sample::select(&[None, Some(1u32), Some(8), Some(256)][..]);
    (prop::collection::btree_map(".{1,6}", value, 0..6), alignment).prop_map(|(map, alignment)| {
        let alignment = alignment.map(|n| ("general.alignment".to_owned(), GgufValue::U32(n)));
        map.into_iter().chain(alignment).collect()
    })
}

/// Writes a file and returns its bytes.
fn written(tensors: &[Tensor], metadata: &[(String, GgufValue)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let layout: Vec<_> = tensors
        .iter()
        .map(|Tensor { name, ty, shape, .. }| GgufLayout {
            name: name.clone(),
            ty: *ty,
            shape: shape.clone(),
        })
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (&**key, value.clone())).collect();
    write_gguf_streamed(&path, &layout, &metadata, |position, sink| {
        // In two pieces, as one that streams would.
        let (first, second) = tensors[position].bytes.split_at(tensors[position].bytes.len() / 2);
        sink.write(first)?;
        sink.write(second)
    })
    .unwrap();
    std::fs::read(&path).unwrap()
}

/// Checks every promise that an accepted file makes.
fn check_sound(file: &GgufFile) {
    let bytes = file.mapping().as_slice();
    let mut ranges = Vec::new();
    for (name, tensor) in file.tensors() {
        assert_eq!(file.tensor(name), Some(tensor), "{name:?} is found by name");
        assert_eq!(Some(tensor.range.len() as u64), tensor.ty.byte_size(&tensor.shape));
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len());
        assert_eq!(file.tensor_bytes(name).unwrap().as_slice(), file.bytes(name).unwrap());
        ranges.push(tensor.range.clone());
        if tensor.range.len() < 10_000 {
            let values = file.dequantize(name).unwrap();
            let count: usize = tensor.shape.iter().map(|&dim| dim as usize).product();
            assert_eq!(values.len(), count);
            if let Some(packed) = file.packed(name).unwrap() {
                assert_eq!(packed.shape, tensor.shape);
                if let Some((ty, blocks)) = packed.to_blocks() {
                    assert_eq!(Some(blocks.len() as u64), ty.byte_size(&packed.shape));
                }
            }
        }
    }
    ranges.sort_by_key(|range| (range.start, range.end));
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(file.metadata().all(|(key, value)| {
        // Not equal to itself where it holds what is not a number.
        format!("{:?}", file.metadata_value(key)) == format!("{:?}", Some(value))
    }));
}

/// Reads what may be anything.
fn check_any(bytes: &[u8]) {
    match GgufFile::from_bytes("x", bytes.to_vec()) {
        Ok(file) => check_sound(&file),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{error}");
        }
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    /// Eight bytes near the front become a number that is often a length.
    Number(prop::sample::Index, u64),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.len() < 32 {
            return;
        }
        let size = bytes.len();
        match self {
            Mutation::Set(at, byte) => bytes[at.index(size)] = *byte,
            Mutation::Number(at, number) => {
                let at = at.index(size - 8);
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            Mutation::Remove(at) => drop(bytes.remove(at.index(size))),
            Mutation::Insert(at, byte) => bytes.insert(at.index(size), *byte),
            Mutation::Truncate(at) => bytes.truncate(at.index(size)),
        }
    }
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    use prop::sample::Index;
    let number = prop_oneof![any::<u64>(), 0..64u64, Just(u64::MAX), Just(1 << 31), Just(1 << 62)];
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (any::<Index>(), number).prop_map(|(at, number)| Mutation::Number(at, number)),
        1 => any::<Index>().prop_map(Mutation::Remove),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_what_it_wrote(tensors in any_tensors(), metadata in any_metadata()) {
        let file = GgufFile::from_bytes("x", written(&tensors, &metadata)).unwrap();
        check_sound(&file);
        let found: Vec<_> =
            file.metadata().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        prop_assert_eq!(found, metadata);
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (found, Tensor { name, ty, shape, bytes }) in file.tensors().zip(&tensors) {
            prop_assert_eq!(found.0, name);
            prop_assert_eq!((found.1.ty, &found.1.shape), (*ty, shape));
            prop_assert_eq!(file.bytes(name).unwrap(), bytes);
            let place = found.1.range.start as u64;
            prop_assert!(bytes.is_empty() || place.is_multiple_of(file.alignment().into()));
        }
    }

    #[test]
    fn mutations_do_no_harm(
        tensors in any_tensors(),
        metadata in any_metadata(),
        mutations in prop::collection::vec(any_mutation(), 1..4),
    ) {
        let mut bytes = written(&tensors, &metadata);
        for mutation in &mutations {
            mutation.apply(&mut bytes);
            check_any(&bytes);
        }
    }
}

#[test]
fn every_truncation_says_so() {
    let bytes = std::fs::read(fixtures::path("mlx-core/gguf/mlx.gguf")).unwrap();
    let file = GgufFile::from_bytes("x", bytes.clone()).unwrap();
    let end = file.tensors().map(|(_, tensor)| tensor.range.end).max().unwrap();
    for size in 0..bytes.len() {
        let result = GgufFile::from_bytes("x", bytes[..size].to_vec());
        if size >= end {
            check_sound(&result.unwrap());
            continue;
        }
        let error = result.expect_err("a part of a file");
        assert_eq!(error.kind(), ErrorKind::Format);
        let text = error.to_string();
        let told = text.contains("truncated: ") && text.ends_with(&format!("file has {size}"));
        assert!(told, "{size}: {text}");
    }
}

#[test]
fn no_changed_byte_does_harm() {
    for name in ["mlx.gguf", "writer.gguf"] {
        let bytes = std::fs::read(fixtures::path(&format!("mlx-core/gguf/{name}"))).unwrap();
        let file = GgufFile::from_bytes("x", bytes.clone()).unwrap();
        let data = file.tensors().map(|(_, tensor)| tensor.range.start).min().unwrap();
        for at in 0..data {
            for byte in [0, 0x7f, 0xff, bytes[at] ^ 1] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                check_any(&changed);
            }
        }
    }
}

#[test]
fn refuses_to_write_what_nobody_could_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    std::fs::write(&path, "old").unwrap();
    let tensor = |name: &str, shape: &[i32]| GgufLayout {
        name: name.into(),
        ty: GgmlType::Q4_0,
        shape: shape.into(),
    };
    let deep = (0..8).fold(GgufArray::U8(vec![]), |array, _| GgufArray::Array(vec![array]));
    let one = GgufValue::U8(1);
    type Case<'a> = (&'a [GgufLayout], &'a [(&'a str, GgufValue)], &'a str);
    let cases: [Case<'_>; 12] = [
        (&[tensor("", &[32])], &[], "a tensor cannot have an empty name"),
        (&[tensor(&"n".repeat(64), &[32])], &[], "has 64 bytes, more than 63"),
        (&[tensor("t", &[32]), tensor("t", &[32])], &[], "tensor \"t\" is given twice"),
        (&[tensor("t", &[33])], &[], "Q4_0 [33] has no size"),
        (&[tensor("t", &[-32])], &[], "Q4_0 [-32] has no size"),
        (&[tensor("t", &[1, 1, 1, 1, 32])], &[], "has more than 4 axes"),
        (&[], &[("", one.clone())], "a key cannot have an empty name"),
        (&[], &[("k", one.clone()), ("k", one.clone())], "key \"k\" is given twice"),
        (&[], &[("k", deep.into())], "key \"k\": arrays lie more than 8 deep"),
        (&[], &[("general.alignment", 3u32.into())], "general.alignment is 3, not"),
        (&[], &[("general.alignment", 8u64.into())], "general.alignment is 8, not"),
        (&[], &[("general.alignment", (1u32 << 31).into())], "general.alignment is 2147483648"),
    ];
    for (layout, metadata, expected) in cases {
        let result = write_gguf_streamed(&path, layout, metadata, |_, sink| sink.write(&[0; 18]));
        let error = result.expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    for size in [17, 19] {
        let result = write_gguf_streamed(&path, &[tensor("t", &[32])], &[], |_, sink| {
            sink.write(&vec![0; size])
        });
        let text = result.expect_err("not a block").to_string();
        assert!(text.contains("tensor \"t\": 1 bytes too "), "{text}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}
