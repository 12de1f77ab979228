//! DeepSeek-V3 and R1, and Kimi K2 (arXiv 2412.19437): attention to latents, and experts chosen by
//! sigmoids within groups.
//!
//! DIFFERENCE: layers that predict further tokens are those behind `num_hidden_layers`; mlx-lm looks for
//! layer 61. `tie_word_embeddings`, `rope_interleave` and `rope_parameters` are read as transformers does;
//! mlx-lm ignores them.
//!
//! DIFFERENCE: a packed `kv_b_proj` is cut along its rows and loses nothing; mlx-lm unpacks it, turns the
//! part for keys, and packs it again.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, usual_rules};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::latent::LatentArgs;
use crate::layers::moe::{MoeArgs, Router, SharedArgs, SigmoidRouter};
use crate::layers::rope::RopeArgs;
use crate::rules::{Change, Cut, Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout, protected: Protected::SIGMOID_GATE, build };

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    q_lora_rank: Option<i32>,
    kv_lora_rank: i32,
    qk_nope_head_dim: i32,
    qk_rope_head_dim: i32,
    v_head_dim: i32,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default = "yes")]
    rope_interleave: bool,
    n_routed_experts: Option<i32>,
    n_shared_experts: Option<i32>,
    #[serde(default)]
    num_experts_per_tok: i32,
    #[serde(default)]
    moe_intermediate_size: i32,
    first_k_dense_replace: usize,
    #[serde(default = "one")]
    moe_layer_freq: i32,
    #[serde(default = "one")]
    n_group: i32,
    #[serde(default = "one")]
    topk_group: i32,
    #[serde(default = "yes")]
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}

/// Layers behind the last predict further tokens.
pub(super) fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    if let Ok(Config { base, .. }) = config.parse::<Config>() {
        rules.push(Rule::DropFrom("model.layers.%.*", base.num_hidden_layers));
    }
    rules.push(Rule::Stack("*.mlp.experts.%.*", "*.mlp.switch_mlp.*"));
    // Packed rows cannot be turned; mlx-lm's older checkpoints have them, too.
    if !names.has("*.kv_b_proj.scales") {
        rules.extend(layout(config));
        rules.push(Rule::Change("*.k_b_proj.weight", Change::Transpose(&[0, 2, 1])));
        rules.push(Rule::Rename("*.k_b_proj.weight", "*.embed_q.weight"));
    }
    rules
}

/// Cuts what makes keys and values of latents in both parts.
pub(super) fn layout(config: &ModelConfig) -> Vec<Rule> {
    let Ok(config) = config.parse::<Config>() else { return Vec::new() };
    let sizes = vec![config.qk_nope_head_dim, config.v_head_dim];
    vec![
        Rule::Change("*.kv_b_proj.*", Change::Unflatten(config.base.num_attention_heads)),
        Rule::Split("*.kv_b_proj.*", Cut::Sizes(1, sizes), &["*.k_b_proj.*", "*.unembed_out.*"]),
    ]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    build_with(w, config, 10_000.0)
}

/// Builds a model with this rotary base where the configuration has none.
pub(super) fn build_with(
    w: &Weights,
    config: &ModelConfig,
    rope_theta: f32,
) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    let base = &config.base;
    let rope = base.rope(config.qk_rope_head_dim, Some(rope_theta))?;
    let attention = LatentArgs {
        hidden_size: base.hidden_size,
        n_heads: base.num_attention_heads,
        q_lora_rank: config.q_lora_rank,
        kv_lora_rank: config.kv_lora_rank,
        qk_nope_head_dim: config.qk_nope_head_dim,
        qk_rope_head_dim: config.qk_rope_head_dim,
        v_head_dim: config.v_head_dim,
        bias: config.attention_bias,
        norm_eps: 1e-6,
        rope: RopeArgs { traditional: config.rope_interleave, ..rope },
    };
    let router = SigmoidRouter {
        bias: "gate.e_score_correction_bias",
        wide_input: false,
        n_group: config.n_group,
        topk_group: config.topk_group,
        normalize: config.norm_topk_prob,
        scale: config.routed_scaling_factor,
    };
    let size = config.moe_intermediate_size;
    let experts = config.n_routed_experts.map(|n| MoeArgs {
        shared: config.n_shared_experts.map(|n| SharedArgs::experts(n, size)),
        ..MoeArgs::new(n, config.num_experts_per_tok, size, Router::Sigmoid(router))
    });
    let has_experts = |i: usize| {
        let freq = usize::try_from(config.moe_layer_freq).unwrap_or(0);
        i >= config.first_k_dense_replace && i.is_multiple_of(freq)
    };
    let layer = |i| match &experts {
        Some(experts) if has_experts(i) => LayerArgs::new(attention.clone(), experts.clone()),
        _ => LayerArgs::new(attention.clone(), base.mlp()),
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
