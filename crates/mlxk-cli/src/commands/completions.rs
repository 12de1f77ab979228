//! `mlxk completions`.

use clap_complete::Shell;

use crate::cli::grammar;
use crate::error::CommandError;
use crate::output::Output;

/// Print the completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mlxk completions bash > ~/.local/share/bash-completion/completions/mlxk
  mlxk completions fish > ~/.config/fish/completions/mlxk.fish")]
pub(crate) struct Args {
    /// The shell that will read them
    shell: Shell,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut grammar(), "mlxk", &mut text);
    output.document("completions", &String::from_utf8_lossy(&text))
}
