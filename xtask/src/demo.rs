//! `cargo xtask demo`: from nothing to an answer of the bundled model.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::{flags, native, setup, shell};

const QUESTION: [&str; 3] = ["run", "demo", "What is the capital of France?"];

pub fn run(flags: &flags::Demo) -> Result<ExitCode> {
    timed("the system packages", setup::require)?;
    timed("native MLX", native::ensure)?;
    timed("mlxk", || shell::run(mlxk("build").args(["--bin", "mlxk"])))?;
    let mut mlxk = mlxk("run");
    mlxk.args(["--quiet", "--bin", "mlxk", "--"]);
    if flags.args.is_empty() {
        shell::step(&format!("mlxk {} {} \"{}\"", QUESTION[0], QUESTION[1], QUESTION[2]));
        mlxk.args(QUESTION);
    } else {
        mlxk.args(&flags.args);
    }
    become_(mlxk)
}

/// Says what is made ready, and how long that took.
fn timed(what: &str, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    shell::step(what);
    let start = Instant::now();
    ready()?;
    eprintln!("    ready after {}", shell::seconds(start.elapsed()));
    Ok(())
}

/// Runs in the user's directory, so that relative paths in ARGS mean what they say. It is cargo
/// that starts `mlxk`: it knows where the binary lies and which shared libraries it needs.
fn mlxk(command: &str) -> Command {
    let mut cargo = shell::cargo_here();
    cargo.args([command, "--release", "--package", "mlxk-cli", "--manifest-path"]);
    cargo.arg(shell::root().join("Cargo.toml"));
    cargo
}

/// Gives this process over to the program, whose exit code, signals and terminal are then its
/// own: Ctrl-C in a chat must not end a parent of it.
#[cfg(unix)]
fn become_(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn become_(mut command: Command) -> Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
