//! Qwen3 (arXiv 2505.09388): Llama with a norm on each query and key head.
//!
//! DIFFERENCE: head as in `llama.rs`.

use mlx_core::Weights;

use super::{Family, LanguageModel, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::QkNorm;
use crate::layers::decoder::{Decoder, DecoderConfig};

pub(super) const FAMILY: Family = Family { rules: usual_rules, layout: same_layout, build };

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: DecoderConfig = config.parse()?;
    let mut args = config.args(w, None)?;
    for layer in &mut args.layers {
        layer.attention.qk_norm = QkNorm::Heads(config.rms_norm_eps);
    }
    Ok(Box::new(Decoder::new(w, &args)?))
}
