//! `mlxk schema`.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super as commands;
use crate::error::CommandError;
use crate::output::{ErrorObject, Output};

/// Print the JSON schema of what `--json` prints
#[derive(clap::Args)]
pub(crate) struct Args {}

/// `data` of a command whose result is a file of its own.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "document")]
struct Document {
    text: String,
}

/// Makes the schema of a type.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What each command has as `data`.
const DATA: &[(&str, SchemaOf)] = &[
    ("run", of::<commands::run::Data>),
    ("list", of::<commands::list::Data>),
    ("ps", of::<commands::ps::Data>),
    ("show", of::<commands::show::Report>),
    ("rm", of::<commands::rm::Data>),
    ("du", of::<commands::du::Data>),
    ("prune", of::<commands::prune::Data>),
    ("verify", of::<commands::verify::Data>),
    ("health", of::<commands::health::Data>),
    ("clone", of::<commands::clone::Data>),
    ("convert", of::<commands::convert::Data>),
    ("models", of::<commands::models::Report>),
    ("perplexity", of::<commands::perplexity::Data<'static>>),
    ("compare", of::<commands::compare::Data>),
    ("bench", of::<commands::bench::Data>),
    ("doctor", of::<commands::doctor::Data>),
    ("config", of::<commands::config::Data>),
    ("version", of::<commands::version::Data>),
    ("completions", of::<Document>),
    ("man", of::<Document>),
    ("schema", of::<Document>),
];

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

pub(super) fn run(_: &Args, output: &Output) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(&schema()).unwrap_or_default();
    output.document("schema", &(text + "\n"))
}

/// Makes the schema of the envelope out of the types that are printed.
fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let error = of::<ErrorObject<'static>>(&mut generator);
    let mut names: Vec<Value> = Vec::new();
    let mut rules = vec![
        json!({
            "if": {"properties": {"status": {"const": "success"}}},
            "then": {"properties": {
                "command": {"type": "string"},
                "data": {"type": "object"},
                "error": {"type": "null"},
            }},
            "else": {"properties": {"error": {"type": "object"}}},
        }),
        json!({
            "if": {"properties": {"command": {"type": "null"}}},
            "then": {"properties": {"data": {"type": "null"}}},
        }),
    ];
    for (name, data) in DATA {
        names.push((*name).into());
        let data = data(&mut generator);
        rules.push(json!({
            "if": {"properties": {"command": {"const": name}}},
            "then": {"properties": {"data": {"anyOf": [{"type": "null"}, data]}}},
        }));
    }
    names.push(Value::Null);
    let mut definitions = Value::Object(generator.take_definitions(true));
    close(&mut definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What mlxk prints with --json",
        "type": "object",
        "properties": {
            "status": {"enum": ["success", "error"]},
            "command": {"enum": names},
            "data": {"type": ["object", "null"]},
            "error": {"anyOf": [{"type": "null"}, error]},
        },
        "required": ["status", "command", "data", "error"],
        "additionalProperties": false,
        "allOf": rules,
        "$defs": definitions,
    })
}

/// Lets objects have no other fields than those that their types have.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            // A field may itself be called `properties`, but then its schema has no type.
            let is_object = |o: &Map<String, Value>| o.get("type").is_some_and(|t| t == "object");
            if is_object(object) && object.contains_key("properties") {
                object.entry("additionalProperties").or_insert(false.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}
