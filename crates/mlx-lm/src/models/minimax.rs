//! MiniMax-M2: experts chosen by sigmoids, norms over all heads of queries and keys, and a rotation of a
//! part of each head.
//!
//! DIFFERENCE: the rotary variants are read as transformers does; mlx-lm ignores them.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::QkNorm;
use crate::layers::decoder::{Decoder, DecoderConfig, FeedForwardArgs};
use crate::layers::moe::{MoeArgs, Router, SigmoidRouter};
use crate::rules::Rule;

pub(super) const FAMILY: Family = Family { rules, layout: same_layout, build };

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

fn rules(config: &ModelConfig) -> Vec<Rule> {
    let mut rules = usual_rules(config);
    rules.extend(super::mixtral::expert_rules());
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let mut args = config.base.args(w, None)?;
    for layer in &mut args.layers {
        layer.attention.rope.dims = config.rotary_dim.min(layer.attention.head_dim);
        if config.use_qk_norm {
            layer.attention.qk_norm = QkNorm::Full(config.base.rms_norm_eps);
        }
        layer.feed_forward = FeedForwardArgs::Experts(MoeArgs {
            name: "block_sparse_moe",
            intermediate_size: config.base.intermediate_size,
            n_experts: config.num_local_experts,
            top_k: config.num_experts_per_tok,
            router: Router::Sigmoid(SigmoidRouter {
                bias: "e_score_correction_bias",
                wide_input: true,
                n_group: 1,
                topk_group: 1,
                normalize: true,
                scale: 1.0,
            }),
            shared_size: None,
        });
    }
    Ok(Box::new(Decoder::new(w, &args)?))
}
