//! The kernels' arithmetic in plain Rust under Miri, which ends a test that does what Rust leaves
//! undefined: reads of memory that was not written, pointers out of their slice, data races.
//!
//! Miri interprets, a thousand times slower than a CPU, so sizes and numbers of cases are small there,
//! and tests that walk through all of a function's arguments are left out.

use std::process::Command;

use anyhow::Result;

use super::compute;
use crate::shell;

/// A component of nightly toolchains alone.
const TOOLCHAIN: &str = "+nightly";

/// Each of millions of arguments, or sizes at which several threads take part: by the name of the test.
const SKIPPED: &[&str] = &[
    "sines_are_rounded",
    "halves_become",
    "rounding_is_the_library_s",
    "exponentials_are_within",
    "several_threads_agree",
];

/// Says why Miri cannot be used here.
pub fn unmet() -> Option<String> {
    let is_there = shell::succeeds(Command::new("cargo").args([TOOLCHAIN, "miri", "--version"]));
    let hint = "rustup toolchain install nightly --component miri,rust-src";
    (!is_there).then(|| format!("no Miri: {hint}"))
}

pub fn run() -> Result<()> {
    let dir = shell::target_dir()?.join("miri");
    compute::write_package(&dir)?;
    let skipped = SKIPPED.iter().flat_map(|name| ["--skip", name]);
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&dir)
        .args([TOOLCHAIN, "miri", "test", "--lib", "--"])
        .args(skipped)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("EXPECTED_ISA", "scalar")
        // Threads of the pool are still there when the tests end; times and files are real.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks")
        .env("PROPTEST_CASES", "2");
    shell::run(&mut cargo)
}
