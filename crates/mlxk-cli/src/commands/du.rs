//! `mlxk du`.

use std::path::PathBuf;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::prune::GarbageObject;
use crate::error::CommandError;
use crate::hub::{CachedModel, Garbage, ModelUsage};
use crate::model;
use crate::output::{Bytes, Output};
use crate::table::{Column, render, terminal_width};

/// Show how much space cached models take
///
/// A file that several revisions share takes space once; `Own` is what would be free without a
/// revision, which `mlxk rm org/name@revision` deletes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model; all when absent
    model: Option<PathBuf>,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "du")]
pub(crate) struct Data {
    /// Where the cache is.
    cache: String,
    models: Vec<ModelEntry>,
    /// What no model needs, which `prune` deletes.
    garbage: Vec<GarbageObject>,
    total_bytes: u64,
    reclaimable_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "du_model")]
struct ModelEntry {
    name: String,
    size_bytes: u64,
    revisions: Vec<RevisionEntry>,
}

#[derive(Serialize, JsonSchema)]
struct RevisionEntry {
    hash: String,
    /// The branches and tags that mean it.
    refs: Vec<String>,
    files: usize,
    size_bytes: u64,
    /// What would be free without it.
    own_bytes: u64,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let resolver = model::resolver()?;
    let cache = resolver.cache();
    let (models, mut garbage): (Vec<CachedModel>, Vec<Garbage>) = match &args.model {
        Some(name) => (vec![super::cached(&resolver, name)?], Vec::new()),
        None => {
            let in_root = Garbage::in_root(cache);
            let in_root = in_root.map_err(|e| CommandError::file(cache.root(), &e))?;
            (resolver.models()?, in_root)
        }
    };
    let mut usages: Vec<ModelUsage> = models.par_iter().map(ModelUsage::of).collect();
    usages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
    garbage.extend(usages.iter_mut().flat_map(|usage| std::mem::take(&mut usage.garbage)));
    let in_root = garbage.iter().filter(|g| g.model.is_none()).map(|g| g.bytes).sum::<u64>();
    let data = Data {
        cache: cache.root().display().to_string(),
        total_bytes: usages.iter().map(|usage| usage.bytes).sum::<u64>() + in_root,
        reclaimable_bytes: garbage.iter().map(|garbage| garbage.bytes).sum(),
        models: usages.into_iter().map(ModelEntry::from).collect(),
        garbage: garbage.iter().map(GarbageObject::new).collect(),
    };
    match output.is_json() {
        true => output.success("du", &data),
        false => {
            output.write(&text(&data))?;
            if data.reclaimable_bytes > 0 {
                let bytes = Bytes(data.reclaimable_bytes);
                output.hint(&format!("`mlxk prune` frees {bytes} that no model needs"));
            }
            Ok(())
        }
    }
}

impl From<ModelUsage> for ModelEntry {
    fn from(usage: ModelUsage) -> Self {
        let revisions = usage.revisions.into_iter().map(|revision| RevisionEntry {
            hash: revision.commit,
            refs: revision.refs,
            files: revision.files,
            size_bytes: revision.bytes,
            own_bytes: revision.own_bytes,
        });
        ModelEntry { name: usage.id, size_bytes: usage.bytes, revisions: revisions.collect() }
    }
}

fn text(data: &Data) -> String {
    let columns = [
        Column::text("Name"),
        Column::left("Revision"),
        Column::left("Refs"),
        Column::right("Files"),
        Column::right("Size"),
        Column::right("Own"),
    ];
    let mut rows = Vec::new();
    for model in &data.models {
        let several = model.revisions.len() != 1;
        if several {
            let size = Bytes(model.size_bytes).to_string();
            let empty = String::new;
            rows.push(vec![model.name.clone(), empty(), empty(), empty(), size, empty()]);
        }
        for revision in &model.revisions {
            rows.push(vec![
                if several { String::new() } else { model.name.clone() },
                revision.hash.get(..7).unwrap_or(&revision.hash).to_owned(),
                revision.refs.join(", "),
                revision.files.to_string(),
                Bytes(revision.size_bytes).to_string(),
                Bytes(revision.own_bytes).to_string(),
            ]);
        }
    }
    let count = data.models.len();
    let word = if count == 1 { "model" } else { "models" };
    let total = Bytes(data.total_bytes);
    render(&columns, &rows, terminal_width()) + &format!("{total} in {count} {word}\n")
}
