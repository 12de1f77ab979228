//! The pre-norm decoder that the Llama line of models shares.

use mlx_core::nn::{Embedding, Linear, Module, RmsNorm, Visitor, VisitorMut};
use mlx_core::{Array, Weights};
use serde::Deserialize;

use super::attention::{Attention, AttentionArgs, QkNorm};
use super::check_size;
use super::mask::Mask;
use super::mlp::Mlp;
use super::moe::{Moe, MoeArgs};
use super::rope::{RopeArgs, RopeScaling};
use crate::cache::{FullCache, KvCache, RotatingCache};
use crate::error::{Error, Result};
use crate::models::LanguageModel;

/// The settings that the families of this line write under the same names.
#[derive(Clone, Debug, Deserialize)]
pub struct DecoderConfig {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Size between the projections of the feed-forward layers.
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
    /// Returns the plain decoder of these settings: no biases, no head norms, no windows, no experts.
    ///
    /// # Errors
    /// When neither the settings nor the family give the rotary base.
    pub fn args(&self, w: &Weights, rope_theta: Option<f32>) -> Result<DecoderArgs> {
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1));
        let scaling = self.rope_scaling.clone().or(self.rope_parameters.clone());
        let written = self.rope_parameters.as_ref().and_then(RopeScaling::rope_theta);
        let theta = self.rope_theta.or(written).or(rope_theta);
        let layer = LayerArgs {
            attention: AttentionArgs {
                hidden_size: self.hidden_size,
                n_heads: self.num_attention_heads,
                n_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
                head_dim,
                qkv_bias: false,
                o_bias: false,
                qk_norm: QkNorm::None,
                rope: RopeArgs {
                    dims: head_dim,
                    theta: theta
                        .ok_or_else(|| Error::format("config.json", "\"rope_theta\" is missing"))?,
                    traditional: self.rope_traditional,
                    scaling,
                    max_position_embeddings: self.max_position_embeddings,
                },
                query_scale: None,
            },
            window: None,
            feed_forward: FeedForwardArgs::Dense {
                intermediate_size: self.intermediate_size,
                bias: false,
            },
        };
        Ok(DecoderArgs {
            hidden_size: self.hidden_size,
            layers: vec![layer; self.num_hidden_layers.min(MAX_LAYERS + 1)],
            rms_norm_eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            tie_word_embeddings: self
                .tie_word_embeddings
                .unwrap_or_else(|| !w.contains("lm_head.weight")),
        })
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
}

/// What a layer is made from.
#[derive(Clone, Debug)]
pub struct LayerArgs {
    /// Attention; its `hidden_size` is the decoder's.
    pub attention: AttentionArgs,
    /// How many tokens a token sees; all before it where it is absent.
    pub window: Option<i32>,
    /// What follows attention.
    pub feed_forward: FeedForwardArgs,
}

/// What a feed-forward layer is made from.
#[derive(Clone, Debug)]
pub enum FeedForwardArgs {
    /// One for all tokens, `mlp`.
    Dense {
        /// Size between its projections.
        intermediate_size: i32,
        /// Whether these have a bias.
        bias: bool,
    },
    /// Experts.
    Experts(MoeArgs),
}

/// Layers beyond this are a broken configuration, not a model.
const MAX_LAYERS: usize = 10_000;

impl DecoderArgs {
    /// Refuses numbers that no model has, before any array is made of them.
    fn check(&self) -> Result<()> {
        check_size("hidden_size", self.hidden_size)?;
        check_size("vocab_size", self.vocab_size)?;
        if self.layers.len() > MAX_LAYERS {
            let text = format!("{} layers", self.layers.len());
            return Err(Error::format("config.json", text));
        }
        self.layers.iter().try_for_each(LayerArgs::check)
    }
}

impl LayerArgs {
    fn check(&self) -> Result<()> {
        let AttentionArgs { hidden_size, n_heads, n_kv_heads, head_dim, .. } = self.attention;
        check_size("hidden_size", hidden_size)?;
        check_size("num_attention_heads", n_heads)?;
        check_size("num_key_value_heads", n_kv_heads)?;
        check_size("head_dim", head_dim)?;
        check_size("sliding_window", self.window.unwrap_or(1))?;
        if n_heads.checked_mul(head_dim).is_none() || n_heads % n_kv_heads != 0 {
            return Err(Error::format(
                "config.json",
                format!(
                    "{n_heads} heads of size {head_dim} do not go with {n_kv_heads} key-value heads"
                ),
            ));
        }
        match &self.feed_forward {
            FeedForwardArgs::Dense { intermediate_size, .. } => {
                check_size("intermediate_size", *intermediate_size)
            }
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
        Ok(match args {
            FeedForwardArgs::Dense { intermediate_size, bias } => FeedForward::Dense(Box::new(
                Mlp::new(&w.at("mlp"), dim, *intermediate_size, *bias)?,
            )),
            FeedForwardArgs::Experts(experts) => {
                FeedForward::Experts(Box::new(Moe::new(&w.at(experts.name), dim, experts)?))
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
    self_attn: Attention,
    mlp: FeedForward,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    window: Option<i32>,
}

mlx_core::module! {
    TransformerBlock { self_attn, mlp, input_layernorm, post_attention_layernorm }
    Decoder {
        "model.embed_tokens" => embed_tokens,
        "model.layers" => layers,
        "model.norm" => norm,
        lm_head,
    }
}

impl TransformerBlock {
    fn new(w: &Weights, args: &LayerArgs, eps: f32) -> Result<Self> {
        let dim = args.attention.hidden_size;
        Ok(TransformerBlock {
            self_attn: Attention::new(&w.at("self_attn"), &args.attention)?,
            mlp: FeedForward::new(w, dim, &args.feed_forward)?,
            input_layernorm: w.rms_norm("input_layernorm", dim, eps)?,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", dim, eps)?,
            window: args.window,
        })
    }

    fn forward(&self, x: &Array, mask: &Mask, cache: &mut dyn KvCache) -> mlx_core::Result<Array> {
        let r = self.self_attn.forward(&self.input_layernorm.forward(x)?, mask, cache)?;
        let (h, normed) = self.post_attention_layernorm.forward_add(x, &r)?;
        h + self.mlp.forward(&normed)?
    }
}

/// A decoder with its embedding and output head.
pub struct Decoder {
    embed_tokens: Embedding,
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
            embed_tokens: model.embedding("embed_tokens", vocab, dim)?,
            layers: model.layers("layers", args.layers.len(), |w, i| {
                TransformerBlock::new(w, &args.layers[i], args.rms_norm_eps)
            })?,
            norm: model.rms_norm("norm", dim, args.rms_norm_eps)?,
            lm_head,
        })
    }
}

impl LanguageModel for Decoder {
    fn forward(&self, tokens: &Array, caches: &mut [Box<dyn KvCache>]) -> mlx_core::Result<Array> {
        let mut h = self.embed_tokens.forward(tokens)?;
        let n = tokens.dim(1)?;
        // One mask for each kind of layer, made when the first of its kind needs it.
        let (mut full, mut sliding) = (None, None);
        for (layer, cache) in self.layers.iter().zip(caches) {
            let mask = if layer.window.is_some() { &mut sliding } else { &mut full };
            let mask = match mask {
                Some(mask) => mask,
                None => mask.insert(cache.make_mask(n, layer.window)?),
            };
            h = layer.forward(&h, mask, cache.as_mut())?;
        }
        self.norm.forward(&h)
    }

    fn head(&self, hidden: &Array) -> mlx_core::Result<Array> {
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden),
            None => self.embed_tokens.as_linear(hidden),
        }
    }

    fn make_cache(&self) -> Vec<Box<dyn KvCache>> {
        let cache = |layer: &TransformerBlock| -> Box<dyn KvCache> {
            match layer.window {
                Some(window) => Box::new(RotatingCache::new(window)),
                None => Box::new(FullCache::default()),
            }
        };
        self.layers.iter().map(cache).collect()
    }
}
