//! Attention over keys and values.

use crate::array::Array;
use crate::error::Result;
use crate::fast::{AttentionMask, scaled_dot_product_attention};
use crate::kernels::{self, AttentionOptions};

/// Attends queries to keys and values and joins the heads: in one pass of our own on a CPU, by
/// [`scaled_dot_product_attention`] on a GPU. `sinks`, `[H]`, are a score more for each head, which has
/// no value (gpt-oss).
///
/// # Shape
/// `q: [B, H, L, D]`, `k, v: [B, KV, S, D] → [B, L, H * D]`; softmax in float32.
///
/// # Errors
/// When the shapes or dtypes do not fit.
pub fn attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f32,
    mask: AttentionMask<'_>,
    sinks: Option<&Array>,
) -> Result<Array> {
    let [b, _, l, _] = q.dims()?;
    let options = AttentionOptions { sinks, ..AttentionOptions::new(scale, mask) };
    let out = if kernels::has_attention([q, k, v], &options)? {
        kernels::attention(q, k, v, options)?
    } else {
        scaled_dot_product_attention(q, k, v, scale, mask, sinks)?
    };
    out.transpose([0, 2, 1, 3])?.reshape([b, l, -1])
}
