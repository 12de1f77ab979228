//! Models made in place, sound and broken in every known way, with what is to be found in each.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::tokenizer;

pub(crate) const INDEX: &str = "model.safetensors.index.json";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

/// The files of a model, in memory.
#[derive(Clone)]
pub(crate) struct Model {
    files: BTreeMap<String, Content>,
    /// Whether the cache holds an unfinished blob of it.
    unfinished: bool,
}

#[derive(Clone)]
enum Content {
    Bytes(Vec<u8>),
    /// A link to nowhere.
    Dangling,
}

/// One model of the corpus.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) model: Model,
    /// The codes of its findings, sorted.
    pub(crate) codes: Vec<&'static str>,
    /// Whether it makes sense in the cache, in a workspace.
    pub(crate) cache: bool,
    pub(crate) workspace: bool,
}

/// Makes a safetensors file of bytes, each tensor with four of its own.
pub(crate) fn safetensors(names: &[&str], metadata: Option<&str>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if let Some(format) = metadata {
        header.insert("__metadata__".into(), json!({ "format": format }));
    }
    let mut data = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let (begin, end) = (i * 4, i * 4 + 4);
        let entry = json!({"dtype": "U8", "shape": [4], "data_offsets": [begin, end]});
        header.insert((*name).into(), entry);
        let seed = name.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        data.extend([seed, seed.wrapping_add(1), 3, i as u8]);
    }
    with_header(&json!(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// A safetensors file with one tensor as described.
fn odd(dtype: &str, shape: Value, begin: u64, end: u64, held: usize) -> Vec<u8> {
    let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
    let header = json!({"__metadata__": {"format": "mlx"}, "w": entry});
    with_header(&header.to_string(), &vec![0; held])
}

impl Model {
    /// A small llama, with its weights in so many files.
    pub(crate) fn llama(shards: usize) -> Model {
        let mut model = Model { files: BTreeMap::new(), unfinished: false };
        model.json(
            "config.json",
            &json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
                "vocab_size": 96, "eos_token_id": 1, "num_hidden_layers": 1,
            }),
        );
        model.json("generation_config.json", &json!({"eos_token_id": 1}));
        model.json("tokenizer.json", &tokenizer());
        model.json("tokenizer_config.json", &json!({"chat_template": TEMPLATE, "eos_token": "!"}));
        model.weights(shards);
        model
    }

    fn whisper() -> Model {
        let mut model = Model { files: BTreeMap::new(), unfinished: false };
        model.json(
            "config.json",
            &json!({"model_type": "whisper", "n_mels": 128, "n_vocab": 51865}),
        );
        model.json("preprocessor_config.json", &json!({"feature_size": 128}));
        model.put("weights.safetensors", safetensors(&["encoder.w", "decoder.w"], Some("mlx")));
        model
    }

    fn vision() -> Model {
        let mut model = Model::llama(2);
        model.json(
            "config.json",
            &json!({
                "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
                "text_config": {"model_type": "mistral", "vocab_size": 96, "hidden_size": 32},
                "vision_config": {"hidden_size": 16}, "spatial_merge_size": 2,
            }),
        );
        model.json("preprocessor_config.json", &json!({"image_processor_type": "Pixtral"}));
        model
    }

    fn quantized() -> Model {
        let mut model = Model::llama(1);
        model.edit("config.json", |c| c["quantization"] = json!({"bits": 4, "group_size": 64}));
        model
    }

    fn weights(&mut self, shards: usize) {
        const TENSORS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        if shards == 1 {
            return self.put("model.safetensors", safetensors(&TENSORS, Some("mlx")));
        }
        let mut map = serde_json::Map::new();
        for (i, names) in TENSORS.chunks(TENSORS.len() / shards).enumerate() {
            let file = shard(i + 1, shards);
            map.extend(names.iter().map(|name| ((*name).into(), file.clone().into())));
            self.put(&file, safetensors(names, Some("mlx")));
        }
        self.json(INDEX, &json!({"metadata": {"total_size": 24}, "weight_map": map}));
    }

    pub(crate) fn put(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.insert(name.into(), Content::Bytes(bytes.into()));
    }

    pub(crate) fn json(&mut self, name: &str, value: &Value) {
        self.put(name, serde_json::to_vec_pretty(value).expect("JSON"));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.files.remove(name).expect("a file of the model");
    }

    pub(crate) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(self.bytes(name)).expect("JSON");
        edit(&mut value);
        self.json(name, &value);
    }

    fn bytes(&self, name: &str) -> &[u8] {
        match &self.files[name] {
            Content::Bytes(bytes) => bytes,
            Content::Dangling => panic!("{name} has no content"),
        }
    }

    /// Returns the first of its weight files.
    fn first_weights(&self) -> String {
        self.files.keys().find(|name| name.ends_with(".safetensors")).expect("weights").clone()
    }

    fn without_weights(&mut self) {
        self.files.retain(|name, _| !name.contains("safetensors"));
    }

    pub(crate) fn write(&self, dir: &Path) {
        for (name, content) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            match content {
                Content::Bytes(bytes) => std::fs::write(path, bytes).expect("a file"),
                Content::Dangling => link("nowhere", &path),
            }
        }
    }

    /// Writes it as hub clients lay out a model called `id`; returns the snapshot.
    pub(crate) fn write_cached(&self, hub: &Path, id: &str) -> std::path::PathBuf {
        let dir = hub.join(format!("models--{}", id.replace('/', "--")));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let (blobs, snapshot) = (dir.join("blobs"), dir.join("snapshots").join(commit));
        for dir in [&blobs, &snapshot, &dir.join("refs")] {
            std::fs::create_dir_all(dir).expect("a directory");
        }
        std::fs::write(dir.join("refs/main"), commit).expect("a file");
        for (name, content) in &self.files {
            let blob = match content {
                Content::Bytes(bytes) => {
                    use sha2::Digest as _;
                    let hash = sha2::Sha256::digest(bytes);
                    let blob: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                    std::fs::write(blobs.join(&blob), bytes).expect("a file");
                    blob
                }
                Content::Dangling => "absent".into(),
            };
            let path = snapshot.join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            let up = "../".repeat(2 + name.matches('/').count());
            link(&format!("{up}blobs/{blob}"), &path);
        }
        if self.unfinished {
            std::fs::write(blobs.join("1234.incomplete"), "").expect("a file");
        }
        snapshot
    }
}

#[cfg(unix)]
fn link(target: &str, path: &Path) {
    std::os::unix::fs::symlink(target, path).expect("a link");
}

#[cfg(not(unix))]
fn link(_: &str, _: &Path) {
    unreachable!("the corpus is made on systems with links");
}

fn shard(number: usize, total: usize) -> String {
    format!("model-{number:05}-of-{total:05}.safetensors")
}

type Edit = fn(&mut Model);

/// Defects that any model may have.
fn anywhere() -> Vec<(&'static str, Edit, &'static [&'static str])> {
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
fn talking() -> Vec<(&'static str, Edit, &'static [&'static str])> {
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
fn special() -> Vec<(&'static str, fn() -> Model, Edit, &'static [&'static str])> {
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
fn sharded() -> Vec<(&'static str, Edit, &'static [&'static str])> {
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

/// An archive with the arrays `w` and `v`, of four bytes each.
pub(crate) fn npz() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x.npz");
    let data = |bytes: Vec<u8>| mlx_lm::core::io::TensorData {
        dtype: mlx_lm::core::Dtype::Uint8,
        shape: vec![2, 2],
        bytes: bytes.into(),
    };
    let arrays = [("w", data(vec![1, 2, 3, 4])), ("v", data(vec![5, 6, 7, 8]))];
    mlx_lm::core::io::write_npz(&path, arrays, mlx_lm::core::io::NpzMethod::Stored).expect("npz");
    std::fs::read(path).expect("npz")
}

/// A GGUF file without tensors.
fn gguf() -> Vec<u8> {
    [b"GGUF".as_slice(), &3u32.to_le_bytes(), &0u64.to_le_bytes(), &0u64.to_le_bytes()].concat()
}

/// Returns all models.
pub(crate) fn cases() -> Vec<Case> {
    let bases: [(&str, fn() -> Model); 6] = [
        ("single", || Model::llama(1)),
        ("two", || Model::llama(2)),
        ("three", || Model::llama(3)),
        ("whisper", Model::whisper),
        ("vision", Model::vision),
        ("packed", Model::quantized),
    ];
    let mut cases = Vec::new();
    for (base, make) in bases {
        let mut defects = anywhere();
        if base != "whisper" {
            defects.extend(talking());
        }
        if ["two", "three", "vision"].contains(&base) {
            defects.extend(sharded());
        }
        for (name, edit, codes) in defects {
            // A model that needs a processor is not told by a GGUF file.
            cases.push(case(format!("{base}-{name}"), make(), edit, codes));
        }
    }
    for (name, make, edit, codes) in special() {
        cases.push(case(name.to_owned(), make(), edit, codes));
    }
    cases
}

fn case(name: String, mut model: Model, edit: Edit, codes: &[&'static str]) -> Case {
    edit(&mut model);
    let mut codes = codes.to_vec();
    codes.sort_unstable();
    // Only the cache has blobs.
    Case { name, codes, cache: true, workspace: !model.unfinished, model }
}
