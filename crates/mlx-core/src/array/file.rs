//! Arrays from and to files.
//!
//! [`load`] takes any format; each has functions of its own beside. What a file may hold is
//! checked in [`io`](crate::io), before an array is made over its bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Array;
use super::gguf::{GgufLoad, load_gguf};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{
    FileFormat, Mapping, NpyFile, NpzFile, NpzMethod, SafetensorsFile, TensorData, TensorLayout,
    TensorSink, write_npy, write_npz_streamed, write_safetensors_streamed,
};

/// What [`load`] found in a file.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// The array of an npy file.
    Array(Array),
    /// The arrays of any other file, by name.
    Arrays(BTreeMap<String, Array>),
}

impl Loaded {
    /// Returns the one array.
    ///
    /// # Errors
    /// When the file holds arrays by name.
    pub fn into_array(self) -> Result<Array> {
        match self {
            Loaded::Array(array) => Ok(array),
            Loaded::Arrays(arrays) => {
                let text = format!("load: expected one array, file has {} by name", arrays.len());
                Err(Error::new(ErrorKind::InvalidArgument, text))
            }
        }
    }

    /// Returns the arrays by name.
    ///
    /// # Errors
    /// When the file holds one array without a name.
    pub fn into_arrays(self) -> Result<BTreeMap<String, Array>> {
        match self {
            Loaded::Arrays(arrays) => Ok(arrays),
            Loaded::Array(_) => {
                let text = "load: expected arrays by name, file has one without";
                Err(Error::new(ErrorKind::InvalidArgument, text))
            }
        }
    }
}

/// Reads a safetensors, npy, npz or GGUF file, whichever its content, or else its extension, says
/// it is.
///
/// Data are not copied where the device and the format allow it. As in Python, quantized tensors
/// of GGUF become packed arrays where MLX has their form, and `float16` where it has not;
/// [`load_gguf`] has the choice.
///
/// ```
/// use mlx_core::{Array, load, save_npy, save_npz};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (one, two) = (dir.path().join("one.npy"), dir.path().join("two.npz"));
/// let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
/// save_npy(&one, &x)?;
/// save_npz(&two, [("x", &x), ("y", &x.exp()?)])?;
/// assert_eq!(load(&one)?.into_array()?.to_vec::<f32>()?, [1.0, 2.0]);
/// assert_eq!(load(&two)?.into_arrays()?["x"].shape(), [2]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the file is missing, its format is not known, or its content is not what the format
/// demands.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded> {
    let mapping = Arc::new(Mapping::open(path)?);
    let path = mapping.path().to_path_buf();
    match FileFormat::detect(&path, mapping.as_slice()) {
        Some(FileFormat::Safetensors) => {
            safetensors_arrays(&SafetensorsFile::from_mapping(mapping)?).map(Loaded::Arrays)
        }
        Some(FileFormat::Npy) => npy_array(&NpyFile::from_mapping(mapping)?).map(Loaded::Array),
        Some(FileFormat::Npz) => npz_arrays(&NpzFile::from_mapping(mapping)?).map(Loaded::Arrays),
        Some(FileFormat::Gguf) => {
            let found = load_gguf(&path, GgufLoad::Packed(Dtype::Float16))?;
            Ok(Loaded::Arrays(found.arrays))
        }
        None => Err(Error::format(&path, "not a file of arrays: no format is known for it")),
    }
}

/// Reads every array of a safetensors file, without a copy where the device allows it.
///
/// # Errors
/// When the file is missing or its content is not what the format demands.
pub fn load_safetensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, Array>> {
    safetensors_arrays(&SafetensorsFile::open(path)?)
}

/// Reads every array of a safetensors file as [`load_safetensors`] does, and its metadata, which
/// are empty when the file has none.
///
/// # Errors
/// When the file is missing or its content is not what the format demands.
///
/// ```
/// use mlx_core::{Array, load_safetensors_with_metadata, save_safetensors};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.safetensors");
/// save_safetensors(&path, [("x", &Array::range(3)?)], &[("format", "mlx")])?;
/// let (arrays, metadata) = load_safetensors_with_metadata(&path)?;
/// assert_eq!((arrays["x"].size(), metadata["format"].as_str()), (3, "mlx"));
/// # Ok(())
/// # }
/// ```
pub fn load_safetensors_with_metadata(
    path: impl AsRef<Path>,
) -> Result<(BTreeMap<String, Array>, BTreeMap<String, String>)> {
    let file = SafetensorsFile::open(path)?;
    Ok((safetensors_arrays(&file)?, file.metadata().clone()))
}

/// Reads the array of an npy file, without a copy where the device allows it.
///
/// # Errors
/// When the file is missing, its content is not what the format demands, or MLX has no such type
/// of elements. Object arrays are never loaded, as they can run code.
///
/// ```
/// use mlx_core::{Array, load_npy, save_npy};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.npy");
/// save_npy(&path, &Array::range(3)?)?;
/// assert_eq!(load_npy(&path)?.to_vec::<i32>()?, [0, 1, 2]);
/// # Ok(())
/// # }
/// ```
pub fn load_npy(path: impl AsRef<Path>) -> Result<Array> {
    npy_array(&NpyFile::open(path)?)
}

/// Reads every array of an npz file; only one that is stored, and aligned as by [`save_npz`], can
/// be used without a copy.
///
/// # Errors
/// When the file is missing, its content is not what the format demands, or MLX has no such type
/// of elements. Object arrays are never loaded, as they can run code.
///
/// ```
/// use mlx_core::{Array, load_npz, save_npz_compressed};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.npz");
/// let x = Array::range(3)?;
/// save_npz_compressed(&path, [("x", &x), ("twice", &(&x * 2)?)])?;
/// assert_eq!(load_npz(&path)?["twice"].to_vec::<i32>()?, [0, 2, 4]);
/// # Ok(())
/// # }
/// ```
pub fn load_npz(path: impl AsRef<Path>) -> Result<BTreeMap<String, Array>> {
    npz_arrays(&NpzFile::open(path)?)
}

/// Writes arrays to a safetensors file, which is replaced whole or not at all.
///
/// Arrays are computed and written one after the other, in the order given.
///
/// ```
/// use mlx_core::{Array, load_safetensors, save_safetensors};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.safetensors");
/// let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// save_safetensors(&path, [("x", &x), ("x_t", &x.t()?)], &[("format", "mlx")])?;
/// assert_eq!(load_safetensors(&path)?["x_t"].to_vec::<f32>()?, [1.0, 3.0, 2.0, 4.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When a name is empty or repeated, an array cannot be computed, or the file system fails; what
/// was at `path` before is then still there.
pub fn save_safetensors<'a>(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let (layout, arrays) = layout(arrays);
    write_safetensors_streamed(path, &layout, metadata, |position, sink| {
        write_elements(arrays[position], sink)
    })
}

/// Writes an array to an npy file, which is replaced whole or not at all.
///
/// The file is what NumPy would write; bfloat16, which NumPy has not, is stored as MLX does.
/// Nothing is added to the name.
///
/// # Errors
/// When the array has more than 64 axes or cannot be computed, or the file system fails; what was
/// at `path` before is then still there.
pub fn save_npy(path: impl AsRef<Path>, array: &Array) -> Result<()> {
    let (dtype, shape) = (array.dtype(), array.shape().to_vec());
    array.with_bytes(|bytes| {
        write_npy(path, &TensorData { dtype, shape, bytes: storable(bytes, dtype) })
    })?
}

/// Writes arrays to an npz file, not compressed, which is replaced whole or not at all.
///
/// Arrays are computed and written one after the other, in the order given, each at a multiple of
/// 64 bytes. Nothing is added to the name of the file.
///
/// # Errors
/// When a name is repeated, an array has more than 64 axes or cannot be computed, or the file
/// system fails; what was at `path` before is then still there.
pub fn save_npz<'a>(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
) -> Result<()> {
    let (layout, arrays) = layout(arrays);
    write_npz_streamed(path, &layout, NpzMethod::Stored, |position, sink| {
        write_elements(arrays[position], sink)
    })
}

/// Writes arrays to an npz file as [`save_npz`] does, compressed by deflate.
///
/// # Errors
/// As [`save_npz`].
pub fn save_npz_compressed<'a>(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
) -> Result<()> {
    let (layout, arrays) = layout(arrays);
    write_npz_streamed(path, &layout, NpzMethod::Deflated, |position, sink| {
        write_elements(arrays[position], sink)
    })
}

fn safetensors_arrays(file: &SafetensorsFile) -> Result<BTreeMap<String, Array>> {
    let names: Vec<String> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    let array = |name: &str| {
        let (info, bytes) = file.get(name).zip(file.tensor_bytes(name)).ok_or_else(|| {
            Error::new(ErrorKind::Runtime, format!("{}: no tensor {name}", file.path().display()))
        })?;
        Array::from_tensor(&bytes, &info.shape, info.dtype)
    };
    names.into_iter().map(|name| Ok((name.clone(), array(&name)?))).collect()
}

fn npy_array(file: &NpyFile) -> Result<Array> {
    if !file.is_fortran_order() {
        return Array::from_tensor(file.tensor_bytes(), file.shape(), file.dtype());
    }
    let reversed: Vec<i32> = file.shape().iter().rev().copied().collect();
    Array::from_tensor(file.tensor_bytes(), &reversed, file.dtype())?.t()
}

fn npz_arrays(file: &NpzFile) -> Result<BTreeMap<String, Array>> {
    file.names().map(|name| Ok((name.to_owned(), npy_array(&file.read(name)?)?))).collect()
}

fn layout<'a>(
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
) -> (Vec<TensorLayout>, Vec<&'a Array>) {
    let describe = |(name, array): (&'a str, &'a Array)| {
        let (name, dtype, shape) = (name.to_owned(), array.dtype(), array.shape().to_vec());
        (TensorLayout { name, dtype, shape }, array)
    };
    arrays.into_iter().map(describe).unzip()
}

fn write_elements(array: &Array, sink: &mut TensorSink<'_>) -> Result<()> {
    array.with_bytes(|bytes| sink.write(&storable(bytes, array.dtype())))?
}

/// A view of another dtype as bool holds any byte; a file must not.
fn storable(bytes: &[u8], dtype: Dtype) -> Cow<'_, [u8]> {
    match dtype {
        Dtype::Bool => bytes.iter().map(|&byte| u8::from(byte != 0)).collect(),
        _ => Cow::Borrowed(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn every_dtype_comes_back() -> Result<()> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("arrays.safetensors");
        let arrays: Vec<(&str, Array)> = Dtype::ALL
            .into_iter()
            .map(|dtype| Ok((dtype.name(), Array::range(6)?.reshape([2, 3])?.t()?.astype(dtype)?)))
            .collect::<Result<_>>()?;
        save_safetensors(&path, arrays.iter().map(|(name, array)| (*name, array)), &[])?;
        let loaded = load_safetensors(&path)?;
        assert_eq!(loaded.len(), arrays.len());
        for (name, array) in &arrays {
            assert_eq!(
                (loaded[*name].dtype(), loaded[*name].shape()),
                (array.dtype(), array.shape())
            );
            assert!(loaded[*name].array_equal(array, false)?.item::<bool>()?, "{name}");
        }
        Ok(())
    }

    #[test]
    fn a_failed_array_keeps_the_old_file() -> Result<()> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("arrays.safetensors");
        let old = ops::ones(&[2], Dtype::Float32)?;
        save_safetensors(&path, [("x", &old)], &[])?;
        // MLX quantizes no float64, and finds that out while computing.
        let double = ops::ones(&[2, 64], Dtype::Float64)?;
        let failing = ops::quantize(&double, crate::Quantization::default())?.scales;
        assert!(save_safetensors(&path, [("x", &failing)], &[]).is_err());
        assert_eq!(load_safetensors(&path)?["x"].to_vec::<f32>()?, [1.0; 2]);
        Ok(())
    }
}
