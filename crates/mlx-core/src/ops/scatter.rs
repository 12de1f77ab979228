//! Writing at index arrays and at slices.
//!
//! Index values are kept in range as in `gather`: one that is out of range and not known to the
//! host writes to the nearest element, never elsewhere.

use super::gather::{in_bounds, starts};
use crate::array::index::{Bounds, resolve_slices};
use crate::array::{Array, Operand, masked};
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op};

/// How a new value joins the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduce {
    Set,
    Add,
    Prod,
    Max,
    Min,
}

impl Reduce {
    /// Joins arrays element by element.
    pub(crate) fn apply(self, old: &Array, new: &Array) -> Result<Array> {
        match self {
            Reduce::Set => Ok(new.clone()),
            Reduce::Add => old.add(new),
            Reduce::Prod => old.multiply(new),
            Reduce::Max => old.maximum(new),
            Reduce::Min => old.minimum(new),
        }
    }

    /// Writes to a slice that is resolved already.
    pub(crate) fn slice_update(
        self,
        array: &Array,
        values: &Array,
        start: &[i32],
        stop: &[i32],
        step: &[i32],
    ) -> Result<Array> {
        let values = &crate::transforms::mapped_as(values.clone(), array)?;
        match self {
            Reduce::Set => array_op!(mlx_slice_update, array, values, [start], [stop], [step]),
            Reduce::Add => array_op!(mlx_slice_update_add, array, values, [start], [stop], [step]),
            Reduce::Prod => {
                array_op!(mlx_slice_update_prod, array, values, [start], [stop], [step])
            }
            Reduce::Max => array_op!(mlx_slice_update_max, array, values, [start], [stop], [step]),
            Reduce::Min => array_op!(mlx_slice_update_min, array, values, [start], [stop], [step]),
        }
    }

    /// Writes at index arrays whose values are in range.
    pub(crate) fn scatter(
        self,
        array: &Array,
        indices: &[Array],
        updates: &Array,
        axes: &[i32],
    ) -> Result<Array> {
        let indices = &ArrayVec::new(indices)?;
        let result = match self {
            Reduce::Set => array_op!(mlx_scatter, array, indices, updates, [axes]),
            Reduce::Add => array_op!(mlx_scatter_add, array, indices, updates, [axes]),
            Reduce::Prod => array_op!(mlx_scatter_prod, array, indices, updates, [axes]),
            Reduce::Max => array_op!(mlx_scatter_max, array, indices, updates, [axes]),
            Reduce::Min => array_op!(mlx_scatter_min, array, indices, updates, [axes]),
        }?;
        // MLX checks the shapes of nothing, but divides by their sizes.
        if updates.size() == 0 || array.size() == 0 { Ok(array.clone()) } else { Ok(result) }
    }
}

/// Writes scatters: `name, name for one axis, reduction, function for one axis, "doc";`.
macro_rules! scatters {
    ($($name:ident, $single:ident, $how:ident, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// # Shape
                /// `indices` broadcast to `I`; `updates`: `I +` a slice with one size per axis of
                /// this array, which starts at the indices on `axes` and at 0 elsewhere.
                ///
                /// # Errors
                /// When the arguments do not fit the shape, or the host has an index at hand whose
                /// slice is not in the array.
                pub fn $name(
                    &self,
                    indices: &[Array],
                    updates: &Array,
                    axes: &[i32],
                ) -> Result<Array> {
                    scatter(stringify!($name), self, indices, updates, axes, Reduce::$how)
                }

                #[doc = concat!("Does [`Array::", stringify!($name), "`] on one axis.")]
                ///
                /// # Errors
                #[doc = concat!("Those of [`Array::", stringify!($name), "`].")]
                pub fn $single(
                    &self,
                    indices: &Array,
                    updates: &Array,
                    axis: i32,
                ) -> Result<Array> {
                    self.$name(std::slice::from_ref(indices), updates, &[axis])
                }
            )*
        }
    };
}

scatters! {
    scatter, scatter_single, Set,
        "Puts slices at index arrays; of equal indices the last wins on a CPU, any one on a GPU.";
    scatter_add, scatter_add_single, Add, "Adds slices at index arrays.";
    scatter_prod, scatter_prod_single, Prod, "Multiplies slices at index arrays.";
    scatter_max, scatter_max_single, Max, "Takes the greater at index arrays.";
    scatter_min, scatter_min_single, Min, "Takes the lesser at index arrays.";
}

fn scatter(
    op: &str,
    array: &Array,
    indices: &[Array],
    updates: &Array,
    axes: &[i32],
    how: Reduce,
) -> Result<Array> {
    let n_index = updates.ndim().saturating_sub(array.ndim());
    let indices = in_bounds(op, array, indices, axes, &updates.shape()[n_index..])?;
    how.scatter(array, &indices, updates, axes)
}

impl Array {
    /// Puts `values` at the index that `indices` has at the same place along an axis; without an
    /// axis, of the flattened array.
    ///
    /// # Shape
    /// That of this array; `values` broadcast to `indices`
    ///
    /// # Errors
    /// When there is no such axis, the shapes do not broadcast elsewhere, the indices are not
    /// integers, or one that the host has at hand is out of range.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::range(4)?.reshape([2, 2])?;
    /// let columns = Array::from_slice(&[1, 0], &[2, 1])?;
    /// assert_eq!(x.put_along_axis(&columns, -1, 1)?.to_vec::<i32>()?, [0, -1, -1, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_along_axis(
        &self,
        indices: &Array,
        values: impl Operand,
        axis: impl Into<Option<i32>>,
    ) -> Result<Array> {
        let Some(axis) = axis.into() else {
            let flat = self.flatten(0, -1)?.put_along_axis(indices, values, 0)?;
            return flat.reshape(self.shape());
        };
        let values = &values.into_array(Some(self.dtype()))?;
        let indices = &Bounds::axis("put_along_axis", self.dim(axis)?).apply(indices)?;
        array_op!(mlx_put_along_axis, self, indices, values, axis)
    }

    /// Adds `values` at the index that `indices` has at the same place along an axis.
    ///
    /// # Errors
    /// Those of [`Array::put_along_axis`].
    pub fn scatter_add_axis(&self, indices: &Array, values: &Array, axis: i32) -> Result<Array> {
        let indices = &Bounds::axis("scatter_add_axis", self.dim(axis)?).apply(indices)?;
        array_op!(mlx_scatter_add_axis, self, indices, values, axis)
    }

    /// Puts the rows of `values` where `mask` is true, one after the other.
    ///
    /// The mask is not computed: values that are too many are left out, and the last of too few is
    /// repeated.
    ///
    /// # Shape
    /// `mask`: the first axes `A` of `A + B`; `values: [n] + B`, or what broadcasts to `B`.
    ///
    /// # Errors
    /// When the mask is not boolean, the shapes do not fit, or the host has the mask at hand and
    /// there is not one value for each true element.
    pub fn masked_scatter(&self, mask: &Array, values: &Array) -> Result<Array> {
        if mask.dtype() != crate::Dtype::Bool {
            let text = format!("masked_scatter: mask of {}", mask.dtype());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        masked::write(self, mask, 0, &values.astype(self.dtype())?, Reduce::Set)
    }
}

/// Writes slice updates: `name, name with a computed start, reduction, "doc";`.
macro_rules! slice_updates {
    ($($name:ident, $dynamic:ident, $how:ident, $doc:literal, $dynamic_doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// There is one of `start`, `stop` and `strides` for each axis; negative positions
                /// count from the end. The values broadcast to the slice.
                ///
                /// # Errors
                /// When the arguments do not fit the shape or the values do not broadcast.
                pub fn $name(
                    &self,
                    values: &Array,
                    start: &[i32],
                    stop: &[i32],
                    strides: &[i32],
                ) -> Result<Array> {
                    let [start, stop, strides] =
                        resolve_slices(stringify!($name), self.shape(), start, stop, strides)?;
                    Reduce::$how.slice_update(self, values, &start, &stop, &strides)
                }

                #[doc = $dynamic_doc]
                ///
                /// `start` holds one position for each of `axes`, as in [`Array::slice_dynamic`].
                /// The slice has the shape of the values; axes that these lack are whole, or of
                /// size one where they are in `axes`.
                ///
                /// # Errors
                /// When the arguments do not fit the shape, or the host has a position at hand whose
                /// slice is not in the array.
                pub fn $dynamic(
                    &self,
                    values: &Array,
                    start: &Array,
                    axes: &[i32],
                ) -> Result<Array> {
                    slice_update_dynamic(self, values, start, axes, Reduce::$how)
                }
            )*
        }
    };
}

slice_updates! {
    slice_update, slice_update_dynamic, Set,
        "Puts values over a slice.",
        "Puts values over a slice whose start is computed. Python: `slice_update`.";
    slice_update_add, slice_update_add_dynamic, Add,
        "Adds values to a slice.",
        "Adds values to a slice whose start is computed.";
    slice_update_prod, slice_update_prod_dynamic, Prod,
        "Multiplies a slice with values.",
        "Multiplies a slice whose start is computed with values.";
    slice_update_max, slice_update_max_dynamic, Max,
        "Takes the greater of a slice and values.",
        "Takes the greater of a slice whose start is computed and values.";
    slice_update_min, slice_update_min_dynamic, Min,
        "Takes the lesser of a slice and values.",
        "Takes the lesser of a slice whose start is computed and values.";
}

fn slice_update_dynamic(
    array: &Array,
    values: &Array,
    start: &Array,
    axes: &[i32],
    how: Reduce,
) -> Result<Array> {
    // MLX lays the shapes over one another unchecked.
    let Some(n_missing) = array.ndim().checked_sub(values.ndim()) else {
        let text = format!("slice_update: {values:?} into {array:?}");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    };
    let mut slice_size = [&array.shape()[..n_missing], values.shape()].concat();
    for &axis in axes {
        let axis = if axis < 0 { i64::from(axis) + array.ndim() as i64 } else { axis.into() };
        if let Some(size) = usize::try_from(axis).ok().filter(|&axis| axis < n_missing) {
            slice_size[size] = 1;
        }
    }
    let start = &starts("slice_update", array, start, axes, &slice_size)?;
    let mut values = values.clone();
    if how != Reduce::Set {
        let old = array_op!(mlx_slice_dynamic, array, start, [axes], [slice_size])?;
        values = how.apply(&old, &values.astype(array.dtype())?)?;
    }
    let values = &values;
    array_op!(mlx_slice_update_dynamic, array, values, start, [axes])
}
