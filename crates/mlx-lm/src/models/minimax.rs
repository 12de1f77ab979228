//! MiniMax-M2: experts chosen by sigmoids, norms over all heads of queries and keys, and a rotation of a
//! part of each head.
//!
//! DIFFERENCE: the rotary variants are read as transformers does; mlx-lm ignores them.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::QkNorm;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::moe::{MoeArgs, Router, SigmoidRouter};
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout: same_layout, protected: PROTECTED, build };

const PROTECTED: Protected = Protected {
    routers: &["*block_sparse_moe.gate"],
    types: &["*e_score_correction_bias*"],
    ..Protected::NOTHING
};

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    num_local_experts: i32,
    num_experts_per_tok: i32,
    rotary_dim: i32,
    #[serde(default = "yes")]
    use_qk_norm: bool,
}

fn yes() -> bool {
    true
}

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    rules.extend(super::mixtral::expert_rules());
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let base = &config.base;
    let mut attention = base.attention(None)?;
    if let Some(rope) = &mut attention.rope {
        rope.dims = config.rotary_dim.min(attention.head_dim);
    }
    if config.use_qk_norm {
        attention.qk_norm = QkNorm::Full(base.rms_norm_eps);
    }
    let router = SigmoidRouter {
        bias: "e_score_correction_bias",
        wide_input: true,
        n_group: 1,
        topk_group: 1,
        normalize: true,
        scale: 1.0,
    };
    let experts = MoeArgs {
        name: "block_sparse_moe",
        ..MoeArgs::new(
            config.num_local_experts,
            config.num_experts_per_tok,
            base.intermediate_size,
            Router::Sigmoid(router),
        )
    };
    let layer = |_| LayerArgs::new(attention.clone(), experts.clone());
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
