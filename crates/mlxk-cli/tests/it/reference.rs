//! The help of every command, as one file: no flag changes unseen.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::run;

pub(crate) const COMMANDS: &[&str] = &[
    "",
    "run",
    "list",
    "ps",
    "show",
    "rm",
    "du",
    "prune",
    "verify",
    "health",
    "clone",
    "convert",
    "models",
    "perplexity",
    "compare",
    "bench",
    "doctor",
    "config",
    "config show",
    "config path",
    "completions",
    "man",
    "schema",
];

/// Set to write the file anew.
const REGENERATE: &str = "MLXK_REGENERATE";

#[test]
fn the_reference_is_the_help() {
    let mut text = format!(
        "<!-- @generated: `{REGENERATE}=1 cargo test -p mlxk-cli --test cli reference` -->\n\n\
         # The command line of mlxk\n"
    );
    for command in COMMANDS {
        let args = command.split_whitespace().chain(["--help"]);
        let help = run(args).ok();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let title = format!("mlxk {command}");
        let _ = write!(text, "\n## {}\n\n```text\n{}\n```\n", title.trim_end(), help.join("\n"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli-reference.md");
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is not the help; set {REGENERATE}=1", path.display());
}

#[test]
fn every_command_is_in_the_reference() {
    let help = run(["--help"]).ok();
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().expect("a name");
        assert!(name == "help" || COMMANDS.contains(&name), "{name}");
    }
}
