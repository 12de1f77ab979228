//! Llama 1 to 3 and Mistral (arXiv 2302.13971, 2310.06825).
//!
//! DIFFERENCE: without `tie_word_embeddings` the head is tied if the checkpoint has none; mlx-lm
//! then ties it always and drops a head that is there. `rope_parameters` is read as transformers 5
//! writes it; mlx-lm ignores it.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, is_sliding, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::layers::attention::{AttentionArgs, QueryScale};
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::mlp::MlpArgs;

pub(super) const FAMILY: Family =
    Family { rules: usual_rules, layout: same_layout, protected: Protected::NOTHING, build };

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    layer_types: Option<Vec<String>>,
    sliding_window: Option<i32>,
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    build_with(w, config, None)
}

/// Builds a model whose queries have a factor.
pub(super) fn build_with(
    w: &Weights,
    config: &ModelConfig,
    query_scale: Option<QueryScale>,
) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let base = &config.base;
    let attention = AttentionArgs {
        qkv_bias: config.attention_bias,
        o_bias: config.attention_bias,
        query_scale,
        ..base.attention(Some(10_000.0))?
    };
    let mlp = MlpArgs { bias: config.mlp_bias, ..base.mlp() };
    let types = config.layer_types.as_deref();
    let is_sliding = |i| is_sliding(types, i, false);
    if (0..types.map_or(0, <[_]>::len)).any(is_sliding) && config.sliding_window.is_none() {
        return Err(Error::format("config.json", "\"sliding_window\" is missing"));
    }
    let layer = |i| LayerArgs {
        window: config.sliding_window.filter(|_| is_sliding(i)),
        ..LayerArgs::new(attention.clone(), mlp)
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
