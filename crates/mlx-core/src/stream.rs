//! Streams: where ops run, chosen by scope and not by argument.
//!
//! MLX's streams belong to a thread, so a [`Stream`] is an index into a table of this thread. An
//! op pays one look into that table. A CPU stream is an OS thread, which MLX never ends: a thread
//! that ends leaves its streams to later ones, so there are as many as threads ever computed at
//! the same time.
//!
//! What MLX has and this has not: default streams and devices cannot be set, scopes decide;
//! streams that several threads share, since no array can follow; a list of all streams of the
//! process, for the same reason; thread-local streams, because every [`Stream`] is one.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use mlx_sys as sys;

use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi;

/// A queue of work on one device, owned by the thread that made it.
///
/// ```
/// use mlx_core::{Array, Device, Stream, with_stream};
///
/// # fn main() -> mlx_core::Result<()> {
/// let stream = Stream::new(Device::Cpu)?;
/// let y = with_stream(stream, || Array::from(2.0f32).square())?;
/// assert_eq!(y.item::<f32>()?, 4.0);
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0277
/// fn check_send<T: Send>() {}
/// check_send::<mlx_core::Stream>();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    index: usize,
    device: Device,
    // Not `Send`: the index means another stream on another thread.
    thread: PhantomData<*const ()>,
}

struct Entry {
    raw: sys::mlx_stream,
    device: Device,
}

#[derive(Default)]
struct Table {
    /// `None` where a stream was given up; indices stay.
    entries: Vec<Option<Entry>>,
    defaults: [Option<usize>; 2],
    /// Innermost last; empty means the default stream of the default device.
    scopes: Vec<usize>,
}

impl Drop for Table {
    fn drop(&mut self) {
        self.entries.iter().flatten().for_each(|entry| ffi::stream_free(entry.raw));
    }
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

impl Table {
    fn add(&mut self, raw: sys::mlx_stream, device: Device) -> usize {
        self.entries.push(Some(Entry { raw, device }));
        self.entries.len() - 1
    }

    fn default_of(&mut self, device: Device) -> Result<usize> {
        if let Some(index) = self.defaults[device as usize] {
            return Ok(index);
        }
        check_available(device)?;
        let raw = ffi::default_stream(device == Device::Gpu)?;
        let index = self.add(raw, device);
        self.defaults[device as usize] = Some(index);
        Ok(index)
    }

    fn current(&mut self) -> Result<usize> {
        match self.scopes.last() {
            Some(&index) => Ok(index),
            None => self.default_of(Device::default_device()),
        }
    }

    fn get(&self, index: usize) -> Result<&Entry> {
        self.entries.get(index).and_then(Option::as_ref).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "stream: was given up by stream::clear")
        })
    }
}

fn check_available(device: Device) -> Result<()> {
    if device.is_available() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("no {device} device in this build of MLX")))
}

/// Runs `f` on the table, or fails where the thread is already being torn down.
fn with_table<T>(f: impl FnOnce(&mut Table) -> Result<T>) -> Result<T> {
    TABLE
        .try_with(|table| f(&mut table.borrow_mut()))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Runtime, "stream: this thread is ending")))
}

pub(crate) fn current_raw() -> Result<sys::mlx_stream> {
    with_table(|table| {
        let index = table.current()?;
        Ok(table.get(index)?.raw)
    })
}

/// Makes the stream that MLX takes by itself, so that it is one of ours.
pub(crate) fn ensure_default() -> Result<()> {
    with_table(|table| table.default_of(Device::default_device()).map(|_| ()))
}

/// Returns the device that ops run on here.
pub(crate) fn current_device() -> Result<Device> {
    with_table(|table| {
        let index = table.current()?;
        Ok(table.get(index)?.device)
    })
}

impl Stream {
    /// Makes a new stream of this thread.
    ///
    /// # Errors
    /// When the device is not available.
    pub fn new(device: Device) -> Result<Stream> {
        check_available(device)?;
        ensure_default()?;
        with_table(|table| {
            let raw = ffi::new_stream(device == Device::Gpu)?;
            Ok(Stream { index: table.add(raw, device), device, thread: PhantomData })
        })
    }

    /// Returns this thread's default stream of a device.
    ///
    /// # Errors
    /// When the device is not available.
    pub fn default_of(device: Device) -> Result<Stream> {
        with_table(|table| {
            Ok(Stream { index: table.default_of(device)?, device, thread: PhantomData })
        })
    }

    /// Returns the stream that ops run on here.
    ///
    /// # Errors
    /// When the thread is ending.
    pub fn current() -> Result<Stream> {
        with_table(|table| {
            let index = table.current()?;
            Ok(Stream { index, device: table.get(index)?.device, thread: PhantomData })
        })
    }

    /// Returns the device of this stream.
    pub fn device(self) -> Device {
        self.device
    }

    /// Waits until all work on this stream is done.
    ///
    /// # Errors
    /// When work on the stream failed and nobody was told yet.
    pub fn synchronize(self) -> Result<()> {
        let raw = with_table(|table| Ok(table.get(self.index)?.raw))?;
        ffi::c_call!(mlx_shim_synchronize, (raw))
    }
}

impl fmt::Display for Stream {
    /// Prints the device and the number of the stream within its thread.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}, {})", self.device, self.index)
    }
}

/// Waits until all work on the current stream is done.
///
/// # Errors
/// When work on the stream failed and nobody was told yet.
pub fn synchronize() -> Result<()> {
    Stream::current()?.synchronize()
}

/// Waits until all work of this thread is done.
///
/// # Errors
/// The first error of work that failed and that nobody was told of yet.
pub fn synchronize_all() -> Result<()> {
    let all: Vec<_> =
        with_table(|table| Ok(table.entries.iter().flatten().map(|entry| entry.raw).collect()))?;
    let mut first = Ok(());
    for raw in all {
        // Each of them, also when one has failed.
        first = first.and(ffi::c_call!(mlx_shim_synchronize, (raw)));
    }
    first
}

/// Waits for this thread's work, then gives up its streams and what it has compiled.
///
/// A thread that ends does this by itself; it is for threads of a pool, which live on but may not
/// compute again. The next op gets new streams. Arrays that are computed stay; what is still to
/// be computed on a stream of before, and the [`Stream`]s themselves, are errors from here on.
///
/// # Errors
/// When MLX fails.
///
/// ```
/// use mlx_core::{Array, stream};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from(2.0f32).square()?;
/// x.eval()?;
/// stream::clear()?;
/// assert_eq!((x + 1.0)?.item::<f32>()?, 5.0);
/// # Ok(())
/// # }
/// ```
pub fn clear() -> Result<()> {
    ffi::clear_streams()?;
    with_table(|table| {
        table.defaults = [None; 2];
        table.entries.iter_mut().filter_map(Option::take).for_each(|e| ffi::stream_free(e.raw));
        Ok(())
    })
}

/// Runs `f` with every op on `stream`; the stream before it returns also when `f` panics.
///
/// # Errors
/// Those of `f`.
pub fn with_stream<T>(stream: Stream, f: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            let _ = with_table(|table| {
                table.scopes.pop();
                Ok(())
            });
        }
    }
    with_table(|table| {
        table.scopes.push(stream.index);
        Ok(())
    })?;
    let _scope = Scope;
    f()
}

/// Runs `f` with every op on the default stream of `device`.
///
/// # Errors
/// When the device is not available, and those of `f`.
///
/// ```
/// use mlx_core::{Array, Device, with_device};
///
/// # fn main() -> mlx_core::Result<()> {
/// let y = with_device(Device::Cpu, || Array::from(2.0f32).square())?;
/// assert_eq!(y.item::<f32>()?, 4.0);
/// # Ok(())
/// # }
/// ```
pub fn with_device<T>(device: Device, f: impl FnOnce() -> Result<T>) -> Result<T> {
    with_stream(Stream::default_of(device)?, f)
}
