//! Whether a model's files are all there, as `list` and `show` tell it.
//!
//! One question in one place, so that both commands answer it alike.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::hub::files;

/// Returns the first thing that is wrong with the files in a directory, if any is.
pub(crate) fn defect(dir: &Path) -> Option<String> {
    let files = files(dir);
    let is_weights = |name: &str| {
        [".safetensors", ".gguf", ".bin", ".npz"].iter().any(|suffix| name.ends_with(suffix))
    };
    let Ok(config) = std::fs::read(dir.join("config.json")) else {
        return Some("config.json is missing".to_owned());
    };
    match serde_json::from_slice::<Value>(&config) {
        Ok(Value::Object(config)) if !config.is_empty() => {}
        _ => return Some("config.json is no JSON object".to_owned()),
    }
    if let Some(broken) = files.iter().find(|file| file.size.is_none()) {
        return Some(format!("{}: the link leads nowhere", broken.name));
    }
    if let Some(empty) = files.iter().find(|file| is_weights(&file.name) && file.size == Some(0)) {
        return Some(format!("{}: the file is empty", empty.name));
    }
    if !files.iter().any(|file| is_weights(&file.name)) {
        return Some("there are no weights".to_owned());
    }
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let index = std::fs::read(dir.join("model.safetensors.index.json")).ok()?;
    let Ok(index) = serde_json::from_slice::<Value>(&index) else {
        return Some("model.safetensors.index.json is no JSON".to_owned());
    };
    let shards = index["weight_map"].as_object()?.values().filter_map(Value::as_str);
    let missing: BTreeSet<&str> = shards.filter(|shard| !names.contains(shard)).collect();
    missing.first().map(|shard| format!("{shard} is missing"))
}
