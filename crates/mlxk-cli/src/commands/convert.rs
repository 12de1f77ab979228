//! `mlxk convert`.

pub(super) mod repair;

use std::path::PathBuf;

use crate::error::{CommandError, Kind};
use crate::output::Output;
use crate::repair::RepairArgs;

/// Mend a model's files into a new workspace
///
/// The source is never changed and the cache of models never written; the target appears when it
/// is complete. Exactly one repair is made, or all that are needed with --repair-all.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory with a model's files
    #[arg(value_hint = clap::ValueHint::DirPath)]
    source: PathBuf,

    /// The new workspace: a path, or a name in the workspace home
    #[arg(value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,

    #[command(flatten)]
    repair: RepairArgs,

    /// Show what would change and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not look whether the result is healthy
    #[arg(long)]
    skip_health: bool,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let Some(mode) = args.repair.mode() else {
        return Err(CommandError::new(Kind::InvalidArgument, "no mode is given")
            .hint("`mlxk health DIR` tells which repairs would help; --repair-all makes them"));
    };
    repair::run(&args.repair, mode, args, output)
}
