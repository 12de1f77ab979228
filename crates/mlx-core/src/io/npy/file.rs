//! One opened file, and writing one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{Header, header_bytes};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::safetensors::byte_size;
use crate::io::{Mapping, TensorBytes, TensorData, atomic};

/// An npy file whose header was checked in full against its content.
///
/// Cloning shares the bytes; the limits of a mapped file are those of [`Mapping`].
///
/// ```
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.npy");
/// use mlx_core::Dtype;
/// use mlx_core::io::{NpyFile, TensorData, write_npy};
///
/// let data = TensorData { dtype: Dtype::Int16, shape: vec![2], bytes: vec![1, 0, 2, 0].into() };
/// write_npy(&path, &data)?;
///
/// let file = NpyFile::open(&path)?;
/// assert_eq!((file.dtype(), file.shape()), (Dtype::Int16, &[2][..]));
/// assert_eq!(file.tensor_bytes().as_slice(), [1, 0, 2, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NpyFile {
    dtype: Dtype,
    shape: Vec<i32>,
    fortran_order: bool,
    bytes: TensorBytes,
}

impl NpyFile {
    /// Maps `path` and checks it; elements are not read, but for `bool` and where they are
    /// big-endian, which makes a copy.
    ///
    /// # Errors
    /// When the file cannot be mapped; of kind [`Format`](ErrorKind::Format) when its content is
    /// not sound, more bytes than the array's included;
    /// [`Unsupported`](ErrorKind::Unsupported) when MLX has no such type of elements. Object
    /// arrays are never loaded.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_mapping(Arc::new(Mapping::open(path)?))
    }

    /// Reads bytes that are already in memory; `name` stands for the path in error texts.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self> {
        Self::from_mapping(Arc::new(Mapping::from_bytes(name, bytes)))
    }

    /// Reads a mapping.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_mapping(mapping: Arc<Mapping>) -> Result<Self> {
        let path = mapping.path().to_path_buf();
        let size = mapping.as_slice().len();
        TensorBytes::new(mapping, 0..size)
            .ok_or_else(|| Error::new(ErrorKind::Runtime, "mapping without its own range"))
            .and_then(Self::from_part)
            .map_err(|error| error.context(path.display()))
    }

    /// Reads a part of a file, the whole of which is one npy file; errors name no path.
    pub(in crate::io) fn from_part(part: TensorBytes) -> Result<Self> {
        let bytes = part.as_slice();
        let header = Header::read(bytes, bytes.len() as u64)?;
        Self::with_header(header, part)
    }

    /// Puts a header and the bytes it heads together.
    pub(in crate::io) fn with_header(header: Header, part: TensorBytes) -> Result<Self> {
        let Header { dtype, big_endian, fortran_order, shape, data_start } = header;
        let (mapping, range) = part.into_parts();
        let bytes = TensorBytes::new(mapping, range.start + data_start..range.end)
            .ok_or_else(|| Error::new(ErrorKind::Runtime, "npy: header outside of its bytes"))?;
        let found = bytes.as_slice();
        if dtype == Dtype::Bool
            && let Some(byte) = found.iter().find(|byte| **byte > 1)
        {
            // Any other byte is undefined behaviour as a `bool`, in Rust and in C++.
            let text = format!("bool holds the byte {byte}, not 0 or 1");
            return Err(Error::new(ErrorKind::Format, text));
        }
        let bytes = if big_endian { swap(&bytes, dtype)? } else { bytes };
        Ok(NpyFile { dtype, shape, fortran_order, bytes })
    }

    /// Returns the element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns the shape; a scalar has none.
    pub fn shape(&self) -> &[i32] {
        &self.shape
    }

    /// Tells whether the first axis varies fastest, so that the bytes are those of the transposed
    /// array in row-major order.
    pub fn is_fortran_order(&self) -> bool {
        self.fortran_order
    }

    /// Returns the bytes of the elements, little endian and in the file's order, with a share of
    /// the mapping that keeps them.
    pub fn tensor_bytes(&self) -> &TensorBytes {
        &self.bytes
    }
}

impl fmt::Debug for NpyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.fortran_order { ", Fortran order" } else { "" };
        write!(f, "NpyFile({} {:?}{order})", self.dtype, self.shape)
    }
}

/// Copies big-endian elements and turns each around; a complex number is two of them.
fn swap(bytes: &TensorBytes, dtype: Dtype) -> Result<TensorBytes> {
    let size = if dtype == Dtype::Complex64 { 4 } else { dtype.size() };
    let mut swapped = bytes.as_slice().to_vec();
    swapped.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    let range = 0..swapped.len();
    let mapping = Arc::new(Mapping::from_bytes(bytes.mapping().path(), swapped));
    TensorBytes::new(mapping, range)
        .ok_or_else(|| Error::new(ErrorKind::Runtime, "mapping without its own range"))
}

/// Writes one array to `path`, byte for byte as NumPy does, replacing it whole or not at all as
/// [`atomic::write_file`] does.
///
/// # Errors
/// Of kind [`InvalidArgument`](ErrorKind::InvalidArgument) when the bytes do not fit dtype and
/// shape, or there are more than 64 axes; otherwise when the file system fails.
pub fn write_npy(path: impl AsRef<Path>, array: &TensorData<'_>) -> Result<()> {
    let path = path.as_ref();
    let TensorData { dtype, shape, bytes } = array;
    let header = header_bytes(*dtype, shape).map_err(|error| error.context(path.display()))?;
    if byte_size(*dtype, shape) != Some(bytes.len() as u64) {
        let count = bytes.len();
        let text = format!("{}: npy: {count} bytes for {dtype} {shape:?}", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    atomic::write_file(path, |file| {
        let io = |source| Error::io(path, source);
        file.write_all(&header).map_err(io)?;
        file.write_all(bytes).map_err(io)
    })
}
