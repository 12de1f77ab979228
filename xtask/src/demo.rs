//! `cargo xtask demo`.
use crate::flags;
use anyhow::Result;
use std::process::ExitCode;
pub fn run(_: &flags::Demo) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
