//! The names that a content hash leaves out.
//!
//! A pattern is one of Python's `fnmatch` for the name of a file, at whatever depth; one with a
//! slash at its end is for names of directories. Which patterns a hash was made with is kept in
//! the sentinel.

/// The patterns of mlx-knife 2.0.8.
pub(crate) const DEFAULT: [&str; 34] = [
    ".hf_cache/",
    ".mlxk_workspace.json",
    ".git/",
    ".github/",
    "__pycache__/",
    ".vscode/",
    ".idea/",
    ".ipynb_checkpoints/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".tox/",
    "node_modules/",
    ".venv/",
    "venv/",
    "*.lock",
    "*.tmp",
    "*.log",
    "*.bak",
    ".DS_Store",
    "._*",
    ".Spotlight-V100/",
    ".Trashes/",
    ".fseventsd/",
    ".TemporaryItems/",
    ".apdisk",
    "Icon\r",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    "*~",
    ".*.swp",
    ".*.swo",
];

/// Whether a directory of this name is left out, with all below it.
pub(super) fn excludes_directory(patterns: &[String], name: &str) -> bool {
    let mut patterns = patterns.iter().filter_map(|pattern| pattern.strip_suffix('/'));
    patterns.any(|pattern| matches(pattern, name))
}

/// Whether a file of this name is left out.
pub(super) fn excludes_file(patterns: &[String], name: &str) -> bool {
    let mut patterns = patterns.iter().filter(|pattern| !pattern.ends_with('/'));
    patterns.any(|pattern| matches(pattern, name))
}

/// Matches as `fnmatch.fnmatchcase` does: `*`, `?`, `[abc]`, `[a-c]`, `[!abc]`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and how far it reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = matches_one(&pattern[p..], name[n]) {
            (p, n) = (p + length, n + 1);
        } else if let Some((at, reach)) = star {
            star = Some((at, reach + 1));
            (p, n) = (at + 1, reach + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Matches one character; returns how long the part of the pattern is that did.
fn matches_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match set(pattern) {
            Some((length, negated, set)) => (in_set(set, c) != negated).then_some(length),
            // Without an end it is a bracket.
            None => (c == '[').then_some(1),
        },
        first => (*first == c).then_some(1),
    }
}

/// Takes a set at the begin of a pattern apart: its length, whether it is negated, its content.
fn set(pattern: &[char]) -> Option<(usize, bool, &[char])> {
    let negated = pattern.get(1) == Some(&'!');
    let start = 1 + usize::from(negated);
    // A bracket that comes first is an element.
    let end = pattern.iter().skip(start + 1).position(|c| *c == ']')? + start + 1;
    Some((end + 1, negated, &pattern[start..end]))
}

fn in_set(mut set: &[char], c: char) -> bool {
    while let Some(first) = set.first() {
        match set {
            [low, '-', high, ..] => {
                if (*low..=*high).contains(&c) {
                    return true;
                }
                set = &set[3..];
            }
            _ => {
                if *first == c {
                    return true;
                }
                set = &set[1..];
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_python() {
        for (pattern, name, expected) in [
            ("*.log", ".log", true),
            ("*.log", "a.logs", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdef", false),
            ("*a*b", "aab", true),
            ("?", "é", true),
            ("?", "", false),
            ("", "", true),
            ("**", "", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[!]]", "a", true),
            ("[a-]", "-", true),
            ("[", "[", true),
            ("a[", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
