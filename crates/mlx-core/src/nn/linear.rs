//! Linear.

use crate::array::Array;
use crate::error::Result;
use crate::ops::{Packed, addmm};

/// A weight in the form that the checkpoint has it.
#[derive(Clone, Debug)]
pub enum WeightMatrix {
    /// `[D, E]`
    Dense(Array),
    /// Quantized.
    Packed(Packed),
}

impl WeightMatrix {
    /// Returns `x × wᵀ`.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matmul_transposed(&self, x: &Array) -> Result<Array> {
        match self {
            WeightMatrix::Dense(weight) => x.matmul(&weight.t()?),
            WeightMatrix::Packed(packed) => packed.matmul(x, true),
        }
    }
}

/// `y = x × wᵀ + b`, dense or quantized.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[D, E]`
    pub weight: WeightMatrix,
    /// `[D]`
    pub bias: Option<Array>,
}

impl Linear {
    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match (&self.weight, &self.bias) {
            (WeightMatrix::Dense(weight), Some(bias)) => addmm(bias, x, &weight.t()?, 1.0, 1.0),
            (weight, Some(bias)) => weight.matmul_transposed(x)? + bias,
            (weight, None) => weight.matmul_transposed(x),
        }
    }
}
