//! Selections of the workspace's tests by what they are about, across crates.
//!
//! Every test of a selection is also a test of one of the suites `unit`, `integration` and `cli`, so
//! a selection is for whoever works on its subject. A selection that names nothing fails: the tests
//! it was made of have been renamed.

use anyhow::{Result, bail, ensure};

use crate::shell;

/// Targets as cargo's flags, and the tests in them: modules, which end in `::`, or whole names.
pub type Selection = &'static [(&'static [&'static str], &'static [&'static str])];

const PROGRAM: &[&str] = &["--bin", "mlxk"];
const INTEGRATION: &[&str] = &["--test", "it"];
const CLI: &[&str] = &["--test", "cli"];

pub const SPEC: Selection =
    &[(CLI, &["schema::", "reference::", "documents::", "usage::", "health::every_model_of_"])];

pub const ROBUSTNESS: Selection = &[
    (PROGRAM, &["workspace::build::"]),
    (INTEGRATION, &["malformed::", "hostile::", "fuzz::", "exit::", "hostile_configs::", "save::"]),
    (
        CLI,
        &[
            "bad_input::",
            "health::",
            "run::ctrl_c_",
            "run::a_closed_pipe_",
            "chat::ctrl_c_",
            "chat::a_turn_that_fails_",
            "convert::ctrl_c_",
            "convert::what_cannot_be_",
            "kills::",
            "storage::damaged_",
            "remove::nothing_outside_",
        ],
    ),
];

pub const CLONE_OFFLINE: Selection = &[
    (PROGRAM, &["workspace::", "repair::", "health::"]),
    (INTEGRATION, &["convert::", "save::"]),
    (CLI, &["workspaces::", "convert::", "health::"]),
];

/// Runs the tests of a selection and no others.
pub fn run(selection: Selection) -> Result<()> {
    for (targets, beginnings) in selection {
        let all = test_names(targets)?;
        let chosen = choose(&all, beginnings)?;
        shell::step(&format!("{} tests of {}", chosen.len(), targets.join(" ")));
        let mut cargo = shell::cargo();
        cargo.args(["test", "--workspace", "--no-fail-fast", "--quiet"]).args(*targets);
        shell::run(cargo.args(["--", "--exact"]).args(chosen))?;
    }
    Ok(())
}

/// Asks the test programs for the names of their tests.
fn test_names(targets: &[&str]) -> Result<Vec<String>> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--workspace", "--quiet"]).args(targets).args(["--", "--list"]);
    Ok(names_in(&shell::output(&mut cargo)?))
}

fn names_in(listing: &str) -> Vec<String> {
    let names = listing.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

fn choose<'a>(names: &'a [String], beginnings: &[&str]) -> Result<Vec<&'a str>> {
    for beginning in beginnings {
        if !names.iter().any(|name| name.starts_with(beginning)) {
            bail!("no test begins with `{beginning}`, which the selection names");
        }
    }
    let is_chosen = |name: &&str| beginnings.iter().any(|beginning| name.starts_with(beginning));
    let chosen: Vec<&str> = names.iter().map(String::as_str).filter(is_chosen).collect();
    ensure!(!chosen.is_empty(), "the selection is empty");
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_chosen_by_their_beginning() {
        let listing = "health::a: test\nunhealthy::health::b: test\nx: benchmark\n2 tests\n";
        let names = names_in(listing);
        assert_eq!(names, ["health::a", "unhealthy::health::b"]);
        assert_eq!(choose(&names, &["health::"]).unwrap(), ["health::a"]);
    }

    #[test]
    fn a_beginning_of_nothing_is_an_error() {
        let names = ["a::b".to_owned()];
        let error = choose(&names, &["a::", "c::"]).unwrap_err().to_string();
        assert_eq!(error, "no test begins with `c::`, which the selection names");
        assert!(choose(&names, &[]).is_err());
    }

    /// Renaming a module must not wait for somebody to run the selection by name.
    #[test]
    fn modules_of_tests_are_there() {
        for (targets, beginnings) in [SPEC, ROBUSTNESS, CLONE_OFFLINE].concat() {
            let dirs = match targets {
                PROGRAM => ["mlxk-cli/src"].as_slice(),
                INTEGRATION => &["mlx-core/tests/it", "mlx-lm/tests/it"],
                _ => &["mlxk-cli/tests/it"],
            };
            for beginning in beginnings {
                let is_there = dirs.iter().any(|dir| has_module(dir, beginning));
                assert!(is_there, "{beginning} of {targets:?}");
            }
        }
        assert!(!has_module("mlxk-cli/tests/it", "no_such::"));
        assert!(!has_module("mlxk-cli/tests/it", "run::no_such_test"));
        assert!(!has_module("mlxk-cli/src", "interrupt::"));
    }

    /// Whether a module has tests, of which one begins so.
    fn has_module(dir: &str, beginning: &str) -> bool {
        let (module, test) = beginning.rsplit_once("::").unwrap();
        let path = shell::root().join("crates").join(dir).join(module.replace("::", "/"));
        let mut files = vec![path.with_extension("rs")];
        let below = shell::files_below(&path).unwrap_or_default();
        files.extend(below.iter().map(|file| path.join(file)));
        let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        let mut tests = texts.filter(|text| text.contains("#[test]"));
        tests.any(|text| test.is_empty() || text.contains(&format!("fn {test}")))
    }
}
