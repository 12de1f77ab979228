//! What a model is, by its files and its configuration: framework, type, capabilities, and whether
//! it runs here.
//!
//! The rules give what users of mlx-knife expect, but never look at a repository's name: whoever
//! renames a model does not change it. Where the name was mlx-knife's only sign, another one stands
//! in for it: the library and task in the model card, a pooling layer's files, the number of tokens
//! and layers of a speech model.

mod card;

use mlx_lm::config::ModelConfig;
use mlx_lm::core::io::SafetensorsFile;
use mlx_lm::files::ModelFiles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use card::Card;

/// Who makes files like these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Framework {
    #[serde(rename = "MLX")]
    Mlx,
    #[serde(rename = "GGUF")]
    Gguf,
    PyTorch,
    Unknown,
}

impl Framework {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Framework::Mlx => "MLX",
            Framework::Gguf => "GGUF",
            Framework::PyTorch => "PyTorch",
            Framework::Unknown => "Unknown",
        }
    }
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModelKind {
    Chat,
    Base,
    Embedding,
    Audio,
}

impl ModelKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ModelKind::Chat => "chat",
            ModelKind::Base => "base",
            ModelKind::Embedding => "embedding",
            ModelKind::Audio => "audio",
        }
    }
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Capability {
    TextGeneration,
    Chat,
    Embeddings,
    Vision,
    Audio,
    AudioTranslateEn,
}

impl Capability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Capability::TextGeneration => "text-generation",
            Capability::Chat => "chat",
            Capability::Embeddings => "embeddings",
            Capability::Vision => "vision",
            Capability::Audio => "audio",
            Capability::AudioTranslateEn => "audio-translate-en",
        }
    }
}

/// What was found out of a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Detected {
    pub(crate) framework: Framework,
    pub(crate) kind: ModelKind,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) context_length: Option<u64>,
    /// `quantization` of the configuration.
    pub(crate) quantization: Option<Value>,
    /// Why it does not run here, sound as it may be.
    pub(crate) obstacle: Option<String>,
}

/// Types whose models see, whatever else their configuration says.
const VISION_TYPES: [&str; 9] = [
    "llava",
    "llava_next",
    "pixtral",
    "qwen2_vl",
    "phi3_v",
    "mllama",
    "paligemma",
    "idefics",
    "smolvlm",
];

/// Whether a configuration is that of a model that sees.
pub(crate) fn is_vision(config: &Value) -> bool {
    let vision = config.get("vision_config").and_then(Value::as_object);
    let model_type = config.get("model_type").and_then(Value::as_str);
    vision.is_some_and(|vision| !vision.is_empty())
        || model_type.is_some_and(|name| VISION_TYPES.contains(&name))
        || config.get("image_processor").is_some()
}

/// Parts of the types of models that turn speech into text.
const SPEECH_TYPES: [&str; 3] = ["whisper", "vibevoice", "voxtral"];
/// Parts of the types of models that hear.
const HEARING_TYPES: [&str; 5] = ["gemma3n", "voxtral", "whisper", "vibevoice", "audio"];
/// Types of encoders, which have no other use than embeddings.
const ENCODER_TYPES: [&str; 4] = ["bert", "xlm-roberta", "modernbert", "nomic_bert"];
/// Files of what stands behind an encoder to pool its states.
const POOLING_FILES: [&str; 3] =
    ["modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"];
/// Tasks in a model card that are embeddings.
const EMBEDDING_TASKS: [&str; 3] =
    ["sentence-similarity", "feature-extraction", "sentence-transformers"];
/// The vocabulary of speech models that know English only; those of many languages have more.
const ENGLISH_SPEECH_VOCABULARY: u64 = 51_864;

/// Finds out what a model is.
pub(crate) fn detect(files: &ModelFiles) -> Detected {
    let config = files.read_json("config.json").ok().flatten().unwrap_or(Value::Null);
    let evidence = Evidence { names: files.list(), card: Card::read(files), config, files };
    let kind = evidence.kind();
    let capabilities = evidence.capabilities(kind);
    Detected {
        framework: evidence.framework(),
        kind,
        capabilities,
        context_length: context_length(&evidence.config),
        quantization: evidence.config.get("quantization").filter(|v| !v.is_null()).cloned(),
        obstacle: evidence.obstacle(kind),
    }
}

/// Returns the context window that a configuration states, for the whole or the text part.
pub(crate) fn context_length(config: &Value) -> Option<u64> {
    const NAMES: [&str; 5] = [
        "max_position_embeddings",
        "n_positions",
        "context_length",
        "max_sequence_length",
        "seq_len",
    ];
    let number = |config: &Value| NAMES.iter().find_map(|name| config.get(*name)?.as_u64());
    number(config).or_else(|| number(config.get("text_config")?)).filter(|&n| n > 0)
}

struct Evidence<'a> {
    files: &'a ModelFiles,
    names: Vec<String>,
    config: Value,
    card: Card,
}

impl Evidence<'_> {
    fn model_type(&self) -> &str {
        self.config.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    fn has_suffix(&self, suffix: &str) -> bool {
        self.names.iter().any(|name| name.ends_with(suffix))
    }

    fn json(&self, name: &str) -> Option<Value> {
        self.files.read_json(name).ok().flatten()
    }

    fn framework(&self) -> Framework {
        let says_mlx = self.config.get("quantization").is_some_and(|v| !v.is_null())
            || self.card.library.as_deref() == Some("mlx")
            || self.card.has_tag("mlx");
        if says_mlx || self.has_suffix(".npz") || self.is_saved_by_mlx() {
            Framework::Mlx
        } else if self.has_suffix(".gguf") {
            Framework::Gguf
        } else if self.has_suffix(".safetensors") || self.has_pickle() {
            Framework::PyTorch
        } else {
            Framework::Unknown
        }
    }

    /// Whether the first weight file says that MLX wrote it.
    fn is_saved_by_mlx(&self) -> bool {
        let name = self.names.iter().find(|name| name.ends_with(".safetensors"));
        let path = name.and_then(|name| self.files.path(name));
        let file = path.and_then(|path| SafetensorsFile::open(path).ok());
        file.is_some_and(|file| file.metadata().get("format").is_some_and(|format| format == "mlx"))
    }

    fn has_pickle(&self) -> bool {
        let is_pickle = |name: &String| name.starts_with("pytorch_model") && name.ends_with(".bin");
        self.names.iter().any(is_pickle)
    }

    fn kind(&self) -> ModelKind {
        let model_type = self.model_type();
        if self.is_embedder() {
            ModelKind::Embedding
        } else if model_type == "chat" || VISION_TYPES.contains(&model_type) {
            ModelKind::Chat
        } else if SPEECH_TYPES.iter().any(|part| model_type.contains(part)) {
            ModelKind::Audio
        } else if self.has_chat_template() {
            ModelKind::Chat
        } else {
            ModelKind::Base
        }
    }

    fn is_embedder(&self) -> bool {
        ENCODER_TYPES.contains(&self.model_type())
            || POOLING_FILES.iter().any(|file| self.names.iter().any(|name| name == file))
            || self.card.task.as_deref().is_some_and(|task| EMBEDDING_TASKS.contains(&task))
            || self.card.has_tag("sentence-transformers")
    }

    fn has_chat_template(&self) -> bool {
        const FILES: [&str; 2] = ["chat_template.json", "chat_template.jinja"];
        FILES.iter().any(|file| self.names.iter().any(|name| name == file)) || {
            let config = self.json("tokenizer_config.json").unwrap_or(Value::Null);
            match config.get("chat_template") {
                Some(Value::String(template)) => !template.is_empty(),
                // Several by name.
                Some(Value::Array(templates)) => !templates.is_empty(),
                _ => false,
            }
        }
    }

    fn capabilities(&self, kind: ModelKind) -> Vec<Capability> {
        match kind {
            ModelKind::Embedding => vec![Capability::Embeddings],
            ModelKind::Audio if self.translates() => {
                vec![Capability::Audio, Capability::AudioTranslateEn]
            }
            ModelKind::Audio => vec![Capability::Audio],
            ModelKind::Chat | ModelKind::Base => {
                let all = [
                    (true, Capability::TextGeneration),
                    (kind == ModelKind::Chat, Capability::Chat),
                    (self.sees(), Capability::Vision),
                    (self.hears(), Capability::Audio),
                ];
                all.into_iter().filter_map(|(has, capability)| has.then_some(capability)).collect()
            }
        }
    }

    fn has_part(&self, name: &str) -> bool {
        self.config.get(name).and_then(Value::as_object).is_some_and(|part| !part.is_empty())
    }

    fn sees(&self) -> bool {
        is_vision(&self.config) || self.has_image_processor()
    }

    /// Whether there is a processor's file that is about images, and not about video.
    fn has_image_processor(&self) -> bool {
        const FILES: [&str; 3] =
            ["preprocessor_config.json", "processor_config.json", "image_processor_config.json"];
        if self.names.iter().any(|name| name == "video_preprocessor_config.json") {
            return false;
        }
        let embedded = self.config.get("preprocessor_config").cloned();
        let processors = FILES.iter().filter_map(|file| self.json(file)).chain(embedded);
        processors.into_iter().any(|processor| {
            let says = |key: &str| processor.get(key).is_some_and(|v| !v.is_null());
            let names_video = processor.to_string().contains("AutoVideoProcessor");
            !names_video
                && !says("temporal_patch_size")
                && ["image_processor_type", "image_processor", "image_mean", "image_seq_length"]
                    .iter()
                    .any(|key| says(key))
        })
    }

    fn hears(&self) -> bool {
        self.has_part("audio_config")
            || HEARING_TYPES.iter().any(|part| self.model_type().contains(part))
            || self.json("preprocessor_config.json").is_some_and(|processor| {
                let extractor = processor.get("feature_extractor_type").and_then(Value::as_str);
                extractor.is_some_and(|name| name.to_lowercase().contains("whisper"))
            })
    }

    /// Whether a speech model was trained to translate into English: those that know English only
    /// have nothing to translate, and those whose decoder was cut learnt it no more.
    fn translates(&self) -> bool {
        let number = |names: [&str; 2]| {
            names.iter().find_map(|name| self.config.get(*name).and_then(Value::as_u64))
        };
        let knows_english_only =
            number(["vocab_size", "n_vocab"]) == Some(ENGLISH_SPEECH_VOCABULARY);
        let encoder = number(["encoder_layers", "n_audio_layer"]);
        let decoder = number(["decoder_layers", "n_text_layer"]);
        let is_cut = matches!((encoder, decoder), (Some(e), Some(d)) if d < e);
        self.model_type() == "whisper" && !knows_english_only && !is_cut
    }

    /// Says why the model does not run here.
    fn obstacle(&self, kind: ModelKind) -> Option<String> {
        if !self.has_suffix(".safetensors") {
            let what = if self.has_suffix(".gguf") {
                "its weights are in GGUF, which does not run here"
            } else if self.has_suffix(".npz") {
                "its weights are in an npz archive, which does not run here"
            } else if self.has_pickle() || self.has_suffix(".bin") {
                "its weights are Python pickles, which are never opened; use a checkpoint in safetensors"
            } else {
                "it has no weights"
            };
            return Some(what.to_owned());
        }
        let model_type = self.model_type();
        match kind {
            ModelKind::Audio => {
                return Some(format!("speech models ({model_type}) do not run here"));
            }
            ModelKind::Embedding => return Some("embeddings are not computed here".to_owned()),
            ModelKind::Chat | ModelKind::Base => {}
        }
        match ModelConfig::from_json(self.config.clone()) {
            Err(error) => Some(error.to_string()),
            Ok(config) if !mlx_lm::models::model_types().any(|name| name == config.model_type) => {
                Some(format!("model_type {:?} is not supported", config.model_type))
            }
            Ok(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
