//! Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with a bias on queries, keys and values.
//!
//! DIFFERENCE: head and `rope_parameters` as in `llama.rs`.

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
    num_key_value_heads: i32,
    #[serde(default = "max_position_embeddings")]
    max_position_embeddings: usize,
    rope_theta: Option<f32>,
    #[serde(default)]
    rope_traditional: bool,
    rope_scaling: Option<RopeScaling>,
    rope_parameters: Option<RopeScaling>,
    tie_word_embeddings: Option<bool>,
}

fn max_position_embeddings() -> usize {
    32_768
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let head_dim = config.hidden_size / config.num_attention_heads.max(1);
    let scaling = config.rope_scaling.or(config.rope_parameters);
    let theta = config.rope_theta.or(scaling.as_ref().and_then(RopeScaling::rope_theta));
    let args = DecoderArgs {
        attention: AttentionArgs {
            hidden_size: config.hidden_size,
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim,
            qkv_bias: true,
            o_bias: false,
            qk_norm_eps: None,
            rope: RopeArgs {
                dims: head_dim,
                theta: theta.unwrap_or(1_000_000.0),
                traditional: config.rope_traditional,
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
