use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One that mlx-knife 2.0.8 wrote, with a field that it does not have.
const WRITTEN: &str = r#"{
  "mlxk_version": "2.0.8",
  "created_at": "2026-01-01T00:00:00Z",
  "source_repo": "org/m",
  "source_revision": null,
  "managed": true,
  "operation": "clone",
  "hash_algorithm": "v2",
  "content_hash": "sha256:00",
  "later": {"b": 1, "a": [2]}
}
"#;

fn workspace() -> (tempfile::TempDir, Sentinel) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    std::fs::write(dir.path().join("b"), "b").unwrap();
    let source = Source { repo: "org/m".into(), revision: None };
    let mut sentinel = Sentinel::new("clone", source);
    sentinel.pin(dir.path()).unwrap();
    sentinel.write(dir.path()).unwrap();
    (dir, sentinel)
}

#[test]
fn what_is_unknown_is_kept() {
    let sentinel = Sentinel::parse(WRITTEN.as_bytes()).unwrap();
    assert_eq!(sentinel.content_hash(), Some("sha256:00"));
    let dir = tempfile::tempdir().unwrap();
    sentinel.write(dir.path()).unwrap();
    let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
    let (a, b): (Value, Value) =
        (serde_json::from_str(&text).unwrap(), serde_json::from_str(WRITTEN).unwrap());
    assert_eq!(a, b);
    assert!(text.starts_with("{\n  \"mlxk_version\": \"2.0.8\",\n") && text.ends_with("}\n"));
}

#[test]
fn only_true_makes_a_workspace_managed() {
    for (text, expected) in [
        (r#"{"managed": true}"#, true),
        (r#"{"managed": false}"#, false),
        (r#"{"managed": 1}"#, false),
        (r#"{"managed": "yes"}"#, false),
        ("{}", false),
        ("[]", false),
        ("", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), text).unwrap();
        assert_eq!(is_managed(dir.path()), expected, "{text}");
    }
    assert!(!is_managed(Path::new("no such directory")));
}

#[test]
fn a_change_shows_and_a_new_time_does_not() {
    let (dir, mut sentinel) = workspace();
    let file = |name: &str| dir.path().join(name);
    assert_eq!(sentinel.state(dir.path()), State::Clean);

    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let open = std::fs::File::options().write(true).open(file("b")).unwrap();
    open.set_modified(long_ago).unwrap();
    assert_eq!(sentinel.state(dir.path()), State::Clean);
    let written = Sentinel::read(dir.path()).unwrap();
    assert_eq!(written.file_index().unwrap()[0].mtime_ns, 1_000_000_000, "the time is healed");

    std::fs::write(file("b"), "c").unwrap();
    assert_eq!(sentinel.clone().state(dir.path()), State::Modified, "another content");
    std::fs::write(file("b"), "bb").unwrap();
    assert_eq!(sentinel.clone().state(dir.path()), State::Modified, "another size");
    std::fs::write(file("b"), "b").unwrap();
    assert_eq!(sentinel.state(dir.path()), State::Clean);
    std::fs::write(file("new"), "").unwrap();
    assert_eq!(sentinel.state(dir.path()), State::Modified, "a file more");
    std::fs::remove_file(file("new")).unwrap();
    std::fs::write(file("x.log"), "excluded").unwrap();
    assert_eq!(sentinel.state(dir.path()), State::Clean);
    std::fs::remove_file(file("b")).unwrap();
    assert_eq!(sentinel.state(dir.path()), State::Modified, "a file less");
}

#[test]
fn an_index_that_leads_out_is_not_trusted() {
    for path in ["", "/etc/passwd", "../x", "a/../../x", "a\\b", "C:x", "a\0b"] {
        let (dir, mut sentinel) = workspace();
        sentinel.rest["file_index"][0]["path"] = path.into();
        assert_eq!(sentinel.state(dir.path()), State::Unknown, "{path:?}");
    }
    let (dir, mut sentinel) = workspace();
    sentinel.rest["hash_algorithm"] = "v1".into();
    assert_eq!(sentinel.state(dir.path()), State::Unknown);
    assert!(
        [State::Clean, State::Modified, State::Unknown].map(State::clean)
            == [Some(true), Some(false), None]
    );
}

proptest! {
    /// Any text is a sentinel or an error, and one that was read is written as it was.
    #[test]
    fn no_text_makes_reading_panic(text in ".{0,64}") {
        let _ = Sentinel::parse(text.as_bytes());
    }

    #[test]
    fn any_object_keeps_its_entries(
        entries in proptest::collection::btree_map("[a-z_]{1,12}", any::<i64>(), 0..6),
        managed in any::<bool>(),
    ) {
        let mut object: Map<String, Value> =
            entries.into_iter().map(|(key, value)| (key, value.into())).collect();
        object.insert("managed".into(), managed.into());
        let text = json!(object).to_string();
        if let Ok(sentinel) = Sentinel::parse(text.as_bytes()) {
            let written = serde_json::to_value(&sentinel).unwrap();
            prop_assert!(object.iter().all(|(key, value)| written[key] == *value));
        }
    }
}
