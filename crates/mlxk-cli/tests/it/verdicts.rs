//! What lists keep from one run to the next: it is used, it is never wrong, and it never matters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::corpus::cases;
use crate::hub::{A, Hub, base_model, chat_model, without};
use crate::support::Ran;

/// As long as files have to be left alone before anything about them is kept, and a little.
const SETTLED: Duration = Duration::from_millis(2100);
/// A context window that no model has: what was kept shows by it.
const MARK: u64 = 4242;

fn settle() {
    std::thread::sleep(SETTLED);
}

fn mlxk(hub: &Hub) -> Command {
    let mut command = hub.mlxk();
    command.env("MLXK_CACHE_DIR", hub.path().join("kept"));
    command
}

fn run(hub: &Hub, args: &[&str]) -> Ran {
    mlxk(hub).args(args).output().expect("mlxk starts").into()
}

fn file(hub: &Hub) -> PathBuf {
    hub.path().join("kept/models.json")
}

fn kept(hub: &Hub) -> Value {
    let text = fs::read(file(hub)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

/// Returns how many models are kept.
fn count(hub: &Hub) -> usize {
    kept(hub)["models"].as_object().map_or(0, serde_json::Map::len)
}

/// Changes what is kept, so that its use shows.
fn mark(hub: &Hub) {
    let mut kept = kept(hub);
    for (_, entry) in kept["models"].as_object_mut().expect("models") {
        entry["detected"]["context_length"] = MARK.into();
        let finding = json!({"code": "template_missing", "message": "kept", "repair": null});
        entry["findings"] = json!([finding]);
    }
    fs::write(file(hub), kept.to_string()).expect("written");
}

/// Returns the names of those models of which a list says what was kept.
fn marked(hub: &Hub) -> Vec<String> {
    let data = run(hub, &["list", "--json"]).data();
    let models = data["models"].as_array().expect("a list").iter();
    let models = models.filter(|model| model["context_length"] == MARK);
    models.map(|model| model["name"].as_str().expect("a name").to_owned()).collect()
}

fn set_time(path: &Path, time: SystemTime) {
    let file = fs::File::options().append(true).open(path).expect("a file");
    file.set_modified(time).expect("a time");
}

#[test]
fn results_are_the_same_with_and_without() {
    let hub = Hub::new();
    for case in cases() {
        if case.cache {
            case.model.write_cached(&hub.path().join("hub"), &format!("org/{}", case.name));
        }
        if case.workspace {
            case.model.write(&hub.path().join("workspaces").join(&case.name));
        }
    }
    hub.put("org/chat", A, &chat_model());
    hub.put("org/base", A, &base_model());
    settle();
    let commands: [&[&str]; 3] =
        [&["list", "--json"], &["health", "--json"], &["list", "--all", "--health", "--verbose"]];
    let fresh = commands.map(|args| {
        let mut command = mlxk(&hub);
        let ran: Ran =
            command.args(args).env("MLXK_NO_CACHE", "1").output().expect("mlxk starts").into();
        ran.ok()
    });
    assert!(!file(&hub).exists(), "MLXK_NO_CACHE keeps nothing");
    for _ in 0..2 {
        for (args, fresh) in commands.iter().zip(&fresh) {
            assert!(run(&hub, args).ok() == *fresh, "{args:?}");
        }
    }
    assert!(count(&hub) > 100, "{} are kept", count(&hub));
}

#[test]
fn every_change_is_seen() {
    type Change = fn(&Path, &Path);
    let changes: [(&str, Change); 8] = [
        ("time", |snapshot, _| set_time(&snapshot.join("config.json"), SystemTime::UNIX_EPOCH)),
        ("content", |snapshot, _| {
            // Of the same size, under the old time.
            let path = snapshot.join("config.json");
            let time = path.metadata().and_then(|m| m.modified()).expect("a time");
            let text = fs::read_to_string(&path).expect("text").replace("512", "513");
            fs::write(&path, text).expect("written");
            set_time(&path, time);
        }),
        ("size", |snapshot, _| {
            let path = snapshot.join("config.json");
            let text = fs::read_to_string(&path).expect("text") + "\n";
            fs::write(path, text).expect("written");
        }),
        ("removed", |snapshot, _| {
            fs::remove_file(snapshot.join("tokenizer_config.json")).expect("removed");
        }),
        ("added", |snapshot, _| {
            fs::create_dir(snapshot.join("sub")).expect("made");
            fs::write(snapshot.join("sub/new.json"), "{}").expect("written");
        }),
        ("other-blob", |snapshot, dir| {
            let path = snapshot.join("config.json");
            let copy = dir.join("blobs/copy");
            fs::copy(&path, &copy).expect("copied");
            fs::remove_file(&path).expect("removed");
            std::os::unix::fs::symlink("../../blobs/copy", &path).expect("linked");
        }),
        ("download", |_, dir| {
            fs::write(dir.join("blobs/0123.incomplete"), "").expect("written");
        }),
        ("nothing", |_, _| {}),
    ];
    let hub = Hub::new();
    let id = |name: &str| format!("org/{name}");
    for (name, _) in &changes {
        hub.put(&id(name), A, &chat_model());
    }
    run(&hub, &["list"]).ok();
    assert_eq!(count(&hub), 0, "what was written just now may be written again unseen");
    settle();
    run(&hub, &["list"]).ok();
    assert_eq!(count(&hub), changes.len());
    mark(&hub);
    assert_eq!(marked(&hub).len(), changes.len());
    for (name, change) in &changes {
        let dir = hub.model_dir(&id(name));
        change(&dir.join("snapshots").join(A), &dir);
    }
    settle();
    assert_eq!(marked(&hub), ["org/nothing"]);
    // They are kept as they are now.
    assert_eq!(count(&hub), changes.len());
    mark(&hub);
    assert_eq!(marked(&hub).len(), changes.len());
}

#[test]
fn who_asks_for_one_model_gets_a_look_at_it() {
    let hub = Hub::new();
    hub.put("org/m", A, &chat_model());
    hub.put("org/unsound", A, &without(chat_model(), "model.safetensors"));
    settle();
    run(&hub, &["list"]).ok();
    assert_eq!(count(&hub), 1, "an unsound model is looked at each time");
    mark(&hub);
    let says_kept = |args: &[&str]| run(&hub, args).ok().contains("template_missing: kept");
    assert!(says_kept(&["health"]));
    assert!(!says_kept(&["health", "--deep"]));
    assert!(!says_kept(&["health", "org/m"]));
    assert_ne!(run(&hub, &["show", "org/m", "--json"]).data()["model"]["context_length"], MARK);
}

#[test]
fn damage_is_looked_past() {
    let hub = Hub::new();
    hub.put("org/m", A, &chat_model());
    settle();
    let expected = run(&hub, &["list", "--json"]).ok();
    let (sound, text) = (kept(&hub), fs::read_to_string(file(&hub)).expect("text"));
    let edited = |pointer: &str, value: Value| {
        let mut edited = sound.clone();
        *edited.pointer_mut(pointer).expect("there") = value;
        edited.to_string()
    };
    let path = hub.model_dir("org/m").join("snapshots").join(A);
    let entry = format!("/models/{}", path.display().to_string().replace('/', "~1"));
    let unknown = json!([{"code": "no_such_code", "message": "kept", "repair": null}]);
    for damaged in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "\0\0\0\0".to_owned(),
        "[".repeat(100_000),
        text[..text.len() / 2].to_owned(),
        edited("/program", json!("0.0.1")),
        edited("/models", json!([1])),
        edited(&entry, json!({})),
        edited(&format!("{entry}/findings"), unknown),
        edited(&format!("{entry}/detected/kind"), json!("nonsense")),
    ] {
        fs::write(file(&hub), &damaged).expect("written");
        assert_eq!(run(&hub, &["list", "--json"]).ok(), expected, "{damaged:.200}");
        assert_eq!(kept(&hub), sound, "it is mended: {damaged:.200}");
    }
    // No file at all, but something that cannot be read or that nobody writes to.
    fs::remove_file(file(&hub)).expect("removed");
    fs::create_dir(file(&hub)).expect("made");
    assert_eq!(run(&hub, &["list", "--json"]).ok(), expected);
    fs::remove_dir(file(&hub)).expect("removed");
    assert!(Command::new("mkfifo").arg(file(&hub)).status().expect("mkfifo").success());
    assert_eq!(run(&hub, &["list", "--json"]).ok(), expected);
    // A place where nothing can be made.
    let mut command = hub.mlxk();
    command.args(["list", "--json"]).env("MLXK_CACHE_DIR", "/dev/null/kept");
    let ran: Ran = command.output().expect("mlxk starts").into();
    assert_eq!((ran.stderr.as_str(), ran.stdout.as_str()), ("", expected.as_str()));
}

#[test]
fn what_is_gone_is_forgotten_and_many_may_write() {
    let hub = Hub::new();
    hub.put("org/old", A, &chat_model());
    hub.put("org/other", A, &chat_model());
    settle();
    // Several at once, each of which finds nothing kept and keeps what it found.
    let children: Vec<_> =
        (0..6).map(|_| mlxk(&hub).args(["list", "--json"]).spawn().expect("mlxk starts")).collect();
    let all = children.into_iter().map(|child| Ran::from(child.wait_with_output().expect("ends")));
    let all: Vec<String> = all.map(Ran::ok).collect();
    assert!(all.iter().all(|text| *text == all[0]));
    assert_eq!(count(&hub), 2);
    fs::remove_dir_all(hub.model_dir("org/old")).expect("removed");
    hub.put("org/new", A, &chat_model());
    settle();
    // What was not asked for is kept, as long as it is there.
    run(&hub, &["list", "new"]).ok();
    let kept = kept(&hub);
    let paths: Vec<&String> = kept["models"].as_object().expect("models").keys().collect();
    assert!(paths.len() == 2 && paths.iter().all(|path| !path.contains("old")), "{paths:?}");
    let left: Vec<_> = fs::read_dir(hub.path().join("kept")).expect("a directory").collect();
    assert_eq!(left.len(), 1, "nothing else is left there");
}
