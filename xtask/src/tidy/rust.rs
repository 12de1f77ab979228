//! Rules about one Rust file.

use super::{
    DENSE_LINES, FILE_LINES, File, HYBRID_LINES, HYBRID_MODELS, LIBRARIES, LONG_FILES, UNSAFE,
};

pub(super) fn check(file: &mut File) {
    let code = code(file.text);
    check_module_docs(file);
    check_banners(file);
    check_length(file, &code);
    check_unsafe(file, &code);
    check_forbids_unsafe(file, &code);
    check_calls(file, &code);
    check_errors_documented(file, &code);
}

/// Returns the lines of a file with comments blanked and the inside of literals filled, so that
/// what remains is code.
pub(super) fn code(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    // Copies up to `end`, keeping line ends and putting `fill` for all else.
    let blank = |out: &mut String, from: usize, end: usize, fill: char| {
        out.extend(chars[from..end].iter().map(|&c| if c == '\n' { c } else { fill }));
    };
    while i < chars.len() {
        let rest = &chars[i..];
        let in_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
        if rest.starts_with(&['/', '/']) {
            let end = rest.iter().position(|&c| c == '\n').map_or(chars.len(), |n| i + n);
            blank(&mut out, i, end, ' ');
            i = end;
        } else if rest.starts_with(&['/', '*']) {
            let end = i + block_comment_length(rest);
            blank(&mut out, i, end, ' ');
            i = end;
        } else if let Some(length) = raw_string_length(rest).filter(|_| !in_word) {
            blank(&mut out, i, i + length, '"');
            i += length;
        } else if rest[0] == '"' {
            let end = i + string_length(rest);
            blank(&mut out, i, end, '"');
            i = end;
        } else if let Some(length) = char_length(rest) {
            blank(&mut out, i, i + length, '"');
            i += length;
        } else {
            out.push(rest[0]);
            i += 1;
        }
    }
    out.lines().map(str::to_owned).collect()
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        if rest[i..].starts_with(&['/', '*']) {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(&['*', '/']) {
            depth -= 1;
            i += 2;
            if depth == 0 {
                break;
            }
        } else {
            i += 1;
        }
    }
    i.min(rest.len())
}

/// `r"…"`, `r#"…"#`, and the same after `b` or `c`.
fn raw_string_length(rest: &[char]) -> Option<usize> {
    let mut start = usize::from(matches!(rest[0], 'b' | 'c'));
    if rest.get(start) != Some(&'r') {
        return None;
    }
    start += 1;
    let hashes = rest[start..].iter().take_while(|&&c| c == '#').count();
    start += hashes;
    if rest.get(start) != Some(&'"') {
        return None;
    }
    let mut end: Vec<char> = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    let inside = &rest[start + 1..];
    let length = inside.windows(end.len()).position(|w| w == end).unwrap_or(inside.len());
    Some((start + 1 + length + end.len()).min(rest.len()))
}

fn string_length(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != '"' {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(rest.len())
}

/// A character literal, which a lifetime is not.
fn char_length(rest: &[char]) -> Option<usize> {
    if rest[0] != '\'' {
        return None;
    }
    match rest.get(1)? {
        '\\' => rest[3..].iter().position(|&c| c == '\'').map(|n| n + 4),
        _ => (rest.get(2) == Some(&'\'')).then_some(3),
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn check_module_docs(file: &mut File) {
    // `tests.rs` belongs to the module beside it, which has said what it is.
    let is_source = ["/src/", "/build/", "/tests/"].iter().any(|dir| file.path.contains(dir));
    if is_source && !file.path.ends_with("/tests.rs") && !file.text.starts_with("//! ") {
        file.report(1, "module-docs", "does not begin with `//!`");
    }
}

fn check_banners(file: &mut File) {
    for (i, line) in file.text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
        let comment = comment.trim();
        let is_rule = |c: char| {
            let run: String = std::iter::repeat_n(c, 4).collect();
            comment.starts_with(&run) || comment.ends_with(&run)
        };
        if ['=', '-', '*', '#', '/', '~', '─'].into_iter().any(is_rule) {
            file.report(i + 1, "banner", "a comment is not a rule of signs");
        }
    }
}

fn check_length(file: &mut File, code: &[String]) {
    let lines = code.iter().filter(|line| !line.trim().is_empty()).count();
    let model = file.path.split_once("/src/models/").map(|(_, name)| name);
    let limit =
        match model {
            Some(name) if name != "mod.rs" && !is_test(file.path) => {
                if HYBRID_MODELS.contains(&name) { HYBRID_LINES } else { DENSE_LINES }
            }
            _ => FILE_LINES,
        };
    if lines > limit && !LONG_FILES.iter().any(|(path, _)| *path == file.path) {
        file.report(1, "length", format!("{lines} lines of code, more than {limit}"));
    }
}

fn check_unsafe(file: &mut File, code: &[String]) {
    let may = UNSAFE.iter().any(|&place| match place.strip_suffix('/') {
        Some(_) => file.path.starts_with(place),
        None => file.path == place,
    });
    if may {
        return;
    }
    for (i, line) in code.iter().enumerate() {
        if has_word(line, "unsafe") {
            file.report(i + 1, "unsafe", "unsafe code has its few places, and this is none");
        }
    }
}

/// Every crate whose root may not hold unsafe code says so to the compiler too.
fn check_forbids_unsafe(file: &mut File, code: &[String]) {
    let is_root = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
    let allows = ["crates/mlx-sys/", "crates/mlx-core/", "xtask/outside/"];
    if is_root
        && !allows.iter().any(|dir| file.path.starts_with(dir))
        && !code.iter().any(|line| line.trim() == "#![forbid(unsafe_code)]")
    {
        file.report(1, "unsafe", "no `#![forbid(unsafe_code)]`");
    }
}

fn check_calls(file: &mut File, code: &[String]) {
    for (i, line) in code.iter().enumerate() {
        if line.contains("#[ignore") {
            file.report(i + 1, "ignore", "a test says at run time when it skips");
        }
        for name in ["todo!", "unimplemented!", "dbg!"] {
            if has_word(line, name) {
                file.report(i + 1, "unfinished", format!("`{name}`"));
            }
        }
    }
    let is_library =
        LIBRARIES.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")));
    if !is_library || is_test(file.path) {
        return;
    }
    for (i, line) in without_tests(code).iter().enumerate() {
        for name in ["println!", "eprintln!", "print!", "eprint!"] {
            if has_word(line, name) {
                file.report(i + 1, "library", format!("a library prints nothing: `{name}`"));
            }
        }
        for module in ["env", "net"] {
            let grouped = line.trim_start().starts_with("use std::{") && has_word(line, module);
            if has_word(line, &format!("std::{module}")) || grouped {
                file.report(i + 1, "library", format!("a library does not use `std::{module}`"));
            }
        }
    }
}

/// A public function of a library that can fail says when, under `# Errors`. Macros document their
/// rows themselves, mostly in the same way.
fn check_errors_documented(file: &mut File, code: &[String]) {
    let is_library =
        LIBRARIES.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")));
    if !is_library || is_test(file.path) {
        return;
    }
    let lines: Vec<&str> = file.text.lines().collect();
    for (i, line) in code.iter().enumerate() {
        let Some(name) = line.trim_start().strip_prefix("pub fn ") else { continue };
        let is_above = |line: &&&str| {
            let line = line.trim_start();
            line.starts_with("///") || line.starts_with("#[")
        };
        let mut docs = lines[..i].iter().rev().take_while(is_above);
        if returns_result(&code[i..]) && !docs.any(|line| line.trim_start() == "/// # Errors") {
            let name = name.split(['(', '<']).next().unwrap_or(name);
            file.report(i + 1, "errors", format!("`{name}` can fail and has no `# Errors`"));
        }
    }
}

/// Tells whether a function's signature, from its first line on, ends in a `Result`; those in the
/// types of its arguments do not count.
fn returns_result(code: &[String]) -> bool {
    let mut depth = 0;
    let mut outside = String::new();
    let mut last = ' ';
    for c in code.iter().flat_map(|line| line.chars().chain([' '])) {
        let before = std::mem::replace(&mut last, c);
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            '{' | ';' if depth == 0 => break,
            _ if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    let mut parts = outside.split(" -> ").skip(1);
    let returned = parts.next().and_then(|returned| returned.split_whitespace().next());
    returned.is_some_and(|name| name.rsplit("::").next() == Some("Result"))
}

/// The part of a file before its inline test module.
fn without_tests(code: &[String]) -> &[String] {
    let end = code
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    &code[..end.unwrap_or(code.len())]
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}
