//! One opened archive.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::error::{Error, ErrorKind, Result};
use crate::io::npy::{Header, MAX_PREFIX, NpyFile};
use crate::io::{Mapping, TensorBytes};

/// An npz file: its arrays by name. The directory was checked, the arrays are as they are read.
///
/// Cloning shares the bytes; the limits of a mapped file are those of [`Mapping`].
///
/// ```
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.npz");
/// use mlx_core::Dtype;
/// use mlx_core::io::{NpzFile, NpzMethod, TensorData, write_npz};
///
/// let data = TensorData { dtype: Dtype::Uint8, shape: vec![3], bytes: vec![1, 2, 3].into() };
/// write_npz(&path, [("a", data)], NpzMethod::Deflated)?;
///
/// let file = NpzFile::open(&path)?;
/// assert_eq!(file.names().collect::<Vec<_>>(), ["a"]);
/// assert_eq!(file.read("a")?.tensor_bytes().as_slice(), [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NpzFile {
    mapping: Arc<Mapping>,
    archive: ZipArchive<Cursor<Shared>>,
    /// Positions in the archive.
    names: BTreeMap<String, usize>,
}

#[derive(Clone)]
struct Shared(Arc<Mapping>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl NpzFile {
    /// Maps `path` and checks the archive's directory.
    ///
    /// # Errors
    /// When the file cannot be mapped; of kind [`Format`](ErrorKind::Format) when it is no sound
    /// archive, or two entries have the same name or share bytes.
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
        let (archive, names) =
            open(&mapping).map_err(|error| error.context(mapping.path().display()))?;
        Ok(NpzFile { mapping, archive, names })
    }

    /// Returns the path, or the name that stands for it.
    pub fn path(&self) -> &Path {
        self.mapping.path()
    }

    /// Returns the number of arrays.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Tells whether the archive holds no array.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Lists the names of the arrays, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Reads an array: one that is stored stays in the mapping, one that is deflated is inflated
    /// into memory. Either way its checksum is computed.
    ///
    /// # Errors
    /// Of kind [`NotFound`](ErrorKind::NotFound) when there is no such array;
    /// [`Format`](ErrorKind::Format) when its content is not sound, above all when its own
    /// header, the archive's sizes and the checksum do not agree;
    /// [`Unsupported`](ErrorKind::Unsupported) when it is encrypted or compressed by anything but
    /// deflate, or MLX has no such type of elements. Object arrays are never loaded.
    pub fn read(&self, name: &str) -> Result<NpyFile> {
        let context =
            |error: Error| error.context(format_args!("{}: array {name:?}", self.path().display()));
        let Some(&position) = self.names.get(name) else {
            return Err(context(Error::new(ErrorKind::NotFound, "not in the file")));
        };
        // The handle is cheap to clone, and reading moves its position.
        let mut archive = self.archive.clone();
        read_entry(&self.mapping, &mut archive, position).map_err(context)
    }
}

impl fmt::Debug for NpzFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NpzFile({:?}, {} arrays)", self.path(), self.len())
    }
}

type Opened = (ZipArchive<Cursor<Shared>>, BTreeMap<String, usize>);

fn open(mapping: &Arc<Mapping>) -> Result<Opened> {
    // As NumPy does: an archive with something before it, or of nothing, is seldom meant.
    let bytes = mapping.as_slice();
    if !bytes.starts_with(b"PK\x03\x04") && !bytes.starts_with(b"PK\x05\x06") {
        let short = if bytes.len() < 4 { "; it is too short" } else { "" };
        return Err(bad(format!("not an npz file: it does not begin as a zip archive{short}")));
    }
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive =
        ZipArchive::with_config(config, Cursor::new(Shared(mapping.clone()))).map_err(zip_error)?;
    if archive.has_duplicate_names() {
        return Err(bad("two arrays have the same name"));
    }
    // Entries that share bytes make a small file grow without limit.
    if archive.has_overlapping_entries().map_err(zip_error)? {
        return Err(bad("entries of the archive overlap"));
    }
    let mut names = BTreeMap::new();
    for (position, name) in archive.file_names().enumerate() {
        let name = name.map_err(zip_error)?;
        let name = name.strip_suffix(".npy").unwrap_or(&name);
        if names.insert(name.to_owned(), position).is_some() {
            return Err(bad(format!("two arrays have the name {name:?}")));
        }
    }
    Ok((archive, names))
}

fn read_entry(
    mapping: &Arc<Mapping>,
    archive: &mut ZipArchive<Cursor<Shared>>,
    position: usize,
) -> Result<NpyFile> {
    // Asked first: an encrypted entry cannot even be opened.
    let raw = archive.by_index_raw(position).map_err(zip_error)?;
    let (encrypted, method) = (raw.encrypted(), raw.compression());
    let (packed, size) = (raw.compressed_size(), raw.size());
    let data_start = raw.data_start();
    drop(raw);
    if encrypted {
        return Err(Error::new(ErrorKind::Unsupported, "encrypted"));
    }
    let mut entry = match method {
        CompressionMethod::Stored | CompressionMethod::Deflated => {
            archive.by_index(position).map_err(zip_error)?
        }
        _ => {
            let text = format!("compressed by {method:?}; only stored and deflated are read");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    };
    if method == CompressionMethod::Deflated {
        return inflate(mapping, &mut entry, packed, size);
    }
    let range = data_start
        .and_then(|start| Some((start, start.checked_add(packed)?)))
        .and_then(|(start, end)| Some(start.try_into().ok()?..end.try_into().ok()?));
    let part = range.and_then(|range| TensorBytes::new(mapping.clone(), range));
    let Some(part) = part else { return Err(bad("truncated: its bytes go beyond the file")) };
    if packed != size {
        return Err(bad(format!("stored in {packed} bytes, but declared to have {size}")));
    }
    let file = NpyFile::from_part(part)?;
    std::io::copy(&mut entry, &mut std::io::sink()).map_err(read_error)?;
    Ok(file)
}

/// Inflates an entry into one buffer, whose size its npy header confirms before it grows to it.
fn inflate(
    mapping: &Arc<Mapping>,
    entry: &mut ZipFile<'_, Cursor<Shared>>,
    packed: u64,
    size: u64,
) -> Result<NpyFile> {
    /// Deflate makes no byte into more than so many.
    const MOST: u64 = 1032;
    if size / MOST > packed {
        return Err(bad(format!("{packed} bytes cannot inflate to {size}")));
    }
    let mut bytes = Vec::new();
    entry.by_ref().take(MAX_PREFIX as u64).read_to_end(&mut bytes).map_err(read_error)?;
    let header = Header::read(&bytes, size)?;
    let missing = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(bytes.len());
    bytes
        .try_reserve_exact(missing)
        .map_err(|_| Error::new(ErrorKind::OutOfMemory, format!("no memory for {size} bytes")))?;
    entry.read_to_end(&mut bytes).map_err(read_error)?;
    let found = bytes.len();
    if found as u64 != size {
        return Err(bad(format!("inflates to {found} bytes, but declared to have {size}")));
    }
    let buffer = Arc::new(Mapping::from_bytes(mapping.path(), bytes));
    let part = TensorBytes::new(buffer, 0..found)
        .ok_or_else(|| Error::new(ErrorKind::Runtime, "mapping without its own range"))?;
    NpyFile::with_header(header, part)
}

fn bad(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Format, text)
}

fn zip_error(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => read_error(error),
        ZipError::UnsupportedArchive(text) => Error::new(ErrorKind::Unsupported, lower(text)),
        // Names the crate's own type.
        ZipError::InvalidArchive(text) if text.starts_with("Unexpected end of") => truncated(),
        ZipError::InvalidArchive(text) => bad(format!("zip archive: {}", lower(&text))),
        error => bad(format!("zip archive: {}", lower(&error.to_string()))),
    }
}

/// The bytes are in memory, so what fails to be read is wrong.
fn read_error(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => truncated(),
        _ => bad(lower(&error.to_string())),
    }
}

fn truncated() -> Error {
    bad("truncated: the archive goes beyond the file")
}

fn lower(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests;
