//! Comparison, logic and bits.

use super::{binary_functions, unary_methods};
use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::array_op;

unary_methods! {
    bitwise_invert, mlx_bitwise_invert, "Inverts every bit.";
    isfinite, mlx_isfinite, "Tells which elements are neither infinite nor NaN.";
    isinf, mlx_isinf, "Tells which elements are infinite.";
    isnan, mlx_isnan, "Tells which elements are NaN.";
    isneginf, mlx_isneginf, "Tells which elements are minus infinity.";
    isposinf, mlx_isposinf, "Tells which elements are plus infinity.";
    logical_not, mlx_logical_not, "Returns the logical negation.";
}

binary_functions! {
    bitwise_and, mlx_bitwise_and, "Returns the bitwise and.";
    bitwise_or, mlx_bitwise_or, "Returns the bitwise or.";
    bitwise_xor, mlx_bitwise_xor, "Returns the bitwise exclusive or.";
    equal, mlx_equal, "Tells which elements are equal.";
    greater, mlx_greater, "Tells which elements are greater.";
    greater_equal, mlx_greater_equal, "Tells which elements are greater or equal.";
    left_shift, mlx_left_shift, "Shifts bits to the left.";
    less, mlx_less, "Tells which elements are less.";
    less_equal, mlx_less_equal, "Tells which elements are less or equal.";
    logical_and, mlx_logical_and, "Returns the logical and.";
    logical_or, mlx_logical_or, "Returns the logical or.";
    logical_xor, mlx_logical_xor, "Returns the logical exclusive or.";
    not_equal, mlx_not_equal, "Tells which elements differ.";
    right_shift, mlx_right_shift, "Shifts bits to the right.";
}

/// Bounds of closeness: `|a - b| <= atol + rtol * |b|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closeness {
    /// Relative bound.
    pub rtol: f64,
    /// Absolute bound.
    pub atol: f64,
    /// Whether two NaN are close.
    pub equal_nan: bool,
}

impl Default for Closeness {
    fn default() -> Self {
        Closeness { rtol: 1e-5, atol: 1e-8, equal_nan: false }
    }
}

impl Array {
    /// Tells whether all elements are close, as a 0-d bool array.
    ///
    /// # Shape
    /// `[…], […] → []`, a bool
    ///
    /// # Errors
    /// When the shapes do not broadcast.
    ///
    /// ```
    /// use mlx_core::{Array, ops::Closeness};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
    /// assert!(x.allclose(&(&x + 1e-7)?, Closeness::default())?.item::<bool>()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn allclose(&self, other: &Array, bounds: Closeness) -> Result<Array> {
        let Closeness { rtol, atol, equal_nan } = bounds;
        array_op!(mlx_allclose, self, other, rtol, atol, equal_nan)
    }

    /// Tells which elements are close.
    ///
    /// # Shape
    /// The one that both broadcast to, of bools
    ///
    /// # Errors
    /// When the shapes do not broadcast.
    pub fn isclose(&self, other: &Array, bounds: Closeness) -> Result<Array> {
        let Closeness { rtol, atol, equal_nan } = bounds;
        array_op!(mlx_isclose, self, other, rtol, atol, equal_nan)
    }

    /// Tells whether shapes and all elements are equal, as a 0-d bool array.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn array_equal(&self, other: &Array, equal_nan: bool) -> Result<Array> {
        array_op!(mlx_array_equal, self, other, equal_nan)
    }
}

/// Chooses from `x` where the condition holds, else from `y`. Python: `where`.
///
/// # Shape
/// The one that all three broadcast to
///
/// # Errors
/// When the shapes do not broadcast.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[-1.0f32, 2.0], &[2])?;
/// assert_eq!(ops::where_(&x.less(0)?, 0, &x)?.to_vec::<f32>()?, [0.0, 2.0]);
/// # Ok(())
/// # }
/// ```
pub fn where_(condition: &Array, x: impl Operand, y: impl Operand) -> Result<Array> {
    crate::array::with_pair(x, y, |x, y| array_op!(mlx_where, condition, x, y))
}

impl Array {
    /// Converts the elements to another dtype.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn astype(&self, dtype: Dtype) -> Result<Array> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        array_op!(mlx_astype, self, dtype)
    }

    /// Reads the same bytes as another dtype; the last axis changes by the ratio of sizes.
    ///
    /// # Shape
    /// `[…, D]` → `[…, D × size of the old dtype / size of the new]`
    ///
    /// # Errors
    /// When the last axis does not divide.
    ///
    /// ```
    /// use mlx_core::{Array, Dtype};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1.0f32], &[1])?;
    /// assert_eq!(x.view(Dtype::Uint32)?.item::<u32>()?, 0x3f80_0000);
    /// assert_eq!(x.view(Dtype::Uint8)?.shape(), [4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn view(&self, dtype: Dtype) -> Result<Array> {
        array_op!(mlx_view, self, dtype)
    }
}

/// Returns the dtype that two dtypes promote to.
pub fn promote_types(a: Dtype, b: Dtype) -> Dtype {
    crate::ffi::promote_types(a, b)
}

/// Returns the dtype that all of these promote to, `None` for none.
pub fn result_type(dtypes: impl IntoIterator<Item = Dtype>) -> Option<Dtype> {
    dtypes.into_iter().reduce(promote_types)
}
