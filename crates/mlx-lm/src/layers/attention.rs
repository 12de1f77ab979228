//! Grouped-query attention.

use std::borrow::Cow;

use mlx_core::nn::{CachedAttention, Linear, Param, RmsNorm};
use mlx_core::{Array, Dtype, NewAxis, Weights, fast, nn};

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
    /// Where keys and values come from.
    pub kv: KvSource,
    /// The epsilon of the norm of each value head, which has no weights (Gemma 4).
    pub v_norm: Option<f32>,
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
            kv: KvSource::Projections,
            v_norm: None,
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

/// Where keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvSource {
    /// From `k_proj` and `v_proj`.
    Projections,
    /// Both from `k_proj`: values are keys without norm and rotation (Gemma 4).
    KeyProjection,
    /// From the cache of an earlier layer, once that has the new tokens.
    EarlierLayer,
}

/// Attention with a cache.
pub struct Attention {
    n_heads: i32,
    n_kv_heads: i32,
    scale: f32,
    q_proj: Linear,
    k_proj: Option<Linear>,
    v_proj: Option<Linear>,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    v_norm: Option<f32>,
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
        let has_k = args.kv != KvSource::EarlierLayer;
        let kv_proj = |name: &str, is_there: bool| match is_there {
            true => w.linear(name, dim, n_kv_heads * head_dim, args.qkv_bias).map(Some),
            false => Ok(None),
        };
        Ok(Attention {
            n_heads,
            n_kv_heads,
            scale: args.scale.unwrap_or((head_dim as f32).powf(-0.5)),
            q_proj: w.linear("q_proj", dim, with_gate * n_heads * head_dim, args.qkv_bias)?,
            k_proj: kv_proj("k_proj", has_k)?,
            v_proj: kv_proj("v_proj", args.kv == KvSource::Projections)?,
            o_proj: w.linear("o_proj", n_heads * head_dim, dim, args.o_bias)?,
            q_norm: norm("q_norm", n_heads)?,
            k_norm: if has_k { norm("k_norm", n_kv_heads)? } else { None },
            v_norm: args.v_norm,
            has_full_norms: matches!(args.qk_norm, QkNorm::Full(_)),
            rope: args.rope.as_ref().map(Rope::new).transpose()?,
            query_scale: args.query_scale,
            sinks: if args.has_sinks { Some(w.param("sinks", &[n_heads])?) } else { None },
            has_output_gate: args.has_output_gate,
        })
    }

    /// Returns the projections of queries, and of keys and values where this layer has them.
    fn project(&self, x: &Array) -> mlx_core::Result<(Array, Option<[Array; 2]>)> {
        let Some(k_proj) = &self.k_proj else { return Ok((self.q_proj.forward(x)?, None)) };
        let [q, k, v] = match &self.v_proj {
            Some(v_proj) => Linear::forward_each([&self.q_proj, k_proj, v_proj], x)?,
            None => {
                let [q, k] = Linear::forward_each([&self.q_proj, k_proj], x)?;
                [q, k.clone(), k]
            }
        };
        let Some(eps) = self.v_norm else { return Ok((q, Some([k, v]))) };
        let [b, l, _] = v.dims()?;
        let heads = v.reshape([b, l, self.n_kv_heads, -1])?;
        let v = fast::rms_norm(&heads, None, eps)?.reshape([b, l, -1])?;
        Ok((q, Some([k, v])))
    }

    /// Returns what the heads give, `[B, L, H * D]`.
    fn attend(
        &self,
        q: Array,
        kv: Option<[Array; 2]>,
        mask: &Mask,
        cache: &mut dyn KvCache,
    ) -> mlx_core::Result<Array> {
        let [b, l, _] = q.dims()?;
        let (q, q_norm) = self.full_norm(q, self.q_norm.as_ref())?;
        let place = self.place(l, kv.is_none(), cache)?;
        let Some([k, v]) = kv else {
            let q = self.queries(&q, q_norm, &place)?;
            let (k, v) = cache.fetch(q.dtype())?;
            return self.attend_to([&q, &k, &v], mask);
        };
        let (k, k_norm) = self.full_norm(k, self.k_norm.as_ref())?;
        let sees_itself_last = !matches!(mask, Mask::None) || l == 1;
        // The one node has no place for factors, nor for several positions.
        if sees_itself_last && self.query_scale.is_none() && place.offsets.is_none() {
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
                    rope: place.rope.as_deref(),
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

        let q = self.queries(&q, q_norm, &place)?;
        let k = place.rotated(&heads(&k, self.n_kv_heads, k_norm)?)?;
        let (k, v) = cache.update_and_fetch(&k, &heads(&v, self.n_kv_heads, None)?)?;
        self.attend_to([&q, &k, &v], mask)
    }

    /// Returns the place of `l` tokens, which the cache has already or not.
    fn place(&self, l: i32, is_cached: bool, cache: &dyn KvCache) -> mlx_core::Result<Place<'_>> {
        let back = if is_cached { l } else { 0 };
        let offset = cache.offset() - back;
        let offsets = cache.offsets()?.map(|offsets| offsets - back).transpose()?;
        let rope = self.rope.as_ref().map(|rope| rope.at(offset + l));
        Ok(Place { rope, offset, offsets })
    }

    /// Applies a norm if it is of all heads together; returns it otherwise.
    fn full_norm<'n>(
        &self,
        x: Array,
        norm: Option<&'n RmsNorm>,
    ) -> mlx_core::Result<(Array, Option<&'n RmsNorm>)> {
        match norm {
            Some(norm) if self.has_full_norms => Ok((norm.forward(&x)?, None)),
            norm => Ok((x, norm)),
        }
    }

    fn queries(
        &self,
        q: &Array,
        norm: Option<&RmsNorm>,
        place: &Place<'_>,
    ) -> mlx_core::Result<Array> {
        let q = place.rotated(&heads(q, self.n_heads, norm)?)?;
        let Some(scale) = &self.query_scale else { return Ok(q) };
        let positions = place.positions(q.dim(2)?)?;
        &q * scale.factors(&positions)?.astype(q.dtype())?
    }

    fn attend_to(&self, [q, k, v]: [&Array; 3], mask: &Mask) -> mlx_core::Result<Array> {
        let sinks = self.sinks.as_deref();
        mask.with_attention([q.dim(2)?, k.dim(2)?], |mask| {
            nn::attention(q, k, v, self.scale, mask, sinks)
        })
    }
}

/// Returns the heads of a projection, `[B, H, L, D]`.
fn heads(x: &Array, n_heads: i32, norm: Option<&RmsNorm>) -> mlx_core::Result<Array> {
    let [b, l, _] = x.dims()?;
    let x = x.reshape([b, l, n_heads, -1])?;
    let x = norm.map_or(Ok(x.clone()), |norm| norm.forward(&x))?;
    x.transpose([0, 2, 1, 3])
}

/// Where new tokens are.
struct Place<'a> {
    rope: Option<Cow<'a, nn::Rope>>,
    offset: i32,
    /// `[B]`, where sequences differ.
    offsets: Option<Array>,
}

impl Place<'_> {
    fn rotated(&self, x: &Array) -> mlx_core::Result<Array> {
        match (&self.rope, &self.offsets) {
            (None, _) => Ok(x.clone()),
            (Some(rope), Some(offsets)) => rope.forward(x, offsets),
            (Some(rope), None) => rope.forward(x, self.offset),
        }
    }

    /// Returns the positions of `l` tokens, which broadcast with `[B, H, L]`.
    fn positions(&self, l: i32) -> mlx_core::Result<Array> {
        match &self.offsets {
            Some(offsets) => offsets.at((.., NewAxis, NewAxis))? + Array::range(l)?,
            None => Array::range(l)? + self.offset,
        }
    }
}

impl Mixer for Attention {
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let [b, l, _] = x.dims()?;
        let (q, kv) = self.project(x)?;
        if !self.has_output_gate {
            return self.o_proj.forward(&self.attend(q, kv, mask, cache.as_kv()?)?);
        }
        let heads = q.reshape([b, l, self.n_heads, 2, -1])?;
        let part = |i: i32| heads.at((.., .., .., i))?.reshape([b, l, -1]);
        let (q, gate) = (part(0)?, part(1)?);
        let out = self.attend(q, kv, mask, cache.as_kv()?)?;
        self.o_proj.forward(&(out * gate.sigmoid()?)?)
    }

    fn make_cache(&self, window: Option<i32>) -> Cache {
        Cache::kv(window)
    }
}
