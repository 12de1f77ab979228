//! One file per command; its arguments' documentation is its help.
//!
//! To add one: its file, its line in [`Command`], [`Command::name`] and [`run`], its test, and
//! the regenerated reference.

mod bench;
mod clone;
mod completions;
mod convert;
mod health;
mod man;
mod models;
mod perplexity;
mod run;
mod schema;
mod show;
pub(crate) mod version;

use clap::Subcommand;

use crate::cli::Cli;
use crate::error::CommandError;
use crate::output::Output;

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    Show(show::Args),
    Health(health::Args),
    Clone(clone::Args),
    Convert(convert::Args),
    Models(models::Args),
    Perplexity(perplexity::Args),
    Bench(bench::Args),
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
            Command::Show(_) => "show",
            Command::Health(_) => "health",
            Command::Clone(_) => "clone",
            Command::Convert(_) => "convert",
            Command::Models(_) => "models",
            Command::Perplexity(_) => "perplexity",
            Command::Bench(_) => "bench",
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
        Some(Command::Show(args)) => show::run(&args, output),
        Some(Command::Health(args)) => health::run(&args, output),
        Some(Command::Clone(args)) => clone::run(&args, output),
        Some(Command::Convert(args)) => convert::run(&args, output),
        Some(Command::Models(args)) => models::run(&args, output),
        Some(Command::Perplexity(args)) => perplexity::run(&args, output),
        Some(Command::Bench(args)) => bench::run(&args, output),
        Some(Command::Completions(args)) => completions::run(&args, output),
        Some(Command::Man(args)) => man::run(&args, output),
        Some(Command::Schema(args)) => schema::run(&args, output),
        None if cli.version => version::run(output),
        None => Err(CommandError::usage("a command is missing")
            .hint("`mlxk --help` lists them; `mlxk run demo` starts a chat")),
    }
}
