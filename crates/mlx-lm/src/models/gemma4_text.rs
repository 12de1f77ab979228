//! Gemma 4: Gemma 3's norms around each part; heads that are larger in global layers, where some pairs
//! only are rotated and values may be keys; last layers that attend to what earlier ones keep; an
//! embedding for each layer; experts beside the dense layer.

use mlx_core::nn::{
    Embedding, GatedActivation, Linear, Module, Param, RmsNorm, SwitchGlu, Visitor, VisitorMut,
    gated,
};
use mlx_core::{Array, ErrorKind, Weights, fast};
use serde::Deserialize;
use serde_json::json;

use super::{Family, LanguageModel, Protected, is_sliding, same_layout, usual_rules};
use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::layers::attention::{Attention, AttentionArgs, KvSource, QkNorm};
use crate::layers::check_size;
use crate::layers::decoder::DecoderConfig;
use crate::layers::mask::{Mask, Masks};
use crate::layers::mixer::Mixer;
use crate::layers::mlp::{Mlp, MlpArgs};
use crate::layers::moe::{MoeArgs, Router};
use crate::rules::{Cut, Names, Rule};

pub(super) const FAMILY: Family =
    Family { rules, layout: same_layout, protected: PROTECTED, build };

pub(super) const PROTECTED: Protected = Protected::routers(&["*router.proj"]);

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    base: DecoderConfig,
    global_head_dim: Option<i32>,
    num_global_key_value_heads: Option<i32>,
    attention_k_eq_v: bool,
    num_kv_shared_layers: usize,
    use_double_wide_mlp: bool,
    hidden_size_per_layer_input: Option<i32>,
    vocab_size_per_layer_input: i32,
    sliding_window: i32,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    final_logit_softcapping: Option<f32>,
    enable_moe_block: bool,
    num_experts: Option<i32>,
    top_k_experts: Option<i32>,
    moe_intermediate_size: Option<i32>,
}

impl Config {
    fn read(config: &ModelConfig) -> Result<Config> {
        let defaults = json!({
            "hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144,
            "num_attention_heads": 8, "num_key_value_heads": 1, "num_kv_shared_layers": 20,
            "head_dim": 256, "global_head_dim": 512, "attention_k_eq_v": false,
            "rms_norm_eps": 1e-6, "sliding_window": 512, "final_logit_softcapping": 30,
            "vocab_size": config.vocab_size, "tie_word_embeddings": true,
            "vocab_size_per_layer_input": 262_144, "hidden_size_per_layer_input": 256,
            "use_double_wide_mlp": true, "enable_moe_block": false,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25,
                },
                "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
            },
        });
        let config: Config = config.with_defaults(defaults).parse()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        self.base.check()?;
        check_size("vocab_size_per_layer_input", self.vocab_size_per_layer_input)?;
        check_size("sliding_window", self.sliding_window)?;
        let size = self.layer_input().unwrap_or(1);
        let of_all = size.saturating_mul(self.base.num_hidden_layers.max(1) as i32);
        check_size("hidden_size_per_layer_input", of_all)
    }

    /// The size of the embedding for each layer, where there is one.
    fn layer_input(&self) -> Option<i32> {
        self.hidden_size_per_layer_input.filter(|&size| size != 0)
    }

    fn is_sliding(&self, layer: usize) -> bool {
        let pattern = self.sliding_window_pattern.unwrap_or(5).max(1);
        is_sliding(self.layer_types.as_deref(), layer, layer % pattern != pattern - 1)
    }

    /// The first layer without keys and values of its own.
    fn first_shared(&self) -> usize {
        self.base.num_hidden_layers.saturating_sub(self.num_kv_shared_layers)
    }

    /// Returns which layer's cache a layer uses: the last one of its type that has any.
    fn cache_of(&self, layer: usize) -> Result<usize> {
        if layer < self.first_shared() {
            return Ok(layer);
        }
        let is_alike = |other: &usize| self.is_sliding(*other) == self.is_sliding(layer);
        (0..self.first_shared()).rev().find(is_alike).ok_or_else(|| {
            let text = format!("layer {layer} shares keys and values with none before");
            Error::format("config.json", text)
        })
    }

    fn attention(&self, layer: usize) -> Result<AttentionArgs> {
        let is_sliding = self.is_sliding(layer);
        let mut of_type = self.base.clone();
        let are_keys_values = self.attention_k_eq_v && !is_sliding;
        let global_dim = self.global_head_dim.filter(|&dim| dim != 0 && !is_sliding);
        let global_heads = self.num_global_key_value_heads.filter(|_| are_keys_values);
        of_type.head_dim = global_dim.or(of_type.head_dim);
        of_type.num_key_value_heads = global_heads.or(of_type.num_key_value_heads);
        let layer_type = if is_sliding { "sliding_attention" } else { "full_attention" };
        let args = AttentionArgs {
            scale: Some(1.0),
            qk_norm: QkNorm::Heads(self.base.rms_norm_eps),
            v_norm: Some(self.base.rms_norm_eps),
            kv: match (layer >= self.first_shared(), are_keys_values) {
                (true, _) => KvSource::EarlierLayer,
                (false, true) => KvSource::KeyProjection,
                (false, false) => KvSource::Projections,
            },
            ..of_type.attention_of(layer_type, 10_000.0)?
        };
        args.check()?;
        Ok(args)
    }

    fn mlp(&self, layer: usize) -> MlpArgs {
        let first = self.first_shared();
        let is_wide = self.use_double_wide_mlp && first > 0 && layer >= first;
        let intermediate_size = self.base.intermediate_size * if is_wide { 2 } else { 1 };
        MlpArgs { activation: GatedActivation::GeluApprox, ..MlpArgs::new(intermediate_size) }
    }

    fn experts(&self) -> Result<Option<MoeArgs>> {
        if !self.enable_moe_block {
            return Ok(None);
        }
        let [n_experts, top_k, intermediate_size] =
            [self.num_experts, self.top_k_experts, self.moe_intermediate_size]
                .map(Option::unwrap_or_default);
        let args = MoeArgs::new(n_experts, top_k, intermediate_size, Router::SoftmaxOfChosen);
        args.check()?;
        Ok(Some(args))
    }
}

pub(super) fn rules(config: &ModelConfig, names: &Names) -> Vec<Rule> {
    let mut rules = usual_rules(config, names);
    rules.extend(
        ["*self_attn.rotary_emb*", "*input_max", "*input_min", "*output_max", "*output_min"]
            .map(Rule::Drop),
    );
    // Published checkpoints have these for layers that do not use them.
    if let Ok(config) = Config::read(config) {
        let unused = ["*layers.%.self_attn.k_*", "*layers.%.self_attn.v_proj.*"];
        rules.extend(unused.map(|name| Rule::DropFrom(name, config.first_shared())));
    }
    rules.extend([
        Rule::Split(
            "*.experts.gate_up_proj",
            Cut::Even(2),
            &["*.experts.switch_glu.gate_proj.weight", "*.experts.switch_glu.up_proj.weight"],
        ),
        Rule::Rename("*.experts.down_proj", "*.experts.switch_glu.down_proj.weight"),
    ]);
    rules
}

/// Experts beside the dense layer.
struct Experts {
    router: Linear,
    /// `[E]`
    scale: Param,
    /// `[N]`
    per_expert_scale: Param,
    switch_glu: SwitchGlu,
    post_feedforward_layernorm_1: RmsNorm,
    pre_feedforward_layernorm_2: RmsNorm,
    post_feedforward_layernorm_2: RmsNorm,
    top_k: i32,
}

impl Experts {
    fn new(w: &Weights, dim: i32, eps: f32, args: &MoeArgs) -> Result<Self> {
        let (n, size, activation) =
            (args.n_experts, args.intermediate_size, GatedActivation::GeluApprox);
        let norm = |name: &str| w.rms_norm(name, dim, eps);
        let glu = || w.switch_glu("experts.switch_glu", dim, size, n, activation, false);
        Ok(Experts {
            router: w.linear("router.proj", dim, n, false)?,
            scale: w.param("router.scale", &[dim])?,
            per_expert_scale: w.param("router.per_expert_scale", &[n])?,
            switch_glu: w.in_part([args.top_k, n], glu)?,
            post_feedforward_layernorm_1: norm("post_feedforward_layernorm_1")?,
            pre_feedforward_layernorm_2: norm("pre_feedforward_layernorm_2")?,
            post_feedforward_layernorm_2: norm("post_feedforward_layernorm_2")?,
            top_k: args.top_k,
        })
    }

    /// Returns which experts each token goes to, and the weight of each, `[B, L, k]`.
    fn route(&self, x: &Array) -> mlx_core::Result<(Array, Array)> {
        let scale = (&*self.scale * (x.dim(-1)? as f32).powf(-0.5))?;
        let eps = self.pre_feedforward_layernorm_2.eps;
        let scores = self.router.forward(&fast::rms_norm(x, Some(&scale), eps)?)?;
        let order = scores.negative()?.argpartition(self.top_k - 1, -1)?;
        let chosen = order.at((.., .., ..self.top_k))?;
        let weights = scores.take_along_axis(&chosen, -1)?.softmax(-1, true)?;
        let weights = (weights * self.per_expert_scale.take(&chosen, 0)?)?;
        Ok((chosen, weights))
    }

    /// Returns the sum of what experts make of `h` and of what the dense layer made.
    fn forward(&self, h: &Array, dense: &Array) -> mlx_core::Result<Array> {
        let (chosen, weights) = self.route(h)?;
        let y = self.switch_glu.forward(&self.pre_feedforward_layernorm_2.forward(h)?, &chosen)?;
        let y = (y * weights.expand_dims(-1))?.sum(-2, false)?;
        self.post_feedforward_layernorm_1.forward(dense)?
            + self.post_feedforward_layernorm_2.forward(&y)?
    }
}

/// Brings the embedding for one layer in.
struct LayerInput {
    per_layer_input_gate: Linear,
    per_layer_projection: Linear,
    post_per_layer_input_norm: RmsNorm,
}

impl LayerInput {
    fn new(w: &Weights, dim: i32, eps: f32, size: i32) -> Result<Self> {
        Ok(LayerInput {
            per_layer_input_gate: w.linear("per_layer_input_gate", dim, size, false)?,
            per_layer_projection: w.linear("per_layer_projection", size, dim, false)?,
            post_per_layer_input_norm: w.rms_norm("post_per_layer_input_norm", dim, eps)?,
        })
    }

    /// `h: [B, L, E]`, `input: [B, L, P] → [B, L, E]`
    fn forward(&self, h: &Array, input: &Array) -> mlx_core::Result<Array> {
        let gate = self.per_layer_input_gate.forward(h)?;
        let y = gated(&gate, input, GatedActivation::GeluApprox)?;
        h + self.post_per_layer_input_norm.forward(&self.per_layer_projection.forward(&y)?)?
    }
}

struct Layer {
    block: Block,
    experts: Option<Experts>,
    input: Option<LayerInput>,
    window: Option<i32>,
    /// Whose cache it uses.
    cache: usize,
}

struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    post_feedforward_layernorm: RmsNorm,
    /// `[1]`
    layer_scalar: Param,
}

impl Layer {
    fn new(w: &Weights, config: &Config, i: usize) -> Result<Self> {
        let (dim, eps) = (config.base.hidden_size, config.base.rms_norm_eps);
        let (experts, input) = (config.experts()?, config.layer_input());
        let norm = |name: &str| w.rms_norm(name, dim, eps);
        Ok(Layer {
            block: Block {
                self_attn: Attention::new(&w.at("self_attn"), &config.attention(i)?)?,
                mlp: Mlp::new(&w.at("mlp"), dim, &config.mlp(i))?,
                input_layernorm: norm("input_layernorm")?,
                post_attention_layernorm: norm("post_attention_layernorm")?,
                pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
                post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
                layer_scalar: w.param("layer_scalar", &[1])?,
            },
            experts: experts.map(|args| Experts::new(w, dim, eps, &args)).transpose()?,
            input: input.map(|size| LayerInput::new(w, dim, eps, size)).transpose()?,
            window: config.is_sliding(i).then_some(config.sliding_window),
            cache: config.cache_of(i)?,
        })
    }

    fn forward(
        &self,
        x: &Array,
        input: Option<&Array>,
        mask: &Mask,
        cache: &mut Cache,
    ) -> mlx_core::Result<Array> {
        let block = &self.block;
        let r = block.self_attn.forward(&block.input_layernorm.forward(x)?, mask, cache)?;
        let r = block.post_attention_layernorm.forward(&r)?;
        let (h, normed) = block.pre_feedforward_layernorm.forward_add(x, &r)?;
        let mut r = block.mlp.forward(&normed)?;
        if let Some(experts) = &self.experts {
            r = experts.forward(&h, &r)?;
        }
        let mut h = (h + block.post_feedforward_layernorm.forward(&r)?)?;
        if let (Some(layer), Some(input)) = (&self.input, input) {
            h = layer.forward(&h, input)?;
        }
        h * &*block.layer_scalar
    }
}

/// What each layer sees of the tokens themselves.
struct LayerInputs {
    embed_tokens_per_layer: Embedding,
    per_layer_model_projection: Linear,
    per_layer_projection_norm: RmsNorm,
}

impl LayerInputs {
    fn new(w: &Weights, config: &Config, size: i32) -> Result<Self> {
        let base = &config.base;
        let (vocab, dim) = (config.vocab_size_per_layer_input, base.hidden_size);
        let all = size * base.num_hidden_layers as i32;
        let norm = w.rms_norm("per_layer_projection_norm", size, base.rms_norm_eps)?;
        Ok(LayerInputs {
            embed_tokens_per_layer: w
                .in_part([1, vocab], || w.embedding("embed_tokens_per_layer", vocab, all))?,
            per_layer_model_projection: w.linear("per_layer_model_projection", dim, all, false)?,
            per_layer_projection_norm: norm,
        })
    }

    /// `tokens: [B, L]`, `h: [B, L, E] → [B, L, N, P]` for `N` layers
    fn forward(&self, tokens: &Array, h: &Array) -> mlx_core::Result<Array> {
        let [b, l, dim] = h.dims()?;
        let size = self.per_layer_projection_norm.weight.dim(0)?;
        let of_layers = |x: Array| x.reshape([b, l, -1, size]);
        let embedded = self.embed_tokens_per_layer.forward(tokens)?;
        let embedded = of_layers((embedded * (size as f32).sqrt())?)?;
        let projected = self.per_layer_model_projection.forward(h)?;
        let projected = of_layers((projected * (dim as f32).powf(-0.5))?)?;
        (self.per_layer_projection_norm.forward(&projected)? + embedded)? * 0.5f32.sqrt()
    }
}

struct Gemma4 {
    embed_tokens: Embedding,
    inputs: Option<LayerInputs>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Option<Linear>,
    embedding_scale: f32,
    soft_cap: Option<f32>,
}

mlx_core::module! {
    Experts {
        "router.proj" => router,
        "router.scale" => scale,
        "router.per_expert_scale" => per_expert_scale,
        "experts.switch_glu" => switch_glu,
        post_feedforward_layernorm_1,
        pre_feedforward_layernorm_2,
        post_feedforward_layernorm_2,
    }
    LayerInput { per_layer_input_gate, per_layer_projection, post_per_layer_input_norm }
    Block {
        self_attn,
        mlp,
        input_layernorm,
        post_attention_layernorm,
        pre_feedforward_layernorm,
        post_feedforward_layernorm,
        layer_scalar,
    }
    LayerInputs { embed_tokens_per_layer, per_layer_model_projection, per_layer_projection_norm }
    Gemma4 {
        "model" => inputs,
        "model.embed_tokens" => embed_tokens,
        "model.layers" => layers,
        "model.norm" => norm,
        lm_head,
    }
}

impl Module for Layer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.block.visit(visitor);
        self.experts.visit(visitor);
        self.input.visit(visitor);
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        self.block.visit_mut(visitor)?;
        self.experts.visit_mut(visitor)?;
        self.input.visit_mut(visitor)
    }
}

impl LanguageModel for Gemma4 {
    fn forward(&self, tokens: &Array, caches: &mut [Cache]) -> mlx_core::Result<Array> {
        let mut h = (self.embed_tokens.forward(tokens)? * self.embedding_scale)?;
        let inputs = self.inputs.as_ref().map(|inputs| inputs.forward(tokens, &h)).transpose()?;
        let n = tokens.dim(1)?;
        let mut masks = Masks::default();
        for (i, layer) in self.layers.iter().enumerate() {
            let input = inputs.as_ref().map(|inputs| inputs.at((.., .., i as i32))).transpose()?;
            let Some(cache) = caches.get_mut(layer.cache) else {
                let text = format!("layer {i} needs cache {}, which is not there", layer.cache);
                return Err(mlx_core::Error::new(ErrorKind::InvalidArgument, text));
            };
            // Made by the layer that has the cache, before it takes the tokens.
            let mask = masks.of(cache, n, layer.window)?;
            h = layer.forward(&h, input.as_ref(), mask, cache)?;
        }
        self.norm.forward(&h)
    }

    fn head(&self, hidden: &Array) -> mlx_core::Result<Array> {
        let logits = match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden)?,
            None => self.embed_tokens.as_linear(hidden)?,
        };
        let Some(cap) = self.soft_cap else { return Ok(logits) };
        (logits / cap)?.tanh()? * cap
    }

    fn make_cache(&self) -> Vec<Cache> {
        let own = self.layers.iter().enumerate().filter(|(i, layer)| layer.cache == *i);
        own.map(|(_, layer)| Cache::kv(layer.window)).collect()
    }
}

pub(super) fn build(w: &Weights, config: &ModelConfig) -> Result<Box<dyn LanguageModel>> {
    let config = Config::read(config)?;
    let base = &config.base;
    let (dim, vocab) = (base.hidden_size, base.vocab_size);
    let (model, inputs) = (w.at("model"), config.layer_input());
    let is_tied = base.tie_word_embeddings != Some(false);
    Ok(Box::new(Gemma4 {
        embed_tokens: model.embedding_or_head("embed_tokens", vocab, dim, is_tied)?,
        inputs: inputs.map(|size| LayerInputs::new(&model, &config, size)).transpose()?,
        layers: model.layers("layers", base.num_hidden_layers, |w, i| Layer::new(w, &config, i))?,
        norm: model.rms_norm("norm", dim, base.rms_norm_eps)?,
        lm_head: (!is_tied).then(|| w.linear("lm_head", dim, vocab, false)).transpose()?,
        embedding_scale: (dim as f32).sqrt(),
        soft_cap: config.final_logit_softcapping,
    }))
}
