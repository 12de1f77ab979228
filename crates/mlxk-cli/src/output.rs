//! Where everything that a user sees goes out.
//!
//! stdout carries data: a command's result as text, or with `--json` exactly one envelope.
//! Everything else is on stderr: errors, hints, warnings, figures. The envelope is mlx-knife's,
//! indented by two spaces and in plain ASCII.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{CommandError, Kind};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// stdout and stderr, and how they are to be used.
pub(crate) struct Output {
    json: bool,
    strict: bool,
    has_strict_flag: bool,
    stdout_style: bool,
    stderr_style: bool,
    verdict: Cell<Option<Kind>>,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    status: &'static str,
    command: Option<&'a str>,
    data: Option<T>,
    error: Option<ErrorObject<'a>>,
}

/// `error` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "error")]
pub(crate) struct ErrorObject<'a> {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = Kind::ALL.map(Kind::name)))]
    kind: &'static str,
    message: String,
    hints: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    matches: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    available_hashes: &'a [String],
    /// The code that the program ends with.
    exit_code: u8,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let styled = |choice| choice != anstream::ColorChoice::Never;
        Output {
            json,
            strict: false,
            has_strict_flag: false,
            verdict: Cell::new(None),
            stdout_style: styled(anstream::AutoStream::choice(&io::stdout())),
            stderr_style: styled(anstream::AutoStream::choice(&io::stderr())),
        }
    }

    /// Lets exit codes tell the kind of a failure, and what [`Self::verdict`] was told.
    pub(crate) fn set_strict(&mut self, flag: bool, setting: bool) {
        self.has_strict_flag = flag;
        self.strict = flag || setting;
    }

    /// Whether it was the command line that asked for telling exit codes.
    pub(crate) fn has_strict_flag(&self) -> bool {
        self.has_strict_flag
    }

    /// Notes what the exit code tells of a command that went well, where that is asked for: that the
    /// model it looked at is damaged, or that it did nothing yet. The first that is noted counts.
    pub(crate) fn verdict(&self, kind: Kind) {
        self.verdict.set(self.verdict.get().or(Some(kind)));
    }

    /// Returns the exit code of a command that went well.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let kind = self.verdict.get().filter(|_| self.strict);
        kind.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.exit_code(true)))
    }

    /// Whether the result is to be an envelope.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person reads stdout as it is written.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether stdout takes colors.
    pub(crate) fn is_styled(&self) -> bool {
        self.stdout_style
    }

    /// Whether stderr takes colors.
    pub(crate) fn is_stderr_styled(&self) -> bool {
        self.stderr_style
    }

    /// Writes text to stdout at once.
    pub(crate) fn write(&self, text: &str) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(stdout_error)
    }

    /// Writes the envelope of a success.
    pub(crate) fn success<T: Serialize>(&self, name: &str, data: &T) -> Result<(), CommandError> {
        let envelope =
            Envelope { status: "success", command: Some(name), data: Some(data), error: None };
        self.write(&to_json(&envelope)?)
    }

    /// Writes a text that is a file of its own; in an envelope it is `data.text`.
    pub(crate) fn document(&self, name: &str, text: &str) -> Result<(), CommandError> {
        match self.json {
            true => self.success(name, &serde_json::json!({ "text": text })),
            false => self.write(text),
        }
    }

    /// Reports an error, to stderr or as an envelope, and returns its exit code.
    pub(crate) fn failure(&self, name: Option<&str>, error: &CommandError) -> ExitCode {
        let exit_code = error.kind.exit_code(self.strict);
        let object = ErrorObject {
            kind: error.kind.name(),
            message: error.to_string(),
            hints: &error.hints,
            matches: &error.matches,
            available_hashes: &error.available_hashes,
            exit_code,
        };
        let data = error.data.as_ref();
        let envelope = Envelope { status: "error", command: name, data, error: Some(object) };
        let written = self.json && to_json(&envelope).and_then(|text| self.write(&text)).is_ok();
        if !written {
            self.report(error);
        }
        ExitCode::from(exit_code)
    }

    /// Writes an error and its hints to stderr.
    pub(crate) fn report(&self, error: &CommandError) {
        self.labelled("error", ERROR, &error.to_string());
        for hint in &error.hints {
            self.hint(hint);
        }
    }

    /// Writes a warning to stderr.
    pub(crate) fn warning(&self, text: &str) {
        self.labelled("warning", WARNING, text);
    }

    /// Writes to stderr what the user could do next.
    pub(crate) fn hint(&self, text: &str) {
        self.labelled("hint", HINT, text);
    }

    /// Writes a line to stderr.
    pub(crate) fn note(&self, text: &str) {
        write_line(&printable(text));
    }

    fn labelled(&self, label: &str, style: Style, text: &str) {
        let style = if self.stderr_style { style } else { Style::new() };
        write_line(&format!("{style}{label}:{style:#} {}", printable(text)));
    }
}

/// Writes a line to stderr at once, so that lines of several programs do not mix.
fn write_line(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Writes JSON indented by two spaces, ASCII only, and a final newline.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, CommandError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| CommandError::new(Kind::General, e))?;
    let mut ascii = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Outside ASCII there is nothing but the content of strings.
        if c.is_ascii() && c != '\u{7f}' {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii.push('\n');
    Ok(ascii)
}

/// Replaces what would command a terminal by a sign that shows it.
///
/// File names, and answers of a model, are not to move the cursor or rename the window.
pub(crate) fn printable(text: &str) -> String {
    let commands = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if commands(c) { '\u{fffd}' } else { c }).collect()
}

/// A number of bytes in decimal units, as `1.9 GB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
    }
}

/// A count in short form, as `1.54 B`.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &["", "K", "M", "B", "T", "P", "E"])
    }
}

fn scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[&str]) -> fmt::Result {
    let mut scaled = value as f64;
    let mut units = units.iter();
    let mut unit = units.next().unwrap_or(&"");
    let first = unit;
    while scaled >= 999.95
        && let Some(next) = units.next()
    {
        (scaled, unit) = (scaled / 1000.0, next);
    }
    let decimals = usize::from(unit != first);
    let space = if unit.is_empty() { "" } else { " " };
    write!(f, "{scaled:.decimals$}{space}{unit}")
}

fn stdout_error(error: io::Error) -> CommandError {
    CommandError::new(Kind::General, format!("cannot write to stdout: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_ascii_and_indented() {
        let text = to_json(&serde_json::json!({"a": "é😀\u{7f}\n", "b": [1]})).unwrap();
        assert_eq!(
            text,
            "{\n  \"a\": \"\\u00e9\\ud83d\\ude00\\u007f\\n\",\n  \"b\": [\n    1\n  ]\n}\n"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["a"] == "é😀\u{7f}\n");
    }

    #[test]
    fn sizes_use_decimal_units() {
        for (value, bytes, count) in [
            (0, "0 B", "0"),
            (999, "999 B", "999"),
            (1000, "1.0 kB", "1.0 K"),
            (999_949, "999.9 kB", "999.9 K"),
            (999_950, "1.0 MB", "1.0 M"),
            (1_540_000_000, "1.5 GB", "1.5 B"),
            (u64::MAX, "18.4 EB", "18.4 E"),
        ] {
            assert_eq!(Bytes(value).to_string(), bytes);
            assert_eq!(Count(value).to_string(), count);
        }
    }

    #[test]
    fn printable_keeps_lines_and_disarms_escapes() {
        assert_eq!(printable("a\n\tb\x1b[2Jc\r"), "a\n\tb\u{fffd}[2Jc\u{fffd}");
    }
}
