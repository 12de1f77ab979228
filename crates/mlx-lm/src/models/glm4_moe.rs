//! GLM-4.5 to GLM-4.7 (arXiv 2508.06471): experts chosen by sigmoids, a shared one, and the first layers
//! without any.
//!
//! DIFFERENCE: `tie_word_embeddings` and the rotary variants are read as transformers does; mlx-lm
//! ignores them.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::attention::QkNorm;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::moe::{MoeArgs, Router, SharedArgs, SigmoidRouter};
use crate::rules::{Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout: same_layout, protected: Protected::SIGMOID_GATE, build };

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
fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    if let Ok(Config { base, .. }) = config.parse::<Config>() {
        rules.push(Rule::DropFrom("model.layers.%.*", base.num_hidden_layers));
    }
    rules.push(Rule::Stack("*.mlp.experts.%.*", "*.mlp.switch_mlp.*"));
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let base = &config.base;
    let mut attention = base.attention(None)?.partial(config.partial_rotary_factor)?;
    attention.qkv_bias = config.attention_bias;
    if config.use_qk_norm {
        attention.qk_norm = QkNorm::Heads(base.rms_norm_eps);
    }
    let router = SigmoidRouter {
        bias: "gate.e_score_correction_bias",
        wide_input: false,
        n_group: config.n_group,
        topk_group: config.topk_group,
        normalize: config.norm_topk_prob,
        scale: config.routed_scaling_factor,
    };
    let size = config.moe_intermediate_size;
    let experts = MoeArgs {
        shared: config.n_shared_experts.map(|n| SharedArgs::experts(n, size)),
        ..MoeArgs::new(
            config.n_routed_experts,
            config.num_experts_per_tok,
            size,
            Router::Sigmoid(router),
        )
    };
    let layer = |i| match i >= config.first_k_dense_replace {
        true => LayerArgs::new(attention.clone(), experts.clone()),
        false => LayerArgs::new(attention.clone(), base.mlp()),
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
