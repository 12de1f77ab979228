//! Tokenizer, chat template.

use std::fmt;

use mlx_lm::chat::{ChatTemplate, Message, RenderOptions};
use mlx_lm::files::ModelFiles;
use mlx_lm::tokenizer::Tokenizer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::config::is_pointer;
use super::listing::Entry;
use super::processors::is_whisper;
use super::{Findings, Json, Model, codes};

/// Files that a tokenizer can be made from, besides `tokenizer.json` and tiktoken's rank files.
const OTHER_SOURCES: [&str; 4] =
    ["tokenizer.model", "spiece.model", "tiktoken.model", "tekken.json"];

pub(super) fn check(model: &Model<'_>, deep: bool, findings: &mut Findings) {
    let Some(files) = &model.files else { return };
    let before = findings.list.len();
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        match &*model.json(name) {
            Json::Broken(text) if !is_pointer(model, name) => {
                findings.add(&codes::TOKENIZER_CONFIG_INVALID, text.as_str());
            }
            _ => {}
        }
    }
    let outline = outline(model, files, findings);
    let sound = findings.list.len() == before;
    if sound && (deep || outline.as_ref().is_some_and(|outline| outline.may_be_mistral(model))) {
        load(model, files, findings);
    }
    template(model, files, outline.as_ref(), findings);
}

/// What of `tokenizer.json` is looked at without building a tokenizer, which may take a second.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(rename = "model")]
    _model: AnyObject,
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

/// An object whose entries do not matter: hundreds of thousands of tokens and merges, which are
/// read over and not kept.
struct AnyObject;

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnyObject)
    }
}

impl<'de> Visitor<'de> for AnyObject {
    type Value = AnyObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyObject, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(AnyObject)
    }
}

impl Outline {
    fn has(&self, tokens: &[&str]) -> bool {
        self.added_tokens.iter().any(|token| tokens.contains(&token.content.as_str()))
    }

    /// Whether the pre-tokenizer may be the wrong one that Mistral's tokenizers had for a time.
    fn may_be_mistral(&self, model: &Model<'_>) -> bool {
        let kinds = ["mistral", "mistral3", "ministral", "pixtral", "voxtral", "llama"];
        kinds.contains(&model.model_type()) && self.has(&["[INST]"])
    }
}

fn outline(model: &Model<'_>, files: &ModelFiles, findings: &mut Findings) -> Option<Outline> {
    const NAME: &str = "tokenizer.json";
    let Some(entry) = model.listing.get(NAME) else {
        missing(model, findings);
        return None;
    };
    if !entry.is_file() {
        return None;
    }
    let parsed = match files.read(NAME) {
        Ok(bytes) => serde_json::from_slice(&bytes.unwrap_or_default()).map_err(|e| e.to_string()),
        Err(error) => Err(model.short(&error.to_string())),
    };
    parsed.map_err(|e| findings.add(&codes::TOKENIZER_INVALID, format!("{NAME}: {e}"))).ok()
}

/// Tells of a missing tokenizer where the model is one of language or says that it has one.
fn missing(model: &Model<'_>, findings: &mut Findings) {
    let listing = &model.listing;
    let other = OTHER_SOURCES.iter().any(|name| listing.get(name).is_some())
        || !listing.ending(&[".tiktoken"], false).is_empty();
    let gguf = !listing.ending(&[".gguf"], false).is_empty();
    let Some(config) = model.config.as_ref().filter(|_| !other && !gguf) else { return };
    let speaks = config.get("vocab_size").or_else(|| config["text_config"].get("vocab_size"));
    let configured = listing.get("tokenizer_config.json").is_some();
    if configured || speaks.is_some_and(Value::is_number) && !is_whisper(config) {
        let text = "tokenizer.json: there is none, nor another file to make a tokenizer from";
        let slow = listing.get("vocab.json").is_some() && listing.get("merges.txt").is_some();
        let more =
            if slow { "; vocab.json and merges.txt alone do not tell how to split" } else { "" };
        findings.add(&codes::TOKENIZER_MISSING, format!("{text}{more}"));
    }
}

fn load(model: &Model<'_>, files: &ModelFiles, findings: &mut Findings) {
    match Tokenizer::load(files) {
        Ok(tokenizer) if tokenizer.repaired() => findings.add(
            &codes::TOKENIZER_REGEX,
            "tokenizer.json: splits text by the rule of another model",
        ),
        Ok(_) => {}
        Err(error) if error.kind() == mlx_lm::ErrorKind::NotFound => {}
        Err(error) if error.kind() == mlx_lm::ErrorKind::Unsupported => {}
        Err(error) => {
            findings.add(&codes::TOKENIZER_INVALID, model.short(&error.to_string()));
        }
    }
}

/// Renders a chat of three messages, as a person has it with the model.
fn template(
    model: &Model<'_>,
    files: &ModelFiles,
    outline: Option<&Outline>,
    findings: &mut Findings,
) {
    let (json, none) = (model.json("tokenizer_config.json"), Map::new());
    let config = match &*json {
        Json::Object(Value::Object(config)) => config,
        Json::Broken(_) => return,
        _ => &none,
    };
    match ChatTemplate::from_files(files, config) {
        Ok(Some(template)) => {
            let template = template.with_special_tokens(special_tokens(config));
            let chat = [Message::user("Hello"), Message::assistant("Hi."), Message::user("Bye")];
            let options = RenderOptions { add_generation_prompt: true, ..Default::default() };
            let rendered = template.check().and_then(|()| template.render(&chat, None, &options));
            match rendered {
                Err(error) if error.kind() == mlx_lm::ErrorKind::Unsupported => {}
                Err(error) => findings.add(&codes::TEMPLATE_BROKEN, error.to_string()),
                Ok(text) if !text.contains("Bye") => findings.add(
                    &codes::TEMPLATE_BROKEN,
                    "chat template: leaves the last message of a chat out",
                ),
                Ok(_) => {}
            }
        }
        Ok(None) => {
            const TURNS: [&str; 7] = [
                "<|im_start|>",
                "<|start_header_id|>",
                "<start_of_turn>",
                "[INST]",
                "<|user|>",
                "<|turn>",
                "<|start|>",
            ];
            if outline.is_some_and(|outline| outline.has(&TURNS)) {
                let text = "chat template: there is none, though the tokenizer has a chat's tokens";
                findings.add(&codes::TEMPLATE_MISSING, text);
            }
        }
        Err(error) => {
            let named = model.listing.get("chat_template.json").is_some_and(|e| !Entry::is_file(e));
            if !named {
                findings.add(&codes::TEMPLATE_BROKEN, model.short(&error.to_string()));
            }
        }
    }
}

/// Returns the special tokens of a tokenizer's configuration, which templates write.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::Object(token) => token.get("content").cloned().unwrap_or(Value::Null),
        other => other.clone(),
    };
    let named = config.iter().filter(|(name, _)| name.ends_with("_token"));
    let tokens = named.map(|(name, value)| (name.clone(), text(value)));
    tokens.filter(|(_, value)| value.is_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_needs_a_model_and_reads_over_it() {
        for (text, expected) in [
            (r#"{"model": {}}"#, Some(0)),
            (r#"{"model": {"vocab": {"a": 1}, "merges": [["a", "b"]]}, "x": 1}"#, Some(0)),
            (r#"{"added_tokens": [{"id": 1, "content": "a"}], "model": {}}"#, Some(1)),
            (r#"{"model": []}"#, None),
            (r#"{"model": null}"#, None),
            (r#"{"model": {"vocab": {"a": 1}"#, None),
            (r#"{"model": {"vocab": {"a" 1}}}"#, None),
            (r#"{"added_tokens": []}"#, None),
            (r#"{"added_tokens": [{"id": 1}], "model": {}}"#, None),
            ("[]", None),
        ] {
            let outline = serde_json::from_str::<Outline>(text).ok();
            assert_eq!(outline.map(|outline| outline.added_tokens.len()), expected, "{text}");
        }
    }
}
