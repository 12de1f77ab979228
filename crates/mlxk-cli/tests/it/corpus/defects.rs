//! The tables of defects.

use serde_json::{Value, json};

use super::{Content, INDEX, Model, gguf, npz, odd, safetensors, shard};

/// What a defect does to a sound model.
pub(super) type Edit = fn(&mut Model);

type Make = fn() -> Model;

/// Name, what it does, and the codes of what is then found.
type Defect = (&'static str, Edit, &'static [&'static str]);

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";

/// Defects that any model may have.
pub(super) fn anywhere() -> Vec<Defect> {
    vec![
        ("sound", |_| {}, &[]),
        ("readme", |m| m.put("README.md", ""), &[]),
        ("hidden-partial", |m| m.put(".cache/x.tmp", ""), &[]),
        ("no-config", |m| m.remove("config.json"), &["config_missing"]),
        ("config-cut", |m| m.put("config.json", "{\"model_type\": \"ll"), &["config_invalid"]),
        ("config-list", |m| m.put("config.json", "[1]"), &["config_invalid"]),
        ("config-empty", |m| m.put("config.json", "{}"), &["config_invalid"]),
        ("config-no-content", |m| m.put("config.json", ""), &["config_invalid"]),
        ("config-not-utf8", |m| m.put("config.json", [0x7b, 0xff]), &["config_invalid"]),
        ("config-pointer", |m| m.put("config.json", POINTER), &["lfs_pointer"]),
        ("config-dangling", |m| dangle(m, "config.json"), &["file_dangling"]),
        ("eos-null", |m| set(m, "eos_token_id", Value::Null), &["eos_token_null"]),
        ("video-null", |m| set(m, "video_processor", Value::Null), &["video_processor_null"]),
        (
            "generation-broken",
            |m| m.put("generation_config.json", "{"),
            &["generation_config_invalid"],
        ),
        (
            "generation-eos",
            |m| m.put("generation_config.json", "{\"eos_token_id\": null}"),
            &["eos_token_null"],
        ),
        ("weights-empty", |m| first(m, |_| Vec::new()), &["weights_empty"]),
        ("weights-cut-data", |m| first(m, |b| b[..b.len() - 1].to_vec()), &["weights_truncated"]),
        ("weights-cut-header", |m| first(m, |b| b[..40].to_vec()), &["weights_truncated"]),
        ("weights-cut-length", |m| first(m, |b| b[..5].to_vec()), &["weights_truncated"]),
        ("weights-zeros", |m| first(m, |_| vec![0; 500]), &["weights_corrupt"]),
        ("weights-longer", |m| first(m, |b| [b, &[0]].concat()), &["weights_corrupt"]),
        ("weights-page", |m| first(m, |_| b"<!DOCTYPE html><html>".to_vec()), &["weights_corrupt"]),
        ("weights-zip", |m| first(m, |_| b"PK\x03\x04 and so on".to_vec()), &["weights_corrupt"]),
        ("weights-gap", |m| first(m, |_| odd("U8", json!([4]), 4, 8, 8)), &["weights_corrupt"]),
        ("weights-size", |m| first(m, |_| odd("F32", json!([4]), 0, 4, 4)), &["weights_corrupt"]),
        ("weights-order", |m| first(m, |_| odd("U8", json!([4]), 4, 0, 4)), &["weights_corrupt"]),
        (
            "weights-negative",
            |m| first(m, |_| odd("U8", json!([-4]), 0, 4, 4)),
            &["weights_corrupt"],
        ),
        (
            "weights-overflow",
            |m| first(m, |_| odd("F32", json!([2147483647, 2147483647, 9]), 0, 4, 4)),
            &["weights_corrupt"],
        ),
        ("weights-dtype", |m| first(m, |_| odd("Q9", json!([4]), 0, 4, 4)), &["weights_corrupt"]),
        ("weights-pointer", |m| first(m, |_| POINTER.into()), &["lfs_pointer"]),
        ("weights-dangling", |m| dangle(m, &m.first_weights()), &["file_dangling"]),
        ("no-metadata", |m| without_metadata(m), &["metadata_missing"]),
        ("partial", |m| m.put("extra.safetensors.incomplete", "x"), &["partial_file"]),
        ("partial-tmp", |m| m.put("vocab.txt.tmp", "x"), &["partial_file"]),
        ("leftover", |m| m.put("config.json.partial", "x"), &["partial_leftover"]),
        ("unfinished", |m| m.unfinished = true, &["blob_incomplete"]),
        ("no-weights", Model::without_weights, &["weights_missing"]),
        (
            "nothing-came",
            |m| {
                m.without_weights();
                m.unfinished = true
            },
            &["download_incomplete"],
        ),
        (
            "npz",
            |m| {
                m.without_weights();
                m.put("weights.npz", npz())
            },
            &["weights_npz"],
        ),
        (
            "npz-garbage",
            |m| {
                m.without_weights();
                m.put("weights.npz", "x")
            },
            &["weights_corrupt", "weights_npz"],
        ),
        (
            "pickle",
            |m| {
                m.without_weights();
                m.put("pytorch_model.bin", "x")
            },
            &["weights_pickle"],
        ),
        (
            "pickle-empty",
            |m| {
                m.without_weights();
                m.put("pytorch_model.bin", "")
            },
            &["weights_empty", "weights_pickle"],
        ),
        (
            "pickle-shards",
            |m| {
                m.without_weights();
                m.put("pytorch_model-00001-of-00002.bin", "x")
            },
            &["shard_missing", "weights_pickle"],
        ),
        (
            "pickle-index",
            |m| {
                m.without_weights();
                m.put("pytorch_model-00001-of-00002.bin", "x");
                m.json(
                    "pytorch_model.bin.index.json",
                    &json!({"weight_map": {"a": "pytorch_model-00002-of-00002.bin"}}),
                );
            },
            &["shard_missing", "weights_pickle"],
        ),
        (
            "gguf",
            |m| {
                m.without_weights();
                m.put("model-q4.gguf", gguf())
            },
            &[],
        ),
        (
            "gguf-garbage",
            |m| {
                m.without_weights();
                m.put("model-q4.gguf", "no magic at all")
            },
            &["gguf_corrupt"],
        ),
        (
            "gguf-split",
            |m| {
                m.without_weights();
                m.put("m-00001-of-00002.gguf", gguf())
            },
            &["shard_missing"],
        ),
        (
            "gguf-alone",
            |m| {
                m.files.clear();
                m.put("model-q4.gguf", gguf())
            },
            &[],
        ),
    ]
}

/// Defects of a model with a tokenizer and a chat.
pub(super) fn talking() -> Vec<Defect> {
    vec![
        ("no-tokenizer", |m| m.remove("tokenizer.json"), &["tokenizer_missing"]),
        (
            "no-tokenizer-at-all",
            |m| {
                m.remove("tokenizer.json");
                m.remove("tokenizer_config.json")
            },
            &["tokenizer_missing"],
        ),
        (
            "slow-tokenizer",
            |m| {
                m.remove("tokenizer.json");
                m.put("vocab.json", "{}");
                m.put("merges.txt", "")
            },
            &["tokenizer_missing"],
        ),
        (
            "sentencepiece",
            |m| {
                m.remove("tokenizer.json");
                m.put("tokenizer.model", "x")
            },
            &[],
        ),
        ("tokenizer-cut", |m| m.put("tokenizer.json", "{\"model\": {"), &["tokenizer_invalid"]),
        ("tokenizer-no-model", |m| m.put("tokenizer.json", "{}"), &["tokenizer_invalid"]),
        ("tokenizer-empty", |m| m.put("tokenizer.json", ""), &["tokenizer_invalid"]),
        ("tokenizer-pointer", |m| m.put("tokenizer.json", POINTER), &["lfs_pointer"]),
        ("tokenizer-dangling", |m| dangle(m, "tokenizer.json"), &["file_dangling"]),
        (
            "tokenizer-config-cut",
            |m| m.put("tokenizer_config.json", "{"),
            &["tokenizer_config_invalid"],
        ),
        (
            "tokenizer-config-list",
            |m| m.put("tokenizer_config.json", "[]"),
            &["tokenizer_config_invalid"],
        ),
        (
            "special-tokens-cut",
            |m| m.put("special_tokens_map.json", "{"),
            &["tokenizer_config_invalid"],
        ),
        ("added-tokens-list", |m| m.put("added_tokens.json", "[]"), &["tokenizer_config_invalid"]),
        ("template-syntax", |m| template(m, "{% for %}"), &["template_broken"]),
        ("template-raises", |m| template(m, "{{ raise_exception('no') }}"), &["template_broken"]),
        ("template-drops", |m| template(m, "{{ messages[0].content }}"), &["template_broken"]),
        (
            "template-endless",
            |m| {
                template(
                    m,
                    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
                )
            },
            &["template_broken"],
        ),
        ("template-file", |m| m.put("chat_template.jinja", "{% if %}"), &["template_broken"]),
        ("no-template", |m| m.put("tokenizer_config.json", "{}"), &[]),
        (
            "no-template-of-a-chat",
            |m| {
                m.put("tokenizer_config.json", "{}");
                m.edit("tokenizer.json", |t| {
                    t["added_tokens"] =
                        json!([{"id": 96, "content": "<|im_start|>", "special": true}])
                });
            },
            &["template_missing"],
        ),
        ("vision-type-null-stub", |m| set(m, "audio_config", Value::Null), &[]),
    ]
}

/// Defects of one kind of model each.
pub(super) fn special() -> Vec<(&'static str, Make, Edit, &'static [&'static str])> {
    vec![
        ("type-told", || Model::llama(1), |m| drop_key(m, "model_type"), &["model_type_missing"]),
        ("type-untold", Model::whisper, |m| drop_key(m, "model_type"), &["model_type_missing"]),
        ("no-vocab", || Model::llama(1), |m| drop_key(m, "vocab_size"), &["config_unsound"]),
        (
            "small-dtype",
            || Model::llama(1),
            |m| first(m, |_| odd("F4", json!([8]), 0, 4, 4)),
            &["dtype_unsupported"],
        ),
        (
            "adapter-broken",
            || Model::llama(1),
            |m| m.put("adapters.safetensors", vec![0; 9]),
            &["unused_weights_broken"],
        ),
        (
            "adapter",
            || Model::llama(1),
            |m| m.put("adapters.safetensors", safetensors(&["x"], None)),
            &[],
        ),
        (
            "consolidated",
            || Model::llama(2),
            |m| m.put("consolidated.safetensors", safetensors(&["a"], None)),
            &[],
        ),
        (
            "nested",
            || Model::llama(1),
            |m| {
                m.without_weights();
                m.put("unet/x.safetensors", safetensors(&["a"], Some("pt")))
            },
            &["weights_nested"],
        ),
        (
            "nested-cut",
            || Model::llama(1),
            |m| {
                m.without_weights();
                m.put("unet/x.safetensors", b"\x09\0\0\0\0\0\0\0{".to_vec())
            },
            &["weights_nested", "weights_truncated"],
        ),
        (
            "no-preprocessor",
            Model::whisper,
            |m| m.remove("preprocessor_config.json"),
            &["preprocessor_missing"],
        ),
        (
            "preprocessor-cut",
            Model::whisper,
            |m| m.put("preprocessor_config.json", "{"),
            &["processor_invalid"],
        ),
        (
            "no-processor",
            Model::vision,
            |m| m.remove("preprocessor_config.json"),
            &["processor_missing"],
        ),
        (
            "other-processor",
            Model::vision,
            |m| {
                m.remove("preprocessor_config.json");
                m.put("processor_config.json", "{}")
            },
            &[],
        ),
        (
            "processor-list",
            Model::vision,
            |m| m.put("preprocessor_config.json", "[]"),
            &["processor_invalid"],
        ),
        (
            "processor-pointer",
            Model::vision,
            |m| m.put("preprocessor_config.json", POINTER),
            &["lfs_pointer"],
        ),
        (
            "no-merge-size",
            Model::vision,
            |m| drop_key(m, "spatial_merge_size"),
            &["spatial_merge_size_missing"],
        ),
        (
            "video-null-processor",
            Model::vision,
            |m| m.put("processor_config.json", "{\"video_processor\": null}"),
            &["video_processor_null"],
        ),
        ("single-index-stale", || Model::llama(1), |m| stale(m, 2), &["index_stale"]),
        ("unnumbered", || Model::llama(1), |m| unnumbered(m, true), &[]),
        ("unnumbered-missing", || Model::llama(1), |m| unnumbered(m, false), &["shard_missing"]),
        (
            "two-defects",
            || Model::llama(2),
            |m| {
                m.remove("tokenizer.json");
                first(m, |_| vec![0; 9])
            },
            &["tokenizer_missing", "weights_corrupt"],
        ),
    ]
}

/// Defects of a model in several files.
pub(super) fn sharded() -> Vec<Defect> {
    vec![
        ("no-first-shard", |m| m.remove(&m.first_weights()), &["shard_missing"]),
        ("no-last-shard", |m| m.remove(&last(m)), &["shard_missing"]),
        (
            "no-shard-no-index",
            |m| {
                m.remove(&last(m));
                m.remove(INDEX)
            },
            &["shard_missing"],
        ),
        (
            "shard-missing-unfinished",
            |m| {
                m.remove(&last(m));
                m.unfinished = true
            },
            &["shard_missing"],
        ),
        (
            "no-shards",
            |m| m.files.retain(|name, _| !name.ends_with(".safetensors")),
            &["download_incomplete"],
        ),
        ("no-index", |m| m.remove(INDEX), &["index_missing"]),
        ("index-cut", |m| m.put(INDEX, "{\"weight_map\""), &["index_invalid"]),
        ("index-empty-map", |m| m.json(INDEX, &json!({"weight_map": {}})), &["index_invalid"]),
        ("index-no-map", |m| m.json(INDEX, &json!({"metadata": {}})), &["index_invalid"]),
        ("index-no-content", |m| m.put(INDEX, ""), &["index_invalid"]),
        ("index-pointer", |m| m.put(INDEX, POINTER), &["lfs_pointer"]),
        ("index-stale-all", |m| stale(m, 7), &["index_stale"]),
        (
            "index-moved",
            |m| {
                let file = last(m);
                m.edit(INDEX, |i| i["weight_map"]["a"] = file.into())
            },
            &["index_stale"],
        ),
        (
            "index-unlisted",
            |m| {
                m.edit(INDEX, |i| drop(i["weight_map"].as_object_mut().expect("a map").remove("a")))
            },
            &["index_stale"],
        ),
        (
            "index-more",
            |m| {
                let file = last(m);
                m.edit(INDEX, |i| i["weight_map"]["zz"] = file.into())
            },
            &["tensor_missing"],
        ),
        (
            "index-renamed",
            |m| {
                let file = last(m);
                m.edit(INDEX, |i| {
                    let map = i["weight_map"].as_object_mut().expect("a map");
                    map.remove("f");
                    map.insert("zz".into(), file.into());
                });
            },
            &["index_stale"],
        ),
        (
            "index-total",
            |m| m.edit(INDEX, |i| i["metadata"]["total_size"] = 999.into()),
            &["index_total_size"],
        ),
        ("index-no-total", |m| m.edit(INDEX, |i| i["metadata"] = json!({})), &[]),
        ("duplicate", |m| m.put(&last(m), safetensors(&["a"], Some("mlx"))), &["tensor_duplicate"]),
        (
            "two-totals",
            |m| m.put("model-00001-of-00009.safetensors", safetensors(&["q"], Some("mlx"))),
            &["shard_totals"],
        ),
    ]
}

fn last(model: &Model) -> String {
    let mut names = model.files.keys().filter(|name| name.ends_with(".safetensors"));
    names.next_back().expect("weights").clone()
}

fn dangle(model: &mut Model, name: &str) {
    model.files.insert(name.into(), Content::Dangling);
}

fn set(model: &mut Model, key: &str, value: Value) {
    model.edit("config.json", |config| config[key] = value);
}

fn drop_key(model: &mut Model, key: &str) {
    model.edit("config.json", |c| drop(c.as_object_mut().expect("an object").remove(key)));
}

fn first(model: &mut Model, make: fn(&[u8]) -> Vec<u8>) {
    let name = model.first_weights();
    let bytes = make(model.bytes(&name));
    model.put(&name, bytes);
}

fn template(model: &mut Model, source: &str) {
    model.edit("tokenizer_config.json", |config| config["chat_template"] = source.into());
}

fn without_metadata(model: &mut Model) {
    let name = model.first_weights();
    let names: &[&str] = match name.as_str() {
        "weights.safetensors" => &["encoder.w", "decoder.w"],
        "model.safetensors" => &["a", "b", "c", "d", "e", "f"],
        name if name.ends_with("2.safetensors") => &["a", "b", "c"],
        _ => &["a", "b"],
    };
    model.put(&name, safetensors(names, None));
}

/// Leaves the index of the same model before it was converted.
fn stale(model: &mut Model, total: usize) {
    let map: serde_json::Map<String, Value> = ["a", "b", "x"]
        .iter()
        .enumerate()
        .map(|(i, name)| ((*name).into(), shard(i % total + 1, total).into()))
        .collect();
    let map =
        map.into_iter().filter(|(_, file)| !model.files.contains_key(file.as_str().unwrap_or("")));
    let map: serde_json::Map<String, Value> = map.collect();
    model.json(INDEX, &json!({"weight_map": map}));
}

fn unnumbered(model: &mut Model, both: bool) {
    model.without_weights();
    model.put("model-one.safetensors", safetensors(&["a"], Some("mlx")));
    if both {
        model.put("model-two.safetensors", safetensors(&["b"], Some("mlx")));
    }
    let map = json!({"a": "model-one.safetensors", "b": "model-two.safetensors"});
    model.json(INDEX, &json!({ "weight_map": map }));
}
