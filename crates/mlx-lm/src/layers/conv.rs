//! Short convolutions over time.

use mlx_core::nn::{CausalConv, Param};
use mlx_core::{Array, Weights};

use super::check_size;
use crate::cache::RecurrentCache;
use crate::error::{Error, Result};

/// A convolution of each channel over a token and the few before it, of which a cache keeps the inputs.
pub struct ShortConv {
    /// `[C, K, 1]`
    weight: Param,
    /// `[C]`
    bias: Option<Param>,
    has_silu: bool,
}

mlx_core::module! { ShortConv { weight, bias } }

/// Taps beyond this are a broken configuration: each is a product of its own.
const MAX_TAPS: i32 = 64;

impl ShortConv {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read, or there is no such number of taps.
    pub fn new(w: &Weights, n_channels: i32, n_taps: i32, bias: bool) -> Result<ShortConv> {
        check_size("the channels of a convolution", n_channels)?;
        if !(1..=MAX_TAPS).contains(&n_taps) {
            return Err(Error::format("config.json", format!("a convolution of {n_taps} taps")));
        }
        Ok(ShortConv {
            weight: w.param("weight", &[n_channels, n_taps, 1])?,
            bias: if bias { Some(w.param("bias", &[n_channels])?) } else { None },
            has_silu: false,
        })
    }

    /// Returns the same with SiLU behind it.
    #[must_use]
    pub fn with_silu(self) -> ShortConv {
        ShortConv { has_silu: true, ..self }
    }

    /// Applies the layer; the cache keeps the last inputs in its array `i`.
    ///
    /// `tokens`, `[B, L]`, says which inputs there are: others count as zero.
    ///
    /// # Shape
    /// `x: [B, L, C] → [B, L, C]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(
        &self,
        x: &Array,
        tokens: Option<&Array>,
        cache: &mut RecurrentCache,
        i: usize,
    ) -> mlx_core::Result<Array> {
        let bias = self.bias.as_deref();
        let conv = CausalConv { weight: &self.weight, bias, has_silu: self.has_silu };
        let (y, last) = conv.forward(x.clone(), tokens, cache.take(i))?;
        cache.set(i, last);
        Ok(y)
    }
}
