//! `cargo xtask setup`: the system packages that native MLX is built with.
//!
//! [`NEEDS`] is the whole list. Other tasks call [`require`], which installs where that asks
//! nobody (apt as root or with passwordless sudo, brew) and else stops with the one command that
//! does it.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail, ensure};

use crate::native::has_program;
use crate::{flags, shell};

/// A thing the build needs and what brings it.
struct Need {
    what: &'static str,
    is_there: fn() -> bool,
    /// Debian's packages; empty where Linux does not need it.
    apt: &'static str,
    /// How a Mac gets it; empty where it does not need it.
    mac: Mac,
    developer: bool,
}

enum Mac {
    Nothing,
    /// A formula, installed without asking.
    Brew(&'static str),
    /// A command that opens a dialog or downloads gigabytes, so the user runs it.
    Command(&'static str),
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C++20 compiler",
        is_there: has_compiler,
        apt: "g++",
        mac: Mac::Command("xcode-select --install"),
        developer: false,
    },
    Need {
        what: "make or ninja",
        is_there: || has_program("make") || has_program("ninja"),
        apt: "make",
        mac: Mac::Command("xcode-select --install"),
        developer: false,
    },
    Need {
        what: "cmake 3.25 or newer",
        is_there: has_cmake,
        apt: "cmake",
        mac: Mac::Brew("cmake"),
        developer: false,
    },
    Need {
        what: "BLAS and LAPACK",
        is_there: || cfg!(target_os = "macos") || is_set("MLX_SYS_INSTALLED") || has_blas(),
        apt: "libopenblas-dev liblapack-dev liblapacke-dev",
        mac: Mac::Nothing,
        developer: false,
    },
    Need {
        what: "the Metal compiler",
        is_there: || !builds_metal() || has_metal(),
        apt: "",
        mac: Mac::Command("xcodebuild -downloadComponent MetalToolchain"),
        developer: false,
    },
    Need {
        what: "libclang",
        is_there: has_libclang,
        apt: "libclang-dev",
        mac: Mac::Brew("llvm"),
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
        eprintln!("hint: {}", advice(&missing, root_prefix().as_deref()));
        return Ok(ExitCode::FAILURE);
    }
    install(&missing, flags.dev)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what a build needs, or stops with the command that does.
///
/// An explicit prefix is somebody's finished build: then nothing is needed here.
pub fn require() -> Result<()> {
    if is_set("MLX_SYS_PREFIX") {
        return Ok(());
    }
    match missing(false) {
        missing if missing.is_empty() => Ok(()),
        missing => install(&missing, false),
    }
}

/// Tells whether a part of the Rust toolchain runs, after asking rustup for it if need be.
pub fn has_component(name: &str) -> bool {
    let program = if name == "clippy" { "clippy" } else { "fmt" };
    let runs = || shell::succeeds(shell::cargo().args([program, "--version"]));
    runs() || (shell::succeeds(Command::new("rustup").args(["component", "add", name])) && runs())
}

/// Tells whether bindgen would find its library.
pub fn has_libclang() -> bool {
    is_set("LIBCLANG_PATH")
        || library_dirs().iter().any(|dir| has_file_starting(Path::new(dir), "libclang"))
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

fn library_dirs() -> Vec<String> {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    ["/usr/lib", "/usr/lib64", "/usr/local/lib", &multiarch].map(str::to_owned).to_vec()
}

/// Finds `NAME.so…` or `NAME-….so…`, which the C++ library `libclang-cpp` is not.
fn has_file_starting(dir: &Path, name: &str) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        file.starts_with(name) && file.contains(".so") && !file.contains("cpp")
    })
}

fn has_blas() -> bool {
    let has_header = ["/usr/include", "/usr/local/include"]
        .iter()
        .any(|dir| Path::new(dir).join("lapacke.h").exists());
    let has_library = library_dirs().iter().any(|dir| {
        ["libopenblas", "libblas"].iter().any(|name| has_file_starting(Path::new(dir), name))
    });
    has_header && has_library
}

/// On a Mac `c++` is always there, as a stub that offers to install the tools behind it.
fn has_compiler() -> bool {
    if cfg!(target_os = "macos") {
        return shell::succeeds(Command::new("xcode-select").arg("-p"));
    }
    has_program("c++") || has_program("g++")
}

fn builds_metal() -> bool {
    let asked = std::env::var("MLX_SYS_BACKEND").unwrap_or_default();
    let is_default = asked.is_empty() && cfg!(all(target_os = "macos", target_arch = "aarch64"));
    (is_default || asked == "metal") && !is_set("MLX_SYS_INSTALLED")
}

fn has_metal() -> bool {
    shell::succeeds(Command::new("xcrun").args(["-sdk", "macosx", "metal", "--version"]))
}

fn has_cmake() -> bool {
    let output = Command::new("cmake").arg("--version").stderr(Stdio::null()).output();
    output.is_ok_and(|output| cmake_is_new(&String::from_utf8_lossy(&output.stdout)))
}

fn cmake_is_new(text: &str) -> bool {
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (3, 25)
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn missing(developer: bool) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| developer || !need.developer).filter(|n| !(n.is_there)()).collect()
}

/// The one line that brings what is missing; `prefix` is what a command needs to act as root.
fn advice(missing: &[&Need], prefix: Option<&[&str]>) -> String {
    if cfg!(target_os = "macos") { mac_advice(missing) } else { apt_advice(missing, prefix) }
}

fn mac_advice(missing: &[&Need]) -> String {
    let mut steps: Vec<String> = Vec::new();
    for need in missing {
        let step = match need.mac {
            Mac::Nothing => continue,
            Mac::Brew(formula) => format!("brew install {formula}"),
            Mac::Command(command) => command.to_owned(),
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps.join(" && ")
}

fn apt_packages(missing: &[&Need]) -> Vec<&'static str> {
    missing.iter().flat_map(|need| need.apt.split_whitespace()).collect()
}

fn apt_advice(missing: &[&Need], prefix: Option<&[&str]>) -> String {
    let sudo = if prefix.is_some_and(<[_]>::is_empty) { "" } else { "sudo " };
    let packages = apt_packages(missing).join(" ");
    format!("{sudo}apt-get update && {sudo}apt-get install -y {packages}")
}

fn install(missing_now: &[&Need], developer: bool) -> Result<()> {
    let prefix = root_prefix();
    if !install_without_asking(missing_now, prefix.as_deref())? {
        let names = names(missing_now);
        let how = if cfg!(target_os = "macos") || has_program("apt-get") {
            format!("run `{}`", advice(missing_now, prefix.as_deref()))
        } else {
            format!("install what Debian calls {}", apt_packages(missing_now).join(" "))
        };
        bail!("missing: {names}\nhint: {how}, then try again");
    }
    let still = missing(developer);
    ensure!(still.is_empty(), "installed, but still missing: {}", names(&still));
    Ok(())
}

/// Tells whether there was a way.
fn install_without_asking(missing: &[&Need], prefix: Option<&[&str]>) -> Result<bool> {
    let formulas: Vec<_> = missing
        .iter()
        .filter_map(|need| if let Mac::Brew(name) = need.mac { Some(name) } else { None })
        .collect();
    match prefix {
        _ if cfg!(target_os = "macos") => {
            if formulas.len() < missing.len() || !has_program("brew") {
                return Ok(false);
            }
            shell::step(&format!("installing {}", names(missing)));
            shell::run(Command::new("brew").arg("install").args(formulas))?;
        }
        Some(prefix) if has_program("apt-get") => {
            shell::step(&format!("installing {}", names(missing)));
            apt_install(prefix, &apt_packages(missing))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn names(needs: &[&Need]) -> String {
    needs.iter().map(|need| need.what).collect::<Vec<_>>().join(", ")
}

/// Package lists may be absent or old: a failed install is tried once more after an update.
fn apt_install(prefix: &[&str], packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut words = prefix.to_vec();
        // Another apt may be at work on a machine that has just started.
        let patience = "DPkg::Lock::Timeout=300";
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", patience]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).stdin(Stdio::null()).stdout(std::io::stderr());
        shell::run(&mut command)
    };
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(packages);
    if apt(&install).is_err() {
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

/// Words before a command that needs root: none for root itself, sudo where it asks nothing.
fn root_prefix() -> Option<Vec<&'static str>> {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(Vec::new());
    }
    shell::succeeds(Command::new("sudo").args(["-n", "true"])).then(|| vec!["sudo", "-n"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmake_versions_are_compared_as_numbers() {
        for (text, is_new) in [
            ("cmake version 3.25.1\n\nCMake suite maintained", true),
            ("cmake version 3.100.0", true),
            ("cmake version 4.0.0-rc1", true),
            ("cmake version 3.9.6", false),
            ("cmake version 3.24.9", false),
            ("", false),
        ] {
            assert_eq!(cmake_is_new(text), is_new, "{text}");
        }
    }

    #[test]
    fn advice_is_one_command() {
        let all: Vec<&Need> = NEEDS.iter().collect();
        let packages = "g++ make cmake libopenblas-dev liblapack-dev liblapacke-dev libclang-dev";
        for (prefix, sudo) in [(None, "sudo "), (Some(&["sudo", "-n"][..]), "sudo ")] {
            let expected = format!("{sudo}apt-get update && {sudo}apt-get install -y {packages}");
            assert_eq!(apt_advice(&all, prefix), expected);
        }
        let as_root = apt_advice(&all[..1], Some(&[]));
        assert_eq!(as_root, "apt-get update && apt-get install -y g++");
        assert_eq!(
            mac_advice(&all),
            "xcode-select --install && brew install cmake && \
             xcodebuild -downloadComponent MetalToolchain && brew install llvm"
        );
    }
}
