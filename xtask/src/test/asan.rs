//! The tests of mlx-core under AddressSanitizer, which ends a test that touches memory it must not.
//!
//! Our Rust and the shim are instrumented. Native MLX is not, but its calls to `malloc`, `free`,
//! `memcpy` and the like go through the sanitizer too, so that a kernel of ours cannot leave one of
//! its buffers unseen, and nothing is freed twice. Rust's standard library is as it comes.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// `detect_leaks`: MLX keeps its scheduler and threads to the end on purpose; the tests count what
/// must not leak. `allocator_may_return_null`: running out of memory is tested.
/// `quarantine_size_mb`: freed memory that is kept counts as resident, which is tested.
const OPTIONS: &str = "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=8";

/// The sanitizer is a setting of nightly compilers; this lets the one at hand take it.
const BOOTSTRAP: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");
const FLAG: &str = "-Zsanitizer=address";

/// Says why the sanitizer cannot be used here.
pub fn unmet() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("no AddressSanitizer: the suite is for Linux".to_owned());
    }
    probe().err().map(|e| format!("no AddressSanitizer: {e:#}"))
}

/// Builds and runs the smallest program.
fn probe() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("probe.rs");
    fs::write(&source, "fn main() {}\n")?;
    let program = dir.path().join("probe");
    let mut rustc = Command::new("rustc");
    rustc.env(BOOTSTRAP.0, BOOTSTRAP.1).arg(FLAG).arg(&source).arg("-o").arg(&program);
    let output = rustc.output().context("cannot start rustc")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::bail!("{}", text.lines().next().unwrap_or("rustc failed"));
    }
    shell::run(&mut Command::new(&program)).context("a program built with it does not run")
}

/// Everything is built apart, for the sanitized target's libraries are of no use to the others.
pub fn run() -> Result<()> {
    let version = shell::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not name its host")?;
    let mut cargo = shell::cargo();
    cargo
        .args(["test", "--package", "mlx-core", "--lib", "--test", "it", "--target", host])
        .env(BOOTSTRAP.0, BOOTSTRAP.1)
        .env("RUSTFLAGS", FLAG)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // The shim's compiler may be another than Rust's; both know the same runtime.
        .env(format!("CXXFLAGS_{}", host.replace('-', "_")), "-fsanitize=address")
        .env("ASAN_OPTIONS", OPTIONS)
        // Several times slower, and what random cases find is looked for without it.
        .env("PROPTEST_CASES", "32")
        .env("CARGO_TARGET_DIR", shell::target_dir()?.join("asan"));
    shell::run(&mut cargo)
}
