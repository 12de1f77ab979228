//! GLM-4.5 to GLM-4.7 (arXiv 2508.06471): experts chosen by sigmoids, a shared one, and the first layers
//! without any.
//!
//! DIFFERENCE: `tie_word_embeddings` and the rotary variants are read as transformers does; mlx-lm
//! ignores them.

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
    moe_intermediate_size: i32,
    n_routed_experts: i32,
    n_shared_experts: Option<i32>,
    num_experts_per_tok: i32,
    n_group: i32,
    topk_group: i32,
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    first_k_dense_replace: usize,
    partial_rotary_factor: f32,
    #[serde(default)]
    use_qk_norm: bool,
    #[serde(default)]
    attention_bias: bool,
}

/// Layers behind the last predict further tokens.
fn rules(config: &ModelConfig) -> Vec<Rule> {
    let mut rules = usual_rules(config);
    if let Ok(Config { base, .. }) = config.parse::<Config>() {
        rules.push(Rule::DropFrom("model.layers.%.*", base.num_hidden_layers));
    }
    rules.push(Rule::Stack("*.mlp.experts.%.*", "*.mlp.switch_mlp.*"));
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let mut args = config.base.args(w, None)?;
    let experts = MoeArgs {
        name: "mlp",
        intermediate_size: config.moe_intermediate_size,
        n_experts: config.n_routed_experts,
        top_k: config.num_experts_per_tok,
        router: Router::Sigmoid(SigmoidRouter {
            bias: "gate.e_score_correction_bias",
            wide_input: false,
            n_group: config.n_group,
            topk_group: config.topk_group,
            normalize: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
        }),
        shared_size: config
            .n_shared_experts
            .map(|n| n.saturating_mul(config.moe_intermediate_size)),
    };
    for (i, layer) in args.layers.iter_mut().enumerate() {
        layer.attention.qkv_bias = config.attention_bias;
        layer.attention.rope = layer.attention.rope.partial(config.partial_rotary_factor)?;
        if config.use_qk_norm {
            layer.attention.qk_norm = QkNorm::Heads(config.base.rms_norm_eps);
        }
        if i >= config.first_k_dense_replace {
            layer.feed_forward = FeedForwardArgs::Experts(experts.clone());
        }
    }
    Ok(Box::new(Decoder::new(w, &args)?))
}
