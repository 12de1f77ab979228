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

/// By the name of the test: each of very many arguments, sizes at which several threads take part or
/// which fill large tiles, one instruction set beside another, speed.
const SKIPPED: &[&str] = &[
    "sines_are_rounded",
    "halves_become",
    "rounding_is_the_library_s",
    "exponentials_are_within",
    "exp::tests::agree_with_float64",
    "several_threads_agree",
    "shares_of_keys_are_merged",
    "nothing_outside_of_a_window",
    "chunks_are_the_whole",
    "long_rows",
    "many_rows",
    "large_stacks",
    "layers_that_share",
    "instruction_sets_agree",
    "reading_is_brief",
    "every_byte_is_read",
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
        .env("PROPTEST_CASES", "1");
    shell::run(&mut cargo)
}
