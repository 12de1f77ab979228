//! The arithmetic of mlx-core's kernels on ARM's 64-bit CPUs, under an emulator.
//!
//! What differs between the CPUs is which instructions they have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::compute;
use crate::{native, shell};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// As the linker's libraries need not be those that the emulator would find, programs bring theirs.
const FLAG: &str = "-Ctarget-feature=+crt-static";

/// Debian's names.
const PACKAGES: &str = "apt-get install rustc-web libstd-rust-web-dev:arm64 \
                        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static";

/// CPUs of the emulator, the instruction set that is to be chosen there, and the tests to run.
const CPUS: &[(&str, &str, &[&str])] = &[
    ("max", "neon", &[]),
    // Dot products, but no products of matrices, of which only packed weights make use.
    ("neoverse-n1", "neon", &["quantized", "chosen"]),
    ("cortex-a72", "scalar", &[]),
];

/// Says why nothing can be run.
pub fn unmet() -> Option<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("no emulated aarch64: the suite is for Linux on x86-64".to_owned());
    }
    let missing = match (rustc(), emulator()) {
        (None, _) => "a Rust compiler with that target",
        (_, None) => "an emulator",
        _ if !native::has_program(LINKER) => "a linker",
        (Some(rustc), Some(emulator)) => {
            probe(&rustc, emulator).err()?;
            "what builds and runs the smallest program"
        }
    };
    Some(format!("no aarch64: {missing} is missing: {PACKAGES}"))
}

/// Returns the compiler in use, or else the system's, if it has the target's standard library.
fn rustc() -> Option<PathBuf> {
    ["rustc", "/usr/bin/rustc"].into_iter().map(PathBuf::from).find(|rustc| {
        let output = Command::new(rustc).args(["--print", "sysroot"]).output();
        output.is_ok_and(|output| {
            let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success() && Path::new(&sysroot).join("lib/rustlib").join(TARGET).exists()
        })
    })
}

fn emulator() -> Option<&'static str> {
    ["qemu-aarch64-static", "qemu-aarch64"].into_iter().find(|name| native::has_program(name))
}

/// Builds and runs the smallest program.
fn probe(rustc: &Path, emulator: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, program) = (dir.path().join("probe.rs"), dir.path().join("probe"));
    fs::write(&source, "fn main() {}\n")?;
    let mut build = Command::new(rustc);
    build.args(["--target", TARGET, FLAG, &format!("-Clinker={LINKER}"), "-o"]);
    ensure!(shell::succeeds(build.arg(&program).arg(&source)), "no program is built");
    ensure!(shell::succeeds(Command::new(emulator).arg(&program)), "it does not run");
    Ok(())
}

pub fn run() -> Result<()> {
    let rustc = rustc().context("no Rust compiler for aarch64")?;
    let emulator = emulator().context("no emulator of aarch64")?;
    let dir = shell::target_dir()?.join("aarch64");
    compute::write_package(&dir)?;
    for (cpu, isa, tests) in CPUS {
        shell::step(&format!("{cpu}: {isa}"));
        let mut cargo = shell::cargo_here();
        let set = |name: &str| format!("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_{name}");
        cargo
            .current_dir(&dir)
            .args(["test", "--lib", "--target", TARGET, "--"])
            .args(*tests)
            .env("RUSTC", &rustc)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env(set("RUSTFLAGS"), FLAG)
            .env(set("LINKER"), LINKER)
            .env(set("RUNNER"), format!("{emulator} -cpu {cpu}"))
            .env("CARGO_TARGET_DIR", dir.join("target"))
            .env("EXPECTED_ISA", isa)
            // An emulator is slow, and what random cases find is looked for without it.
            .env("PROPTEST_CASES", "8");
        shell::run(&mut cargo)?;
    }
    Ok(())
}
