//! Grouped-query attention.

use mlx_core::nn::{CachedAttention, Linear, Param, RmsNorm};
use mlx_core::{Array, Dtype, NewAxis, Weights, nn};

use super::check_size;
use super::mask::Mask;
use super::mixer::Mixer;
use super::rope::{Rope, RopeArgs};
use crate::cache::{Cache, KvCache, NewRows};
use crate::error::{Error, Result};

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
    /// Factor on the scores; the head's size to the power of -1/2 where it is absent.
    pub scale: Option<f32>,
    /// Whether the projections of queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub o_bias: bool,
    /// The norms of queries and keys.
    pub qk_norm: QkNorm,
    /// The rotary embedding, where there is one.
    pub rope: Option<RopeArgs>,
    /// A factor on queries that grows with their position.
    pub query_scale: Option<QueryScale>,
    /// Whether there are `sinks`: a score for each head that has no value (gpt-oss).
    pub has_sinks: bool,
    /// Whether `q_proj` makes, behind each head, a gate for what the head gives (Qwen3-Next).
    pub has_output_gate: bool,
}

impl AttentionArgs {
    /// Returns plain attention: no biases, no norms, no rotation.
    pub fn new(hidden_size: i32, n_heads: i32, n_kv_heads: i32, head_dim: i32) -> AttentionArgs {
        AttentionArgs {
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            scale: None,
            qkv_bias: false,
            o_bias: false,
            qk_norm: QkNorm::None,
            rope: None,
            query_scale: None,
            has_sinks: false,
            has_output_gate: false,
        }
    }

    /// Returns the same with a rotation of so much of each head only.
    ///
    /// # Errors
    /// When the share is not one.
    pub fn partial(mut self, share: f32) -> Result<AttentionArgs> {
        self.rope = self.rope.map(|rope| rope.partial(share)).transpose()?;
        Ok(self)
    }

    /// Refuses numbers that no model has, before any array is made of them.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<()> {
        let AttentionArgs { hidden_size, n_heads, n_kv_heads, head_dim, .. } = *self;
        check_size("hidden_size", hidden_size)?;
        check_size("num_attention_heads", n_heads)?;
        check_size("num_key_value_heads", n_kv_heads)?;
        check_size("head_dim", head_dim)?;
        // Gates take as much again.
        if n_heads.checked_mul(head_dim).and_then(|n| n.checked_mul(2)).is_none()
            || n_heads % n_kv_heads != 0
        {
            let text = format!(
                "{n_heads} heads of size {head_dim} do not go with {n_kv_heads} key-value heads"
            );
            return Err(Error::format("config.json", text));
        }
        Ok(())
    }
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
    /// Returns the factors of positions, with one more axis, in float32.
    fn factors(&self, positions: &Array) -> mlx_core::Result<Array> {
        // Places of padding are before the first.
        let positions = positions.maximum(0)?.astype(Dtype::Float32)?;
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
    rope: Option<Rope>,
    query_scale: Option<QueryScale>,
    /// `[H]`
    sinks: Option<Param>,
    has_output_gate: bool,
}

mlx_core::module! { Attention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, sinks } }

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
        let with_gate = if args.has_output_gate { 2 } else { 1 };
        Ok(Attention {
            n_heads,
            n_kv_heads,
            scale: args.scale.unwrap_or((head_dim as f32).powf(-0.5)),
            q_proj: w.linear("q_proj", dim, with_gate * n_heads * head_dim, args.qkv_bias)?,
            k_proj: w.linear("k_proj", dim, n_kv_heads * head_dim, args.qkv_bias)?,
            v_proj: w.linear("v_proj", dim, n_kv_heads * head_dim, args.qkv_bias)?,
            o_proj: w.linear("o_proj", n_heads * head_dim, dim, args.o_bias)?,
            q_norm: norm("q_norm", n_heads)?,
            k_norm: norm("k_norm", n_kv_heads)?,
            has_full_norms: matches!(args.qk_norm, QkNorm::Full(_)),
            rope: args.rope.as_ref().map(Rope::new).transpose()?,
            query_scale: args.query_scale,
            sinks: if args.has_sinks { Some(w.param("sinks", &[n_heads])?) } else { None },
            has_output_gate: args.has_output_gate,
        })
    }

    /// Returns what the heads give, `[B, L, H * D]`.
    fn attend(
        &self,
        [mut q, mut k, v]: [Array; 3],
        mask: &Mask,
        cache: &mut dyn KvCache,
    ) -> mlx_core::Result<Array> {
        let [b, l, _] = k.dims()?;
        let (mut q_norm, mut k_norm) = (self.q_norm.as_ref(), self.k_norm.as_ref());
        if self.has_full_norms {
            let all_heads = |norm: Option<&RmsNorm>, x: Array| match norm {
                Some(norm) => norm.forward(&x),
                None => Ok(x),
            };
            (q, k) = (all_heads(q_norm.take(), q)?, all_heads(k_norm.take(), k)?);
        }
        let offsets = cache.offsets()?;
        let rope = self.rope.as_ref().map(|rope| rope.at(cache.offset() + l));
        let sees_itself_last = !matches!(mask, Mask::None) || l == 1;
        // The one node has no place for factors, nor for several positions.
        if sees_itself_last && self.query_scale.is_none() && offsets.is_none() {
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
                    rope: rope.as_deref(),
                    window: match mask {
                        Mask::Window(window) => Some(*window),
                        _ => None,
                    },
                    mask: match mask {
                        Mask::Array(mask) => Some(mask),
                        _ => None,
                    },
                    sinks: self.sinks.as_deref(),
                    ..CachedAttention::new(self.n_heads, self.n_kv_heads, self.scale)
                };
                let (out, store) = attention.forward(q, k, v, store)?;
                cache.put_back(store);
                return Ok(out);
            }
        }

        let heads = |y: Array, n: i32, norm: Option<&RmsNorm>| {
            let y = y.reshape([b, l, n, -1])?;
            let y = norm.map_or(Ok(y.clone()), |norm| norm.forward(&y))?;
            y.transpose([0, 2, 1, 3])
        };
        let mut q = heads(q, self.n_heads, q_norm)?;
        let mut k = heads(k, self.n_kv_heads, k_norm)?;
        let v = heads(v, self.n_kv_heads, None)?;
        if let Some(rope) = &rope {
            let rotated = |x: &Array| match &offsets {
                Some(offsets) => rope.forward(x, offsets),
                None => rope.forward(x, cache.offset()),
            };
            (q, k) = (rotated(&q)?, rotated(&k)?);
        }
        if let Some(scale) = &self.query_scale {
            let positions = match &offsets {
                Some(offsets) => (offsets.at((.., NewAxis, NewAxis))? + Array::range(l)?)?,
                None => (Array::range(l)? + cache.offset())?,
            };
            q = (&q * scale.factors(&positions)?.astype(q.dtype())?)?;
        }
        let (k, v) = cache.update_and_fetch(&k, &v)?;
        let sinks = self.sinks.as_deref();
        let out = mask.with_attention([l, k.dim(2)?], |mask| {
            nn::attention(&q, &k, &v, self.scale, mask, sinks)
        })?;
        Ok(out)
    }
}

impl Mixer for Attention {
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let [b, l, _] = x.dims()?;
        let [q, k, v] = Linear::forward_each([&self.q_proj, &self.k_proj, &self.v_proj], x)?;
        if !self.has_output_gate {
            return self.o_proj.forward(&self.attend([q, k, v], mask, cache.as_kv()?)?);
        }
        let heads = q.reshape([b, l, self.n_heads, 2, -1])?;
        let part = |i: i32| heads.at((.., .., .., i))?.reshape([b, l, -1]);
        let (q, gate) = (part(0)?, part(1)?);
        let out = self.attend([q, k, v], mask, cache.as_kv()?)?;
        self.o_proj.forward(&(out * gate.sigmoid()?)?)
    }

    fn make_cache(&self, window: Option<i32>) -> Cache {
        Cache::kv(window)
    }
}
