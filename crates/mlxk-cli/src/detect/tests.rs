//! Models of a few files each, and what they are.

use serde_json::json;

use super::*;

/// The smallest file of weights, as a program of this name wrote it.
fn weights(format: &str) -> Vec<u8> {
    let header = json!({
        "__metadata__": {"format": format},
        "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    });
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat()
}

/// Detects a model of these files; `model.safetensors` is there unless other weights are.
fn detected(config: Value, files: &[(&str, &str)]) -> Detected {
    let dir = tempfile::tempdir().expect("a directory");
    let mut all = json!({"model_type": "llama", "vocab_size": 10});
    all.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    std::fs::write(dir.path().join("config.json"), all.to_string()).expect("written");
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    let is_weights =
        |name: &str| [".gguf", ".npz", ".bin", ".safetensors"].iter().any(|s| name.ends_with(s));
    if !files.iter().any(|(name, _)| is_weights(name)) {
        std::fs::write(dir.path().join("model.safetensors"), weights("pt")).expect("written");
    }
    detect(&ModelFiles::directory(dir.path()).expect("sound"))
}

#[test]
fn frameworks_are_told_by_files() {
    let card = "---\ntags: [mlx]\n---\n";
    let mlx = String::from_utf8(weights("mlx")).expect("ASCII");
    for (config, files, expected) in [
        (json!({}), vec![], Framework::PyTorch),
        (json!({"quantization": {"bits": 4}}), vec![], Framework::Mlx),
        (json!({"quantization_config": {"quant_method": "awq"}}), vec![], Framework::PyTorch),
        (json!({}), vec![("README.md", card)], Framework::Mlx),
        (json!({}), vec![("README.md", "---\nlibrary_name: mlx\n---\n")], Framework::Mlx),
        (json!({}), vec![("README.md", "mlx")], Framework::PyTorch),
        (json!({}), vec![("model.safetensors", mlx.as_str())], Framework::Mlx),
        (json!({}), vec![("weights.npz", "")], Framework::Mlx),
        (json!({}), vec![("m.gguf", "")], Framework::Gguf),
        (json!({}), vec![("pytorch_model.bin", "")], Framework::PyTorch),
        (json!({}), vec![("other.bin", "")], Framework::Unknown),
    ] {
        assert_eq!(detected(config.clone(), &files).framework, expected, "{config} {files:?}");
    }
}

#[test]
fn types_and_capabilities_are_told_by_files() {
    let chat = ("tokenizer_config.json", r#"{"chat_template": "x"}"#);
    let image = ("preprocessor_config.json", r#"{"image_processor_type": "X", "image_mean": [1]}"#);
    let whisper = |vocab: u64, encoder: u64, decoder: u64| json!({"model_type": "whisper", "vocab_size": vocab, "encoder_layers": encoder, "decoder_layers": decoder});
    for (config, files, expected) in [
        (json!({}), vec![], "base: text-generation"),
        (json!({}), vec![chat], "chat: text-generation chat"),
        (
            json!({}),
            vec![("tokenizer_config.json", r#"{"chat_template": ""}"#)],
            "base: text-generation",
        ),
        (json!({}), vec![("chat_template.jinja", "x")], "chat: text-generation chat"),
        (json!({"vision_config": {"a": 1}}), vec![chat], "chat: text-generation chat vision"),
        (json!({"vision_config": {}, "audio_config": null}), vec![], "base: text-generation"),
        (json!({"model_type": "llava"}), vec![], "chat: text-generation chat vision"),
        (json!({}), vec![image], "base: text-generation vision"),
        (json!({}), vec![image, ("video_preprocessor_config.json", "{}")], "base: text-generation"),
        // A processor that is not about images makes nothing see.
        (
            json!({}),
            vec![("processor_config.json", r#"{"processor_class": "X"}"#)],
            "base: text-generation",
        ),
        (json!({"audio_config": {"a": 1}}), vec![chat], "chat: text-generation chat audio"),
        (json!({"model_type": "gemma3n"}), vec![], "base: text-generation audio"),
        (whisper(51_865, 4, 4), vec![], "audio: audio audio-translate-en"),
        (whisper(51_864, 4, 4), vec![], "audio: audio"),
        (whisper(51_866, 32, 4), vec![], "audio: audio"),
        (json!({"model_type": "voxtral"}), vec![], "audio: audio"),
        (json!({"model_type": "bert"}), vec![chat], "embedding: embeddings"),
        (
            json!({"model_type": "qwen3"}),
            vec![chat, ("modules.json", "[]")],
            "embedding: embeddings",
        ),
        (
            json!({"model_type": "qwen3"}),
            vec![chat, ("README.md", "---\npipeline_tag: feature-extraction\n---")],
            "embedding: embeddings",
        ),
    ] {
        let detected = detected(config.clone(), &files);
        let capabilities: Vec<&str> = detected.capabilities.iter().map(|c| c.name()).collect();
        let told = format!("{}: {}", detected.kind.name(), capabilities.join(" "));
        assert_eq!(told, expected, "{config} {files:?}");
    }
}

#[test]
fn what_does_not_run_is_told_with_the_reason() {
    for (config, files, reason) in [
        (json!({}), vec![], None),
        (json!({"model_type": "qwen3_moe", "quantization": {"bits": 4}}), vec![], None),
        (json!({"quantization_config": {"quant_method": "awq", "bits": 4}}), vec![], None),
        (json!({"model_type": "novel"}), vec![], Some("model_type \"novel\" is not supported")),
        (json!({"model_type": null}), vec![], Some("model_type")),
        (json!({"model_file": "m.py"}), vec![], Some("never")),
        (json!({"quantization": {"mode": "q9"}}), vec![], Some("q9")),
        (json!({"quantization_config": {"quant_method": "bitnet"}}), vec![], Some("bitnet")),
        (json!({"model_type": "whisper"}), vec![], Some("speech models (whisper)")),
        (json!({"model_type": "bert"}), vec![], Some("embeddings")),
        (json!({}), vec![("m.gguf", "")], Some("GGUF")),
        (json!({}), vec![("weights.npz", "")], Some("npz")),
        (json!({}), vec![("pytorch_model.bin", "")], Some("pickles")),
    ] {
        let obstacle = detected(config.clone(), &files).obstacle;
        match reason {
            None => assert_eq!(obstacle, None, "{config}"),
            Some(text) => {
                let obstacle = obstacle.unwrap_or_default();
                assert!(obstacle.contains(text), "{config} {files:?}: {obstacle:?}");
            }
        }
    }
}

#[test]
fn the_context_window_is_that_of_the_whole_or_the_text_part() {
    for (config, expected) in [
        (json!({"n_positions": 7}), Some(7)),
        (json!({"text_config": {"max_position_embeddings": 8}, "seq_len": 9}), Some(9)),
        (json!({"text_config": {"max_position_embeddings": 8}}), Some(8)),
        (json!({"max_position_embeddings": null}), None),
        (json!({"max_position_embeddings": -1}), None),
        (json!({"max_position_embeddings": 0}), None),
    ] {
        assert_eq!(context_length(&config), expected, "{config}");
    }
}
