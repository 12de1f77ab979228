//! Linear.

use super::{Param, make};
use crate::array::Array;
use crate::error::Result;
use crate::kernels;
use crate::ops::{Packed, addmm, quantize};
use crate::quantization::Quantization;

/// A weight in the form that the checkpoint has it.
#[derive(Clone, Debug)]
pub enum WeightMatrix {
    /// `[D, E]`
    Dense(Param),
    /// Quantized.
    Packed(Packed),
}

impl WeightMatrix {
    /// Packs a dense matrix; a packed one stays as it is.
    ///
    /// # Errors
    /// When the last axis does not divide by the group size.
    pub fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        if let WeightMatrix::Dense(weight) = self {
            *self = WeightMatrix::Packed(quantize(weight, quantization)?);
        }
        Ok(())
    }

    /// Returns the number of weights, counted before packing.
    pub fn n_parameters(&self) -> usize {
        match self {
            WeightMatrix::Dense(weight) => weight.size(),
            WeightMatrix::Packed(packed) => {
                packed.weight.size() * 32 / packed.quantization.bits.max(1) as usize
            }
        }
    }

    /// Returns `x × wᵀ`.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matmul_transposed(&self, x: &Array) -> Result<Array> {
        match self {
            WeightMatrix::Dense(weight) if kernels::has_linear(x, weight, None)? => {
                kernels::linear(x, weight, None)
            }
            WeightMatrix::Dense(weight) => x.matmul(&weight.t()?),
            WeightMatrix::Packed(packed) => packed.matmul(x, true),
        }
    }
}

/// `y = x × wᵀ + b`, dense or quantized.
///
/// ```
/// use mlx_core::nn::Linear;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = Linear::new(4, 2, true)?;
/// assert_eq!(layer.forward(&ops::ones(&[3, 4], Dtype::Float32)?)?.shape(), [3, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[D, E]`
    pub weight: WeightMatrix,
    /// `[D]`
    pub bias: Option<Param>,
}

crate::module! { Linear { weight, bias } }

impl Linear {
    /// Makes a layer with weights and biases spread evenly over `±1 / √input_dims`, in float32,
    /// out of this thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(input_dims: i32, output_dims: i32, bias: bool) -> Result<Linear> {
        let sizes = [("input_dims", input_dims), ("output_dims", output_dims)];
        make::check_positive("linear", &sizes)?;
        let fan_in = input_dims.into();
        Ok(Linear {
            weight: WeightMatrix::Dense(make::uniform(fan_in, &[output_dims, input_dims])?),
            bias: if bias { Some(make::uniform(fan_in, &[output_dims])?) } else { None },
        })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match (&self.weight, &self.bias) {
            (WeightMatrix::Dense(weight), Some(bias))
                if kernels::has_linear(x, weight, Some(bias))? =>
            {
                kernels::linear(x, weight, Some(bias))
            }
            (WeightMatrix::Dense(weight), Some(bias)) => addmm(bias, x, &weight.t()?, 1.0, 1.0),
            (weight, Some(bias)) => weight.matmul_transposed(x)? + &**bias,
            (weight, None) => weight.matmul_transposed(x),
        }
    }
}
