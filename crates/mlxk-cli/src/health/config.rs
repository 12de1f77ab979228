//! `config.json` and `generation_config.json`.

use mlx_lm::config::ModelConfig;
use serde_json::Value;

use super::listing::State;
use super::{Findings, Json, Model, codes};

pub(super) fn check(model: &Model<'_>, findings: &mut Findings) {
    if let Json::Broken(text) = &*model.json("generation_config.json")
        && !is_pointer(model, "generation_config.json")
    {
        findings.add(&codes::GENERATION_CONFIG_INVALID, text.as_str());
    }
    match &*model.json("config.json") {
        Json::Object(config) if config.as_object().is_some_and(serde_json::Map::is_empty) => {
            findings.add(&codes::CONFIG_INVALID, "config.json: an empty object");
        }
        Json::Object(config) => settings(model, config, findings),
        // The pointer is told already.
        Json::Broken(_) if is_pointer(model, "config.json") => {}
        Json::Broken(text) => findings.add(&codes::CONFIG_INVALID, text.as_str()),
        Json::Absent => {
            // A GGUF file has its configuration within; of a dead link its finding tells.
            let only_gguf =
                model.listing.ending(&[".safetensors", ".npz", ".bin"], true).is_empty()
                    && !model.listing.ending(&[".gguf"], true).is_empty();
            if !only_gguf && model.listing.get("config.json").is_none() {
                findings.add(&codes::CONFIG_MISSING, "config.json: there is none");
            }
        }
    }
}

/// Whether a file is a git-lfs pointer, of which its own finding tells.
pub(super) fn is_pointer(model: &Model<'_>, name: &str) -> bool {
    model.listing.get(name).is_some_and(|entry| matches!(entry.state, State::Pointer))
}

fn settings(model: &Model<'_>, config: &Value, findings: &mut Findings) {
    if model.model_type().is_empty() {
        model_type_missing(config, findings);
    } else if mlx_lm::models::model_types().any(|name| name == model.model_type())
        && let Err(error) = ModelConfig::from_json(config.clone())
        // Of a model that wants code of its own, the runtime says that it does not run here.
        && error.kind() == mlx_lm::ErrorKind::Format
    {
        findings.add(&codes::CONFIG_UNSOUND, format!("config.json: {error}"));
    }
    if eos_is_null(config) {
        findings.add(&codes::EOS_NULL, "config.json: eos_token_id is null");
    }
    if let Json::Object(generation) = &*model.json("generation_config.json")
        && eos_is_null(generation)
    {
        findings.add(&codes::EOS_NULL, "generation_config.json: eos_token_id is null");
    }
    for name in VIDEO_PROCESSOR_FILES {
        if let Json::Object(value) = &*model.json(name) {
            for key in VIDEO_PROCESSOR_KEYS.iter().filter(|key| is_null(value, key)) {
                findings.add(&codes::VIDEO_PROCESSOR_NULL, format!("{name}: {key} is null"));
            }
        }
    }
    if lacks_merge_size(config) {
        let text = "config.json: a mistral3 model without spatial_merge_size";
        findings.add(&codes::MERGE_SIZE_MISSING, text);
    }
}

/// The files that may name a video processor, and the keys by which they do.
pub(crate) const VIDEO_PROCESSOR_FILES: [&str; 3] =
    ["config.json", "preprocessor_config.json", "processor_config.json"];
pub(crate) const VIDEO_PROCESSOR_KEYS: [&str; 2] = ["video_processor", "video_processor_type"];

/// Whether a key is there and null.
pub(crate) fn is_null(object: &Value, key: &str) -> bool {
    object.get(key).is_some_and(Value::is_null)
}

fn eos_is_null(config: &Value) -> bool {
    is_null(config, "eos_token_id")
}

/// Whether this is a mistral3 model as it was first converted.
pub(crate) fn lacks_merge_size(config: &Value) -> bool {
    config["model_type"] == "mistral3"
        && config["vision_config"].as_object().is_some_and(|vision| !vision.is_empty())
        && config.get("spatial_merge_size").is_none()
}

fn model_type_missing(config: &Value, findings: &mut Findings) {
    let text = "config.json: model_type is missing";
    match model_type_of_architecture(config) {
        Some(name) => findings
            .add(&codes::MODEL_TYPE_MISSING, format!("{text}; its architecture is that of {name}")),
        None => findings.add_by_hand(
            &codes::MODEL_TYPE_MISSING,
            format!("{text}, and its architectures do not tell it; add it by hand"),
        ),
    }
}

/// Returns the type whose causal language model `architectures` names, if it runs here:
/// `Qwen3MoeForCausalLM` is that of `qwen3_moe`.
pub(crate) fn model_type_of_architecture(config: &Value) -> Option<&'static str> {
    let architecture = config["architectures"][0].as_str()?.strip_suffix("ForCausalLM")?;
    let letters = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let wanted = letters(architecture);
    mlx_lm::models::model_types().find(|name| letters(name) == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn architectures_name_types() {
        for (architecture, expected) in [
            ("LlamaForCausalLM", Some("llama")),
            ("Qwen3MoeForCausalLM", Some("qwen3_moe")),
            ("LlamaForSequenceClassification", None),
            ("NoSuchForCausalLM", None),
            ("", None),
        ] {
            let config = json!({"architectures": [architecture]});
            assert_eq!(model_type_of_architecture(&config), expected, "{architecture}");
        }
        assert_eq!(model_type_of_architecture(&json!({"architectures": null})), None);
    }
}
