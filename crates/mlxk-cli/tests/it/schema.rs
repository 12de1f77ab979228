//! The published JSON schema, and envelopes against it.

mod validator;

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::support::run;
use validator::validate;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../docs/mlxk.schema.json")).expect("JSON")
});

/// Checks an envelope.
#[track_caller]
pub(crate) fn check(envelope: &Value) {
    if let Err(error) = validate(&SCHEMA, envelope) {
        panic!("{error}\n{envelope:#}");
    }
}

/// Set to write the published file anew.
const REGENERATE: &str = "MLXK_REGENERATE";

#[test]
fn the_schema_is_published() {
    let text = run(["schema"]).ok();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mlxk.schema.json");
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
    assert_eq!(validate(&SCHEMA, &right), Ok(()));
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
        assert!(validate(&SCHEMA, &wrong).is_err(), "{wrong}");
    }
}
