//! What vision and audio models need beside their tokenizer.

use serde_json::Value;

use super::config::is_pointer;
use super::{Findings, Json, Model, codes};
use crate::detect::is_vision;

const FILES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

pub(super) fn check(model: &Model<'_>, findings: &mut Findings) {
    let Some(config) = &model.config else { return };
    let (vision, whisper) = (is_vision(config), is_whisper(config));
    if !vision && !whisper {
        return;
    }
    let mut absent = 0;
    for name in FILES {
        match &*model.json(name) {
            Json::Absent => absent += usize::from(model.listing.get(name).is_none()),
            Json::Broken(_) if is_pointer(model, name) => {}
            Json::Broken(text) => findings.add(&codes::PROCESSOR_INVALID, text.as_str()),
            Json::Object(_) => {}
        }
    }
    if vision && absent == FILES.len() {
        let text = "preprocessor_config.json: a vision model needs it or processor_config.json";
        findings.add(&codes::PROCESSOR_MISSING, text);
    }
    if whisper && model.listing.get(FILES[0]).is_none() {
        let text = "preprocessor_config.json: a Whisper model is to have it";
        findings.add(&codes::PREPROCESSOR_MISSING, text);
    }
}

/// Whether a configuration is that of a Whisper model.
pub(crate) fn is_whisper(config: &Value) -> bool {
    config["model_type"].as_str().is_some_and(|name| name.contains("whisper"))
}
