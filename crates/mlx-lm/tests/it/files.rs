//! Model files from directories and from the program.

use std::fs;

use mlx_lm::ErrorKind;
use mlx_lm::files::ModelFiles;
use serde_json::json;

#[test]
fn a_directory_lists_and_reads_its_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("chat_templates")).unwrap();
    fs::create_dir(dir.path().join(".cache")).unwrap();
    for name in ["config.json", "chat_templates/tool_use.jinja", ".cache/x", ".hidden"] {
        fs::write(dir.path().join(name), "{}").unwrap();
    }
    let files = ModelFiles::directory(dir.path()).unwrap();
    assert_eq!(files.list(), ["chat_templates/tool_use.jinja", "config.json"]);
    assert_eq!(files.read("config.json").unwrap().unwrap().as_ref(), b"{}");
    assert_eq!(files.read("none.json").unwrap(), None);
    assert_eq!(files.read("chat_templates").unwrap(), None);
    assert_eq!(files.path("config.json"), Some(dir.path().join("config.json")));
    assert_eq!(files.embedded_bytes("config.json"), None);
    assert_eq!(files.name(), dir.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(files.to_string(), dir.path().display().to_string());
    assert!(files.contains("config.json") && !files.contains("none.json"));
}

#[test]
fn names_do_not_lead_out_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("model");
    fs::create_dir(&inner).unwrap();
    fs::write(dir.path().join("secret.json"), "{}").unwrap();
    fs::write(inner.join("config.json"), "{}").unwrap();
    let files = ModelFiles::directory(&inner).unwrap();
    for name in ["../secret.json", "/etc/passwd", "a/../../secret.json", ""] {
        assert_eq!(files.read(name).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
        assert_eq!(files.path(name), None, "{name}");
    }
}

#[test]
fn what_is_no_model_directory_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelFiles::directory(dir.path().join("none")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("none"), "{error}");

    let error = ModelFiles::directory(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().ends_with("holds no files"), "{error}");
    assert!(!error.hints().is_empty());

    let file = dir.path().join("config.json");
    fs::write(&file, "{}").unwrap();
    let error = ModelFiles::directory(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().ends_with("not a directory"), "{error}");
    assert!(!error.hints().is_empty());
}

#[test]
fn a_broken_json_file_is_named_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{\n  \"a\": 1,\n  \"b\" 2\n}").unwrap();
    fs::write(dir.path().join("latin.json"), [b'"', 0xE9, b'"']).unwrap();
    let files = ModelFiles::directory(dir.path()).unwrap();
    let error = files.read_json("config.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    let path = dir.path().join("config.json").display().to_string();
    assert_eq!(error.to_string(), format!("{path}: line 3, column 7: expected `:`"));
    let error = files.read_json("latin.json").unwrap_err();
    assert!(error.to_string().contains("not UTF-8 text, byte 1"), "{error}");
    assert_eq!(files.read_json("none.json").unwrap(), None);
}

#[test]
fn pythons_infinities_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "\u{feff}{\"limit\": [0.0, Infinity, -Infinity], \"n\": NaN, \"s\": \"NaN \\\" Infinity\"}";
    fs::write(dir.path().join("config.json"), text).unwrap();
    let value = ModelFiles::directory(dir.path()).unwrap().read_json("config.json").unwrap();
    let expected = json!({
        "limit": [0.0, {"__float__": "Infinity"}, {"__float__": "-Infinity"}],
        "n": {"__float__": "NaN"},
        "s": "NaN \" Infinity",
    });
    assert_eq!(value, Some(expected));
}

#[test]
fn embedded_files_are_read_without_a_copy() {
    static FILES: &[(&str, &[u8])] = &[("config.json", b"{\"a\": 1}"), ("a.txt", b"text")];
    let files = ModelFiles::embedded("demo", FILES);
    assert_eq!(files.list(), ["a.txt", "config.json"]);
    assert_eq!(files.read_json("config.json").unwrap(), Some(json!({"a": 1})));
    assert_eq!(files.embedded_bytes("a.txt"), Some(&b"text"[..]));
    assert!(matches!(files.read("a.txt").unwrap(), Some(std::borrow::Cow::Borrowed(b"text"))));
    assert_eq!(files.read("none").unwrap(), None);
    assert_eq!(files.path("a.txt"), None);
    assert_eq!((files.name(), files.to_string().as_str()), ("demo", "demo"));
    assert_eq!(files.describe("a.txt"), "demo/a.txt");
}

#[cfg(unix)]
#[test]
fn links_count_as_files_and_pipes_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("blob");
    fs::write(&blob, "{}").unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    std::os::unix::fs::symlink(&blob, model.join("config.json")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("gone"), model.join("dangling.json")).unwrap();
    let files = ModelFiles::directory(&model).unwrap();
    assert_eq!(files.list(), ["config.json"]);
    assert_eq!(files.read_json("config.json").unwrap(), Some(json!({})));
    assert_eq!(files.read("dangling.json").unwrap(), None);
}

#[test]
fn floats_are_read_to_the_last_digit() {
    let dir = tempfile::tempdir().unwrap();
    let numbers = [
        "0.3535533905932738",
        "0.30618621784789724",
        "1e23",
        "2.2250738585072014e-308",
        "123456789.12345678",
        "-0.1234567890123456789",
        "0.5",
        "1e-05",
    ];
    let text = format!(
        r#"{{"numbers": [{}], "text": "1e23 \" 0.3535533905932738, NaN", "inf": -Infinity,
        "deep": {{"x": [{{"y": 8.988465674311579e307}}]}}, "int": 9007199254740993}}"#,
        numbers.join(", ")
    );
    fs::write(dir.path().join("x.json"), text).unwrap();
    let value = ModelFiles::directory(dir.path()).unwrap().read_json("x.json").unwrap().unwrap();
    for (value, text) in value["numbers"].as_array().unwrap().iter().zip(numbers) {
        assert_eq!(value.as_f64(), text.parse().ok(), "{text}");
    }
    assert_eq!(value["text"], "1e23 \" 0.3535533905932738, NaN");
    assert_eq!(value["inf"], json!({"__float__": "-Infinity"}));
    assert_eq!(value["deep"]["x"][0]["y"].as_f64(), "8.988465674311579e307".parse().ok());
    assert_eq!(value["int"], 9_007_199_254_740_993_u64);
    for broken in ["{\"x\": 1.2.3}", "{\"x\": 1e400}", "{\"x\": +1.0}", "{\"x\": NaNN}", "\"1e23"] {
        fs::write(dir.path().join("broken.json"), broken).unwrap();
        let files = ModelFiles::directory(dir.path()).unwrap();
        assert_eq!(
            files.read_json("broken.json").unwrap_err().kind(),
            ErrorKind::Format,
            "{broken}"
        );
    }
}
