//! The bytes of a file, mapped into memory or held.
//!
//! The only unsafe call of `io` is the one that maps a file; its limits are told there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use memmap2::{MmapMut, MmapOptions};

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// The read-only bytes of one file, shared through an [`Arc`] by every tensor that lies in it.
///
/// A mapped file must not be truncated or written in place while the mapping lives: reading past
/// its new end kills the process, and written bytes show through. Replacing it by a rename, as
/// [`atomic::write_file`](crate::io::atomic::write_file) and download programs do, is safe: the
/// mapping keeps the old content. [`check_unchanged`](Mapping::check_unchanged) tells the cases
/// apart.
pub struct Mapping {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped {
        map: MmapMut,
        // Held open so that `check_unchanged` asks about the mapped file and not about
        // whatever now bears its name.
        file: File,
        modified: Option<SystemTime>,
        /// Start and end of what arrays may have written to; disjoint.
        lent: Mutex<BTreeMap<usize, usize>>,
    },
    Owned(Vec<u8>),
    Static(&'static [u8]),
}

impl Mapping {
    /// Maps the regular file `path`.
    ///
    /// # Errors
    /// When it does not exist, is not a regular file, or cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Mapping> {
        let path = path.as_ref();
        let io = |source| Error::io(path, source);
        // Asked before opening, which would wait for a writer if this were a pipe.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{}: not a regular file", path.display()),
            ));
        }
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let map = map_file(&file).map_err(io)?;
        let modified = metadata.modified().ok();
        let bytes = Bytes::Mapped { map, file, modified, lent: Mutex::default() };
        Ok(Mapping { path: path.to_path_buf(), bytes })
    }

    /// Holds bytes that are already in memory; `name` stands for the path in error texts.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Mapping {
        Mapping { path: name.into(), bytes: Bytes::Owned(bytes) }
    }

    /// Wraps bytes that are part of the program; `name` stands for the path in error texts.
    pub fn from_static(name: impl Into<PathBuf>, bytes: &'static [u8]) -> Mapping {
        Mapping { path: name.into(), bytes: Bytes::Static(bytes) }
    }

    /// Returns the path, or the name that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::Owned(bytes) => bytes,
            Bytes::Static(bytes) => bytes,
        }
    }

    /// Checks that the mapped file still has the size and modification time it was opened with.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Io`] when it was changed in place.
    pub fn check_unchanged(&self) -> Result<()> {
        let Bytes::Mapped { map, file, modified, .. } = &self.bytes else { return Ok(()) };
        let metadata = file.metadata().map_err(|source| Error::io(&self.path, source))?;
        if metadata.len() != map.len() as u64 || metadata.modified().ok() != *modified {
            let text = format!("{}: file was changed while it was in use", self.path.display());
            return Err(Error::new(ErrorKind::Io, text));
        }
        Ok(())
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.bytes {
            Bytes::Mapped { .. } => "mapped",
            Bytes::Owned(_) => "owned",
            Bytes::Static(_) => "static",
        };
        write!(f, "Mapping({:?}, {kind}, {} bytes)", self.path, self.as_slice().len())
    }
}

/// Tells whether a range shares bytes with one of disjoint others.
fn overlaps(others: &BTreeMap<usize, usize>, range: &Range<usize>) -> bool {
    others.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
}

fn map_file(file: &File) -> std::io::Result<MmapMut> {
    // SAFETY: the file is mapped private: a write through the mapping, which MLX does when an
    // update reuses a buffer, goes to this process's copy of the page and never to the file. What
    // remains is the limit of every mapping, told in the documentation of `Mapping`: no portable
    // call keeps another process from writing to or truncating the file. Only `u8` is read through
    // it, and every bit pattern is a `u8`, so a foreign write gives wrong numbers; a truncation
    // gives SIGBUS, not a stray read. Weight files are written once and replaced by rename, which
    // leaves the mapped file alone.
    unsafe { MmapOptions::new().map_copy(file) }
}

/// The bytes of one tensor: a range of a [`Mapping`], checked to lie inside it.
#[derive(Clone, Debug)]
pub struct TensorBytes {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl TensorBytes {
    /// Makes the view, if `range` lies inside the mapping.
    pub fn new(mapping: Arc<Mapping>, range: Range<usize>) -> Option<TensorBytes> {
        mapping.as_slice().get(range.clone())?;
        Some(TensorBytes { mapping, range })
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.mapping.as_slice()[self.range.clone()]
    }

    /// Returns the mapping that must outlive any pointer into these bytes.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Returns the range inside the mapping.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Tells whether the first byte lies where an element of `dtype` may lie.
    ///
    /// A safetensors header need not be padded, and tensors of mixed types follow one another
    /// without gaps, so this is often false; such a tensor must be copied.
    pub fn is_aligned(&self, dtype: Dtype) -> bool {
        let align = match dtype {
            Dtype::Complex64 => Dtype::Float32.size(),
            _ => dtype.size(),
        };
        self.as_slice().as_ptr().addr().is_multiple_of(align)
    }

    /// Lends these bytes to an array that shares them: only of a mapped file, where a write stays
    /// private to this process, only if aligned for `dtype` and behind the sixteen bytes that the
    /// array's allocator may look at, and only once.
    ///
    /// The array may write through the pointer when no other handle to it exists. From then on
    /// [`as_slice`] may show what it wrote; [`stored`] still gives what the file says.
    ///
    /// [`as_slice`]: TensorBytes::as_slice
    /// [`stored`]: TensorBytes::stored
    pub(crate) fn lend(&self, dtype: Dtype) -> Option<*mut u8> {
        let Bytes::Mapped { lent, .. } = &self.mapping.bytes else { return None };
        if self.range.start < 16 || self.range.is_empty() || !self.is_aligned(dtype) {
            return None;
        }
        let mut lent = lent.lock().unwrap_or_else(PoisonError::into_inner);
        if overlaps(&lent, &self.range) {
            return None;
        }
        lent.insert(self.range.start, self.range.end);
        Some(self.as_slice().as_ptr().cast_mut())
    }

    /// Returns the bytes as they are in the file, read again where an array may have changed them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn stored(&self) -> Result<Cow<'_, [u8]>> {
        let Bytes::Mapped { file, lent, .. } = &self.mapping.bytes else {
            return Ok(Cow::Borrowed(self.as_slice()));
        };
        // Held while reading: the file has one position.
        let lent = lent.lock().unwrap_or_else(PoisonError::into_inner);
        if !overlaps(&lent, &self.range) {
            return Ok(Cow::Borrowed(self.as_slice()));
        }
        let mut bytes = vec![0; self.range.len()];
        let mut file: &File = file;
        file.seek(SeekFrom::Start(self.range.start as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| Error::io(&self.mapping.path, source))?;
        Ok(Cow::Owned(bytes))
    }

    /// Splits into the mapping and the range inside it.
    pub fn into_parts(self) -> (Arc<Mapping>, Range<usize>) {
        (self.mapping, self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_across_threads() {
        fn check_send_sync<T: Send + Sync>() {}
        check_send_sync::<TensorBytes>();
    }

    #[test]
    fn rename_keeps_the_content_and_a_write_in_place_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"first").unwrap();
        let mapping = Mapping::open(&path).unwrap();

        std::fs::write(dir.path().join("y"), b"other, longer").unwrap();
        #[cfg(unix)]
        {
            std::fs::rename(dir.path().join("y"), &path).unwrap();
            mapping.check_unchanged().unwrap();
            assert_eq!(mapping.as_slice(), b"first");
        }

        let mapping = Mapping::open(&path).unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"more").unwrap();
        let error = mapping.check_unchanged().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().ends_with("x: file was changed while it was in use"), "{error}");
    }

    #[test]
    fn refuses_what_is_not_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = Mapping::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().ends_with(": not a regular file"), "{error}");
        let absent = Mapping::open(dir.path().join("absent")).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn maps_an_empty_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Mapping::open(file.path()).unwrap().as_slice(), b"");
    }

    #[test]
    fn knows_alignment_and_bounds() {
        let mapping = Arc::new(Mapping::from_bytes("x", vec![0; 64]));
        let address = mapping.as_slice().as_ptr().addr();
        let start = address.next_multiple_of(8) - address;
        let at = |offset: usize| TensorBytes::new(mapping.clone(), start + offset..40).unwrap();
        assert!(at(0).is_aligned(Dtype::Int64));
        assert!(at(4).is_aligned(Dtype::Complex64) && !at(4).is_aligned(Dtype::Float64));
        assert!(at(2).is_aligned(Dtype::Bfloat16) && !at(2).is_aligned(Dtype::Float32));
        assert!(at(1).is_aligned(Dtype::Bool) && !at(1).is_aligned(Dtype::Float16));
        assert!(TensorBytes::new(mapping.clone(), 60..65).is_none());
    }
}
