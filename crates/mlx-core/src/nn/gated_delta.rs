//! The gated delta rule.

use super::RmsNorm;
use crate::array::Array;
use crate::error::Result;
use crate::kernels::{self, GatedDeltaArrays, GatedDeltaParts};

/// The recurrence of Gated DeltaNet (arXiv 2412.06464), with the norms of queries and keys in front of it,
/// and the gated norm behind. For each value head, with the unit vectors `q` and `k` of its key head:
///
/// ```text
/// S ← exp(-exp(a_log) · softplus(a + dt_bias)) · S
/// S ← S + sigmoid(b) · (v - S k) kᵀ
/// y = rms_norm(S q / √D) · silu(z)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GatedDelta<'a> {
    /// Number of query and key heads, `HK`; divides `HV`, the number of value heads, and each serves as
    /// many neighbours.
    pub n_key_heads: i32,
    /// Size of a query or key, `D`.
    pub key_head_dim: i32,
    /// `[HV]`
    pub a_log: &'a Array,
    /// `[HV]`
    pub dt_bias: &'a Array,
    /// The norm of what each value head gives, `[DV]`.
    pub norm: &'a RmsNorm,
}

/// What `L` tokens bring to a [`GatedDelta`].
#[derive(Clone, Debug)]
pub struct GatedDeltaInputs {
    /// `[B, L, 2 * HK * D + HV * DV]`: all queries, then all keys, then all values.
    pub qkv: Array,
    /// `[B, L, HV * DV]`: the gate of the output.
    pub z: Array,
    /// `[B, L, HV]`: how much a token writes.
    pub b: Array,
    /// `[B, L, HV]`: how much decays before it does.
    pub a: Array,
    /// `[B, L]` of bool: which places hold tokens, where not all do. Others leave the state as it is, and
    /// what they give means nothing.
    pub tokens: Option<Array>,
}

impl GatedDelta<'_> {
    /// Applies the rule, in float32, and returns the state behind the last token: one pass of our own on
    /// a CPU. The first token has the state before it, or zeros.
    ///
    /// # Shape
    /// `→ [B, L, HV * DV]` in the dtype of `qkv`, and the state, `[B, HV, DV, D]` in float32
    ///
    /// # Errors
    /// When shapes and dtypes do not fit.
    ///
    /// ```
    /// use mlx_core::nn::{GatedDelta, GatedDeltaInputs, RmsNorm};
    /// use mlx_core::{Dtype, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let (zeros, norm) = (ops::zeros(&[4], Dtype::Float32)?, RmsNorm::new(6, 1e-6)?);
    /// let (a_log, dt_bias) = (&zeros, &zeros);
    /// let rule = GatedDelta { n_key_heads: 2, key_head_dim: 8, a_log, dt_bias, norm: &norm };
    /// let ones = |n: i32| ops::ones(&[1, 5, n], Dtype::Float32);
    /// let (qkv, z, b, a) = (ones(2 * 2 * 8 + 4 * 6)?, ones(4 * 6)?, ones(4)?, ones(4)?);
    /// let inputs = GatedDeltaInputs { qkv, z, b, a, tokens: None };
    /// let (y, state) = rule.forward(inputs.clone(), None)?;
    /// assert_eq!((y.shape(), state.shape()), (&[1, 5, 4 * 6][..], &[1, 4, 6, 8][..]));
    /// let (y, state) = rule.forward(inputs, Some(state))?;
    /// # y.eval()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward(
        &self,
        inputs: GatedDeltaInputs,
        state: Option<Array>,
    ) -> Result<(Array, Array)> {
        let GatedDeltaInputs { qkv, z, b, a, tokens } = inputs;
        let parts = GatedDeltaParts {
            n_key_heads: self.n_key_heads,
            key_head_dim: self.key_head_dim,
            eps: self.norm.eps,
        };
        let arrays = GatedDeltaArrays {
            qkv,
            z,
            b,
            a,
            a_log: self.a_log.clone(),
            dt_bias: self.dt_bias.clone(),
            norm: (*self.norm.weight).clone(),
            state,
            tokens,
        };
        kernels::gated_delta(parts, arrays)
    }
}
