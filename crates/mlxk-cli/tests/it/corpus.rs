//! Models made in place, sound and broken in every known way, with what is to be found in each.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::tokenizer;

mod defects;

use defects::{Edit, anywhere, sharded, special, talking};

pub(crate) const INDEX: &str = "model.safetensors.index.json";
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
        crate::support::claim_cache(hub);
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
    type Make = fn() -> Model;
    let bases: [(&str, Make); 6] = [
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
