//! Activations, as Python's `mlx.nn` has them: plain ops of the graph, none of them compiled.
//!
//! Dtypes are kept, for the numbers in a formula are weak; integers become float32 where a
//! formula leaves them. Parameters are `f64`, as Python's are.

use crate::array::{Array, Axes};
use crate::error::Result;
use crate::kernels::{self, GatedActivation};
use crate::ops::{self, maximum, minimum, where_};

/// Writes functions that are a method of the array: `name, "doc";`.
macro_rules! of_methods {
    ($($name:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            ///
            /// # Errors
            /// When the dtype does not allow it.
            pub fn $name(x: &Array) -> Result<Array> {
                x.$name()
            }
        )*
    };
}

of_methods! {
    sigmoid, "Returns the logistic function `1 / (1 + exp(-x))`.";
    tanh, "Returns the hyperbolic tangent.";
}

/// Returns `max(x, 0)`.
///
/// # Errors
/// When memory runs out.
pub fn relu(x: &Array) -> Result<Array> {
    x.maximum(0)
}

/// Returns `max(x, 0)²` (arXiv 2109.08668).
///
/// # Errors
/// When memory runs out.
pub fn relu2(x: &Array) -> Result<Array> {
    relu(x)?.square()
}

/// Returns `min(max(x, 0), 6)`, floating also for integers.
///
/// # Errors
/// When memory runs out.
pub fn relu6(x: &Array) -> Result<Array> {
    relu(x)?.minimum(6.0)
}

/// Returns `max(negative_slope * x, x)`; Python's default slope is 0.01.
///
/// # Errors
/// When memory runs out.
pub fn leaky_relu(x: &Array, negative_slope: f64) -> Result<Array> {
    x.multiply(negative_slope)?.maximum(x)
}

/// Returns `max(x, 0) + alpha * min(x, 0)`, with slopes that are learned (arXiv 1502.01852).
///
/// # Shape
/// `alpha` broadcasts with `x`.
///
/// # Errors
/// When the shapes do not broadcast.
pub fn prelu(x: &Array, alpha: &Array) -> Result<Array> {
    // Where the two are equal, the order of arguments decides on the gradient.
    maximum(0, x)? + (alpha * minimum(0, x))
}

/// Returns `x` where it is positive, else `alpha * (exp(x) - 1)` (arXiv 1511.07289); Python's
/// default is 1.
///
/// # Errors
/// When the dtype does not allow it.
pub fn elu(x: &Array, alpha: f64) -> Result<Array> {
    where_(&x.greater(0)?, x, (x.exp()? - 1)?.multiply(alpha))
}

/// Returns `max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)` (arXiv 1704.07483); Python's
/// default is 1.
///
/// # Errors
/// When the dtype does not allow it.
pub fn celu(x: &Array, alpha: f64) -> Result<Array> {
    let negative = (x.minimum(0.0)?.divide(alpha)?.exp()? - 1)?;
    x.maximum(0.0)? + negative.multiply(alpha)
}

/// Returns `1.0507 * elu(x, 1.67326)` (arXiv 1706.02515).
///
/// # Errors
/// When the dtype does not allow it.
pub fn selu(x: &Array) -> Result<Array> {
    elu(x, 1.67326)?.multiply(1.0507)
}

/// Returns `x * sigmoid(x)` (Swish, arXiv 1606.08415).
///
/// # Errors
/// When the dtype does not allow it.
pub fn silu(x: &Array) -> Result<Array> {
    x * x.sigmoid()
}

/// Returns `activation(gate) * x`, or what else the activation says; one pass of our own on a CPU.
///
/// With [`GatedActivation::Silu`] it is mlx-lm's `swiglu`.
///
/// # Errors
/// When the shapes do not broadcast.
///
/// ```
/// use mlx_core::nn::{self, GatedActivation};
/// use mlx_core::Array;
///
/// # fn main() -> mlx_core::Result<()> {
/// let (gate, x) = (Array::from_slice(&[-1.0f32, 2.0], &[2])?, Array::from_slice(&[3.0f32, 4.0], &[2])?);
/// assert_eq!(nn::gated(&gate, &x, GatedActivation::Relu)?.to_vec::<f32>()?, [0.0, 8.0]);
/// # Ok(())
/// # }
/// ```
pub fn gated(gate: &Array, x: &Array, activation: GatedActivation) -> Result<Array> {
    let is_plain = (gate.shape(), gate.dtype()) == (x.shape(), x.dtype());
    if is_plain && kernels::are_for(x.dtype())? {
        return kernels::gated(gate, x, activation, gated_by_ops);
    }
    gated_by_ops(gate, x, activation)
}

pub(super) fn gated_by_ops(gate: &Array, x: &Array, activation: GatedActivation) -> Result<Array> {
    let gate = match activation {
        GatedActivation::Silu => silu(gate),
        GatedActivation::Gelu => gelu(gate),
        GatedActivation::GeluApprox => gelu_approx(gate),
        GatedActivation::GeluFastApprox => gelu_fast_approx(gate),
        GatedActivation::Relu => relu(gate),
        GatedActivation::Relu2 => relu2(gate),
        GatedActivation::Sigmoid => sigmoid(gate),
        GatedActivation::ClampedSwiglu => {
            let (limit, slope) = GatedActivation::CLAMPED_SWIGLU;
            let gate = gate.minimum(limit)?;
            let gate = (&gate * gate.multiply(slope)?.sigmoid())?;
            return gate * (x.minimum(limit)?.maximum(-limit)? + 1.0);
        }
    };
    gate? * x
}

/// Returns `x * Φ(x)` with the exact error function (arXiv 1606.08415).
///
/// ```
/// use mlx_core::{Array, nn};
///
/// # fn main() -> mlx_core::Result<()> {
/// let y = nn::gelu(&Array::from_slice(&[-1.0f32, 0.0, 1.0], &[3])?)?.to_vec::<f32>()?;
/// assert!((y[0] + 0.158_655).abs() < 1e-5 && y[1] == 0.0 && (y[2] - 0.841_345).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the dtype does not allow it.
pub fn gelu(x: &Array) -> Result<Array> {
    // DIFFERENCE: Python halves the product, which overflows float16 from 32768 on.
    let phi = ((x.divide(std::f64::consts::SQRT_2)?.erf()? + 1)? / 2)?;
    x * phi
}

/// Returns [`gelu`] with the hyperbolic tangent in place of the error function: within 5e-4 of it
/// on `-6..6`.
///
/// # Errors
/// When the dtype does not allow it.
pub fn gelu_approx(x: &Array) -> Result<Array> {
    let inner = (x + x.power(3)?.multiply(0.044715))?;
    let tanh = inner.multiply((2.0 / std::f64::consts::PI).sqrt())?.tanh()?;
    (x * 0.5)? * (tanh + 1)
}

/// Returns `x * sigmoid(1.702 * x)`: within 0.021 of [`gelu`].
///
/// # Errors
/// When the dtype does not allow it.
pub fn gelu_fast_approx(x: &Array) -> Result<Array> {
    x * x.multiply(1.702)?.sigmoid()
}

/// Returns `log(1 + exp(x))`, without overflow.
///
/// # Errors
/// When the dtype does not allow it.
pub fn softplus(x: &Array) -> Result<Array> {
    ops::logaddexp(x, 0)
}

/// Returns `x / (1 + |x|)`.
///
/// # Errors
/// When the dtype does not allow it.
pub fn softsign(x: &Array) -> Result<Array> {
    x / (x.abs()? + 1)
}

/// Returns `x` moved towards 0 by `lambd`, and 0 where it is not farther from there; Python's
/// default is 0.5.
///
/// # Errors
/// When the dtype does not allow it.
pub fn softshrink(x: &Array, lambd: f64) -> Result<Array> {
    where_(&x.abs()?.greater(lambd)?, x - x.sign()?.multiply(lambd), 0)
}

/// Returns `x`, and 0 where `|x|` is not greater than `lambd`; Python's default is 0.5.
///
/// # Errors
/// When the dtype does not allow it.
pub fn hard_shrink(x: &Array, lambd: f64) -> Result<Array> {
    where_(&x.abs()?.greater(lambd)?, x, 0)
}

/// The bounds of [`hard_tanh`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HardTanhOptions {
    /// The least result.
    pub min_val: f64,
    /// The greatest result, and the one that wins where the bounds cross.
    pub max_val: f64,
}

impl Default for HardTanhOptions {
    fn default() -> Self {
        HardTanhOptions { min_val: -1.0, max_val: 1.0 }
    }
}

/// Returns `min(max(x, min_val), max_val)`, floating also for integers.
///
/// # Errors
/// When memory runs out.
pub fn hard_tanh(x: &Array, options: HardTanhOptions) -> Result<Array> {
    x.maximum(options.min_val)?.minimum(options.max_val)
}

/// Returns `x * min(max(x + 3, 0), 6) / 6` (arXiv 1905.02244).
///
/// # Errors
/// When memory runs out.
pub fn hardswish(x: &Array) -> Result<Array> {
    (x * (x + 3)?.maximum(0)?.minimum(6))? / 6
}

/// Returns `log(sigmoid(x))`, without overflow.
///
/// # Errors
/// When the dtype does not allow it.
pub fn log_sigmoid(x: &Array) -> Result<Array> {
    softplus(&x.negative()?)?.negative()
}

/// Returns `x * tanh(softplus(x))` (arXiv 1908.08681).
///
/// # Errors
/// When the dtype does not allow it.
pub fn mish(x: &Array) -> Result<Array> {
    x * softplus(x)?.tanh()
}

/// Returns 1 where `x` is at least `threshold`, else 0, as `int32`; Python's default is 0.
///
/// # Errors
/// When the dtype does not allow it.
pub fn step(x: &Array, threshold: f64) -> Result<Array> {
    where_(&x.greater_equal(threshold)?, 1, 0)
}

/// Returns the softmax over axes; Python's default is the last.
///
/// # Errors
/// When there is no such axis.
pub fn softmax<'a>(x: &Array, axes: impl Into<Axes<'a>>) -> Result<Array> {
    x.softmax(axes, false)
}

/// Returns the softmax of `-x` over axes; Python's default is the last.
///
/// # Errors
/// When there is no such axis.
pub fn softmin<'a>(x: &Array, axes: impl Into<Axes<'a>>) -> Result<Array> {
    x.negative()?.softmax(axes, false)
}

/// Returns the logarithm of the softmax over axes; Python's default is the last.
///
/// # Errors
/// When there is no such axis, or `x` is empty.
pub fn log_softmax<'a>(x: &Array, axes: impl Into<Axes<'a>>) -> Result<Array> {
    let axes = axes.into();
    // Beside a large maximum the logarithm of the sum would be lost, were it not taken off first.
    let x = (x - x.max(axes, true)?.stop_gradient())?;
    &x - x.logsumexp(axes, true)
}

/// Returns the first half along an axis times the sigmoid of the second (arXiv 1612.08083);
/// Python's default is the last.
///
/// # Shape
/// `x: A + [2N] + B → A + [N] + B`
///
/// # Errors
/// When there is no such axis or its size is odd.
pub fn glu(x: &Array, axis: i32) -> Result<Array> {
    match x.split(2, axis)?.as_slice() {
        [a, b] => a * b.sigmoid(),
        _ => Err(crate::Error::new(crate::ErrorKind::Runtime, "glu: not two halves")),
    }
}
