//! Safetensors files against other programs: MLX for Python, and the `safetensors` crate.

use std::collections::{BTreeMap, BTreeSet};

use ::safetensors::SafeTensors;
use mlx_core::io::{Checkpoint, SafetensorsFile, TensorData, TensorInfo, write_safetensors};
use mlx_core::{Array, Dtype, ErrorKind, Slice, ops, save_safetensors};
use proptest::prelude::*;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn reads_what_python_wrote() {
    let expected = fixtures::json("mlx-core/safetensors/expected.json");
    for (stem, tensors) in expected.as_object().unwrap() {
        let path = fixtures::path(&format!("mlx-core/safetensors/{stem}.safetensors"));
        let file = SafetensorsFile::open(&path).unwrap();
        let found: serde_json::Map<_, _> = file
            .tensors()
            .map(|(name, info)| {
                let bytes = hex(file.bytes(name).unwrap());
                let (dtype, shape) = (info.dtype.name(), &info.shape);
                (
                    name.to_owned(),
                    serde_json::json!({"dtype": dtype, "shape": shape, "bytes": bytes}),
                )
            })
            .collect();
        assert_eq!(&found, tensors.as_object().unwrap(), "{stem}");
    }
    let file =
        SafetensorsFile::open(fixtures::path("mlx-core/safetensors/mlx.safetensors")).unwrap();
    let metadata = file.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str()));
    assert_eq!(metadata.collect::<Vec<_>>(), [("format", "mlx"), ("note", "é")]);
}

/// Writes a file with arrays of each dtype that Python reads, views and odd names among them.
fn write_ours(path: &std::path::Path) -> Vec<(String, Array)> {
    let numbers = Array::range(12).unwrap().reshape([3, 4]).unwrap();
    let mut arrays: Vec<(String, Array)> = Dtype::ALL
        .into_iter()
        .filter(|dtype| *dtype != Dtype::Float64)
        .map(|dtype| (dtype.name().to_owned(), numbers.astype(dtype).unwrap()))
        .collect();
    for (name, array) in [
        ("transposed", numbers.t()),
        ("sliced", numbers.at((Slice::step(-1), 1..3))),
        ("scalar", Ok(Array::from(2.5f32))),
        ("empty", ops::zeros(&[0, 3], Dtype::Float16)),
        ("name with \"quotes\", a \\ and é", Ok(Array::from(1u8))),
    ] {
        arrays.push((name.to_owned(), array.unwrap()));
    }
    let named = arrays.iter().map(|(name, array)| (name.as_str(), array));
    save_safetensors(path, named, &[("format", "mlx"), ("note", "é")]).unwrap();
    arrays
}

/// The committed file is this one; `fixtures/gen/mlx-core/safetensors.py` tells how to make it.
#[test]
fn python_reads_what_this_wrote() {
    if let Some(path) = std::env::var_os("MLX_CORE_TEST_WRITE_SAFETENSORS") {
        write_ours(path.as_ref());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rust.safetensors");
    let arrays = write_ours(&path);
    let committed = fixtures::path("mlx-core/safetensors/rust.safetensors");
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(committed).unwrap());
    let described: serde_json::Map<_, _> = arrays
        .iter()
        .map(|(name, array)| {
            let bytes = array.with_bytes(hex).unwrap();
            let (dtype, shape) = (array.dtype().name(), array.shape());
            (name.clone(), serde_json::json!({"dtype": dtype, "shape": shape, "bytes": bytes}))
        })
        .collect();
    let read = fixtures::json("mlx-core/safetensors/rust_read.json");
    assert_eq!(read["tensors"].as_object().unwrap(), &described);
    assert_eq!(read["metadata"], serde_json::json!({"format": "mlx", "note": "é"}));
}

#[test]
fn a_static_file_reads_like_a_mapped_one() {
    static BYTES: &[u8] =
        include_bytes!("../../../../fixtures/data/mlx-core/safetensors/mlx.safetensors");
    let embedded = SafetensorsFile::from_static("embedded", BYTES).unwrap();
    let mapped =
        SafetensorsFile::open(fixtures::path("mlx-core/safetensors/mlx.safetensors")).unwrap();
    assert!(embedded.tensors().eq(mapped.tensors()));
    let held = Checkpoint::from_files(vec![embedded]).unwrap();
    assert_eq!(held.bytes("float32"), mapped.bytes("float32"));
}

#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<i32>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn any_tensor() -> impl Strategy<Value = Tensor> {
    let shape = prop_oneof![
        8 => prop::collection::vec(1..5i32, 0..4),
        1 => prop::collection::vec(0..3i32, 1..4),
    ];
    (".{1,12}", prop::sample::select(&Dtype::ALL[..]), shape).prop_flat_map(
        |(name, dtype, shape)| {
            let size = shape.iter().product::<i32>() as usize * dtype.size();
            let byte = if dtype == Dtype::Bool { (0..2u8).boxed() } else { any::<u8>().boxed() };
            prop::collection::vec(byte, size).prop_map(move |bytes| Tensor {
                name: name.clone(),
                dtype,
                shape: shape.clone(),
                bytes,
            })
        },
    )
}

pub(crate) fn any_tensors() -> impl Strategy<Value = Vec<Tensor>> {
    prop::collection::vec(any_tensor(), 0..8).prop_map(|mut tensors| {
        let mut names = BTreeSet::from(["__metadata__".to_owned()]);
        tensors.retain(|tensor| names.insert(tensor.name.clone()));
        tensors
    })
}

pub(crate) fn any_metadata() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(".{0,6}", ".{0,12}", 0..3)
}

/// Writes a file and returns its bytes.
fn written(tensors: &[Tensor], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let metadata: Vec<(&str, &str)> =
        metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    let data = tensors.iter().map(|Tensor { name, dtype, shape, bytes }| {
        (name, TensorData { dtype: *dtype, shape: shape.clone(), bytes: bytes.into() })
    });
    write_safetensors(&path, data, &metadata).unwrap();
    std::fs::read(&path).unwrap()
}

/// Checks every promise that an accepted file makes.
fn check_sound(file: &SafetensorsFile) {
    let bytes = file.mapping().as_slice();
    let mut covered = 0;
    for (name, TensorInfo { dtype, shape, range, .. }) in file.tensors() {
        assert_eq!(file.get(name).unwrap().range, *range, "{name:?} is found by name");
        let count: usize = shape.iter().map(|&dim| usize::try_from(dim).unwrap()).product();
        assert_eq!(range.len(), count * dtype.size());
        assert!(range.start <= range.end && range.end <= bytes.len());
        assert_eq!(file.tensor_bytes(name).unwrap().as_slice(), &bytes[range.clone()]);
        covered += range.len();
    }
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(8 + header as usize + covered, bytes.len());
}

/// Compares with the `safetensors` crate, which has no complex numbers.
fn check_equals_oracle(file: &SafetensorsFile, oracle: &SafeTensors<'_>) {
    assert_eq!(file.len(), oracle.len());
    for (name, view) in oracle.iter() {
        let info = file.get(name).unwrap();
        assert_eq!(info.stored_dtype, view.dtype().to_string());
        assert!(info.shape.iter().map(|&dim| dim as usize).eq(view.shape().iter().copied()));
        assert_eq!(file.bytes(name).unwrap(), view.data());
    }
}

/// Reads `bytes` with both readers. The crate may accept what this one refuses, if for a reason
/// that is known.
fn check_against_oracle(bytes: &[u8]) {
    let ours = SafetensorsFile::from_bytes("x", bytes.to_vec());
    let oracle = SafeTensors::deserialize(bytes);
    match (&ours, &oracle) {
        (Ok(file), Ok(oracle)) => check_equals_oracle(file, oracle),
        (Ok(file), Err(error)) => {
            let complex = file.tensors().any(|(_, info)| info.dtype == Dtype::Complex64);
            assert!(complex, "only this reader accepts: {error}");
        }
        (Err(error), Ok(_)) => {
            const STRICTER: [&str; 5] = [
                "listed twice",
                "not 0 or 1",
                "not with a brace",
                "0..=2147483647",
                "smaller than a byte",
            ];
            let text = error.to_string();
            assert!(
                STRICTER.iter().any(|reason| text.contains(reason)),
                "only the crate accepts: {text}"
            );
        }
        (Err(_), Err(_)) => {}
    }
    match &ours {
        Ok(file) => check_sound(file),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{error}");
        }
    }
}

/// A change to the bytes of a file.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    /// A character of the header becomes another that JSON knows.
    Json(prop::sample::Index, char),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Append(u8),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let size = bytes.len();
        match self {
            Mutation::Set(at, byte) => bytes[at.index(size)] = *byte,
            Mutation::Json(at, character) => {
                let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
                let end = usize::try_from(header).unwrap_or(size).saturating_add(8).min(size);
                if end > 8 {
                    bytes[8 + at.index(end - 8)] = *character as u8;
                }
            }
            Mutation::Remove(at) => drop(bytes.remove(at.index(size))),
            Mutation::Insert(at, byte) => bytes.insert(at.index(size), *byte),
            Mutation::Truncate(at) => bytes.truncate(at.index(size)),
            Mutation::Append(byte) => bytes.push(*byte),
        }
    }
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let characters: Vec<char> = r#"0123456789-.e"[]{},: BFIUL8"#.chars().collect();
    prop_oneof![
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        8 => (any::<prop::sample::Index>(), prop::sample::select(characters))
            .prop_map(|(at, character)| Mutation::Json(at, character)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Remove),
        1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Truncate),
        1 => any::<u8>().prop_map(Mutation::Append),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_what_it_wrote(tensors in any_tensors(), metadata in any_metadata()) {
        let bytes = written(&tensors, &metadata);
        let file = SafetensorsFile::from_bytes("x", bytes.clone()).unwrap();
        check_sound(&file);
        prop_assert_eq!(file.metadata(), &metadata);
        let found: Vec<_> = file.tensors().map(|(name, info)| (name, info.dtype, &info.shape[..])).collect();
        // Tensors without bytes have no place of their own, all others keep their order.
        let full = |shape: &[i32]| !shape.contains(&0);
        let order = |all: &[(&str, Dtype, &[i32])]| -> Vec<String> {
            all.iter().filter(|tensor| full(tensor.2)).map(|tensor| tensor.0.to_owned()).collect()
        };
        let given: Vec<_> = tensors.iter().map(|t| (&*t.name, t.dtype, &t.shape[..])).collect();
        prop_assert_eq!(order(&found), order(&given));
        for Tensor { name, dtype, shape, bytes } in &tensors {
            let info = file.get(name).unwrap();
            prop_assert_eq!((info.dtype, &info.shape), (*dtype, shape));
            prop_assert_eq!(file.bytes(name).unwrap(), bytes);
        }
    }

    #[test]
    fn the_crate_reads_what_it_wrote(mut tensors in any_tensors(), metadata in any_metadata()) {
        tensors.retain(|tensor| tensor.dtype != Dtype::Complex64);
        let bytes = written(&tensors, &metadata);
        let oracle = SafeTensors::deserialize(&bytes).unwrap();
        check_equals_oracle(&SafetensorsFile::from_bytes("x", bytes.clone()).unwrap(), &oracle);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let found: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        prop_assert_eq!(found, metadata);
    }

    #[test]
    fn reads_what_the_crate_wrote(tensors in any_tensors(), metadata in any_metadata()) {
        let views: Vec<_> = tensors
            .iter()
            .filter_map(|Tensor { name, dtype, shape, bytes }| {
                let dtype = oracle_dtype(*dtype)?;
                let shape = shape.iter().map(|&dim| dim as usize).collect();
                Some((name, ::safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap()))
            })
            .collect();
        // The crate writes broken JSON for no tensors with an empty map.
        let metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect());
        let bytes = ::safetensors::serialize(views, metadata).unwrap();
        let file = SafetensorsFile::from_bytes("x", bytes.clone()).unwrap();
        check_equals_oracle(&file, &SafeTensors::deserialize(&bytes).unwrap());
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
            check_against_oracle(&bytes);
        }
    }

    #[test]
    fn arbitrary_headers_do_no_harm(
        header in r#"\{("[ab]": ?\{"dtype": ?"(U8|F32|BOOL|F4)", "shape": \[[0-9]?\], "data_offsets": \[[0-9]{1,2}, ?[0-9]{1,2}\]\},?){0,3}\} {0,3}"#,
        data in prop::collection::vec(0..3u8, 0..24),
    ) {
        let length = (header.len() as u64).to_le_bytes();
        check_against_oracle(&[&length[..], header.as_bytes(), &data].concat());
    }
}

#[test]
fn every_truncation_says_so() {
    let bytes = std::fs::read(fixtures::path("mlx-core/safetensors/mlx.safetensors")).unwrap();
    for size in 0..bytes.len() {
        let error = SafetensorsFile::from_bytes("x", bytes[..size].to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format);
        let text = error.to_string();
        assert!(
            text.contains("truncated: expected ") && text.ends_with(&format!("file has {size}")),
            "{text}"
        );
    }
}

fn oracle_dtype(dtype: Dtype) -> Option<::safetensors::Dtype> {
    use ::safetensors::Dtype as Oracle;
    Some(match dtype {
        Dtype::Bool => Oracle::BOOL,
        Dtype::Uint8 => Oracle::U8,
        Dtype::Uint16 => Oracle::U16,
        Dtype::Uint32 => Oracle::U32,
        Dtype::Uint64 => Oracle::U64,
        Dtype::Int8 => Oracle::I8,
        Dtype::Int16 => Oracle::I16,
        Dtype::Int32 => Oracle::I32,
        Dtype::Int64 => Oracle::I64,
        Dtype::Float16 => Oracle::F16,
        Dtype::Float32 => Oracle::F32,
        Dtype::Float64 => Oracle::F64,
        Dtype::Bfloat16 => Oracle::BF16,
        Dtype::Complex64 => return None,
    })
}
