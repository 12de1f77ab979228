//! Typed access to `quantization_config`.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One object of the settings.
pub(super) struct Settings<'a>(&'a Map<String, Value>);

impl<'a> Settings<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Settings<'a>> {
        let object = value.as_object();
        object.map(Settings).ok_or_else(|| Error::format("quantization_config", "not an object"))
    }

    /// Null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = || format!("\"{key}\": expected {expected}, found {}", shortened(value));
        read(value).map(Some).ok_or_else(|| Error::format("quantization_config", text()))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// Reads an integer that fits `i32`.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i32>> {
        let read = |value: &Value| i32::try_from(value.as_i64()?).ok();
        self.typed(key, "a small integer", read)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Settings<'a>>> {
        Ok(self.typed(key, "an object", Value::as_object)?.map(Settings))
    }

    /// Reads the sizes of a block, as a list or as `128x128`.
    pub(super) fn block(&self, key: &str) -> Result<Option<(usize, usize)>> {
        let size = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|&size| size > 0);
        let read = |value: &Value| match value {
            Value::String(text) => {
                let (rows, columns) = text.split_once('x')?;
                Some((rows.parse().ok()?, columns.parse().ok()?)).filter(|&(r, c)| r > 0 && c > 0)
            }
            Value::Array(sizes) if sizes.len() == 2 => Some((size(&sizes[0])?, size(&sizes[1])?)),
            _ => None,
        };
        self.typed(key, "two positive sizes", read)
    }

    /// Reads a group size; -1 is one group for a row.
    pub(super) fn group_size(&self, keys: [&str; 2], default: GroupSize) -> Result<GroupSize> {
        for key in keys {
            let read = |value: &Value| match value.as_i64()? {
                -1 => Some(GroupSize::Row),
                size => usize::try_from(size).ok().filter(|&n| n > 0).map(GroupSize::Inputs),
            };
            if let Some(size) = self.typed(key, "a positive number or -1", read)? {
                return Ok(size);
            }
        }
        Ok(default)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lists the entries, all of which are objects.
    pub(super) fn objects(&self) -> Result<Vec<Settings<'a>>> {
        let object = |key: &String| {
            let text = || format!("\"{key}\": expected an object");
            self.object(key)?.ok_or_else(|| Error::format("quantization_config", text()))
        };
        self.0.keys().map(object).collect()
    }
}

/// How many inputs share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupSize {
    Row,
    Inputs(usize),
}

impl std::fmt::Display for GroupSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GroupSize::Row => f.write_str("one group a row"),
            GroupSize::Inputs(size) => write!(f, "groups of {size}"),
        }
    }
}

/// Shows a value in an error, not a page of it.
fn shortened(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.len() > 40 => "a long string".to_owned(),
        value => value.to_string(),
    }
}
