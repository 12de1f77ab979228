//! Grouped-query attention.

use mlx_core::nn::{CachedAttention, Linear, RmsNorm};
use mlx_core::{Array, Dtype, Weights, nn, ops};

use super::mask::Mask;
use super::rope::{Rope, RopeArgs};
use crate::cache::{KvCache, NewRows};
use crate::error::Result;

/// What an attention layer is made from.
#[derive(Clone, Debug)]
pub struct AttentionArgs {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Number of query heads.
    pub n_heads: i32,
    /// Number of key and value heads; divides `n_heads`.
    pub n_kv_heads: i32,
    /// Size of a head.
    pub head_dim: i32,
    /// Whether the projections of queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub o_bias: bool,
    /// The norms of queries and keys.
    pub qk_norm: QkNorm,
    /// The rotary embedding.
    pub rope: RopeArgs,
    /// A factor on queries that grows with their position.
    pub query_scale: Option<QueryScale>,
}

/// The factor `1 + beta · ln(1 + ⌊position / length⌋)` on rotated queries, so that attention over more
/// tokens than the model was trained on stays as sharp (Llama 4's temperature).
#[derive(Clone, Copy, Debug)]
pub struct QueryScale {
    /// How fast it grows.
    pub beta: f32,
    /// Tokens up to which it is 1.
    pub length: f32,
}

impl QueryScale {
    /// Returns the factors of `n` positions from `offset` on, `[n, 1]` in float32.
    fn factors(&self, offset: i32, n: i32) -> mlx_core::Result<Array> {
        let positions = ops::arange(f64::from(offset), f64::from(offset + n), 1.0, Dtype::Float32)?;
        let periods = (positions / self.length)?.floor()?;
        ((periods.log1p()? * self.beta)? + 1.0)?.expand_dims(-1)
    }
}

/// The norms of queries and keys, before they are rotated, with their epsilon.
#[derive(Clone, Copy, Debug)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Of each head.
    Heads(f32),
    /// Of all heads together.
    Full(f32),
}

/// Attention with a cache.
pub struct Attention {
    n_heads: i32,
    n_kv_heads: i32,
    scale: f32,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    /// Whether the norms are of all heads together.
    has_full_norms: bool,
    rope: Rope,
    query_scale: Option<QueryScale>,
}

mlx_core::module! { Attention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm } }

impl Attention {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read or the rotary variant is unknown.
    pub fn new(w: &Weights, args: &AttentionArgs) -> Result<Self> {
        let AttentionArgs { hidden_size: dim, n_heads, n_kv_heads, head_dim, .. } = *args;
        let norm = |name: &str, n_heads: i32| match args.qk_norm {
            QkNorm::None => Ok(None),
            QkNorm::Heads(eps) => w.rms_norm(name, head_dim, eps).map(Some),
            QkNorm::Full(eps) => w.rms_norm(name, n_heads * head_dim, eps).map(Some),
        };
        Ok(Attention {
            n_heads,
            n_kv_heads,
            scale: (head_dim as f32).powf(-0.5),
            q_proj: w.linear("q_proj", dim, n_heads * head_dim, args.qkv_bias)?,
            k_proj: w.linear("k_proj", dim, n_kv_heads * head_dim, args.qkv_bias)?,
            v_proj: w.linear("v_proj", dim, n_kv_heads * head_dim, args.qkv_bias)?,
            o_proj: w.linear("o_proj", n_heads * head_dim, dim, args.o_bias)?,
            q_norm: norm("q_norm", n_heads)?,
            k_norm: norm("k_norm", n_kv_heads)?,
            has_full_norms: matches!(args.qk_norm, QkNorm::Full(_)),
            rope: Rope::new(&args.rope)?,
            query_scale: args.query_scale,
        })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: [B, L, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(
        &self,
        x: &Array,
        mask: &Mask,
        cache: &mut dyn KvCache,
    ) -> mlx_core::Result<Array> {
        let [b, l, _] = x.dims()?;
        let [mut q, mut k, v] =
            Linear::forward_each([&self.q_proj, &self.k_proj, &self.v_proj], x)?;
        let (mut q_norm, mut k_norm) = (self.q_norm.as_ref(), self.k_norm.as_ref());
        if self.has_full_norms {
            let all_heads = |norm: Option<&RmsNorm>, x: Array| match norm {
                Some(norm) => norm.forward(&x),
                None => Ok(x),
            };
            (q, k) = (all_heads(q_norm.take(), q)?, all_heads(k_norm.take(), k)?);
        }
        let is_masked = match mask {
            Mask::Causal | Mask::Window(_) | Mask::Array(_) => true,
            Mask::None => l == 1,
        };
        // The one node has no place for the factor.
        if is_masked && self.query_scale.is_none() {
            let rows = NewRows {
                batch: b,
                n: l,
                n_kv_heads: self.n_kv_heads,
                head_dim: k.dim(-1)? / self.n_kv_heads,
                value_dim: v.dim(-1)? / self.n_kv_heads,
                dtype: k.dtype(),
            };
            if let Some(store) = cache.lend(&rows)? {
                let attention = CachedAttention {
                    q_norm,
                    k_norm,
                    rope: Some(&self.rope.at(store.offset + l)),
                    window: match mask {
                        Mask::Window(window) => Some(*window),
                        _ => None,
                    },
                    mask: match mask {
                        Mask::Array(mask) => Some(mask),
                        _ => None,
                    },
                    ..CachedAttention::new(self.n_heads, self.n_kv_heads, self.scale)
                };
                let (out, store) = attention.forward(q, k, v, store)?;
                cache.put_back(store);
                return self.o_proj.forward(&out);
            }
        }

        let heads = |y: Array, n: i32, norm: Option<&RmsNorm>| {
            let y = y.reshape([b, l, n, -1])?;
            let y = norm.map_or(Ok(y.clone()), |norm| norm.forward(&y))?;
            y.transpose([0, 2, 1, 3])
        };
        let q = heads(q, self.n_heads, q_norm)?;
        let k = heads(k, self.n_kv_heads, k_norm)?;
        let v = heads(v, self.n_kv_heads, None)?;
        let rope = self.rope.at(cache.offset() + l);
        let (mut q, k) = (rope.forward(&q, cache.offset())?, rope.forward(&k, cache.offset())?);
        if let Some(scale) = &self.query_scale {
            q = (&q * scale.factors(cache.offset(), l)?.astype(q.dtype())?)?;
        }
        let (k, v) = cache.update_and_fetch(&k, &v)?;
        let out = mask
            .with_attention([l, k.dim(2)?], |mask| nn::attention(&q, &k, &v, self.scale, mask))?;
        self.o_proj.forward(&out)
    }
}
