//! Attention with a store of keys and values.

use super::{RmsNorm, Rope};
use crate::array::Array;
use crate::error::Result;
use crate::kernels::{self, CachedAttentionArrays, CachedAttentionParts, RopeParts};

/// Keys and values of the tokens seen so far, with room for more.
#[derive(Clone, Debug)]
pub struct KvStore {
    /// `[B, KV, S, D]`, rows from `len` on are of no meaning.
    pub keys: Array,
    /// `[B, KV, S, DV]`
    pub values: Array,
    /// How many rows there are; the position of the next token.
    pub len: i32,
}

/// What happens to heads between the projections and the output projection: norms, rotation, and
/// causal attention to all tokens so far.
#[derive(Clone, Copy, Debug)]
pub struct CachedAttention<'a> {
    /// Number of query heads.
    pub n_heads: i32,
    /// Number of key and value heads; divides `n_heads`.
    pub n_kv_heads: i32,
    /// Factor on the scores.
    pub scale: f32,
    /// The norm of each query head.
    pub q_norm: Option<&'a RmsNorm>,
    /// The norm of each key head.
    pub k_norm: Option<&'a RmsNorm>,
    /// The rotation of queries and keys.
    pub rope: Option<&'a Rope>,
    /// How many tokens up to itself a token sees; all where it is absent.
    pub window: Option<i32>,
}

impl CachedAttention<'_> {
    /// Writes keys and values of `L` new tokens behind the store's rows, and attends: one pass of our
    /// own on a CPU. The store's memory is reused if there is no other handle to its arrays.
    ///
    /// # Shape
    /// `q: [B, L, H * D]`, `k: [B, L, KV * D]`, `v: [B, L, KV * DV] → [B, L, H * DV]`
    ///
    /// # Errors
    /// When the shapes do not fit, or the store has no room.
    ///
    /// ```
    /// use mlx_core::nn::{CachedAttention, KvStore, Rope};
    /// use mlx_core::{Dtype, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let room = ops::zeros(&[1, 1, 32, 8], Dtype::Float32)?;
    /// let store = KvStore { keys: room.clone(), values: room, len: 0 };
    /// let attention = CachedAttention {
    ///     n_heads: 2,
    ///     n_kv_heads: 1,
    ///     scale: 8f32.powf(-0.5),
    ///     q_norm: None,
    ///     k_norm: None,
    ///     rope: Some(&Rope::new(8, 10000.0)),
    ///     window: None,
    /// };
    /// let (q, kv) = (ops::ones(&[1, 5, 16], Dtype::Float32)?, ops::ones(&[1, 5, 8], Dtype::Float32)?);
    /// let (y, store) = attention.forward(q, kv.clone(), kv, store)?;
    /// assert_eq!((y.shape(), store.len), (&[1, 5, 16][..], 5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward(
        &self,
        q: Array,
        k: Array,
        v: Array,
        store: KvStore,
    ) -> Result<(Array, KvStore)> {
        let KvStore { keys, values, len } = store;
        let n = k.dim(1)?;
        let parts = CachedAttentionParts {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            scale: self.scale,
            q_eps: self.q_norm.map(|norm| norm.eps),
            k_eps: self.k_norm.map(|norm| norm.eps),
            rope: self.rope.map(|rope| RopeParts {
                dims: rope.dims,
                traditional: rope.traditional,
                base: rope.freqs.is_none().then_some(rope.base),
                scale: rope.scale,
                magnitude: rope.magnitude,
            }),
            window: self.window,
            len,
        };
        let weight = |norm: Option<&RmsNorm>| norm.map(|norm| (*norm.weight).clone());
        let arrays = CachedAttentionArrays {
            q,
            k,
            v,
            keys,
            values,
            q_norm: weight(self.q_norm),
            k_norm: weight(self.k_norm),
            wavelengths: self.rope.and_then(|rope| rope.freqs.clone()),
        };
        let [out, keys, values] = kernels::cached_attention(parts, arrays)?;
        Ok((out, KvStore { keys, values, len: len + n }))
    }
}
