//! gpt-oss (arXiv 2508.10925): experts with biases, attention with sinks, and windows in every other
//! layer.
//!
//! DIFFERENCE: the ends of YaRN's ramp are not rounded where `truncate` is false, as in OpenAI's code
//! and transformers; mlx-lm always rounds them. Experts that are not quantized are `[N, in, out]`,
//! as transformers stores them; mlx-lm cuts them along the wrong axis. `rope_parameters` and
//! `tie_word_embeddings` are read as transformers does; mlx-lm ignores them.

use mlx_core::Weights;
use mlx_core::nn::GatedActivation;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, is_sliding, usual_rules};
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::layers::attention::AttentionArgs;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs};
use crate::layers::moe::{MoeArgs, Router};
use crate::rules::{Change, Cut, Names, Rule};

pub(super) const FAMILY: Family = Family { rules, layout, protected: PROTECTED, build };

const PROTECTED: Protected = Protected::routers(&["*router"]);

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    num_local_experts: i32,
    num_experts_per_tok: i32,
    #[serde(default = "window")]
    sliding_window: i32,
    layer_types: Option<Vec<String>>,
    swiglu_limit: Option<f32>,
}

fn window() -> i32 {
    128
}

/// Gate and up lie in turns in one tensor; a packed one has its rows as they are to be, one that
/// is not has them as columns.
fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    const GATE_UP: &[&str] = &["*.experts.gate_proj.*", "*.experts.up_proj.*"];
    let mut rules = usual_rules(config, names);
    rules.extend([
        Rule::Change("*.experts.gate_up_proj", Change::Transpose(&[0, 2, 1])),
        Rule::Change("*.experts.down_proj", Change::Transpose(&[0, 2, 1])),
        Rule::Rename("*.experts.gate_up_proj", "*.experts.gate_up_proj.weight"),
        Rule::Rename("*.experts.down_proj", "*.experts.down_proj.weight"),
        Rule::Split(
            "*.experts.gate_up_proj_bias",
            Cut::Interleaved(1),
            &["*.experts.gate_proj.bias", "*.experts.up_proj.bias"],
        ),
        Rule::Rename("*.experts.down_proj_bias", "*.experts.down_proj.bias"),
        Rule::Split("*.experts.gate_up_proj.*", Cut::Interleaved(2), GATE_UP),
    ]);
    rules
}

fn layout(_config: &ModelConfig) -> Vec<Rule> {
    vec![
        Rule::Rename("*.mlp.router.*", "*.mlp.gate.*"),
        Rule::Rename("*.mlp.experts.*", "*.mlp.switch_mlp.*"),
    ]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let mut config: Config = config.parse()?;
    config.base.head_dim.get_or_insert(64);
    if let Some(limit) = config.swiglu_limit.filter(|&limit| limit != 7.0) {
        let text = format!("\"swiglu_limit\" is {limit}, only 7 is supported");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let base = &config.base;
    let attention = AttentionArgs {
        qkv_bias: true,
        o_bias: true,
        has_sinks: true,
        ..base.attention(Some(150_000.0))?
    };
    let experts = MoeArgs {
        activation: GatedActivation::ClampedSwiglu,
        bias: true,
        ..MoeArgs::new(
            config.num_local_experts,
            config.num_experts_per_tok,
            base.intermediate_size,
            Router::SoftmaxOfChosen,
        )
    };
    let types = config.layer_types.as_deref();
    let layer = |i| LayerArgs {
        window: is_sliding(types, i, i % 2 == 0).then_some(config.sliding_window),
        ..LayerArgs::new(attention.clone(), experts.clone())
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}
