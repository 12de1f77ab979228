//! Qwen3 (arXiv 2505.09388): Llama with a norm on each query and key head.
//!
//! DIFFERENCE: head as in `llama.rs`.

use mlx_core::Weights;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::{AttentionArgs, QkNorm};
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};

pub(super) const FAMILY: Family =
    Family { rules: usual_rules, layout: same_layout, protected: Protected::NOTHING, build };

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: DecoderConfig = config.parse()?;
    let qk_norm = QkNorm::Heads(config.rms_norm_eps);
    let attention = AttentionArgs { qk_norm, ..config.attention(None)? };
    let layer = |_| LayerArgs::new(attention.clone(), config.mlp());
    Ok(Box::new(Decoder::new(w, &config.decoder(w, layer))?))
}
