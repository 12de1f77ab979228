//! `mlxk schema`.

use crate::error::CommandError;
use crate::output::Output;

const SCHEMA: &str = include_str!("../../schema/mlxk.schema.json");

/// Print the JSON schema of what `--json` prints
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(super) fn run(_: &Args, output: &Output) -> Result<(), CommandError> {
    output.document("schema", SCHEMA)
}
