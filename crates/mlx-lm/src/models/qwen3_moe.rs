//! Qwen3 with experts (arXiv 2505.09388), chosen by a softmax over all of them.
//!
//! DIFFERENCE: the rotary variants are read as transformers does; mlx-lm ignores them.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::{AttentionArgs, QkNorm};
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::moe::{MoeArgs, Router};
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout: same_layout, protected: PROTECTED, build };

const PROTECTED: Protected = Protected::routers(&["*mlp.gate"]);

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    num_experts: i32,
    num_experts_per_tok: i32,
    moe_intermediate_size: i32,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default = "one")]
    decoder_sparse_step: usize,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
}

fn one() -> usize {
    1
}

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    rules.push(Rule::Stack("*.mlp.experts.%.*", "*.mlp.switch_mlp.*"));
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let base = &config.base;
    let qk_norm = QkNorm::Heads(base.rms_norm_eps);
    let attention = AttentionArgs { qk_norm, ..base.attention(Some(10_000.0))? };
    let experts = MoeArgs::new(
        config.num_experts,
        config.num_experts_per_tok,
        config.moe_intermediate_size,
        Router::SoftmaxOfAll { normalize: config.norm_topk_prob },
    );
    let layer = |i| {
        let is_dense = config.mlp_only_layers.contains(&i)
            || config.num_experts == 0
            || (i + 1) % config.decoder_sparse_step.max(1) != 0;
        match is_dense {
            true => LayerArgs::new(attention.clone(), base.mlp()),
            false => LayerArgs::new(attention.clone(), experts.clone()),
        }
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
