//! A linear layer for each head.

use super::{WeightMatrix, make};
use crate::array::Array;
use crate::error::Result;

/// Linear layers of one size, stacked, one for each head. mlx-lm: `MultiLinear`.
///
/// ```
/// use mlx_core::nn::MultiLinear;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = MultiLinear::new(16, 8, 4)?; // four heads
/// let x = ops::ones(&[1, 4, 3, 16], Dtype::Float32)?; // for each head its own three rows
/// let y = layer.forward(&x)?;
/// assert_eq!(y.shape(), [1, 4, 3, 8]);
/// assert_eq!(layer.forward_swapped(&y)?.shape(), x.shape());
/// let x = ops::ones(&[1, 1, 3, 16], Dtype::Float32)?; // the same for all heads
/// assert_eq!(layer.forward(&x)?.shape(), y.shape());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MultiLinear {
    /// `[H, D, E]`
    pub weight: WeightMatrix,
}

crate::module! { MultiLinear { weight } }

impl MultiLinear {
    /// Makes layers with weights spread evenly over `±1 / √input_dims`, in float32, out of this
    /// thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(input_dims: i32, output_dims: i32, num_heads: i32) -> Result<MultiLinear> {
        let sizes =
            [("input_dims", input_dims), ("output_dims", output_dims), ("num_heads", num_heads)];
        make::check_positive("multi_linear", &sizes)?;
        let weight = make::uniform(input_dims.into(), &[num_heads, output_dims, input_dims])?;
        Ok(MultiLinear { weight: WeightMatrix::Dense(weight) })
    }

    /// Returns `x × wᵀ` of each head.
    ///
    /// # Shape
    /// `x: [B, H, L, E] → [B, H, L, D]`, where one head of `x` may stand for all
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.weight.matmul_transposed(x)
    }

    /// Returns `x × w` of each head: the way back where rows of the weight are orthogonal.
    ///
    /// # Shape
    /// `x: [B, H, L, D] → [B, H, L, E]`, where one head of `x` may stand for all
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_swapped(&self, x: &Array) -> Result<Array> {
        self.weight.matmul(x)
    }
}
