//! Writing an archive.

use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::{Error, ErrorKind, Result};
use crate::io::npy::header_bytes;
use crate::io::safetensors::byte_size;
use crate::io::{TensorData, TensorLayout, TensorSink, atomic};

/// How arrays are put into an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NpzMethod {
    /// As they are, each at a multiple of 64 bytes, so that they can be used where they lie.
    #[default]
    Stored,
    /// Compressed by deflate.
    Deflated,
}

/// Writes arrays to the npz file `path`, which is replaced whole or not at all, as by
/// [`atomic::write_file`].
///
/// Arrays keep the order in which they come, and the same input always gives the same file.
///
/// # Errors
/// Of kind [`InvalidArgument`](ErrorKind::InvalidArgument) when a name is repeated or too long,
/// or when bytes do not fit dtype and shape; otherwise when the file system fails.
pub fn write_npz<'a, N: Into<String>>(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (N, TensorData<'a>)>,
    method: NpzMethod,
) -> Result<()> {
    let (layout, bytes): (Vec<_>, Vec<_>) = arrays
        .into_iter()
        .map(|(name, TensorData { dtype, shape, bytes })| {
            (TensorLayout { name: name.into(), dtype, shape }, bytes)
        })
        .unzip();
    write_npz_streamed(path, &layout, method, |position, sink| sink.write(&bytes[position]))
}

/// Writes a file as [`write_npz`] does, but asks for one array after the other, so that the caller
/// need not hold them all.
///
/// `data` is called once for each element of `layout`, with its position and a sink that takes
/// exactly the bytes of that array, in one piece or many.
///
/// # Errors
/// As [`write_npz`], and whatever `data` returns.
pub fn write_npz_streamed(
    path: impl AsRef<Path>,
    layout: &[TensorLayout],
    method: NpzMethod,
    data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    atomic::write_seekable_file(path, |file| write_archive(file, path, layout, method, data))
}

fn write_archive(
    file: impl Write + Seek,
    path: &Path,
    layout: &[TensorLayout],
    method: NpzMethod,
    mut data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<()>,
) -> Result<()> {
    let headers = headers(layout).map_err(|error| error.context(path.display()))?;
    let mut zip = ZipWriter::new(Guarded { file, position: 0, failed: false });
    for (position, (tensor, (header, size))) in layout.iter().zip(&headers).enumerate() {
        zip.start_file(format!("{}.npy", tensor.name), options(method, *size))
            .map_err(|error| zip_error(path, error))?;
        zip.write_all(header).map_err(|source| Error::io(path, source))?;
        let kind = format_args!("{} {:?}", tensor.dtype, tensor.shape);
        let mut sink = TensorSink::new(path, &tensor.name, &kind, &mut zip, *size);
        data(position, &mut sink)?;
        sink.finish()?;
    }
    zip.finish().map_err(|error| zip_error(path, error)).map(|_| ())
}

/// Checks names and shapes, and returns each array's header and the size of its elements.
fn headers(layout: &[TensorLayout]) -> Result<Vec<(Vec<u8>, u64)>> {
    /// The format allows 65535 bytes, of which the entry's other fields may take some.
    const LONGEST_NAME: usize = 65_000;
    let mut names = BTreeSet::new();
    let refused = |text| Err(Error::new(ErrorKind::InvalidArgument, text));
    let mut headers = Vec::with_capacity(layout.len());
    for TensorLayout { name, dtype, shape } in layout {
        if name.len() > LONGEST_NAME {
            return refused(format!("a name has {} bytes, more than {LONGEST_NAME}", name.len()));
        }
        if !names.insert(name) {
            return refused(format!("array {name:?} is given twice"));
        }
        let header = header_bytes(*dtype, shape)
            .map_err(|error| error.context(format_args!("array {name:?}")))?;
        headers.push((header, byte_size(*dtype, shape).unwrap_or_default()));
    }
    Ok(headers)
}

fn options(method: NpzMethod, size: u64) -> SimpleFileOptions {
    // Far enough below 4 GiB that nothing which does not compress passes it.
    let options = SimpleFileOptions::default().large_file(size >= 1 << 31);
    match method {
        NpzMethod::Stored => {
            options.compression_method(CompressionMethod::Stored).with_alignment(64)
        }
        NpzMethod::Deflated => options.compression_method(CompressionMethod::Deflated),
    }
}

fn zip_error(path: &Path, error: ZipError) -> Error {
    match error {
        ZipError::Io(source) => Error::io(path, source),
        error => Error::new(ErrorKind::Io, format!("{}: {error}", path.display())),
    }
}

/// A file that, once it failed, takes everything: `ZipWriter` writes its directory when it is
/// dropped, and says on standard error if it cannot.
struct Guarded<W> {
    file: W,
    position: u64,
    failed: bool,
}

impl<W> Guarded<W> {
    fn guard<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.failed |= result.is_err();
        result
    }
}

impl<W: Write> Write for Guarded<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut count = bytes.len();
        if !self.failed {
            let written = self.file.write(bytes);
            count = self.guard(written)?;
        }
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let flushed = self.file.flush();
        self.guard(flushed)
    }
}

impl<W: Seek> Seek for Guarded<W> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.position = match to {
            _ if !self.failed => {
                let found = self.file.seek(to);
                self.guard(found)?
            }
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(_) => self.position,
        };
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests;
