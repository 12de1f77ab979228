//! `cargo xtask setup`: the system packages that native MLX is built with.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::native::has_program;
use crate::{flags, shell};

/// A thing the build needs and the packages that bring it.
struct Need {
    what: &'static str,
    is_there: fn() -> bool,
    apt: &'static str,
    brew: &'static str,
    developer: bool,
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C++20 compiler",
        is_there: || has_program("c++") || has_program("g++"),
        apt: "g++",
        brew: "",
        developer: false,
    },
    Need {
        what: "make",
        is_there: || has_program("make") || has_program("ninja"),
        apt: "make",
        brew: "",
        developer: false,
    },
    Need {
        what: "cmake 3.25 or newer",
        is_there: || has_program("cmake"),
        apt: "cmake",
        brew: "cmake",
        developer: false,
    },
    Need {
        what: "BLAS and LAPACK",
        is_there: || cfg!(target_os = "macos") || has_blas(),
        apt: "libopenblas-dev liblapack-dev liblapacke-dev",
        brew: "",
        developer: false,
    },
    Need {
        what: "libclang",
        is_there: has_libclang,
        apt: "libclang-dev",
        brew: "llvm",
        developer: true,
    },
];

pub fn run(flags: &flags::Setup) -> Result<ExitCode> {
    let missing = missing(flags.dev);
    if missing.is_empty() {
        eprintln!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    if flags.check {
        for need in &missing {
            eprintln!("missing: {}", need.what);
        }
        eprintln!("hint: {}", advice(&missing));
        return Ok(ExitCode::FAILURE);
    }
    install(&missing)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what a build needs, or stops with the command that does.
pub fn require() -> Result<()> {
    match missing(false) {
        missing if missing.is_empty() => Ok(()),
        missing => install(&missing),
    }
}

/// Tells whether bindgen would find its library.
pub fn has_libclang() -> bool {
    std::env::var_os("LIBCLANG_PATH").is_some()
        || ["/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
            .iter()
            .any(|dir| has_file_starting(Path::new(dir), "libclang"))
        || has_llvm_with_libclang()
}

fn has_llvm_with_libclang() -> bool {
    let versions = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    versions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .any(|entry| has_file_starting(&entry.path().join("lib"), "libclang"))
        || Path::new("/opt/homebrew/opt/llvm/lib/libclang.dylib").exists()
        || Path::new("/Library/Developer/CommandLineTools/usr/lib/libclang.dylib").exists()
}

/// Finds `NAME.so…` or `NAME-….so…`, which the C++ library `libclang-cpp` is not.
fn has_file_starting(dir: &Path, name: &str) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        file.starts_with(name) && file.contains(".so") && !file.contains("cpp")
    })
}

fn has_blas() -> bool {
    let include = ["/usr/include", "/usr/local/include"];
    let headers = ["lapacke.h"]
        .iter()
        .all(|header| include.iter().any(|dir| Path::new(dir).join(header).exists()));
    let libraries = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ];
    let has_blas = libraries.iter().any(|dir| {
        has_file_starting(Path::new(dir), "libopenblas")
            || has_file_starting(Path::new(dir), "libblas")
    });
    headers && has_blas
}

fn missing(developer: bool) -> Vec<&'static Need> {
    let mut missing: Vec<_> = NEEDS
        .iter()
        .filter(|need| developer || !need.developer)
        .filter(|n| !(n.is_there)())
        .collect();
    if let Some(cmake) = NEEDS.iter().find(|need| need.apt == "cmake")
        && has_program("cmake")
        && !cmake_is_new()
    {
        missing.push(cmake);
    }
    missing
}

fn cmake_is_new() -> bool {
    let Ok(output) = Command::new("cmake").arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (3, 25)
}

fn packages(missing: &[&Need], of: fn(&Need) -> &'static str) -> Vec<&'static str> {
    missing.iter().flat_map(|need| of(need).split_whitespace()).collect()
}

fn advice(missing: &[&Need]) -> String {
    if cfg!(target_os = "macos") {
        let brew = packages(missing, |need| need.brew);
        let mut steps = Vec::new();
        if missing.iter().any(|need| need.brew.is_empty()) {
            steps.push("xcode-select --install".to_owned());
        }
        if !brew.is_empty() {
            steps.push(format!("brew install {}", brew.join(" ")));
        }
        return steps.join(" && ");
    }
    let apt = packages(missing, |need| need.apt).join(" ");
    format!("sudo apt-get update && sudo apt-get install -y {apt}")
}

fn install(missing: &[&Need]) -> Result<()> {
    let names: Vec<_> = missing.iter().map(|need| need.what).collect();
    shell::step(&format!("installing {}", names.join(", ")));
    let stop = || -> Result<()> {
        bail!(
            "missing: {}\nhint: run this, then try again:\n    {}",
            names.join(", "),
            advice(missing)
        )
    };
    if cfg!(target_os = "macos") {
        let brew = packages(missing, |need| need.brew);
        if missing.iter().any(|need| need.brew.is_empty()) || !has_program("brew") {
            return stop();
        }
        return shell::run(Command::new("brew").arg("install").args(brew));
    }
    if !has_program("apt-get") {
        return stop();
    }
    let Some(prefix) = root_prefix() else { return stop() };
    let apt = |arguments: &[&str]| {
        let mut words = prefix.clone();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).stdin(Stdio::null()).stdout(std::io::stderr());
        shell::run(&mut command)
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages(missing, |need| need.apt));
    // Package lists may be absent or old: a failed install is tried once more after an update.
    if apt(&arguments).is_err() {
        apt(&["update"])?;
        apt(&arguments)?;
    }
    Ok(())
}

/// Words before a command that needs root: none for root itself, sudo where it asks nothing.
fn root_prefix() -> Option<Vec<&'static str>> {
    let quiet = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
    };
    let id = quiet("id", &["-u"])?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(Vec::new());
    }
    quiet("sudo", &["-n", "true"])
        .filter(|output| output.status.success())
        .map(|_| vec!["sudo", "-n"])
}
