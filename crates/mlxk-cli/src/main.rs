//! `mlxk`: runs, inspects and measures language models on MLX.
//!
//! This crate is the surface only: it reads the command line ([`cli`]) and the [`settings`], finds
//! the model ([`resolve`], in the cache on disk that [`hub`] reads), lets one file of [`commands`] do
//! the work through `mlx-lm`, and says what went wrong ([`error`]). It holds no tensor code. Data
//! goes to stdout and nothing else does ([`output`]).
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod describe;
mod detect;
mod error;
mod health;
mod hub;
mod interrupt;
mod model;
mod output;
mod progress;
mod repair;
mod resolve;
mod running;
mod settings;
mod table;
mod verdicts;
mod workspace;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use crate::error::{CommandError, Kind};
use crate::output::Output;
use crate::settings::Settings;

/// The version of this program.
pub(crate) const CLI_VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    interrupt::end_quietly_on_broken_pipe();
    let args: Vec<_> = std::env::args_os().collect();
    let mut output = Output::new(cli::wants_json(&args));
    let cli = match cli::parse(&args) {
        Ok(cli) => cli,
        Err(error) => return cli::report(&error, &output),
    };
    let name = cli.command_name();
    // What is broken in them is told by the commands that need more of them.
    let settings = Settings::load().ok();
    let strict = settings.as_ref().is_some_and(|settings| settings.strict_exit.value);
    output.set_strict(cli.strict_exit, strict);
    if let Some(threads) = cli.threads.or_else(|| settings?.threads.value) {
        mlx_lm::core::kernels::set_threads(threads.into());
    }
    let done = caught(|| commands::run(cli, &output));
    running::leave();
    match done {
        Ok(()) => output.exit_code(),
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
