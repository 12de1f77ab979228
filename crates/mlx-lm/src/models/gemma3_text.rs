//! Gemma 3 (arXiv 2503.19786): norms around each part, and windows in all layers but every sixth, whose
//! rotation has a base of its own.
//!
//! DIFFERENCE: the factor on embeddings is rounded to their type, as transformers does; mlx-lm rounds
//! it to bfloat16 always. `layer_types`, `rope_parameters` and `tie_word_embeddings` are read as
//! transformers does; mlx-lm ignores them.

use mlx_core::Weights;
use mlx_core::nn::GatedActivation;
use serde::Deserialize;
use serde_json::json;

use super::{Family, LanguageModel, Protected, is_sliding, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::{AttentionArgs, QkNorm};
use crate::layers::decoder::{Decoder, DecoderArgs, DecoderConfig, LayerArgs, Norms};
use crate::layers::mlp::MlpArgs;
use crate::rules::{Change, Rule};

pub(super) const FAMILY: Family =
    Family { rules: usual_rules, layout, protected: Protected::NOTHING, build };

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    query_pre_attn_scalar: f32,
    rope_local_base_freq: f32,
    sliding_window: i32,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// Norms are stored as what their weights are more than one.
pub(super) fn layout(_config: &ModelConfig) -> Vec<Rule> {
    vec![Rule::Change("*norm.weight", Change::Plus(1.0))]
}

pub(super) fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config = config.with_defaults(json!({
        "hidden_size": 1152,
        "num_hidden_layers": 26,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "vocab_size": config.vocab_size,
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10_000,
        "sliding_window": 512,
    }));
    let config: Config = config.parse()?;
    let base = &config.base;
    let local = DecoderConfig {
        rope_theta: Some(config.rope_local_base_freq),
        rope_scaling: None,
        ..base.clone()
    };
    let attention = |args: AttentionArgs| AttentionArgs {
        scale: Some(config.query_pre_attn_scalar.powf(-0.5)),
        qk_norm: QkNorm::Heads(base.rms_norm_eps),
        ..args
    };
    let full = attention(base.attention_of("full_attention", 1_000_000.0)?);
    let sliding = attention(local.attention_of("sliding_attention", 10_000.0)?);
    let mlp = MlpArgs { activation: GatedActivation::GeluApprox, ..base.mlp() };
    let pattern = config.sliding_window_pattern.unwrap_or(6).max(1);
    let types = config.layer_types.as_deref();
    let layer = |i| {
        let is_sliding = is_sliding(types, i, i % pattern != pattern - 1);
        let attention = if is_sliding { &sliding } else { &full };
        LayerArgs {
            window: is_sliding.then_some(config.sliding_window),
            norms: Norms::Around,
            ..LayerArgs::new(attention.clone(), mlp)
        }
    };
    let embedding_scale = Some((base.hidden_size as f32).sqrt());
    Ok(Box::new(Decoder::new(w, &DecoderArgs { embedding_scale, ..base.decoder(w, layer) })?))
}
