//! `cargo xtask tidy`.
use anyhow::Result;
use std::process::ExitCode;
pub fn run() -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
