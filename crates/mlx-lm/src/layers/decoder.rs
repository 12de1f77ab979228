//! The pre-norm decoder that the Llama line of models shares.

use mlx_core::nn::{Embedding, Linear, Module, RmsNorm, Visitor, VisitorMut};
use mlx_core::{Array, Dtype, Weights};
use serde::Deserialize;

use super::attention::{Attention, AttentionArgs};
use super::check_size;
use super::conv::{GatedConv, GatedConvArgs};
use super::gated_delta::{GatedDeltaArgs, GatedDeltaNet};
use super::latent::{LatentArgs, LatentAttention};
use super::mask::{Mask, Masks};
use super::mixer::Mixer;
use super::mlp::{Mlp, MlpArgs};
use super::moe::{Moe, MoeArgs};
use super::rope::{RopeArgs, RopeScaling};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::models::LanguageModel;

/// The settings that the families of this line write under the same names.
#[derive(Clone, Debug, Deserialize)]
pub struct DecoderConfig {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Size between the projections of the feed-forward layers; absent where all have experts.
    #[serde(default)]
    pub intermediate_size: i32,
    /// Number of query heads.
    pub num_attention_heads: i32,
    /// Number of key and value heads; as many as query heads where it is absent.
    pub num_key_value_heads: Option<i32>,
    /// Size of a head; the hidden state divided by the heads where it is absent.
    pub head_dim: Option<i32>,
    /// Epsilon of the norms.
    pub rms_norm_eps: f32,
    /// Number of tokens.
    pub vocab_size: i32,
    /// Tokens that the model was made for.
    pub max_position_embeddings: Option<usize>,
    /// Base of the rotary frequencies.
    pub rope_theta: Option<f32>,
    /// Whether rotation pairs neighbours.
    #[serde(default)]
    pub rope_traditional: bool,
    /// The scaled rotary variant.
    pub rope_scaling: Option<RopeScaling>,
    /// Base and variant as transformers 5 writes them.
    pub rope_parameters: Option<RopeScaling>,
    /// Whether the output head is the embedding; absent, it is if the checkpoint has no head.
    pub tie_word_embeddings: Option<bool>,
}

impl DecoderConfig {
    /// Returns attention as these settings have it: no biases and no norms.
    ///
    /// # Errors
    /// When neither the settings nor the family give the rotary base.
    pub fn attention(&self, rope_theta: Option<f32>) -> Result<AttentionArgs> {
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1));
        let n_kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        Ok(AttentionArgs {
            rope: Some(self.rope(head_dim, rope_theta)?),
            ..AttentionArgs::new(self.hidden_size, self.num_attention_heads, n_kv_heads, head_dim)
        })
    }

    /// Returns the rotation of so many elements of each head.
    ///
    /// # Errors
    /// When neither the settings nor the family give the rotary base.
    pub fn rope(&self, dims: i32, rope_theta: Option<f32>) -> Result<RopeArgs> {
        let written = self.rope_parameters.as_ref().and_then(RopeScaling::rope_theta);
        let theta = self.rope_theta.or(written).or(rope_theta);
        Ok(RopeArgs {
            dims,
            theta: theta
                .ok_or_else(|| Error::format("config.json", "\"rope_theta\" is missing"))?,
            traditional: self.rope_traditional,
            scaling: self.rope_scaling.clone().or(self.rope_parameters.clone()),
            max_position_embeddings: self.max_position_embeddings,
        })
    }

    /// Returns the same for layers of one type, with the rotation that `rope_parameters` has for them.
    ///
    /// # Errors
    /// When a setting is not one.
    pub fn attention_of(&self, layer_type: &str, rope_theta: f32) -> Result<AttentionArgs> {
        let own = self.rope_parameters.as_ref().and_then(|parameters| parameters.of(layer_type));
        if own.is_none() {
            return self.attention(Some(rope_theta));
        }
        let of_type = DecoderConfig {
            rope_theta: None,
            rope_scaling: None,
            rope_parameters: own,
            ..self.clone()
        };
        of_type.attention(Some(rope_theta))
    }

    /// Returns feed-forward layers as these settings have them: no biases.
    pub fn mlp(&self) -> MlpArgs {
        MlpArgs::new(self.intermediate_size)
    }

    /// Refuses sizes that no model has.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<()> {
        check_layers(self.num_hidden_layers)?;
        check_size("hidden_size", self.hidden_size)?;
        check_size("intermediate_size", self.intermediate_size)?;
        check_size("vocab_size", self.vocab_size)
    }

    /// Returns the decoder of these settings with the layers that `layer` gives for their numbers.
    pub fn decoder(&self, w: &Weights, layer: impl FnMut(usize) -> LayerArgs) -> DecoderArgs {
        DecoderArgs {
            hidden_size: self.hidden_size,
            layers: (0..self.num_hidden_layers.min(MAX_LAYERS + 1)).map(layer).collect(),
            rms_norm_eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            tie_word_embeddings: self
                .tie_word_embeddings
                .unwrap_or_else(|| !w.contains("lm_head.weight")),
            embedding_scale: None,
        }
    }
}

/// What a decoder is made from.
#[derive(Clone, Debug)]
pub struct DecoderArgs {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Each layer.
    pub layers: Vec<LayerArgs>,
    /// Epsilon of the norms.
    pub rms_norm_eps: f32,
    /// Number of tokens.
    pub vocab_size: i32,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Factor on the embeddings, rounded to their type.
    pub embedding_scale: Option<f32>,
}

/// What a layer is made from.
#[derive(Clone, Debug)]
pub struct LayerArgs {
    /// What lets a token know of others; its `hidden_size` is the decoder's.
    pub mixer: MixerArgs,
    /// How many tokens a token sees; all before it where it is absent.
    pub window: Option<i32>,
    /// What follows.
    pub feed_forward: FeedForwardArgs,
    /// Where norms are.
    pub norms: Norms,
}

impl LayerArgs {
    /// Returns a layer that sees all tokens, with norms before its parts.
    pub fn new(mixer: impl Into<MixerArgs>, feed_forward: impl Into<FeedForwardArgs>) -> LayerArgs {
        LayerArgs {
            mixer: mixer.into(),
            window: None,
            feed_forward: feed_forward.into(),
            norms: Norms::Before,
        }
    }
}

/// Where the norms of a layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before each part: `input_layernorm` and `post_attention_layernorm`.
    Before,
    /// Also behind each, before its sum with the input (Gemma 2): `post_attention_layernorm`,
    /// `pre_feedforward_layernorm` and `post_feedforward_layernorm`. A float16 sum that is out of
    /// range is the greatest number.
    Around,
}

/// What a mixer is made from.
#[derive(Clone, Debug)]
pub enum MixerArgs {
    /// Attention, `self_attn`.
    Attention(AttentionArgs),
    /// A gated short convolution, `conv`.
    Conv(GatedConvArgs),
    /// Attention to latents, `self_attn`.
    Latent(LatentArgs),
    /// A gated delta rule, `linear_attn`.
    GatedDelta(GatedDeltaArgs),
}

impl MixerArgs {
    fn check(&self) -> Result<()> {
        match self {
            MixerArgs::Attention(args) => args.check(),
            MixerArgs::Conv(args) => check_size("hidden_size", args.hidden_size),
            MixerArgs::Latent(args) => args.check(),
            MixerArgs::GatedDelta(args) => args.check(),
        }
    }

    fn make(&self, w: &Weights) -> Result<Box<dyn Mixer>> {
        let w = &w.at(self.name());
        Ok(match self {
            MixerArgs::Attention(args) => Box::new(Attention::new(w, args)?),
            MixerArgs::Conv(args) => Box::new(GatedConv::new(w, args)?),
            MixerArgs::Latent(args) => Box::new(LatentAttention::new(w, args)?),
            MixerArgs::GatedDelta(args) => Box::new(GatedDeltaNet::new(w, args)?),
        })
    }

    /// The name of the layer, by which its tensors are found.
    fn name(&self) -> &'static str {
        match self {
            MixerArgs::Attention(_) | MixerArgs::Latent(_) => "self_attn",
            MixerArgs::Conv(_) => "conv",
            MixerArgs::GatedDelta(_) => "linear_attn",
        }
    }
}

impl From<AttentionArgs> for MixerArgs {
    fn from(args: AttentionArgs) -> MixerArgs {
        MixerArgs::Attention(args)
    }
}

impl From<GatedConvArgs> for MixerArgs {
    fn from(args: GatedConvArgs) -> MixerArgs {
        MixerArgs::Conv(args)
    }
}

impl From<LatentArgs> for MixerArgs {
    fn from(args: LatentArgs) -> MixerArgs {
        MixerArgs::Latent(args)
    }
}

impl From<GatedDeltaArgs> for MixerArgs {
    fn from(args: GatedDeltaArgs) -> MixerArgs {
        MixerArgs::GatedDelta(args)
    }
}

/// What a feed-forward layer is made from.
#[derive(Clone, Debug)]
pub enum FeedForwardArgs {
    /// One for all tokens, `mlp`.
    Dense(MlpArgs),
    /// Experts.
    Experts(MoeArgs),
}

impl From<MlpArgs> for FeedForwardArgs {
    fn from(args: MlpArgs) -> FeedForwardArgs {
        FeedForwardArgs::Dense(args)
    }
}

impl From<MoeArgs> for FeedForwardArgs {
    fn from(args: MoeArgs) -> FeedForwardArgs {
        FeedForwardArgs::Experts(args)
    }
}

/// Layers beyond this are a broken configuration, not a model.
const MAX_LAYERS: usize = 10_000;

/// Refuses a number of layers that no model has.
fn check_layers(n: usize) -> Result<()> {
    match n {
        0..=MAX_LAYERS => Ok(()),
        _ => Err(Error::format("config.json", format!("{n} layers"))),
    }
}

impl DecoderArgs {
    /// Refuses numbers that no model has, before any array is made of them.
    fn check(&self) -> Result<()> {
        check_size("hidden_size", self.hidden_size)?;
        check_size("vocab_size", self.vocab_size)?;
        check_layers(self.layers.len())?;
        self.layers.iter().try_for_each(|layer| {
            check_size("sliding_window", layer.window.unwrap_or(1))?;
            layer.mixer.check()?;
            layer.feed_forward.check()
        })
    }
}

impl FeedForwardArgs {
    /// The name of the layer, by which its tensors are found.
    fn name(&self) -> &'static str {
        match self {
            FeedForwardArgs::Dense(_) => "mlp",
            FeedForwardArgs::Experts(experts) => experts.name,
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            FeedForwardArgs::Dense(mlp) => check_size("intermediate_size", mlp.intermediate_size),
            FeedForwardArgs::Experts(experts) => experts.check(),
        }
    }
}

/// A feed-forward layer of either kind.
enum FeedForward {
    Dense(Box<Mlp>),
    Experts(Box<Moe>),
}

impl FeedForward {
    fn new(w: &Weights, dim: i32, args: &FeedForwardArgs) -> Result<Self> {
        let w = w.at(args.name());
        Ok(match args {
            FeedForwardArgs::Dense(mlp) => FeedForward::Dense(Box::new(Mlp::new(&w, dim, mlp)?)),
            FeedForwardArgs::Experts(moe) => {
                FeedForward::Experts(Box::new(Moe::new(&w, dim, moe)?))
            }
        })
    }

    fn forward(&self, x: &Array) -> mlx_core::Result<Array> {
        match self {
            FeedForward::Dense(mlp) => mlp.forward(x),
            FeedForward::Experts(moe) => moe.forward(x),
        }
    }
}

impl Module for FeedForward {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        match self {
            FeedForward::Dense(mlp) => mlp.visit(visitor),
            FeedForward::Experts(moe) => moe.visit(visitor),
        }
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        match self {
            FeedForward::Dense(mlp) => mlp.visit_mut(visitor),
            FeedForward::Experts(moe) => moe.visit_mut(visitor),
        }
    }
}

struct TransformerBlock {
    mixer: Box<dyn Mixer>,
    mixer_name: &'static str,
    mlp: FeedForward,
    mlp_name: &'static str,
    norms: LayerNorms,
    window: Option<i32>,
}

impl Module for TransformerBlock {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.child(self.mixer_name, &self.mixer);
        visitor.child(self.mlp_name, &self.mlp);
        self.norms.visit(visitor);
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        visitor.child(self.mixer_name, &mut self.mixer)?;
        visitor.child(self.mlp_name, &mut self.mlp)?;
        self.norms.visit_mut(visitor)
    }
}

/// The norms of a layer; those around the feed-forward layer are not in all.
struct LayerNorms {
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: Option<RmsNorm>,
    post_feedforward_layernorm: Option<RmsNorm>,
}

mlx_core::module! {
    LayerNorms {
        input_layernorm,
        post_attention_layernorm,
        pre_feedforward_layernorm,
        post_feedforward_layernorm,
    }
    Decoder {
        "model.embed_tokens" => embed_tokens,
        "model.layers" => layers,
        "model.norm" => norm,
        lm_head,
    }
}

impl TransformerBlock {
    fn new(w: &Weights, dim: i32, args: &LayerArgs, eps: f32) -> Result<Self> {
        let around = |name| match args.norms {
            Norms::Before => Ok(None),
            Norms::Around => w.rms_norm(name, dim, eps).map(Some),
        };
        Ok(TransformerBlock {
            mixer: args.mixer.make(w)?,
            mixer_name: args.mixer.name(),
            mlp: FeedForward::new(w, dim, &args.feed_forward)?,
            mlp_name: args.feed_forward.name(),
            norms: LayerNorms {
                input_layernorm: w.rms_norm("input_layernorm", dim, eps)?,
                post_attention_layernorm: w.rms_norm("post_attention_layernorm", dim, eps)?,
                pre_feedforward_layernorm: around("pre_feedforward_layernorm")?,
                post_feedforward_layernorm: around("post_feedforward_layernorm")?,
            },
            window: args.window,
        })
    }

    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let norms = &self.norms;
        let r = self.mixer.forward(&norms.input_layernorm.forward(x)?, mask, cache)?;
        let (Some(before), Some(behind)) =
            (&norms.pre_feedforward_layernorm, &norms.post_feedforward_layernorm)
        else {
            let (h, normed) = norms.post_attention_layernorm.forward_add(x, &r)?;
            return h + self.mlp.forward(&normed)?;
        };
        let r = norms.post_attention_layernorm.forward(&r)?;
        if x.dtype() == Dtype::Float16 {
            let h = clipped_sum(x, &r)?;
            let r = behind.forward(&self.mlp.forward(&before.forward(&h)?)?)?;
            return clipped_sum(&h, &r);
        }
        let (h, normed) = before.forward_add(x, &r)?;
        h + behind.forward(&self.mlp.forward(&normed)?)?
    }
}

/// Adds in float32 and bounds the sum by what float16 holds; Gemma's was trained in a wider type.
fn clipped_sum(x: &Array, y: &Array) -> mlx_core::Result<Array> {
    let [min, max] = [-65504.0f32, 65504.0].map(Array::from);
    let sum = (x.astype(Dtype::Float32)? + y.astype(Dtype::Float32)?)?;
    sum.clip(Some(&min), Some(&max))?.astype(Dtype::Float16)
}

/// A decoder with its embedding and output head.
pub struct Decoder {
    embed_tokens: Embedding,
    embedding_scale: Option<f32>,
    layers: Vec<TransformerBlock>,
    norm: RmsNorm,
    lm_head: Option<Linear>,
}

impl Decoder {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read or an argument makes no sense.
    pub fn new(w: &Weights, args: &DecoderArgs) -> Result<Self> {
        args.check()?;
        let (dim, vocab) = (args.hidden_size, args.vocab_size);
        let model = w.at("model");
        let lm_head = match args.tie_word_embeddings {
            true => None,
            false => Some(w.linear("lm_head", dim, vocab, false)?),
        };
        Ok(Decoder {
            embed_tokens: model
                .in_part([if lm_head.is_none() { vocab } else { 1 }, vocab], || {
                    model.embedding("embed_tokens", vocab, dim)
                })?,
            embedding_scale: args.embedding_scale,
            layers: model.layers("layers", args.layers.len(), |w, i| {
                TransformerBlock::new(w, dim, &args.layers[i], args.rms_norm_eps)
            })?,
            norm: model.rms_norm("norm", dim, args.rms_norm_eps)?,
            lm_head,
        })
    }
}

impl LanguageModel for Decoder {
    fn forward(&self, tokens: &Array, caches: &mut [Cache]) -> mlx_core::Result<Array> {
        let mut h = self.embed_tokens.forward(tokens)?;
        if let Some(scale) = self.embedding_scale {
            h = (&h * Array::from(scale).astype(h.dtype())?)?;
        }
        let n = tokens.dim(1)?;
        let mut masks = Masks::default();
        for (layer, cache) in self.layers.iter().zip(caches) {
            h = layer.forward(&h, masks.of(cache, n, layer.window)?, cache)?;
        }
        self.norm.forward(&h)
    }

    fn head(&self, hidden: &Array) -> mlx_core::Result<Array> {
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden),
            None => self.embed_tokens.as_linear(hidden),
        }
    }

    fn make_cache(&self) -> Vec<Cache> {
        self.layers.iter().map(|layer| layer.mixer.make_cache(layer.window)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_in_float16_stay_finite() {
        let halves = |x: &[f32]| {
            Array::from_slice(x, &[x.len() as i32]).and_then(|x| x.astype(Dtype::Float16))
        };
        let x = halves(&[65504.0, -60000.0, 1.0]).expect("numbers");
        let y = halves(&[65504.0, -60000.0, 0.5]).expect("numbers");
        let sum = clipped_sum(&x, &y).expect("a sum");
        assert_eq!(sum.dtype(), Dtype::Float16);
        assert_eq!(sum.to_vec_as::<f32>().expect("numbers"), [65504.0, -65504.0, 1.5]);
    }
}
