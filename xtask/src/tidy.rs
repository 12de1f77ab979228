//! `cargo xtask tidy`.
use std::process::ExitCode;
use anyhow::Result;
pub fn run() -> Result<ExitCode> { anyhow::bail!("not yet") }
