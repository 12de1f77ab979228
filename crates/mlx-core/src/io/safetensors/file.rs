//! One opened file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{Header, TensorInfo};
use crate::error::Result;
use crate::io::{Mapping, TensorBytes};

/// A safetensors file whose header was checked in full against its content.
///
/// Every range handed out lies inside the file and has the size that dtype and shape ask for.
/// Cloning shares the mapping; the limits of a mapped file are those of [`Mapping`].
///
/// ```
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.safetensors");
/// use mlx_core::Dtype;
/// use mlx_core::io::{SafetensorsFile, TensorData, write_safetensors};
///
/// let data = TensorData { dtype: Dtype::Int16, shape: vec![2], bytes: vec![1, 0, 2, 0].into() };
/// write_safetensors(&path, [("positions", data)], &[("format", "mlx")])?;
///
/// let file = SafetensorsFile::open(&path)?;
/// assert_eq!(file.metadata()["format"], "mlx");
/// assert_eq!(file.get("positions").unwrap().shape, [2]);
/// assert_eq!(file.bytes("positions").unwrap(), [1, 0, 2, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SafetensorsFile {
    mapping: Arc<Mapping>,
    header: Arc<Header>,
}

impl SafetensorsFile {
    /// Maps `path` and checks it; tensor data is not read, but for `BOOL`.
    ///
    /// # Errors
    /// When the file cannot be mapped, or of kind [`Format`](crate::ErrorKind::Format) when its
    /// content is not sound: `truncated: expected N bytes, file has M` if it ends too early, and
    /// otherwise what is wrong with which tensor.
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when an element type is smaller than a byte.
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

    /// Reads bytes that are part of the program; `name` stands for the path in error texts.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_static(name: impl Into<PathBuf>, bytes: &'static [u8]) -> Result<Self> {
        Self::from_mapping(Arc::new(Mapping::from_static(name, bytes)))
    }

    /// Reads a mapping.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_mapping(mapping: Arc<Mapping>) -> Result<Self> {
        let header = Arc::new(Header::read(mapping.path(), mapping.as_slice())?);
        Ok(SafetensorsFile { mapping, header })
    }

    /// Returns the path, or the name that stands for it.
    pub fn path(&self) -> &Path {
        self.mapping.path()
    }

    /// Returns the bytes of the whole file, into which every [`TensorInfo::range`] points.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Returns the metadata of the header; it has none when the file has none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.header.tensors.len()
    }

    /// Tells whether the file holds no tensor.
    pub fn is_empty(&self) -> bool {
        self.header.tensors.is_empty()
    }

    /// Lists the tensors in the order of their bytes.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &TensorInfo)> {
        self.header.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// Finds a tensor.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        let Header { tensors, by_name, .. } = &*self.header;
        let found = by_name.binary_search_by(|&position| tensors[position].0.as_str().cmp(name));
        Some(&tensors[by_name[found.ok()?]].1)
    }

    /// Returns the bytes of a tensor.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let range = self.get(name)?.range.clone();
        Some(&self.mapping.as_slice()[range])
    }

    /// Returns the bytes of a tensor together with a share of the mapping that keeps them.
    pub fn tensor_bytes(&self, name: &str) -> Option<TensorBytes> {
        TensorBytes::new(self.mapping.clone(), self.get(name)?.range.clone())
    }

    /// Returns a tensor by its position in [`tensors`](Self::tensors).
    pub(super) fn tensor_at(&self, position: usize) -> (&str, &TensorInfo) {
        let (name, info) = &self.header.tensors[position];
        (name, info)
    }
}

impl fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetensorsFile({:?}, {} tensors)", self.path(), self.len())
    }
}
