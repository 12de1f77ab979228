//! Arrays from nothing.

use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::array_op;

/// Returns `start, start + step, …` up to and without `stop`.
///
/// # Errors
/// When a number is not finite or the result would be too long.
pub fn arange(start: f64, stop: f64, step: f64, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_arange, start, stop, step, dtype)
}

/// Returns `num` numbers from `start` to `stop`, both included.
///
/// # Errors
/// When `num` is negative.
pub fn linspace(start: f64, stop: f64, num: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_linspace, start, stop, num, dtype)
}

/// Returns `num` numbers from `start` to `stop`, without `stop` unless `endpoint`.
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
/// # Errors
/// When a size is negative.
pub fn eye(n: i32, m: i32, k: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_eye, n, m, k, dtype)
}

/// Returns the `n` by `n` identity.
///
/// # Errors
/// When the size is negative.
pub fn identity(n: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_identity, n, dtype)
}

/// Returns an `n` by `m` matrix with ones on and below diagonal `k`.
///
/// # Errors
/// When a size is negative.
pub fn tri(n: i32, m: i32, k: i32, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_tri, n, m, k, dtype)
}

impl Array {
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
    /// # Errors
    /// When there are neither one nor two axes.
    pub fn diag(&self, k: i32) -> Result<Array> {
        array_op!(mlx_diag, self, k)
    }
}
