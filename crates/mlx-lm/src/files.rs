//! Where a model's files come from: a directory, or the program itself.
//!
//! Everything that reads a model's configuration, tokenizer or template goes through
//! [`ModelFiles`], so that an embedded model and one on disk take the same path. Weights do not:
//! they are mapped, by [`ModelFiles::path`] or [`ModelFiles::embedded_bytes`].

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// The largest file that [`ModelFiles::read`] takes into memory, in bytes.
///
/// Configurations, tokenizers and weight indices stay far below it; weights are mapped instead.
pub const MAX_READ_BYTES: u64 = 256 << 20;

/// How many directories deep [`ModelFiles::list`] looks (`chat_templates/tool_use.jinja`).
const MAX_LIST_DEPTH: usize = 3;

/// The files of one model.
#[derive(Clone)]
pub struct ModelFiles {
    name: String,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Directory { root: PathBuf, names: Vec<String> },
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelFiles {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is there, [`ErrorKind::InvalidArgument`] when it is
    /// not a directory or holds no file, [`ErrorKind::Io`] when it cannot be read.
    pub fn directory(path: impl AsRef<Path>) -> Result<Self> {
        let root = path.as_ref();
        let metadata = std::fs::metadata(root).map_err(|e| Error::io(root, e))?;
        if !metadata.is_dir() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{}: not a directory", root.display()),
            )
            .with_hint("name the directory that holds the model's config.json"));
        }
        let mut names = Vec::new();
        list_directory(root, "", MAX_LIST_DEPTH, &mut names)?;
        if names.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{}: the directory holds no files", root.display()),
            )
            .with_hint("a download may have been interrupted; fetch the model again"));
        }
        names.sort_unstable();
        let name = match root.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => root.display().to_string(),
        };
        Ok(ModelFiles { name, source: Source::Directory { root: root.to_path_buf(), names } })
    }

    /// Takes files that are part of the program, as pairs of name and content.
    pub fn embedded(
        name: impl Into<String>,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Self {
        ModelFiles { name: name.into(), source: Source::Embedded(files) }
    }

    /// Returns the model's short name: the last part of its path, or the name it was embedded as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names of all files in order, with `/` between directories; hidden ones are
    /// left out. For a directory these are the files that were there when it was opened.
    pub fn list(&self) -> Vec<String> {
        match &self.source {
            Source::Directory { names, .. } => names.clone(),
            Source::Embedded(files) => {
                let mut names: Vec<_> = files.iter().map(|(name, _)| name.to_string()).collect();
                names.sort_unstable();
                names
            }
        }
    }

    /// Returns whether there is a file called `name`.
    pub fn contains(&self, name: &str) -> bool {
        match &self.source {
            Source::Directory { .. } => self.path(name).is_some(),
            Source::Embedded(_) => self.embedded_bytes(name).is_some(),
        }
    }

    /// Returns the path of the file `name`, when the model is a directory and has that file.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        match &self.source {
            Source::Directory { root, .. } if is_plain(name) => {
                let path = root.join(name);
                path.is_file().then_some(path)
            }
            _ => None,
        }
    }

    /// Returns the directory, when the model is one.
    pub fn root(&self) -> Option<&Path> {
        match &self.source {
            Source::Directory { root, .. } => Some(root),
            Source::Embedded(_) => None,
        }
    }

    /// Returns the content of the file `name`, when the model is embedded and has that file.
    pub fn embedded_bytes(&self, name: &str) -> Option<&'static [u8]> {
        match &self.source {
            Source::Directory { .. } => None,
            Source::Embedded(files) => {
                files.iter().find(|(key, _)| *key == name).map(|(_, bytes)| *bytes)
            }
        }
    }

    /// Reads a whole file; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for a file above [`MAX_READ_BYTES`], [`ErrorKind::InvalidArgument`]
    /// for a name that leads out of the model, [`ErrorKind::Io`] otherwise.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        match &self.source {
            Source::Embedded(_) => Ok(self.embedded_bytes(name).map(Cow::Borrowed)),
            Source::Directory { root, .. } => {
                if !is_plain(name) {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("{name:?}: not the name of a file inside the model"),
                    ));
                }
                Ok(read_limited(&root.join(name), MAX_READ_BYTES)?.map(Cow::Owned))
            }
        }
    }

    /// Reads a file as UTF-8 text; `None` when there is none of that name.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and [`ErrorKind::Format`] when the file is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        match String::from_utf8(bytes.into_owned()) {
            Ok(text) => Ok(Some(text)),
            Err(e) => Err(Error::format(
                self.describe(name),
                format_args!("not UTF-8 text, byte {} is wrong", e.utf8_error().valid_up_to()),
            )),
        }
    }

    /// Reads a JSON file; `None` when there is none of that name.
    ///
    /// Python writes infinities and NaN as bare words, which JSON lacks. Such a word becomes
    /// `{"__float__": "Infinity"}`, the form in which converted configurations hold it. Other
    /// floats are the nearest to what is written, as they are in Python.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and [`ErrorKind::Format`] with line and column when the file is
    /// not JSON.
    pub fn read_json(&self, name: &str) -> Result<Option<Value>> {
        let Some(text) = self.read_text(name)? else { return Ok(None) };
        parse_json(text.trim_start_matches('\u{feff}'))
            .map(Some)
            .map_err(|e| json_error(self.describe(name), &e))
    }

    /// Returns how messages call the file `name`: its path, or the embedded model and the name.
    pub fn describe(&self, name: &str) -> String {
        match &self.source {
            Source::Directory { root, .. } => root.join(name).display().to_string(),
            Source::Embedded(_) => format!("{}/{name}", self.name),
        }
    }
}

impl fmt::Display for ModelFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Directory { root, .. } => write!(f, "{}", root.display()),
            Source::Embedded(_) => f.write_str(&self.name),
        }
    }
}

impl fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelFiles({self})")
    }
}

/// Makes the error for a file that is not JSON, with the place where it goes wrong.
pub(crate) fn json_error(file: impl fmt::Display, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(place.as_str()).unwrap_or(&text);
    Error::format(file, format_args!("line {}, column {}: {what}", error.line(), error.column()))
        .with_hint("the file may be cut off or damaged; fetch the model again")
}

/// Whether `name` stays below the directory it is joined to.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    // Asked before opening, which would wait for a writer if this were a pipe.
    let size = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // One byte more than there is, so that one call reads it all and the next sees the end.
    let mut bytes = Vec::with_capacity(size.min(limit) as usize + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::format(
            path.display(),
            format_args!("larger than {limit} bytes, the limit for a file read whole"),
        ));
    }
    Ok(Some(bytes))
}

fn list_directory(dir: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let entry = entry.map_err(|e| Error::io(dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        // Follows links: a hub snapshot is a directory of links. A dangling one is no file.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            names.push(format!("{prefix}{name}"));
        } else if metadata.is_dir() && depth > 1 {
            list_directory(&entry.path(), &format!("{prefix}{name}/"), depth - 1, names)?;
        }
    }
    Ok(())
}

/// The key under which a number's text passes through the parser; no file has a reason to use it.
const NUMBER_TAG: &str = "__exact_float__";

/// Parses JSON with Python's words for infinities and NaN, and with every float rounded to the
/// nearest, which `serde_json` does for numbers of up to 15 digits only.
fn parse_json(text: &str) -> serde_json::Result<Value> {
    match replace_floats(text) {
        Cow::Borrowed(text) => serde_json::from_str(text),
        Cow::Owned(text) => serde_json::from_str(&text).map(restore_numbers),
    }
}

/// Replaces what JSON lacks by an object with a tag, and so also what the parser rounds wrongly.
fn replace_floats(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = text.as_bytes().get(at) {
        let rest = &text.as_bytes()[at..];
        let of_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        match byte {
            b'"' => at += string_len(&text[at..]),
            b'-' | b'0'..=b'9' | b'I' | b'N' => {
                let end = at + rest.iter().take_while(|b| of_token(b)).count();
                if let Some(object) = tagged(&text[at..end]) {
                    out.push_str(&text[copied..at]);
                    out.push_str(&object);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(out + &text[copied..]),
    }
}

fn tagged(token: &str) -> Option<String> {
    if ["-Infinity", "Infinity", "NaN"].contains(&token) {
        return Some(format!("{{\"__float__\": \"{token}\"}}"));
    }
    if !token.contains(['.', 'e', 'E']) {
        return None;
    }
    let parsed: f64 = serde_json::from_str(token).ok()?;
    let exact: f64 = token.parse().ok()?;
    (parsed != exact).then(|| format!("{{\"{NUMBER_TAG}\": \"{token}\"}}"))
}

fn restore_numbers(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(restore_numbers).collect(),
        Value::Object(object) => {
            let text = object.get(NUMBER_TAG).filter(|_| object.len() == 1).and_then(Value::as_str);
            match text.and_then(|text| text.parse::<f64>().ok()) {
                Some(number) => number.into(),
                None => object.into_iter().map(|(k, v)| (k, restore_numbers(v))).collect(),
            }
        }
        value => value,
    }
}

/// Returns the length of the JSON string that `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
