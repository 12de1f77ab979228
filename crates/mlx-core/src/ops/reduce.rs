//! Reductions: each over `..` (all axes), one axis, or several.

use crate::array::{Array, Axes};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::array_op;
use crate::kernels;

/// Writes reductions: `name, all-axes function, one-axis function, several-axes function, "doc";`,
/// each with the arguments that follow `keepdims`.
macro_rules! reductions {
    ($($name:ident($($arg:ident: $t:ty),*), $all:ident, $axis:ident, $axes:ident, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// With `keepdims` a reduced axis stays with size one.
                ///
                /// # Errors
                /// When there is no such axis or the dtype does not allow it.
                pub fn $name<'a>(
                    &self,
                    axes: impl Into<Axes<'a>>,
                    keepdims: bool,
                    $($arg: $t,)*
                ) -> Result<Array> {
                    let x = &self.laid_out_if_empty()?;
                    match axes.into() {
                        Axes::All => array_op!($all, x, keepdims $(, $arg)*),
                        Axes::One(axis) => array_op!($axis, x, axis, keepdims $(, $arg)*),
                        Axes::Some(axes) => array_op!($axes, x, [axes], keepdims $(, $arg)*),
                    }
                }
            )*
        }
    };
}

reductions! {
    all(), mlx_all, mlx_all_axis, mlx_all_axes, "Tells whether all elements are true.";
    any(), mlx_any, mlx_any_axis, mlx_any_axes, "Tells whether any element is true.";
    count_nonzero(), mlx_count_nonzero, mlx_count_nonzero_axis, mlx_count_nonzero_axes,
        "Counts the elements that are not zero, as `int32`; NaN is not zero.";
    max(), mlx_max, mlx_max_axis, mlx_max_axes, "Returns the greatest element.";
    mean(), mlx_mean, mlx_mean_axis, mlx_mean_axes, "Returns the mean.";
    median(), mlx_median, mlx_median_axis, mlx_median_axes, "Returns the median.";
    min(), mlx_min, mlx_min_axis, mlx_min_axes, "Returns the least element.";
    prod(), mlx_prod, mlx_prod_axis, mlx_prod_axes, "Returns the product.";
    std(ddof: i32), mlx_std, mlx_std_axis, mlx_std_axes,
        "Returns the standard deviation with divisor `n - ddof`.";
    sum(), mlx_sum, mlx_sum_axis, mlx_sum_axes, "Returns the sum.";
    var(ddof: i32), mlx_var, mlx_var_axis, mlx_var_axes,
        "Returns the variance with divisor `n - ddof`.";
}

impl Array {
    /// Replaces an empty array by one in row-major order: MLX's CPU backend steps through the axes of
    /// any other empty array without end.
    pub(crate) fn laid_out_if_empty(&self) -> Result<Array> {
        if self.size() == 0 { super::zeros(self.shape(), self.dtype()) } else { Ok(self.clone()) }
    }

    /// Returns the position of the greatest element along an axis; `None` flattens first.
    ///
    /// # Shape
    /// `[…, D, …]` → `[…]`, or with `keepdims` `[…, 1, …]`; `uint32`
    ///
    /// # Errors
    /// When there is no such axis or it is empty.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1.0f32, 3.0, 2.0, 0.0], &[2, 2])?;
    /// assert_eq!(x.argmax(-1, false)?.to_vec::<u32>()?, [1, 0]);
    /// assert_eq!(x.argmax(None, false)?.item::<u32>()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn argmax(&self, axis: impl Into<Option<i32>>, keepdims: bool) -> Result<Array> {
        let axis = axis.into();
        if let Some(axis) = axis
            && kernels::has_argmax(self, axis)?
        {
            return kernels::argmax(self, keepdims, |x, keepdims| {
                let axis = x.ndim() as i32 - 1;
                array_op!(mlx_argmax_axis, x, axis, keepdims)
            });
        }
        let x = &self.laid_out_if_empty()?;
        match axis {
            None => array_op!(mlx_argmax, x, keepdims),
            Some(axis) => array_op!(mlx_argmax_axis, x, axis, keepdims),
        }
    }

    /// Returns the position of the least element along an axis; `None` flattens first.
    ///
    /// # Shape
    /// `[…, D, …]` → `[…]`, or with `keepdims` `[…, 1, …]`; `uint32`
    ///
    /// # Errors
    /// When there is no such axis or it is empty.
    pub fn argmin(&self, axis: impl Into<Option<i32>>, keepdims: bool) -> Result<Array> {
        let x = &self.laid_out_if_empty()?;
        match axis.into() {
            None => array_op!(mlx_argmin, x, keepdims),
            Some(axis) => array_op!(mlx_argmin_axis, x, axis, keepdims),
        }
    }

    /// Returns the softmax over axes; `precise` computes in float32.
    ///
    /// # Shape
    /// That of this array
    ///
    /// # Errors
    /// When there is no such axis.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[0.0f32, 0.0, 1.0, 1.0], &[2, 2])?;
    /// assert_eq!(x.softmax(-1, false)?.to_vec::<f32>()?, [0.5; 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn softmax<'a>(&self, axes: impl Into<Axes<'a>>, precise: bool) -> Result<Array> {
        let axes = axes.into();
        if kernels::has_softmax(self, &axes)? {
            return kernels::softmax(self, |x| {
                let axis = x.ndim() as i32 - 1;
                array_op!(mlx_softmax_axis, x, axis, true)
            });
        }
        let x = &self.laid_out_if_empty()?;
        match axes {
            Axes::All => array_op!(mlx_softmax, x, precise),
            Axes::One(axis) => array_op!(mlx_softmax_axis, x, axis, precise),
            Axes::Some(axes) => array_op!(mlx_softmax_axes, x, [axes], precise),
        }
    }

    /// Returns the logarithm of the sum of exponentials.
    ///
    /// # Shape
    /// `[…] → […]` without the axes, or with 1 in their place for `keepdims`
    ///
    /// # Errors
    /// When there is no such axis, or one is named twice.
    pub fn logsumexp<'a>(&self, axes: impl Into<Axes<'a>>, keepdims: bool) -> Result<Array> {
        let axes = axes.into();
        if kernels::has_softmax(self, &axes)? {
            return kernels::logsumexp(self, keepdims, |x, keepdims| {
                let axis = x.ndim() as i32 - 1;
                array_op!(mlx_logsumexp_axis, x, axis, keepdims)
            });
        }
        let x = &self.laid_out_if_empty()?;
        match axes {
            Axes::All => array_op!(mlx_logsumexp, x, keepdims),
            Axes::One(axis) => array_op!(mlx_logsumexp_axis, x, axis, keepdims),
            Axes::Some(axes) => array_op!(mlx_logsumexp_axes, x, [axes], keepdims),
        }
    }

    /// Returns how many elements the axes have together, as a 0-d array; `inverted` returns one
    /// divided by that.
    ///
    /// In a function that is compiled or exported for any shape the number follows the shape.
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn number_of_elements<'a>(
        &self,
        axes: impl Into<Axes<'a>>,
        inverted: bool,
        dtype: Dtype,
    ) -> Result<Array> {
        let every: Vec<i32>;
        let axes = match axes.into() {
            Axes::All => {
                every = (0..self.ndim() as i32).collect();
                &every[..]
            }
            Axes::One(axis) => &[axis],
            Axes::Some(axes) => axes,
        };
        // MLX divides by the number of axes.
        axes.iter().try_for_each(|&axis| self.dim(axis).map(|_| ()))?;
        array_op!(mlx_number_of_elements, self, [axes], inverted, dtype)
    }
}
