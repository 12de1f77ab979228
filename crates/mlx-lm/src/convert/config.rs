//! The configuration of what was converted.

use std::collections::HashMap;

use mlx_core::Quantization;
use serde_json::{Map, Value, json};

use super::plan::Plan;

/// Lays what a plan made of the layers over a model's configuration.
///
/// Each entry is complete: readers take a missing mode for affine, not for the whole's.
pub(super) fn converted(raw: &Value, plan: &Plan, args: &ConfigArgs) -> Value {
    let mut object = raw.as_object().cloned().unwrap_or_default();
    let before = match object.remove("quantization_config") {
        Some(of_others) => object.remove("quantization").unwrap_or(of_others),
        None => object.remove("quantization").unwrap_or_default(),
    };
    if let Some(text) = object.get_mut("text_config").and_then(Value::as_object_mut) {
        text.remove("quantization_config");
    }
    if args.drops_vision {
        object.remove("vision_config");
    }
    if let Some(ids) = &args.eos_token_ids {
        object.insert("eos_token_id".to_owned(), ids.clone());
    }
    if plan.layers.values().any(Option::is_some) {
        let quantization = Value::Object(quantization(plan, args, &before));
        object.insert("quantization".to_owned(), quantization.clone());
        object.insert("quantization_config".to_owned(), quantization);
    }
    Value::Object(object)
}

/// What is to be known beside a plan.
pub(super) struct ConfigArgs {
    /// What layers without an entry are quantized in, if the options or the source say.
    pub(super) default: Option<Quantization>,
    /// Whether every layer gets an entry, dense ones, too: those of a source that was quantized.
    pub(super) is_complete: bool,
    /// The tokens that end an answer, where the generation settings name some, which readers of the
    /// configuration alone do not see.
    pub(super) eos_token_ids: Option<Value>,
    /// Whether the model has no part for images any more.
    pub(super) drops_vision: bool,
}

fn quantization(plan: &Plan, args: &ConfigArgs, before: &Value) -> Map<String, Value> {
    let default = args.default.unwrap_or_else(|| most_common(plan));
    let mut settings = Map::new();
    if let (true, Some(before)) = (args.is_complete, before.as_object()) {
        let is_own = before.get("quant_method").is_none();
        let others =
            before.iter().filter(|(_, value)| is_own && !value.is_object() && !value.is_boolean());
        settings.extend(others.map(|(key, value)| (key.clone(), value.clone())));
        // The one switch that mlx-lm has.
        let switch = before.get("quantize_activations").filter(|_| is_own);
        settings.extend(switch.map(|value| ("quantize_activations".to_owned(), value.clone())));
    }
    settings.extend(entry(default));
    for (path, quantization) in &plan.layers {
        let has_own = args.is_complete || quantization.is_some_and(|q| q != default);
        let value = match quantization {
            _ if !has_own => continue,
            None => Value::Bool(false),
            Some(quantization) => {
                let mut entry = entry(*quantization);
                let name = format!("{path}.global_scale");
                if plan.outputs.iter().any(|(layout, _)| layout.name == name) {
                    entry.insert("global_scale".to_owned(), true.into());
                }
                Value::Object(entry)
            }
        };
        settings.insert(path.clone(), value);
    }
    settings
}

fn entry(quantization: Quantization) -> Map<String, Value> {
    let Quantization { group_size, bits, mode } = quantization;
    let entry = json!({ "group_size": group_size, "bits": bits, "mode": mode.name() });
    entry.as_object().cloned().unwrap_or_default()
}

fn most_common(plan: &Plan) -> Quantization {
    let mut counts: HashMap<Quantization, usize> = HashMap::new();
    for quantization in plan.layers.values().flatten() {
        *counts.entry(*quantization).or_default() += 1;
    }
    // Of two as common, the first by its name, so that a run gives what the last one gave.
    let most = counts.into_iter().max_by_key(|(q, n)| (*n, std::cmp::Reverse(q.to_string())));
    most.map_or_else(Quantization::default, |(quantization, _)| quantization)
}
