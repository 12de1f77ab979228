//! Llama 1 to 3 and Mistral (arXiv 2302.13971, 2310.06825).
//!
//! DIFFERENCE: without `tie_word_embeddings` the head is tied if the checkpoint has none; mlx-lm
//! then ties it always and drops a head that is there. `rope_parameters` is read as transformers 5
//! writes it; mlx-lm ignores it.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::layers::decoder::{Decoder, DecoderArgs, DecoderConfig, FeedForwardArgs};

pub(super) const FAMILY: Family = Family { rules: usual_rules, layout: same_layout, build };

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

pub(super) fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    Ok(Box::new(Decoder::new(w, &args(w, config)?)?))
}

pub(super) fn args(w: &Weights, config: &ModelConfig) -> Result<DecoderArgs> {
    let config: Config = config.parse()?;
    let mut args = config.base.args(w, Some(10_000.0))?;
    let types = config.layer_types.unwrap_or_default();
    for (i, layer) in args.layers.iter_mut().enumerate() {
        layer.attention.qkv_bias = config.attention_bias;
        layer.attention.o_bias = config.attention_bias;
        if let FeedForwardArgs::Dense { bias, .. } = &mut layer.feed_forward {
            *bias = config.mlp_bias;
        }
        if types.get(i).is_some_and(|kind| kind == "sliding_attention") {
            let window = config.sliding_window;
            let missing = || Error::format("config.json", "\"sliding_window\" is missing");
            layer.window = Some(window.ok_or_else(missing)?);
        }
    }
    Ok(args)
}
