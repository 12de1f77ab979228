//! Phi-3, Phi-3.5 mini and Phi-4 mini (arXiv 2404.14219): Llama with fused projections and a rotation of
//! a part of each head.
//!
//! DIFFERENCE: `sliding_window` and `rope_parameters` are read as transformers does; mlx-lm ignores
//! them. As in mlx-lm, LongRoPE takes the long factors for every length; transformers takes the
//! short ones up to the original length, with which a cache cannot go on beyond it.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::rules::{Cut, Rule};

pub(super) const FAMILY: Family =
    Family { rules: usual_rules, layout, protected: Protected::NOTHING, build };

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    partial_rotary_factor: Option<f32>,
    original_max_position_embeddings: Option<u32>,
    sliding_window: Option<i32>,
}

/// Layers that share an input are taken together wherever they lie, so nothing is lost.
fn layout(config: &ModelConfig) -> Vec<Rule> {
    let Ok(Config { base, .. }) = config.parse::<Config>() else { return Vec::new() };
    let head_dim = base.hidden_size / base.num_attention_heads.max(1);
    let kv_heads = base.num_key_value_heads.unwrap_or(base.num_attention_heads);
    let (q, kv) =
        (base.num_attention_heads.saturating_mul(head_dim), kv_heads.saturating_mul(head_dim));
    vec![
        Rule::Split(
            "*.self_attn.qkv_proj.*",
            Cut::Sizes(0, vec![q, kv, kv]),
            &["*.self_attn.q_proj.*", "*.self_attn.k_proj.*", "*.self_attn.v_proj.*"],
        ),
        Rule::Split(
            "*.mlp.gate_up_proj.*",
            Cut::Even(2),
            &["*.mlp.gate_proj.*", "*.mlp.up_proj.*"],
        ),
    ]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let mut config: Config = config.parse()?;
    config.base.max_position_embeddings.get_or_insert(131_072);
    config.base.head_dim = None;
    let original = config.original_max_position_embeddings.unwrap_or(4096);
    if let Some(scaling) = &mut config.base.rope_scaling {
        scaling.or_insert("original_max_position_embeddings", original as f32);
    }
    let base = &config.base;
    let partial = config.partial_rotary_factor.unwrap_or(1.0);
    let attention = base.attention(Some(10_000.0))?.partial(partial)?;
    let layer = |_| LayerArgs {
        window: config.sliding_window,
        ..LayerArgs::new(attention.clone(), base.mlp())
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
