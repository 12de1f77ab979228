//! `mlxk prune`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::hub::{Garbage, GarbageKind, ModelUsage};
use crate::model;
use crate::output::{Bytes, Output};
use crate::table::{Column, render, terminal_width};

/// Delete from the cache what no model needs
///
/// That is: downloads that did not end, files that no revision has, and what a deletion left behind.
/// Models stay as they are, and what another program is downloading is left alone.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "prune")]
pub(crate) struct Data {
    /// Where the cache is.
    cache: String,
    dry_run: bool,
    /// What was deleted, or would be.
    garbage: Vec<GarbageObject>,
    /// The space that is free now, or would be.
    freed_bytes: u64,
}

/// Something that no model needs.
#[derive(Serialize, JsonSchema)]
pub(super) struct GarbageObject {
    kind: GarbageKind,
    model: Option<String>,
    path: String,
    size_bytes: u64,
}

impl GarbageObject {
    pub(super) fn new(garbage: &Garbage) -> Self {
        GarbageObject {
            kind: garbage.kind,
            model: garbage.model.clone(),
            path: garbage.path.display().to_string(),
            size_bytes: garbage.bytes,
        }
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let resolver = model::resolver()?;
    let cache = resolver.cache();
    let mut garbage = Garbage::in_root(cache).map_err(|e| CommandError::file(cache.root(), &e))?;
    for model in resolver.models()? {
        garbage.extend(ModelUsage::of(&model).garbage);
    }
    let mut deleted = Vec::new();
    for one in &garbage {
        if !args.dry_run {
            one.remove().map_err(|error| failed(one, &error))?;
        }
        deleted.push(GarbageObject::new(one));
    }
    let data = Data {
        cache: cache.root().display().to_string(),
        dry_run: args.dry_run,
        freed_bytes: garbage.iter().map(|garbage| garbage.bytes).sum(),
        garbage: deleted,
    };
    match output.is_json() {
        true => output.success("prune", &data),
        false => output.write(&text(&data)),
    }
}

fn failed(garbage: &Garbage, error: &std::io::Error) -> CommandError {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        _ => Kind::DeletionFailed,
    };
    CommandError::new(kind, format!("{} was not deleted: {error}", garbage.path.display()))
}

fn text(data: &Data) -> String {
    if data.garbage.is_empty() {
        return "nothing to delete\n".to_owned();
    }
    let columns =
        [Column::right("Size"), Column::left("What"), Column::text("Model"), Column::text("File")];
    let row = |garbage: &GarbageObject| {
        let path = garbage.path.strip_prefix(&data.cache).unwrap_or(&garbage.path);
        vec![
            Bytes(garbage.size_bytes).to_string(),
            garbage.kind.words().to_owned(),
            garbage.model.clone().unwrap_or("-".to_owned()),
            path.trim_start_matches('/').to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = data.garbage.iter().map(row).collect();
    let freed = Bytes(data.freed_bytes);
    let verb = if data.dry_run { "would be freed" } else { "freed" };
    render(&columns, &rows, terminal_width()) + &format!("{freed} {verb}\n")
}
