//! The wrong splitting rule of Mistral's tokenizers (A2 of mlx-knife's catalogue), from its finding
//! to a tokenizer that is right.

use std::path::Path;

use mlx_lm::files::ModelFiles;
use mlx_lm::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::corpus::Model;
use crate::workspaces::{codes, run, text, tree};

/// Llama 3's rule, as its published tokenizer.json has it and as transformers wrote it for
/// Mistral's.
const WRONG: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As many tokens as Mistral's newer tokenizers have, at least.
const VOCABULARY: u32 = 100_001;

/// A Mistral model with the wrong rule. Its tokens are whole pieces, so that they show how text is
/// split.
fn affected() -> Model {
    let pieces = ["fooBar", "foo", "Bar", "\u{120}", "123", "1", "2", "3", "4"];
    let mut vocabulary: serde_json::Map<String, Value> =
        pieces.iter().zip(0u32..).map(|(piece, id)| ((*piece).to_owned(), id.into())).collect();
    let others = vocabulary.len() as u32..VOCABULARY;
    vocabulary.extend(others.map(|id| (format!("t{id}"), id.into())));
    let split = json!({"type": "Split", "pattern": {"Regex": WRONG}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let token = json!({
        "id": VOCABULARY, "content": "[INST]", "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false,
    });
    let mut model = Model::llama(1);
    model.json(
        "tokenizer.json",
        &json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [token],
            "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes]},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t20"},
        }),
    );
    model.edit("config.json", |config| {
        config["model_type"] = json!("mistral");
        config["transformers_version"] = json!("4.50.0");
    });
    model
}

/// Splits a text by what the file says, and not as it is mended in memory.
fn pieces(dir: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::copy(dir.join("tokenizer.json"), copy.path().join("tokenizer.json")).expect("copied");
    // Of a model that nobody mends.
    std::fs::write(copy.path().join("config.json"), r#"{"model_type": "qwen3"}"#).expect("written");
    let files = ModelFiles::directory(copy.path()).expect("files");
    let tokenizer = Tokenizer::load(&files).expect("a tokenizer");
    assert!(!tokenizer.repaired());
    let ids = tokenizer.encode("fooBar 1234", false).expect("tokens");
    ids.into_iter().map(|id| tokenizer.id_to_token(id).expect("a token")).collect()
}

#[test]
fn the_wrong_rule_is_found_mended_and_right() {
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path().canonicalize().expect("a directory");
    let (hub, source, target) = (root.join("hub"), root.join("src"), root.join("out"));
    affected().write(&source);
    assert_eq!(codes(&hub, &source), ["tokenizer_regex"]);
    assert_eq!(pieces(&source), ["fooBar", "\u{120}", "123", "4"]);
    let before = tree(&source);
    let data = run(&hub, &["health", text(&source), "--json"]).data();
    let repair = data["healthy"][0]["findings"][0]["repair"].as_str().expect("a command");
    let made = format!("{}-repaired", text(&source));
    assert_eq!(repair, format!("mlxk convert {} {made} --repair-tokenizer", text(&source)));
    run(&hub, &["convert", text(&source), text(&target), "--repair-tokenizer"]).ok();
    assert_eq!(codes(&hub, &target), Vec::<String>::new());
    // What transformers and mlx-lm make of it with `fix_mistral_regex`.
    assert_eq!(pieces(&target), ["foo", "Bar", "\u{120}", "1", "2", "3", "4"]);
    assert_eq!(tree(&source), before);
    let mut after = tree(&target);
    after.remove(".mlxk_workspace.json").expect("managed");
    let changed: Vec<_> = after.iter().filter(|(name, hash)| before[*name] != **hash).collect();
    assert!(changed.len() == 1 && changed[0].0 == "tokenizer.json", "{changed:?}");
    // A second repair finds nothing to do.
    let again = root.join("again");
    run(&hub, &["convert", text(&target), text(&again), "--repair-tokenizer"]).ok();
    assert_eq!(tree(&again)["tokenizer.json"], after["tokenizer.json"]);
}
