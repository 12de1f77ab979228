//! `config.json`: what every model has in common.
//!
//! Families read their own settings from the raw object; here is what loading, generation and the
//! program need of any model. Reading is tolerant where mlx-lm is: unknown keys are ignored, bare
//! `NaN` and `Infinity` and mlx-lm's tagged floats are understood, and `generation_config.json`
//! may override the end-of-sequence tokens.

use std::collections::HashMap;

use mlx_core::{Dtype, QuantMode, Quantization, QuantizationConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;
use crate::formats::ForeignFormat;

/// What a model's configuration says about any model.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The architecture, such as `qwen3`.
    pub model_type: String,
    /// Tokens that prompt and answer may have together, where the configuration says so.
    pub context_length: Option<usize>,
    /// Number of tokens that the model knows.
    pub vocab_size: usize,
    /// How the weights are packed, where they are as MLX has them.
    pub quantization: Option<QuantizationConfig>,
    /// The format of weights that another program quantized.
    pub foreign: Option<ForeignFormat>,
    /// End-of-sequence tokens of configuration and generation configuration.
    pub eos_token_ids: Vec<u32>,
    /// The whole configuration.
    pub raw: Value,
}

impl ModelConfig {
    /// Reads `config.json` and, where they are, `generation_config.json` and ModelOpt's
    /// `hf_quant_config.json`.
    ///
    /// # Errors
    /// When there is no configuration, it is no JSON object, or it asks for code of its own.
    pub fn load(files: &ModelFiles) -> Result<ModelConfig> {
        let Some(mut raw) = files.read_json("config.json")? else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{}: no config.json", files.name()),
            )
            .with_hint("name the directory that holds the model's config.json"));
        };
        let file = files.describe("config.json");
        if raw.get("quantization_config").is_none()
            && raw.get("quantization").is_none()
            && let Some(settings) = files.read_json("hf_quant_config.json")?
            && let Some(object) = raw.as_object_mut()
        {
            object.insert("quantization_config".to_owned(), settings);
        }
        let mut config = ModelConfig::from_json(raw).map_err(|e| e.context(&file))?;
        // Broken generation settings are no reason not to run the model; mlx-lm ignores them too.
        if let Ok(Some(generation)) = files.read_json("generation_config.json") {
            let ids = token_ids(generation.get("eos_token_id"));
            if !ids.is_empty() {
                config.eos_token_ids = ids;
            }
        }
        Ok(config)
    }

    /// Reads a configuration object.
    ///
    /// # Errors
    /// When it is no object, has no `model_type`, or asks for code of its own.
    pub fn from_json(raw: Value) -> Result<ModelConfig> {
        let format = |message: &str| Error::new(ErrorKind::Format, message.to_owned());
        let object = raw.as_object().ok_or_else(|| format("not a JSON object"))?;
        refuse_code(object)?;
        let model_type = object
            .get("model_type")
            .and_then(Value::as_str)
            .ok_or_else(|| format("\"model_type\" is missing"))?
            .to_owned();
        let vocab_size = lookup(object, &["vocab_size"])
            .or_else(|| default_vocab_size(&model_type).filter(|_| !has(object, "vocab_size")))
            .ok_or_else(|| format("\"vocab_size\" is missing or is no positive number"))?;
        const CONTEXT: [&str; 5] = [
            "max_position_embeddings",
            "n_positions",
            "context_length",
            "max_sequence_length",
            "seq_len",
        ];
        let text_config = object.get("text_config").and_then(Value::as_object);
        let eos = object.get("eos_token_id").filter(|v| !v.is_null());
        let eos = eos.or_else(|| text_config.and_then(|t| t.get("eos_token_id")));
        let foreign = ForeignFormat::detect(&raw)?;
        Ok(ModelConfig {
            model_type,
            context_length: lookup(object, &CONTEXT),
            vocab_size,
            quantization: quantization(object, text_config)?,
            foreign,
            eos_token_ids: token_ids(eos),
            raw,
        })
    }

    /// Returns the floating type that the configuration names.
    pub(crate) fn dtype(&self) -> Option<Dtype> {
        let text_config = self.raw.get("text_config");
        let declared = [Some(&self.raw), text_config].into_iter().flatten().find_map(|config| {
            ["torch_dtype", "dtype"].iter().find_map(|key| config.get(*key)?.as_str())
        });
        declared.and_then(Dtype::from_name).filter(|dtype| dtype.is_floating())
    }

    /// Returns the configuration of the language model within one of several parts.
    pub(crate) fn text(&self) -> ModelConfig {
        let mut text = self.clone();
        if let Some(config) = self.raw.get("text_config") {
            let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
            text.model_type = model_type.to_owned();
            text.raw = config.clone();
        }
        if let Some(object) = text.raw.as_object_mut() {
            object.insert("vocab_size".to_owned(), self.vocab_size.into());
        }
        match self.raw.get("tie_word_embeddings") {
            Some(tied) => text.with_defaults(json!({ "tie_word_embeddings": tied })),
            None => text,
        }
    }

    /// Returns the same with these settings where it has none; null is one.
    pub(crate) fn with_defaults(&self, defaults: Value) -> ModelConfig {
        let mut config = self.clone();
        if let (Some(object), Value::Object(defaults)) = (config.raw.as_object_mut(), defaults) {
            for (key, default) in defaults {
                object.entry(key).or_insert(default);
            }
        }
        config
    }

    /// Reads a family's own settings.
    ///
    /// # Errors
    /// When one is missing or of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        // A null setting is an absent one, as in Python's optional arguments.
        let mut raw = self.raw.clone();
        if let Some(object) = raw.as_object_mut() {
            object.retain(|_, value| !value.is_null());
        }
        T::deserialize(raw).map_err(|e| Error::format("config.json", e))
    }
}

/// A number that may be infinite, which configurations hold as `{"__float__": "Infinity"}`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Float(pub(crate) f32);

impl TryFrom<Value> for Float {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Float, String> {
        let tagged = || value.get("__float__")?.as_str()?.parse().ok();
        let number = value.as_f64().or_else(tagged);
        number.map(|x| Float(x as f32)).ok_or_else(|| format!("{value} is no number"))
    }
}

/// A checkpoint never brings code that we run.
fn refuse_code(object: &Map<String, Value>) -> Result<()> {
    if let Some(file) = object.get("model_file").filter(|v| !v.is_null()) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "\"model_file\": {file} asks to run code from the checkpoint, which is never done"
            ),
        )
        .with_hint(
            "use a checkpoint of an architecture that is built in: see `mlxk show --help`",
        ));
    }
    Ok(())
}

/// What published configurations of Gemma leave out.
fn default_vocab_size(model_type: &str) -> Option<usize> {
    match model_type {
        "gemma3" => Some(262_208),
        "gemma3_text" | "gemma4" | "gemma4_text" | "gemma4_unified" => Some(262_144),
        _ => None,
    }
}

fn has(object: &Map<String, Value>, name: &str) -> bool {
    object.get(name).is_some_and(|value| !value.is_null())
}

/// Finds the first positive number under one of `names`, at the top level, then for the text part.
fn lookup(object: &Map<String, Value>, names: &[&str]) -> Option<usize> {
    let text_config = object.get("text_config").and_then(Value::as_object);
    [Some(object), text_config].into_iter().flatten().find_map(|object| {
        let number = names.iter().find_map(|name| object.get(*name)?.as_u64());
        number.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0 && n <= i32::MAX as usize)
    })
}

/// Reads one token id or a list of them.
fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn quantization(
    object: &Map<String, Value>,
    text_config: Option<&Map<String, Value>>,
) -> Result<Option<QuantizationConfig>> {
    let present = |value: Option<&Value>| value.filter(|v| !v.is_null()).cloned();
    let settings = present(object.get("quantization"))
        .or_else(|| present(object.get("quantization_config")))
        .or_else(|| present(text_config.and_then(|t| t.get("quantization_config"))));
    let Some(settings) = settings else { return Ok(None) };
    let Some(settings) = settings.as_object() else {
        return Err(Error::format("\"quantization\"", "not an object"));
    };
    let method = settings.get("quant_method").and_then(Value::as_str);
    let default = match method {
        None => layer_quantization(settings)?,
        Some("mxfp4") => Quantization::of(QuantMode::Mxfp4),
        Some("mxfp8") => Quantization::of(QuantMode::Mxfp8),
        // Another program's, which `formats` reads or refuses.
        Some(_) => return Ok(None),
    };
    let mut layers = HashMap::new();
    for (path, value) in settings {
        match value {
            Value::Object(entry) => {
                layers.insert(path.clone(), Some(layer_quantization(entry)?));
            }
            Value::Bool(false) => {
                layers.insert(path.clone(), None);
            }
            _ => {}
        }
    }
    Ok(Some(QuantizationConfig { default, layers }))
}

/// Reads group size, bits and mode; null, zero or negative numbers mean the mode's default.
fn layer_quantization(entry: &Map<String, Value>) -> Result<Quantization> {
    let mode = match entry.get("mode").and_then(Value::as_str) {
        None => QuantMode::Affine,
        Some(name) => QuantMode::from_name(name).ok_or_else(|| {
            let known = QuantMode::ALL.map(QuantMode::name).join(", ");
            Error::new(
                ErrorKind::Unsupported,
                format!("quantization mode \"{name}\" is not one of {known}"),
            )
        })?,
    };
    let (group_size, bits) = mode.defaults();
    let number = |name: &str, default: i32| {
        let value = entry.get(name).and_then(Value::as_i64).filter(|&n| n > 0);
        value.and_then(|n| i32::try_from(n).ok()).unwrap_or(default)
    };
    Ok(Quantization {
        group_size: number("group_size", group_size),
        bits: number("bits", bits),
        mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: Value) -> Result<ModelConfig> {
        let mut raw = json!({"model_type": "llama", "vocab_size": 10});
        if let (Some(raw), Value::Object(extra)) = (raw.as_object_mut(), extra) {
            raw.extend(extra);
        }
        ModelConfig::from_json(raw)
    }

    #[test]
    fn reads_numbers_that_may_be_infinite() {
        let float = |value: Value| serde_json::from_value::<Float>(value).ok();
        assert_eq!(float(json!(3)), Some(Float(3.0)));
        assert_eq!(float(json!({"__float__": "Infinity"})), Some(Float(f32::INFINITY)));
        assert_eq!(float(json!({"__float__": "-Infinity"})), Some(Float(f32::NEG_INFINITY)));
        for broken in [json!("1"), json!({"__float__": "x"}), json!({"float": "1"}), json!([1])] {
            assert_eq!(float(broken.clone()), None, "{broken}");
        }
    }

    #[test]
    fn reads_quantization() {
        let cases = [
            (json!({"group_size": 32, "bits": 8}), (32, 8, QuantMode::Affine)),
            (json!({"group_size": null, "bits": 0}), (64, 4, QuantMode::Affine)),
            (json!({"mode": "mxfp4"}), (32, 4, QuantMode::Mxfp4)),
            (json!({"mode": "nvfp4", "group_size": -1}), (16, 4, QuantMode::Nvfp4)),
            (json!({"quant_method": "mxfp8"}), (32, 8, QuantMode::Mxfp8)),
        ];
        for (settings, (group_size, bits, mode)) in cases {
            for key in ["quantization", "quantization_config"] {
                let config = config(json!({ key: settings })).expect("sound");
                let expected = Quantization { group_size, bits, mode };
                assert_eq!(config.quantization.map(|q| q.default), Some(expected), "{settings}");
            }
        }
    }

    #[test]
    fn reads_layers() {
        let settings = json!({"bits": 4, "a.b": {"bits": 8}, "c": false, "d": true});
        let config = config(json!({"quantization": settings})).expect("sound");
        let quantization = config.quantization.expect("quantized");
        assert_eq!(quantization.of("a.b").map(|q| q.bits), Some(8));
        assert_eq!(quantization.of("c"), None);
        assert_eq!(quantization.of("d").map(|q| q.bits), Some(4));
    }

    #[test]
    fn reads_end_tokens_and_context() {
        let cases = [
            (json!({"eos_token_id": 2}), vec![2]),
            (json!({"eos_token_id": [2, 3]}), vec![2, 3]),
            (json!({"eos_token_id": null}), vec![]),
            (json!({"text_config": {"eos_token_id": 7}}), vec![7]),
            (json!({"eos_token_id": "x"}), vec![]),
        ];
        for (extra, expected) in cases {
            assert_eq!(config(extra.clone()).expect("sound").eos_token_ids, expected, "{extra}");
        }
        let cases = [
            (json!({"max_position_embeddings": 8}), Some(8)),
            (json!({"text_config": {"seq_len": 9}}), Some(9)),
            (json!({"max_position_embeddings": -1}), None),
            (json!({}), None),
        ];
        for (extra, expected) in cases {
            assert_eq!(config(extra.clone()).expect("sound").context_length, expected, "{extra}");
        }
    }

    #[test]
    fn gives_the_language_model_what_the_whole_has() {
        let text = json!({"model_type": "gemma3_text", "x": null});
        let raw =
            json!({"model_type": "gemma3", "tie_word_embeddings": false, "text_config": text});
        let text = ModelConfig::from_json(raw).expect("sound").text();
        assert_eq!(text.model_type, "gemma3_text");
        let text = text.with_defaults(json!({"x": 1, "y": 2, "vocab_size": 3}));
        let expected = json!({
            "model_type": "gemma3_text",
            "tie_word_embeddings": false,
            "vocab_size": 262_208,
            "x": null,
            "y": 2,
        });
        assert_eq!(text.raw, expected);
    }

    #[test]
    fn refuses() {
        let cases = [
            (json!({"model_type": null}), ErrorKind::Format, "model_type"),
            (json!({"vocab_size": 0}), ErrorKind::Format, "vocab_size"),
            (json!({"model_file": "m.py"}), ErrorKind::Unsupported, "never"),
            (json!({"quantization": {"mode": "q9"}}), ErrorKind::Unsupported, "mxfp4"),
            (json!({"quantization": 4}), ErrorKind::Format, "object"),
            (
                json!({"quantization_config": {"quant_method": "bitnet"}}),
                ErrorKind::Unsupported,
                "bitnet",
            ),
        ];
        for (extra, kind, text) in cases {
            let error = config(extra.clone()).expect_err("unsound");
            assert_eq!(error.kind(), kind, "{extra}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
