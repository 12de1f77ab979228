//! `cargo xtask tidy`: the house rules that a program can check.
//!
//! Every rule is a function from a path and a text, or from a manifest, to violations, so that
//! its test is a small string. What differs per file is in the tables at the top. The same check
//! runs as a test of this crate.

mod rust;
#[cfg(test)]
mod tests;
mod workspace;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, ensure};

use crate::shell;

/// Files that may be longer than [`FILE_LINES`], each of them one type or one flat table.
const LONG_FILES: &[(&str, &str)] = &[("crates/mlx-core/tests/it/hostile.rs", "one table")];
const FILE_LINES: usize = 600;

/// Model files that may have [`HYBRID_LINES`] because they are hybrids or mixtures of experts.
const HYBRID_MODELS: &[&str] = &["gemma4_text.rs", "nemotron_h.rs", "qwen3_next.rs"];
const DENSE_LINES: usize = 250;
const HYBRID_LINES: usize = 400;

/// Where unsafe code may stand: a directory ends with a slash.
const UNSAFE: &[&str] = &[
    "crates/mlx-sys/",
    "crates/mlx-core/src/ffi/",
    "crates/mlx-core/src/kernels/",
    "crates/mlx-core/src/io/mapping.rs",
    "crates/mlx-core/src/array/mod.rs",
];

/// Files that a task writes.
const GENERATED: &[&str] = &["crates/mlx-sys/src/generated.rs"];
const GENERATED_MARK: &str = concat!("@generated", " by cargo xtask");

const LIBRARIES: &[&str] = &["mlx-core", "mlx-lm", "mlx-vlm", "mlx-audio", "mlx-embed"];

const LARGEST_FILE: u64 = 4 << 20;

/// Words that no file may hold; put together here so that this file does not hold them either.
const BANNED: &[(&str, &str)] = &[
    (concat!("crates", ".io"), "names a package registry"),
    (concat!("pypi", ".org"), "names a package registry"),
    (concat!("python", "hosted.org"), "names a package registry"),
    (concat!("/", "root/"), "names a path of one machine"),
    (concat!("/", "work/"), "names a path of one machine"),
    (concat!("/", "home/"), "names a path of one machine"),
    (concat!("shared", "/REQUIREMENTS"), "names a file outside the repository"),
    (concat!("shared", "/DESIGN"), "names a file outside the repository"),
    (concat!("shared", "/STYLE"), "names a file outside the repository"),
    (concat!("spec", "/"), "names a file outside the repository"),
    (concat!("Co", "dex"), "tells how the work is organised"),
    (concat!("Clau", "de"), "tells how the work is organised"),
    (concat!("mile", "stone"), "tells how the work is organised"),
    (concat!("sub", "agent"), "tells how the work is organised"),
    (concat!("coding ", "agent"), "tells how the work is organised"),
    (concat!("TO", "DO"), "is not a tag: FIXME says what is wrong"),
    (concat!("XX", "X"), "is not a tag: FIXME says what is wrong"),
];
/// Words that are banned when a number follows, as in a review round's name.
const BANNED_BEFORE_NUMBER: &[&str] =
    &[concat!("iss", "ue "), concat!("iss", "ue #"), concat!("rou", "nd "), concat!("rou", "nd-")];

/// One broken rule.
#[derive(Debug, PartialEq)]
struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.text)
    }
}

/// Collects the violations in one file.
struct File<'a> {
    path: &'a str,
    text: &'a str,
    found: Vec<Violation>,
}

impl File<'_> {
    fn report(&mut self, line: usize, rule: &'static str, text: impl Into<String>) {
        self.found.push(Violation { path: self.path.to_owned(), line, rule, text: text.into() });
    }
}

pub fn run() -> Result<ExitCode> {
    Ok(if require().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints every violation and fails when there is one.
pub fn require() -> Result<()> {
    let violations = check(&shell::root())?;
    for violation in &violations {
        println!("{violation}");
    }
    ensure!(violations.is_empty(), "{} violations of STYLE.md", violations.len());
    println!("tidy");
    Ok(())
}

fn check(root: &Path) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let files = files(root)?;
    for path in &files {
        let at = root.join(path);
        let size = at.metadata()?.len();
        violations.extend(check_size(path, size));
        if is_text(path) && size <= LARGEST_FILE {
            match std::fs::read_to_string(&at) {
                Ok(text) => violations.extend(check_text(path, &text)),
                Err(e) => violations.push(Violation {
                    path: path.clone(),
                    line: 1,
                    rule: "text",
                    text: e.to_string(),
                }),
            }
        }
    }
    violations.extend(workspace::check(root, &files)?);
    violations.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(violations)
}

/// Lists what is or will be committed: as git tells it, or without git by walking.
fn files(root: &Path) -> Result<Vec<String>> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let paths: Vec<PathBuf> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            .map(PathBuf::from)
            .filter(|path| root.join(path).is_file())
            .collect(),
        None => {
            let built = ["target", ".git", "crates/mlx-sys/vendor"];
            let mut paths = shell::files_below(root)?;
            paths.retain(|path| !built.iter().any(|dir| path.starts_with(dir)));
            paths
        }
    };
    let mut paths: Vec<String> =
        paths.iter().map(|path| path.to_string_lossy().replace('\\', "/")).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Source and prose; data that reference programs wrote are theirs.
fn is_text(path: &str) -> bool {
    const EXTENSIONS: &[&str] =
        &["rs", "toml", "md", "py", "txt", "c", "h", "cpp", "yml", "yaml", "sh", "json", "jinja"];
    const NAMES: &[&str] = &["format", "run", ".gitignore", "LICENSE-MIT", "LICENSE-APACHE"];
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_data = path.starts_with("fixtures/data/") || path.starts_with("fixtures/models/");
    let known = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => EXTENSIONS.contains(&extension),
        _ => NAMES.contains(&name),
    };
    known && !is_data && !path.contains("proptest-regressions/")
}

fn check_text(path: &str, text: &str) -> Vec<Violation> {
    let mut file = File { path, text, found: Vec::new() };
    check_banned(&mut file);
    if GENERATED.contains(&path) || text.lines().next().is_some_and(is_generated) {
        check_generated(&mut file);
    } else {
        check_whitespace(&mut file);
        if path.ends_with(".rs") {
            rust::check(&mut file);
        }
    }
    file.found
}

fn is_generated(first_line: &str) -> bool {
    first_line.contains(GENERATED_MARK)
}

fn check_generated(file: &mut File) {
    if !file.text.lines().next().is_some_and(is_generated) {
        file.report(1, "generated", format!("does not begin with `{GENERATED_MARK} …`"));
    }
}

fn check_size(path: &str, size: u64) -> Option<Violation> {
    (size > LARGEST_FILE).then(|| Violation {
        path: path.to_owned(),
        line: 1,
        rule: "large",
        text: format!("{size} bytes, more than {LARGEST_FILE}"),
    })
}

fn check_whitespace(file: &mut File) {
    // A template's trailing blanks are part of what it renders, and a licence is verbatim.
    if file.path.ends_with(".jinja") || file.path.starts_with("LICENSE") {
        return;
    }
    for (i, line) in file.text.split('\n').enumerate() {
        if line.ends_with('\r') {
            file.report(i + 1, "whitespace", "carriage return");
        } else if line.ends_with([' ', '\t']) {
            file.report(i + 1, "whitespace", "blanks at the end of the line");
        }
        if line.contains('\t') {
            file.report(i + 1, "whitespace", "tab");
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        file.report(file.text.lines().count(), "whitespace", "no newline at the end");
    }
    if file.text.ends_with("\n\n") {
        file.report(file.text.lines().count(), "whitespace", "empty line at the end");
    }
}

fn check_banned(file: &mut File) {
    // A lock file says where each package comes from; that is its purpose.
    if file.path.ends_with("Cargo.lock") {
        return;
    }
    for (i, line) in file.text.lines().enumerate() {
        for &(word, why) in BANNED {
            if let Some(at) = line.find(word)
                && starts_a_word(line, at, word)
            {
                file.report(i + 1, "words", format!("`{word}` {why}"));
            }
        }
        let lower = line.to_ascii_lowercase();
        for word in BANNED_BEFORE_NUMBER {
            for (at, _) in lower.match_indices(word) {
                let number = lower[at + word.len()..].starts_with(|c: char| c.is_ascii_digit());
                if number && starts_a_word(&lower, at, word) {
                    file.report(i + 1, "words", format!("`{word}…` tells of the work's history"));
                }
            }
        }
    }
}

/// A word in the middle of another is not that word, unless it starts with a sign.
fn starts_a_word(line: &str, at: usize, word: &str) -> bool {
    let inside = line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/');
    !inside || !word.starts_with(|c: char| c.is_alphanumeric())
}
