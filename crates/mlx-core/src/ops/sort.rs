//! Sorting and selecting.

use crate::array::Array;
use crate::error::Result;
use crate::ffi::array_op;

/// Which of equal elements [`Array::searchsorted`] goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Before the first.
    #[default]
    Left,
    /// After the last.
    Right,
}

impl Array {
    /// Returns where each of `values` would go so that this sorted 1-D array stays sorted.
    ///
    /// # Shape
    /// `[D]` and `values` of any shape → the shape of `values`
    ///
    /// # Errors
    /// When this array is not 1-D.
    ///
    /// ```
    /// use mlx_core::{Array, ops::Side};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let sorted = Array::from_slice(&[1, 3, 3, 5], &[4])?;
    /// let values = Array::from_slice(&[3, 4], &[2])?;
    /// assert_eq!(sorted.searchsorted(&values, Side::Left)?.to_vec_as::<i32>()?, [1, 3]);
    /// assert_eq!(sorted.searchsorted(&values, Side::Right)?.to_vec_as::<i32>()?, [3, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn searchsorted(&self, values: &Array, side: Side) -> Result<Array> {
        let side = match side {
            Side::Left => c"left",
            Side::Right => c"right",
        };
        array_op!(mlx_searchsorted, self, values, side)
    }
}

/// Writes ops along an optional axis: `name(arguments), flattened function, axis function, "doc";`.
macro_rules! along_axis {
    ($($name:ident($($arg:ident: $t:ty),*), $all:ident, $axis:ident, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// Without an axis the array is flattened first.
                ///
                /// # Errors
                /// When an argument is out of range or the axis is empty.
                pub fn $name(
                    &self,
                    $($arg: $t,)*
                    axis: impl Into<Option<i32>>,
                ) -> Result<Array> {
                    let axis = axis.into();
                    self.check_not_empty(stringify!($name), axis)?;
                    match axis {
                        None => array_op!($all, self $(, $arg)*),
                        Some(axis) => array_op!($axis, self, $($arg,)* axis),
                    }
                }
            )*
        }
    };
}

along_axis! {
    sort(), mlx_sort, mlx_sort_axis, "Sorts in ascending order.";
    argsort(), mlx_argsort, mlx_argsort_axis, "Returns the positions that sort in ascending order.";
    partition(kth: i32), mlx_partition, mlx_partition_axis,
        "Orders so that element `kth` is where sorting would put it, with no greater ones before it.";
    argpartition(kth: i32), mlx_argpartition, mlx_argpartition_axis,
        "Returns the positions that partition at `kth`.";
    topk(k: i32), mlx_topk, mlx_topk_axis, "Returns the `k` greatest elements, in no set order.";
}
