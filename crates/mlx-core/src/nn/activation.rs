//! Activations.

use crate::array::Array;
use crate::error::Result;

/// Returns `x * sigmoid(x)` (Swish, arXiv 1606.08415).
///
/// # Errors
/// When the dtype is not floating.
pub fn silu(x: &Array) -> Result<Array> {
    x * x.sigmoid()
}

/// Returns `max(x, 0)`.
///
/// # Errors
/// When memory runs out.
pub fn relu(x: &Array) -> Result<Array> {
    x.maximum(0)
}

/// Returns `x * Φ(x)` with the exact error function (arXiv 1606.08415).
///
/// # Errors
/// When the dtype is not floating.
pub fn gelu(x: &Array) -> Result<Array> {
    let phi = ((x / std::f32::consts::SQRT_2)?.erf()? + 1.0)? / 2.0;
    x * phi
}

/// Returns [`gelu`] with the hyperbolic tangent in place of the error function.
///
/// # Errors
/// When the dtype is not floating.
pub fn gelu_approx(x: &Array) -> Result<Array> {
    let inner = ((x + (x.power(3)? * 0.044715))? * (2.0 / std::f32::consts::PI).sqrt())?;
    (x * 0.5)? * (inner.tanh()? + 1.0)
}
