//! The walk of docs/cli.md, typed command by command: what the page shows is what is printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set to write the outputs anew.
const REGENERATE: &str = "MLXK_REGENERATE";
/// Stands before the outputs of commands, with their number, and behind them, with the exit code.
const MARK: char = '\u{1e}';
/// What stands for the directory in which all happens.
const HOME: &str = "/you";

/// All that the page may use beside mlxk: what there is on every system.
const TOOLS: [&str; 10] =
    ["cp", "rm", "ls", "mkdir", "printf", "sed", "export", "for", "LC_ALL=C", "echo"];

/// A piece of the page.
enum Piece {
    /// A line that stays as it is.
    Text(String),
    Command {
        typed: String,
        output: String,
        /// Whether it only has to go well, as what it prints is the machine's.
        varies: bool,
    },
}

/// Takes the page apart.
fn parse(page: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut in_block, mut varies) = (false, false);
    for line in page.lines() {
        let text = || Piece::Text(line.to_owned());
        if let Some(info) = line.strip_prefix("```") {
            in_block = !in_block && info.starts_with("console");
            varies = info.ends_with("varies");
            pieces.push(text());
        } else if let Some(typed) = line.strip_prefix("$ ").filter(|_| in_block) {
            let (typed, output) = (typed.to_owned(), String::new());
            pieces.push(Piece::Command { typed, output, varies });
        } else if in_block && let Some(Piece::Command { output, .. }) = pieces.last_mut() {
            let _ = writeln!(output, "{line}");
        } else {
            pieces.push(text());
        }
    }
    pieces
}

/// Types commands in a directory; returns what each printed, and its exit code.
fn type_all(home: &Path, commands: &[&str]) -> Vec<(String, i32)> {
    let mut script = "exec 2>&1\n".to_owned();
    for command in commands {
        let _ = write!(script, "printf '{MARK}'\n{command}\nprintf '{MARK}%s' $?\n");
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_mlxk")).parent().expect("a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = [programs.to_path_buf()].into_iter().chain(std::env::split_paths(&path));
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["MLXK", "HF_", "HUGGINGFACE", "XDG_", "CLICOLOR"].iter().any(|p| name.starts_with(p)) {
            shell.env_remove(name);
        }
    }
    let output = shell
        .args(["-c", &script])
        .current_dir(home)
        .env("HOME", home)
        .env("PATH", std::env::join_paths(paths).expect("paths"))
        .env("LC_ALL", "C")
        .env_remove("COLUMNS")
        // Nothing is deleted in a cache that is not marked as a test's.
        .env("MLXK2_STRICT_TEST_DELETE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let parts: Vec<&str> = text.split(MARK).skip(1).collect();
    assert_eq!(parts.len(), 2 * commands.len(), "{text}");
    let code = |text: &str| text.trim().parse().expect("an exit code");
    parts.chunks(2).map(|pair| (pair[0].to_owned(), code(pair[1]))).collect()
}

/// Puts something settled in place of what differs from run to run: the directory and times.
fn settled(output: &str, home: &Path) -> String {
    let text = output.replace(home.to_str().expect("UTF-8"), HOME).replace("1m ago  ", "just now");
    // Where macOS has caches.
    let text = text.replace("/Library/Caches/", "/.cache/");
    let lines = text.lines().map(|line| {
        let words = line.split(' ').map(|word| match is_time(word) {
            true => "2026-01-31T12:00:00.000000Z",
            false => word,
        });
        words.collect::<Vec<_>>().join(" ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

/// Whether a word is a time of the day that is, as `2026-01-31T12:00:00.000000Z`.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() == 27
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (26, b'Z')]
            .iter()
            .all(|&(at, sign)| bytes[at] == sign)
}

#[test]
fn the_walk_is_what_happens() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().expect("the repository");
    let path = root.join("docs/cli.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let mut pieces = parse(&page);
    let commands: Vec<&str> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Command { typed, .. } => Some(typed.as_str()),
            Piece::Text(_) => None,
        })
        .collect();
    for command in &commands {
        let word = command.split(' ').next().expect("a word");
        let sets =
            word.split_once('=').is_some_and(|(name, _)| name.chars().all(char::is_alphabetic));
        assert!(word == "mlxk" || sets || TOOLS.contains(&word), "{command}");
    }
    let dir = tempfile::Builder::new().prefix("mlxk2_test_").tempdir().expect("a directory");
    let home = dir.path().canonicalize().expect("a directory");
    std::os::unix::fs::symlink(&root, home.join("mlxk-src")).expect("a link");
    let results = type_all(&home, &commands);
    let mut results = results.into_iter();
    let mut differing = Vec::new();
    for piece in &mut pieces {
        let Piece::Command { typed, output, varies } = piece else { continue };
        let (printed, code) = results.next().expect("as many as there are commands");
        let printed = settled(&printed, &home);
        // Whoever reads the page sees what fails.
        assert!(code == 0 || printed.contains("error: "), "{typed}: exit code {code}\n{printed}");
        let is_same = match varies {
            true => code == 0 && !output.is_empty(),
            false => *output == printed,
        };
        if !is_same {
            differing.push(format!("$ {typed}\n{printed}--- the page has\n{output}"));
            *output = printed;
        }
    }
    if std::env::var_os(REGENERATE).is_some() {
        let text: String = pieces.iter().map(Piece::shown).collect();
        std::fs::write(path, text).expect("written");
        return;
    }
    assert!(
        differing.is_empty(),
        "docs/cli.md: {} commands print something else; set {REGENERATE}=1 if that is right\n{}",
        differing.len(),
        differing.join("\n")
    );
}

impl Piece {
    fn shown(&self) -> String {
        match self {
            Piece::Text(line) => format!("{line}\n"),
            Piece::Command { typed, output, .. } => format!("$ {typed}\n{output}"),
        }
    }
}
