//! Reading at index arrays and at computed positions.
//!
//! MLX does not check index values. Here those that the host has at hand are checked, and others
//! are clipped where they are used: negative ones count from the end, one beyond either end means
//! that end. An op so costs a node or two more, and no value of an index reads outside of an array.

use crate::array::index::bounds::host_integers;
use crate::array::index::{Bounds, View, mask, resolve_slices};
use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op};

impl Array {
    /// Takes elements at integer indices, an array or a number, along an axis; without an axis, of
    /// the flattened array.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::range(6)?.reshape([3, 2])?;
    /// let rows = Array::from_slice(&[2, -3], &[2])?;
    /// assert_eq!(x.take(&rows, 0)?.to_vec::<i32>()?, [4, 5, 0, 1]);
    /// assert_eq!(x.take(1, 0)?.to_vec::<i32>()?, [2, 3]);
    /// assert!(x.take(3, 0).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Shape
    /// `x: A + [n] + B`, `indices: I → A + I + B`
    ///
    /// # Errors
    /// When there is no such axis, the indices are not integers, or an index that the host has at
    /// hand is out of range.
    pub fn take(&self, indices: impl Operand, axis: impl Into<Option<i32>>) -> Result<Array> {
        let is_number = indices.known_dtype().is_none();
        let indices = indices.into_array(None)?;
        let (x, axis) = match axis.into() {
            Some(axis) => (self.clone(), axis),
            None => (self.flatten(0, -1)?, 0),
        };
        let bounds = Bounds::axis("take", x.dim(axis)?);
        if is_number {
            bounds.check_dtype(&indices)?;
            let position = match indices.dtype() {
                Dtype::Int32 => indices.item::<i32>()?,
                // Beyond any axis.
                _ => i32::MAX,
            };
            return x.take_one(bounds.position(position)?, axis);
        }
        let (x, indices) = (&x, &bounds.apply(&indices)?);
        array_op!(mlx_take_axis, x, indices, axis)
    }

    /// Takes one position, which makes a view.
    fn take_one(&self, position: i32, axis: i32) -> Result<Array> {
        let chosen = self.normal_axis(axis);
        let mut view = View::default();
        for (axis, &size) in self.shape().iter().enumerate() {
            if Some(axis) == chosen { view.push_one(position) } else { view.push_all(size) }
        }
        view.of(self)?.squeeze(axis)
    }

    /// Returns the position of an axis that may count from the end.
    fn normal_axis(&self, axis: i32) -> Option<usize> {
        let ndim = self.ndim() as i64;
        let axis = if axis < 0 { i64::from(axis) + ndim } else { axis.into() };
        (0..ndim).contains(&axis).then_some(axis as usize)
    }

    /// Takes the element at the index that `indices` has at the same place along an axis; without
    /// an axis, of the flattened array.
    ///
    /// # Shape
    /// `indices` has as many axes as this array, and its shape apart from `axis`.
    ///
    /// # Errors
    /// When there is no such axis, the shapes do not broadcast elsewhere, the indices are not
    /// integers, or one that the host has at hand is out of range.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[30, 10, 20], &[3])?;
    /// let sorted = x.take_along_axis(&x.argsort(0)?, 0)?;
    /// assert_eq!(sorted.to_vec::<i32>()?, [10, 20, 30]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_along_axis(&self, indices: &Array, axis: impl Into<Option<i32>>) -> Result<Array> {
        let Some(axis) = axis.into() else {
            return self.flatten(0, -1)?.take_along_axis(indices, 0);
        };
        let indices = &Bounds::axis("take_along_axis", self.dim(axis)?).apply(indices)?;
        array_op!(mlx_take_along_axis, self, indices, axis)
    }

    /// Takes slices of `slice_sizes` that start at positions which `indices` give for `axes`.
    ///
    /// # Shape
    /// `indices` broadcast to `I` → `I + slice_sizes`.
    ///
    /// # Errors
    /// When the arguments do not fit the shape, or the host has an index at hand whose slice is not
    /// in the array.
    pub fn gather(&self, indices: &[Array], axes: &[i32], slice_sizes: &[i32]) -> Result<Array> {
        let indices = &ArrayVec::new(&in_bounds("gather", self, indices, axes, slice_sizes)?)?;
        array_op!(mlx_gather, self, indices, [axes], [slice_sizes])
    }

    /// Takes slices of `slice_sizes` that start at positions which `indices` give for one axis.
    ///
    /// # Shape
    /// `indices: I → I + slice_sizes`
    ///
    /// # Errors
    /// Those of [`Array::gather`].
    pub fn gather_single(&self, indices: &Array, axis: i32, slice_sizes: &[i32]) -> Result<Array> {
        let indices = std::slice::from_ref(indices);
        let indices = in_bounds("gather", self, indices, &[axis], slice_sizes)?;
        let [indices] = &indices[..] else { return self.gather(&indices, &[axis], slice_sizes) };
        array_op!(mlx_gather_single, self, indices, axis, [slice_sizes])
    }

    /// Takes the slice `start..stop` with steps of `strides`, one of each per axis, negative
    /// positions from the end; [`Array::at`] is easier to write.
    ///
    /// # Shape
    /// Axis `i` gets `ceil((stop[i] - start[i]) / strides[i])` elements, after clipping as in Python.
    ///
    /// # Errors
    /// When the arguments do not fit the shape.
    pub fn slice(&self, start: &[i32], stop: &[i32], strides: &[i32]) -> Result<Array> {
        let [start, stop, strides] = resolve_slices("slice", self.shape(), start, stop, strides)?;
        array_op!(mlx_slice, self, [start], [stop], [strides])
    }

    /// Takes a slice of `slice_size` whose start is computed: `start` holds one position for each
    /// of `axes`, the other axes start at 0. Python: `slice`.
    ///
    /// Positions do not count from the end; one that leaves less than a slice means the nearest
    /// that leaves a whole one.
    ///
    /// # Shape
    /// `[…]` → `slice_size`
    ///
    /// # Errors
    /// When the arguments do not fit the shape, or the host has a position at hand whose slice is
    /// not in the array.
    pub fn slice_dynamic(&self, start: &Array, axes: &[i32], slice_size: &[i32]) -> Result<Array> {
        let start = &starts("slice", self, start, axes, slice_size)?;
        array_op!(mlx_slice_dynamic, self, start, [axes], [slice_size])
    }
}

/// Computes an array and returns the positions of its elements that are not zero: one array of
/// `int32` for each axis, in row-major order. NumPy's function; Python MLX has none.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[0.0f32, 2.0, 3.0, 0.0], &[2, 2])?;
/// let [rows, columns] = &ops::nonzero(&x)?[..] else { panic!("two axes") };
/// assert_eq!(rows.to_vec::<i32>()?, [0, 1]);
/// assert_eq!(columns.to_vec::<i32>()?, [1, 0]);
/// # Ok(())
/// # }
/// ```
///
/// # Shape
/// `[D1, …, Dn]` → `n` of `[number of elements]`
///
/// # Errors
/// When the array has no axes.
pub fn nonzero(x: &Array) -> Result<Vec<Array>> {
    if x.ndim() == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "nonzero: array without axes"));
    }
    mask::positions(&if x.dtype() == Dtype::Bool { x.clone() } else { x.not_equal(0)? })
}

/// Computes an array and returns [`nonzero`]'s positions in the flattened array.
///
/// # Shape
/// Any → `[number of elements]`
///
/// # Errors
/// When computing it fails.
pub fn flatnonzero(x: &Array) -> Result<Array> {
    nonzero(&x.reshape([-1])?)?.pop().ok_or_else(|| super::missing_output("flatnonzero"))
}

/// Computes an array and returns [`nonzero`]'s positions as rows.
///
/// # Shape
/// `x: S → [n, len(S)]`
///
/// # Errors
/// When the array has no axes.
pub fn argwhere(x: &Array) -> Result<Array> {
    super::stack(&nonzero(x)?, 1)
}

/// Brings the index arrays of a gather or scatter in bounds. `slice_sizes` is what is read or
/// written from an index on; arguments that do not fit one another MLX refuses.
pub(super) fn in_bounds(
    op: &str,
    array: &Array,
    indices: &[Array],
    axes: &[i32],
    slice_sizes: &[i32],
) -> Result<Vec<Array>> {
    let shape = array.shape();
    let bounds = |i: usize| {
        let axis = usize::try_from(*axes.get(i)?).ok()?;
        let (size, slice) = (*shape.get(axis)?, *slice_sizes.get(axis)?);
        Some(Bounds { op, size, slice, from_end: true })
    };
    let in_bounds = indices.iter().enumerate().map(|(i, indices)| match bounds(i) {
        Some(bounds) => bounds.apply(indices),
        None => Bounds::axis(op, 0).check_dtype(indices).map(|()| indices.clone()),
    });
    in_bounds.collect()
}

/// Brings the start of a slice in bounds and in the layout that MLX takes for granted.
pub(super) fn starts(
    op: &str,
    array: &Array,
    start: &Array,
    axes: &[i32],
    slice_size: &[i32],
) -> Result<Array> {
    let shape = array.shape();
    let last = |&axis: &i32| {
        let axis = array.normal_axis(axis)?;
        shape.get(axis)?.checked_sub(*slice_size.get(axis)?).filter(|&last| last >= 0)
    };
    let last: Option<Vec<i32>> = axes.iter().map(last).collect();
    let fits = start.ndim() <= 1 && start.size() == axes.len() && slice_size.len() == shape.len();
    let (Some(last), true) = (last, fits) else {
        let text = format!("{op}: {slice_size:?} from {start:?} on axes {axes:?} of {shape:?}");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    };
    Bounds::axis(op, 0).check_dtype(start)?;
    if let Some(values) = host_integers(start)? {
        for ((value, &last), axis) in values.iter().zip(&last).zip(axes) {
            if !(0..=i64::from(last)).contains(value) {
                let text = format!("{op}: start {value} on axis {axis}, expected 0..={last}");
                return Err(Error::new(ErrorKind::OutOfRange, text));
            }
        }
        return Ok(start.clone());
    }
    let last: Vec<i64> = last.into_iter().map(i64::from).collect();
    let last = Array::from_slice(&last, start.shape())?;
    // What is too great for the signed dtype has to stay greater than `last`.
    let start =
        if start.dtype() == Dtype::Uint64 { start.minimum(i32::MAX)? } else { start.clone() };
    // MLX reads the positions one after the other whatever the strides are.
    start.astype(Dtype::Int64)?.maximum(0)?.minimum(&last)?.contiguous()
}
