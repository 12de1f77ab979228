//! The gated delta rule in place of attention (Gated DeltaNet, arXiv 2412.06464), as Qwen3-Next has it.

use mlx_core::nn::{GatedDelta, GatedDeltaInputs, Linear, Param, RmsNorm};
use mlx_core::{Array, Weights};

use super::check_size;
use super::conv::ShortConv;
use super::mask::Mask;
use super::mixer::Mixer;
use crate::cache::{Cache, RecurrentCache};
use crate::error::{Error, Result};

/// What a layer is made from.
#[derive(Clone, Debug)]
pub struct GatedDeltaArgs {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Number of query and key heads.
    pub n_key_heads: i32,
    /// Number of value heads, a multiple of `n_key_heads`.
    pub n_value_heads: i32,
    /// Size of a query or key.
    pub key_head_dim: i32,
    /// Size of a value.
    pub value_head_dim: i32,
    /// How many tokens the convolution sees.
    pub conv_kernel_dim: i32,
    /// Epsilon of the norm behind the rule.
    pub rms_norm_eps: f32,
}

impl GatedDeltaArgs {
    /// Refuses numbers that no model has, before any array is made of them.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<()> {
        let GatedDeltaArgs { n_key_heads, n_value_heads, key_head_dim, value_head_dim, .. } = *self;
        check_size("hidden_size", self.hidden_size)?;
        check_size("linear_num_key_heads", n_key_heads)?;
        check_size("linear_num_value_heads", n_value_heads)?;
        check_size("linear_key_head_dim", key_head_dim)?;
        check_size("linear_value_head_dim", value_head_dim)?;
        if self.sizes().is_none() || n_value_heads % n_key_heads != 0 {
            let text = format!(
                "{n_key_heads} key heads of size {key_head_dim} do not go with {n_value_heads} value \
                 heads of size {value_head_dim}"
            );
            return Err(Error::format("config.json", text));
        }
        Ok(())
    }

    /// Returns the sizes of all queries, keys and values together, and of all values.
    fn sizes(&self) -> Option<(i32, i32)> {
        let keys = self.n_key_heads.checked_mul(self.key_head_dim)?;
        let values = self.n_value_heads.checked_mul(self.value_head_dim)?;
        Some((keys.checked_mul(2)?.checked_add(values)?, values))
    }
}

/// A state for each value head that decays, and in which each token replaces what it has for the token's
/// key; behind a short convolution, and followed by a norm with a gate.
pub struct GatedDeltaNet {
    in_proj_qkv: Linear,
    in_proj_z: Linear,
    in_proj_b: Linear,
    in_proj_a: Linear,
    conv1d: ShortConv,
    /// `[HV]`
    dt_bias: Param,
    /// `[HV]`
    a_log: Param,
    norm: RmsNorm,
    out_proj: Linear,
    n_key_heads: i32,
    key_head_dim: i32,
}

mlx_core::module! {
    GatedDeltaNet {
        in_proj_qkv,
        in_proj_z,
        in_proj_b,
        in_proj_a,
        conv1d,
        dt_bias,
        "A_log" => a_log,
        norm,
        out_proj,
    }
}

impl GatedDeltaNet {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read or an argument makes no sense.
    pub fn new(w: &Weights, args: &GatedDeltaArgs) -> Result<Self> {
        args.check()?;
        let GatedDeltaArgs { hidden_size: dim, n_value_heads, value_head_dim, .. } = *args;
        let (qkv, values) = args.sizes().unwrap_or_default();
        Ok(GatedDeltaNet {
            in_proj_qkv: w.linear("in_proj_qkv", dim, qkv, false)?,
            in_proj_z: w.linear("in_proj_z", dim, values, false)?,
            in_proj_b: w.linear("in_proj_b", dim, n_value_heads, false)?,
            in_proj_a: w.linear("in_proj_a", dim, n_value_heads, false)?,
            conv1d: ShortConv::new(&w.at("conv1d"), qkv, args.conv_kernel_dim, false)?.with_silu(),
            dt_bias: w.param("dt_bias", &[n_value_heads])?,
            a_log: w.param_in_float32("A_log", &[n_value_heads])?,
            norm: w.rms_norm("norm", value_head_dim, args.rms_norm_eps)?,
            out_proj: w.linear("out_proj", values, dim, false)?,
            n_key_heads: args.n_key_heads,
            key_head_dim: args.key_head_dim,
        })
    }
}

/// The cache's arrays.
const CONV: usize = 0;
const STATE: usize = 1;

impl Mixer for GatedDeltaNet {
    fn forward(&self, x: &Array, _mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let l = x.dim(1)?;
        let cache = cache.as_recurrent()?;
        let tokens = cache.tokens(l)?;
        let [qkv, z, b, a] = Linear::forward_each(
            [&self.in_proj_qkv, &self.in_proj_z, &self.in_proj_b, &self.in_proj_a],
            x,
        )?;
        let qkv = self.conv1d.forward(&qkv, tokens.as_ref(), cache, CONV)?;
        let rule = GatedDelta {
            n_key_heads: self.n_key_heads,
            key_head_dim: self.key_head_dim,
            a_log: &self.a_log,
            dt_bias: &self.dt_bias,
            norm: &self.norm,
        };
        let inputs = GatedDeltaInputs { qkv, z, b, a, tokens };
        let (y, state) = rule.forward(inputs, cache.take(STATE))?;
        cache.set(STATE, state);
        cache.advance(l);
        self.out_proj.forward(&y)
    }

    fn make_cache(&self, _window: Option<i32>) -> Cache {
        Cache::Recurrent(RecurrentCache::new(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_model_has_are_refused() {
        let args = |n_key_heads, n_value_heads, key_head_dim, value_head_dim| GatedDeltaArgs {
            hidden_size: 8,
            n_key_heads,
            n_value_heads,
            key_head_dim,
            value_head_dim,
            conv_kernel_dim: 4,
            rms_norm_eps: 1e-6,
        };
        args(2, 4, 8, 6).check().expect("sizes of a model");
        for (hk, hv, d, dv) in [
            (0, 4, 8, 6),
            (2, 0, 8, 6),
            (-2, -4, 8, 6),
            (3, 4, 8, 6),
            (4, 2, 8, 6),
            (2, 4, 0, 6),
            (2, 4, 8, -1),
            (2, 4, 1 << 25, 6),
            (1 << 16, 1 << 16, 1 << 15, 6),
            (1, 1 << 16, 8, 1 << 16),
        ] {
            let error = args(hk, hv, d, dv).check().expect_err("sizes of no model").to_string();
            assert!(error.contains("config.json"), "{error}");
        }
    }
}
