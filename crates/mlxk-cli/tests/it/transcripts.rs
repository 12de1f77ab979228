//! What every command says, to a person and to a program, when it goes well and when it does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::hub::{Hub, check_transcript};
use crate::reference::COMMANDS;

/// Puts a sign in place of every number, and one space in place of many: how wide a table is depends on
/// what was measured. Commands and exit codes stay as they are.
fn without_numbers(text: &str) -> String {
    let lines = text.lines().map(|line| match line.starts_with("$ ") || line.contains("exit") {
        true => line.to_owned(),
        false => without_numbers_in(line),
    });
    lines.map(|line| line + "\n").collect()
}

fn without_numbers_in(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '0'..='9' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                let number = |c: &char| c.is_ascii_digit() || matches!(c, '.' | 'e' | '-' | '+');
                while rest.next_if(number).is_some() {}
                out.push('#');
            }
            ' ' if out.ends_with(c) => {}
            '-' if out.ends_with("--") => {}
            _ => out.push(c),
        }
    }
    // In which unit is the machine's, too.
    [" kB", " MB", " GB"].iter().fold(out, |out, unit| out.replace(unit, " B"))
}

/// Keeps the names of what was looked at, and leaves out what this machine has.
fn without_findings(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let is_check = ["ok ", "warning ", "error "].iter().any(|word| line.starts_with(word));
        match line.split_once("\"found\": ") {
            Some((indent, _)) => format!("{indent}\"found\": …,"),
            None if is_check => format!("{}…", &line[..25]),
            None => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// Keeps the first lines of what each command prints.
fn beginnings(text: &str) -> String {
    let blocks = text.split("\n\n$ ").map(|block| {
        let lines: Vec<&str> = block.lines().collect();
        let end = lines.iter().rposition(|line| line.starts_with("exit code"));
        let cut = |line: &&str| {
            let cut: String = line.chars().take(80).collect();
            cut.trim_end().to_owned()
        };
        let more = if lines.len() > 6 { "…\n" } else { "" };
        let first: Vec<String> = lines.iter().take(6).map(cut).collect();
        let code = end.filter(|end| *end >= 6).map_or("", |end| lines[end]);
        format!("{}\n{more}{code}", first.join("\n")).trim_end().to_owned()
    });
    blocks.collect::<Vec<_>>().join("\n\n$ ") + "\n"
}

#[test]
fn show() {
    let text = Hub::with_models().transcript(&[
        "show tiny-chat",
        "show tiny-chat --files",
        "show tiny-chat --json",
        "show unsound",
        "show unsound --json",
        "show chat",
        "show chat --json",
        "show nothing --strict-exit",
        "show nothing --strict-exit --json",
    ]);
    check_transcript("show.txt", &text);
}

#[test]
fn health() {
    let text = Hub::with_models().transcript(&[
        "health",
        "health --json",
        "health unsound --strict-exit",
        "health unsound --strict-exit --json",
        "health chat",
        "health chat --json",
        "health --explain eos_token_null",
        "health --explain eos_token_null --json",
        "health --explain nothing",
    ]);
    check_transcript("health.txt", &text);
}

#[test]
fn clone() {
    let text = Hub::with_models().transcript(&[
        "clone org/other-chat ./copy",
        "clone org/other-chat ./copy",
        "clone org/other-chat ./copy --json",
        "clone org/other-chat ./another --json",
        "clone org/unsound ./unsound",
        "clone org/unsound ./hub/inside",
        "clone other-chat ./x",
        "clone chat ./x --json",
    ]);
    check_transcript("clone.txt", &text);
}

#[test]
fn convert() {
    let hub = Hub::with_models();
    hub.run(["clone", "org/other-chat", "./source"]).ok();
    let text = hub.transcript(&[
        "convert ./source ./packed --quantize 4 --q-group-size 32",
        "convert ./source ./packed-too --quantize 4 --q-group-size 32 --json",
        "convert ./packed ./dense --dequantize",
        "convert ./source ./mended --repair-all",
        "convert ./source ./mended-too --repair-all --json",
        "convert ./source ./x --repair-index --dry-run --json",
        "convert ./source ./x",
        "convert ./source ./x --json",
        "convert ./source ./x --quantize 7",
        "convert ./nothing ./x --quantize 4 --strict-exit --json",
    ]);
    check_transcript("convert.txt", &text);
}

#[test]
fn models() {
    let text =
        Hub::new().transcript(&["models", "models --json", "models llama", "models llama --json"]);
    check_transcript("models.txt", &beginnings(&text));
}

/// Its answers are those of arithmetic that is the same on every machine.
#[test]
fn run() {
    let hub = Hub::with_models();
    let text = hub.transcript(&[
        "run demo --exact --thinking off hi",
        "run demo --exact --thinking off hi --max-tokens 2",
        "run nothing hi",
        "run nothing hi --json",
        "run chat hi --strict-exit",
        "run unsound hi --strict-exit",
        "run novel hi --strict-exit",
        "run novel hi --strict-exit --json",
        "run demo hi --temperature -1",
    ]);
    let measured = hub.transcript(&["run demo --exact --thinking off hi --json"]);
    check_transcript("run.txt", &format!("{text}\n{}", without_numbers(&measured)));
}

#[test]
fn what_is_measured() {
    let hub = Hub::with_models();
    fs::write(hub.path().join("text.txt"), "the quick brown fox\n").expect("written");
    hub.run(["clone", "org/other-chat", "./copy"]).ok();
    let text = hub.transcript(&[
        "perplexity other-chat --file text.txt",
        "perplexity other-chat --file text.txt --json",
        "perplexity other-chat --file no.txt",
        "perplexity other-chat --file no.txt --json",
        "compare other-chat ./copy",
        "compare other-chat ./copy --json",
        "compare other-chat nothing",
        "compare other-chat nothing --json",
        "bench other-chat -p 4 -n 2 -r 1 --isa scalar",
        "bench other-chat -p 4 -n 2 -r 1 --isa scalar --json",
        "bench",
        "bench --json",
        "bench other-chat -p 9999",
    ]);
    check_transcript("measured.txt", &without_numbers(&text));
}

#[test]
fn doctor_and_ps() {
    let hub = Hub::new();
    let mut text = hub.transcript_with(&["doctor", "doctor --json"], &[("PATH", "")]);
    // What cannot be read is told of, too.
    text += "\n";
    text += &hub.transcript_with(
        &["doctor --strict-exit", "doctor --strict-exit --json"],
        &[("PATH", ""), ("MLXK_THREADS", "many")],
    );
    text += "\n";
    text += &hub.transcript(&["ps", "ps --json"]);
    text += "\n";
    text += &hub.transcript_with(&["ps", "ps --json"], &[("MLXK_CACHE_DIR", "/dev/null/x")]);
    check_transcript("doctor-ps.txt", &without_findings(&text));
}

#[test]
fn documents() {
    let text = Hub::new().transcript(&[
        "completions bash",
        "completions bash --json",
        "completions cmd",
        "completions cmd --json",
        "man",
        "man --json",
        "man nothing",
        "man nothing --json",
        "schema",
        "schema --json",
        "schema nothing",
        "schema nothing --json",
        "config path --json",
        "config set",
        "config set --json",
        "list a b",
        "list a b --json",
        "prune a",
        "prune a --json",
        "--json",
        "walk",
    ]);
    check_transcript("documents.txt", &beginnings(&text));
}

/// The forms in which a command is to be seen.
const FORMS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn no_command_is_left_out() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts");
    let mut seen = BTreeSet::new();
    for entry in dir.read_dir().expect("a directory") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
        for block in text.split("$ mlxk ").skip(1) {
            let line = block.lines().next().unwrap_or_default();
            let command = line.split_whitespace().find(|word| !word.starts_with('-'));
            let is_error = block.lines().any(|line| line.starts_with("exit code"));
            seen.insert((
                command.unwrap_or_default().to_owned(),
                line.contains("--json"),
                is_error,
            ));
        }
    }
    let commands = COMMANDS.iter().filter(|name| !name.is_empty() && !name.contains(' '));
    let missing: Vec<_> = commands
        .flat_map(|name| FORMS.map(|(json, error)| ((*name).to_owned(), json, error)))
        .filter(|form| !seen.contains(form))
        .collect();
    assert!(missing.is_empty(), "(command, as JSON, failing): {missing:?}");
}
