//! Norms over the last axis.

use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::{fast, kernels, stream};

/// Root mean square norm (arXiv 1910.07467).
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[E]`
    pub weight: Array,
    /// Added to the mean square.
    pub eps: f32,
}

impl RmsNorm {
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
        fast::rms_norm(x, Some(&self.weight), self.eps)
    }
}

/// Layer norm (arXiv 1607.06450).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[E]`
    pub weight: Option<Array>,
    /// `[E]`
    pub bias: Option<Array>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […, E] → […, E]`; accumulates in float32.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        fast::layer_norm(x, self.weight.as_ref(), self.bias.as_ref(), self.eps)
    }
}
