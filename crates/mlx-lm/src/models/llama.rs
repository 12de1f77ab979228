//! Llama 1 to 3 and Mistral (arXiv 2302.13971, 2310.06825).
//!
//! DIFFERENCE: without `tie_word_embeddings` the head is tied if the checkpoint has none; mlx-lm
//! then ties it always and drops a head that is there. `rope_parameters` is read as transformers 5
//! writes it; mlx-lm ignores it.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, keep_weights};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::AttentionArgs;
use crate::layers::decoder::{Decoder, DecoderArgs};
use crate::layers::rope::{RopeArgs, RopeScaling};

pub(super) const FAMILY: Family = Family { rename: keep_weights, build };

#[derive(Deserialize)]
struct Config {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    head_dim: Option<i32>,
    max_position_embeddings: Option<usize>,
    num_key_value_heads: Option<i32>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    rope_theta: Option<f32>,
    #[serde(default)]
    rope_traditional: bool,
    rope_scaling: Option<RopeScaling>,
    rope_parameters: Option<RopeScaling>,
    tie_word_embeddings: Option<bool>,
    layer_types: Option<Vec<String>>,
    sliding_window: Option<i32>,
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let head_dim =
        config.head_dim.unwrap_or(config.hidden_size / config.num_attention_heads.max(1));
    let scaling = config.rope_scaling.or(config.rope_parameters);
    let theta = config.rope_theta.or(scaling.as_ref().and_then(RopeScaling::rope_theta));
    let sliding_layers = match &config.layer_types {
        Some(types) => types.iter().map(|kind| kind == "sliding_attention").collect(),
        None => vec![false; config.num_hidden_layers],
    };
    let args = DecoderArgs {
        attention: AttentionArgs {
            hidden_size: config.hidden_size,
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads.unwrap_or(config.num_attention_heads),
            head_dim,
            qkv_bias: config.attention_bias,
            o_bias: config.attention_bias,
            qk_norm_eps: None,
            rope: RopeArgs {
                dims: head_dim,
                theta: theta.unwrap_or(10_000.0),
                traditional: config.rope_traditional,
                scaling,
                max_position_embeddings: config.max_position_embeddings,
            },
        },
        intermediate_size: config.intermediate_size,
        mlp_bias: config.mlp_bias,
        rms_norm_eps: config.rms_norm_eps,
        vocab_size: config.vocab_size,
        tie_word_embeddings: config
            .tie_word_embeddings
            .unwrap_or_else(|| !w.contains("lm_head.weight")),
        sliding_layers,
        sliding_window: config.sliding_window,
    };
    Ok(Box::new(Decoder::new(w, &args)?))
}
