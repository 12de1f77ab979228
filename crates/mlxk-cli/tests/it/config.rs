//! `mlxk config` and `doctor`.

use std::fs;

use serde_json::{Value, json};

use crate::hub::{Hub, check_transcript};
use crate::support::Ran;

#[test]
fn settings_are_shown_with_their_origin() {
    let hub = Hub::new();
    let text = hub.transcript(&[
        "config show",
        "config show --origin",
        "config show --json --threads 3 --strict-exit",
        "config path",
        "config",
    ]);
    check_transcript("config.txt", &text);
}

#[test]
fn a_file_sets_what_nothing_else_does() {
    let hub = Hub::with_models();
    let file = hub.path().join("config.toml");
    let run = |args: &[&str], variables: &[(&str, &str)]| -> Ran {
        let mut command = hub.mlxk();
        command.env("MLXK_CONFIG", &file).env_remove("HF_HOME").args(args);
        command.envs(variables.iter().copied());
        command.output().expect("mlxk starts").into()
    };
    let cache = hub.path().join("hub").display().to_string();
    fs::write(&file, format!("hub_cache = {cache:?}\nstrict_exit = true\n")).expect("written");
    assert_eq!(run(&["list", "--json"], &[]).data()["count"], 6);
    assert_eq!(run(&["show", "nothing"], &[]).code, Some(3));
    assert_eq!(run(&["show", "nothing"], &[("MLXK_STRICT_EXIT", "0")]).code, Some(1));
    assert_eq!(run(&["list", "--json"], &[("HF_HOME", "/nonexistent")]).data()["count"], 0);

    fs::write(&file, "hub_cash = 1").expect("written");
    for command in ["list", "config show", "rm x", "run x hi"] {
        let ran = run(&command.split(' ').collect::<Vec<_>>(), &[]);
        assert_eq!(ran.code, Some(1), "{command}");
        assert!(
            ran.stderr.contains("config.toml") && ran.stderr.contains("hub_cash"),
            "{}",
            ran.stderr
        );
    }
    let data = run(&["doctor", "--json"], &[]).data();
    assert_eq!((&data["sound"], status(&data, "config")), (&json!(false), Some("error")));
    assert_eq!(run(&["doctor", "--strict-exit"], &[]).code, Some(1));
    // What needs no settings goes on.
    run(&["models"], &[]).ok();
}

#[test]
fn a_doctor_looks_at_the_machine() {
    let hub = Hub::with_models();
    let data = hub.run(["doctor", "--json"]).data();
    assert_eq!(data["sound"], true, "{data:#}");
    for name in [
        "device",
        "backends",
        "cpu",
        "memory",
        "config",
        "cache",
        "workspace home",
        "ffmpeg",
        "hub token",
    ] {
        assert!(status(&data, name).is_some(), "{name}: {data:#}");
    }
    let text = hub.run(["doctor"]).ok();
    assert!(text.contains("6 models"), "{text}");
    // A token's presence is told, and never the token.
    let mut command = hub.mlxk();
    let ran: Ran =
        command.arg("doctor").env("HF_TOKEN", "hf_secret").output().expect("starts").into();
    let text = ran.ok();
    assert!(text.contains("in HF_TOKEN") && !text.contains("secret"), "{text}");
    fs::remove_dir_all(hub.path().join("hub")).expect("removed");
    fs::write(hub.path().join("hub"), "a file").expect("written");
    assert_eq!(status(&hub.run(["doctor", "--json"]).data(), "cache"), Some("error"));
}

fn status<'a>(data: &'a Value, name: &str) -> Option<&'a str> {
    let checks = data["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name)?["status"].as_str()
}
