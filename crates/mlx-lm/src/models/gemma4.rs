//! Gemma 4 with parts for images and sound: the language model, which is `gemma4_text`, alone.
//!
//! DIFFERENCE: the number of tokens is that of the language model where the whole has none; mlx-lm
//! then takes 262144.

use mlx_core::Weights;

use super::{Family, LanguageModel, gemma4_text};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout, protected: gemma4_text::PROTECTED, build };

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let others = [
        "*vision_tower.*",
        "*vision_embedder.*",
        "*audio_tower.*",
        "*embed_vision.*",
        "*embed_audio.*",
        "*multi_modal_projector.*",
    ];
    let mut rules: Vec<Rule> = others.map(Rule::Drop).into();
    rules.push(Rule::Rename("model.language_model.*", "language_model.model.*"));
    rules.push(Rule::Rename("lm_head.*", "language_model.lm_head.*"));
    rules.extend(gemma4_text::rules(&config.text(), names));
    rules
}

fn layout(_config: &ModelConfig) -> Vec<Rule> {
    vec![Rule::Rename("language_model.*", "*")]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    gemma4_text::build(w, &config.text())
}
