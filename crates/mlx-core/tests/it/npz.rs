//! npy and npz files against other programs, NumPy and MLX for Python, and arrays in every format.
//!
//! `MLX_CORE_TEST_WRITE_NPZ=DIR` makes `python_reads_what_this_wrote` write its files into `DIR`,
//! which is how those in `fixtures/data/mlx-core/npz` came to be; after that, the generator there
//! notes down what Python reads in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::bf16;
use mlx_core::io::{GgmlType, NpyFile, NpzFile, NpzMethod, TensorData, write_npy, write_npz};
use mlx_core::{Array, Complex32, Dtype, ErrorKind, GgufSource, Loaded, Quantization, Result, ops};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::safetensors::{Tensor, any_metadata, any_tensor, any_tensors, hex};

fn fixture(name: &str) -> PathBuf {
    fixtures::path(&format!("mlx-core/npz/{name}"))
}

/// What the reference data say of an array.
fn describe(array: &Array) -> Value {
    let bytes = array.with_bytes(hex).unwrap();
    json!({"dtype": array.dtype().name(), "shape": array.shape(), "bytes": bytes})
}

fn describe_all(loaded: Loaded) -> Map<String, Value> {
    match loaded {
        Loaded::Array(array) => Map::from_iter([(String::new(), describe(&array))]),
        Loaded::Arrays(arrays) => {
            arrays.iter().map(|(name, array)| (name.clone(), describe(array))).collect()
        }
    }
}

#[test]
fn reads_what_python_wrote() {
    let expected = fixtures::json("mlx-core/npz/expected.json");
    let files = expected.as_object().unwrap();
    assert!(files.len() > 50);
    for (file, arrays) in files {
        let loaded = mlx_core::load(fixture(file)).unwrap();
        assert_eq!(matches!(loaded, Loaded::Array(_)), file.ends_with(".npy"), "{file}");
        assert_eq!(&describe_all(loaded), arrays.as_object().unwrap(), "{file}");
    }
}

#[test]
fn writes_what_numpy_writes() {
    let expected = fixtures::json("mlx-core/npz/expected.json");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    let mut count = 0;
    for file in expected.as_object().unwrap().keys().filter(|file| file.starts_with("numpy_")) {
        let other = ["big", "fortran", "version"].iter().any(|part| file.contains(part));
        if other || !file.ends_with(".npy") {
            continue;
        }
        mlx_core::save_npy(&path, &mlx_core::load_npy(fixture(file)).unwrap()).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written, std::fs::read(fixture(file)).unwrap(), "{file}");
        count += 1;
    }
    assert!(count >= 15, "{count} files");
}

/// What the files `rust_*` hold.
fn ours() -> Result<BTreeMap<&'static str, Array>> {
    let bf16s = [1.0, -3.140625, 1e38, f32::NEG_INFINITY].map(bf16::from_f32);
    let complex = [(1.0, 2.0), (0.0, -0.5)].map(|(re, im)| Complex32 { re, im });
    Ok(BTreeMap::from([
        ("bool", Array::from_slice(&[true, false, true], &[3])?),
        ("uint8", Array::from_slice(&[0u8, 7, 255], &[3])?),
        ("int64", Array::from_slice(&[i64::MIN, 0, i64::MAX], &[1, 3])?),
        ("float32", Array::from_slice(&[1.5f32, -0.0, f32::INFINITY, 1e-40], &[2, 2])?),
        ("float64", Array::from_slice(&[0.1f64, -1e300], &[2, 1])?),
        ("bfloat16", Array::from_slice(&bf16s, &[2, 2])?),
        ("complex64", Array::from_slice(&complex, &[2])?),
        ("transposed", Array::range(6)?.reshape([2, 3])?.t()?),
        ("scalar", Array::from(2.5f32)),
        ("empty", ops::zeros(&[0, 3], Dtype::Float16)?),
    ]))
}

fn write_ours(dir: &Path) -> Result<Vec<String>> {
    let arrays = ours()?;
    let mut files = Vec::new();
    for (name, array) in &arrays {
        files.push(format!("rust_{name}.npy"));
        mlx_core::save_npy(dir.join(&files[files.len() - 1]), array)?;
    }
    let named = || arrays.iter().map(|(name, array)| (*name, array));
    mlx_core::save_npz(dir.join("rust_stored.npz"), named())?;
    mlx_core::save_npz_compressed(dir.join("rust_deflated.npz"), named())?;
    files.push("rust_stored.npz".into());
    Ok(files)
}

#[test]
fn python_reads_what_this_wrote() {
    if let Some(dir) = std::env::var_os("MLX_CORE_TEST_WRITE_NPZ") {
        write_ours(Path::new(&dir)).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Another version of the compressor may write other bytes, so that file is read only.
    for file in write_ours(dir.path()).unwrap() {
        let written = std::fs::read(dir.path().join(&file)).unwrap();
        assert_eq!(written, std::fs::read(fixture(&file)).unwrap(), "{file}");
    }
    let arrays: Map<String, Value> =
        ours().unwrap().iter().map(|(name, array)| ((*name).into(), describe(array))).collect();
    let read = fixtures::json("mlx-core/npz/rust_read.json");
    let read = read.as_object().unwrap();
    assert_eq!(read.len(), arrays.len() + 2);
    for (file, found) in read {
        match file.strip_prefix("rust_").and_then(|file| file.strip_suffix(".npy")) {
            Some(name) => assert_eq!(found[""], arrays[name], "{file}"),
            None => assert_eq!(found.as_object().unwrap(), &arrays, "{file}"),
        }
        assert_eq!(
            &describe_all(mlx_core::load(fixture(file)).unwrap()),
            found.as_object().unwrap()
        );
    }
}

#[test]
fn the_content_says_how_to_read_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let x = Array::from_slice(&[1u8, 2], &[2]).unwrap();
    let path = dir.path().join("blob");
    mlx_core::save_npy(&path, &x).unwrap();
    let loaded = mlx_core::load(&path).unwrap();
    assert_eq!(loaded.clone().into_arrays().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(loaded.into_array().unwrap().to_vec::<u8>().unwrap(), [1, 2]);
    mlx_core::save_npz(&path, [("x", &x)]).unwrap();
    let loaded = mlx_core::load(&path).unwrap();
    assert_eq!(loaded.clone().into_array().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(loaded.into_arrays().unwrap().len(), 1);
    mlx_core::save_safetensors(&path, [("x", &x)], &[]).unwrap();
    assert_eq!(mlx_core::load(&path).unwrap().into_arrays().unwrap().len(), 1);
    let (w, bytes) = (ops::ones(&[2, 32], Dtype::Float32).unwrap(), x.astype(Dtype::Int8).unwrap());
    let tensors = [("q.weight", GgufSource::Quantized(&w, GgmlType::Q8_0)), ("x", (&bytes).into())];
    mlx_core::save_gguf(&path, tensors, &[]).unwrap();
    let arrays = mlx_core::load(&path).unwrap().into_arrays().unwrap();
    assert_eq!(arrays["q.scales"].dtype(), Dtype::Float16);
    assert_eq!(arrays["x"].to_vec::<i8>().unwrap(), [1, 2]);

    for (name, content, kind, fragment) in [
        ("x.bin", &b"\0\0"[..], ErrorKind::Format, "no format is known"),
        ("x.safetensors", b"", ErrorKind::Format, "truncated"),
        ("x.npy", b"", ErrorKind::Format, "truncated"),
        ("x.npz", b"", ErrorKind::Format, "too short"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = mlx_core::load(&path).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(fragment), "{error}");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    }
    let absent = mlx_core::load(dir.path().join("absent.npz")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}

#[test]
fn a_failed_array_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, b"old").unwrap();
    let double = ops::ones(&[2, 64], Dtype::Float64).unwrap();
    // MLX quantizes no float64, and finds that out while computing.
    let failing = || ops::quantize(&double, Quantization::default()).unwrap().scales;
    let deep = || ops::zeros(&[1; 65], Dtype::Uint8).unwrap();
    let makers: [&dyn Fn() -> Array; 2] = [&failing, &deep];
    for make in makers {
        for result in [
            mlx_core::save_npy(&path, &make()),
            mlx_core::save_npz(&path, [("good", &double), ("bad", &make())]),
            mlx_core::save_npz_compressed(&path, [("good", &double), ("bad", &make())]),
        ] {
            result.unwrap_err();
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert_eq!(dir.path().read_dir().unwrap().count(), 1, "a temporary file is left");
        }
    }
}

#[test]
fn a_view_as_bool_is_stored_as_zeros_and_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let view = Array::from_slice(&[0u8, 1, 2, 255], &[4]).unwrap().view(Dtype::Bool).unwrap();
    mlx_core::save_npy(&path, &view).unwrap();
    assert_eq!(NpyFile::open(&path).unwrap().tensor_bytes().as_slice(), [0, 1, 1, 1]);
    mlx_core::save_npz_compressed(&path, [("x", &view)]).unwrap();
    let file = NpzFile::open(&path).unwrap();
    assert_eq!(file.read("x").unwrap().tensor_bytes().as_slice(), [0, 1, 1, 1]);
}

#[test]
fn a_loaded_array_may_be_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let x = Array::range(4096).unwrap();
    mlx_core::save_npz(&path, [("x", &x)]).unwrap();
    let file = NpzFile::open(&path).unwrap();
    let read = || {
        let array = file.read("x").unwrap();
        Array::from_tensor(array.tensor_bytes(), array.shape(), array.dtype()).unwrap()
    };
    // The result may take the mapped pages; neither the checksum nor another array may see it.
    let once = read();
    (once + 1).unwrap().eval().unwrap();
    assert!(read().array_equal(&x, false).unwrap().item::<bool>().unwrap());
}

fn data(tensor: &Tensor) -> TensorData<'_> {
    let Tensor { dtype, shape, bytes, .. } = tensor;
    TensorData { dtype: *dtype, shape: shape.clone(), bytes: bytes.into() }
}

fn check_same(array: &Array, tensor: &Tensor) {
    assert_eq!((array.dtype(), array.shape()), (tensor.dtype, &tensor.shape[..]));
    assert_eq!(array.with_bytes(<[u8]>::to_vec).unwrap(), tensor.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn npy_files_come_back(tensor in any_tensor()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        write_npy(&path, &data(&tensor)).unwrap();
        let array = mlx_core::load_npy(&path).unwrap();
        check_same(&array, &tensor);
        let first = std::fs::read(&path).unwrap();
        mlx_core::save_npy(&path, &array).unwrap();
        prop_assert_eq!(std::fs::read(&path).unwrap(), first);
    }

    #[test]
    fn npz_files_come_back(tensors in any_tensors(), deflated in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        let method = if deflated { NpzMethod::Deflated } else { NpzMethod::Stored };
        write_npz(&path, tensors.iter().map(|tensor| (&*tensor.name, data(tensor))), method).unwrap();
        let arrays = mlx_core::load_npz(&path).unwrap();
        prop_assert_eq!(arrays.len(), tensors.len());
        for tensor in &tensors {
            check_same(&arrays[&tensor.name], tensor);
        }
    }

    #[test]
    fn safetensors_arrays_come_back(tensors in any_tensors(), metadata in any_metadata()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let made: Vec<(&str, Array)> = tensors
            .iter()
            .map(|t| (&*t.name, Array::from_bytes(&t.bytes, &t.shape, t.dtype).unwrap()))
            .collect();
        let pairs: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
        mlx_core::save_safetensors(&path, made.iter().map(|(name, array)| (*name, array)), &pairs).unwrap();
        let (arrays, found) = mlx_core::load_safetensors_with_metadata(&path).unwrap();
        prop_assert_eq!(found, metadata);
        prop_assert_eq!(arrays.len(), tensors.len());
        for tensor in &tensors {
            check_same(&arrays[&tensor.name], tensor);
        }
    }
}
