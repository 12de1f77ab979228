//! Linear.

use super::activation::{gated, gated_by_ops};
use super::{GatedActivation, Param, make};
use crate::array::Array;
use crate::error::Result;
use crate::kernels::{self, PackedLayer};
use crate::ops::{Packed, addmm, quantize};
use crate::quantization::Quantization;

/// A weight in the form that the checkpoint has it.
#[derive(Clone, Debug)]
pub enum WeightMatrix {
    /// `[D, E]`, or a stack of such
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
            WeightMatrix::Dense(weight) => x.matmul(&weight.swapaxes(-1, -2)?),
            WeightMatrix::Packed(packed) => packed.matmul(x, true),
        }
    }

    /// Returns `x × w`.
    ///
    /// # Shape
    /// `x: […, D] → […, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matmul(&self, x: &Array) -> Result<Array> {
        match self {
            WeightMatrix::Dense(weight) => x.matmul(weight),
            WeightMatrix::Packed(packed) => packed.matmul(x, false),
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
            (WeightMatrix::Packed(packed), Some(bias)) => {
                match Packed::matmul_each(x, [(packed, Some(bias))])? {
                    Some([y]) => Ok(y),
                    None => packed.matmul(x, true)? + &**bias,
                }
            }
            (weight, None) => weight.matmul_transposed(x),
        }
    }

    /// Applies several layers to one input, which quantized ones read together on a CPU.
    ///
    /// # Shape
    /// `x: […, E] → […, D]` of each layer
    ///
    /// # Errors
    /// When the shapes do not fit.
    ///
    /// ```
    /// use mlx_core::nn::Linear;
    /// use mlx_core::{Dtype, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let (q, k) = (Linear::new(8, 8, true)?, Linear::new(8, 4, true)?);
    /// let [q, k] = Linear::forward_each([&q, &k], &ops::ones(&[3, 8], Dtype::Float32)?)?;
    /// assert_eq!((q.shape(), k.shape()), (&[3, 8][..], &[3, 4][..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward_each<const N: usize>(layers: [&Linear; N], x: &Array) -> Result<[Array; N]> {
        if let Some(packed) = packed_layers(layers)
            && let Some(outputs) = Packed::matmul_each(x, packed)?
        {
            return Ok(outputs);
        }
        let outputs = layers.iter().map(|layer| layer.forward(x)).collect::<Result<Vec<_>>>()?;
        Ok(outputs.try_into().expect("as many outputs as layers"))
    }

    /// Returns `activation(gate(x)) * up(x)`, which is one pass for quantized layers on a CPU.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_gated(
        gate: &Linear,
        up: &Linear,
        x: &Array,
        activation: GatedActivation,
    ) -> Result<Array> {
        if let Some(packed) = packed_layers([gate, up])
            && let Some(y) = Packed::gated_matmul(x, packed, activation, gated_by_ops)?
        {
            return Ok(y);
        }
        gated(&gate.forward(x)?, &up.forward(x)?, activation)
    }
}

/// Returns what kernels for packed weights take, if all layers have such weights.
fn packed_layers<const N: usize>(layers: [&Linear; N]) -> Option<[PackedLayer<'_>; N]> {
    let packed = layers.iter().map(|layer| match &layer.weight {
        WeightMatrix::Packed(packed) => Some((packed, layer.bias.as_deref())),
        WeightMatrix::Dense(_) => None,
    });
    packed.collect::<Option<Vec<_>>>()?.try_into().ok()
}
