//! The published JSON schema, and a validator of the words that it uses.
//!
//! A full validator is some forty crates; this one refuses a schema that uses a word it does not
//! know, so it cannot pass by not looking.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::support::run;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../schema/mlxk.schema.json")).expect("JSON")
});

/// Checks an envelope.
#[track_caller]
pub(crate) fn check(envelope: &Value) {
    if let Err(error) = validate(&SCHEMA, envelope, "$") {
        panic!("{error}\n{envelope:#}");
    }
}

fn validate(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(always) = schema.as_bool() {
        return if always { Ok(()) } else { Err(format!("{at}: nothing is allowed")) };
    }
    for (word, rule) in schema.as_object().expect("a schema") {
        let list = || rule.as_array().expect("a list");
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "format" | "$defs" | "then" | "else" => true,
            "$ref" => {
                let pointer = rule.as_str().expect("text").strip_prefix('#').expect("local");
                validate(SCHEMA.pointer(pointer).expect("a definition"), value, at)?;
                true
            }
            "type" => {
                let types = rule.as_array().map_or(std::slice::from_ref(rule), Vec::as_slice);
                types.iter().any(|name| is_type(value, name.as_str().expect("text")))
            }
            "enum" => list().contains(value),
            "const" => rule == value,
            "maximum" => value.as_f64().is_none_or(|x| x <= rule.as_f64().expect("a number")),
            "minimum" => value.as_f64().is_none_or(|x| x >= rule.as_f64().expect("a number")),
            "required" => match value.as_object() {
                Some(object) => {
                    list().iter().all(|k| object.contains_key(k.as_str().expect("text")))
                }
                None => true,
            },
            "properties" => {
                for (name, rule) in rule.as_object().expect("an object") {
                    if let Some(value) = value.get(name) {
                        validate(rule, value, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(rule, false);
                let known = &schema["properties"];
                value.as_object().is_none_or(|o| o.keys().all(|k| known.get(k).is_some()))
            }
            "items" => {
                for (i, value) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, value, &format!("{at}[{i}]"))?;
                }
                true
            }
            "oneOf" | "anyOf" => {
                let results: Vec<_> = list().iter().map(|rule| validate(rule, value, at)).collect();
                if results.iter().all(Result::is_err) {
                    let errors = results.into_iter().filter_map(Result::err);
                    return Err(errors.collect::<Vec<_>>().join("\n or "));
                }
                word == "anyOf" || results.iter().filter(|result| result.is_ok()).count() == 1
            }
            "allOf" => {
                for rule in list() {
                    validate(rule, value, at)?;
                }
                true
            }
            "if" => {
                let branch = if validate(rule, value, at).is_ok() { "then" } else { "else" };
                if let Some(rule) = schema.get(branch) {
                    validate(rule, value, at)?;
                }
                true
            }
            _ => panic!("{word}: not a word that this validator knows"),
        };
        if !holds {
            return Err(format!("{at}: {value} against {word} {rule}"));
        }
    }
    Ok(())
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name}: not a type"),
    }
}

/// Set to write the published file anew.
const REGENERATE: &str = "MLXK_REGENERATE";

#[test]
fn the_schema_is_published() {
    let text = run(["schema"]).ok();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/mlxk.schema.json");
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == text, "{} is not the schema; set {REGENERATE}=1", path.display());
}

#[test]
fn wrong_envelopes_are_refused() {
    let error = json!({"type": "unsupported", "message": "m", "hints": [], "exit_code": 5});
    let right = json!({"status": "error", "command": null, "data": null, "error": error});
    assert_eq!(validate(&SCHEMA, &right, "$"), Ok(()));
    for (pointer, value) in [
        ("/status", json!("success")),
        ("/status", json!("failed")),
        ("/command", json!("walk")),
        ("/data", json!({})),
        ("/error", Value::Null),
        ("/error/type", json!("UnsupportedError")),
        ("/error/exit_code", json!(-1)),
        ("/error/hints", json!([1])),
        ("/error", json!({"type": "unsupported", "message": "m", "hints": []})),
    ] {
        let mut wrong = right.clone();
        *wrong.pointer_mut(pointer).expect("there") = value;
        assert!(validate(&SCHEMA, &wrong, "$").is_err(), "{wrong}");
    }
}
