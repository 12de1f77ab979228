//! Norms over the last axis.

use super::Param;
use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::{fast, kernels, ops, stream};

/// Root mean square norm (arXiv 1910.07467).
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[E]`
    pub weight: Param,
    /// Added to the mean square.
    pub eps: f32,
}

crate::module! { RmsNorm { weight } }

impl RmsNorm {
    /// Makes a layer with weights of one, in float32.
    ///
    /// # Errors
    /// When `dims` is negative.
    pub fn new(dims: i32, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: ops::ones(&[dims], Dtype::Float32)?.into(), eps })
    }

    /// Applies the layer: one pass of our own on a CPU, MLX's kernel on a GPU.
    ///
    /// # Shape
    /// `x: […, E] → […, E]`; accumulates in float32.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let has_kernel = matches!(x.dtype(), Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
            && x.dtype() == self.weight.dtype();
        if has_kernel && stream::current_device()? == Device::Cpu {
            return kernels::rms_norm(x, &self.weight, self.eps);
        }
        fast::rms_norm(x, Some(&*self.weight), self.eps)
    }
}

/// Layer norm (arXiv 1607.06450).
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
    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […, E] → […, E]`; accumulates in float32.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        fast::layer_norm(x, self.weight.as_deref(), self.bias.as_deref(), self.eps)
    }
}
