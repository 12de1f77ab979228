use std::collections::BTreeSet;

use super::workspace::{
    Dependency, check_arrows, check_generators, check_justified, check_links, check_lints,
    check_test_targets,
};
use super::*;

/// Checks which rules a file breaks, each as `line rule`.
fn check_finds(path: &str, text: &str, expected: &[&str]) {
    let found: Vec<String> =
        check_text(path, text).iter().map(|v| format!("{} {}", v.line, v.rule)).collect();
    assert_eq!(found, expected, "{path}: {text:?}");
}

const PLACE: &str = "crates/mlx-lm/src/sample.rs";

#[test]
fn this_workspace_is_tidy() {
    let violations = check(&shell::root()).unwrap();
    let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
}

#[test]
fn whitespace() {
    for (text, expected) in [
        ("a\nb\n", &[][..]),
        ("", &[]),
        ("a \n", &["1 whitespace"]),
        ("a\n\tb\n", &["2 whitespace"]),
        ("a\r\n", &["1 whitespace"]),
        ("a", &["1 whitespace"]),
        ("a\n\n", &["2 whitespace"]),
    ] {
        check_finds("README.md", text, expected);
    }
    check_finds("fixtures/gen/demo/chat_template.jinja", "a \n\tb", &[]);
    check_finds("LICENSE-APACHE", "\ta\n", &[]);
}

#[test]
fn banned_words() {
    for &(word, _) in BANNED {
        check_finds("docs/x.md", &format!("see {word}x\n"), &["1 words"]);
        check_finds("Cargo.lock", &format!("{word}\n"), &[]);
    }
    for word in BANNED_BEFORE_NUMBER {
        check_finds("docs/x.md", &format!("see {word}12\n"), &["1 words"]);
        check_finds("docs/x.md", &format!("see {word}trip\n"), &[]);
    }
    for allowed in ["framework/x", "the tissue 2", "homework/", "aspec/", "ground 0"] {
        check_finds("docs/x.md", &format!("{allowed}\n"), &[]);
    }
}

#[test]
fn generated_files() {
    let path = GENERATED[0];
    check_finds(path, &format!("// {GENERATED_MARK} bindings\nunsafe  \n"), &[]);
    check_finds(path, "//! By hand.\n", &["1 generated"]);
    check_finds(PLACE, &format!("// {GENERATED_MARK} x\nno docs\t\n"), &[]);
}

#[test]
fn module_docs() {
    check_finds(PLACE, "//! What it is.\n", &[]);
    check_finds(PLACE, "use x;\n", &["1 module-docs"]);
    check_finds(PLACE, "// Not this.\n", &["1 module-docs"]);
    check_finds("crates/mlx-lm/tests/it/main.rs", "mod a;\n", &["1 module-docs"]);
    check_finds("crates/mlx-lm/src/stop/tests.rs", "use super::*;\n", &[]);
}

#[test]
fn banners() {
    for (line, is_banner) in [
        ("// ======== ops", true),
        ("    //--------", true),
        ("// ops ////", true),
        ("// a -- b", false),
        ("/// | --- | --- |", false),
        ("let x = 1; // fine", false),
    ] {
        let expected: &[&str] = if is_banner { &["2 banner"] } else { &[] };
        check_finds(PLACE, &format!("//! Docs.\n{line}\n"), expected);
    }
}

#[test]
fn length_counts_code_only() {
    let file = |code: usize| {
        format!("//! Docs.\n{}{}", "// why\n\n".repeat(700), "let x = 1;\n".repeat(code))
    };
    check_finds(PLACE, &file(FILE_LINES), &[]);
    check_finds(PLACE, &file(FILE_LINES + 1), &["1 length"]);
    for (path, _) in LONG_FILES {
        check_finds(path, &file(FILE_LINES + 1), &[]);
    }
    let model = "crates/mlx-lm/src/models/llama.rs";
    check_finds(model, &file(DENSE_LINES), &[]);
    check_finds(model, &file(DENSE_LINES + 1), &["1 length"]);
    check_finds("crates/mlx-lm/src/models/mod.rs", &file(DENSE_LINES + 1), &[]);
}

#[test]
fn every_long_file_is_there_and_long() {
    for (path, reason) in LONG_FILES {
        let text = std::fs::read_to_string(shell::root().join(path)).unwrap();
        let lines = rust::code(&text).iter().filter(|line| !line.trim().is_empty()).count();
        assert!(lines > FILE_LINES, "{path} has {lines} lines: it needs no exception");
        assert!(reason.contains("one type") || reason.contains("one table"), "{path}: {reason}");
    }
}

#[test]
fn unsafe_has_its_places() {
    let text = "//! Docs on unsafe code.\nlet x = unsafe { y() };\nlet s = \"unsafe\"; // unsafe\n";
    check_finds(PLACE, text, &["2 unsafe"]);
    check_finds("crates/mlx-core/src/ops/sort.rs", text, &["2 unsafe"]);
    for place in ["ffi/mod.rs", "kernels/norm.rs", "io/mapping.rs"] {
        check_finds(&format!("crates/mlx-core/src/{place}"), text, &[]);
    }
    check_finds("crates/mlx-core/src/ffi.rs", text, &["2 unsafe"]);
}

#[test]
fn other_crates_forbid_unsafe() {
    let with = "//! Docs.\n#![forbid(unsafe_code)]\n";
    let without = "//! Docs.\n// #![forbid(unsafe_code)]\n";
    for root in ["crates/mlx-lm/src/lib.rs", "crates/mlxk-cli/src/main.rs", "xtask/src/main.rs"] {
        check_finds(root, with, &[]);
        check_finds(root, without, &["1 unsafe"]);
    }
    check_finds("crates/mlx-core/src/lib.rs", without, &[]);
}

#[test]
fn calls() {
    for (line, rule) in [
        ("#[ignore]", Some("ignore")),
        ("#[ignore = \"slow\"]", Some("ignore")),
        ("todo!()", Some("unfinished")),
        ("unimplemented!()", Some("unfinished")),
        ("dbg!(x)", Some("unfinished")),
        ("println!()", Some("library")),
        ("eprint!()", Some("library")),
        ("std::env::var(x)", Some("library")),
        ("use std::net::TcpStream;", Some("library")),
        ("use std::{env, fs};", Some("library")),
        ("use std::{envelope, fs};", None),
        ("my_println!()", None),
        ("env!(x)", None),
        ("let s = \"println!\"; // todo!()", None),
        ("let c = '\"'; f(\"println!\");", None),
        ("let s = r#\"a \" std::env \"#;", None),
        ("/* /* dbg!() */ dbg!() */", None),
        ("fn f<'a>(x: &'a str) {} // 'x println!", None),
        ("let c = '\\''; let s = \"dbg!\";", None),
    ] {
        let expected: Vec<String> = rule.iter().map(|rule| format!("2 {rule}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check_finds(PLACE, &format!("//! Docs.\n{line}\n"), &expected);
    }
}

#[test]
fn only_libraries_are_silent() {
    let text = "//! Docs.\nprintln!(); std::env::args();\n";
    check_finds(PLACE, text, &["2 library", "2 library"]);
    check_finds("crates/mlxk-cli/src/output.rs", text, &[]);
    check_finds("crates/mlx-lm/src/stop/tests.rs", text, &[]);
    let inline = "//! Docs.\n#[cfg(test)]\nmod tests {\n    use std::env;\n}\n";
    check_finds(PLACE, inline, &[]);
    check_finds(PLACE, "//! Docs.\n#[cfg(test)]\nmod tests;\nuse std::env;\n", &["4 library"]);
}

#[test]
fn errors_are_documented() {
    let place = "crates/mlx-core/src/ops/sort.rs";
    let check = |signature: &str, expected: &[&str]| {
        let text = |docs: &str| format!("//! Docs.\n\n{docs}{signature}");
        let errors = "/// Sorts.\n///\n/// # Errors\n/// Never.\n#[must_use]\n";
        check_finds(place, &text("/// Sorts.\n"), expected);
        check_finds(place, &text(errors), &[]);
        check_finds("xtask/src/a.rs", &text("/// Sorts.\n"), &[]);
    };
    check("pub fn a() -> Result<()> {\n}\n", &["4 errors"]);
    check("    pub fn a(\n        x: [u8; 2],\n    ) -> crate::Result<u8> {\n", &["4 errors"]);
    check("pub fn a<T, E>(x: T) -> std::result::Result<T, E> {\n", &["4 errors"]);
    check("pub fn a<T>(x: T) -> Result<T>\nwhere\n    T: Fn() -> u8,\n{\n", &["4 errors"]);
    check("pub fn a(f: impl Fn() -> Result<u8>) -> u8 {\n", &[]);
    check("pub fn a<F: Fn() -> Result<u8>>(f: F) {\n", &[]);
    check("pub fn a() -> ResultOf<u8> {\n", &[]);
    check("fn a() -> Result<()> {\n", &[]);
}

#[test]
fn large_files() {
    assert!(check_size("x", LARGEST_FILE).is_none());
    assert_eq!(check_size("x", LARGEST_FILE + 1).unwrap().rule, "large");
}

fn members() -> BTreeSet<&'static str> {
    ["mlx-sys", "mlx-core", "mlx-lm", "mlx-vlm", "mlx-audio", "mlxk-cli", "fixtures"].into()
}

fn dependency(name: &str, is_dev: bool) -> Dependency {
    Dependency { name: name.to_owned(), is_dev }
}

#[test]
fn arrows() {
    for (from, to, is_dev, passes) in [
        ("mlx-core", "mlx-sys", false, true),
        ("mlx-lm", "mlx-core", false, true),
        ("mlx-lm", "mlx-sys", false, false),
        ("mlx-core", "mlx-lm", false, false),
        ("mlx-core", "mlx-lm", true, false),
        ("mlx-vlm", "mlx-lm", false, true),
        ("mlx-vlm", "mlx-audio", false, false),
        ("mlx-lm", "fixtures", true, true),
        ("mlx-lm", "fixtures", false, false),
        ("mlxk-cli", "fixtures", false, true),
        ("mlxk-cli", "mlx-sys", false, false),
        ("mlx-lm", "serde", false, true),
        ("unknown", "serde", false, false),
    ] {
        let found = check_arrows("Cargo.toml", from, &[dependency(to, is_dev)], &members());
        assert_eq!(found.is_empty(), passes, "{from} on {to}: {found:?}");
    }
}

#[test]
fn dependencies_are_justified() {
    let text = "- `serde`: reads config.\n";
    let check = |name| check_justified("Cargo.toml", &[dependency(name, false)], &members(), text);
    assert!(check("serde").is_empty());
    assert!(check("mlx-core").is_empty());
    assert_eq!(check("serde_json")[0].rule, "justified");
}

#[test]
fn test_targets_have_the_names_that_run() {
    for (name, target, passes) in [
        ("mlx-lm", "it", true),
        ("mlx-lm", "cli", false),
        ("mlx-lm", "speed", false),
        ("mlxk-cli", "cli", true),
        ("mlxk-cli", "it", false),
    ] {
        assert_eq!(check_test_targets("Cargo.toml", name, &[target]).is_empty(), passes, "{name}");
    }
}

#[test]
fn libraries_inherit_lints() {
    assert!(check_lints("Cargo.toml", "[lints]\nworkspace = true\n").is_none());
    assert!(check_lints("Cargo.toml", "[package]\nworkspace = true\n").is_some());
}

#[test]
fn documents_name_what_is_there() {
    let exists = |path: &str| path == "xtask/src/main.rs" || path == "docs/a.md";
    for (text, passes) in [
        ("see `xtask/src/main.rs`", true),
        ("see `xtask/src/gone.rs`", false),
        ("see `crates/<name>/src` and `crates/mlx-sys/vendor/mlx`", true),
        ("[a](docs/a.md#part) [b](#part) [c](https://example.com/d)", true),
        ("[b](docs/b.md)", false),
        ("```\n`xtask/src/gone.rs`\n```", true),
    ] {
        assert_eq!(check_links("README.md", text, exists).is_empty(), passes, "{text}");
    }
    assert!(check_links("docs/x.md", "[a](a.md)", exists).is_empty());
}

#[test]
fn data_have_generators() {
    let table =
        "| `mlx-lm/kinds.py` | `mlx-lm/tokenizers/`: … | 10 s |\n| `demo/` | the model | |\n";
    let generators = ["mlx-lm/kinds.py".to_owned(), "demo/export.py".to_owned()];
    for (file, passes) in [
        ("fixtures/data/mlx-lm/tokenizers/a.json", true),
        ("fixtures/data/mlx-lm/other/a.json", false),
        ("fixtures/data/mlx-lm/other.json", false),
        ("fixtures/models/demo/config.json", true),
        ("fixtures/models/tiny/config.json", false),
        ("crates/mlx-lm/src/lib.rs", true),
    ] {
        let found = check_generators(&[file.to_owned()], table, &generators);
        assert_eq!(found.is_empty(), passes, "{file}: {found:?}");
    }
    let gone = check_generators(&["fixtures/data/mlx-lm/tokenizers/a".to_owned()], table, &[]);
    assert_eq!(gone.len(), 1, "the table names a script that is not there");
}
