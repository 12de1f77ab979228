//! `mlxk rm`: it deletes what was named, all of it and nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::hub::{A, B, Hub, chat_model, check_transcript, edited};

#[test]
fn models_are_deleted_by_their_names() {
    let hub = Hub::with_models();
    hub.workspace("my-chat", &chat_model());
    let text = hub.transcript(&[
        "rm other",
        "rm other --json",
        "rm other --json --strict-exit",
        "rm other --force",
        "rm chat --json",
        "rm chat --force",
        "rm Tiny-Chat",
        "rm nothing",
        "rm nothing --json",
        "rm org/novel@c --json",
        "rm my-chat",
        "rm ./workspaces/my-chat --json",
        "rm demo",
        "list --all",
        "rm org/other-chat",
        "rm org/other-chat",
        "rm Tiny-Chat -f --json",
        "rm org/unsound --json",
        "list --all",
    ]);
    check_transcript("rm.txt", &text);
    assert!(!hub.model_dir("org/other-chat").exists());
    assert!(hub.path().join("workspaces/my-chat/config.json").exists());
    fs::remove_dir_all(hub.path().join("hub")).expect("removed");
    assert_eq!(hub.run(["rm", "org/a", "--json"]).envelope()["error"]["type"], "cache_not_found");
}

/// A revision goes with what only it has, and the others stay whole.
#[test]
fn one_revision_is_deleted() {
    let hub = Hub::new();
    let other = edited(chat_model(), |config| config["max_position_embeddings"] = json!(77));
    hub.put("org/m", B, &other);
    hub.put("org/m", A, &chat_model());
    hub.point("org/m", "v1", B);
    let dir = hub.model_dir("org/m");
    let blobs = |dir: &Path| names(&dir.join("blobs"));
    let before = blobs(&dir);
    let data = hub.run(["rm", "org/m@v1", "--json"]).data();
    assert_eq!((&data["action"], &data["commit_hash"]), (&json!("deleted"), &json!(B)));
    // Only the configuration differed.
    assert_eq!(blobs(&dir).len(), before.len() - 1);
    assert_eq!(names(&dir.join("refs")), BTreeSet::from(["main".to_owned()]));
    assert_eq!(names(&dir.join("snapshots")), BTreeSet::from([A.to_owned()]));
    hub.run(["run", "org/m", "hi", "--max-tokens", "1"]).ok();
    assert_eq!(hub.run(["verify", "--json"]).data()["verified"], true);
    // The last one takes the model along.
    hub.run(["rm", &format!("org/m@{}", &A[..6])]).ok();
    assert!(!dir.exists());
}

#[test]
fn what_is_being_downloaded_stays() {
    let hub = Hub::with_models();
    let dir = hub.path().join("hub/.locks/models--org--novel");
    fs::create_dir_all(&dir).expect("made");
    let lock = File::create(dir.join("abc.lock")).expect("made");
    lock.lock().expect("locked");
    let ran = hub.run(["rm", "org/novel", "--json", "--strict-exit"]);
    let envelope = ran.envelope();
    assert_eq!((ran.code, &envelope["error"]["type"]), (Some(9), &json!("locks_present")));
    assert_eq!(envelope["data"]["locks_detected"], true);
    assert_eq!(envelope["data"]["lock_files"], json!([".locks/models--org--novel/abc.lock"]));
    assert!(hub.model_dir("org/novel").exists());
    // A lock that nobody holds was left behind.
    lock.unlock().expect("unlocked");
    let data = hub.run(["rm", "org/novel", "--json"]).data();
    assert_eq!((&data["action"], &data["lock_files_cleaned"]), (&json!("deleted"), &json!(1)));
    assert!(!dir.exists());
}

/// Links lead anywhere; what they lead to is not the model's to delete.
#[test]
fn nothing_outside_of_the_model_is_deleted() {
    let hub = Hub::new();
    hub.put("org/m", A, &chat_model());
    hub.put("org/m", B, &chat_model());
    let outside = hub.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("kept"), "kept").expect("written");
    let snapshot = hub.model_dir("org/m").join("snapshots").join(B);
    for (target, name) in [("outside", "link"), ("outside/kept", "file-link"), ("hub", "..cache")] {
        std::os::unix::fs::symlink(hub.path().join(target), snapshot.join(name)).expect("linked");
    }
    hub.run(["rm", &format!("org/m@{B}")]).ok();
    assert_eq!(fs::read_to_string(outside.join("kept")).expect("there"), "kept");
    hub.run(["run", "org/m", "hi", "--max-tokens", "1"]).ok();
    hub.run(["rm", "org/m"]).ok();
    assert_eq!(fs::read_to_string(outside.join("kept")).expect("there"), "kept");
    // Another model's directory, by a link in the cache.
    hub.put("org/real", A, &chat_model());
    std::os::unix::fs::symlink(hub.model_dir("org/real"), hub.model_dir("org/alias"))
        .expect("linked");
    hub.run(["rm", "org/alias"]).ok();
    assert!(!hub.model_dir("org/alias").exists() && hub.model_dir("org/real").exists());
}

/// The tests' own guard: no cache is touched that is not marked as a test's.
#[test]
fn tests_delete_in_their_own_caches_only() {
    let hub = Hub::with_models();
    let unmarked: PathBuf = tempfile::tempdir().expect("a directory").keep();
    fs::rename(hub.path().join("hub"), unmarked.join("hub")).expect("moved");
    let mut command = hub.mlxk();
    command.args(["rm", "org/novel", "--json", "--force"]).env("HF_HOME", &unmarked);
    let ran: crate::support::Ran = command.output().expect("mlxk starts").into();
    assert_eq!(ran.envelope()["error"]["type"], "permission_denied");
    assert!(unmarked.join("hub/models--org--novel/refs/main").exists());
    fs::remove_dir_all(unmarked).expect("removed");
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}
