//! Short convolutions over time.

use crate::array::Array;
use crate::error::Result;
use crate::kernels::{self, CausalConvArrays};

/// A convolution of each channel over a token and those before it, token by token as well as over many:
/// what it has to know of the inputs before goes in and comes out.
#[derive(Clone, Copy, Debug)]
pub struct CausalConv<'a> {
    /// `[C, K, 1]`; the last of the `K` taps is the token's own.
    pub weight: &'a Array,
    /// `[C]`
    pub bias: Option<&'a Array>,
    /// Whether [`silu`](super::silu) follows.
    pub has_silu: bool,
}

impl CausalConv<'_> {
    /// Applies it, in float32 but for inputs and results, and returns the last `K - 1` inputs: one pass of
    /// our own on a CPU.
    ///
    /// `tokens`, `[B, L]` of bool, says which inputs there are: others count as zero. `before` are the
    /// inputs in front of the first, as they came out behind it; zeros where they are absent.
    ///
    /// # Shape
    /// `x: [B, L, C]`, `before: [B, K - 1, C]` → `[B, L, C]`, `[B, K - 1, C]`
    ///
    /// # Errors
    /// When shapes and dtypes do not fit.
    ///
    /// ```
    /// use mlx_core::nn::CausalConv;
    /// use mlx_core::{Dtype, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let weight = ops::ones(&[1, 3, 1], Dtype::Float32)?;
    /// let conv = CausalConv { weight: &weight, bias: None, has_silu: false };
    /// let x = ops::ones(&[1, 4, 1], Dtype::Float32)?;
    /// let (y, last) = conv.forward(x.clone(), None, None)?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 2.0, 3.0, 3.0]);
    /// let (y, _) = conv.forward(x, None, Some(last))?;
    /// assert_eq!(y.to_vec::<f32>()?, [3.0; 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward(
        &self,
        x: Array,
        tokens: Option<&Array>,
        before: Option<Array>,
    ) -> Result<(Array, Array)> {
        let (weight, bias) = (self.weight.clone(), self.bias.cloned());
        let arrays = CausalConvArrays { x, weight, bias, before, tokens: tokens.cloned() };
        kernels::causal_conv(arrays, self.has_silu)
    }
}
