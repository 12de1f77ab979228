//! Norms: over the last axis here, over groups, instances and batches beside.

mod batch;
mod group;

use super::{Param, make};
use crate::array::Array;
use crate::error::Result;
use crate::{fast, kernels};

pub use batch::{BatchNorm, BatchNormOptions};
pub use group::{GroupNorm, GroupNormOptions, InstanceNorm};

/// Root mean square norm (arXiv 1910.07467).
///
/// ```
/// use mlx_core::nn::RmsNorm;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let y = RmsNorm::new(4, 1e-5)?.forward(&ops::ones(&[2, 4], Dtype::Float32)?)?;
/// assert_eq!(y.shape(), [2, 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[E]`
    pub weight: Param,
    /// Added to the mean square.
    pub eps: f32,
}

crate::module! { RmsNorm { weight } }

impl RmsNorm {
    /// Makes a layer with weights of one, in float32; Python's default for `eps` is 1e-5.
    ///
    /// # Errors
    /// When `dims` or `eps` is not positive.
    pub fn new(dims: i32, eps: f32) -> Result<RmsNorm> {
        make::check_positive("rms_norm", &[("dims", dims)])?;
        make::check_eps("rms_norm", eps)?;
        Ok(RmsNorm { weight: make::full(1.0, &[dims])?, eps })
    }

    /// Applies the layer: one pass of our own on a CPU, MLX's kernel on a GPU.
    ///
    /// # Shape
    /// `x: […, E] → […, E]`; accumulates in float32.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if x.dtype() == self.weight.dtype() && kernels::are_for(x.dtype())? {
            return kernels::rms_norm(x, &self.weight, self.eps);
        }
        fast::rms_norm(x, Some(&*self.weight), self.eps)
    }

    /// Returns `x + residual` and the norm of that; one pass of our own on a CPU.
    ///
    /// # Shape
    /// `x`, `residual: […, E]` → two of `[…, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_add(&self, x: &Array, residual: &Array) -> Result<(Array, Array)> {
        let is_plain = x.shape() == residual.shape()
            && x.dtype() == residual.dtype()
            && x.dtype() == self.weight.dtype();
        if is_plain && kernels::are_for(x.dtype())? {
            return kernels::add_rms_norm(x, residual, &self.weight, self.eps);
        }
        let sum = (x + residual)?;
        let normed = self.forward(&sum)?;
        Ok((sum, normed))
    }
}

/// Options of [`LayerNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNormOptions {
    /// Added to the variance.
    pub eps: f32,
    /// Learns a factor for each element.
    pub affine: bool,
    /// Learns a bias for each element, beside the factor.
    pub bias: bool,
}

impl Default for LayerNormOptions {
    fn default() -> Self {
        LayerNormOptions { eps: 1e-5, affine: true, bias: true }
    }
}

/// Layer norm (arXiv 1607.06450).
///
/// ```
/// use mlx_core::nn::LayerNorm;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let y = LayerNorm::new(4, Default::default())?.forward(&ops::ones(&[2, 4], Dtype::Float32)?)?;
/// assert_eq!(y.to_vec::<f32>()?, [0.0; 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[E]`
    pub weight: Option<Param>,
    /// `[E]`
    pub bias: Option<Param>,
    /// Added to the variance.
    pub eps: f32,
}

crate::module! { LayerNorm { weight, bias } }

impl LayerNorm {
    /// Makes a layer with weights of one and biases of zero, in float32.
    ///
    /// # Errors
    /// When `dims` or `eps` is not positive.
    pub fn new(dims: i32, options: LayerNormOptions) -> Result<LayerNorm> {
        make::check_positive("layer_norm", &[("dims", dims)])?;
        let LayerNormOptions { eps, affine, bias } = options;
        make::check_eps("layer_norm", eps)?;
        let param = |is_there: bool, value: f32| {
            if is_there { make::full(value, &[dims]).map(Some) } else { Ok(None) }
        };
        Ok(LayerNorm { weight: param(affine, 1.0)?, bias: param(affine && bias, 0.0)?, eps })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […, E] → […, E]`; accumulates in float32.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let (weight, bias) = (self.weight.as_deref(), self.bias.as_deref());
        let is_plain = [weight, bias].iter().flatten().all(|part| part.dtype() == x.dtype());
        if is_plain && x.ndim() > 0 && kernels::are_for(x.dtype())? {
            return kernels::layer_norm(x, weight, bias, self.eps);
        }
        fast::layer_norm(x, weight, bias, self.eps)
    }
}

/// What a learned affine transformation has: factors of one and biases of zero, or nothing.
type Affine = (Option<Param>, Option<Param>);

fn affine_parameters(affine: bool, dims: i32) -> Result<Affine> {
    if !affine {
        return Ok((None, None));
    }
    Ok((Some(make::full(1.0, &[dims])?), Some(make::full(0.0, &[dims])?)))
}

/// Returns `weight * x + bias`, of which either may be missing.
fn apply_affine(x: Array, weight: Option<&Param>, bias: Option<&Param>) -> Result<Array> {
    let x = match weight {
        Some(weight) => weight.multiply(x)?,
        None => x,
    };
    match bias {
        Some(bias) => x + &**bias,
        None => Ok(x),
    }
}

/// Fails unless the last axis of `x` has `dims` features.
fn check_features(layer: &str, x: &Array, dims: i32) -> Result<()> {
    if x.shape().last() == Some(&dims) {
        return Ok(());
    }
    Err(make::invalid(layer, format!("{dims} features, input of shape {:?}", x.shape())))
}
