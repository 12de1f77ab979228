//! A JSON object whose entries are changed one by one, while the others keep their text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{CommandError, Kind};

/// The entries of an object as they are written.
pub(super) struct Object {
    entries: Vec<(String, String)>,
    indent: String,
    ends_with_newline: bool,
}

/// A text that is no JSON object.
#[derive(Debug)]
pub(super) struct ParseError(String);

impl ParseError {
    /// Makes the error of a file.
    pub(super) fn of(self, name: &str) -> CommandError {
        CommandError::new(Kind::InvalidModel, format!("{name}: {}", self.0))
    }
}

struct Entries(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    entries.push((key, value.get().to_owned()));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl Object {
    pub(super) fn parse(text: &[u8]) -> Result<Object, ParseError> {
        let Entries(entries) =
            serde_json::from_slice(text).map_err(|error| ParseError(error.to_string()))?;
        let text = String::from_utf8_lossy(text);
        let second_line = text.split_once('\n').map_or("", |(_, rest)| rest);
        let indent: String = second_line.chars().take_while(|c| *c == ' ' || *c == '\t').collect();
        let indent = if indent.is_empty() { "  ".to_owned() } else { indent };
        Ok(Object { entries, indent, ends_with_newline: text.ends_with('\n') })
    }

    /// Sets an entry, at its place or behind the others, or removes it.
    pub(super) fn set(&mut self, key: &str, value: Option<Value>) {
        let place = self.entries.iter().position(|(name, _)| name == key);
        match (place, value) {
            (Some(place), Some(value)) => self.entries[place].1 = value.to_string(),
            (None, Some(value)) => self.entries.push((key.to_owned(), value.to_string())),
            (Some(place), None) => drop(self.entries.remove(place)),
            (None, None) => {}
        }
    }

    pub(super) fn text(&self) -> Vec<u8> {
        let indent = &self.indent;
        let entry = |(key, value): &(String, String)| {
            format!("{indent}{}: {value}", Value::from(key.as_str()))
        };
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        let end = if self.ends_with_newline { "\n" } else { "" };
        format!("{{\n{}\n}}{end}", entries.join(",\n")).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_entries_keep_their_text() {
        let text = "{\n    \"a\": 1e-06,\n    \"b\": null,\n    \"c\": {\n        \"d\": 1.0}\n}\n";
        let mut object = Object::parse(text.as_bytes()).unwrap();
        assert_eq!(object.text(), text.as_bytes());
        object.set("b", Some(7.into()));
        object.set("e", Some("x".into()));
        object.set("none", None);
        let changed = text.replace("null", "7").replace("}\n}", "},\n    \"e\": \"x\"\n}");
        assert_eq!(String::from_utf8(object.text()).unwrap(), changed);
        object.set("b", None);
        object.set("e", None);
        assert_eq!(object.text(), text.replace("    \"b\": null,\n", "").as_bytes());
        assert!(Object::parse(b"[1]").is_err());
    }
}
