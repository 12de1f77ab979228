//! Writing a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use super::header::{LENGTH_SIZE, MAX_HEADER_SIZE, METADATA_KEY, byte_size, stored_dtype};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{TensorSink, atomic};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorData<'a> {
    /// The element type.
    pub dtype: Dtype,
    /// The shape; a scalar has none.
    pub shape: Vec<i32>,
    /// The elements in row-major order, little endian.
    pub bytes: Cow<'a, [u8]>,
}

/// What the header will say of a tensor whose bytes come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorLayout {
    /// The name, which no other tensor of the file has.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The shape; a scalar has none.
    pub shape: Vec<i32>,
}

impl TensorLayout {
    /// Returns the size of the tensor in bytes; `None` when a dimension is negative or the size is
    /// more than an array can have.
    pub fn byte_size(&self) -> Option<u64> {
        byte_size(self.dtype, &self.shape)
    }
}

/// Writes tensors and metadata to `path`, which is replaced whole or not at all, as by
/// [`atomic::write_file`].
///
/// Tensors keep the order in which they come, and the header is padded to 8 bytes, so that the
/// same input always gives the same file.
///
/// # Errors
/// Of kind [`InvalidArgument`](ErrorKind::InvalidArgument) when a name is empty, reserved or
/// repeated, or when bytes do not fit dtype and shape; otherwise when the file system fails.
pub fn write_safetensors<'a, N: Into<String>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, TensorData<'a>)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let (layout, bytes): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .map(|(name, TensorData { dtype, shape, bytes })| {
            (TensorLayout { name: name.into(), dtype, shape }, bytes)
        })
        .unzip();
    write_safetensors_streamed(path, &layout, metadata, |position, sink| {
        sink.write(&bytes[position])
    })
}

/// Writes a file as [`write_safetensors`] does, but asks for one tensor after the other, so that
/// the caller need not hold them all.
///
/// `data` is called once for each element of `layout`, with its position and a sink that takes
/// exactly the bytes of that tensor, in one piece or many.
///
/// # Errors
/// As [`write_safetensors`], and whatever `data` returns.
///
/// ```
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.safetensors");
/// use mlx_core::Dtype;
/// use mlx_core::io::{TensorLayout, write_safetensors_streamed};
///
/// let layout = ["a", "b"].map(|name| TensorLayout {
///     name: name.into(),
///     dtype: Dtype::Uint8,
///     shape: vec![4],
/// });
/// write_safetensors_streamed(&path, &layout, &[], |position, sink| {
///     let made_just_now = [position as u8; 4];
///     sink.write(&made_just_now)
/// })?;
/// # Ok(())
/// # }
/// ```
pub fn write_safetensors_streamed(
    path: impl AsRef<Path>,
    layout: &[TensorLayout],
    metadata: &[(&str, &str)],
    data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let plan = SafetensorsPlan::new(layout, metadata).map_err(|e| e.context(path.display()))?;
    atomic::write_file(path, |file| plan.write(path, file, data))
}

/// A checked layout with the header that announces it: a file whose size is known before any
/// tensor is.
///
/// [`write_safetensors_streamed`] makes one and replaces a file with it; who decides on
/// files himself, as a writer of several shards does, writes it where he likes.
pub struct SafetensorsPlan<'a> {
    layout: &'a [TensorLayout],
    sizes: Vec<u64>,
    header: Vec<u8>,
}

impl<'a> SafetensorsPlan<'a> {
    /// Checks a layout and makes its header.
    ///
    /// # Errors
    /// Of kind [`InvalidArgument`](ErrorKind::InvalidArgument) when a name is empty, reserved or
    /// repeated, when a shape has no size, or when the header would be too long.
    pub fn new(
        layout: &'a [TensorLayout],
        metadata: &[(&str, &str)],
    ) -> Result<SafetensorsPlan<'a>> {
        let invalid = |text| Error::new(ErrorKind::InvalidArgument, text);
        Self::check(layout, metadata).map_err(invalid)
    }

    fn check(
        layout: &'a [TensorLayout],
        metadata: &[(&str, &str)],
    ) -> Result<SafetensorsPlan<'a>, String> {
        let mut entries = Vec::with_capacity(layout.len());
        let mut sizes = Vec::with_capacity(layout.len());
        let mut names = BTreeSet::new();
        let mut begin = 0u64;
        for TensorLayout { name, dtype, shape } in layout {
            if name.is_empty() || name == METADATA_KEY {
                return Err(format!("a tensor cannot have the name {name:?}"));
            }
            if !names.insert(name) {
                return Err(format!("tensor {name:?} is given twice"));
            }
            let overflow = || format!("tensor {name:?}: {dtype} {shape:?} has no valid size");
            let size = byte_size(*dtype, shape).ok_or_else(overflow)?;
            let end = begin.checked_add(size).ok_or_else(overflow)?;
            entries.push((
                name,
                Entry { dtype: stored_dtype(*dtype), shape, data_offsets: [begin, end] },
            ));
            sizes.push(size);
            begin = end;
        }
        Ok(SafetensorsPlan { layout, sizes, header: header(&entries, metadata)? })
    }

    /// Returns the size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        (LENGTH_SIZE + self.header.len()) as u64 + self.sizes.iter().sum::<u64>()
    }

    /// Writes the whole file to `file`; `path` is for error texts.
    ///
    /// `data` is called as [`write_safetensors_streamed`] does.
    ///
    /// # Errors
    /// What `data` returns, or an error of this crate when it gives too many or too few bytes or
    /// `file` fails.
    pub fn write<E: From<Error>>(
        &self,
        path: &Path,
        file: &mut dyn Write,
        mut data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let io = |source| Error::io(path, source);
        file.write_all(&(self.header.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&self.header).map_err(io)?;
        for (position, (tensor, &size)) in self.layout.iter().zip(&self.sizes).enumerate() {
            let kind = format_args!("{} {:?}", tensor.dtype, tensor.shape);
            let mut sink = TensorSink::new(path, &tensor.name, &kind, &mut *file, size);
            data(position, &mut sink)?;
            sink.finish()?;
        }
        Ok(())
    }
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [i32],
    data_offsets: [u64; 2],
}

/// Writes the JSON, padded with spaces so that the data begins at a multiple of 8 bytes.
fn header(entries: &[(&String, Entry<'_>)], metadata: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    use serde::ser::{SerializeMap, Serializer};
    let sorted: BTreeMap<&str, &str> = metadata.iter().copied().collect();
    if sorted.len() != metadata.len() {
        return Err("a metadata key is given twice".into());
    }
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let written = (|| {
        let mut map = serializer.serialize_map(None)?;
        if !sorted.is_empty() {
            map.serialize_entry(METADATA_KEY, &sorted)?;
        }
        for (name, entry) in entries {
            map.serialize_entry(name, entry)?;
        }
        map.end()
    })();
    written.map_err(|error| format!("header: {error}"))?;
    json.resize(json.len().next_multiple_of(LENGTH_SIZE), b' ');
    if json.len() > MAX_HEADER_SIZE {
        return Err(format!("header has {} bytes, more than {MAX_HEADER_SIZE}", json.len()));
    }
    Ok(json)
}

#[cfg(test)]
mod tests;
