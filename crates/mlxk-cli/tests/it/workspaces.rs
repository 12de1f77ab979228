//! `mlxk clone` and the repairs of `mlxk convert`: what they make, and what they leave alone.

use std::collections::BTreeMap;
use std::path::Path;

use mlx_lm::core::io::SafetensorsFile;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::corpus::{INDEX, Model, npz, safetensors};
use crate::health::mlxk_with;
use crate::support::Ran;

pub(crate) fn run(hub: &Path, args: &[&str]) -> Ran {
    mlxk_with(hub, None).args(args).output().expect("mlxk starts").into()
}

/// Hashes each file of a tree, links as what they lead to.
pub(crate) fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in dir.read_dir().into_iter().flatten() {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if entry.file_type().expect("a type").is_dir() {
            let below = tree(&entry.path()).into_iter();
            files.extend(below.map(|(path, hash)| (format!("{name}/{path}"), hash)));
        } else {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            files.insert(name, Sha256::digest(bytes).to_vec());
        }
    }
    files
}

pub(crate) fn codes(hub: &Path, dir: &Path) -> Vec<String> {
    let data = run(hub, &["health", text(dir), "--json"]).data();
    let lists = ["healthy", "unhealthy"].map(|list| data[list].as_array().expect("a list").clone());
    let entries: Vec<Value> = lists.concat();
    let findings = entries[0]["findings"].as_array().expect("a list");
    findings.iter().map(|f| f["code"].as_str().expect("a code").to_owned()).collect()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_clone_is_a_managed_copy_of_a_cached_model() {
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path().canonicalize().expect("a directory");
    let hub = root.join("hub");
    let snapshot = Model::llama(2).write_cached(&hub, "org/m");
    let before = tree(&hub);
    let target = root.join("ws");
    let data = run(&hub, &["clone", "org/m", text(&target), "--json"]).data();
    assert_eq!(data["clone_status"], "success");
    assert_eq!(data["target_dir"], text(&target));
    assert_eq!((&data["health"], &data["health_check"]), (&json!("healthy"), &json!(true)));
    let mut copied = tree(&target);
    assert!(copied.remove(".mlxk_workspace.json").is_some());
    assert_eq!(copied, tree(&snapshot));
    assert!(target.join("config.json").symlink_metadata().expect("a file").is_file());
    assert_eq!(tree(&hub), before);
    let sentinel = std::fs::read(target.join(".mlxk_workspace.json")).expect("a file");
    let sentinel: Value = serde_json::from_slice(&sentinel).expect("JSON");
    for (key, expected) in [
        ("source_repo", json!("org/m")),
        ("source_revision", json!("0123456789abcdef0123456789abcdef01234567")),
        ("managed", json!(true)),
        ("operation", json!("clone")),
        ("hash_algorithm", json!("v2")),
    ] {
        assert_eq!(sentinel[key], expected, "{key}");
    }
    let human = run(&hub, &["clone", text(&target), text(&root.join("ws2"))]).ok();
    assert!(human.ends_with("ws2 (✓ healthy)\n"), "{human}");
    for target in [target.as_path(), &hub.join("ws"), &root.join("no/parent"), &target.join("x")] {
        let envelope = run(&hub, &["clone", "org/m", text(target), "--json"]).envelope();
        let inside_workspace = target.ends_with("x");
        assert_eq!(envelope["status"] == "success", inside_workspace, "{target:?}");
    }
    assert_eq!(tree(&hub), before);
}

#[test]
fn nothing_is_converted_from_or_into_the_cache() {
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path().canonicalize().expect("a directory");
    let hub = root.join("hub");
    let snapshot = Model::llama(2).write_cached(&hub, "org/m");
    std::os::unix::fs::symlink(&hub, root.join("alias")).expect("a link");
    let source = root.join("src");
    Model::llama(2).write(&source);
    let before = tree(&root);
    let aliased = root.join("alias").join(snapshot.strip_prefix(&hub).expect("inside"));
    for (hub, source, target) in [
        (&hub, &snapshot, &root.join("out")),
        (&hub, &aliased, &root.join("out")),
        (&root.join("alias"), &snapshot, &root.join("out")),
        (&hub, &source, &hub.join("out")),
        (&hub, &source, &root.join("alias/out")),
        (&root.join("elsewhere"), &snapshot, &root.join("out")),
        (&hub, &source, &source.join("out")),
    ] {
        let ran = run(hub, &["convert", text(source), text(target), "--repair-all", "--json"]);
        assert_eq!(ran.envelope()["status"], "error", "{source:?} {target:?}");
    }
    assert_eq!(tree(&root), before);
}

/// The bytes of every tensor of a directory's safetensors files, hashed.
pub(crate) fn tensors(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = dir.read_dir().expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| text(path).ends_with(".safetensors"));
    let files: Vec<_> = files.map(|path| SafetensorsFile::open(path).expect("sound")).collect();
    let tensors = files.iter().flat_map(|file| {
        file.tensors().map(|(name, info)| {
            let bytes = file.bytes(name).expect("there");
            let what = format!("{name} {} {:?}", info.stored_dtype, info.shape);
            (what, Sha256::digest(bytes).to_vec())
        })
    });
    tensors.collect()
}

type Edit = fn(&mut Model);

/// Each repairable defect: the flag, the code that goes, the files that change.
fn repairs() -> Vec<(&'static str, &'static str, Edit, Vec<&'static str>)> {
    vec![
        ("--repair-index", "index_missing", |m| m.remove(INDEX), vec![INDEX]),
        ("--repair-index", "index_invalid", |m| m.put(INDEX, "{"), vec![INDEX]),
        (
            "--repair-index",
            "index_stale",
            |m| m.json(INDEX, &json!({"weight_map": {"a": "model-00001-of-00009.safetensors"}})),
            vec![INDEX],
        ),
        (
            "--repair-index",
            "index_total_size",
            |m| m.edit(INDEX, |index| index["metadata"]["total_size"] = 1.into()),
            vec![INDEX],
        ),
        (
            "--repair-weights",
            "metadata_missing",
            |m| m.put("model-00001-of-00002.safetensors", safetensors(&["a", "b", "c"], None)),
            vec!["model-00001-of-00002.safetensors"],
        ),
        (
            "--repair-config",
            "eos_token_null",
            |m| m.edit("config.json", |c| c["eos_token_id"] = Value::Null),
            vec!["config.json"],
        ),
        (
            "--repair-config",
            "model_type_missing",
            |m| {
                m.edit("config.json", |c| {
                    drop(c.as_object_mut().expect("one").remove("model_type"))
                })
            },
            vec!["config.json"],
        ),
        (
            "--repair-config",
            "video_processor_null",
            |m| m.put("processor_config.json", "{\n  \"x\": 1,\n  \"video_processor\": null\n}"),
            vec!["processor_config.json"],
        ),
    ]
}

#[test]
fn each_repair_mends_its_defect_and_nothing_else() {
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path().canonicalize().expect("a directory");
    let hub = root.join("hub");
    for (i, (flag, code, edit, changed)) in repairs().into_iter().enumerate() {
        let [source, target, again] = ["src", "out", "all"].map(|n| root.join(format!("{n}{i}")));
        let mut model = Model::llama(2);
        edit(&mut model);
        model.write(&source);
        assert!(codes(&hub, &source).contains(&code.to_owned()), "{code}");
        let before = tree(&source);
        let args = ["convert", text(&source), text(&target), flag];
        let diff = run(&hub, &[&args[..], &["--dry-run"]].concat()).ok();
        assert!(!target.exists() && changed.iter().all(|name| diff.contains(name)), "{diff}");
        let data = run(&hub, &[&args[..], &["--json"]].concat()).data();
        assert_eq!(data["health_status"], "healthy", "{code}");
        assert_eq!(codes(&hub, &target), Vec::<String>::new(), "{code}");
        assert_eq!(tensors(&target), tensors(&source), "{code}: no byte of a tensor changes");
        assert_eq!(tree(&source), before, "{code}: the source stays");
        let mut after = tree(&target);
        after.remove(".mlxk_workspace.json").expect("managed");
        let differing = after.iter().filter(|(name, hash)| before.get(*name) != Some(hash));
        assert_eq!(differing.map(|(name, _)| name).collect::<Vec<_>>(), changed, "{code}");
        run(&hub, &["convert", text(&source), text(&again), "--repair-all"]).ok();
        let mut all = tree(&again);
        all.remove(".mlxk_workspace.json").expect("managed");
        assert_eq!(all, after, "{code}: --repair-all does the same, and the same again");
    }
}

#[test]
fn npz_weights_become_safetensors_byte_for_byte() {
    let root = tempfile::tempdir().expect("a directory");
    let (source, target) = (root.path().join("src"), root.path().join("out"));
    let mut model = Model::llama(1);
    model.remove("model.safetensors");
    model.put("weights.npz", npz());
    model.write(&source);
    run(&root.path().join("hub"), &["convert", text(&source), text(&target), "--repair-weights"])
        .ok();
    let file = SafetensorsFile::open(target.join("model.safetensors")).expect("sound");
    assert_eq!(file.bytes("w"), Some(&[1, 2, 3, 4][..]));
    assert_eq!(file.bytes("v"), Some(&[5, 6, 7, 8][..]));
    assert_eq!(file.get("w").expect("there").shape, [2, 2]);
    assert!(!target.join("weights.npz").exists());
}

#[test]
fn a_whisper_model_gets_its_preprocessor() {
    let root = tempfile::tempdir().expect("a directory");
    let (source, target) = (root.path().join("src"), root.path().join("out"));
    let mut model = Model::llama(1);
    model.json("config.json", &json!({"model_type": "whisper", "n_mels": 128}));
    model.write(&source);
    assert_eq!(codes(&root.path().join("hub"), &source), ["preprocessor_missing"]);
    run(
        &root.path().join("hub"),
        &["convert", text(&source), text(&target), "--add-preprocessor-config"],
    )
    .ok();
    assert_eq!(codes(&root.path().join("hub"), &target), Vec::<String>::new());
    let text = std::fs::read(target.join("preprocessor_config.json")).expect("a file");
    let settings: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(
        (&settings["feature_size"], &settings["nb_max_frames"]),
        (&json!(128), &json!(3000))
    );
}

#[test]
fn an_incomplete_model_gets_no_index_that_hides_it() {
    let root = tempfile::tempdir().expect("a directory");
    let (source, target) = (root.path().join("src"), root.path().join("out"));
    let mut model = Model::llama(3);
    model.remove("model-00002-of-00003.safetensors");
    model.write(&source);
    let ran = run(
        &root.path().join("hub"),
        &["convert", text(&source), text(&target), "--repair-index", "--json"],
    );
    assert_eq!(ran.envelope()["error"]["type"], "invalid_model");
    // What stays unhealthy is not put in place either, unless asked for.
    let mut model = Model::llama(1);
    model.put("tokenizer.json", "{");
    let source = root.path().join("src2");
    model.write(&source);
    let args = ["convert", text(&source), text(&target), "--repair-index", "--json"];
    assert_eq!(
        run(&root.path().join("hub"), &args).envelope()["error"]["type"],
        "HealthCheckFailed"
    );
    assert!(!target.exists());
    run(&root.path().join("hub"), &[&args[..], &["--skip-health"]].concat()).data();
    assert!(target.exists());
}

/// What a new user does first: the program's own model, as files that can be looked at and changed.
#[test]
fn the_program_s_model_becomes_a_workspace() {
    let root = tempfile::tempdir().expect("a directory");
    let (hub, target) = (root.path().join("hub"), root.path().join("mine"));
    let data = run(&hub, &["clone", "demo", text(&target), "--json"]).data();
    assert_eq!((&data["model"], &data["health"]), (&json!("demo"), &json!("healthy")));
    let mut files = tree(&target);
    files.remove(".mlxk_workspace.json").expect("managed");
    assert_eq!(files, tree(&fixtures::path("../models/demo")));
    let question = ["--thinking", "off", "What is the capital of France?"];
    let answer = |model: &str| run(&hub, &[&["run", model], &question[..]].concat()).ok();
    assert_eq!(answer(text(&target)), answer("demo"));
    let shown = run(&hub, &["show", text(&target), "--json"]).data();
    assert_eq!(
        (&shown["model"]["clean"], &shown["model"]["origin"]),
        (&json!(true), &json!("demo"))
    );
    let ran = run(&hub, &["clone", "demo", text(&target)]);
    assert_eq!(ran.code, Some(1), "it is there already: {}", ran.stderr);
}
