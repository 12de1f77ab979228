//! What chat templates take from Python: how values are written, and methods of text and lists.

use std::borrow::Cow;
use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Deeper values than any conversation has are not written out.
const MAX_DEPTH: usize = 100;

/// Writes a value as Python's `str` does: text as it is, all else as in Python source.
pub(super) fn to_str(value: &Value) -> Cow<'_, str> {
    if let Some(text) = value.as_str() {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    if !value.is_undefined() {
        write_repr(value, 0, &mut out);
    }
    Cow::Owned(out)
}

fn write_repr(value: &Value, depth: usize, out: &mut String) {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => write_str_repr(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => write_number(value, out),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter().into_iter().flatten() {
                if count > 0 {
                    out.push_str(", ");
                }
                write_repr(&item, depth + 1, out);
                count += 1;
            }
            if value.is_tuple() && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter().into_iter().flatten().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, depth + 1, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
            }
            out.push('}');
        }
        _ => drop(write!(out, "{value}")),
    }
}

fn write_str_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = c as u32;
                let _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`, but for code points without a meaning.
fn is_printable(c: char) -> bool {
    const FORMAT_OR_PRIVATE: [(u32, u32); 13] = [
        (0xAD, 0xAD),
        (0x600, 0x605),
        (0x61C, 0x61C),
        (0x6DD, 0x6DD),
        (0x70F, 0x70F),
        (0x180E, 0x180E),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0xE000, 0xF8FF),
        (0xFEFF, 0xFEFF),
        (0xFFF0, 0xFFFB),
        (0xE0000, 0x10FFFF),
    ];
    let code = c as u32;
    let hidden = FORMAT_OR_PRIVATE.iter().any(|(first, last)| (*first..=*last).contains(&code));
    c == ' ' || !(c.is_control() || c.is_whitespace() || hidden)
}

fn write_number(value: &Value, out: &mut String) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    match f64::try_from(value.clone()) {
        Ok(number) => write_float(number, out),
        Err(_) => drop(write!(out, "{value}")),
    }
}

/// Writes the shortest digits that read back, with an exponent where Python has one.
fn write_float(number: f64, out: &mut String) {
    let size = number.abs();
    let _ = match number {
        _ if number.is_nan() => write!(out, "nan"),
        _ if number.is_infinite() => write!(out, "{}inf", if number < 0.0 { "-" } else { "" }),
        _ if size != 0.0 && !(1e-4..1e16).contains(&size) => {
            let text = format!("{number:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(out, "{digits}e{sign}{:02}", exponent.abs())
        }
        _ if number.fract() == 0.0 => write!(out, "{number:.1}"),
        _ => write!(out, "{number}"),
    };
}

/// The `tojson` filter: `json.dumps` with its arguments, non-ASCII text kept unless asked.
pub(super) fn tojson(args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (args, kwargs): (&[Value], Kwargs) = from_args(&args)?;
    let Some((value, args)) = args.split_first() else {
        return Err(Error::from(ErrorKind::MissingArgument));
    };
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let given: Option<Value> = kwargs.get(name)?;
        Ok(given.or_else(|| args.get(at).cloned()).filter(|value| !value.is_none()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = match argument(1, "indent")? {
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(
                " ".repeat(usize::try_from(i64::try_from(indent)?.max(0)).unwrap_or(0).min(64)),
            ),
        },
        None => None,
    };
    let separators = match argument(2, "separators")? {
        Some(pair) => (
            to_str(&pair.get_item_by_index(0)?).into_owned(),
            to_str(&pair.get_item_by_index(1)?).into_owned(),
        ),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    let mut writer = JsonWriter { ensure_ascii, indent, separators, sort_keys, out: String::new() };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct JsonWriter {
    ensure_ascii: bool,
    indent: Option<String>,
    separators: (String, String),
    sort_keys: bool,
    out: String,
}

impl JsonWriter {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "tojson: nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.container('[', ']', &items, depth, |writer, item| {
                    writer.value(item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.container('{', '}', &keys, depth, |writer, key| {
                    writer.key(key)?;
                    writer.out.push_str(&writer.separators.1.clone());
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind => {
                let text = format!("tojson: a value of type {kind} has no JSON form");
                return Err(Error::new(ErrorKind::BadSerialization, text));
            }
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push_str(&self.separators.0);
            }
            self.line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        if key.as_str().is_some() {
            return self.value(key, 0);
        }
        if !matches!(key.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number) {
            return Err(Error::new(ErrorKind::BadSerialization, "tojson: a key is not text"));
        }
        self.out.push('"');
        self.value(key, 0)?;
        self.out.push('"');
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        let mut text = String::new();
        write_number(value, &mut text);
        self.out.push_str(match text.as_str() {
            "nan" => "NaN",
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            text => text,
        });
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// The `length` filter; what is not there has none.
pub(super) fn length(value: &Value) -> Result<usize, Error> {
    match value.len() {
        Some(len) => Ok(len),
        None if value.is_undefined() => Ok(0),
        None if value.kind() == ValueKind::Iterable => Ok(value.try_iter()?.count()),
        None => {
            let text = format!("length: a value of type {} has none", value.kind());
            Err(Error::new(ErrorKind::InvalidOperation, text))
        }
    }
}

/// The `int` filter: what is no number becomes `default`, or 0.
pub(super) fn int(value: &Value, default: Option<Value>) -> Value {
    let number = match value.as_str().map(str::trim) {
        Some(text) => {
            text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().and_then(truncate))
        }
        None if value.kind() == ValueKind::Bool => Some(i64::from(value.is_true())),
        None if value.is_integer() => return value.clone(),
        None => f64::try_from(value.clone()).ok().and_then(truncate),
    };
    number.map(Value::from).or(default).unwrap_or(Value::from(0))
}

fn truncate(number: f64) -> Option<i64> {
    (number.abs() < 9e18).then_some(number as i64)
}

/// The `float` filter: what is no number becomes `default`, or 0.0.
pub(super) fn float(value: &Value, default: Option<Value>) -> Value {
    let number = match value.as_str().map(str::trim) {
        Some(text) => text.parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    number.map(Value::from).or(default).unwrap_or(Value::from(0.0))
}

/// The `escape` filter, with the numbers that MarkupSafe writes for quotes.
pub(super) fn escape(value: &Value) -> Value {
    if value.is_safe() {
        return value.clone();
    }
    let mut out = String::new();
    for c in to_str(value).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Value::from_safe_string(out)
}

/// Calls a Python method on text, a list or a dictionary.
pub(super) fn call_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => str_method(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq => list_method(value, method, args)?,
        ValueKind::Map if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(value) => Ok(value),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "copy" => list.clone(),
        "index" => {
            let (item,): (&Value,) = from_args(args)?;
            let at = list.try_iter()?.position(|other| other == *item);
            Value::from(at.ok_or_else(|| missing("the list has no such item"))?)
        }
        _ => return Ok(None),
    }))
}

fn missing(text: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// The methods of text that differ from minijinja-contrib's, or that it lacks.
fn str_method(s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "split" | "rsplit" => {
            let (args, kwargs): (&[Value], Kwargs) = from_args(args)?;
            let get = |at: usize, name: &str| -> Result<Option<Value>, Error> {
                let given: Option<Value> = kwargs.get(name)?;
                Ok(given.or_else(|| args.get(at).cloned()).filter(|value| !value.is_none()))
            };
            let separator = get(0, "sep")?;
            let limit = get(1, "maxsplit")?.map(i64::try_from).transpose()?.unwrap_or(-1);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            kwargs.assert_all_used()?;
            let separator = separator.as_ref().map(text_argument).transpose()?;
            if separator == Some("") {
                return Err(missing("split: the separator is empty"));
            }
            split(s, separator, limit, method == "rsplit").into_iter().collect()
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            split_lines(s, keep.unwrap_or(false)).into_iter().collect()
        }
        "removeprefix" => Value::from(s.strip_prefix(text_arg(args)?).unwrap_or(s)),
        "removesuffix" => Value::from(s.strip_suffix(text_arg(args)?).unwrap_or(s)),
        "index" => char_index(s, s.find(text_arg(args)?))?,
        "rindex" => char_index(s, s.rfind(text_arg(args)?))?,
        "partition" => {
            let separator = text_arg(args)?;
            let (a, b) = s.split_once(separator).unwrap_or((s, ""));
            let found = a.len() < s.len();
            Tuple::from([a, if found { separator } else { "" }, b].map(Value::from)).into()
        }
        "rpartition" => {
            let separator = text_arg(args)?;
            let (a, b) = s.rsplit_once(separator).unwrap_or(("", s));
            let found = b.len() < s.len();
            Tuple::from([a, if found { separator } else { "" }, b].map(Value::from)).into()
        }
        // DIFFERENCE: Python also knows digits of other scripts here.
        "isdigit" | "isdecimal" => {
            Value::from(!s.is_empty() && s.chars().all(|c| c.is_ascii_digit()))
        }
        "title" => title(s).into(),
        "casefold" => Value::from(s.to_lowercase()),
        "swapcase" => s
            .chars()
            .map(|c| match c.is_uppercase() {
                true => c.to_lowercase().to_string(),
                false => c.to_uppercase().to_string(),
            })
            .collect::<String>()
            .into(),
        "ljust" | "rjust" | "center" | "zfill" => pad(s, method, args)?,
        _ => return Ok(None),
    }))
}

fn text_arg(args: &[Value]) -> Result<&str, Error> {
    let (value,): (&Value,) = from_args(args)?;
    text_argument(value)
}

fn text_argument(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| missing("the argument is not text"))
}

fn char_index(s: &str, at: Option<usize>) -> Result<Value, Error> {
    let at = at.ok_or_else(|| missing("the text has no such part"))?;
    Ok(Value::from(s[..at].chars().count()))
}

/// Writes each run of letters with a capital; anything else ends a run.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

/// Splits at a separator, or at runs of white space; at most `limit` times, from either end.
fn split<'a>(s: &'a str, separator: Option<&str>, limit: usize, from_end: bool) -> Vec<&'a str> {
    let pieces = limit.saturating_add(1);
    match (separator, from_end) {
        (Some(separator), false) => s.splitn(pieces, separator).collect(),
        (Some(separator), true) => {
            let mut parts: Vec<_> = s.rsplitn(pieces, separator).collect();
            parts.reverse();
            parts
        }
        (None, false) => {
            let mut parts = Vec::new();
            let mut rest = s.trim_start();
            while !rest.is_empty() {
                let end = match parts.len() < limit {
                    true => rest.find(char::is_whitespace).unwrap_or(rest.len()),
                    false => rest.len(),
                };
                parts.push(&rest[..end]);
                rest = rest[end..].trim_start();
            }
            parts
        }
        (None, true) => {
            let mut parts = Vec::new();
            let mut rest = s.trim_end();
            while !rest.is_empty() {
                let space = rest.char_indices().rev().find(|(_, c)| c.is_whitespace());
                let start = match (parts.len() < limit, space) {
                    (true, Some((at, c))) => at + c.len_utf8(),
                    _ => 0,
                };
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end();
            }
            parts.reverse();
            parts
        }
    }
}

fn split_lines(s: &str, keep: bool) -> Vec<&str> {
    const BREAKS: [char; 10] = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    let mut lines = Vec::new();
    let mut rest = s;
    while !rest.is_empty() {
        let end = rest.find(BREAKS).unwrap_or(rest.len());
        let len = match rest[end..].starts_with("\r\n") {
            true => 2,
            false => rest[end..].chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep { end + len } else { end }]);
        rest = &rest[end + len..];
    }
    lines
}

fn pad(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let width = usize::try_from(width).unwrap_or(0).min(1 << 16);
    let missing = width.saturating_sub(s.chars().count());
    let fill = fill.unwrap_or(if method == "zfill" { "0" } else { " " });
    let left = match method {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let (sign, digits) = match s.strip_prefix(['+', '-']) {
        Some(digits) if method == "zfill" => s.split_at(s.len() - digits.len()),
        _ => ("", s),
    };
    Ok(Value::from(format!("{sign}{}{digits}{}", fill.repeat(left), fill.repeat(missing - left))))
}
