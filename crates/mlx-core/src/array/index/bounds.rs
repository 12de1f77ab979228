//! Keeps the values of index arrays inside of the axis that they index.
//!
//! MLX's kernels turn an index into an address unchecked. What the host has at hand is checked
//! here and refused; the rest is clipped in the graph, which costs a node or two and never waits.
//! Which of the two happens depends on the program alone, not on how fast a device is.

use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi;

/// More values than this are clipped even where the host has them: looking at all of them on each
/// use would cost more than the nodes.
const MAX_CHECKED: usize = 1 << 16;

/// Gives an iterator over integers of any dtype; one beyond `i64` counts as its greatest.
macro_rules! with_integers {
    ($bytes:expr, $dtype:expr, |$values:ident| $body:expr) => {
        with_integers!(@ $bytes, $dtype, |$values| $body;
            Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64, Int8 i8, Int16 i16, Int32 i32, Int64 i64)
    };
    (@ $bytes:expr, $dtype:expr, |$values:ident| $body:expr; $($name:ident $t:ty),*) => {
        match $dtype {
            $(Dtype::$name => {
                let mut $values = $bytes.chunks_exact(size_of::<$t>()).map(|bytes| {
                    let value = bytes.try_into().map(<$t>::from_ne_bytes).unwrap_or_default();
                    i64::try_from(value).unwrap_or(i64::MAX)
                });
                $body
            })*
            _ => Default::default(),
        }
    };
}

/// What an op reads or writes at an index.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Name in error texts.
    pub(crate) op: &'a str,
    /// Size of the axis.
    pub(crate) size: i32,
    /// Positions from the index on that are read or written.
    pub(crate) slice: i32,
    /// Whether negative values count from the end; else they lie before the first.
    pub(crate) from_end: bool,
}

impl<'a> Bounds<'a> {
    /// One position on an axis, negative ones from the end.
    pub(crate) fn axis(op: &'a str, size: i32) -> Self {
        Bounds { op, size, slice: 1, from_end: true }
    }

    /// Returns the indices with every value in bounds, as an integer array of at least 32 bits.
    ///
    /// MLX's transforms count in the dtype of the indices, so that a narrow one overflows.
    pub(crate) fn apply(self, indices: &Array) -> Result<Array> {
        let is_checked = self.check_known(indices)?;
        let wide = match indices.dtype() {
            Dtype::Int8 | Dtype::Int16 => indices.astype(Dtype::Int32)?,
            Dtype::Uint8 | Dtype::Uint16 => indices.astype(Dtype::Uint32)?,
            _ => indices.clone(),
        };
        if is_checked {
            return Ok(wide);
        }
        self.clip(wide, indices.dtype(), self.size - self.slice.max(1))
    }

    /// Fails where the indices are no integers, or the host has one at hand that is out of bounds;
    /// returns whether it has seen them all.
    pub(crate) fn check_known(self, indices: &Array) -> Result<bool> {
        self.check_dtype(indices)?;
        if indices.size() == 0 {
            return Ok(true);
        }
        let Bounds { op, size, slice, .. } = self;
        if size < slice.max(1) {
            let text = format!("{op}: indices {indices:?} into an axis of size {size}");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let Some(bytes) = host_bytes(indices)? else { return Ok(false) };
        match self.first_outside(bytes, indices.dtype()) {
            None => Ok(true),
            Some(value) => Err(self.out_of_range(value)),
        }
    }

    /// Fails where the indices are no integers, which MLX finds while it computes.
    pub(crate) fn check_dtype(self, indices: &Array) -> Result<()> {
        if indices.dtype().is_integer() {
            return Ok(());
        }
        let text = format!("{}: indices of {}, expected integers", self.op, indices.dtype());
        Err(Error::new(ErrorKind::InvalidArgument, text))
    }

    /// Resolves a position that is known on the host.
    pub(crate) fn position(self, position: i32) -> Result<i32> {
        if self.holds(position.into()) {
            return Ok(if position < 0 { position + self.size } else { position });
        }
        Err(self.out_of_range(position.into()))
    }

    fn holds(self, value: i64) -> bool {
        let size = i64::from(self.size);
        let position = if self.from_end && value < 0 { value + size } else { value };
        (0..=size - i64::from(self.slice.max(1))).contains(&position)
    }

    fn out_of_range(self, value: i64) -> Error {
        let Bounds { op, size, slice, .. } = self;
        let what = if slice > 1 { format!("{slice} from {value}") } else { value.to_string() };
        let text = format!("{op}: {what} is out of range for an axis of size {size}");
        Error::new(ErrorKind::OutOfRange, text)
    }

    fn first_outside(self, bytes: &[u8], dtype: Dtype) -> Option<i64> {
        with_integers!(bytes, dtype, |values| values.find(|&value| !self.holds(value)))
    }

    /// Moves what is outside to the nearest position, in the graph.
    fn clip(self, indices: Array, dtype: Dtype, last: i32) -> Result<Array> {
        let (least, greatest) = match dtype {
            Dtype::Int8 => (i32::from(i8::MIN), i32::from(i8::MAX)),
            Dtype::Int16 => (i32::from(i16::MIN), i32::from(i16::MAX)),
            Dtype::Uint8 => (0, i32::from(u8::MAX)),
            Dtype::Uint16 => (0, i32::from(u16::MAX)),
            Dtype::Uint32 | Dtype::Uint64 => (0, i32::MAX),
            _ => (i32::MIN, i32::MAX),
        };
        let is_wide = dtype.size() >= 4;
        let mut indices = indices;
        let first = if !self.from_end || least == 0 {
            0
        } else if self.slice > 1 {
            // MLX adds the size to a negative start, which may then have less than a slice behind.
            let from_end = indices.add(self.size)?;
            indices = crate::ops::where_(&indices.less(0)?, &from_end, &indices)?;
            0
        } else {
            -self.size
        };
        if least < first {
            indices = indices.maximum(first)?;
        }
        if is_wide || greatest > last {
            indices = indices.minimum(last)?;
        }
        Ok(indices)
    }
}

/// The integers of an array, where the host may look at them at no cost.
pub(crate) fn host_integers(array: &Array) -> Result<Option<Vec<i64>>> {
    Ok(host_bytes(array)?.map(|bytes| integers(bytes, array.dtype())))
}

/// Reads integers; one beyond `i64` counts as its greatest, and there are none of another dtype.
pub(crate) fn integers(bytes: &[u8], dtype: Dtype) -> Vec<i64> {
    with_integers!(bytes, dtype, |values| values.by_ref().collect())
}

/// The values of an index array, where the host may look at them at no cost.
pub(crate) fn host_bytes(indices: &Array) -> Result<Option<&[u8]>> {
    if indices.size() > MAX_CHECKED || !ffi::array_is_settled(indices) {
        return Ok(None);
    }
    // CUDA would move the data to the host first.
    let is_host_memory =
        cfg!(target_os = "macos") || crate::stream::current_device()? == Device::Cpu;
    Ok(if is_host_memory { ffi::array_bytes(indices) } else { None })
}
