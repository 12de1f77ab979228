//! `mlxk du`, `prune` and `verify`.

use std::fs::{self, File};

use serde_json::{Value, json};

use crate::hub::{A, B, Hub, base_model, chat_model, check_transcript, edited};

/// A cache with two revisions of a model, another one, and all kinds of garbage.
fn hub() -> Hub {
    let hub = Hub::new();
    hub.put(
        "org/m",
        B,
        &edited(chat_model(), |config| config["max_position_embeddings"] = json!(77)),
    );
    hub.put("org/m", A, &chat_model());
    hub.put("org/other", A, &base_model());
    let blobs = hub.model_dir("org/m").join("blobs");
    fs::write(blobs.join(format!("{}.incomplete", "0".repeat(64))), [0; 1000]).expect("written");
    fs::write(blobs.join("1".repeat(40)), [0; 2000]).expect("written");
    let deleted = hub.path().join("hub/.mlxk-deleted-models--org--gone");
    fs::create_dir_all(deleted.join("blobs")).expect("made");
    fs::write(deleted.join("blobs/x"), [0; 3000]).expect("written");
    fs::create_dir(hub.model_dir("org/other").join(".mlxk-deleted-snapshot")).expect("made");
    hub
}

#[test]
fn space_is_counted_and_garbage_cleared_away() {
    let hub = hub();
    let text = hub.transcript(&[
        "du",
        "du --json",
        "du other",
        "du nothing --json",
        "du demo",
        "prune --dry-run",
        "prune --dry-run --json",
        "prune",
        "prune",
        "prune --json",
        "du m",
    ]);
    check_transcript("du-prune.txt", &text);
    assert_eq!(hub.run(["verify", "--json"]).data()["verified"], true);
    for name in ["org/m", "org/other"] {
        hub.run(["run", name, "hi", "--max-tokens", "1", "--no-chat-template"]).ok();
    }
}

#[test]
fn a_dry_run_and_a_download_are_left_alone() {
    let hub = hub();
    let bytes = |data: &Value| data["freed_bytes"].as_u64();
    assert_eq!(bytes(&hub.run(["prune", "--dry-run", "--json"]).data()), Some(6000));
    assert_eq!(bytes(&hub.run(["prune", "--dry-run", "--json"]).data()), Some(6000));
    let dir = hub.path().join("hub/.locks/models--org--m");
    fs::create_dir_all(&dir).expect("made");
    let lock = File::create(dir.join(format!("{}.lock", "0".repeat(64)))).expect("made");
    lock.lock().expect("locked");
    assert_eq!(bytes(&hub.run(["prune", "--json"]).data()), Some(5000));
    let incomplete = format!("{}.incomplete", "0".repeat(64));
    assert!(hub.model_dir("org/m").join("blobs").join(incomplete).exists());
}

/// Shared blobs are counted once, and what a revision frees is what it alone has.
#[test]
fn what_revisions_share_is_counted_once() {
    let hub = Hub::new();
    hub.put("org/m", A, &chat_model());
    let one = hub.run(["du", "--json"]).data();
    hub.put(
        "org/m",
        B,
        &edited(chat_model(), |config| config["max_position_embeddings"] = json!(77)),
    );
    let two = hub.run(["du", "--json"]).data();
    let size = |data: &Value| data["total_bytes"].as_u64().expect("a number");
    let revision = &two["models"][0]["revisions"][1];
    let own = revision["own_bytes"].as_u64().expect("a number");
    assert!(own > 0 && own < 2000, "{own}");
    assert_eq!(size(&two), size(&one) + own);
    assert_eq!(revision["refs"], json!(["main"]));
    assert_eq!(hub.run(["rm", &format!("org/m@{B}"), "--json"]).data()["freed_bytes"], own);
    // The reference to it went along, which was a commit long.
    assert_eq!(size(&hub.run(["du", "--json"]).data()), size(&one) - A.len() as u64);
}

#[test]
fn damaged_files_are_found() {
    let hub = Hub::with_models();
    assert_eq!(hub.run(["verify", "--json"]).data()["verified"], true);
    let blobs = hub.model_dir("org/other-chat").join("blobs");
    for entry in fs::read_dir(&blobs).expect("a directory") {
        let path = entry.expect("an entry").path();
        let mut content = fs::read(&path).expect("read");
        // One bit of the weights, and of the smaller files a byte cut off.
        match path.file_name().is_some_and(|name| name.len() == 64) {
            true => content[100] ^= 1,
            false => drop(content.pop()),
        }
        fs::write(&path, content).expect("written");
    }
    let novel = hub.model_dir("org/novel");
    fs::write(novel.join("snapshots").join(A).join("plain.txt"), "x").expect("written");
    fs::write(novel.join("blobs/name-of-its-own"), "x").expect("written");
    let base = hub.model_dir("mlx-community/Tiny-Base").join("snapshots").join(A);
    std::os::unix::fs::symlink("../../blobs/nowhere", base.join("gone.json")).expect("linked");
    let text = hub.transcript(&[
        "verify other-chat",
        "verify novel",
        "verify Tiny-Base --json",
        "verify --strict-exit",
        "verify nothing --json",
    ]);
    check_transcript("verify.txt", &text);
}
