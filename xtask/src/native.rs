//! `cargo xtask native`: what mlx-sys' build script does, with its progress in sight.

use std::process::ExitCode;

use anyhow::Result;

use crate::{flags, setup, shell};

#[allow(dead_code)]
#[path = "../../crates/mlx-sys/build/native.rs"]
mod build;

pub use build::{MLX_VERSION, has_program};

pub fn run(flags: &flags::Native) -> Result<ExitCode> {
    let build = description(flags)?;
    if flags.sources_only {
        println!("{}", build.lay_out(&mut shell::step)?.display());
        return Ok(ExitCode::SUCCESS);
    }
    if !flags.print_prefix {
        setup::require()?;
        build.ensure(&mut shell::step)?;
    }
    println!("{}", build.prefix()?.0.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes native MLX as the environment asks for it, unless it is there.
pub fn ensure() -> Result<()> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    if set("MLX_SYS_PREFIX").is_some() {
        return Ok(());
    }
    let flags = flags::Native {
        backend: std::env::var("MLX_SYS_BACKEND").ok().filter(|v| !v.is_empty()),
        installed: set("MLX_SYS_INSTALLED").map(Into::into),
        sources_only: false,
        print_prefix: false,
    };
    description(&flags)?.ensure(&mut shell::step)?;
    Ok(())
}

/// Lays out the sources of MLX and tells where.
#[cfg(feature = "bindings")]
pub fn sources() -> Result<std::path::PathBuf> {
    let flags =
        flags::Native { backend: None, installed: None, sources_only: true, print_prefix: false };
    Ok(description(&flags)?.lay_out(&mut shell::step)?)
}

fn description(flags: &flags::Native) -> Result<build::Build> {
    let target = host_target()?;
    let backend = match &flags.backend {
        Some(name) => build::Backend::parse(name)?,
        None => build::Backend::choose(&target, flags.installed.as_deref()),
    };
    Ok(build::Build {
        crate_dir: shell::root().join("crates/mlx-sys"),
        target,
        backend,
        installed: flags.installed.clone(),
        cache: build::default_cache()?,
    })
}

fn host_target() -> Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("rustc -vV names no host"))
}
