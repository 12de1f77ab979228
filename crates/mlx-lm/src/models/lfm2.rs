//! LFM2 (arXiv 2511.23404): gated short convolutions, and attention in some layers.
//!
//! DIFFERENCE: head as in `llama.rs`. Settings of the feed-forward size that newer configurations
//! leave out are those of transformers; mlx-lm needs them.

use mlx_core::Weights;
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, usual_rules};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::layers::attention::{AttentionArgs, QkNorm};
use crate::layers::conv::GatedConvArgs;
use crate::layers::decoder::{Decoder, DecoderConfig, LayerArgs, MixerArgs};
use crate::layers::mlp::MlpArgs;
use crate::rules::{Change, Names, Rule};

pub(super) const FAMILY: Family = Family { rules, layout, protected: Protected::NOTHING, build };

#[derive(Deserialize)]
struct Config {
    norm_eps: f32,
    intermediate_size: Option<i32>,
    block_ff_dim: Option<i32>,
    #[serde(default = "multiple_of")]
    block_multiple_of: i32,
    block_ffn_dim_multiplier: Option<f64>,
    #[serde(default = "yes")]
    block_auto_adjust_ff_dim: bool,
    #[serde(rename = "conv_L_cache")]
    conv_l_cache: i32,
    #[serde(default)]
    conv_bias: bool,
    full_attn_idxs: Option<Vec<usize>>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
    tie_embedding: Option<bool>,
}

fn multiple_of() -> i32 {
    256
}

fn yes() -> bool {
    true
}

impl Config {
    fn intermediate_size(&self) -> Result<i32> {
        let size = self.block_ff_dim.or(self.intermediate_size);
        let size = size.ok_or_else(|| format_error("\"intermediate_size\" is missing"))?;
        if !self.block_auto_adjust_ff_dim {
            return Ok(size);
        }
        // Casts go to the nearest number that there is, so that a broken size is one to be refused.
        let size = (f64::from(size) * 2.0 / 3.0).trunc();
        let size = (self.block_ffn_dim_multiplier.unwrap_or(1.0) * size) as i32;
        let step = self.block_multiple_of.max(1);
        Ok(size.saturating_add(step - 1) / step * step)
    }

    /// Refuses layers of an unknown kind.
    fn check_layers(&self, n_layers: usize) -> Result<()> {
        let types = match (&self.full_attn_idxs, &self.layer_types) {
            (Some(_), _) => return Ok(()),
            (None, Some(types)) if types.len() == n_layers => types,
            (None, Some(types)) => {
                let n = types.len();
                return Err(format_error(format!("{n} layer_types for {n_layers} layers")));
            }
            (None, None) => return Err(format_error("\"layer_types\" is missing")),
        };
        let is_known = |kind: &String| ["full_attention", "conv"].contains(&kind.as_str());
        match types.iter().find(|kind| !is_known(kind)) {
            Some(kind) => Err(format_error(format!("layer type \"{kind}\" is not supported"))),
            None => Ok(()),
        }
    }

    fn is_attention(&self, i: usize) -> bool {
        match (&self.full_attn_idxs, &self.layer_types) {
            (Some(layers), _) => layers.contains(&i),
            (None, Some(types)) => types.get(i).is_some_and(|kind| kind == "full_attention"),
            (None, None) => false,
        }
    }
}

fn format_error(text: impl std::fmt::Display) -> Error {
    Error::format("config.json", text)
}

/// Checkpoints of PyTorch have the axes of convolutions in another order.
fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    if names.any("*.conv.conv.weight", |shape| matches!(shape, [_, 1, _])) {
        rules.push(Rule::Change("*.conv.conv.weight", Change::Transpose(&[0, 2, 1])));
    }
    rules
}

/// The usual decoder under other names.
fn layout(_config: &ModelConfig) -> Vec<Rule> {
    vec![
        Rule::Rename("model.embedding_norm.*", "model.norm.*"),
        Rule::Rename("*.operator_norm.*", "*.input_layernorm.*"),
        Rule::Rename("*.ffn_norm.*", "*.post_attention_layernorm.*"),
        Rule::Rename("*.self_attn.q_layernorm.*", "*.self_attn.q_norm.*"),
        Rule::Rename("*.self_attn.k_layernorm.*", "*.self_attn.k_norm.*"),
        Rule::Rename("*.self_attn.out_proj.*", "*.self_attn.o_proj.*"),
        Rule::Rename("*.feed_forward.w1.*", "*.mlp.gate_proj.*"),
        Rule::Rename("*.feed_forward.w2.*", "*.mlp.down_proj.*"),
        Rule::Rename("*.feed_forward.w3.*", "*.mlp.up_proj.*"),
    ]
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let settings: Config = config.parse()?;
    let mut usual = config.clone();
    if let Some(object) = usual.raw.as_object_mut() {
        object.insert("rms_norm_eps".to_owned(), settings.norm_eps.into());
        object.insert("intermediate_size".to_owned(), settings.intermediate_size()?.into());
    }
    let mut base: DecoderConfig = usual.parse()?;
    base.head_dim = None;
    base.tie_word_embeddings = settings.tie_word_embeddings.or(settings.tie_embedding);
    let qk_norm = QkNorm::Heads(settings.norm_eps);
    let attention = AttentionArgs { qk_norm, ..base.attention(Some(1_000_000.0))? };
    let conv = GatedConvArgs {
        hidden_size: base.hidden_size,
        n_taps: settings.conv_l_cache,
        bias: settings.conv_bias,
    };
    settings.check_layers(base.num_hidden_layers)?;
    let layer = |i: usize| {
        let mixer: MixerArgs = match settings.is_attention(i) {
            true => attention.clone().into(),
            false => conv.into(),
        };
        LayerArgs::new(mixer, MlpArgs::new(base.intermediate_size))
    };
    Ok(Box::new(Decoder::new(w, &base.decoder(w, layer))?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn config(extra: &Value) -> Config {
        let mut raw = json!({"norm_eps": 1e-5, "conv_L_cache": 3});
        if let (Some(raw), Some(extra)) = (raw.as_object_mut(), extra.as_object()) {
            raw.extend(extra.clone());
        }
        from_value(raw).expect("settings")
    }

    #[test]
    fn sizes_are_adjusted_as_configurations_say() {
        for (extra, expected) in [
            (json!({"block_ff_dim": 6656, "block_ffn_dim_multiplier": 1.0}), 4608),
            (json!({"intermediate_size": 12288}), 8192),
            (json!({"intermediate_size": 100, "block_ff_dim": 48, "block_multiple_of": 8}), 32),
            (json!({"block_ff_dim": 100, "block_auto_adjust_ff_dim": false}), 100),
            (json!({"block_ff_dim": 96, "block_ffn_dim_multiplier": 1.5}), 256),
        ] {
            assert_eq!(config(&extra).intermediate_size().ok(), Some(expected), "{extra}");
        }
        let broken = json!({
            "block_ff_dim": i32::MAX,
            "block_multiple_of": i32::MAX,
            "block_ffn_dim_multiplier": 1e300,
        });
        assert!(config(&broken).intermediate_size().is_ok_and(|size| size > 1 << 24));
        assert!(config(&json!({})).intermediate_size().is_err());
    }

    #[test]
    fn layers_of_an_unknown_kind_are_refused() {
        let types = |types: Value| config(&json!({"layer_types": types}));
        let sound = types(json!(["conv", "full_attention"]));
        sound.check_layers(2).expect("two layers");
        assert!(!sound.is_attention(0) && sound.is_attention(1));
        assert!(sound.check_layers(3).is_err());
        let error = types(json!(["conv", "ssm"])).check_layers(2).expect_err("unknown");
        assert!(error.to_string().contains("\"ssm\""), "{error}");
        assert!(config(&json!({})).check_layers(2).is_err());
        let indices = config(&json!({"full_attn_idxs": [1]}));
        indices.check_layers(2).expect("two layers");
        assert!(!indices.is_attention(0) && indices.is_attention(1));
    }
}
