//! What a save writes when nothing is in its way.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use mlx_core::Dtype;
use mlx_core::io::{Checkpoint, SafetensorsFile, TensorLayout, TensorSink};
use mlx_lm::Result;
use mlx_lm::files::ModelFiles;
use mlx_lm::save::{ModelCard, RealFileSystem, SaveArgs, TensorSource, save};
use serde_json::Value;

use super::model::{N_SHARDS, Options, Workspace, exists, tree};

#[test]
fn everything_is_there_and_nothing_else() {
    let workspace = Workspace::on_disk();
    let source = tree(&workspace.source());
    let mut seen = Vec::new();
    let saved = workspace.save(Options {
        resume: false,
        fingerprint: "",
        file_system: &RealFileSystem,
        progress: &mut |p| {
            seen.push(p);
            ControlFlow::Continue(())
        },
    });
    let saved = saved.unwrap();
    let files = tree(&workspace.destination());
    let mut expected: Vec<String> =
        (1..=N_SHARDS).map(|n| format!("model-{n:05}-of-{N_SHARDS:05}.safetensors")).collect();
    expected.extend(
        [
            "README.md",
            "chat_template.jinja",
            "chat_templates/tool_use.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors.index.json",
            "modeling.py",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
        .map(str::to_owned),
    );
    expected.sort_unstable();
    assert_eq!(files.keys().cloned().collect::<Vec<_>>(), expected);
    for name in ["tokenizer.json", "chat_templates/tool_use.jinja", "modeling.py"] {
        assert_eq!(files[name], source[name], "{name}");
    }
    let config = "{\n    \"model_type\": \"llama\",\n    \"rms_norm_eps\": 1e-05\n}";
    assert_eq!(String::from_utf8_lossy(&files["config.json"]), config);
    let card = "---\nlicense: mit\nbase_model: a/b\nlibrary_name: mlx\n\
        pipeline_tag: text-generation\ntags:\n- mlx\n---\n";
    assert_eq!(String::from_utf8_lossy(&files["README.md"]), card);

    let weights = files.iter().filter(|(name, _)| name.ends_with(".safetensors"));
    let n_bytes: usize = weights.map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(saved.n_weight_bytes, n_bytes as u64);
    assert_eq!(saved.left_over, None);
    let last = seen.last().unwrap();
    assert_eq!((last.n_bytes, last.n_total_bytes), (n_bytes as u64, n_bytes as u64));
    assert!(seen.is_sorted_by_key(|p| p.n_bytes) && seen[0].n_bytes == 0);

    assert!(!exists(&workspace.partial()));
    assert_eq!(tree(&workspace.source()), source);
}

#[test]
fn weights_are_read_back() {
    let workspace = Workspace::new();
    workspace.save_plainly(false).unwrap();
    let checkpoint = Checkpoint::open_dir(workspace.destination()).unwrap();
    assert_eq!(checkpoint.len(), workspace.tensors.len());
    for entry in fs::read_dir(workspace.destination()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let file = SafetensorsFile::open(&path).unwrap();
            assert_eq!(file.metadata().get("format").map(String::as_str), Some("mlx"));
        }
    }
}

struct Zeros<'a>(&'a [TensorLayout]);

impl TensorSource for Zeros<'_> {
    fn write(&mut self, index: usize, sink: &mut TensorSink<'_>) -> Result<()> {
        Ok(sink.write(&vec![0; self.0[index].byte_size().unwrap() as usize])?)
    }
}

fn tensor(value: &Value) -> TensorLayout {
    TensorLayout {
        name: value[0].as_str().unwrap().to_owned(),
        dtype: Dtype::from_name(value[1].as_str().unwrap()).unwrap(),
        shape: serde_json::from_value(value[2].clone()).unwrap(),
    }
}

fn check_text(case: &str, path: &Path, expected: &Path) {
    let [ours, theirs] = [path, expected].map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(ours, theirs, "{case}: {}", path.file_name().unwrap().display());
}

#[test]
fn index_and_configuration_are_mlx_lms_byte_for_byte() {
    let cases = fixtures::json("mlx-lm/saving/cases.json");
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let theirs = fixtures::path(&format!("mlx-lm/saving/{name}"));
        let files = ModelFiles::directory(&theirs).unwrap();
        let config = files.read_json("source.txt").unwrap().unwrap();
        let tensors: Vec<_> = case["tensors"].as_array().unwrap().iter().map(tensor).collect();
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("x");
        let args = SaveArgs {
            destination: &destination,
            tensors: &tensors,
            n_parameters: case["n_parameters"].as_u64().unwrap(),
            config: &config,
            source: None,
            model_card: ModelCard::default(),
            max_shard_bytes: case["max_shard_bytes"].as_u64().unwrap(),
            resume: false,
            fingerprint: "",
            file_system: &RealFileSystem,
            progress: &mut |_| ControlFlow::Continue(()),
            finish: None,
        };
        save(args, &mut Zeros(&tensors)).unwrap();
        check_text(name, &destination.join("config.json"), &theirs.join("config.json"));
        let index = destination.join("model.safetensors.index.json");
        check_text(name, &index, &theirs.join("index.json"));
        let mut shards: Vec<String> = tree(&destination).into_keys().collect();
        shards.retain(|file| file.ends_with(".safetensors"));
        assert_eq!(serde_json::to_value(shards).unwrap(), case["shards"], "{name}");
    }
}
