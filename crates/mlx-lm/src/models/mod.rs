//! Model families: one file for each `model_type`, named after it.
//!
//! A family reads its configuration, builds its layers from [`Weights`] and computes hidden
//! states. It knows nothing of files, sampling or tokenizers. To add one, write its file and add
//! an entry to [`FAMILIES`].

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
    /// What conversion treats otherwise than the rest.
    pub(crate) protected: Protected,
    /// Builds the model.
    pub(crate) build: fn(&Weights, &ModelConfig) -> Result<Box<dyn LanguageModel>>,
}

/// What conversion treats otherwise than the rest, by patterns of mlx-lm's names (see [`rules`](crate::rules)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protected {
    /// Layers that choose among experts, packed in affine 8-bit, groups of 64, whatever others are.
    pub(crate) routers: &'static [&'static str],
    /// Layers that stay dense, because mlx-lm has no packed form of them.
    pub(crate) dense: &'static [&'static str],
    /// Tensors that keep their type, because a narrower one would lose what they are for.
    pub(crate) types: &'static [&'static str],
}

impl Protected {
    /// Nothing.
    pub(crate) const NOTHING: Protected = Protected { routers: &[], dense: &[], types: &[] };

    /// Routers alone.
    pub(crate) const fn routers(routers: &'static [&'static str]) -> Protected {
        Protected { routers, ..Protected::NOTHING }
    }

    /// Experts chosen by sigmoids with a correction; mlx-lm's layer that chooses is no linear one.
    pub(crate) const SIGMOID_GATE: Protected =
        Protected { routers: &[], dense: &["*.gate"], types: &["*e_score_correction_bias*"] };
}

/// A family that can be loaded, and what there is to say about it.
pub struct Entry {
    /// What `config.json` calls it.
    pub model_type: &'static str,
    /// What else it calls it.
    pub aliases: &'static [&'static str],
    /// What its layers are made of.
    pub blocks: &'static str,
    /// What they remember.
    pub caches: &'static str,
    /// The programs whose logits the tests compare with its own.
    pub compared_with: &'static str,
    family: Family,
}

impl Entry {
    /// Returns every name of it.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.model_type).chain(self.aliases.iter().copied())
    }
}

/// Every family, in the order of names.
pub const FAMILIES: &[Entry] = &[
    Entry {
        model_type: "deepseek_v3",
        aliases: &["joyai_llm_flash", "kimi_k2"],
        blocks: "latent attention; experts by sigmoids, in groups, with shared ones",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: deepseek_v3::FAMILY,
    },
    Entry {
        model_type: "gemma3",
        aliases: &[],
        blocks: "the text part of gemma3_text's",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: gemma3::FAMILY,
    },
    Entry {
        model_type: "gemma3_text",
        aliases: &[],
        blocks: "attention with head norms, windows and two rotary bases; norms around; GeGLU",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: gemma3_text::FAMILY,
    },
    Entry {
        model_type: "gemma4",
        aliases: &["gemma4_unified"],
        blocks: "the text part of gemma4_text's",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: gemma4::FAMILY,
    },
    Entry {
        model_type: "gemma4_text",
        aliases: &[],
        blocks: "attention with windows, proportional rotation and shared keys and values; embeddings by layer; experts beside a GeGLU; soft cap on logits",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: gemma4_text::FAMILY,
    },
    Entry {
        model_type: "glm4_moe",
        aliases: &[],
        blocks: "attention; experts by sigmoids, in groups, with shared ones",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: glm4_moe::FAMILY,
    },
    Entry {
        model_type: "glm4_moe_lite",
        aliases: &[],
        blocks: "latent attention; experts by sigmoids, with shared ones",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: glm4_moe_lite::FAMILY,
    },
    Entry {
        model_type: "gpt_oss",
        aliases: &[],
        blocks: "attention with sinks and windows; experts by a softmax of those chosen, clamped SwiGLU",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: gpt_oss::FAMILY,
    },
    Entry {
        model_type: "lfm2",
        aliases: &[],
        blocks: "gated short convolutions, attention with head norms",
        caches: "keys and values; states",
        compared_with: "mlx-lm, transformers",
        family: lfm2::FAMILY,
    },
    Entry {
        model_type: "llama",
        aliases: &["iquestcoder", "mistral", "xverse"],
        blocks: "attention, windows where the configuration has them",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: llama::FAMILY,
    },
    Entry {
        model_type: "minimax",
        aliases: &["minimax_m2"],
        blocks: "attention with norms over all heads; experts by sigmoids",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: minimax::FAMILY,
    },
    Entry {
        model_type: "ministral3",
        aliases: &[],
        blocks: "attention with a factor on queries, windows where the configuration has them",
        caches: "keys and values; keys and values of a window",
        compared_with: "mlx-lm, transformers",
        family: ministral3::FAMILY,
    },
    Entry {
        model_type: "mistral3",
        aliases: &["llava"],
        blocks: "the text part, of llama's or ministral3's",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: mistral3::FAMILY,
    },
    Entry {
        model_type: "mixtral",
        aliases: &[],
        blocks: "attention; experts by a softmax of those chosen",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: mixtral::FAMILY,
    },
    Entry {
        model_type: "nemotron_h",
        aliases: &[],
        blocks: "Mamba 2, attention without rotation, ReLU² layers and experts, one to a layer",
        caches: "keys and values; states",
        compared_with: "mlx-lm, transformers",
        family: nemotron_h::FAMILY,
    },
    Entry {
        model_type: "phi3",
        aliases: &[],
        blocks: "attention, windows where the configuration has them; LongRoPE",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: phi3::FAMILY,
    },
    Entry {
        model_type: "qwen2",
        aliases: &[],
        blocks: "attention with biases",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: qwen2::FAMILY,
    },
    Entry {
        model_type: "qwen3",
        aliases: &[],
        blocks: "attention with head norms",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: qwen3::FAMILY,
    },
    Entry {
        model_type: "qwen3_5",
        aliases: &["qwen3_5_moe"],
        blocks: "gated delta rule, attention with head norms and output gates; dense, or experts by a softmax with a gated shared one",
        caches: "keys and values; states",
        compared_with: "mlx-lm, transformers",
        family: qwen3_5::FAMILY,
    },
    Entry {
        model_type: "qwen3_moe",
        aliases: &[],
        blocks: "attention with head norms; experts by a softmax of all",
        caches: "keys and values",
        compared_with: "mlx-lm, transformers",
        family: qwen3_moe::FAMILY,
    },
    Entry {
        model_type: "qwen3_next",
        aliases: &[],
        blocks: "gated delta rule, attention with head norms and output gates; experts by a softmax with a gated shared one",
        caches: "keys and values; states",
        compared_with: "mlx-lm, transformers",
        family: qwen3_next::FAMILY,
    },
];

/// Returns every `model_type` that can be loaded, in order.
pub fn model_types() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<&str> = FAMILIES.iter().flat_map(Entry::names).collect();
    names.sort_unstable();
    names.into_iter()
}

pub(crate) fn family(config: &ModelConfig) -> Result<&'static Family> {
    let model_type = &config.model_type;
    if let Some(entry) = FAMILIES.iter().find(|entry| entry.names().any(|name| name == model_type))
    {
        return Ok(&entry.family);
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
