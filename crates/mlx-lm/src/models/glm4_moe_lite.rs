//! GLM-4.7 Flash: DeepSeek-V3 with a larger rotary base.
//!
//! DIFFERENCE: the norms of latents have an epsilon of 1e-6, as in transformers; mlx-lm takes
//! `rms_norm_eps`. `tie_word_embeddings` and `rope_parameters` are read as transformers does; mlx-lm
//! ignores them.

use mlx_core::Weights;

use super::deepseek_v3::{self, layout, rules};
use super::{Family, LanguageModel, Protected};
use crate::config::ModelConfig;
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { rules, layout, protected: Protected::SIGMOID_GATE, build };

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    deepseek_v3::build_with(w, config, 1_000_000.0)
}
