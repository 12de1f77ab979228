//! Qwen3.5 and 3.6, dense and with experts: the layers of Qwen3-Next around four projections instead of
//! two, without the part for images.
//!
//! DIFFERENCE: layers and layout are told as in `qwen3_next.rs`.

use mlx_core::Weights;

use super::{Family, LanguageModel, Protected, qwen3_next, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family = Family { rules, layout, protected: PROTECTED, build };

const PROTECTED: Protected = Protected { types: &["*A_log"], ..qwen3_next::PROTECTED };

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let text = config.text();
    let mut rules = vec![
        Rule::Drop("vision_tower*"),
        Rule::Drop("model.visual*"),
        Rule::Drop("*mtp.*"),
        Rule::Rename("language_model.*", "*"),
        Rule::Rename("model.language_model.*", "model.*"),
    ];
    rules.extend(usual_rules(&text, names));
    rules.extend(qwen3_next::published(names));
    rules.extend([
        Rule::Rename("model.*", "language_model.model.*"),
        Rule::Rename("lm_head.*", "language_model.lm_head.*"),
    ]);
    rules
}

/// The language model is all there is.
fn layout(_config: &ModelConfig) -> Vec<Rule> {
    vec![Rule::Rename("language_model.*", "*")]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let mut config: qwen3_next::Config = config.text().parse()?;
    config.norm_topk_prob.get_or_insert(true);
    // Every layer has experts, where there are any.
    (config.decoder_sparse_step, config.mlp_only_layers) = (1, Vec::new());
    config.build(w, Some(100_000.0))
}
