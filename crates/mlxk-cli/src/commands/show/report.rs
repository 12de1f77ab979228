//! Gathers what there is to say about a model, from as many of its files as can be read.

use std::collections::BTreeMap;

use mlx_lm::config::ModelConfig;
use mlx_lm::core::io::{Checkpoint, SafetensorsFile};
use mlx_lm::core::{self, Dtype, QuantizationConfig};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::StoredTensor;
use mlx_lm::tokenizer::Tokenizer;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::describe::{Description, ModelObject, managed};
use crate::detect::context_length;
use crate::error::{CommandError, Kind};
use crate::health::{Finding, HealthReport};
use crate::output::Bytes;
use crate::resolve::Resolved;
use crate::verdicts::Verdicts;

/// `data` of the envelope; field names are mlx-knife's where it has them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "show")]
pub(crate) struct Report {
    pub(super) model: ModelObject,
    pub(super) workspace_metadata: Option<Value>,
    pub(super) metadata: Metadata,
    pub(super) weights: Option<Weights>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tensors: Option<Vec<TensorEntry>>,
    pub(super) files: Vec<FileEntry>,
    pub(super) config: Option<Value>,
    /// Why it does not run here.
    pub(super) problems: Vec<String>,
    /// All that was found in its files, with the commands that mend it.
    pub(super) findings: Vec<Finding>,
    /// Whether the present content was taken for the clean state, as was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) hash_updated: bool,
    /// How the weights are packed, in words.
    pub(super) quantization: Option<String>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Metadata {
    pub(super) model_type: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) quantization: Option<String>,
    pub(super) context_length: Option<u64>,
    pub(super) vocab_size: Option<u64>,
    pub(super) hidden_size: Option<u64>,
    pub(super) num_attention_heads: Option<u64>,
    pub(super) num_key_value_heads: Option<u64>,
    pub(super) num_hidden_layers: Option<u64>,
    pub(super) dtype: Option<&'static str>,
    pub(super) n_parameters: Option<u64>,
    pub(super) bits_per_weight: Option<f64>,
    pub(super) eos_token_ids: Vec<u32>,
    pub(super) eos_tokens: Vec<String>,
    pub(super) chat_template: bool,
    pub(super) thinking: Option<Markers>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Markers {
    pub(super) start: String,
    pub(super) end: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Weights {
    pub(super) files: usize,
    pub(super) tensors: usize,
    pub(super) total_bytes: u64,
    pub(super) index_disagreements: Vec<String>,
}

/// A tensor and its way into the model; nothing is known of that for types that do not run here.
#[derive(Serialize, JsonSchema)]
pub(super) struct TensorEntry {
    name: String,
    shape: Vec<i32>,
    dtype: &'static str,
    becomes: Option<Vec<String>>,
    rules: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) size: String,
    pub(super) size_bytes: u64,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

impl Report {
    /// Reads the model, as far as it can be read.
    pub(super) fn gather(
        resolved: &Resolved,
        files: &ModelFiles,
        with_config: bool,
        with_tensors: bool,
    ) -> Report {
        let mut broken = Vec::new();
        let raw = files.read_json("config.json").ok().flatten().unwrap_or(Value::Null);
        let config = take(&mut broken, ModelConfig::load(files).map_err(CommandError::from));
        let checkpoint = take(&mut broken, open_weights(files));
        let tokenizer = take(&mut broken, Tokenizer::load(files).map_err(CommandError::from));
        if let Some(template) = tokenizer.as_ref().and_then(Tokenizer::chat_template) {
            take(&mut broken, template.check().map_err(CommandError::from));
        }
        let Description { mut model, health } = describe(resolved, files);
        // Sound or not, what cannot be read does not run.
        if let (Some(first), true) = (broken.first(), model.is_runnable()) {
            model.set_obstacle(first.clone());
        }
        let quantization = config.as_ref().and_then(|config| config.quantization.as_ref());
        let mut metadata = Metadata::of_config(&raw);
        metadata.quantization = quantization.map(|q| format!("{}bit", q.default.bits));
        if let Some(checkpoint) = &checkpoint {
            metadata.add_weights(checkpoint, quantization);
        }
        if let Some(tokenizer) = &tokenizer {
            metadata.add_tokenizer(tokenizer);
        }
        let workspace = match resolved {
            Resolved::Workspace(dir) => managed(dir),
            Resolved::Demo | Resolved::Cached(_) => None,
        };
        let mut problems: Vec<String> = model.reason.iter().cloned().collect();
        for problem in broken {
            // The same in other words, where it is what was found in the files.
            if health.healthy && !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Report {
            model,
            workspace_metadata: workspace.and_then(|sentinel| serde_json::to_value(sentinel).ok()),
            metadata,
            weights: checkpoint.as_ref().map(Weights::new),
            tensors: checkpoint
                .as_ref()
                .filter(|_| with_tensors)
                .map(|checkpoint| TensorEntry::all(checkpoint, config.as_ref())),
            files: files.list().into_iter().map(|name| FileEntry::new(files, name)).collect(),
            config: with_config.then_some(raw),
            quantization: quantization.map(|q| q.default.to_string()),
            problems,
            findings: health.findings,
            hash_updated: false,
        }
    }
}

/// Describes what a name means.
fn describe(resolved: &Resolved, files: &ModelFiles) -> Description {
    // Who asks for one model gets a look at it.
    let fresh = Verdicts::default();
    match resolved {
        Resolved::Workspace(dir) => Description::workspace(dir, None, &fresh),
        Resolved::Cached(cached) => {
            Description::cached(&cached.model, Some(&cached.snapshot), &fresh)
        }
        Resolved::Demo => {
            let mut model = ModelObject::of_files(files.name().to_owned(), files);
            let names = files.list();
            let bytes = names.iter().filter_map(|name| files.embedded_bytes(name));
            model.size_bytes = bytes.map(|bytes| bytes.len() as u64).sum();
            Description { model, health: HealthReport { healthy: true, findings: Vec::new() } }
        }
    }
}

/// Notes what makes a model unsound; that it is not supported does not, and is told elsewhere.
fn take<T>(problems: &mut Vec<String>, result: Result<T, CommandError>) -> Option<T> {
    match result {
        Ok(value) => return Some(value),
        Err(error) if error.kind == Kind::Unsupported => {}
        Err(error) => problems.push(error.to_string()),
    }
    None
}

impl Metadata {
    /// Takes what the configuration says, at its top level or for the text part.
    fn of_config(raw: &Value) -> Self {
        let get = |name: &str| {
            [raw, &raw["text_config"]]
                .into_iter()
                .map(|object| &object[name])
                .find(|v| !v.is_null())
        };
        let number = |name: &str| get(name).and_then(Value::as_u64);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        Metadata {
            model_type: text(raw.get("model_type")),
            architecture: text(raw["architectures"].get(0)),
            context_length: context_length(raw),
            vocab_size: number("vocab_size"),
            hidden_size: number("hidden_size"),
            num_attention_heads: number("num_attention_heads"),
            num_key_value_heads: number("num_key_value_heads"),
            num_hidden_layers: number("num_hidden_layers"),
            ..Metadata::default()
        }
    }

    fn add_weights(&mut self, checkpoint: &Checkpoint, quantization: Option<&QuantizationConfig>) {
        let mut bytes_by_dtype: BTreeMap<&str, usize> = BTreeMap::new();
        let mut n_parameters = 0;
        for (name, _, info) in checkpoint.tensors() {
            if info.dtype.is_floating() {
                *bytes_by_dtype.entry(info.dtype.name()).or_default() += info.range.len();
            }
            let elements: u64 = info.shape.iter().map(|&n| n as u64).product();
            let path = name.rsplit_once('.');
            let packed =
                path.filter(|(path, _)| checkpoint.get(&format!("{path}.scales")).is_some());
            n_parameters += match packed {
                None => elements,
                Some((path, "weight")) if info.dtype == Dtype::Uint32 => {
                    let bits = quantization.and_then(|q| q.of(path)).map_or(32, |q| q.bits);
                    elements * 32 / bits.max(1) as u64
                }
                Some((_, "scales" | "biases")) => 0,
                Some(_) => elements,
            };
        }
        let most = bytes_by_dtype.into_iter().max_by_key(|(_, bytes)| *bytes);
        self.dtype = most.map(|(name, _)| name);
        self.n_parameters = Some(n_parameters);
        if n_parameters > 0 {
            self.bits_per_weight =
                Some(checkpoint.total_bytes() as f64 * 8.0 / n_parameters as f64);
        }
    }

    fn add_tokenizer(&mut self, tokenizer: &Tokenizer) {
        self.eos_token_ids = tokenizer.eos_token_ids().iter().copied().collect();
        let token = |id: &u32| tokenizer.id_to_token(*id).unwrap_or_default();
        self.eos_tokens = self.eos_token_ids.iter().map(token).collect();
        self.chat_template = tokenizer.chat_template().is_some();
        self.thinking = tokenizer.thinking().map(|thinking| Markers {
            start: thinking.start().to_owned(),
            end: thinking.end().to_owned(),
        });
    }
}

impl Weights {
    fn new(checkpoint: &Checkpoint) -> Self {
        Weights {
            files: checkpoint.files().len(),
            tensors: checkpoint.len(),
            total_bytes: checkpoint.total_bytes(),
            index_disagreements: checkpoint.report().iter().map(ToString::to_string).collect(),
        }
    }
}

impl TensorEntry {
    fn all(checkpoint: &Checkpoint, config: Option<&ModelConfig>) -> Vec<TensorEntry> {
        let known = config.and_then(|config| mlx_lm::load::tensors(checkpoint, config).ok());
        if let Some(tensors) = known {
            let entry = |tensor: StoredTensor| TensorEntry {
                name: tensor.name,
                shape: tensor.shape,
                dtype: tensor.dtype.name(),
                becomes: Some(tensor.becomes),
                rules: tensor.rules,
            };
            return tensors.into_iter().map(entry).collect();
        }
        let mut tensors: Vec<TensorEntry> = checkpoint
            .tensors()
            .map(|(name, _, info)| TensorEntry {
                name: name.to_owned(),
                shape: info.shape.clone(),
                dtype: info.dtype.name(),
                becomes: None,
                rules: Vec::new(),
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }

    /// Returns the tensor as a line, and the rules below it.
    pub(super) fn line(&self) -> String {
        let TensorEntry { name, shape, dtype, becomes, rules } = self;
        let mut line = format!("{name}  {shape:?}  {dtype}");
        match becomes.as_deref() {
            Some([]) => line += "  left out",
            Some([same]) if same == name => {}
            Some(names) => line += &format!("  -> {}", names.join(", ")),
            None => {}
        }
        for rule in rules {
            line += &format!("\n      {rule}");
        }
        line
    }
}

impl FileEntry {
    fn new(files: &ModelFiles, name: String) -> Self {
        let size_bytes = match files.path(&name) {
            Some(path) => path.metadata().map_or(0, |metadata| metadata.len()),
            None => files.embedded_bytes(&name).map_or(0, |bytes| bytes.len() as u64),
        };
        FileEntry { kind: file_kind(&name), size: Bytes(size_bytes).to_string(), size_bytes, name }
    }
}

fn file_kind(name: &str) -> &'static str {
    const WEIGHTS: [&str; 6] = [".safetensors", ".gguf", ".npz", ".bin", ".pt", ".pth"];
    const TOKENIZER: [&str; 8] = [
        "tokenizer",
        "vocab.",
        "merges.",
        "special_tokens_map",
        "added_tokens",
        "chat_template",
        "tekken",
        "spiece",
    ];
    let base = name.rsplit('/').next().unwrap_or(name);
    if WEIGHTS.iter().any(|suffix| base.ends_with(suffix)) {
        "weights"
    } else if TOKENIZER.iter().any(|prefix| name.starts_with(prefix)) {
        "tokenizer"
    } else if base.to_lowercase().starts_with("readme") {
        "readme"
    } else if base.ends_with(".json") {
        "config"
    } else {
        "other"
    }
}

/// Opens the weight files, which checks their headers.
fn open_weights(files: &ModelFiles) -> Result<Checkpoint, CommandError> {
    if let Some(root) = files.root() {
        return Ok(Checkpoint::open_dir(root)?);
    }
    let names = files.list();
    let opened = names.iter().filter(|name| name.ends_with(".safetensors")).filter_map(|name| {
        files
            .embedded_bytes(name)
            .map(|bytes| SafetensorsFile::from_static(files.describe(name), bytes))
    });
    Ok(Checkpoint::from_files(opened.collect::<core::Result<_>>()?)?)
}
