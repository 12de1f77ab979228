//! Arrays from nothing.

use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

/// Returns `start, start + step, …` up to and without `stop`.
///
/// # Shape
/// `[ceil((stop - start) / step)]`
///
/// # Errors
/// When a number is not finite or the result would be too long.
///
/// ```
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// assert_eq!(ops::arange(0.0, 1.0, 0.25, Dtype::Float32)?.to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75]);
/// # Ok(())
/// # }
/// ```
pub fn arange(start: f64, stop: f64, step: f64, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_arange, start, stop, step, dtype)
}

/// Returns `num` numbers from `start` to `stop`, both included.
///
/// # Shape
/// `[num]`
///
/// # Errors
/// When `num` is negative.
///
/// ```
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// assert_eq!(ops::linspace(0.0, 1.0, 3, Dtype::Float32)?.to_vec::<f32>()?, [0.0, 0.5, 1.0]);
/// # Ok(())
/// # }
/// ```
pub fn linspace(start: f64, stop: f64, num: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_linspace, start, stop, num, dtype)
}

/// Returns `num` numbers from `start` to `stop`, without `stop` unless `endpoint`.
///
/// # Shape
/// `[num]`
///
/// # Errors
/// When `num` is negative.
pub fn linspace_endpoint(
    start: f64,
    stop: f64,
    num: i32,
    endpoint: bool,
    dtype: Dtype,
) -> Result<Array> {
    array_op!(mlx_linspace_endpoint, start, stop, num, endpoint, dtype)
}

/// Returns an array of one value; without `dtype`, the value's.
///
/// # Errors
/// When the value does not broadcast to the shape.
///
/// ```
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = ops::full(&[2, 2], 7, Dtype::Float16)?;
/// assert_eq!((x.dtype(), x.to_vec_as::<f32>()?), (Dtype::Float16, vec![7.0; 4]));
/// # Ok(())
/// # }
/// ```
pub fn full(shape: &[i32], value: impl Operand, dtype: impl Into<Option<Dtype>>) -> Result<Array> {
    let dtype = dtype.into();
    let value = &value.into_array(dtype)?;
    let dtype = dtype.unwrap_or(value.dtype());
    array_op!(mlx_full, [shape], value, dtype)
}

/// Returns zeros.
///
/// # Errors
/// When the shape has a negative size.
pub fn zeros(shape: &[i32], dtype: Dtype) -> Result<Array> {
    array_op!(mlx_zeros, [shape], dtype)
}

/// Returns ones.
///
/// # Errors
/// When the shape has a negative size.
pub fn ones(shape: &[i32], dtype: Dtype) -> Result<Array> {
    array_op!(mlx_ones, [shape], dtype)
}

/// Returns an `n` by `m` matrix with ones on diagonal `k`.
///
/// # Shape
/// `[n, m]`
///
/// # Errors
/// When a size is negative.
pub fn eye(n: i32, m: i32, k: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_eye, n, m, k, dtype)
}

/// Returns the `n` by `n` identity.
///
/// # Shape
/// `[n, n]`
///
/// # Errors
/// When the size is negative.
pub fn identity(n: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_identity, n, dtype)
}

/// Returns an `n` by `m` matrix with ones on and below diagonal `k`.
///
/// # Shape
/// `[n, m]`
///
/// # Errors
/// When a size is negative.
pub fn tri(n: i32, m: i32, k: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_tri, n, m, k, dtype)
}

/// Writes window functions: `name, mlx_function, "doc";`.
macro_rules! windows {
    ($($name:ident, $f:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            ///
            /// `m` points in `float32`; none where `m` is not positive.
            ///
            /// # Errors
            /// When memory runs out.
            pub fn $name(m: i32) -> Result<Array> {
                array_op!($f, m)
            }
        )*
    };
}

windows! {
    bartlett, mlx_bartlett, "Returns the Bartlett window, a triangle that starts and ends at zero.";
    blackman, mlx_blackman, "Returns the Blackman window, a sum of three cosines.";
    hamming, mlx_hamming, "Returns the Hamming window, a raised cosine.";
    hanning, mlx_hanning, "Returns the Hann window, a cosine that starts and ends at zero.";
}

impl Array {
    /// Returns an array of this shape of one value, by default with this dtype.
    ///
    /// # Errors
    /// When the value does not broadcast to the shape.
    ///
    /// ```
    /// use mlx_core::{Array, Dtype};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1, 2, 3], &[3])?;
    /// assert_eq!(x.full_like(7, None)?.to_vec::<i32>()?, [7, 7, 7]);
    /// assert_eq!(x.full_like(0.5, Dtype::Float32)?.to_vec::<f32>()?, [0.5, 0.5, 0.5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn full_like(&self, value: impl Operand, dtype: impl Into<Option<Dtype>>) -> Result<Array> {
        let dtype = dtype.into().unwrap_or(self.dtype());
        let value = &value.into_array(Some(dtype))?;
        let result = array_op!(mlx_full_like, self, value, dtype)?;
        if result.shape() == self.shape() {
            return Ok(result);
        }
        let (value, shape) = (value.shape(), self.shape());
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("full_like: value of shape {value:?} for shape {shape:?}"),
        ))
    }

    /// Returns zeros of this shape with another dtype.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn zeros_like_dtype(&self, dtype: Dtype) -> Result<Array> {
        array_op!(mlx_zeros_like_dtype, self, dtype)
    }

    /// Returns ones of this shape with another dtype.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn ones_like_dtype(&self, dtype: Dtype) -> Result<Array> {
        array_op!(mlx_ones_like_dtype, self, dtype)
    }

    /// Returns zeros of this shape and dtype.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn zeros_like(&self) -> Result<Array> {
        array_op!(mlx_zeros_like, self)
    }

    /// Returns ones of this shape and dtype.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn ones_like(&self) -> Result<Array> {
        array_op!(mlx_ones_like, self)
    }

    /// Zeroes what lies above diagonal `k` of the last two axes.
    ///
    /// # Errors
    /// When there are fewer than two axes.
    pub fn tril(&self, k: i32) -> Result<Array> {
        array_op!(mlx_tril, self, k)
    }

    /// Zeroes what lies below diagonal `k` of the last two axes.
    ///
    /// # Errors
    /// When there are fewer than two axes.
    pub fn triu(&self, k: i32) -> Result<Array> {
        array_op!(mlx_triu, self, k)
    }

    /// Takes diagonal `k` of a matrix, or makes a matrix from a vector.
    ///
    /// # Shape
    /// `[N]` → `[N + |k|, N + |k|]`; `[M, N]` → `[length of the diagonal]`
    ///
    /// # Errors
    /// When there are neither one nor two axes.
    pub fn diag(&self, k: i32) -> Result<Array> {
        array_op!(mlx_diag, self, k)
    }
}
