//! Qwen3 (arXiv 2505.09388): Llama with a norm on each query and key head.
//!
//! DIFFERENCE: head as in `llama.rs`.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, keep_weights};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
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
    num_key_value_heads: i32,
    max_position_embeddings: usize,
    head_dim: i32,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeScaling>,
    rope_parameters: Option<RopeScaling>,
    tie_word_embeddings: Option<bool>,
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let scaling = config.rope_scaling.or(config.rope_parameters);
    let theta = config.rope_theta.or(scaling.as_ref().and_then(RopeScaling::rope_theta));
    let theta = theta.ok_or_else(|| Error::format("config.json", "\"rope_theta\" is missing"))?;
    let args = DecoderArgs {
        attention: AttentionArgs {
            hidden_size: config.hidden_size,
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            qkv_bias: false,
            o_bias: false,
            qk_norm_eps: Some(config.rms_norm_eps),
            rope: RopeArgs {
                dims: config.head_dim,
                theta,
                traditional: false,
                scaling,
                max_position_embeddings: Some(config.max_position_embeddings),
            },
        },
        intermediate_size: config.intermediate_size,
        mlp_bias: false,
        rms_norm_eps: config.rms_norm_eps,
        vocab_size: config.vocab_size,
        tie_word_embeddings: config
            .tie_word_embeddings
            .unwrap_or_else(|| !w.contains("lm_head.weight")),
        sliding_layers: vec![false; config.num_hidden_layers],
        sliding_window: None,
    };
    Ok(Box::new(Decoder::new(w, &args)?))
}
