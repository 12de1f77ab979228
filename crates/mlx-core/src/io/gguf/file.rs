//! One opened file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{GgufTensor, Header};
use super::pack::{self, GgufPacked};
use super::value::GgufValue;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Mapping, TensorBytes};

/// A GGUF file whose header was checked in full against its size; no tensor was read yet.
///
/// Every range handed out lies inside the file, overlaps no other, and has the size that type and
/// shape ask for. Cloning shares the mapping; the limits of a mapped file are those of [`Mapping`].
///
/// ```
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.gguf");
/// use mlx_core::io::{GgmlType, GgufFile, GgufLayout, GgufValue, write_gguf_streamed};
///
/// let layout = [GgufLayout { name: "w".into(), ty: GgmlType::Q8_0, shape: vec![1, 32] }];
/// let metadata = [("general.architecture", GgufValue::from("llama"))];
/// write_gguf_streamed(&path, &layout, &metadata, |_, sink| {
///     sink.write(&0x3c00u16.to_le_bytes())?; // a scale of one
///     sink.write(&[7; 32])
/// })?;
///
/// let file = GgufFile::open(&path)?;
/// assert_eq!(file.metadata_value("general.architecture").unwrap().as_str(), Some("llama"));
/// assert_eq!(file.tensor("w").unwrap().shape, [1, 32]);
/// assert_eq!(file.dequantize("w")?, [7.0; 32]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GgufFile {
    mapping: Arc<Mapping>,
    header: Arc<Header>,
}

impl GgufFile {
    /// Maps `path` and checks its header.
    ///
    /// # Errors
    /// When the file cannot be mapped, or of kind [`Format`](ErrorKind::Format) when its content is
    /// not sound: `truncated: …` if it ends too early, and otherwise what is wrong with which key
    /// or tensor. [`Unsupported`](ErrorKind::Unsupported) for version 1, big-endian files, and
    /// element types that ggml has not, or no longer.
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
        let header = Arc::new(Header::read(mapping.path(), mapping.as_slice())?);
        Ok(GgufFile { mapping, header })
    }

    /// Returns the path, or the name that stands for it.
    pub fn path(&self) -> &Path {
        self.mapping.path()
    }

    /// Returns the bytes of the whole file, into which every [`GgufTensor::range`] points.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Returns the version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Returns the multiple at which every tensor begins, counted from the first.
    pub fn alignment(&self) -> u32 {
        self.header.alignment
    }

    /// Lists the metadata in the order of the file.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &GgufValue)> {
        self.header.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Finds a value of the metadata.
    pub fn metadata_value(&self, key: &str) -> Option<&GgufValue> {
        let position = *self.header.keys.get(key)?;
        self.header.metadata.get(position).map(|(_, value)| value)
    }

    /// Lists the tensors in the order of the header.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &GgufTensor)> {
        self.header.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Finds a tensor.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        let position = *self.header.names.get(name)?;
        self.header.tensors.get(position).map(|(_, tensor)| tensor)
    }

    /// Returns the bytes of a tensor as they are stored.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.mapping.as_slice().get(self.tensor(name)?.range.clone())
    }

    /// Returns the bytes of a tensor together with a share of the mapping that keeps them.
    pub fn tensor_bytes(&self, name: &str) -> Option<TensorBytes> {
        TensorBytes::new(self.mapping.clone(), self.tensor(name)?.range.clone())
    }

    /// Computes the elements of a tensor of any type, in row-major order.
    ///
    /// What comes out is what ggml's reference functions compute, bit for bit; integers and double
    /// precision are rounded to the nearest `f32`.
    ///
    /// # Errors
    /// When there is no such tensor, or the file cannot be read.
    pub fn dequantize(&self, name: &str) -> Result<Vec<f32>> {
        let (tensor, bytes) = self.stored(name)?;
        let count = tensor.shape.iter().map(|&dim| dim as usize).product();
        let mut out = vec![0.0; count];
        tensor.ty.dequantize(&bytes.stored()?, &mut out)?;
        Ok(out)
    }

    /// Rearranges a tensor into one of MLX's packed forms, without any loss.
    ///
    /// `None` when its type has no such form, it has fewer than two axes, or a scale in it is
    /// not a finite number. The introduction of [`GgufPacked`] has the table of types.
    ///
    /// # Errors
    /// When there is no such tensor, or the file cannot be read.
    pub fn packed(&self, name: &str) -> Result<Option<GgufPacked>> {
        let (tensor, bytes) = self.stored(name)?;
        Ok(pack::pack(tensor.ty, &tensor.shape, &bytes.stored()?))
    }

    fn stored(&self, name: &str) -> Result<(&GgufTensor, TensorBytes)> {
        self.tensor(name).zip(self.tensor_bytes(name)).ok_or_else(|| {
            let text = format!("{}: no tensor {name:?}", self.path().display());
            Error::new(ErrorKind::InvalidArgument, text)
        })
    }
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, tensors) = (self.header.metadata.len(), self.header.tensors.len());
        write!(f, "GgufFile({:?}, {keys} metadata values, {tensors} tensors)", self.path())
    }
}
