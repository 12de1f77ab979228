//! Ministral 3: Llama with a factor on queries that grows with their position.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, llama, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::QueryScale;
use crate::layers::rope::RopeScaling;

pub(super) const FAMILY: Family =
    Family { rules: usual_rules, layout: same_layout, protected: Protected::NOTHING, build };

#[derive(Deserialize)]
struct Config {
    rope_parameters: RopeScaling,
}

pub(super) fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let Config { rope_parameters } = config.parse()?;
    let query_scale = QueryScale {
        beta: rope_parameters.need("llama_4_scaling_beta")?,
        length: rope_parameters.need("original_max_position_embeddings")?,
    };
    llama::build_with(w, config, Some(query_scale))
}
