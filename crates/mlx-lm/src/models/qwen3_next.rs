//! Qwen3-Next and Qwen3-Coder-Next: gated delta rules, of which each fourth layer is attention with a gate
//! behind its heads instead, and experts.
//!
//! DIFFERENCE: `layer_types` says which layers are attention where it is there, and a checkpoint in the
//! published layout is told by the shape of its convolutions, too; mlx-lm ignores the first and tells
//! by its experts alone, so that norms of one with stacked experts stay offsets.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, usual_rules};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::layers::attention::{AttentionArgs, QkNorm};
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs, MixerArgs};
use crate::layers::gated_delta::GatedDeltaArgs;
use crate::layers::moe::{MoeArgs, Router, SharedArgs};
use crate::layers::rope::RopeScaling;
use crate::rules::{Change, Cut, Names, Rule};

pub(super) const FAMILY: Family = Family { rules, layout, protected: PROTECTED, build };

pub(super) const PROTECTED: Protected = Protected::routers(&["*mlp.gate", "*shared_expert_gate"]);

/// The settings of this line of models.
#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(flatten)]
    pub(super) base: DecoderConfig,
    linear_num_key_heads: i32,
    linear_num_value_heads: i32,
    linear_key_head_dim: i32,
    linear_value_head_dim: i32,
    linear_conv_kernel_dim: i32,
    #[serde(default = "four")]
    full_attention_interval: usize,
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    attention_bias: bool,
    partial_rotary_factor: Option<f32>,
    #[serde(default)]
    num_experts: i32,
    #[serde(default)]
    num_experts_per_tok: i32,
    #[serde(default)]
    moe_intermediate_size: i32,
    #[serde(default)]
    shared_expert_intermediate_size: i32,
    pub(super) norm_topk_prob: Option<bool>,
    #[serde(default = "one")]
    pub(super) decoder_sparse_step: usize,
    #[serde(default)]
    pub(super) mlp_only_layers: Vec<usize>,
}

fn one() -> usize {
    1
}

fn four() -> usize {
    4
}

fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    rules.push(Rule::Drop("mtp.*"));
    rules.extend(published(names));
    rules
}

/// What published checkpoints have otherwise than mlx-lm's: experts apart or gate and up of them in one,
/// channels of convolutions in front of their taps, and norms as offsets from one.
pub(super) fn published(names: &Names) -> Vec<Rule> {
    const CONV: &str = "*.linear_attn.conv1d.weight";
    let mut rules = vec![
        Rule::Split(
            "*.mlp.experts.gate_up_proj",
            Cut::Even(2),
            &["*.mlp.switch_mlp.gate_proj.weight", "*.mlp.switch_mlp.up_proj.weight"],
        ),
        Rule::Rename("*.mlp.experts.down_proj", "*.mlp.switch_mlp.down_proj.weight"),
        Rule::Stack("*.mlp.experts.%.*", "*.mlp.switch_mlp.*"),
    ];
    let is_raw_conv = names.any(CONV, |shape| shape.last() != Some(&1));
    if is_raw_conv {
        rules.push(Rule::Change(CONV, Change::Transpose(&[0, 2, 1])));
    }
    if is_raw_conv || names.has("*.mlp.experts.*") {
        const NORMS: [&str; 5] = [
            "*.input_layernorm.weight",
            "*.post_attention_layernorm.weight",
            "*model.norm.weight",
            "*.q_norm.weight",
            "*.k_norm.weight",
        ];
        rules.extend(NORMS.map(|norm| Rule::Change(norm, Change::Plus(1.0))));
    }
    rules
}

/// Rows of the projections go by key heads; ours by what they are.
fn layout(config: &ModelConfig) -> Vec<Rule> {
    let Ok(config) = config.parse::<Config>() else { return Vec::new() };
    let key_heads = config.linear_num_key_heads;
    let per_key_head = config.linear_num_value_heads / key_heads.max(1);
    let (key, value) =
        (config.linear_key_head_dim, config.linear_value_head_dim.saturating_mul(per_key_head));
    let mut rules = Vec::new();
    const QKVZ: &str = "*.linear_attn.in_proj_qkvz.*";
    const BA: &str = "*.linear_attn.in_proj_ba.*";
    rules.extend([QKVZ, BA].map(|rows| Rule::Change(rows, Change::Unflatten(key_heads))));
    rules.push(Rule::Split(
        QKVZ,
        Cut::Sizes(1, vec![key, key, value, value]),
        &[
            "*.linear_attn.in_proj_q.*",
            "*.linear_attn.in_proj_k.*",
            "*.linear_attn.in_proj_v.*",
            "*.linear_attn.in_proj_z.*",
        ],
    ));
    rules.push(Rule::Split(
        BA,
        Cut::Sizes(1, vec![per_key_head, per_key_head]),
        &["*.linear_attn.in_proj_b.*", "*.linear_attn.in_proj_a.*"],
    ));
    let parts = [
        "*.linear_attn.in_proj_q.*",
        "*.linear_attn.in_proj_k.*",
        "*.linear_attn.in_proj_v.*",
        "*.linear_attn.in_proj_z.*",
        "*.linear_attn.in_proj_b.*",
        "*.linear_attn.in_proj_a.*",
    ];
    rules.extend(parts.map(|part| Rule::Change(part, Change::Flatten)));
    rules.push(Rule::Join(
        &["*.linear_attn.in_proj_q.*", "*.linear_attn.in_proj_k.*", "*.linear_attn.in_proj_v.*"],
        "*.linear_attn.in_proj_qkv.*",
    ));
    rules
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    config.parse::<Config>()?.build(w, None)
}

impl Config {
    /// Builds the model, whose rotary base is `rope_theta` where the configuration gives none.
    pub(super) fn build(
        &self,
        w: &Weights,
        rope_theta: Option<f32>,
    ) -> Result<Box<dyn LanguageModel>> {
        self.check_layer_types()?;
        let (attention, delta) = (self.attention(rope_theta)?, self.gated_delta());
        let (mlp, experts) = (self.base.mlp(), self.experts());
        let layer = |i| {
            let mixer: MixerArgs = match self.is_attention(i) {
                true => attention.clone().into(),
                false => delta.clone().into(),
            };
            let is_dense = self.mlp_only_layers.contains(&i)
                || self.num_experts == 0
                || (i + 1) % self.decoder_sparse_step.max(1) != 0;
            match is_dense {
                true => LayerArgs::new(mixer, mlp),
                false => LayerArgs::new(mixer, experts.clone()),
            }
        };
        Ok(Box::new(Decoder::new(w, &self.base.decoder(w, layer))?))
    }

    fn check_layer_types(&self) -> Result<()> {
        let Some(types) = &self.layer_types else { return Ok(()) };
        if types.len() != self.base.num_hidden_layers {
            let text = format!("{} layers, {} types", self.base.num_hidden_layers, types.len());
            return Err(Error::format("config.json", text));
        }
        let is_known = |kind: &str| ["full_attention", "linear_attention"].contains(&kind);
        match types.iter().find(|kind| !is_known(kind)) {
            Some(kind) => {
                Err(Error::format("config.json", format!("\"layer_types\" has \"{kind}\"")))
            }
            None => Ok(()),
        }
    }

    fn is_attention(&self, i: usize) -> bool {
        match self.layer_types.as_ref().and_then(|types| types.get(i)) {
            Some(kind) => kind == "full_attention",
            None => (i + 1).is_multiple_of(self.full_attention_interval.max(1)),
        }
    }

    fn attention(&self, rope_theta: Option<f32>) -> Result<AttentionArgs> {
        let base = &self.base;
        let rope = base.rope_parameters.as_ref();
        let written = rope.and_then(|rope| RopeScaling::get(rope, "partial_rotary_factor"));
        let partial = self.partial_rotary_factor.or(written).unwrap_or(0.25);
        Ok(AttentionArgs {
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            qk_norm: QkNorm::Heads(base.rms_norm_eps),
            has_output_gate: true,
            ..base.attention(rope_theta)?.partial(partial)?
        })
    }

    fn gated_delta(&self) -> GatedDeltaArgs {
        GatedDeltaArgs {
            hidden_size: self.base.hidden_size,
            n_key_heads: self.linear_num_key_heads,
            n_value_heads: self.linear_num_value_heads,
            key_head_dim: self.linear_key_head_dim,
            value_head_dim: self.linear_value_head_dim,
            conv_kernel_dim: self.linear_conv_kernel_dim,
            rms_norm_eps: self.base.rms_norm_eps,
        }
    }

    fn experts(&self) -> MoeArgs {
        let normalize = self.norm_topk_prob.unwrap_or(false);
        MoeArgs {
            shared: Some(SharedArgs {
                name: "shared_expert",
                intermediate_size: self.shared_expert_intermediate_size,
                has_gate: true,
            }),
            ..MoeArgs::new(
                self.num_experts,
                self.num_experts_per_tok,
                self.moe_intermediate_size,
                Router::SoftmaxOfAll { normalize },
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use mlx_core::{Array, Tensor};
    use serde_json::json;

    use super::*;
    use crate::rules;

    fn config(changes: &[(&str, serde_json::Value)]) -> ModelConfig {
        let mut raw = json!({
            "model_type": "qwen3_next", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 5,
            "intermediate_size": 8, "num_attention_heads": 2, "rms_norm_eps": 1e-6,
            "rope_theta": 1e4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 1, "linear_value_head_dim": 2, "linear_conv_kernel_dim": 4,
        });
        for (key, value) in changes {
            raw[key] = value.clone();
        }
        ModelConfig::from_json(raw).expect("a configuration")
    }

    #[test]
    fn rows_go_by_what_they_are() {
        // Of each key head one of q, one of k, four of v and four of z.
        let rows =
            |n: i32| -> mlx_core::Result<Tensor> { Ok(Array::range(n)?.reshape([n, 1])?.into()) };
        let at = |name: &str| format!("model.layers.0.linear_attn.{name}.weight");
        let tensors = [
            (at("in_proj_qkvz"), rows(20).expect("rows")),
            (at("in_proj_ba"), rows(8).expect("rows")),
        ];
        let mut found = rules::apply(&layout(&config(&[])), tensors).expect("they apply");
        for (name, expected) in [
            ("in_proj_qkv", &[0, 10, 1, 11, 2, 3, 4, 5, 12, 13, 14, 15][..]),
            ("in_proj_z", &[6, 7, 8, 9, 16, 17, 18, 19]),
            ("in_proj_b", &[0, 1, 4, 5]),
            ("in_proj_a", &[2, 3, 6, 7]),
        ] {
            let rows = found.remove(&at(name)).expect("it is there").into_array();
            let rows = rows.and_then(|rows| rows.to_vec::<i32>()).expect("rows");
            assert_eq!(rows, expected, "{name}");
        }
        assert!(found.is_empty());
    }

    #[test]
    fn one_sign_of_the_published_layout_is_enough() {
        let conv = "model.layers.0.linear_attn.conv1d.weight";
        let (raw, converted) = ((conv, [6, 1, 4]), (conv, [6, 4, 1]));
        let stacked = ("model.layers.0.mlp.experts.gate_up_proj", [2, 4, 4]);
        let ours = ("model.layers.0.mlp.switch_mlp.gate_proj.weight", [2, 2, 4]);
        for (tensors, has_offsets, is_turned) in [
            ([raw, stacked], true, true),
            ([raw, ours], true, true),
            ([converted, stacked], true, false),
            ([converted, ours], false, false),
        ] {
            let names = tensors.map(|(name, shape)| (name.to_owned(), shape.to_vec()));
            let rules = published(&names.into_iter().collect());
            let any = |is: fn(&Rule) -> bool| rules.iter().any(is);
            assert_eq!(any(|rule| matches!(rule, Rule::Change(_, Change::Plus(_)))), has_offsets);
            let turned = any(|rule| matches!(rule, Rule::Change(_, Change::Transpose(_))));
            assert_eq!(turned, is_turned);
        }
    }

    #[test]
    fn layers_are_what_the_configuration_says() {
        let attention = |changes: &[(&str, serde_json::Value)]| {
            let config: Config = config(changes).parse()?;
            config.check_layer_types()?;
            Ok::<_, Error>((0..5).filter(|&i| config.is_attention(i)).collect::<Vec<_>>())
        };
        let types = |kinds: [&str; 5]| ("layer_types", json!(kinds));
        let (full, linear) = ("full_attention", "linear_attention");
        assert_eq!(attention(&[]).expect("layers"), [3]);
        let interval = ("full_attention_interval", json!(2));
        assert_eq!(attention(std::slice::from_ref(&interval)).expect("layers"), [1, 3]);
        let given = types([full, linear, linear, linear, full]);
        assert_eq!(attention(&[interval, given]).expect("layers"), [0, 4]);
        for wrong in [types([full, linear, "other", full, full]), ("layer_types", json!([full]))] {
            assert!(attention(&[wrong]).is_err());
        }
        assert_eq!(attention(&[("full_attention_interval", json!(0))]).expect("layers").len(), 5);
    }
}
