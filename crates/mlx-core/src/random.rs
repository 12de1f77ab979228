//! Random numbers from explicit keys, or from this thread's key sequence.

use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, array_op, c_call};

/// Starts this thread's key sequence anew.
///
/// # Errors
/// When MLX fails.
pub fn seed(seed: u64) -> Result<()> {
    c_call!(mlx_random_seed, seed)
}

/// Makes a key.
///
/// # Errors
/// When memory runs out.
pub fn key(seed: u64) -> Result<Array> {
    let mut raw = ffi::null_array();
    let status = c_call!(@args mlx_random_key; (&mut raw); seed,);
    ffi::finish_array(raw, status, "mlx_random_key")
}

/// Takes the next key of this thread's sequence.
///
/// # Errors
/// When memory runs out.
pub fn next_key() -> Result<Array> {
    ffi::random_next_key()
}

/// Makes `num` keys from one.
///
/// # Shape
/// `[num, 2]`
///
/// # Errors
/// When `key` is not a key.
pub fn split(key: &Array, num: i32) -> Result<Array> {
    array_op!(mlx_random_split_num, key, num)
}

/// Returns random unsigned integers of `width` bytes.
///
/// # Errors
/// When the width is not 1, 2 or 4.
pub fn bits(shape: &[i32], width: i32, key: Option<&Array>) -> Result<Array> {
    array_op!(mlx_random_bits, [shape], width, key)
}

/// Returns numbers spread evenly over `low..high`.
///
/// # Errors
/// When the bounds do not broadcast to the shape or the dtype is not floating.
pub fn uniform(
    low: impl Operand,
    high: impl Operand,
    shape: &[i32],
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let (low, high) = (&low.into_array(Some(dtype))?, &high.into_array(Some(dtype))?);
    array_op!(mlx_random_uniform, low, high, [shape], dtype, key)
}

/// Returns normally distributed numbers with mean `loc` and standard deviation `scale`.
///
/// # Errors
/// When the dtype is not floating.
pub fn normal(
    shape: &[i32],
    dtype: Dtype,
    loc: impl Operand,
    scale: impl Operand,
    key: Option<&Array>,
) -> Result<Array> {
    let (loc, scale) = (&loc.into_array(Some(dtype))?, &scale.into_array(Some(dtype))?);
    array_op!(mlx_random_normal_broadcast, [shape], dtype, loc, scale, key)
}

/// Returns normally distributed numbers cut off outside `lower..upper`.
///
/// # Errors
/// When the bounds do not broadcast to the shape or the dtype is not floating.
pub fn truncated_normal(
    lower: impl Operand,
    upper: impl Operand,
    shape: &[i32],
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let (lower, upper) = (&lower.into_array(Some(dtype))?, &upper.into_array(Some(dtype))?);
    array_op!(mlx_random_truncated_normal, lower, upper, [shape], dtype, key)
}

/// Returns integers from `low` up to and without `high`.
///
/// # Errors
/// When the bounds do not broadcast to the shape or the dtype is not an integer.
pub fn randint(
    low: impl Operand,
    high: impl Operand,
    shape: &[i32],
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let (low, high) = (&low.into_array(Some(dtype))?, &high.into_array(Some(dtype))?);
    array_op!(mlx_random_randint, low, high, [shape], dtype, key)
}

/// Returns true with probability `p`.
///
/// # Errors
/// When `p` does not broadcast to the shape.
pub fn bernoulli(p: impl Operand, shape: &[i32], key: Option<&Array>) -> Result<Array> {
    let p = &p.into_array(Some(Dtype::Float32))?;
    array_op!(mlx_random_bernoulli, p, [shape], key)
}

/// Returns numbers of the standard Gumbel distribution.
///
/// # Errors
/// When the dtype is not floating.
pub fn gumbel(shape: &[i32], dtype: Dtype, key: Option<&Array>) -> Result<Array> {
    array_op!(mlx_random_gumbel, [shape], dtype, key)
}

/// Returns numbers of the Laplace distribution.
///
/// # Errors
/// When the dtype is not floating.
pub fn laplace(
    shape: &[i32],
    dtype: Dtype,
    loc: f32,
    scale: f32,
    key: Option<&Array>,
) -> Result<Array> {
    array_op!(mlx_random_laplace, [shape], dtype, loc, scale, key)
}

/// Draws positions along an axis with the probabilities that unnormalized `logits` give.
///
/// # Shape
/// `logits` without the axis, `uint32`.
///
/// # Errors
/// When there is no such axis.
pub fn categorical(logits: &Array, axis: i32, key: Option<&Array>) -> Result<Array> {
    array_op!(mlx_random_categorical, logits, axis, key)
}

/// Draws as [`categorical`] does, `num_samples` times, along a new last axis.
///
/// # Errors
/// When there is no such axis or `num_samples` is negative.
pub fn categorical_num_samples(
    logits: &Array,
    axis: i32,
    num_samples: i32,
    key: Option<&Array>,
) -> Result<Array> {
    array_op!(mlx_random_categorical_num_samples, logits, axis, num_samples, key)
}

/// Draws as [`categorical`] does, to a shape that ends with that of `logits` without the axis.
///
/// # Errors
/// When there is no such axis or the shape does not fit.
pub fn categorical_shape(
    logits: &Array,
    axis: i32,
    shape: &[i32],
    key: Option<&Array>,
) -> Result<Array> {
    array_op!(mlx_random_categorical_shape, logits, axis, [shape], key)
}

/// Returns `0..n` in random order, as `uint32`.
///
/// # Errors
/// When `n` is not positive.
pub fn permutation_arange(n: i32, key: Option<&Array>) -> Result<Array> {
    if n <= 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("permutation: of {n} numbers")));
    }
    array_op!(mlx_random_permutation_arange, n, key)
}

/// Shuffles slices along an axis.
///
/// # Errors
/// When there is no such axis or it is empty.
pub fn permutation(x: &Array, axis: i32, key: Option<&Array>) -> Result<Array> {
    x.check_not_empty("permutation", Some(axis))?;
    array_op!(mlx_random_permutation, x, axis, key)
}
