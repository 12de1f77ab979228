//! Known gaps of `config.json` and its like.

use mlx_lm::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::Plan;
use super::object::Object;
use crate::error::CommandError;
use crate::health::config::{
    VIDEO_PROCESSOR_FILES, VIDEO_PROCESSOR_KEYS, is_null, lacks_merge_size,
    model_type_of_architecture,
};

/// What a mistral3 model has where its configuration does not say, as in transformers.
const MERGE_SIZE: u64 = 2;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";

pub(super) fn plan(plan: &mut Plan) -> Result<(), CommandError> {
    let files = VIDEO_PROCESSOR_FILES.into_iter().chain([GENERATION]);
    for name in files {
        let Some(text) = plan.read(name) else { continue };
        let value = plan.object(name);
        let mut edits: Vec<(&str, Option<Value>)> = Vec::new();
        if is_null(&value, "eos_token_id") && [CONFIG, GENERATION].contains(&name) {
            match eos_token_id(plan) {
                Some(id) => edits.push(("eos_token_id", Some(id))),
                None => {
                    let text = "eos_token_id stays null: no file of the model tells the end token";
                    plan.notes.push(format!("{name}: {text}"));
                }
            }
        }
        if VIDEO_PROCESSOR_FILES.contains(&name) {
            let null = VIDEO_PROCESSOR_KEYS.iter().filter(|key| is_null(&value, key));
            edits.extend(null.map(|key| (*key, None)));
        }
        if name == CONFIG && lacks_merge_size(&value) {
            edits.push(("spatial_merge_size", Some(MERGE_SIZE.into())));
        }
        if name == CONFIG && plan.has("model_type_missing") {
            match model_type_of_architecture(&value) {
                Some(model_type) => edits.push(("model_type", Some(model_type.into()))),
                None => plan.notes.push("config.json: model_type has to be added by hand".into()),
            }
        }
        if !edits.is_empty() {
            let mut object = Object::parse(&text).map_err(|error| error.of(name))?;
            edits.into_iter().for_each(|(key, value)| object.set(key, value));
            plan.write(name, object.text());
        }
    }
    Ok(())
}

/// Returns the end tokens that the model's other files tell: what configuration or generation
/// configuration has, else the tokenizer's.
fn eos_token_id(plan: &Plan) -> Option<Value> {
    let named = [GENERATION, CONFIG].map(|name| plan.object(name)["eos_token_id"].clone());
    if let Some(id) = named.into_iter().find(|id| id.is_number() || id.is_array()) {
        return Some(id);
    }
    let tokenizer = Tokenizer::load(&plan.model).ok()?;
    if let Some(id) = tokenizer.eos_token().and_then(|token| tokenizer.token_to_id(token)) {
        return Some(id.into());
    }
    let ids = tokenizer.eos_token_ids();
    match ids.len() {
        0 => None,
        1 => ids.first().map(|id| (*id).into()),
        _ => Some(json!(ids)),
    }
}
