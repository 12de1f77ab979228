//! The Jinja dialect of transformers' chat templates, on minijinja.
//!
//! transformers runs Jinja2 with `trim_blocks` and `lstrip_blocks`, loop controls, a `generation`
//! block, a `tojson` that keeps non-ASCII text, `raise_exception` and `strftime_now`, in a
//! sandbox that changes nothing. What follows from Python rather than from Jinja is in `python`.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Map;

use super::python;

/// Longer sources than any model's are not compiled.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// The stack on which templates are compiled and run. The engine recurses as deep as an expression
/// has operators and as lists contain lists; within the limits on source and steps this holds it.
const STACK_BYTES: usize = 256 << 20;

/// More than any context window holds.
pub(super) const MAX_OUTPUT_BYTES: usize = 256 << 20;

/// How deep macros may call one another and loops may nest.
const MAX_DEPTH: usize = 200;

const NAME: &str = "chat template";

/// A date and a time of day, without a zone, for `strftime_now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime(DateTime);

impl LocalTime {
    /// Makes a time from `year, month, day` and `hour, minute, second`; `None` if there is no such.
    pub fn new(date: (i16, i8, i8), time: (i8, i8, i8)) -> Option<Self> {
        DateTime::new(date.0, date.1, date.2, time.0, time.1, time.2, 0).ok().map(LocalTime)
    }

    /// Converts a point in time, `offset_minutes` east of Greenwich.
    pub fn from_system_time(time: SystemTime, offset_minutes: i32) -> Option<Self> {
        let offset = jiff::tz::Offset::from_seconds(offset_minutes.checked_mul(60)?).ok()?;
        Some(LocalTime(offset.to_datetime(jiff::Timestamp::try_from(time).ok()?)))
    }

    pub(super) fn utc_now() -> Self {
        LocalTime::from_system_time(SystemTime::now(), 0).unwrap_or(LocalTime(DateTime::ZERO))
    }

    fn format(self, format: &str) -> Result<String, Error> {
        let config = strtime::Config::new().lenient(true);
        let time = strtime::BrokenDownTime::from(self.0);
        time.to_string_with_config(&config, format).map_err(|e| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {e}"))
        })
    }
}

/// A template's share of work. Some look, for each message, at all that follow.
pub(super) fn max_steps(messages: usize) -> u64 {
    let messages = messages as u64;
    1_000_000 + 20_000 * messages + 50 * messages.saturating_mul(messages)
}

/// Compiles a template.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
    if source.len() > MAX_SOURCE_BYTES {
        let text = format!("the source is longer than {MAX_SOURCE_BYTES} bytes");
        return Err(Error::new(ErrorKind::SyntaxError, text));
    }
    on_deep_stack(|| compile(source))
}

fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_recursion_limit(MAX_DEPTH);
    env.set_unknown_method_callback(python::call_method);
    env.set_formatter(|out, _, value| out.write_str(&python::to_str(value)).map_err(Error::from));
    env.add_filter("tojson", python::tojson);
    env.add_filter("length", python::length);
    env.add_filter("count", python::length);
    env.add_filter("escape", python::escape);
    env.add_filter("e", python::escape);
    env.add_filter("int", python::int);
    env.add_filter("float", python::float);
    env.add_filter("string", |value: &Value| python::to_str(value).into_owned());
    env.add_test("sequence", |value: &Value| {
        value.is_undefined()
            || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    env.add_test("iterable", |value: &Value| {
        value.is_undefined()
            || value.as_str().is_some()
            || value.try_iter().is_ok() && !value.is_none()
    });
    env.add_function("raise_exception", raise_exception);
    env.add_template_owned(NAME, rewrite(source))?;
    Ok(env)
}

/// Makes the variables that a template sees.
pub(super) fn context(variables: &Map<String, serde_json::Value>, now: LocalTime) -> Value {
    let clock = Value::from_function(move |format: &str| now.format(format));
    let variables = variables.iter().map(|(name, value)| (name.clone(), from_json(value)));
    Value::from_pairs([("strftime_now".to_owned(), clock)].into_iter().chain(variables))
}

/// Runs a compiled template.
pub(super) fn render(
    env: &Environment<'static>,
    context: Value,
    steps: u64,
) -> Result<String, Error> {
    let mut env = env.clone();
    env.set_fuel(Some(steps));
    let output = on_deep_stack(move || {
        let mut output = Limited(Vec::new());
        env.get_template(NAME)?.render_captured_to(context, &mut output)?;
        Ok(output.0)
    })?;
    String::from_utf8(output)
        .map_err(|_| Error::new(ErrorKind::WriteFailure, "the output is not UTF-8"))
}

fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |text: String| Error::new(ErrorKind::InvalidOperation, text);
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(NAME.to_owned()).stack_size(STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|e| failed(format!("no thread to run the template: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("the template engine failed".to_owned())))
    })
}

/// Returns the text that the template gave `raise_exception`, if that is what ended it.
pub(super) fn raised(error: &Error) -> Option<&str> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message);
        }
        source = error.source();
    }
    None
}

#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: Rest<Value>) -> Result<Value, Error> {
    let message = message.first().map_or(String::new(), |value| python::to_str(value).into_owned());
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template")
        .with_source(Raised(message)))
}

struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => {
            Value::from(list.iter().map(from_json).collect::<Vec<_>>())
        }
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, value)| (key.clone(), from_json(value))))
        }
    }
}

/// Rewrites what minijinja lacks without moving a line: `generation` blocks, which only mark a
/// part of the output and open a scope, become `with` blocks; line ends become `\n`, as Jinja2
/// makes them.
fn rewrite(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%").into_iter().chain(rest.find("{#")).min() {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let (open, close) = if tag.starts_with("{#") { ("{#", "#}") } else { ("{%", "%}") };
        let Some(end) = tag[open.len()..].find(close) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(open.len() + end + close.len());
        out.push_str(&if open == "{%" { rewrite_tag(tag) } else { Cow::Borrowed(tag) });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn rewrite_tag(tag: &str) -> Cow<'_, str> {
    let name = tag.trim_matches(|c: char| "{%}+-".contains(c)).trim();
    match name {
        "generation" => Cow::Owned(tag.replace("generation", "with")),
        "endgeneration" => Cow::Owned(tag.replace("endgeneration", "endwith")),
        _ => Cow::Borrowed(tag),
    }
}
