//! Llama 1 to 3 and Mistral (arXiv 2302.13971, 2310.06825).
//!
//! DIFFERENCE: without `tie_word_embeddings` the head is tied if the checkpoint has none; mlx-lm
//! then ties it always and drops a head that is there. `rope_parameters` is read as transformers 5
//! writes it; mlx-lm ignores it.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::decoder::{Decoder, DecoderConfig};

pub(super) const FAMILY: Family = Family { rules: usual_rules, build };

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
    let config: Config = config.parse()?;
    let mut args = config.base.args(w, Some(10_000.0))?;
    args.attention.qkv_bias = config.attention_bias;
    args.attention.o_bias = config.attention_bias;
    args.mlp_bias = config.mlp_bias;
    if let Some(types) = &config.layer_types {
        args.sliding_layers = types.iter().map(|kind| kind == "sliding_attention").collect();
        args.sliding_window = config.sliding_window;
    }
    Ok(Box::new(Decoder::new(w, &args)?))
}
