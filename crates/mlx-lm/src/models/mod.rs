//! Model families: one file for each `model_type`, named after it.
//!
//! A family reads its configuration, builds its layers from [`Weights`] and computes hidden
//! states. It knows nothing of files, sampling or tokenizers. To add one, write its file and add
//! a line to `FAMILIES`.

mod deepseek_v3;
mod gemma3;
mod gemma3_text;
mod gemma4;
mod gemma4_text;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod lfm2;
mod llama;
mod minimax;
mod ministral3;
mod mistral3;
mod mixtral;
mod nemotron_h;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;

use mlx_core::nn::Module;
use mlx_core::{Array, Weights};

use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::rules::{Names, Rule};

/// A model that predicts the next token.
pub trait LanguageModel: Module {
    /// Returns the last hidden states and appends to the caches.
    ///
    /// # Shape
    /// `tokens: [B, L] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn forward(&self, tokens: &Array, caches: &mut [Cache]) -> mlx_core::Result<Array>;

    /// Returns the logits of hidden states. Apart from [`forward`](Self::forward), so that a
    /// prompt costs none but the last.
    ///
    /// # Shape
    /// `hidden: [B, L, E] → [B, L, V]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn head(&self, hidden: &Array) -> mlx_core::Result<Array>;

    /// Makes an empty cache for each layer.
    fn make_cache(&self) -> Vec<Cache>;
}

/// How a family is loaded.
pub(crate) struct Family {
    /// What becomes of a checkpoint's tensors, up to the names and shapes that mlx-lm's have.
    pub(crate) rules: fn(&ModelConfig, &Names) -> Vec<Rule>,
    /// What our layers have otherwise than those.
    pub(crate) layout: fn(&ModelConfig) -> Vec<Rule>,
    /// Builds the model.
    pub(crate) build: fn(&Weights, &ModelConfig) -> Result<Box<dyn LanguageModel>>,
}

/// Every `model_type` and its family.
const FAMILIES: &[(&str, Family)] = &[
    ("deepseek_v3", deepseek_v3::FAMILY),
    ("gemma3", gemma3::FAMILY),
    ("gemma3_text", gemma3_text::FAMILY),
    ("gemma4", gemma4::FAMILY),
    ("gemma4_text", gemma4_text::FAMILY),
    ("gemma4_unified", gemma4::FAMILY),
    ("glm4_moe", glm4_moe::FAMILY),
    ("glm4_moe_lite", glm4_moe_lite::FAMILY),
    ("gpt_oss", gpt_oss::FAMILY),
    ("joyai_llm_flash", deepseek_v3::FAMILY),
    ("kimi_k2", deepseek_v3::FAMILY),
    ("lfm2", lfm2::FAMILY),
    ("llama", llama::FAMILY),
    ("minimax", minimax::FAMILY),
    ("minimax_m2", minimax::FAMILY),
    ("ministral3", ministral3::FAMILY),
    ("mistral", llama::FAMILY),
    ("mistral3", mistral3::FAMILY),
    ("mixtral", mixtral::FAMILY),
    ("nemotron_h", nemotron_h::FAMILY),
    ("phi3", phi3::FAMILY),
    ("qwen2", qwen2::FAMILY),
    ("qwen3", qwen3::FAMILY),
    ("qwen3_5", qwen3_5::FAMILY),
    ("qwen3_5_moe", qwen3_5::FAMILY),
    ("qwen3_moe", qwen3_moe::FAMILY),
    ("qwen3_next", qwen3_next::FAMILY),
];

/// Returns every `model_type` that can be loaded.
pub fn model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(model_type, _)| *model_type)
}

pub(crate) fn family(config: &ModelConfig) -> Result<&'static Family> {
    let model_type = &config.model_type;
    if let Some((_, family)) = FAMILIES.iter().find(|(name, _)| name == model_type) {
        return Ok(family);
    }
    let known: Vec<&str> = model_types().collect();
    let auto_map = config.raw.get("auto_map").is_some_and(|v| !v.is_null());
    let error =
        Error::new(ErrorKind::Unsupported, format!("model_type \"{model_type}\" is not supported"))
            .with_hint(format!("supported are {}", known.join(", ")));
    Err(if auto_map {
        error.with_hint("the checkpoint's own code (\"auto_map\") is never executed")
    } else {
        error
    })
}

/// Tells whether a layer sees a window only: by `layer_types`, where a configuration has them.
pub(crate) fn is_sliding(types: Option<&[String]>, layer: usize, otherwise: bool) -> bool {
    match types {
        Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
        None => otherwise,
    }
}

/// Our layers are those of mlx-lm.
pub(crate) fn same_layout(_config: &ModelConfig) -> Vec<Rule> {
    Vec::new()
}

/// Leaves out buffers that are computed and not stored, and a head that the configuration ties to the
/// embedding.
pub(crate) fn usual_rules(config: &ModelConfig, _names: &Names) -> Vec<Rule> {
    let mut rules = vec![Rule::Drop("*rotary_emb.inv_freq*")];
    if config.raw.get("tie_word_embeddings") == Some(&serde_json::Value::Bool(true)) {
        rules.push(Rule::Drop("*lm_head.*"));
    }
    rules
}
