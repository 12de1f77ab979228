//! The command line itself.

use mlx_lm::core::Device;
use serde_json::Value;

use crate::support::run;

#[test]
fn wrong_command_lines_are_told_of() {
    let cases: [&[&str]; 20] = [
        &[],
        &["walk"],
        &["--nonsense"],
        &["run"],
        &["run", ""],
        &["run", "demo", "--temperature", "hot"],
        &["run", "demo", "--temperature", "-1"],
        &["run", "demo", "--top-p", "1.5"],
        &["run", "demo", "--max-tokens", "0"],
        &["run", "demo", "--seed", "-1"],
        &["run", "demo", "--stop", ""],
        &["run", "demo", "hi", "--system", "s", "--no-chat-template"],
        &["run", "demo", " "],
        &["run", "demo", "hi", "--kv-bits", "7"],
        &["run", "demo", "hi", "--kv-bits", "4", "--kv-group-size", "48"],
        &["run", "demo", "hi", "--kv-group-size", "32"],
        &["perplexity", "demo"],
        &["perplexity", "demo", "--file", "x", "--dtype", "int8"],
        &["bench"],
        &["bench", "demo", "-r", "0"],
    ];
    for args in cases {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
        let errors = ran.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{args:?}: {}", ran.stderr);

        for args in [[&["--json"], args].concat(), [args, &["--json"]].concat()] {
            let ran = run(&args);
            let envelope = ran.envelope();
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""), "{args:?}");
            assert_eq!(envelope["error"]["type"], "CommandError", "{args:?}");
            let message = envelope["error"]["message"].as_str().expect("text");
            assert!(!message.is_empty() && !message.starts_with("error"), "{message}");
        }
    }
}

#[test]
fn a_chat_has_no_json() {
    let ran = run(["run", "demo", "--json"]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(ran.envelope()["command"], "run");
}

#[test]
fn the_version_is_told() {
    let version = env!("CARGO_PKG_VERSION");
    let text = run(["--version"]).ok();
    let head = format!("mlxk {version} (MLX {}, ", mlx_lm::core::MLX_VERSION);
    let device =
        text.strip_prefix(&head).and_then(|text| text.strip_suffix(")\n")).expect("a device");
    assert_eq!(run(["-V"]).ok(), text);
    for args in [["--version", "--json"], ["--json", "--version"]] {
        let data = run(args).data();
        assert_eq!(data["cli_version"], version);
        assert_eq!(data["json_api_spec_version"], "0.2.4");
        let name = |key: &str| data[key].as_str().expect("a name").to_owned();
        assert_eq!(format!("{}: {}", name("device"), name("device_name")), device);
        assert_eq!(name("device") == "cpu", Device::default_device() == Device::Cpu);
        if cfg!(any(target_os = "linux", target_os = "macos")) {
            assert!(data["system"]["memory_total_bytes"].as_u64() > Some(1 << 28));
        }
    }
}

#[test]
fn completions_and_man_pages_are_generated() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = run(["completions", shell]).ok();
        assert!(text.contains("mlxk") && text.contains("perplexity"), "{shell}");
    }
    let page = run(["man"]).ok();
    assert!(page.contains(".TH mlxk 1") && page.contains("Exit codes"), "{page}");
    let page = run(["man", "run"]).ok();
    assert!(page.contains("mlxk\\-run") && page.contains("max\\-tokens"), "{page}");
    assert_eq!(run(["man", "walk"]).code, Some(2));
    let data = run(["man", "--json"]).data();
    assert!(matches!(&data["text"], Value::String(text) if text.contains(".TH mlxk")));
}
