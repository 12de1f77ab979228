//! `mlxk ps`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::hub::{A, Hub, chat_model};

/// Starts a chat that waits for its user.
fn chat(hub: &Hub, model: &str) -> Child {
    hub.mlxk().args(["run", model]).stdin(Stdio::piped()).spawn().expect("mlxk starts")
}

/// Waits until so many processes are listed, and returns them.
fn wait_for(hub: &Hub, count: usize) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        let data = hub.run(["ps", "--json"]).data();
        let processes = data["processes"].as_array().expect("a list");
        assert_eq!(data["count"], processes.len());
        if processes.len() == count {
            return processes.clone();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{data:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_has_a_model_loaded_is_listed_until_he_ends() {
    let hub = Hub::new();
    hub.put("org/m", A, &chat_model());
    assert_eq!(hub.run(["ps", "--json"]).data()["count"], 0);
    let ran = hub.run(["ps"]);
    assert_eq!(ran.stderr, "hint: no model is loaded\n");
    // A run that ends by itself leaves nothing.
    hub.run(["run", "org/m", "hi", "--max-tokens", "1"]).ok();
    let running = || {
        let caches = [".cache/mlxk/running", "Library/Caches/mlxk/running"];
        let dirs = caches.map(|dir| hub.path().join(dir).read_dir());
        dirs.into_iter().flatten().flatten().count()
    };
    assert_eq!(running(), 0);

    let (mut first, mut second) = (chat(&hub, "org/m"), chat(&hub, "m"));
    let mut listed = wait_for(&hub, 2);
    listed.sort_by_key(|process| process["model"].as_str().map(str::len));
    for (process, (child, model)) in listed.iter().zip([(&second, "m"), (&first, "org/m")]) {
        assert_eq!(process["pid"], child.id());
        assert_eq!((&process["command"], &process["model"]), (&"run".into(), &model.into()));
        assert!(process["memory_bytes"].as_u64() > Some(1 << 20), "{process}");
        let time = process["started_at"].as_str().expect("a time");
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    }
    let table = hub.run(["ps"]).ok();
    let pid = first.id().to_string();
    let row = table.lines().find(|line| line.trim_start().starts_with(&pid)).expect("a row");
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!((cells[1], cells[2], cells[4]), ("run", "org/m", "just now"));

    // One is killed, the other ends by itself.
    first.kill().expect("killed");
    first.wait().expect("ended");
    assert_eq!(wait_for(&hub, 1)[0]["pid"], second.id());
    assert_eq!(running(), 1, "what the killed one left is removed");
    drop(second.stdin.take());
    assert!(second.wait().expect("ended").success());
    assert_eq!(running(), 0, "it took itself off");
    assert_eq!(wait_for(&hub, 0), Vec::<Value>::new());
}

#[test]
fn nobody_needs_the_list_to_run() {
    let hub = Hub::new();
    hub.put("org/m", A, &chat_model());
    let mut command = hub.mlxk();
    command.args(["run", "org/m", "hi", "--max-tokens", "1"]).env("MLXK_CACHE_DIR", "/dev/null/x");
    let output = command.output().expect("mlxk starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"[cut at --max-tokens 1]\n");
}
