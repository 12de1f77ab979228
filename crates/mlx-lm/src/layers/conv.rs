//! Short convolutions over time.

use mlx_core::nn::{CausalConv, Linear, Param};
use mlx_core::{Array, Weights};

use super::check_size;
use super::mask::Mask;
use super::mixer::Mixer;
use crate::cache::{Cache, RecurrentCache};
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

/// What a gated short convolution is made from.
#[derive(Clone, Copy, Debug)]
pub struct GatedConvArgs {
    /// Size of the hidden state, and number of channels.
    pub hidden_size: i32,
    /// Number of tokens that an output depends on.
    pub n_taps: i32,
    /// Whether the convolution and the projections have a bias.
    pub bias: bool,
}

/// A short convolution between two gates that are linear in the input (LFM2, arXiv 2511.23404):
/// `out_proj(c * conv(b * u))` with `b`, `c` and `u` from `in_proj`.
pub struct GatedConv {
    conv: ShortConv,
    in_proj: Linear,
    out_proj: Linear,
}

mlx_core::module! { GatedConv { conv, in_proj, out_proj } }

impl GatedConv {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read, or there is no such number of taps.
    pub fn new(w: &Weights, args: &GatedConvArgs) -> Result<GatedConv> {
        let GatedConvArgs { hidden_size: dim, n_taps, bias } = *args;
        Ok(GatedConv {
            conv: ShortConv::new(&w.at("conv"), dim, n_taps, bias)?,
            in_proj: w.linear("in_proj", dim, 3 * dim, bias)?,
            out_proj: w.linear("out_proj", dim, dim, bias)?,
        })
    }
}

impl Mixer for GatedConv {
    fn forward(&self, x: &Array, _mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let cache = cache.as_recurrent()?;
        let l = x.dim(1)?;
        let gates_and_input = self.in_proj.forward(x)?;
        let dim = gates_and_input.dim(-1)? / 3;
        let part = |i: i32| gates_and_input.at((.., .., i * dim..(i + 1) * dim));
        let tokens = cache.tokens(l)?;
        let y = self.conv.forward(&(part(0)? * part(2)?)?, tokens.as_ref(), cache, 0)?;
        cache.advance(l);
        self.out_proj.forward(&(part(1)? * y)?)
    }

    fn make_cache(&self, _window: Option<i32>) -> Cache {
        Cache::Recurrent(RecurrentCache::new(1))
    }
}
