//! The command lines that documents and helps show: the program has to know them.

use std::fs;
use std::path::Path;

use crate::reference::COMMANDS;
use crate::support::run;

/// Returns the command lines in the code of a page; where code has a prompt, all else is output.
fn in_page(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let prompts: Vec<&str> =
            block.lines().filter_map(|line| line.trim().strip_prefix("$ ")).collect();
        let lines = match prompts.is_empty() {
            true => block.lines().skip(1).map(str::trim).collect(),
            false => prompts,
        };
        found.extend(lines.into_iter().filter_map(command).map(str::to_owned));
    }
    found
}

/// Returns the examples of a help, each with its explanation behind a gap.
fn in_help(text: &str) -> Vec<String> {
    let examples = text.split_once("\nExamples:\n").map_or("", |(_, examples)| examples);
    let examples = examples.lines().take_while(|line| line.starts_with("  "));
    let examples = examples.filter_map(|line| command(line.trim()));
    examples.map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect()
}

/// Returns the part of a line that starts the program, which may come behind others.
fn command(line: &str) -> Option<&str> {
    let own = line.split(" | ").find(|part| part.starts_with("mlxk "))?;
    let own = own.split(" # ").next().unwrap_or(own);
    Some(own.split([';', '>', '&']).next().unwrap_or(own).trim())
}

/// Cuts a command line as a shell does, but for what no example has.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut word: Option<String> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Lets the program parse a line and no more: the flag at its end asks for help in its place.
fn is_known(line: &str) -> Result<(), String> {
    let words = words(line);
    let args = words[1..].iter().map(String::as_str);
    // Behind two hyphens there are no flags.
    let args = args.take_while(|word| *word != "--").chain(["--help"]);
    let ran = run(args);
    if ran.code == Some(0) { Ok(()) } else { Err(format!("{line}: {}", ran.stderr)) }
}

#[test]
fn examples_of_documents_are_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs")).expect("a directory");
    let docs = docs.map(|entry| entry.expect("an entry").path());
    let pages = ["README.md", "CONTRIBUTING.md"].into_iter().map(|name| root.join(name));
    let mut count = 0;
    for page in pages.chain(docs).filter(|path| path.extension().is_some_and(|e| e == "md")) {
        for line in in_page(&fs::read_to_string(&page).expect("text")) {
            count += 1;
            is_known(&line).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        }
    }
    assert!(count >= 5, "{count} examples were found");
}

#[test]
fn examples_of_helps_are_known() {
    let mut count = 0;
    for command in COMMANDS {
        let help = run(command.split_whitespace().chain(["--help"])).ok();
        for line in in_help(&help) {
            count += 1;
            is_known(&line).unwrap_or_else(|error| panic!("mlxk {command} --help: {error}"));
        }
    }
    assert!(count >= 5, "{count} examples were found");
}

#[test]
fn examples_are_found_and_cut_as_a_shell_does() {
    let page = "`mlxk a`\n```sh\nmlxk run demo \"a  b\" # why\ngit diff | mlxk run ./m - > out\n\
                ls\n```\nmlxk b\n```console\n$ mlxk c\nmlxk 1.0\n```\n";
    assert_eq!(in_page(page), ["mlxk run demo \"a  b\"", "mlxk run ./m -", "mlxk c"]);
    assert_eq!(words("mlxk run 'a  b' \"\" c"), ["mlxk", "run", "a  b", "", "c"]);
    let help =
        "Usage: mlxk list\n\nExamples:\n  mlxk list     all\n  mlxk list x   some\n\nmlxk y\n";
    assert_eq!(in_help(help), ["mlxk list", "mlxk list x"]);
    assert!(is_known("mlxk list --no-such-flag").is_err());
    assert!(is_known("mlxk walk").is_err());
}
