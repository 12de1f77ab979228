//! The matrix as a table: each suite, what it looks at, and what it needs.

use std::fmt;

use anyhow::{Result, bail};

use super::{aarch64, asan, live, miri, selection};
use crate::{fixtures, native, setup, shell, tidy};

pub struct Suite {
    pub name: &'static str,
    pub what: &'static str,
    pub when: When,
    pub need: &'static [Need],
    pub run: fn() -> Result<()>,
}

/// When a suite runs if none is named.
#[derive(Clone, Copy, PartialEq)]
pub enum When {
    Always,
    /// It takes as long as all the others together.
    NamedAsSlow,
    /// Its tests are run by other suites already.
    NamedAsSelection,
    /// It looks at models that only the user has.
    NamedAsLive,
}

/// What a suite needs besides cargo.
#[derive(Clone, Copy, PartialEq)]
pub enum Need {
    /// Native MLX, which is made when it is not there; failing at that is a failure.
    Native,
    Rustfmt,
    Clippy,
    Libclang,
    CargoFuzz,
    AddressSanitizer,
    Aarch64,
    Miri,
    /// A command of the program, which this version may not have.
    Command(&'static str),
    /// A model cache or a directory of models.
    Models,
    /// The hub's token.
    Token,
}

/// Says why a suite that began cannot be run; an error of this type is a skip, not a failure.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

pub const SUITES: &[Suite] = &[
    Suite {
        name: "fmt",
        what: "formatting",
        when: When::Always,
        need: &[Need::Rustfmt],
        run: super::fmt,
    },
    Suite {
        name: "tidy",
        what: "the house rules",
        when: When::Always,
        need: &[],
        run: tidy::require,
    },
    Suite {
        name: "fixtures",
        what: "the committed reference data are whole",
        when: When::Always,
        need: &[],
        run: fixtures::check_committed,
    },
    Suite {
        name: "clippy",
        what: "lints, warnings denied",
        when: When::Always,
        need: &[Need::Native, Need::Clippy],
        run: || super::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Suite {
        name: "unit",
        what: "unit tests of every crate",
        when: When::Always,
        need: &[Need::Native],
        run: || super::test(&["--lib", "--bins"]),
    },
    Suite {
        name: "integration",
        what: "tests through each library's public interface",
        when: When::Always,
        need: &[Need::Native],
        run: || super::test(&["--test", "it"]),
    },
    Suite {
        name: "cli",
        what: "tests of the mlxk program",
        when: When::Always,
        need: &[Need::Native],
        run: || super::test(&["--test", "cli"]),
    },
    Suite {
        name: "doctest",
        what: "examples in the documentation",
        when: When::Always,
        need: &[Need::Native],
        run: || super::test(&["--doc"]),
    },
    Suite {
        name: "doc",
        what: "the documentation builds, warnings denied",
        when: When::Always,
        need: &[Need::Native],
        run: super::doc,
    },
    Suite {
        name: "outside",
        what: "projects that use one crate by its path",
        when: When::Always,
        need: &[Need::Native],
        run: super::outside,
    },
    Suite {
        name: "fuzz",
        what: "the fuzzers of file formats compile",
        when: When::Always,
        need: &[Need::Native, Need::CargoFuzz],
        run: super::check_fuzz,
    },
    Suite {
        name: "asan",
        what: "tests of mlx-core under AddressSanitizer",
        when: When::Always,
        need: &[Need::Native, Need::AddressSanitizer],
        run: asan::run,
    },
    Suite {
        name: "aarch64",
        what: "the kernels' arithmetic on ARM CPUs, emulated",
        when: When::Always,
        need: &[Need::Aarch64],
        run: aarch64::run,
    },
    Suite {
        name: "miri",
        what: "the kernels' arithmetic in plain Rust, interpreted",
        when: When::NamedAsSlow,
        need: &[Need::Miri],
        run: miri::run,
    },
    Suite {
        name: "bindings",
        what: "the committed bindings are what the headers give",
        when: When::Always,
        need: &[Need::Native, Need::Libclang],
        run: super::check_bindings,
    },
    Suite {
        name: "live-harness",
        what: "the live suites below, on a cache made for them",
        when: When::Always,
        need: &[Need::Native],
        run: live::harness::run,
    },
    Suite {
        name: "spec",
        what: "what is published: the JSON schema, the reference, the examples",
        when: When::NamedAsSelection,
        need: &[Need::Native],
        run: || selection::run(selection::SPEC),
    },
    Suite {
        name: "robustness",
        what: "bad input, interrupts, kills, faults of the disk",
        when: When::NamedAsSelection,
        need: &[Need::Native],
        run: || selection::run(selection::ROBUSTNESS),
    },
    Suite {
        name: "clone-offline",
        what: "clone, convert, repair and health, without a network",
        when: When::NamedAsSelection,
        need: &[Need::Native],
        run: || selection::run(selection::CLONE_OFFLINE),
    },
    Suite {
        name: "push-offline",
        what: "push, without a network",
        when: When::NamedAsSelection,
        need: &[Need::Command("push")],
        run: || no_tests_yet("push"),
    },
    Suite {
        name: "server",
        what: "the server's endpoints",
        when: When::NamedAsSelection,
        need: &[Need::Command("serve")],
        run: || no_tests_yet("serve"),
    },
    Suite {
        name: "live-list",
        what: "the list is what lies in the cache",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::LIST),
    },
    Suite {
        name: "live-run",
        what: "each model answers, as text, as JSON and in a chat",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::RUN),
    },
    Suite {
        name: "live-clone",
        what: "a clone of the smallest model is a copy that runs",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::CLONE),
    },
    Suite {
        name: "live-push",
        what: "a workspace is uploaded",
        when: When::NamedAsLive,
        need: &[Need::Command("push"), Need::Token],
        run: || no_tests_yet("push"),
    },
    Suite {
        name: "live-stop-tokens",
        what: "answers end where they should, streamed or not",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::STOP_TOKENS),
    },
    Suite {
        name: "live-e2e",
        what: "clone, convert, health and run with the smallest model",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::E2E),
    },
    Suite {
        name: "show-portfolio",
        what: "show, health, du and verify of each model",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::SHOW),
    },
    Suite {
        name: "index-health",
        what: "each model's index against the headers of its files",
        when: When::NamedAsLive,
        need: &[Need::Native, Need::Models],
        run: || live::run(&live::INDEX),
    },
];

/// A command that is there now has to get its suite.
fn no_tests_yet(command: &str) -> Result<()> {
    bail!("`mlxk {command}` is there, but this suite has no tests yet")
}

impl Need {
    pub fn text(self) -> String {
        match self {
            Need::Native => "native MLX".to_owned(),
            Need::Rustfmt => "rustfmt".to_owned(),
            Need::Clippy => "clippy".to_owned(),
            Need::Libclang => "libclang".to_owned(),
            Need::CargoFuzz => "cargo-fuzz".to_owned(),
            Need::AddressSanitizer => "AddressSanitizer".to_owned(),
            Need::Aarch64 => "an emulated aarch64".to_owned(),
            Need::Miri => "Miri".to_owned(),
            Need::Command(name) => match has_command(name) {
                true => format!("`mlxk {name}`"),
                false => format!("`mlxk {name}`, which this version has not"),
            },
            Need::Models => "a model cache".to_owned(),
            Need::Token => "HF_TOKEN".to_owned(),
        }
    }

    pub fn unmet(self) -> Option<String> {
        let (is_met, hint) = match self {
            Need::Native => (true, ""),
            Need::Rustfmt => (setup::has_component("rustfmt"), "rustup component add rustfmt"),
            Need::Clippy => (setup::has_component("clippy"), "rustup component add clippy"),
            Need::Libclang => (setup::has_libclang(), "cargo xtask setup --dev"),
            Need::CargoFuzz => (native::has_program("cargo-fuzz"), "cargo install cargo-fuzz"),
            Need::AddressSanitizer => return asan::unmet(),
            Need::Aarch64 => return aarch64::unmet(),
            Need::Miri => return miri::unmet(),
            Need::Command(name) => {
                return (!has_command(name)).then(|| format!("needs {}", self.text()));
            }
            Need::Models => return live::unmet(),
            Need::Token => (
                std::env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty()),
                "set HF_TOKEN to a token that may write",
            ),
        };
        (!is_met).then(|| format!("no {}: {hint}", self.text()))
    }
}

/// Whether the program has a command, each of which is a file of its own.
fn has_command(name: &str) -> bool {
    let commands = shell::root().join("crates/mlxk-cli/src/commands");
    commands.join(format!("{name}.rs")).is_file() || commands.join(name).join("mod.rs").is_file()
}

/// Returns the suites of those names; without names, all that run always.
pub fn choose<'a>(suites: &'a [Suite], names: &[String]) -> Result<Vec<&'a Suite>> {
    for name in names {
        if !suites.iter().any(|suite| suite.name == name) {
            let known: Vec<_> = suites.iter().map(|suite| suite.name).collect();
            bail!("no suite `{name}`; there are {}", known.join(", "));
        }
    }
    let is_chosen = |suite: &&Suite| match names.is_empty() {
        true => suite.when == When::Always,
        false => names.iter().any(|name| name == suite.name),
    };
    Ok(suites.iter().filter(is_chosen).collect())
}

pub fn list(suites: &[Suite]) -> String {
    let mut text = String::new();
    for (when, title) in [
        (When::Always, "Run when none is named:"),
        (When::NamedAsSlow, "Slow, run when named:"),
        (When::NamedAsSelection, "Parts of those above, run when named:"),
        (When::NamedAsLive, "On models that you have, run when named:"),
    ] {
        let of_kind: Vec<_> = suites.iter().filter(|suite| suite.when == when).collect();
        if of_kind.is_empty() {
            continue;
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{title}\n");
        for suite in of_kind {
            let needs: Vec<_> = suite.need.iter().map(|need| need.text()).collect();
            let needs = if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") };
            text += &format!("  {:<16} {:<63} needs {needs}\n", suite.name, suite.what);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[Suite] = &[
        Suite { name: "a", what: "one", when: When::Always, need: &[], run: || Ok(()) },
        Suite {
            name: "b",
            what: "two",
            when: When::Always,
            need: &[Need::Native, Need::Clippy],
            run: || Ok(()),
        },
        Suite {
            name: "c",
            what: "three",
            when: When::NamedAsLive,
            need: &[Need::Models],
            run: || Ok(()),
        },
    ];

    #[test]
    fn suites_are_chosen_by_name_in_the_order_of_the_table() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(THREE, &wanted).map(|suites| suites.iter().map(|s| s.name).collect::<String>())
        };
        assert_eq!(names(&[]).unwrap(), "ab");
        assert_eq!(names(&["b"]).unwrap(), "b");
        assert_eq!(names(&["c", "a"]).unwrap(), "ac");
        assert_eq!(names(&["d"]).unwrap_err().to_string(), "no suite `d`; there are a, b, c");
    }

    #[test]
    fn the_list_names_each_need() {
        let text = list(THREE);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Run when none"), "{text}");
        assert!(lines[1].starts_with("  a ") && lines[1].ends_with("needs nothing"), "{text}");
        assert!(lines[2].ends_with("needs native MLX, clippy"), "{text}");
        assert!(lines[4].starts_with("On models that you have"), "{text}");
        assert!(lines[5].ends_with("needs a model cache"), "{text}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_command_is_there_or_not() {
        assert_eq!(Need::Command("list").unmet(), None);
        let unmet = Need::Command("no-such").unmet();
        let expected = "needs `mlxk no-such`, which this version has not";
        assert_eq!(unmet.as_deref(), Some(expected));
    }

    #[test]
    fn names_are_single() {
        for (i, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..i].iter().all(|other| other.name != suite.name), "{}", suite.name);
            assert!(suite.name.len() <= 16 && suite.what.len() <= 63, "{}", suite.name);
        }
    }
}
