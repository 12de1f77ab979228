//! `mlxk show`.

use serde_json::{Value, json};

use crate::support::{TinyModel, run};

#[test]
fn a_model_is_described() {
    let model = TinyModel::of("llama-affine4", "tiny");
    model.write("README.md", "text");
    let data = run(["show", model.arg(), "--json"]).data();
    let object = &data["model"];
    for (name, expected) in [
        ("name", json!(model.arg())),
        ("framework", json!("MLX")),
        ("model_type", json!("chat")),
        ("capabilities", json!(["text-generation", "chat"])),
        ("context_length", json!(512)),
        ("health", json!("healthy")),
        ("runtime_compatible", json!(true)),
        ("reason", Value::Null),
        ("cached", json!(false)),
    ] {
        assert_eq!(object[name], expected, "{name}");
    }
    let config: Value = serde_json::from_slice(&model.read("config.json")).expect("JSON");
    let metadata = &data["metadata"];
    assert_eq!(metadata["model_type"], "llama");
    assert_eq!(metadata["architecture"], config["architectures"][0]);
    assert_eq!(metadata["quantization"], "4bit");
    for name in ["vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers"] {
        assert_eq!(metadata[name], config[name], "{name}");
    }
    assert_eq!(metadata["chat_template"], true);
    let kinds: Vec<(&str, &str)> = data["files"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|file| (file["name"].as_str().unwrap_or(""), file["type"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        kinds,
        [
            ("README.md", "readme"),
            ("config.json", "config"),
            ("model.safetensors", "weights"),
            ("model.safetensors.index.json", "config"),
            ("tokenizer.json", "tokenizer"),
            ("tokenizer_config.json", "tokenizer"),
        ]
    );
    assert_eq!(data["config"], Value::Null);
    assert_eq!(run(["show", model.arg(), "--json", "--config"]).data()["config"], config);
}

#[test]
fn tensors_are_listed_with_what_becomes_of_them() {
    let model = TinyModel::at("mlx-lm/families/mixtral-hf", "tiny");
    let data = run(["show", model.arg(), "--weights", "--json"]).data();
    let tensors = data["tensors"].as_array().expect("a list");
    assert_eq!(tensors.len() as u64, data["weights"]["tensors"].as_u64().expect("a number"));
    let name = "model.layers.0.block_sparse_moe.experts.1.w2.weight";
    let tensor = tensors.iter().find(|tensor| tensor["name"] == name).expect("it is there");
    assert_eq!(tensor["dtype"], "float32");
    let becomes = "model.layers.0.block_sparse_moe.switch_mlp.down_proj.weight";
    assert_eq!(tensor["becomes"], json!([becomes]));
    let rule = tensor["rules"][0].as_str().expect("a rule");
    assert!(rule.starts_with("stack *.block_sparse_moe.experts.%.w2.*"), "{rule}");
    let text = run(["show", model.arg(), "--weights"]).ok();
    assert!(text.contains(&format!("  -> {becomes}\n      {rule}\n")), "{text}");
    // Of what does not run here, names, shapes and dtypes.
    model.edit("config.json", |config| config["model_type"] = json!("no_such_type"));
    let data = run(["show", model.arg(), "--weights", "--json"]).data();
    let tensors = data["tensors"].as_array().expect("a list");
    assert!(tensors.iter().any(|tensor| tensor["name"] == name));
    assert!(tensors.iter().all(|tensor| tensor["becomes"].is_null()));
}

#[test]
fn model_types_are_listed() {
    let data = run(["models", "--json"]).data();
    let families = data["families"].as_array().expect("a list");
    let llama = families.iter().find(|family| family["model_type"] == "llama").expect("llama");
    assert!(llama["aliases"].as_array().expect("a list").contains(&json!("mistral")));
    let text = run(["models"]).ok();
    let blocks = llama["blocks"].as_str().expect("text");
    assert!(text.contains(&format!("mistral, xverse\n  blocks: {blocks}\n")), "{text}");
}

/// What the headers say is what the loaded model has, however its weights are packed.
#[test]
fn parameters_are_counted_before_packing() {
    for (checkpoint, least, most) in [
        ("llama-f32", 32.0, 32.0),
        ("llama-bf16", 16.0, 16.0),
        ("llama-affine4", 4.0, 9.0),
        ("llama-mixed", 3.0, 12.0),
        ("llama-mxfp4", 4.0, 9.0),
        ("llama-nvfp4", 4.0, 9.0),
    ] {
        let model = TinyModel::of(checkpoint, "tiny");
        let shown = run(["show", model.arg(), "--json"]).data();
        let args = ["bench", model.arg(), "-p", "1", "-n", "0", "-r", "1", "--json"];
        let loaded = run(args).data();
        let metadata = &shown["metadata"];
        assert_eq!(metadata["n_parameters"], loaded["model"]["n_parameters"], "{checkpoint}");
        assert_eq!(shown["weights"]["total_bytes"], loaded["model"]["size_bytes"], "{checkpoint}");
        let bits = metadata["bits_per_weight"].as_f64().expect("a number");
        assert!((least..=most).contains(&bits), "{checkpoint}: {bits}");
    }
}

#[test]
fn the_embedded_model_is_described() {
    let data = run(["show", "demo", "--json"]).data();
    assert_eq!(data["model"]["name"], "demo");
    assert_eq!(data["metadata"]["thinking"], json!({"start": "<think>", "end": "</think>"}));
    assert_eq!(data["metadata"]["chat_template"], true);
    let text = run(["show", "demo", "--files"]).ok();
    for line in ["Model: demo", "Health: healthy", "  model type: qwen3", "Files:"] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
}

/// What cannot be read does not keep the rest from being shown.
#[test]
fn a_damaged_model_is_shown_as_far_as_it_can_be() {
    let model = TinyModel::new();
    let bytes = model.read("model.safetensors");
    model.write("model.safetensors", &bytes[..bytes.len() / 2]);
    let text = run(["show", model.arg()]).ok();
    assert!(text.contains("Health: unhealthy\nRuns here: no\nReason: "), "{text}");
    assert_eq!(run(["show", model.arg(), "--strict-exit"]).code, Some(4));

    let data = run(["show", model.arg(), "--json"]).data();
    assert_eq!(data["model"]["health"], "unhealthy");
    let reason = data["model"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("model.safetensors") && reason.contains("truncated"), "{reason}");
    assert_eq!(data["metadata"]["model_type"], "qwen3");
    assert_eq!(data["weights"], Value::Null);
}

#[test]
fn a_sound_model_of_an_unknown_type_is_no_error() {
    let model = TinyModel::new();
    model.edit("config.json", |config| config["model_type"] = json!("novel"));
    let data = run(["show", model.arg(), "--json"]).data();
    assert_eq!(data["model"]["health"], "healthy");
    assert_eq!(data["model"]["runtime_compatible"], false);
    assert_eq!(data["model"]["reason"], "model_type \"novel\" is not supported");
}

#[test]
fn a_stale_index_is_told_of() {
    let model = TinyModel::new();
    model.edit("model.safetensors.index.json", |index| {
        index["weight_map"]["model.extra.weight"] = json!("model.safetensors");
    });
    let data = run(["show", model.arg(), "--json"]).data();
    let told = data["weights"]["index_disagreements"].as_array().expect("a list");
    assert!(told.iter().any(|t| t.as_str().is_some_and(|t| t.contains("model.extra.weight"))));
    let ran = run(["run", model.arg(), "hi", "--max-tokens", "1"]);
    assert!(ran.stderr.starts_with("warning: ") && ran.stderr.contains("model.extra.weight"));
    assert_eq!(ran.code, Some(0));
}
