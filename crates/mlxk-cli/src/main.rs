//! `mlxk`: runs, inspects and measures language models on MLX.
//!
//! This crate is the surface only: it reads the command line ([`cli`]), lets one file of
//! [`commands`] do the work through `mlx-lm`, and says what went wrong ([`error`]). It holds no
//! tensor code. Data goes to stdout and nothing else does ([`output`]).
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod error;
mod health;
mod interrupt;
mod model;
mod output;
mod workspace;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use crate::error::{CommandError, Kind};
use crate::output::Output;

fn main() -> ExitCode {
    interrupt::end_quietly_on_broken_pipe();
    let args: Vec<_> = std::env::args_os().collect();
    let output = Output::new(cli::wants_json(&args));
    let cli = match cli::parse(&args) {
        Ok(cli) => cli,
        Err(error) => return cli::report(&error, &output),
    };
    if let Some(threads) = cli.threads {
        mlx_lm::core::kernels::set_threads(threads.into());
    }
    let name = cli.command_name();
    match caught(|| commands::run(cli, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure(name, &error),
    }
}

/// Turns a panic, which is a defect of this program, into an error like any other.
fn caught(work: impl FnOnce() -> Result<(), CommandError>) -> Result<(), CommandError> {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|_| {}));
    }
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(CommandError::new(Kind::Internal, format!("internal error: {text}"))
            .hint("this is a defect of mlxk; RUST_BACKTRACE=1 shows where it happened"))
    })
}
