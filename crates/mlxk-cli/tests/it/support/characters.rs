//! A tokenizer for models that only have to answer anything. `cargo xtask test` has this file, too.

use serde_json::{Value, json};

/// A tokenizer whose tokens are the characters of printable ASCII.
pub(crate) fn tokenizer() -> Value {
    let characters = ('!'..='~').chain(['Ġ', 'Ċ']);
    let vocab: serde_json::Map<String, Value> =
        characters.enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocab,
            "merges": []
        }
    })
}
