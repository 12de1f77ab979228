//! The pre-norm decoder that the Llama line of models shares.

use mlx_core::nn::{Embedding, Linear, RmsNorm};
use mlx_core::{Array, Weights};
use serde::Deserialize;

use super::attention::{Attention, AttentionArgs};
use super::mask::Mask;
use super::mlp::Mlp;
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
    /// Returns the plain decoder of these settings: no biases, no head norms, no windows.
    ///
    /// # Errors
    /// When neither the settings nor the family give the rotary base.
    pub fn args(&self, w: &Weights, rope_theta: Option<f32>) -> Result<DecoderArgs> {
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1));
        let scaling = self.rope_scaling.clone().or(self.rope_parameters.clone());
        let written = self.rope_parameters.as_ref().and_then(RopeScaling::rope_theta);
        let theta = self.rope_theta.or(written).or(rope_theta);
        Ok(DecoderArgs {
            attention: AttentionArgs {
                hidden_size: self.hidden_size,
                n_heads: self.num_attention_heads,
                n_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
                head_dim,
                qkv_bias: false,
                o_bias: false,
                qk_norm_eps: None,
                rope: RopeArgs {
                    dims: head_dim,
                    theta: theta
                        .ok_or_else(|| Error::format("config.json", "\"rope_theta\" is missing"))?,
                    traditional: self.rope_traditional,
                    scaling,
                    max_position_embeddings: self.max_position_embeddings,
                },
            },
            intermediate_size: self.intermediate_size,
            mlp_bias: false,
            rms_norm_eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            tie_word_embeddings: self
                .tie_word_embeddings
                .unwrap_or_else(|| !w.contains("lm_head.weight")),
            sliding_layers: vec![false; self.num_hidden_layers.min(MAX_LAYERS + 1)],
            sliding_window: None,
        })
    }
}

/// What a decoder is made from.
#[derive(Clone, Debug)]
pub struct DecoderArgs {
    /// The attention of every layer; its `hidden_size` is the decoder's.
    pub attention: AttentionArgs,
    /// Size between the projections of the feed-forward layers.
    pub intermediate_size: i32,
    /// Whether these projections have a bias.
    pub mlp_bias: bool,
    /// Epsilon of the norms.
    pub rms_norm_eps: f32,
    /// Number of tokens.
    pub vocab_size: i32,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// For each layer, whether it sees only the last [`sliding_window`](Self::sliding_window) tokens.
    pub sliding_layers: Vec<bool>,
    /// Size of that window.
    pub sliding_window: Option<i32>,
}

/// Layers beyond this are a broken configuration, not a model.
const MAX_LAYERS: usize = 10_000;

impl DecoderArgs {
    /// Refuses numbers that no model has, before any array is made of them.
    fn check(&self) -> Result<()> {
        let AttentionArgs { hidden_size, n_heads, n_kv_heads, head_dim, .. } = self.attention;
        let sizes = [
            ("hidden_size", hidden_size),
            ("num_attention_heads", n_heads),
            ("num_key_value_heads", n_kv_heads),
            ("head_dim", head_dim),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        let fail = |message: String| Err(Error::format("config.json", message));
        for (name, size) in sizes {
            if !(1..=1 << 24).contains(&size) {
                return fail(format!("\"{name}\" is {size}"));
            }
        }
        if n_heads.checked_mul(head_dim).is_none() || n_heads % n_kv_heads != 0 {
            return fail(format!(
                "{n_heads} heads of size {head_dim} do not go with {n_kv_heads} key-value heads"
            ));
        }
        if self.sliding_layers.len() > MAX_LAYERS {
            return fail(format!("{} layers", self.sliding_layers.len()));
        }
        if self.sliding_layers.contains(&true) && self.sliding_window.is_none() {
            return fail("\"sliding_window\" is missing".to_owned());
        }
        Ok(())
    }
}

struct TransformerBlock {
    self_attn: Attention,
    mlp: Mlp,
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
    fn new(w: &Weights, args: &DecoderArgs, window: Option<i32>) -> Result<Self> {
        let (dim, eps) = (args.attention.hidden_size, args.rms_norm_eps);
        Ok(TransformerBlock {
            self_attn: Attention::new(&w.at("self_attn"), &args.attention)?,
            mlp: Mlp::new(&w.at("mlp"), dim, args.intermediate_size, args.mlp_bias)?,
            input_layernorm: w.rms_norm("input_layernorm", dim, eps)?,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", dim, eps)?,
            window,
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
        let (dim, vocab) = (args.attention.hidden_size, args.vocab_size);
        let model = w.at("model");
        let lm_head = match args.tie_word_embeddings {
            true => None,
            false => Some(w.linear("lm_head", dim, vocab, false)?),
        };
        Ok(Decoder {
            embed_tokens: model.embedding("embed_tokens", vocab, dim)?,
            layers: model.layers("layers", args.sliding_layers.len(), |w, i| {
                let window = args.sliding_window.filter(|_| args.sliding_layers[i]);
                TransformerBlock::new(w, args, window)
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
