//! The turns that a user enters: edited in a terminal, or read line by line.
//!
//! A turn is one line. A line that ends in `\` goes on in the next, and so does everything from
//! `"""` to `"""`.

use std::borrow::Cow;
use std::io::{self, BufRead as _};

use reedline::{
    FileBackedHistory, Prompt, PromptEditMode, PromptHistorySearch, Reedline, Signal,
    ValidationResult, Validator,
};

use crate::error::{CommandError, Kind};

const QUOTES: &str = "\"\"\"";
const HISTORY: usize = 1000;

/// What a user did at the prompt.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    Turn(String),
    /// Ctrl-C.
    Interrupted,
    End,
}

/// Where turns come from.
pub(super) enum Reader {
    Terminal(Box<Reedline>),
    Lines(io::StdinLock<'static>),
}

impl Reader {
    pub(super) fn terminal(with_colors: bool) -> Result<Self, CommandError> {
        let history = FileBackedHistory::new(HISTORY)
            .map_err(|e| CommandError::new(Kind::General, e.to_string()))?;
        let editor = Reedline::create()
            .with_history(Box::new(history))
            .with_validator(Box::new(Turns))
            .with_ansi_colors(with_colors)
            .use_bracketed_paste(true);
        Ok(Reader::Terminal(Box::new(editor)))
    }

    pub(super) fn lines() -> Self {
        Reader::Lines(io::stdin().lock())
    }

    pub(super) fn read(&mut self) -> Result<Input, CommandError> {
        match self {
            Reader::Terminal(editor) => match editor.read_line(&Sign) {
                Ok(Signal::Success(text)) => Ok(Input::Turn(unfold(&text))),
                Ok(Signal::CtrlC) => Ok(Input::Interrupted),
                Ok(_) => Ok(Input::End),
                Err(e) => Err(unreadable("the terminal", &e)),
            },
            Reader::Lines(stdin) => read_turn(|line| stdin.read_until(b'\n', line)),
        }
    }
}

/// Reads lines until they make a turn.
fn read_turn(
    mut read_line: impl FnMut(&mut Vec<u8>) -> io::Result<usize>,
) -> Result<Input, CommandError> {
    let mut text = String::new();
    let mut any = false;
    loop {
        let mut line = Vec::new();
        if read_line(&mut line).map_err(|e| unreadable("stdin", &e))? == 0 {
            return Ok(if any { Input::Turn(unfold(&text)) } else { Input::End });
        }
        let line = String::from_utf8(line)
            .map_err(|_| CommandError::new(Kind::General, "stdin is not UTF-8 text"))?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        text += if any { "\n" } else { "" };
        text += line.strip_suffix('\r').unwrap_or(line);
        any = true;
        if !is_open(&text) {
            return Ok(Input::Turn(unfold(&text)));
        }
    }
}

/// Whether more lines belong to the turn.
fn is_open(text: &str) -> bool {
    match text.trim_start().strip_prefix(QUOTES) {
        Some(quoted) => !quoted.trim_end().ends_with(QUOTES),
        None => text.ends_with('\\'),
    }
}

/// Takes away what only held the lines together.
fn unfold(text: &str) -> String {
    if let Some(quoted) = text.trim_start().strip_prefix(QUOTES) {
        let quoted = quoted.trim_end();
        let quoted = quoted.strip_suffix(QUOTES).unwrap_or(quoted);
        return quoted.trim_matches(['\n', '\r']).to_owned();
    }
    text.strip_suffix('\\').unwrap_or(text).replace("\\\n", "\n")
}

fn unreadable(what: &str, error: &io::Error) -> CommandError {
    CommandError::new(Kind::General, format!("cannot read {what}: {error}"))
}

struct Turns;

impl Validator for Turns {
    fn validate(&self, line: &str) -> ValidationResult {
        match is_open(line) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Complete,
        }
    }
}

/// What stands before the line that is edited.
struct Sign;

impl Prompt for Sign {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("… ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("search {}: ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn lines_become_turns() {
        let cases: [(&str, &[&str]); 9] = [
            ("", &[]),
            ("a", &["a"]),
            ("a\nb\r\n", &["a", "b"]),
            ("\n", &[""]),
            ("a\\\nb\\\nc\nd\n", &["a\nb\nc", "d"]),
            ("a\\\n", &["a"]),
            ("\"\"\"a\n\nb\"\"\"\nc\n", &["a\n\nb", "c"]),
            ("\"\"\"\na\\\n\"\"\"\n", &["a\\"]),
            ("\"\"\"a\n", &["a"]),
        ];
        for (text, expected) in cases {
            let mut stdin = Cursor::new(text);
            let turns = std::iter::from_fn(|| {
                match read_turn(|line| stdin.read_until(b'\n', line)).expect("UTF-8") {
                    Input::Turn(turn) => Some(turn),
                    _ => None,
                }
            });
            assert_eq!(turns.collect::<Vec<_>>(), expected, "{text:?}");
        }
        assert!(read_turn(|line| Cursor::new(b"\xff\n").read_until(b'\n', line)).is_err());
    }
}
