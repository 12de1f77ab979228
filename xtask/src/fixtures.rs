//! `cargo xtask fixtures`.
use crate::flags;
use anyhow::Result;
use std::process::ExitCode;
pub fn run(_: &flags::Fixtures) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
