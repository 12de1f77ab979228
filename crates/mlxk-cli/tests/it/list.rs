//! `mlxk list`, and names of models in the cache for the other commands.

use serde_json::json;

use crate::hub::{A, B, Hub, chat_model, check_transcript, edited};

#[test]
fn models_are_listed() {
    let hub = Hub::with_models();
    hub.workspace("my-chat", &chat_model());
    hub.workspace("not-a-model", &[("notes.txt".to_owned(), Vec::new())]);
    let text = hub.transcript(&[
        "list",
        "list --all",
        "list --all --verbose",
        "list --all --health",
        "list --all --health --verbose",
        "list CHAT",
        "list nothing",
        "list nothing --json",
        "list ./workspaces",
        "list ./workspaces/my",
        "list ./workspaces/my-chat --json",
        "list tiny-base --json",
        "list novel --json --all --health --verbose",
        "list unsound --json",
        "--json list a--b",
    ]);
    check_transcript("list.txt", &text);
}

#[test]
fn an_absent_cache_has_no_models() {
    let hub = Hub::new();
    std::fs::remove_dir_all(hub.path().join("hub")).expect("removed");
    check_transcript("list-nothing.txt", &hub.transcript(&["list", "list --json"]));
    // Listing made nothing.
    assert!(!hub.path().join("hub").exists());
}

/// The main revision is listed, whatever directory changed last.
#[test]
fn the_main_revision_is_listed() {
    let hub = Hub::new();
    hub.put("org/m", B, &edited(chat_model(), |c| c["max_position_embeddings"] = json!(77)));
    hub.put("org/m", A, &chat_model());
    for commit in [A, B] {
        hub.point("org/m", "main", commit);
        let data = hub.run(["list", "--json"]).data();
        assert_eq!(data["models"][0]["hash"], commit);
        assert_eq!(data["count"], 1);
    }
    assert_eq!(hub.run(["list", "--json"]).data()["models"][0]["context_length"], 77);
    hub.point("org/m", "main", "cccccccccccccccccccccccccccccccccccccccc");
    let data = hub.run(["list", "--json"]).data();
    assert_eq!(data["models"][0]["health"], "unhealthy");
}

#[test]
fn cached_models_run_by_name() {
    let hub = Hub::with_models();
    hub.workspace("my-chat", &chat_model());
    let long_commit = format!("org/other-chat@{}", &A[..7]);
    for name in [
        "mlx-community/Tiny-Chat",
        "Tiny-Chat",
        "tiny-c",
        &long_commit,
        "my-chat",
        "my-c",
        "org/a--b",
    ] {
        let data = hub.run(["run", name, "hi", "--max-tokens", "2", "--json"]).data();
        assert_eq!(data["model"], name);
    }
    hub.run(["bench", "Tiny-Chat", "-p", "4", "-n", "2", "-r", "1"]).ok();
    let notes = hub.path().join("text");
    std::fs::write(&notes, "some text").expect("written");
    hub.run(["perplexity", "other-chat", "--file", "text"]).ok();
}

#[test]
fn names_that_are_not_clear_are_told_of() {
    let hub = Hub::with_models();
    let text = hub.transcript(&[
        "show chat",
        "show chat --json",
        "run nothing hi",
        "show Tiny-Chta",
        "show org/novel@c --json",
        "show ./nothing",
        "show org/nothing --json --strict-exit",
    ]);
    check_transcript("names.txt", &text);
}

/// Colour is for terminals, and a terminal's width for people.
#[test]
fn a_pipe_gets_plain_text() {
    let hub = Hub::with_models();
    let ran =
        hub.mlxk().args(["list", "--all"]).env("COLUMNS", "20").output().expect("mlxk starts");
    assert!(!ran.stdout.contains(&0x1b) && !ran.stderr.contains(&0x1b));
    let text = String::from_utf8(ran.stdout).expect("UTF-8");
    assert!(text.contains("org/other-chat ") && !text.contains('…'), "{text}");
}
