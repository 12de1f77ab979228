//! `model.safetensors.index.json`, written from the headers of the files that it lists.

use std::collections::BTreeMap;

use mlx_lm::core::io::SafetensorsFile;
use serde_json::json;

use super::{Change, Plan};
use crate::error::{CommandError, Kind};

const NAME: &str = "model.safetensors.index.json";

/// Findings of a model that is not all there, which a new index would only hide.
const INCOMPLETE: [&str; 7] = [
    "shard_missing",
    "shard_totals",
    "tensor_missing",
    "download_incomplete",
    "file_dangling",
    "lfs_pointer",
    "partial_file",
];

pub(super) fn plan(plan: &mut Plan) -> Result<(), CommandError> {
    let incomplete = plan.health.findings.iter().find(|f| INCOMPLETE.contains(&f.code));
    if let Some(finding) = incomplete {
        let text = format!("the model is not complete: {}", finding.message);
        return Err(CommandError::new(Kind::InvalidModel, text)
            .hint("an index of what is there would only hide that; download the model again"));
    }
    let shards = shards(plan)?;
    if shards.len() < 2 {
        if plan.files.contains_key(NAME) && wrong(plan) {
            plan.changes.insert(NAME.to_owned(), Change::Remove);
        }
        return Ok(());
    }
    let rewritten = plan.changes.values().any(|change| matches!(change, Change::Rewrite(_)));
    if !wrong(plan) && (plan.files.contains_key(NAME) || !rewritten) {
        return Ok(());
    }
    let text = index(&shards)?;
    plan.write(NAME, text);
    Ok(())
}

/// Whether the source's index is not as it should be.
fn wrong(plan: &Plan) -> bool {
    ["index_stale", "index_missing", "index_invalid", "index_total_size"]
        .iter()
        .any(|code| plan.has(code))
}

/// The tensors of the weight files as they will be, with their sizes, by file.
fn shards(plan: &Plan) -> Result<BTreeMap<String, Vec<(String, u64)>>, CommandError> {
    let mut shards = BTreeMap::new();
    for (name, path) in &plan.files {
        let weights = name.ends_with(".safetensors") && !name.contains('/');
        if weights && !plan.changes.contains_key(name) {
            let file = SafetensorsFile::open(path)?;
            let tensors =
                file.tensors().map(|(name, info)| (name.to_owned(), info.range.len() as u64));
            shards.insert(name.clone(), tensors.collect());
        }
    }
    for (name, change) in &plan.changes {
        if let Change::Rewrite(rewrite) = change {
            shards.insert(name.clone(), rewrite.tensors()?);
        }
    }
    // As the loader chooses them.
    if shards.keys().any(|name| name.starts_with("model")) {
        shards.retain(|name, _| name.starts_with("model"));
    } else if shards.keys().any(|name| !name.starts_with("consolidated")) {
        shards.retain(|name, _| !name.starts_with("consolidated"));
    }
    Ok(shards)
}

fn index(shards: &BTreeMap<String, Vec<(String, u64)>>) -> Result<Vec<u8>, CommandError> {
    let mut weight_map: BTreeMap<&str, &str> = BTreeMap::new();
    let mut total_size = 0;
    for (file, tensors) in shards {
        for (tensor, size) in tensors {
            total_size += size;
            if let Some(other) = weight_map.insert(tensor, file) {
                let text = format!("{other} and {file} both hold tensor {tensor:?}");
                return Err(CommandError::new(Kind::InvalidModel, text)
                    .hint("one of them is left over; remove it"));
            }
        }
    }
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    let mut text =
        serde_json::to_vec_pretty(&index).map_err(|e| CommandError::new(Kind::General, e))?;
    text.push(b'\n');
    Ok(text)
}
