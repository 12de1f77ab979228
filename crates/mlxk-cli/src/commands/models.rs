//! `mlxk models`.

use std::fmt::Write as _;

use mlx_lm::models::{Entry, FAMILIES};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::CommandError;
use crate::output::Output;

/// List the types of models that run here
///
/// A model's type is `model_type` in its config.json.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "models")]
pub(crate) struct Report {
    families: Vec<FamilyObject>,
}

#[derive(Serialize, JsonSchema)]
struct FamilyObject {
    model_type: &'static str,
    aliases: &'static [&'static str],
    blocks: &'static str,
    caches: &'static str,
    compared_with: &'static str,
}

impl From<&Entry> for FamilyObject {
    fn from(entry: &Entry) -> FamilyObject {
        FamilyObject {
            model_type: entry.model_type,
            aliases: entry.aliases,
            blocks: entry.blocks,
            caches: entry.caches,
            compared_with: entry.compared_with,
        }
    }
}

pub(super) fn run(_args: &Args, output: &Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.success(
            "models",
            &Report { families: FAMILIES.iter().map(FamilyObject::from).collect() },
        );
    }
    let mut text = String::new();
    for entry in FAMILIES {
        let names: Vec<&str> = entry.names().collect();
        let _ = writeln!(text, "{}", names.join(", "));
        for (label, value) in [
            ("blocks", entry.blocks),
            ("caches", entry.caches),
            ("compared with", entry.compared_with),
        ] {
            let _ = writeln!(text, "  {label}: {value}");
        }
    }
    output.write(&text)
}
