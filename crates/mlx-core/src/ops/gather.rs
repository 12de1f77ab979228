//! Reading and writing at index arrays.
//!
//! MLX does not check index values: one that is out of range reads or writes elsewhere in the
//! array's memory. Indices that come from outside are checked on the host before they get here.

use crate::array::index::resolve_slices;
use crate::array::{Array, Operand};
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op};

impl Array {
    /// Takes elements at integer indices along an axis; without an axis, of the flattened array.
    ///
    /// # Errors
    /// When there is no such axis or the indices are not integers.
    pub fn take(&self, indices: &Array, axis: impl Into<Option<i32>>) -> Result<Array> {
        match axis.into() {
            None => array_op!(mlx_take, self, indices),
            Some(axis) => array_op!(mlx_take_axis, self, indices, axis),
        }
    }

    /// Takes the element at the index that `indices` has at the same place along an axis.
    ///
    /// # Errors
    /// When there is no such axis or the shapes do not broadcast elsewhere.
    pub fn take_along_axis(&self, indices: &Array, axis: i32) -> Result<Array> {
        self.check_indexable("take_along_axis", indices, axis)?;
        array_op!(mlx_take_along_axis, self, indices, axis)
    }

    /// Puts `values` at the index that `indices` has at the same place along an axis.
    ///
    /// # Errors
    /// When there is no such axis or the shapes do not broadcast elsewhere.
    pub fn put_along_axis(
        &self,
        indices: &Array,
        values: impl Operand,
        axis: i32,
    ) -> Result<Array> {
        let values = &values.into_array(Some(self.dtype()))?;
        self.check_indexable("put_along_axis", indices, axis)?;
        array_op!(mlx_put_along_axis, self, indices, values, axis)
    }

    /// Adds `values` at the index that `indices` has at the same place along an axis.
    ///
    /// # Errors
    /// When there is no such axis or the shapes do not broadcast elsewhere.
    pub fn scatter_add_axis(&self, indices: &Array, values: &Array, axis: i32) -> Result<Array> {
        self.check_indexable("scatter_add_axis", indices, axis)?;
        array_op!(mlx_scatter_add_axis, self, indices, values, axis)
    }

    /// Fails where there is an index but no element that it could mean, and where MLX would find
    /// only while computing that the indices are no integers.
    fn check_indexable(&self, op: &str, indices: &Array, axis: i32) -> Result<()> {
        if !indices.dtype().is_integer() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{op}: indices of {}, expected integers", indices.dtype()),
            ));
        }
        if indices.size() == 0 { Ok(()) } else { self.check_not_empty(op, Some(axis)) }
    }

    /// Takes slices of `slice_sizes` at positions that `indices` give for `axes`.
    ///
    /// # Shape
    /// `indices` broadcast to `I` → `I + slice_sizes`.
    ///
    /// # Errors
    /// When the arguments do not fit the shape.
    pub fn gather(&self, indices: &[Array], axes: &[i32], slice_sizes: &[i32]) -> Result<Array> {
        let indices = &ArrayVec::new(indices)?;
        array_op!(mlx_gather, self, indices, [axes], [slice_sizes])
    }

    /// Puts `values` over the slice `start..stop` with steps of `strides`, one of each per axis.
    ///
    /// # Errors
    /// When the arguments do not fit the shape or the values do not broadcast.
    pub fn slice_update(
        &self,
        values: &Array,
        start: &[i32],
        stop: &[i32],
        strides: &[i32],
    ) -> Result<Array> {
        let [start, stop, strides] =
            resolve_slices("slice_update", self.shape(), start, stop, strides)?;
        array_op!(mlx_slice_update, self, values, [start], [stop], [strides])
    }

    /// Takes a slice of `slice_size` whose start is computed: `start` holds one position for each
    /// of `axes`, the other axes start at 0. Python: `slice`.
    ///
    /// # Errors
    /// When the arguments do not fit the shape.
    pub fn slice_dynamic(&self, start: &Array, axes: &[i32], slice_size: &[i32]) -> Result<Array> {
        array_op!(mlx_slice_dynamic, self, start, [axes], [slice_size])
    }

    /// Puts `values` over a slice whose start is computed, as in [`Array::slice_dynamic`].
    /// Python: `slice_update`.
    ///
    /// # Errors
    /// When the arguments do not fit the shape.
    pub fn slice_update_dynamic(
        &self,
        values: &Array,
        start: &Array,
        axes: &[i32],
    ) -> Result<Array> {
        // MLX lays the shapes over one another unchecked.
        if values.ndim() > self.ndim() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("slice_update: {values:?} into {self:?}"),
            ));
        }
        array_op!(mlx_slice_update_dynamic, self, values, start, [axes])
    }

    /// Takes the slice `start..stop` with steps of `strides`, one of each per axis, negative
    /// positions from the end; [`Array::at`] is easier to write.
    ///
    /// # Errors
    /// When the arguments do not fit the shape.
    pub fn slice(&self, start: &[i32], stop: &[i32], strides: &[i32]) -> Result<Array> {
        let [start, stop, strides] = resolve_slices("slice", self.shape(), start, stop, strides)?;
        array_op!(mlx_slice, self, [start], [stop], [strides])
    }
}

/// Writes scatters: `name, function, "doc";`.
macro_rules! scatters {
    ($($name:ident, $f:ident, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// # Shape
                /// `indices` broadcast to `I`; `updates`: `I +` a slice with one size per axis of
                /// this array, of size one on `axes`.
                ///
                /// # Errors
                /// When the arguments do not fit the shape.
                pub fn $name(
                    &self,
                    indices: &[Array],
                    updates: &Array,
                    axes: &[i32],
                ) -> Result<Array> {
                    let indices = &ArrayVec::new(indices)?;
                    let result = array_op!($f, self, indices, updates, [axes])?;
                    // MLX checks the shapes of nothing, but divides by their sizes.
                    if updates.size() == 0 || self.size() == 0 {
                        return Ok(self.clone());
                    }
                    Ok(result)
                }
            )*
        }
    };
}

scatters! {
    scatter, mlx_scatter, "Puts slices at index arrays; of equal indices any one wins.";
    scatter_add, mlx_scatter_add, "Adds slices at index arrays.";
    scatter_max, mlx_scatter_max, "Takes the greater at index arrays.";
    scatter_min, mlx_scatter_min, "Takes the lesser at index arrays.";
    scatter_prod, mlx_scatter_prod, "Multiplies slices at index arrays.";
}
