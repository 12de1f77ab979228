//! `cargo xtask test`: the test matrix.
//!
//! [`SUITES`] is the matrix; `--list` prints it. What runs when no suite is named needs no network
//! and no model, and runs each test once. The others are run by name: a slow one, selections of those
//! tests, and live suites, which look at models that the user has.
//!
//! Every cargo command asks for the whole workspace with the default features and the dev profile,
//! so that no crate is compiled twice.

mod aarch64;
mod asan;
mod compute;
mod live;
mod miri;
mod selection;
mod suites;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{bindings, flags, native, setup, shell};
use suites::{Need, SUITES, Skip, Suite, choose, list};

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
    let mut native = None;
    let mut results = Vec::new();
    for suite in suites {
        println!("\n==== {}: {}", suite.name, suite.what);
        let start = Instant::now();
        let outcome = attempt(suite, || native.get_or_insert_with(make_native).clone());
        if let Outcome::Failed(reason) = &outcome {
            eprintln!("error: {}: {reason}", suite.name);
        }
        results.push((suite.name, start.elapsed(), outcome));
    }
    let any_failed = results.iter().any(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
    print!("\n{}", report(&results));
    Ok(if any_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Makes native MLX, if it is not there. A failure is told here, once, and then counts for each suite
/// that needs it.
fn make_native() -> Result<(), String> {
    setup::require().and_then(|()| native::ensure()).map_err(|e| {
        eprintln!("error: {e:#}");
        "native MLX is not there".to_owned()
    })
}

/// Runs a suite, if all is there that it needs; `native` is asked last, as it may take minutes.
fn attempt(suite: &Suite, native: impl FnOnce() -> Result<(), String>) -> Outcome {
    let unmet: Vec<_> = suite.need.iter().filter_map(|need| need.unmet()).collect();
    if unmet.is_empty()
        && suite.need.contains(&Need::Native)
        && let Err(reason) = native()
    {
        return Outcome::Failed(reason);
    }
    let outcome = match unmet.is_empty() {
        true => (suite.run)(),
        false => Err(Skip(unmet.join("; ")).into()),
    };
    match outcome {
        Ok(()) => Outcome::Ok,
        Err(e) => match e.downcast::<Skip>() {
            Ok(Skip(reason)) => {
                println!("skipped: {reason}");
                Outcome::Skipped(reason)
            }
            Err(e) => Outcome::Failed(format!("{e:#}")),
        },
    }
}

/// The table of results, whose last line is the count.
fn report(results: &[(&str, Duration, Outcome)]) -> String {
    let mut text = format!("{:<16} {:>8}  result\n", "suite", "seconds");
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
        text += &format!("{name:<16} {:>8.1}  {outcome}\n", time.as_secs_f64());
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
    use anyhow::bail;

    use super::*;

    fn suite(need: &'static [Need], run: fn() -> Result<()>) -> Suite {
        Suite { name: "a", what: "one", when: suites::When::Always, need, run }
    }

    #[test]
    fn a_missing_need_is_a_skip_before_the_suite_and_in_it() {
        const NEEDS: &[Need] = &[Need::Native, Need::Command("no-such"), Need::Command("none")];
        let Outcome::Skipped(reason) =
            attempt(&suite(NEEDS, || Ok(())), || panic!("native MLX is not made for a skip"))
        else {
            panic!("not skipped")
        };
        assert!(reason.contains("no-such") && reason.contains("`mlxk none`"), "{reason}");
        let attempt = |suite: Suite| attempt(&suite, || Err("no native".to_owned()));
        let late = attempt(suite(&[], || Err(Skip("no model".to_owned()).into())));
        assert!(matches!(late, Outcome::Skipped(reason) if reason == "no model"));
        let failed = attempt(suite(&[], || bail!("no model")));
        assert!(matches!(failed, Outcome::Failed(reason) if reason == "no model"));
        let failed = attempt(suite(&[Need::Native], || Ok(())));
        assert!(matches!(failed, Outcome::Failed(reason) if reason == "no native"));
    }

    #[test]
    fn the_report_counts_each_outcome_and_ends_with_the_count() {
        let results = [
            ("a", Duration::from_millis(1250), attempt(&suite(&[], || Ok(())), || Ok(()))),
            ("b", Duration::ZERO, attempt(&suite(&[], || bail!("first\nsecond")), || Ok(()))),
            ("c", Duration::ZERO, Outcome::Skipped("no clock".to_owned())),
        ];
        let text = report(&results);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a                     1.2  ok");
        assert_eq!(lines[2], "b                     0.0  failed: first");
        assert_eq!(lines[3], "c                     0.0  skipped: no clock");
        assert_eq!(lines[4..], ["1 passed, 1 failed, 1 skipped"]);
    }

    #[test]
    fn templates_are_placed_elsewhere() {
        let manifest = "mlx-core = { path = \"../../../crates/mlx-core\" }";
        let placed = place(manifest, Path::new("/somewhere")).unwrap();
        assert_eq!(placed, "mlx-core = { path = \"/somewhere/crates/mlx-core\" }");
        assert!(place("mlx-core = \"1\"", Path::new("/somewhere")).is_err());
    }
}
