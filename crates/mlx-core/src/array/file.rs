//! Arrays from and to files.

use std::collections::BTreeMap;
use std::path::Path;

use super::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{SafetensorsFile, TensorLayout, write_safetensors_streamed};

/// Reads every array of a safetensors file, without a copy where the device allows it.
///
/// # Errors
/// When the file is missing or its content is not what the format demands.
pub fn load_safetensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, Array>> {
    let file = SafetensorsFile::open(path)?;
    let names: Vec<String> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    let array = |name: &str| {
        let (info, bytes) = file.get(name).zip(file.tensor_bytes(name)).ok_or_else(|| {
            Error::new(ErrorKind::Runtime, format!("{}: no tensor {name}", file.path().display()))
        })?;
        Array::from_tensor(&bytes, &info.shape, info.dtype)
    };
    names.into_iter().map(|name| Ok((name.clone(), array(&name)?))).collect()
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
    let (layout, arrays): (Vec<TensorLayout>, Vec<&Array>) = arrays
        .into_iter()
        .map(|(name, array)| {
            let (name, dtype, shape) = (name.to_owned(), array.dtype(), array.shape().to_vec());
            (TensorLayout { name, dtype, shape }, array)
        })
        .unzip();
    write_safetensors_streamed(path, &layout, metadata, |position, sink| {
        arrays[position].with_bytes(|bytes| match layout[position].dtype {
            // A view of another dtype as bool holds any byte; a file must not.
            Dtype::Bool => {
                let bools: Vec<u8> = bytes.iter().map(|&byte| u8::from(byte != 0)).collect();
                sink.write(&bools)
            }
            _ => sink.write(bytes),
        })?
    })
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
