//! Weight files on their way to the disk: counted, digested, and stopped when the caller asks.

use std::hash::Hasher as _;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use twox_hash::XxHash3_64;

use super::file_system::{FileSystem, OutputFile};
use super::journal::{FinishedShard, digest};
use super::outcome::io_error;
use super::shards::Shard;
use super::{Progress, TensorSource};
use crate::error::{Error, ErrorKind, Result};

/// How many bytes are written between two reports of progress, at most.
const PIECE_BYTES: usize = 8 << 20;

/// Counts bytes and asks whether to go on.
pub(super) struct Meter<'a> {
    report: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    now: Progress,
}

impl<'a> Meter<'a> {
    pub(super) fn new(
        n_total_bytes: u64,
        report: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        Meter { report, now: Progress { n_bytes: 0, n_resumed_bytes: 0, n_total_bytes } }
    }

    /// Adds bytes that were written.
    pub(super) fn advance(&mut self, n_bytes: u64) -> Result<()> {
        self.now.n_bytes += n_bytes;
        self.check()
    }

    /// Adds bytes that an earlier run had written.
    pub(super) fn resume(&mut self, n_bytes: u64) -> Result<()> {
        self.now.n_resumed_bytes += n_bytes;
        self.advance(n_bytes)
    }

    /// Takes back what was added by [`Meter::resume`].
    pub(super) fn take_back(&mut self, n_bytes: u64) {
        self.now.n_resumed_bytes -= n_bytes;
        self.now.n_bytes -= n_bytes;
    }

    /// Reports where it is.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when the caller wants to stop.
    pub(super) fn check(&mut self) -> Result<()> {
        match (self.report)(self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::new(ErrorKind::Cancelled, "interrupted")),
        }
    }
}

/// A weight file that is written, but not yet forced to the disk.
pub(super) struct Written {
    pub(super) file: Box<dyn OutputFile>,
    pub(super) shard: FinishedShard,
}

/// Writes a weight file, tensor by tensor.
pub(super) fn write_shard(
    fs: &dyn FileSystem,
    path: &Path,
    shard: &Shard<'_>,
    source: &mut dyn TensorSource,
    meter: &mut Meter<'_>,
) -> Result<Written> {
    let file = fs.create_new(path).map_err(|e| io_error(path, e))?;
    let mut out = ShardWriter { file, meter, hash: XxHash3_64::new(), n_bytes: 0, failure: None };
    let mut buffer = BufWriter::with_capacity(1 << 20, &mut out);
    let first = shard.tensors.start;
    let result = shard
        .plan
        .write::<Error>(path, &mut buffer, |position, sink| source.write(first + position, sink))
        .and_then(|()| buffer.flush().map_err(|e| io_error(path, e)));
    // What is still buffered after a failure is not to be written.
    drop(buffer.into_parts());
    match (out.failure, result) {
        // The core wraps what the file says into an error of its own, which has less to tell.
        (Some(Failure::Io(error)), _) => Err(io_error(path, error)),
        (Some(Failure::Stopped(error)), _) | (None, Err(error)) => Err(error),
        (None, Ok(())) => {
            let shard = FinishedShard {
                name: shard.name.clone(),
                n_bytes: out.n_bytes,
                digest: digest(&out.hash),
            };
            Ok(Written { file: out.file, shard })
        }
    }
}

struct ShardWriter<'a, 'm> {
    file: Box<dyn OutputFile>,
    meter: &'a mut Meter<'m>,
    hash: XxHash3_64,
    n_bytes: u64,
    failure: Option<Failure>,
}

enum Failure {
    Io(io::Error),
    Stopped(Error),
}

impl ShardWriter<'_, '_> {
    fn fail(&mut self, failure: Failure) -> io::Error {
        self.failure = Some(failure);
        io::Error::other("stopped")
    }
}

impl Write for ShardWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let count = match self.file.write(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.fail(Failure::Io(error))),
            Ok(count) => count,
        };
        self.hash.write(&piece[..count]);
        self.n_bytes += count as u64;
        match self.meter.advance(count as u64) {
            Ok(()) => Ok(count),
            Err(error) => Err(self.fail(Failure::Stopped(error))),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a weight file of an earlier run and tells whether it is what the journal says.
///
/// # Errors
/// [`ErrorKind::Cancelled`]. A file that cannot be read is not what the journal says.
pub(super) fn is_intact(
    fs: &dyn FileSystem,
    path: &Path,
    expected: &FinishedShard,
    meter: &mut Meter<'_>,
) -> Result<bool> {
    let is_file =
        fs.symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == expected.n_bytes);
    let Ok(mut file) = fs.open(path) else { return Ok(false) };
    if !is_file {
        return Ok(false);
    }
    let mut hash = XxHash3_64::new();
    let mut n_bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.write(&buffer[..count]);
                n_bytes += count as u64;
                meter.resume(count as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let intact = n_bytes == expected.n_bytes && digest(&hash) == expected.digest;
    if !intact {
        meter.take_back(n_bytes);
    }
    Ok(intact)
}
