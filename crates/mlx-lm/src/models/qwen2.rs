//! Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with a bias on queries, keys and values.
//!
//! DIFFERENCE: head and `rope_parameters` as in `llama.rs`; `head_dim` is read as transformers
//! does, mlx-lm ignores it.

use mlx_core::Weights;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::AttentionArgs;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};

pub(super) const FAMILY: Family =
    Family { rules: usual_rules, layout: same_layout, protected: Protected::NOTHING, build };

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let mut config: DecoderConfig = config.parse()?;
    config.max_position_embeddings.get_or_insert(32_768);
    let attention = AttentionArgs { qkv_bias: true, ..config.attention(Some(1_000_000.0))? };
    let layer = |_| LayerArgs::new(attention.clone(), config.mlp());
    Ok(Box::new(Decoder::new(w, &config.decoder(w, layer))?))
}
