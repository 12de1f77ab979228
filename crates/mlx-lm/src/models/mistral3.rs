//! Mistral Small 3.1 and later, whose language model is a Mistral or a Ministral 3, and LLaVA: without the part
//! for images.

use mlx_core::Weights;

use super::{Family, LanguageModel, Protected, llama, ministral3, usual_rules};
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family = Family { rules, layout, protected: Protected::NOTHING, build };

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(&config.text(), names);
    rules.extend([
        Rule::Drop("*vision_tower*"),
        Rule::Drop("*multi_modal_projector*"),
        Rule::Rename("model.language_model.*", "language_model.model.*"),
        Rule::Rename("lm_head.*", "language_model.lm_head.*"),
    ]);
    rules
}

/// The language model is all there is.
fn layout(_config: &ModelConfig) -> Vec<Rule> {
    vec![Rule::Rename("language_model.*", "*")]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let text = config.text();
    match text.model_type.as_str() {
        "ministral3" => ministral3::build(w, &text),
        "mistral4" => {
            let text = "model_type \"mistral3\" around \"mistral4\" is not supported";
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        _ => llama::build_with(w, &text, None),
    }
}
