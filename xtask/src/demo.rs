//! `cargo xtask demo`.
use std::process::ExitCode;
use anyhow::Result;
use crate::flags;
pub fn run(_: &flags::Demo) -> Result<ExitCode> { anyhow::bail!("not yet") }
