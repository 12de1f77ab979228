//! One file per command; its arguments' documentation is its help.
//!
//! To add one: its file, its line in [`Command`], [`Command::name`] and [`run`], its test, and
//! the regenerated reference.

mod bench;
mod clone;
mod compare;
mod completions;
mod config;
mod convert;
mod doctor;
mod du;
mod health;
mod list;
mod man;
mod models;
mod perplexity;
mod prune;
mod ps;
mod rm;
mod run;
mod schema;
mod show;
mod verify;
pub(crate) mod version;

use std::path::Path;

use clap::Subcommand;

use crate::cli::Cli;
use crate::error::{CommandError, Kind};
use crate::hub::CachedModel;
use crate::output::Output;
use crate::resolve::{Purpose, Resolved, Resolver};

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    List(list::Args),
    Ps(ps::Args),
    Show(show::Args),
    Rm(rm::Args),
    Du(du::Args),
    Prune(prune::Args),
    Verify(verify::Args),
    Health(health::Args),
    Clone(clone::Args),
    Convert(convert::Args),
    Models(models::Args),
    Perplexity(perplexity::Args),
    Compare(compare::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
    #[command(hide = true)]
    Schema(schema::Args),
}

impl Command {
    /// Returns the name that the JSON envelope gives the command.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Run(_) => "run",
            Command::List(_) => "list",
            Command::Ps(_) => "ps",
            Command::Show(_) => "show",
            Command::Rm(_) => "rm",
            Command::Du(_) => "du",
            Command::Prune(_) => "prune",
            Command::Verify(_) => "verify",
            Command::Health(_) => "health",
            Command::Clone(_) => "clone",
            Command::Convert(_) => "convert",
            Command::Models(_) => "models",
            Command::Perplexity(_) => "perplexity",
            Command::Compare(_) => "compare",
            Command::Bench(_) => "bench",
            Command::Doctor(_) => "doctor",
            Command::Config(_) => "config",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
            Command::Schema(_) => "schema",
        }
    }
}

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli, output: &Output) -> Result<(), CommandError> {
    match cli.command {
        Some(Command::Run(args)) => run::run(args, output),
        Some(Command::List(args)) => list::run(&args, output),
        Some(Command::Ps(args)) => ps::run(&args, output),
        Some(Command::Show(args)) => show::run(&args, output),
        Some(Command::Rm(args)) => rm::run(&args, output),
        Some(Command::Du(args)) => du::run(&args, output),
        Some(Command::Prune(args)) => prune::run(&args, output),
        Some(Command::Verify(args)) => verify::run(&args, output),
        Some(Command::Health(args)) => health::run(&args, output),
        Some(Command::Clone(args)) => clone::run(&args, output),
        Some(Command::Convert(args)) => convert::run(&args, output),
        Some(Command::Models(args)) => models::run(&args, output),
        Some(Command::Perplexity(args)) => perplexity::run(&args, output),
        Some(Command::Compare(args)) => compare::run(&args, output),
        Some(Command::Bench(args)) => bench::run(&args, output),
        Some(Command::Doctor(args)) => doctor::run(&args, output),
        Some(Command::Config(args)) => config::run(&args, cli.threads, output),
        Some(Command::Completions(args)) => completions::run(&args, output),
        Some(Command::Man(args)) => man::run(&args, output),
        Some(Command::Schema(args)) => schema::run(&args, output),
        None if cli.version => version::run(output),
        None => Err(CommandError::usage("a command is missing")
            .hint("`mlxk --help` lists them; `mlxk run demo` starts a chat")),
    }
}

/// Finds a cached model by name, for a command that looks into the cache.
fn cached(resolver: &Resolver, name: &Path) -> Result<CachedModel, CommandError> {
    match resolver.resolve(name, Purpose::Read)? {
        Resolved::Cached(cached) => Ok(cached.model),
        Resolved::Demo | Resolved::Workspace(_) => {
            let text = format!("`{}` is not a cached model", name.display());
            Err(CommandError::new(Kind::WorkspaceModel, text)
                .hint("`mlxk list --all` shows the models that are cached"))
        }
    }
}
