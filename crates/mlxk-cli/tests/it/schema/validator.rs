//! A validator of the words that the published schema uses.
//!
//! A full validator is some forty crates; this one refuses a schema that uses a word it does not
//! know, so it cannot pass by not looking. `cargo xtask test` has this file, too, for its live suites.

use serde_json::Value;

/// Checks a value against a schema, and tells the place and the rule that does not hold.
pub(crate) fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    walk(schema, schema, value, "$")
}

fn walk(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(always) = schema.as_bool() {
        return if always { Ok(()) } else { Err(format!("{at}: nothing is allowed")) };
    }
    for (word, rule) in schema.as_object().expect("a schema") {
        let list = || rule.as_array().expect("a list");
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "format" | "$defs" | "then" | "else" => true,
            "$ref" => {
                let pointer = rule.as_str().expect("text").strip_prefix('#').expect("local");
                walk(root, root.pointer(pointer).expect("a definition"), value, at)?;
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
                        walk(root, rule, value, &format!("{at}.{name}"))?;
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
                    walk(root, rule, value, &format!("{at}[{i}]"))?;
                }
                true
            }
            "oneOf" | "anyOf" => {
                let results: Vec<_> =
                    list().iter().map(|rule| walk(root, rule, value, at)).collect();
                if results.iter().all(Result::is_err) {
                    let errors = results.into_iter().filter_map(Result::err);
                    return Err(errors.collect::<Vec<_>>().join("\n or "));
                }
                word == "anyOf" || results.iter().filter(|result| result.is_ok()).count() == 1
            }
            "allOf" => {
                for rule in list() {
                    walk(root, rule, value, at)?;
                }
                true
            }
            "if" => {
                let branch = if walk(root, rule, value, at).is_ok() { "then" } else { "else" };
                if let Some(rule) = schema.get(branch) {
                    walk(root, rule, value, at)?;
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
