//! `mlxk man`.

use clap_mangen::Man;

use crate::cli::grammar;
use crate::error::{CommandError, Kind};
use crate::output::Output;

/// Print the manual page, in roff
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The command whose page it is; the program's when absent
    command: Option<String>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let mut grammar = grammar();
    grammar.build();
    let page = match &args.command {
        None => grammar,
        Some(name) => {
            let found = grammar.find_subcommand(name).cloned();
            let full_name = format!("mlxk-{name}");
            found
                .map(|command| command.display_name(full_name))
                .ok_or_else(|| CommandError::usage(format!("there is no command `{name}`")))?
        }
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).map_err(|e| CommandError::new(Kind::General, e))?;
    output.document("man", &String::from_utf8_lossy(&text))
}
