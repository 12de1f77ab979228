//! `cargo xtask fixtures`.
use std::process::ExitCode;
use anyhow::Result;
use crate::flags;
pub fn run(_: &flags::Fixtures) -> Result<ExitCode> { anyhow::bail!("not yet") }
