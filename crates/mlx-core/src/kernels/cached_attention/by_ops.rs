//! The same by MLX's ops: on a GPU, and for transforms.

use std::ops::Range;

use super::super::attention::{Scores, by_scores, causal_mask};
use super::{CachedAttentionArrays, CachedAttentionParts, RopeParts};
use crate::array::Array;
use crate::error::Result;
use crate::fast::{AttentionMask, Offset, RopeOptions, scaled_dot_product_attention};
use crate::nn::{self, KvRows};
use crate::{fast, ops};

/// Does as the kernel, by ops.
pub(super) fn by_ops(
    parts: &CachedAttentionParts,
    arrays: CachedAttentionArrays,
) -> Result<(Array, KvRows, KvRows)> {
    let CachedAttentionArrays { q, k, v, keys, values, q_norm, k_norm, .. } = arrays;
    let CachedAttentionArrays { wavelengths, sinks, mask, .. } = arrays;
    let CachedAttentionParts { n_heads, n_kv_heads, offset, .. } = *parts;
    let [b, l, _] = q.dims()?;
    let heads = |x: &Array, n: i32, norm: Option<(&Array, f32)>| {
        let x = x.reshape([b, l, n, -1])?;
        let x = match norm {
            Some((weight, eps)) => fast::rms_norm(&x, Some(weight), eps)?,
            None => x,
        };
        x.transpose([0, 2, 1, 3])
    };
    let rotated = |x: Array| match parts.rope {
        Some(RopeParts { dims, traditional, base, scale, magnitude }) => {
            let freqs = wavelengths.as_ref();
            let options = RopeOptions { dims, traditional, base, scale, freqs };
            nn::rotate(&x, options, Offset::Int(offset), magnitude)
        }
        None => Ok(x),
    };
    let q = rotated(heads(&q, n_heads, q_norm.as_ref().zip(parts.q_eps))?)?;
    let k = rotated(heads(&k, n_kv_heads, k_norm.as_ref().zip(parts.k_eps))?)?;
    let v = heads(&v, n_kv_heads, None)?;
    let append = |store: KvRows, rows: Array| {
        let rows = match store.quantization() {
            Some(quantization) => KvRows::pack(&rows, quantization)?,
            None => KvRows::Dense(rows),
        };
        store.append(&rows, parts.len)
    };
    let (keys, values) = (append(keys, k)?, append(values, v)?);
    let seen = Seen::new(parts, l);
    let (k, v) = (seen.of(&keys)?, seen.of(&values)?);
    let (n_keys, plain) = (k.dims()?[2], parts.soft_cap.is_none());
    let causal = match (&mask, &k) {
        (None, KvRows::Dense(_)) if plain && !seen.is_cut => None,
        (None, _) if l > 1 => Some(causal_mask(l, n_keys, parts.window)?),
        _ => None,
    };
    let (mask, sinks) = (mask.as_ref().or(causal.as_ref()), sinks.as_ref());
    let out = match (&k, &v) {
        (KvRows::Dense(k), KvRows::Dense(v)) if plain => {
            let mask = match mask {
                Some(mask) => AttentionMask::Array(mask),
                None if l == 1 => AttentionMask::None,
                None => AttentionMask::Causal,
            };
            scaled_dot_product_attention(&q, k, v, parts.scale, mask, sinks)?
        }
        _ => {
            let (scale, soft_cap) = (parts.scale, parts.soft_cap);
            by_scores(&q, [&k, &v], Scores { scale, mask, sinks, soft_cap })?
        }
    };
    Ok((out.transpose([0, 2, 1, 3])?.reshape([b, l, -1])?, keys, values))
}

/// The rows of a store that any new token sees.
struct Seen {
    /// Those in front of what is passed over, and those behind.
    rows: [Range<i32>; 2],
    /// Whether some of the new tokens do not see all of them that are before.
    is_cut: bool,
}

impl Seen {
    fn new(parts: &CachedAttentionParts, l: i32) -> Seen {
        let CachedAttentionParts { window, skipped: [start, end], len, .. } = *parts;
        let n_keys = parts.n_keys(l);
        // The first new token sees the last `window` keys up to itself.
        let hidden = window.map_or(0, |window| (n_keys - l - (window - 1)).max(0));
        let rows = [hidden.min(start)..start, end + (hidden - start).max(0)..len + l];
        let is_cut = window.is_some_and(|window| n_keys - hidden > window);
        Seen { rows, is_cut }
    }

    fn of(&self, store: &KvRows) -> Result<KvRows> {
        let [front, back] = &self.rows;
        store.map(|part| {
            let back = part.at((.., .., back.clone()))?;
            match front.is_empty() {
                true => Ok(back),
                false => ops::concatenate([&part.at((.., .., front.clone()))?, &back], 2),
            }
        })
    }
}
