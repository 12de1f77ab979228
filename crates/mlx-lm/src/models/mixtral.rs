//! Mixtral (arXiv 2401.04088): Llama with experts, chosen by a softmax over the router's greatest outputs.
//!
//! DIFFERENCE: `head_dim` and the rotary variants are read as transformers does; mlx-lm ignores
//! them.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::moe::{MoeArgs, Router};
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout: same_layout, protected: Protected::NOTHING, build };

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    num_local_experts: i32,
    num_experts_per_tok: i32,
}

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    rules.extend(expert_rules());
    rules
}

/// Gate, down and up are called `w1`, `w2` and `w3`.
pub(super) fn expert_rules() -> [Rule; 3] {
    [
        Rule::Stack(
            "*.block_sparse_moe.experts.%.w1.*",
            "*.block_sparse_moe.switch_mlp.gate_proj.*",
        ),
        Rule::Stack(
            "*.block_sparse_moe.experts.%.w2.*",
            "*.block_sparse_moe.switch_mlp.down_proj.*",
        ),
        Rule::Stack("*.block_sparse_moe.experts.%.w3.*", "*.block_sparse_moe.switch_mlp.up_proj.*"),
    ]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let base = &config.base;
    let attention = base.attention(Some(1_000_000.0))?;
    let experts = MoeArgs {
        name: "block_sparse_moe",
        ..MoeArgs::new(
            config.num_local_experts,
            config.num_experts_per_tok,
            base.intermediate_size,
            Router::SoftmaxOfChosen,
        )
    };
    let layer = |_| LayerArgs::new(attention.clone(), experts.clone());
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
