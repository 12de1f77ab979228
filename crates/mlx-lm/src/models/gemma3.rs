//! Gemma 3 with a part for images: the language model, which is `gemma3_text`, alone.
//!
//! DIFFERENCE: names as transformers 5 writes them are known; mlx-lm knows older ones only. The number
//! of tokens is that of the language model where the whole has none; mlx-lm then takes 262208.

use mlx_core::Weights;
use serde_json::json;

use super::{Family, LanguageModel, Protected, gemma3_text, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family = Family { rules, layout, protected: Protected::NOTHING, build };

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = vec![
        Rule::Drop("*vision_tower.*"),
        Rule::Drop("*multi_modal_projector.*"),
        Rule::Rename("model.language_model.*", "language_model.model.*"),
        Rule::Rename("lm_head.*", "language_model.lm_head.*"),
    ];
    rules.extend(usual_rules(&config.text(), names));
    rules
}

fn layout(config: &ModelConfig) -> Vec<Rule> {
    let mut rules = vec![Rule::Rename("language_model.*", "*")];
    rules.extend(gemma3_text::layout(config));
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let heads = json!({ "num_attention_heads": 8, "num_key_value_heads": 4 });
    gemma3_text::build(w, &config.text().with_defaults(heads))
}
