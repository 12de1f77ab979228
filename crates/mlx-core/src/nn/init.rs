//! Initial values of parameters, as Python's `mlx.nn.init`.
//!
//! An initializer takes the shape and the dtype of the parameter and then what Python takes by
//! keyword. Random ones draw from this thread's key sequence: after the same
//! [`seed`](crate::random::seed) they give the numbers that Python gives.
//!
//! ```
//! use mlx_core::nn::init::{self, Fan, HeOptions};
//! use mlx_core::{Dtype, random};
//!
//! # fn main() -> mlx_core::Result<()> {
//! random::seed(0)?;
//! let options = HeOptions { mode: Fan::Out, ..HeOptions::default() };
//! let weight = init::he_uniform(&[4, 300], Dtype::Bfloat16, options)?;
//! assert_eq!((weight.shape(), weight.dtype()), (&[4, 300][..], Dtype::Bfloat16));
//! # Ok(())
//! # }
//! ```

use crate::array::{Array, Operand};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::with_device;
use crate::{linalg, ops, random};

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Fails for sizes that no array has; random ops multiply them unchecked.
fn check_shape(init: &str, shape: &[i32]) -> Result<()> {
    let count = shape.iter().try_fold(1i64, |n, &size| n.checked_mul(i64::from(size)));
    match count {
        Some(count) if count < 1 << 46 && shape.iter().all(|&size| size >= 0) => Ok(()),
        _ => Err(invalid(format!("{init}: shape {shape:?}"))),
    }
}

/// Returns an array of one value.
///
/// # Errors
/// When the shape has a negative size or the value does not broadcast to it.
pub fn constant(shape: &[i32], dtype: Dtype, value: impl Operand) -> Result<Array> {
    check_shape("constant", shape)?;
    ops::full(shape, value, dtype)
}

/// The distribution of [`normal`]; the standard one by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalOptions {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
}

impl Default for NormalOptions {
    fn default() -> Self {
        NormalOptions { mean: 0.0, std: 1.0 }
    }
}

/// Returns normally distributed numbers.
///
/// # Errors
/// When the shape has a negative size or the dtype is not floating.
pub fn normal(shape: &[i32], dtype: Dtype, options: NormalOptions) -> Result<Array> {
    check_shape("normal", shape)?;
    random::normal(shape, dtype, options.mean, options.std, None)
}

/// The distribution of [`uniform`]; from 0 to 1 by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UniformOptions {
    /// The least number.
    pub low: f64,
    /// The number that all are below.
    pub high: f64,
}

impl Default for UniformOptions {
    fn default() -> Self {
        UniformOptions { low: 0.0, high: 1.0 }
    }
}

/// Returns numbers spread evenly.
///
/// # Errors
/// When the shape has a negative size or the dtype is not floating.
pub fn uniform(shape: &[i32], dtype: Dtype, options: UniformOptions) -> Result<Array> {
    check_shape("uniform", shape)?;
    random::uniform(options.low, options.high, shape, dtype, None)
}

/// Returns a square matrix with ones on its diagonal.
///
/// # Shape
/// `[N, N]`
///
/// # Errors
/// When the shape is not that of a square matrix.
pub fn identity(shape: &[i32], dtype: Dtype) -> Result<Array> {
    match *shape {
        [n, m] if n == m && n >= 0 => ops::identity(n, dtype),
        _ => Err(invalid(format!("identity: shape {shape:?} is not square"))),
    }
}

/// How many inputs an output has, and outputs an input: `[outputs, window…, inputs]`.
struct Fans {
    inputs: f64,
    outputs: f64,
}

impl Fans {
    fn of(init: &str, shape: &[i32]) -> Result<Fans> {
        check_shape(init, shape)?;
        let [outputs, window @ .., inputs] = shape else {
            return Err(invalid(format!("{init}: shape {shape:?} of fewer than two axes")));
        };
        let window: f64 = window.iter().copied().map(f64::from).product();
        Ok(Fans { inputs: f64::from(*inputs) * window, outputs: f64::from(*outputs) * window })
    }
}

/// Returns the square root of `a / fan`.
fn spread(init: &str, shape: &[i32], a: f64, fan: f64) -> Result<f64> {
    if fan > 0.0 {
        return Ok((a / fan).sqrt());
    }
    Err(invalid(format!("{init}: nothing is connected in shape {shape:?}")))
}

/// Returns normally distributed numbers with standard deviation `gain * √(2 / (fan_in + fan_out))`
/// (Glorot and Bengio, 2010); Python's default gain is 1.
///
/// # Shape
/// `[outputs, window…, inputs]`
///
/// # Errors
/// When there are fewer than two axes, none of them has elements, or the dtype is not floating.
pub fn glorot_normal(shape: &[i32], dtype: Dtype, gain: f64) -> Result<Array> {
    let fans = Fans::of("glorot_normal", shape)?;
    let std = gain * spread("glorot_normal", shape, 2.0, fans.inputs + fans.outputs)?;
    normal(shape, dtype, NormalOptions { mean: 0.0, std })
}

/// Returns numbers spread evenly up to `gain * √(6 / (fan_in + fan_out))` on both sides of 0
/// (Glorot and Bengio, 2010); Python's default gain is 1.
///
/// # Shape
/// `[outputs, window…, inputs]`
///
/// # Errors
/// When there are fewer than two axes, none of them has elements, or the dtype is not floating.
///
/// ```
/// use mlx_core::nn::init;
/// use mlx_core::Dtype;
///
/// # fn main() -> mlx_core::Result<()> {
/// let w = init::glorot_uniform(&[8, 4], Dtype::Float32, 1.0)?;
/// assert!(w.abs()?.max(.., false)?.item::<f32>()? <= (6.0f32 / 12.0).sqrt());
/// # Ok(())
/// # }
/// ```
pub fn glorot_uniform(shape: &[i32], dtype: Dtype, gain: f64) -> Result<Array> {
    let fans = Fans::of("glorot_uniform", shape)?;
    let limit = gain * spread("glorot_uniform", shape, 6.0, fans.inputs + fans.outputs)?;
    uniform(shape, dtype, UniformOptions { low: -limit, high: limit })
}

/// Which connections [`he_normal`] and [`he_uniform`] count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fan {
    /// Those into an output; Python's `"fan_in"`.
    #[default]
    In,
    /// Those out of an input; Python's `"fan_out"`.
    Out,
}

/// What [`he_normal`] and [`he_uniform`] take beside shape and dtype.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeOptions {
    /// Which connections are counted.
    pub mode: Fan,
    /// A factor for all numbers.
    pub gain: f64,
}

impl Default for HeOptions {
    fn default() -> Self {
        HeOptions { mode: Fan::In, gain: 1.0 }
    }
}

impl HeOptions {
    fn spread(self, init: &str, shape: &[i32], a: f64) -> Result<f64> {
        let fans = Fans::of(init, shape)?;
        let fan = match self.mode {
            Fan::In => fans.inputs,
            Fan::Out => fans.outputs,
        };
        Ok(self.gain * spread(init, shape, a, fan)?)
    }
}

/// Returns normally distributed numbers with standard deviation `gain / √fan` (arXiv 1502.01852).
///
/// # Shape
/// `[outputs, window…, inputs]`
///
/// # Errors
/// When there are fewer than two axes, the counted one has no elements, or the dtype is not
/// floating.
pub fn he_normal(shape: &[i32], dtype: Dtype, options: HeOptions) -> Result<Array> {
    let std = options.spread("he_normal", shape, 1.0)?;
    normal(shape, dtype, NormalOptions { mean: 0.0, std })
}

/// Returns numbers spread evenly up to `gain * √(3 / fan)` on both sides of 0 (arXiv 1502.01852).
///
/// # Shape
/// `[outputs, window…, inputs]`
///
/// # Errors
/// When there are fewer than two axes, the counted one has no elements, or the dtype is not
/// floating.
pub fn he_uniform(shape: &[i32], dtype: Dtype, options: HeOptions) -> Result<Array> {
    let limit = options.spread("he_uniform", shape, 3.0)?;
    uniform(shape, dtype, UniformOptions { low: -limit, high: limit })
}

/// Returns normally distributed numbers, of which the part `sparsity` of each row, rounded up, is
/// zero.
///
/// # Shape
/// `[outputs, inputs]`
///
/// # Errors
/// When there are not two axes, `sparsity` is not in `0..=1`, or the dtype is not floating.
pub fn sparse(shape: &[i32], dtype: Dtype, sparsity: f64, options: NormalOptions) -> Result<Array> {
    let [_, columns] = *shape else {
        return Err(invalid(format!("sparse: shape {shape:?}, expected two axes")));
    };
    if !(0.0..=1.0).contains(&sparsity) {
        return Err(invalid(format!("sparse: sparsity of {sparsity}")));
    }
    check_shape("sparse", shape)?;
    let keys = uniform(shape, Dtype::Float32, UniformOptions::default())?;
    let weight = normal(shape, dtype, options)?;
    let n_zeros = (sparsity * f64::from(columns)).ceil() as i32;
    if weight.size() == 0 || n_zeros == 0 {
        return Ok(weight);
    }
    let places = keys.argsort(1)?.at((.., ..n_zeros))?;
    weight.put_along_axis(&places, 0, 1)
}

/// Returns `gain` times a matrix with orthonormal rows, or columns where these are fewer
/// (arXiv 1312.6120); Python's default gain is 1. It is computed on the CPU, in float32, from a
/// square matrix as large as the larger size.
///
/// # Shape
/// `[outputs, inputs]`
///
/// # Errors
/// When there are not two axes.
pub fn orthogonal(shape: &[i32], dtype: Dtype, gain: f64) -> Result<Array> {
    let [rows, columns] = *shape else {
        return Err(invalid(format!("orthogonal: shape {shape:?}, expected two axes")));
    };
    check_shape("orthogonal", shape)?;
    let n = rows.max(columns);
    let square = normal(&[n, n], Dtype::Float32, NormalOptions::default())?;
    if rows == 0 || columns == 0 {
        return ops::zeros(shape, dtype);
    }
    let (q, r) = with_device(Device::Cpu, || linalg::qr(&square))?;
    // The factorization leaves signs open; with those of r, every rotation is as likely.
    let q = (q * r.diag(0)?.sign())?.at((..rows, ..columns))?;
    q.multiply(gain)?.astype(dtype)
}
