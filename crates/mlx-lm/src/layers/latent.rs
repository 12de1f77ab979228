//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).
//!
//! Keys and values of all heads are made of one short latent, and only that is remembered, with a key
//! that carries the position. Many tokens at once look at keys and values; few leave them unmade: the
//! projection to keys then goes into the queries, that to values behind the attention.

use mlx_core::nn::{Linear, Module, MultiLinear, RmsNorm, Visitor, VisitorMut};
use mlx_core::{Array, Ellipsis, Weights, nn, ops};

use super::check_size;
use super::mask::Mask;
use super::mixer::Mixer;
use super::rope::{Rope, RopeArgs, yarn_magnitude};
use crate::cache::Cache;
use crate::error::{Error, Result};

/// What a latent attention layer is made from.
#[derive(Clone, Debug)]
pub struct LatentArgs {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Number of heads.
    pub n_heads: i32,
    /// Size of the latent of queries; they are made of the hidden state where it is absent.
    pub q_lora_rank: Option<i32>,
    /// Size of the latent of keys and values.
    pub kv_lora_rank: i32,
    /// Size of the part of a key that is made of the latent.
    pub qk_nope_head_dim: i32,
    /// Size of the part that is rotated, which all heads share.
    pub qk_rope_head_dim: i32,
    /// Size of a value.
    pub v_head_dim: i32,
    /// Whether the projections of and to the hidden state have biases, but for `q_proj`.
    pub bias: bool,
    /// Epsilon of the norms of latents.
    pub norm_eps: f32,
    /// The rotary embedding; its scaled variant also has a part in the factor on the scores.
    pub rope: RopeArgs,
}

impl LatentArgs {
    /// Refuses numbers that no model has, before any array is made of them.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<()> {
        let heads = [
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ];
        check_size("hidden_size", self.hidden_size)?;
        check_size("num_attention_heads", self.n_heads)?;
        check_size("q_lora_rank", self.q_lora_rank.unwrap_or(1))?;
        for (name, size) in heads {
            check_size(name, size)?;
            // Two sizes together are a head's.
            if size.checked_mul(2).and_then(|size| size.checked_mul(self.n_heads)).is_none() {
                let text = format!("{} heads with a \"{name}\" of {size}", self.n_heads);
                return Err(Error::format("config.json", text));
            }
        }
        Ok(())
    }

    fn q_name(&self) -> &'static str {
        if self.q_lora_rank.is_some() { "q_b_proj" } else { "q_proj" }
    }

    /// The factor on the scores: with YaRN it grows as the rotation's magnitude would, squared.
    fn scale(&self) -> f32 {
        let head_dim = (self.qk_nope_head_dim + self.qk_rope_head_dim) as f32;
        let setting = |key| self.rope.scaling.as_ref().and_then(|scaling| scaling.get(key));
        let (factor, weight) = (setting("factor"), setting("mscale_all_dim"));
        let magnitude = yarn_magnitude(factor.unwrap_or(1.0), weight.unwrap_or(0.0));
        head_dim.powf(-0.5) * magnitude * magnitude
    }
}

/// Attention to latents. Its cache keeps each with the rotated key behind it, as one key of one head, and
/// values of no elements: what is attended to lies as it is looked at.
pub struct LatentAttention {
    args: LatentArgs,
    scale: f32,
    /// `q_a_proj` and `q_a_layernorm`, where queries have a latent.
    q_latent: Option<(Linear, RmsNorm)>,
    /// `q_b_proj`, or `q_proj`
    q_proj: Linear,
    kv_a_proj_with_mqa: Linear,
    kv_a_layernorm: RmsNorm,
    keys: Keys,
    /// `[H, DV, R]`
    unembed_out: MultiLinear,
    o_proj: Linear,
    rope: Rope,
}

/// What lies between the latent and the keys, in either direction: which one a checkpoint has matters
/// where it is packed.
enum Keys {
    /// `[H, R, D]`, to the latent
    EmbedQ(MultiLinear),
    /// `[H, D, R]`, from the latent
    KbProj(MultiLinear),
}

impl Keys {
    fn new(w: &Weights, n_heads: i32, rank: i32, head_dim: i32) -> mlx_core::Result<Keys> {
        Ok(match w.contains("k_b_proj.weight") {
            false => Keys::EmbedQ(w.multi_linear("embed_q", head_dim, rank, n_heads)?),
            true => Keys::KbProj(w.multi_linear("k_b_proj", rank, head_dim, n_heads)?),
        })
    }

    /// Returns what queries are to latents: `[B, H, L, D] → [B, H, L, R]`.
    fn absorb(&self, queries: &Array) -> mlx_core::Result<Array> {
        match self {
            Keys::EmbedQ(embed_q) => embed_q.forward(queries),
            Keys::KbProj(k_b_proj) => k_b_proj.forward_swapped(queries),
        }
    }

    /// Makes keys: `[B, 1, S, R] → [B, H, S, D]`.
    fn expand(&self, latents: &Array) -> mlx_core::Result<Array> {
        match self {
            Keys::EmbedQ(embed_q) => embed_q.forward_swapped(latents),
            Keys::KbProj(k_b_proj) => k_b_proj.forward(latents),
        }
    }
}

impl Module for LatentAttention {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Some((q_a_proj, q_a_layernorm)) = &self.q_latent {
            visitor.child("q_a_proj", q_a_proj);
            visitor.child("q_a_layernorm", q_a_layernorm);
        }
        visitor.child(self.args.q_name(), &self.q_proj);
        visitor.child("kv_a_proj_with_mqa", &self.kv_a_proj_with_mqa);
        visitor.child("kv_a_layernorm", &self.kv_a_layernorm);
        match &self.keys {
            Keys::EmbedQ(embed_q) => visitor.child("embed_q", embed_q),
            Keys::KbProj(k_b_proj) => visitor.child("k_b_proj", k_b_proj),
        }
        visitor.child("unembed_out", &self.unembed_out);
        visitor.child("o_proj", &self.o_proj);
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        if let Some((q_a_proj, q_a_layernorm)) = &mut self.q_latent {
            visitor.child("q_a_proj", q_a_proj)?;
            visitor.child("q_a_layernorm", q_a_layernorm)?;
        }
        visitor.child(self.args.q_name(), &mut self.q_proj)?;
        visitor.child("kv_a_proj_with_mqa", &mut self.kv_a_proj_with_mqa)?;
        visitor.child("kv_a_layernorm", &mut self.kv_a_layernorm)?;
        match &mut self.keys {
            Keys::EmbedQ(embed_q) => visitor.child("embed_q", embed_q)?,
            Keys::KbProj(k_b_proj) => visitor.child("k_b_proj", k_b_proj)?,
        }
        visitor.child("unembed_out", &mut self.unembed_out)?;
        visitor.child("o_proj", &mut self.o_proj)
    }
}

impl LatentAttention {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read or the rotary variant is unknown.
    pub fn new(w: &Weights, args: &LatentArgs) -> Result<Self> {
        let LatentArgs { hidden_size: dim, n_heads, kv_lora_rank: rank, bias, .. } = *args;
        let LatentArgs { qk_nope_head_dim, qk_rope_head_dim, v_head_dim, norm_eps, .. } = *args;
        let q_dim = n_heads * (qk_nope_head_dim + qk_rope_head_dim);
        let kv_dim = rank + qk_rope_head_dim;
        let q_latent = |rank| {
            let q_a_proj = w.linear("q_a_proj", dim, rank, bias)?;
            Ok::<_, Error>((q_a_proj, w.rms_norm("q_a_layernorm", rank, norm_eps)?))
        };
        Ok(LatentAttention {
            scale: args.scale(),
            q_latent: args.q_lora_rank.map(q_latent).transpose()?,
            q_proj: w.linear(args.q_name(), args.q_lora_rank.unwrap_or(dim), q_dim, false)?,
            kv_a_proj_with_mqa: w.linear("kv_a_proj_with_mqa", dim, kv_dim, bias)?,
            kv_a_layernorm: w.rms_norm("kv_a_layernorm", rank, norm_eps)?,
            keys: Keys::new(w, n_heads, rank, qk_nope_head_dim)?,
            unembed_out: w.multi_linear("unembed_out", rank, v_head_dim, n_heads)?,
            o_proj: w.linear("o_proj", n_heads * v_head_dim, dim, bias)?,
            rope: Rope::new(&args.rope)?,
            args: args.clone(),
        })
    }

    /// Returns queries, `[B, L, H * D]`, and what latents and rotated keys are made of.
    fn project(&self, x: &Array) -> mlx_core::Result<[Array; 2]> {
        let kv = &self.kv_a_proj_with_mqa;
        let Some((q_a_proj, norm)) = &self.q_latent else {
            return Linear::forward_each([&self.q_proj, kv], x);
        };
        let [q, kv] = Linear::forward_each([q_a_proj, kv], x)?;
        Ok([self.q_proj.forward(&norm.forward(&q)?)?, kv])
    }

    /// Tells whether fewer products are made for `l` tokens that look at `s` when keys and values stay
    /// unmade: each score and each sum is longer then.
    fn absorbs(&self, l: i32, s: i32) -> bool {
        let LatentArgs { kv_lora_rank, qk_nope_head_dim, v_head_dim, .. } = self.args;
        let rank = f64::from(kv_lora_rank);
        let head = f64::from(qk_nope_head_dim) + f64::from(v_head_dim);
        let made = (f64::from(s) - f64::from(l)) * rank * head;
        made > f64::from(l) * f64::from(s) * (2.0 * rank - head)
    }

    /// Attends to the latents themselves; returns `[B, L, H * DV]`.
    fn attend_absorbed(
        &self,
        [q_nope, q_pe]: [&Array; 2],
        kept: &Array,
        mask: &Mask,
    ) -> mlx_core::Result<Array> {
        let [b, n_heads, l, _] = q_nope.dims()?;
        let q = ops::concatenate([&self.keys.absorb(q_nope)?, q_pe], -1)?;
        let latents = kept.at((Ellipsis, ..self.args.kv_lora_rank))?;
        let out = self.attend([&q, kept, &latents], mask)?;
        let out = out.reshape([b, l, n_heads, -1])?.transpose([0, 2, 1, 3])?;
        self.unembed_out.forward(&out)?.transpose([0, 2, 1, 3])?.reshape([b, l, -1])
    }

    /// Attends to keys and values made of the latents; returns `[B, L, H * DV]`.
    fn attend_expanded(
        &self,
        [q_nope, q_pe]: [&Array; 2],
        kept: &Array,
        mask: &Mask,
    ) -> mlx_core::Result<Array> {
        let rank = self.args.kv_lora_rank;
        let (latents, k_pe) = (kept.at((Ellipsis, ..rank))?, kept.at((Ellipsis, rank..))?);
        let k_nope = self.keys.expand(&latents)?;
        let [b, n_heads, s, _] = k_nope.dims()?;
        let k_pe = k_pe.broadcast_to([b, n_heads, s, k_pe.dim(-1)?])?;
        let q = ops::concatenate([q_nope, q_pe], -1)?;
        let k = ops::concatenate([&k_nope, &k_pe], -1)?;
        self.attend([&q, &k, &self.unembed_out.forward(&latents)?], mask)
    }

    fn attend(&self, [q, k, v]: [&Array; 3], mask: &Mask) -> mlx_core::Result<Array> {
        mask.with_attention([q.dim(2)?, k.dim(2)?], |mask| {
            nn::attention(q, k, v, self.scale, mask, None)
        })
    }
}

impl Mixer for LatentAttention {
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let [b, l, _] = x.dims()?;
        let LatentArgs { n_heads, kv_lora_rank: rank, qk_nope_head_dim: nope, .. } = self.args;
        let cache = cache.as_kv()?;
        let [q, kv] = self.project(x)?;
        let q = q.reshape([b, l, n_heads, -1])?.transpose([0, 2, 1, 3])?;
        let kv = kv.expand_dims(1)?;
        let (q_nope, q_pe) = (q.at((Ellipsis, ..nope))?, q.at((Ellipsis, nope..))?);
        let latent = self.kv_a_layernorm.forward(&kv.at((Ellipsis, ..rank))?)?;
        let k_pe = kv.at((Ellipsis, rank..))?;

        let rope = self.rope.at(cache.offset() + l);
        let (q_pe, k_pe) = match cache.offsets()? {
            Some(offsets) => (rope.forward(&q_pe, &offsets)?, rope.forward(&k_pe, &offsets)?),
            None => (rope.forward(&q_pe, cache.offset())?, rope.forward(&k_pe, cache.offset())?),
        };
        let key = ops::concatenate([&latent, &k_pe], -1)?;
        let (kept, _) = cache.update_and_fetch(&key, &key.at((Ellipsis, ..0))?)?;
        let queries = [&q_nope, &q_pe];
        let out = match self.absorbs(l, kept.dim(2)?) {
            true => self.attend_absorbed(queries, &kept, mask)?,
            false => self.attend_expanded(queries, &kept, mask)?,
        };
        self.o_proj.forward(&out)
    }

    fn make_cache(&self, window: Option<i32>) -> Cache {
        Cache::kv(window)
    }
}

#[cfg(test)]
mod tests {
    use mlx_core::nn::WeightMatrix;
    use mlx_core::{Dtype, Quantization, random};

    use super::super::mask::causal_mask;
    use super::*;

    fn args() -> LatentArgs {
        LatentArgs {
            hidden_size: 16,
            n_heads: 2,
            q_lora_rank: Some(8),
            kv_lora_rank: 64,
            qk_nope_head_dim: 32,
            qk_rope_head_dim: 4,
            v_head_dim: 6,
            bias: true,
            norm_eps: 1e-6,
            rope: RopeArgs {
                dims: 4,
                theta: 1e4,
                traditional: true,
                scaling: None,
                max_position_embeddings: None,
            },
        }
    }

    fn normal(shape: &[i32]) -> Result<Array> {
        Ok(random::normal(shape, Dtype::Float32, 0.0, 1.0, None)?)
    }

    fn check_close(a: &Array, b: &Array) -> Result<()> {
        assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.to_vec::<f32>()?, b.to_vec::<f32>()?);
        let most = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 1e-4, "{most} apart");
        Ok(())
    }

    fn packed(weight: &Array) -> Result<WeightMatrix> {
        let mut weight = WeightMatrix::Dense(weight.clone().into());
        weight.quantize(Quantization { group_size: 32, ..Quantization::default() })?;
        Ok(weight)
    }

    #[test]
    fn keys_may_stay_unmade() -> Result<()> {
        random::seed(3)?;
        let args = args();
        let mut layer = LatentAttention::new(&Weights::random(1, Dtype::Float32, None)?, &args)?;
        layer.keys = Keys::EmbedQ(MultiLinear::new(32, 64, 2)?);
        layer.unembed_out = MultiLinear::new(64, 6, 2)?;
        let (b, s) = (3, 9);
        let kept = normal(&[b, 1, s, 64 + 4])?;
        let masks = [
            (1, Mask::None),
            (4, Mask::Causal),
            (4, Mask::Window(3)),
            (2, Mask::Array(causal_mask(2, 7, Some(5))?)),
        ];
        for (l, mask) in masks {
            let queries = [normal(&[b, 2, l, 32])?, normal(&[b, 2, l, 4])?];
            let expanded = layer.attend_expanded(queries.each_ref(), &kept, &mask)?;
            assert_eq!(expanded.shape(), [b, l, 12]);
            check_close(&layer.attend_absorbed(queries.each_ref(), &kept, &mask)?, &expanded)?;
        }
        Ok(())
    }

    #[test]
    fn what_is_kept_may_be_packed() -> Result<()> {
        random::seed(5)?;
        let args = LatentArgs { qk_rope_head_dim: 64, ..args() };
        let args = LatentArgs { rope: RopeArgs { dims: 64, ..args.rope.clone() }, ..args };
        let layer = LatentAttention::new(&Weights::random(1, Dtype::Float32, None)?, &args)?;
        let x = normal(&[2, 5, 16])?;
        let [mut plain, mut packed] = [None, None].map(Cache::kv);
        packed.quantize(Quantization { bits: 8, ..Quantization::default() })?;
        for n in [3, 1, 1] {
            let x = x.at((.., ..n))?;
            let of = |cache: &mut Cache| {
                let mask = cache.as_kv()?.make_mask(n, None)?;
                layer.forward(&x, &mask, cache)
            };
            let (expected, found) = (of(&mut plain)?, of(&mut packed)?);
            let (a, b) = (expected.to_vec::<f32>()?, found.to_vec::<f32>()?);
            let most = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = a.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            assert!(most < 0.02 * largest, "{most} of {largest}");
            assert_ne!(a, b);
        }
        assert_eq!((plain.offset(), packed.offset()), (5, 5));
        Ok(())
    }

    #[test]
    fn keys_may_be_packed_in_either_direction() -> Result<()> {
        random::seed(4)?;
        let (queries, latents) = (normal(&[2, 3, 5, 32])?, normal(&[2, 1, 7, 64])?);
        let embed_q = normal(&[3, 64, 32])?;
        let swap = |x: &Array| x.swapaxes(-1, -2);
        let check = |keys: Keys, embed_q: &Array| -> Result<()> {
            let absorbed = keys.absorb(&queries)?;
            check_close(&absorbed, &queries.matmul(&swap(embed_q)?)?)?;
            check_close(&keys.expand(&latents)?, &latents.matmul(embed_q)?)
        };
        let layer = |weight| MultiLinear { weight };
        let dense = |weight: Array| layer(WeightMatrix::Dense(weight.into()));
        check(Keys::EmbedQ(dense(embed_q.clone())), &embed_q)?;
        check(Keys::KbProj(dense(swap(&embed_q)?)), &embed_q)?;
        for is_swapped in [false, true] {
            let weight = packed(&if is_swapped { swap(&embed_q)? } else { embed_q.clone() })?;
            let WeightMatrix::Packed(parts) = &weight else { panic!("dense") };
            let numbers = parts.dequantize(Dtype::Float32)?;
            match is_swapped {
                false => check(Keys::EmbedQ(layer(weight)), &numbers)?,
                true => check(Keys::KbProj(layer(weight)), &swap(&numbers)?)?,
            }
        }
        Ok(())
    }

    #[test]
    fn what_takes_fewer_products_is_done() -> Result<()> {
        let args = LatentArgs {
            kv_lora_rank: 512,
            qk_nope_head_dim: 128,
            v_head_dim: 128,
            hidden_size: 1,
            n_heads: 1,
            ..args()
        };
        let layer = LatentAttention::new(&Weights::random(1, Dtype::Float32, None)?, &args)?;
        for (l, s, absorbs) in [
            (1, 1, false),
            (1, 2, true),
            (1, 100_000, true),
            (8, 1000, true),
            (2048, 2048, false),
            (2048, 4096, false),
        ] {
            assert_eq!(layer.absorbs(l, s), absorbs, "{l} of {s}");
        }
        Ok(())
    }

    #[test]
    fn scores_grow_with_the_stretch() {
        let with = |scaling: serde_json::Value| {
            let scaling = serde_json::from_value(scaling).expect("settings");
            let mut args = args();
            args.rope.scaling = Some(scaling);
            args.scale()
        };
        let plain = 36f32.powf(-0.5);
        let magnitude = 0.1 * 40f32.ln() + 1.0;
        assert_eq!(args().scale(), plain);
        assert_eq!(with(serde_json::json!({"factor": 40})), plain);
        assert_eq!(with(serde_json::json!({"factor": 1, "mscale_all_dim": 1})), plain);
        let stretched = with(serde_json::json!({"factor": 40, "mscale_all_dim": 1}));
        assert!((stretched - plain * magnitude * magnitude).abs() < 1e-6);
    }

    #[test]
    fn numbers_that_no_model_has_are_refused() {
        args().check().expect("sizes of a model");
        let changes: [fn(&mut LatentArgs); 9] = [
            |args| args.hidden_size = 0,
            |args| args.n_heads = 0,
            |args| args.n_heads = 1 << 24,
            |args| args.q_lora_rank = Some(0),
            |args| args.kv_lora_rank = -1,
            |args| args.qk_nope_head_dim = i32::MAX,
            |args| args.qk_rope_head_dim = 0,
            |args| args.v_head_dim = 1 << 30,
            |args| (args.n_heads, args.v_head_dim) = (1 << 20, 1 << 11),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut args = args();
            change(&mut args);
            assert!(args.check().is_err(), "{i}");
        }
    }
}
