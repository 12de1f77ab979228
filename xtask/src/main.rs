//! `cargo xtask`: builds native MLX, runs the test matrix, and keeps the house rules.
//!
//! Dispatch only; flags are in `flags.rs`, each task in the file of its name.
#![forbid(unsafe_code)]

mod bench;
mod bindings;
mod demo;
mod fixtures;
mod flags;
mod native;
mod setup;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;
use flags::{Flags, Task};

fn main() -> ExitCode {
    let result = match Flags::parse().task {
        Task::Setup(flags) => setup::run(&flags),
        Task::Native(flags) => native::run(&flags),
        Task::Bindings(flags) => bindings::run(&flags),
        Task::Fixtures(flags) => fixtures::run(&flags),
        Task::Tidy => tidy::run(),
        Task::Test(flags) => test::run(&flags),
        Task::Demo(flags) => demo::run(&flags),
        Task::Bench(flags) => bench::run(&flags),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
