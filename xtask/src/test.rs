//! `cargo xtask test`: the offline test matrix.
//!
//! [`SUITES`] is the matrix; `--list` prints it. Every cargo command asks for the whole workspace
//! with the default features and the dev profile, so that no crate is compiled twice.

mod aarch64;
mod asan;
mod compute;
mod miri;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{bindings, fixtures, flags, native, setup, shell, tidy};

struct Suite {
    name: &'static str,
    what: &'static str,
    need: &'static [Need],
    run: fn() -> Result<()>,
}

/// What a suite needs besides cargo.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// Native MLX, which is made when it is not there; failing at that is a failure.
    Native,
    Rustfmt,
    Clippy,
    Libclang,
    CargoFuzz,
    AddressSanitizer,
    Aarch64,
    Miri,
}

const SUITES: &[Suite] = &[
    Suite { name: "fmt", what: "formatting", need: &[Need::Rustfmt], run: fmt },
    Suite { name: "tidy", what: "the house rules", need: &[], run: tidy::require },
    Suite {
        name: "fixtures",
        what: "the committed reference data are whole",
        need: &[],
        run: fixtures::check_committed,
    },
    Suite {
        name: "clippy",
        what: "lints, warnings denied",
        need: &[Need::Native, Need::Clippy],
        run: || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Suite {
        name: "unit",
        what: "unit tests of every crate",
        need: &[Need::Native],
        run: || test(&["--lib", "--bins"]),
    },
    Suite {
        name: "integration",
        what: "tests through each library's public interface",
        need: &[Need::Native],
        run: || test(&["--test", "it"]),
    },
    Suite {
        name: "cli",
        what: "tests of the mlxk program",
        need: &[Need::Native],
        run: || test(&["--test", "cli"]),
    },
    Suite {
        name: "doctest",
        what: "examples in the documentation",
        need: &[Need::Native],
        run: || test(&["--doc"]),
    },
    Suite {
        name: "doc",
        what: "the documentation builds, warnings denied",
        need: &[Need::Native],
        run: doc,
    },
    Suite {
        name: "outside",
        what: "projects that use one crate by its path",
        need: &[Need::Native],
        run: outside,
    },
    Suite {
        name: "fuzz",
        what: "the fuzzers of file formats compile",
        need: &[Need::Native, Need::CargoFuzz],
        run: check_fuzz,
    },
    Suite {
        name: "asan",
        what: "tests of mlx-core under AddressSanitizer",
        need: &[Need::Native, Need::AddressSanitizer],
        run: asan::run,
    },
    Suite {
        name: "aarch64",
        what: "the kernels' arithmetic on ARM CPUs, emulated",
        need: &[Need::Aarch64],
        run: aarch64::run,
    },
    Suite {
        name: "miri",
        what: "the kernels' arithmetic in plain Rust, interpreted",
        need: &[Need::Miri],
        run: miri::run,
    },
    Suite {
        name: "bindings",
        what: "the committed bindings are what the headers give",
        need: &[Need::Native, Need::Libclang],
        run: check_bindings,
    },
];

/// The workspace's profile, for a project outside of it that is to share what was compiled.
const PROFILE: [&str; 6] = [
    "--config",
    "profile.dev.debug=\"line-tables-only\"",
    "--config",
    "profile.dev.package.\"*\".debug=false",
    "--config",
    "profile.dev.package.\"*\".opt-level=1",
];

enum Outcome {
    Ok,
    Failed(String),
    Skipped(String),
}

pub fn run(flags: &flags::Test) -> Result<ExitCode> {
    if flags.list {
        print!("{}", list(SUITES));
        return Ok(ExitCode::SUCCESS);
    }
    let suites = choose(SUITES, &flags.suite)?;
    // A failure here is told once and then counts for each suite that needs it.
    let mut no_native = None;
    if suites.iter().any(|suite| suite.need.contains(&Need::Native))
        && let Err(e) = setup::require().and_then(|()| native::ensure())
    {
        eprintln!("error: {e:#}");
        no_native = Some("native MLX is not there".to_owned());
    }
    let mut results = Vec::new();
    for suite in suites {
        println!("\n==== {}: {}", suite.name, suite.what);
        let start = Instant::now();
        let outcome = match no_native.clone().filter(|_| suite.need.contains(&Need::Native)) {
            Some(reason) => Outcome::Failed(reason),
            None => attempt(suite),
        };
        if let Outcome::Failed(reason) = &outcome {
            eprintln!("error: {}: {reason}", suite.name);
        }
        results.push((suite.name, start.elapsed(), outcome));
    }
    let any_failed = results.iter().any(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
    print!("\n{}", report(&results));
    Ok(if any_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn attempt(suite: &Suite) -> Outcome {
    if let Some(reason) = suite.need.iter().find_map(|need| need.unmet()) {
        println!("skipped: {reason}");
        return Outcome::Skipped(reason);
    }
    match (suite.run)() {
        Ok(()) => Outcome::Ok,
        Err(e) => Outcome::Failed(format!("{e:#}")),
    }
}

impl Need {
    fn text(self) -> &'static str {
        match self {
            Need::Native => "native MLX",
            Need::Rustfmt => "rustfmt",
            Need::Clippy => "clippy",
            Need::Libclang => "libclang",
            Need::CargoFuzz => "cargo-fuzz",
            Need::AddressSanitizer => "AddressSanitizer",
            Need::Aarch64 => "an emulated aarch64",
            Need::Miri => "Miri",
        }
    }

    fn unmet(self) -> Option<String> {
        let (is_met, hint) = match self {
            Need::Native => (true, ""),
            Need::Rustfmt => (setup::has_component("rustfmt"), "rustup component add rustfmt"),
            Need::Clippy => (setup::has_component("clippy"), "rustup component add clippy"),
            Need::Libclang => (setup::has_libclang(), "cargo xtask setup --dev"),
            Need::CargoFuzz => (native::has_program("cargo-fuzz"), "cargo install cargo-fuzz"),
            Need::AddressSanitizer => return asan::unmet(),
            Need::Aarch64 => return aarch64::unmet(),
            Need::Miri => return miri::unmet(),
        };
        (!is_met).then(|| format!("no {}: {hint}", self.text()))
    }
}

fn choose<'a>(suites: &'a [Suite], names: &[String]) -> Result<Vec<&'a Suite>> {
    for name in names {
        if !suites.iter().any(|suite| suite.name == name) {
            let known: Vec<_> = suites.iter().map(|suite| suite.name).collect();
            bail!("no suite `{name}`; there are {}", known.join(", "));
        }
    }
    let is_chosen = |suite: &&Suite| names.is_empty() || names.iter().any(|n| n == suite.name);
    Ok(suites.iter().filter(is_chosen).collect())
}

fn list(suites: &[Suite]) -> String {
    let mut text = String::new();
    for suite in suites {
        let needs: Vec<_> = suite.need.iter().map(|need| need.text()).collect();
        let needs = if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") };
        text += &format!("{:<12} {:<52} needs {needs}\n", suite.name, suite.what);
    }
    text
}

/// The table of results, whose last line is the count.
fn report(results: &[(&str, Duration, Outcome)]) -> String {
    let mut text = format!("{:<12} {:>8}  result\n", "suite", "seconds");
    let [mut passed, mut failed, mut skipped] = [0; 3];
    for (name, time, outcome) in results {
        let outcome = match outcome {
            Outcome::Ok => {
                passed += 1;
                "ok".to_owned()
            }
            Outcome::Failed(reason) => {
                failed += 1;
                format!("failed: {}", first_line(reason))
            }
            Outcome::Skipped(reason) => {
                skipped += 1;
                format!("skipped: {}", first_line(reason))
            }
        };
        text += &format!("{name:<12} {:>8.1}  {outcome}\n", time.as_secs_f64());
    }
    text + &format!("{passed} passed, {failed} failed, {skipped} skipped\n")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn cargo(arguments: &[&str]) -> Result<()> {
    shell::run(shell::cargo().args(arguments))
}

/// A failing crate does not keep the others from being tested.
fn test(targets: &[&str]) -> Result<()> {
    cargo(&[&["test", "--workspace", "--no-fail-fast"], targets].concat())
}

fn doc() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    shell::run(&mut cargo)
}

fn fmt() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    // What no manifest of the workspace leads to.
    for dir in ["xtask/outside", "fuzz/targets"].map(|dir| shell::root().join(dir)) {
        let files = shell::files_below(&dir)?;
        for file in files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
            let mut rustfmt = Command::new("rustfmt");
            rustfmt.args(["--check", "--edition", "2024", "--config-path"]);
            rustfmt.arg(shell::root().join("rustfmt.toml"));
            shell::run(rustfmt.arg(dir.join(file)))?;
        }
    }
    Ok(())
}

/// With the stable toolchain and no instrumentation: what can break is the readers' interface.
/// The workspace's profile and target directory only save compiling everything again.
fn check_fuzz() -> Result<()> {
    let dir = shell::root().join("fuzz");
    fs::copy(shell::root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    let mut cargo = shell::cargo_here();
    cargo.current_dir(dir).arg("check");
    cargo.args(PROFILE);
    shell::run(cargo.env("CARGO_TARGET_DIR", shell::target_dir()?))
}

fn check_bindings() -> Result<()> {
    let code = bindings::run(&flags::Bindings { check: true })?;
    ensure!(code == ExitCode::SUCCESS, "the committed bindings are not what the headers give");
    Ok(())
}

/// Builds each project of `xtask/outside` away from the workspace, runs it with the fixtures as
/// its argument, and compares what it prints with its `expected.txt`.
fn outside() -> Result<()> {
    let templates = shell::root().join("xtask/outside");
    let target = shell::target_dir()?;
    let mut projects: Vec<_> = templates
        .read_dir()?
        .collect::<std::io::Result<Vec<_>>>()?
        .iter()
        .map(|e| e.path())
        .collect();
    projects.sort();
    ensure!(!projects.is_empty(), "{} holds no project", templates.display());
    for project in projects {
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        shell::step(&format!("a project on mlx-{name} alone"));
        let printed = run_outside(&project, &target)?;
        print!("{printed}");
        let expected = fs::read_to_string(project.join("expected.txt"))?;
        ensure!(
            printed == expected,
            "the project on mlx-{name} printed:\n{printed}\nexpected:\n{expected}"
        );
    }
    Ok(())
}

/// The project gets a directory, a lock file and paths of its own, as a user's has. The workspace's
/// versions, profile and target directory only save compiling everything again.
fn run_outside(template: &Path, target: &Path) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let manifest = fs::read_to_string(template.join("Cargo.toml"))?;
    let manifest = place(&manifest, &shell::root())?;
    fs::write(dir.path().join("Cargo.toml"), manifest)?;
    fs::create_dir(dir.path().join("src"))?;
    fs::copy(template.join("src/main.rs"), dir.path().join("src/main.rs"))?;
    fs::copy(shell::root().join("Cargo.lock"), dir.path().join("Cargo.lock"))?;
    let mut cargo = shell::cargo_here();
    cargo.current_dir(dir.path()).arg("run");
    cargo.args(PROFILE);
    cargo.arg("--").arg(shell::root().join("fixtures")).env("CARGO_TARGET_DIR", target);
    for (name, _) in std::env::vars_os() {
        // What cargo sets for this program is not exported for a user's project.
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    shell::output(&mut cargo)
}

/// Turns the template's path to the crates into one that holds elsewhere.
fn place(manifest: &str, root: &Path) -> Result<String> {
    const RELATIVE: &str = "\"../../../crates/";
    ensure!(manifest.contains(RELATIVE), "the manifest names no {RELATIVE}…\"");
    let crates = root.join("crates");
    let crates = crates.to_str().context("the workspace's path is not UTF-8")?;
    let crates = crates.replace('\\', "\\\\");
    Ok(manifest.replace(RELATIVE, &format!("\"{crates}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> Result<()> {
        Ok(())
    }

    fn broken() -> Result<()> {
        bail!("first\nsecond")
    }

    const TWO: &[Suite] = &[
        Suite { name: "a", what: "one", need: &[], run: done },
        Suite { name: "b", what: "two", need: &[Need::Native, Need::Clippy], run: broken },
    ];

    #[test]
    fn suites_are_chosen_by_name_in_the_order_of_the_table() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(TWO, &wanted).map(|suites| suites.iter().map(|s| s.name).collect::<String>())
        };
        assert_eq!(names(&[]).unwrap(), "ab");
        assert_eq!(names(&["b"]).unwrap(), "b");
        assert_eq!(names(&["b", "a"]).unwrap(), "ab");
        assert_eq!(names(&["c"]).unwrap_err().to_string(), "no suite `c`; there are a, b");
    }

    #[test]
    fn the_report_counts_each_outcome_and_ends_with_the_count() {
        let results = [
            ("a", Duration::from_millis(1250), attempt(&TWO[0])),
            ("b", Duration::ZERO, Outcome::Failed(broken().unwrap_err().to_string())),
            ("c", Duration::ZERO, Outcome::Skipped("no clock".to_owned())),
        ];
        let text = report(&results);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a                 1.2  ok");
        assert_eq!(lines[2], "b                 0.0  failed: first");
        assert_eq!(lines[3], "c                 0.0  skipped: no clock");
        assert_eq!(lines[4..], ["1 passed, 1 failed, 1 skipped"]);
    }

    #[test]
    fn the_list_names_each_need() {
        let text = list(TWO);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("a ") && lines[0].ends_with("needs nothing"), "{text}");
        assert!(lines[1].ends_with("needs native MLX, clippy"), "{text}");
    }

    #[test]
    fn templates_are_placed_elsewhere() {
        let manifest = "mlx-core = { path = \"../../../crates/mlx-core\" }";
        let placed = place(manifest, Path::new("/somewhere")).unwrap();
        assert_eq!(placed, "mlx-core = { path = \"/somewhere/crates/mlx-core\" }");
        assert!(place("mlx-core = \"1\"", Path::new("/somewhere")).is_err());
    }
}
