//! Nemotron-H and Nemotron 3 Nano (arXiv 2504.03624): layers of one part each, which is Mamba 2,
//! attention without positions, a feed-forward layer or experts.
//!
//! DIFFERENCE: a place of a batch without a token keeps the recurrent state, as in transformers; in
//! mlx-lm such places behind a row lose it. Groups of experts that are not chosen from count as minus
//! infinity (see `moe.rs`). `tie_word_embeddings` is read; mlx-lm ignores it.

use mlx_core::nn::{self, Embedding, Linear, Module, RmsNorm, SwitchMlp, Visitor, VisitorMut};
use mlx_core::{Array, Weights};
use serde::Deserialize;

use super::{Family, LanguageModel, Protected, same_layout, usual_rules};
use crate::cache::Cache;
use crate::config::{Float, ModelConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::layers::attention::{Attention, AttentionArgs};
use crate::layers::check_size;
use crate::layers::mamba2::{Mamba2, Mamba2Args};
use crate::layers::mask::Masks;
use crate::layers::mixer::Mixer;
use crate::layers::moe::{Gate, MoeArgs, Router, SigmoidRouter};
use crate::rules::{Change, Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout: same_layout, protected: PROTECTED, build };

const PROTECTED: Protected =
    Protected { types: &["*e_score_correction_bias*", "*A_log*"], ..Protected::SIGMOID_GATE };

#[derive(Deserialize)]
struct Config {
    vocab_size: i32,
    hidden_size: i32,
    intermediate_size: i32,
    layer_norm_epsilon: f32,
    hybrid_override_pattern: Option<Pattern>,
    layers_block_type: Option<Pattern>,
    layer_types: Option<Pattern>,
    tie_word_embeddings: Option<bool>,

    num_attention_heads: i32,
    num_key_value_heads: i32,
    head_dim: Option<i32>,
    #[serde(default)]
    attention_bias: bool,

    mamba_num_heads: i32,
    mamba_head_dim: i32,
    ssm_state_size: i32,
    n_groups: i32,
    conv_kernel: i32,
    #[serde(default)]
    use_conv_bias: bool,
    #[serde(default)]
    mamba_proj_bias: bool,
    time_step_limit: Option<[Float; 2]>,
    mamba_hidden_act: Option<String>,

    #[serde(default)]
    mlp_bias: bool,
    mlp_hidden_act: Option<String>,
    moe_intermediate_size: Option<i32>,
    moe_shared_expert_intermediate_size: Option<i32>,
    moe_latent_size: Option<i32>,
    n_routed_experts: Option<i32>,
    n_shared_experts: Option<i32>,
    num_experts_per_tok: Option<i32>,
    n_group: Option<i32>,
    topk_group: Option<i32>,
    #[serde(default = "yes")]
    norm_topk_prob: bool,
    routed_scaling_factor: Option<f32>,
}

fn yes() -> bool {
    true
}

/// The kinds of layers: letters, together or as a list, or names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pattern {
    Letters(String),
    List(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mamba,
    Attention,
    Mlp,
    Experts,
}

/// Layers beyond this are a broken configuration, not a model.
const MAX_LAYERS: usize = 10_000;

impl Pattern {
    fn kinds(&self) -> Result<Vec<Kind>> {
        let names: Vec<String> = match self {
            Pattern::Letters(letters) => letters.chars().map(String::from).collect(),
            Pattern::List(names) => names.clone(),
        };
        if !(1..=MAX_LAYERS).contains(&names.len()) {
            return Err(format_error(format!("{} layers", names.len())));
        }
        let kind = |name: &String| match name.as_str() {
            "M" | "mamba" | "linear_attention" | "conv" => Ok(Kind::Mamba),
            "*" | "attention" | "full_attention" => Ok(Kind::Attention),
            "-" | "mlp" => Ok(Kind::Mlp),
            "E" | "moe" => Ok(Kind::Experts),
            _ => Err(format_error(format!("layers of the kind \"{name}\" are not supported"))),
        };
        names.iter().map(kind).collect()
    }
}

fn format_error(text: impl std::fmt::Display) -> Error {
    Error::format("config.json", text)
}

impl Config {
    fn kinds(&self) -> Result<Vec<Kind>> {
        let pattern = self.hybrid_override_pattern.as_ref();
        let pattern = pattern.or(self.layers_block_type.as_ref()).or(self.layer_types.as_ref());
        pattern.ok_or_else(|| format_error("\"hybrid_override_pattern\" is missing"))?.kinds()
    }

    fn check(&self) -> Result<()> {
        check_size("vocab_size", self.vocab_size)?;
        check_size("hidden_size", self.hidden_size)?;
        check_size("intermediate_size", self.intermediate_size)?;
        for (act, only) in [(&self.mamba_hidden_act, "silu"), (&self.mlp_hidden_act, "relu2")] {
            if let Some(act) = act.as_deref().filter(|act| *act != only) {
                let text = format!("nemotron_h with the activation \"{act}\" is not supported");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        Ok(())
    }

    fn attention(&self) -> Result<AttentionArgs> {
        let (dim, n_heads) = (self.hidden_size, self.num_attention_heads);
        let head_dim = self.head_dim.unwrap_or(dim / n_heads.max(1));
        let args = AttentionArgs {
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            ..AttentionArgs::new(dim, n_heads, self.num_key_value_heads, head_dim)
        };
        args.check().map(|()| args)
    }

    fn mamba(&self) -> Mamba2Args {
        let no_limit = [Float(0.0), Float(f32::INFINITY)];
        Mamba2Args {
            hidden_size: self.hidden_size,
            n_heads: self.mamba_num_heads,
            head_dim: self.mamba_head_dim,
            state_size: self.ssm_state_size,
            n_groups: self.n_groups,
            n_taps: self.conv_kernel,
            conv_bias: self.use_conv_bias,
            proj_bias: self.mamba_proj_bias,
            time_step_limit: self.time_step_limit.unwrap_or(no_limit).map(|Float(limit)| limit),
            eps: self.layer_norm_epsilon,
        }
    }

    fn experts(&self) -> Result<MoeArgs> {
        let need = |name: &str, number: Option<i32>| {
            number.ok_or_else(|| format_error(format!("\"{name}\" is missing")))
        };
        let router = SigmoidRouter {
            bias: "gate.e_score_correction_bias",
            wide_input: false,
            n_group: self.n_group.unwrap_or(1),
            topk_group: self.topk_group.unwrap_or(1),
            normalize: self.norm_topk_prob,
            scale: self.routed_scaling_factor.unwrap_or(1.0),
        };
        let args = MoeArgs::new(
            need("n_routed_experts", self.n_routed_experts)?,
            need("num_experts_per_tok", self.num_experts_per_tok)?,
            need("moe_intermediate_size", self.moe_intermediate_size)?,
            Router::Sigmoid(router),
        );
        check_size("moe_latent_size", self.moe_latent_size.unwrap_or(1))?;
        args.check().map(|()| args)
    }
}

/// Layers of the prefix `mtp` predict further tokens. Checkpoints of PyTorch have the axes of convolutions
/// in another order, and each expert by itself.
fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    rules.push(Rule::Drop("mtp.*"));
    if names.any("*.conv1d.weight", |shape| matches!(shape, [_, 1, _])) {
        rules.push(Rule::Change("*.conv1d.weight", Change::Transpose(&[0, 2, 1])));
    }
    rules.push(Rule::Stack("*.mixer.experts.%.up_proj.*", "*.mixer.switch_mlp.fc1.*"));
    rules.push(Rule::Stack("*.mixer.experts.%.down_proj.*", "*.mixer.switch_mlp.fc2.*"));
    rules
}

/// `down(relu(up(x))²)`
struct Mlp {
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(w: &Weights, config: &Config, intermediate_size: i32) -> Result<Mlp> {
        let (dim, bias) = (config.hidden_size, config.mlp_bias);
        check_size("intermediate_size", intermediate_size)?;
        Ok(Mlp {
            up_proj: w.linear("up_proj", dim, intermediate_size, bias)?,
            down_proj: w.linear("down_proj", intermediate_size, dim, bias)?,
        })
    }

    fn forward(&self, x: &Array) -> mlx_core::Result<Array> {
        self.down_proj.forward(&nn::relu2(&self.up_proj.forward(x)?)?)
    }
}

/// Experts like that, which may work on a smaller form of the token.
struct Experts {
    gate: Gate,
    switch_mlp: SwitchMlp,
    shared_experts: Option<Mlp>,
    fc1_latent_proj: Option<Linear>,
    fc2_latent_proj: Option<Linear>,
}

impl Experts {
    fn new(w: &Weights, config: &Config) -> Result<Experts> {
        let args = config.experts()?;
        let (dim, bias) = (config.hidden_size, config.mlp_bias);
        let latent = config.moe_latent_size;
        let (size, n) = (args.intermediate_size, args.n_experts);
        let inner = latent.unwrap_or(dim);
        let has_shared = config.n_shared_experts.is_some_and(|n| n > 0);
        let shared_size = config.moe_shared_expert_intermediate_size.filter(|_| has_shared);
        Ok(Experts {
            gate: Gate::new(w, dim, &args)?,
            switch_mlp: w.in_part([args.top_k, n], || {
                w.switch_mlp("switch_mlp", inner, size, n, nn::relu2, false)
            })?,
            shared_experts: shared_size
                .map(|size| Mlp::new(&w.at("shared_experts"), config, size))
                .transpose()?,
            fc1_latent_proj: latent
                .map(|latent| w.linear("fc1_latent_proj", dim, latent, bias))
                .transpose()?,
            fc2_latent_proj: latent
                .map(|latent| w.linear("fc2_latent_proj", latent, dim, bias))
                .transpose()?,
        })
    }

    fn forward(&self, x: &Array) -> mlx_core::Result<Array> {
        let projected = |layer: &Option<Linear>, x: &Array| match layer {
            Some(layer) => layer.forward(x),
            None => Ok(x.clone()),
        };
        let latent = projected(&self.fc1_latent_proj, x)?;
        let y = self.gate.weigh(x, |chosen| self.switch_mlp.forward(&latent, chosen))?;
        let y = projected(&self.fc2_latent_proj, &y)?;
        match &self.shared_experts {
            Some(shared) => y + shared.forward(x)?,
            None => Ok(y),
        }
    }
}

impl Module for Experts {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.gate.visit(visitor);
        visitor.child("switch_mlp", &self.switch_mlp);
        visitor.child("shared_experts", &self.shared_experts);
        visitor.child("fc1_latent_proj", &self.fc1_latent_proj);
        visitor.child("fc2_latent_proj", &self.fc2_latent_proj);
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        self.gate.visit_mut(visitor)?;
        visitor.child("switch_mlp", &mut self.switch_mlp)?;
        visitor.child("shared_experts", &mut self.shared_experts)?;
        visitor.child("fc1_latent_proj", &mut self.fc1_latent_proj)?;
        visitor.child("fc2_latent_proj", &mut self.fc2_latent_proj)
    }
}

/// What a layer does; what looks at other tokens has a cache.
enum Part {
    Mixer(Box<dyn Mixer>),
    Mlp(Mlp),
    Experts(Box<Experts>),
}

impl Module for Part {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        match self {
            Part::Mixer(mixer) => mixer.visit(visitor),
            Part::Mlp(mlp) => mlp.visit(visitor),
            Part::Experts(experts) => experts.visit(visitor),
        }
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        match self {
            Part::Mixer(mixer) => mixer.visit_mut(visitor),
            Part::Mlp(mlp) => mlp.visit_mut(visitor),
            Part::Experts(experts) => experts.visit_mut(visitor),
        }
    }
}

struct Block {
    norm: RmsNorm,
    mixer: Part,
}

impl Block {
    fn new(w: &Weights, config: &Config, kind: Kind) -> Result<Block> {
        let at = w.at("mixer");
        Ok(Block {
            norm: w.rms_norm("norm", config.hidden_size, config.layer_norm_epsilon)?,
            mixer: match kind {
                Kind::Mamba => Part::Mixer(Box::new(Mamba2::new(&at, &config.mamba())?)),
                Kind::Attention => {
                    Part::Mixer(Box::new(Attention::new(&at, &config.attention()?)?))
                }
                Kind::Mlp => Part::Mlp(Mlp::new(&at, config, config.intermediate_size)?),
                Kind::Experts => Part::Experts(Box::new(Experts::new(&at, config)?)),
            },
        })
    }
}

struct NemotronH {
    embeddings: Embedding,
    layers: Vec<Block>,
    norm_f: RmsNorm,
    lm_head: Option<Linear>,
}

mlx_core::module! {
    Mlp { up_proj, down_proj }
    Block { norm, mixer }
    NemotronH {
        "backbone.embeddings" => embeddings,
        "backbone.layers" => layers,
        "backbone.norm_f" => norm_f,
        lm_head,
    }
}

fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config: Config = config.parse()?;
    config.check()?;
    let kinds = config.kinds()?;
    let (dim, vocab_size) = (config.hidden_size, config.vocab_size);
    let backbone = w.at("backbone");
    let tied = config.tie_word_embeddings.unwrap_or(false);
    Ok(Box::new(NemotronH {
        embeddings: backbone.embedding_or_head("embeddings", vocab_size, dim, tied)?,
        layers: backbone.layers("layers", kinds.len(), |w, i| Block::new(w, &config, kinds[i]))?,
        norm_f: backbone.rms_norm("norm_f", dim, config.layer_norm_epsilon)?,
        lm_head: (!tied).then(|| w.linear("lm_head", dim, vocab_size, false)).transpose()?,
    }))
}

impl LanguageModel for NemotronH {
    fn forward(&self, tokens: &Array, caches: &mut [Cache]) -> mlx_core::Result<Array> {
        let n = tokens.dim(1)?;
        let mut masks = Masks::default();
        let mut caches = caches.iter_mut();
        let mut h = self.embeddings.forward(tokens)?;
        // What the layer before gave is added together with the norm of the next.
        let mut given: Option<Array> = None;
        for layer in &self.layers {
            let normed = match given {
                Some(y) => {
                    let (sum, normed) = layer.norm.forward_add(&h, &y)?;
                    h = sum;
                    normed
                }
                None => layer.norm.forward(&h)?,
            };
            given = Some(match &layer.mixer {
                Part::Mixer(mixer) => {
                    let cache = caches.next().ok_or_else(|| {
                        let text = "nemotron_h: fewer caches than layers that have one";
                        mlx_core::Error::new(mlx_core::ErrorKind::InvalidArgument, text)
                    })?;
                    mixer.forward(&normed, masks.of(cache, n, None)?, cache)?
                }
                Part::Mlp(mlp) => mlp.forward(&normed)?,
                Part::Experts(experts) => experts.forward(&normed)?,
            });
        }
        match given {
            Some(y) => Ok(self.norm_f.forward_add(&h, &y)?.1),
            None => self.norm_f.forward(&h),
        }
    }

    fn head(&self, hidden: &Array) -> mlx_core::Result<Array> {
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden),
            None => self.embeddings.as_linear(hidden),
        }
    }

    fn make_cache(&self) -> Vec<Cache> {
        let mixers = self.layers.iter().filter_map(|layer| match &layer.mixer {
            Part::Mixer(mixer) => Some(mixer.make_cache(None)),
            Part::Mlp(_) | Part::Experts(_) => None,
        });
        mixers.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn kinds(pattern: Value) -> Result<Vec<Kind>> {
        from_value::<Pattern>(pattern).expect("a pattern").kinds()
    }

    #[test]
    fn kinds_are_letters_or_names() {
        let expected = [Kind::Mamba, Kind::Mlp, Kind::Attention, Kind::Experts];
        for pattern in [
            json!("M-*E"),
            json!(["M", "-", "*", "E"]),
            json!(["mamba", "mlp", "attention", "moe"]),
            json!(["linear_attention", "mlp", "full_attention", "moe"]),
        ] {
            assert_eq!(kinds(pattern.clone()).expect("kinds"), expected, "{pattern}");
        }
        for (pattern, text) in [
            (json!("MX*"), "\"X\""),
            (json!(["mamba", "sliding"]), "\"sliding\""),
            (json!(""), "0 layers"),
            (json!([]), "0 layers"),
        ] {
            let error = kinds(pattern.clone()).expect_err("no such kind").to_string();
            assert!(error.contains(text), "{pattern}: {error}");
        }
    }
}
