//! Mixtures of experts: feed-forward layers of which each token uses some.

use mlx_core::nn::{GatedActivation, Linear, Module, Param, SwitchGlu, Visitor, VisitorMut};
use mlx_core::{Array, Dtype, Weights, ops};

use super::check_size;
use super::mlp::{Mlp, MlpArgs};
use crate::error::{Error, Result};

/// How tokens are given to experts, from the router's outputs.
#[derive(Clone, Debug)]
pub enum Router {
    /// A softmax over all, of which the greatest are kept; `normalize` has them sum to one.
    SoftmaxOfAll {
        /// Whether the weights of those chosen sum to one.
        normalize: bool,
    },
    /// A softmax over the outputs of those chosen, the greatest.
    SoftmaxOfChosen,
    /// Sigmoids (DeepSeek-V3, arXiv 2412.19437), in float32.
    Sigmoid(SigmoidRouter),
}

/// Chooses by sigmoids and a bias that weights do not see.
#[derive(Clone, Debug)]
pub struct SigmoidRouter {
    /// The name of the bias, from the layer's.
    pub bias: &'static str,
    /// Whether the router's input is brought to float32, not only its outputs.
    pub wide_input: bool,
    /// Experts are in so many groups, of which only some are chosen from.
    pub n_group: i32,
    /// How many groups these are: those with the greatest sum of their two best.
    pub topk_group: i32,
    /// Whether the weights of those chosen sum to one.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// What a mixture of experts is made from.
#[derive(Clone, Debug)]
pub struct MoeArgs {
    /// The name of the layer, by which its tensors are found.
    pub name: &'static str,
    /// Size between the projections of an expert.
    pub intermediate_size: i32,
    /// Number of experts.
    pub n_experts: i32,
    /// Number of experts that a token goes to.
    pub top_k: i32,
    /// How these are chosen.
    pub router: Router,
    /// The experts to which every token goes, where there are any.
    pub shared: Option<SharedArgs>,
    /// What the experts apply.
    pub activation: GatedActivation,
    /// Whether the router and the experts have biases.
    pub bias: bool,
}

/// What experts to which every token goes are made from.
#[derive(Clone, Debug)]
pub struct SharedArgs {
    /// The name of the layer, from that of all experts.
    pub name: &'static str,
    /// Size between its projections.
    pub intermediate_size: i32,
    /// Whether a sigmoid of the token, by `shared_expert_gate`, says how much they count.
    pub has_gate: bool,
}

impl SharedArgs {
    /// Returns `shared_experts` as large as `n` of so much.
    pub fn experts(n: i32, intermediate_size: i32) -> SharedArgs {
        let intermediate_size = intermediate_size.saturating_mul(n);
        SharedArgs { name: "shared_experts", intermediate_size, has_gate: false }
    }
}

impl MoeArgs {
    /// Returns SwiGLU experts `mlp` without biases, and without those to which every token goes.
    pub fn new(n_experts: i32, top_k: i32, intermediate_size: i32, router: Router) -> MoeArgs {
        MoeArgs {
            name: "mlp",
            intermediate_size,
            n_experts,
            top_k,
            router,
            shared: None,
            activation: GatedActivation::Silu,
            bias: false,
        }
    }

    /// Refuses numbers that no model has.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<()> {
        check_size("moe_intermediate_size", self.intermediate_size)?;
        check_size("num_experts", self.n_experts)?;
        if !(1..=self.n_experts).contains(&self.top_k) {
            let text = format!("{} of {} experts for each token", self.top_k, self.n_experts);
            return Err(Error::format("config.json", text));
        }
        check_size("shared_experts", self.shared.as_ref().map_or(1, |s| s.intermediate_size))?;
        let Router::Sigmoid(SigmoidRouter { n_group, topk_group, .. }) = self.router else {
            return Ok(());
        };
        let has_groups = n_group >= 1 && self.n_experts % n_group == 0;
        let has_two = n_group == 1 || self.n_experts / n_group.max(1) >= 2;
        if !has_groups || !has_two || !(1..=n_group).contains(&topk_group) {
            let text = format!("{topk_group} of {n_group} groups of {} experts", self.n_experts);
            return Err(Error::format("config.json", text));
        }
        Ok(())
    }
}

/// Experts, a layer that chooses among them for each token, and the sum of what these give.
pub struct Moe {
    gate: Gate,
    switch_mlp: SwitchGlu,
    shared: Option<Mlp>,
    shared_name: &'static str,
    shared_gate: Option<Linear>,
}

impl Module for Moe {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.gate.visit(visitor);
        visitor.child("switch_mlp", &self.switch_mlp);
        visitor.child(self.shared_name, &self.shared);
        visitor.child("shared_expert_gate", &self.shared_gate);
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        self.gate.visit_mut(visitor)?;
        visitor.child("switch_mlp", &mut self.switch_mlp)?;
        visitor.child(self.shared_name, &mut self.shared)?;
        visitor.child("shared_expert_gate", &mut self.shared_gate)
    }
}

impl Moe {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(w: &Weights, dim: i32, args: &MoeArgs) -> Result<Self> {
        let MoeArgs { intermediate_size, n_experts, top_k, activation, bias, .. } = *args;
        let shared = args.shared.as_ref();
        let has_shared_gate = shared.is_some_and(|shared| shared.has_gate);
        Ok(Moe {
            gate: Gate::new(w, dim, args)?,
            switch_mlp: w.in_part([top_k, n_experts], || {
                w.switch_glu("switch_mlp", dim, intermediate_size, n_experts, activation, bias)
            })?,
            shared: shared
                .map(|args| Mlp::new(&w.at(args.name), dim, &MlpArgs::new(args.intermediate_size)))
                .transpose()?,
            shared_name: shared.map_or("shared_experts", |shared| shared.name),
            shared_gate: match has_shared_gate {
                true => Some(w.linear("shared_expert_gate", dim, 1, false)?),
                false => None,
            },
        })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: [B, L, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array) -> mlx_core::Result<Array> {
        let y = self.gate.weigh(x, |chosen| self.switch_mlp.forward(x, chosen))?;
        let Some(shared) = &self.shared else { return Ok(y) };
        let shared = shared.forward(x)?;
        match &self.shared_gate {
            Some(gate) => y + (gate.forward(x)?.sigmoid()? * shared)?,
            None => y + shared,
        }
    }
}

/// The layer that chooses among experts, `gate`, and the bias on what it gives.
pub struct Gate {
    linear: Linear,
    /// `[N]`
    correction: Option<Param>,
    top_k: i32,
    router: Router,
}

impl Module for Gate {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.child("gate", &self.linear);
        visitor.child(self.bias(), &self.correction);
    }

    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> mlx_core::Result<()> {
        visitor.child("gate", &mut self.linear)?;
        visitor.child(self.bias(), &mut self.correction)
    }
}

impl Gate {
    /// Takes the weights, which lie among those of all experts.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(w: &Weights, dim: i32, args: &MoeArgs) -> Result<Gate> {
        let MoeArgs { n_experts, top_k, bias, .. } = *args;
        Ok(Gate {
            linear: w.linear("gate", dim, n_experts, bias)?,
            correction: match &args.router {
                Router::Sigmoid(router) => Some(w.param_in_float32(router.bias, &[n_experts])?),
                _ => None,
            },
            top_k,
            router: args.router.clone(),
        })
    }

    /// The name of the bias, from that of all experts.
    fn bias(&self) -> &'static str {
        match &self.router {
            Router::Sigmoid(router) => router.bias,
            _ => "e_score_correction_bias",
        }
    }

    /// Returns the weighted sum, `[B, L, E]`, of what `experts` gives for those that are chosen for
    /// tokens `x`: `[B, L, k, E]` for indices `[B, L, k]`.
    ///
    /// # Errors
    /// Those of `experts`, and when the shapes do not fit.
    pub fn weigh(
        &self,
        x: &Array,
        experts: impl FnOnce(&Array) -> mlx_core::Result<Array>,
    ) -> mlx_core::Result<Array> {
        let (chosen, weights) = self.route(x)?;
        (experts(&chosen)? * weights.expand_dims(-1))?.sum(-2, false)?.astype(x.dtype())
    }

    /// Returns which experts each token goes to, and the weight of each, `[B, L, k]`.
    fn route(&self, x: &Array) -> mlx_core::Result<(Array, Array)> {
        let top = |scores: &Array| {
            let order = scores.negative()?.argpartition(self.top_k - 1, -1)?;
            order.at((.., .., ..self.top_k))
        };
        let normalized = |weights: Array| ops::divide(&weights, weights.sum(-1, true)?);
        match &self.router {
            Router::SoftmaxOfAll { normalize } => {
                let scores = self.linear.forward(x)?.softmax(-1, true)?;
                let chosen = top(&scores)?;
                let weights = scores.take_along_axis(&chosen, -1)?;
                Ok((chosen, if *normalize { normalized(weights)? } else { weights }))
            }
            Router::SoftmaxOfChosen => {
                let outputs = self.linear.forward(x)?;
                let chosen = top(&outputs)?;
                let weights = outputs.take_along_axis(&chosen, -1)?.softmax(-1, true)?;
                Ok((chosen, weights))
            }
            Router::Sigmoid(router) => {
                let outputs = match router.wide_input {
                    true => self.linear.forward(&x.astype(Dtype::Float32)?)?,
                    false => self.linear.forward(x)?,
                };
                let scores = outputs.astype(Dtype::Float32)?.sigmoid()?;
                let corrected = match &self.correction {
                    Some(bias) => (&scores + &**bias)?,
                    None => scores.clone(),
                };
                let chosen = top(&router.within_groups(corrected)?)?;
                let weights = scores.take_along_axis(&chosen, -1)?;
                let is_normalized = router.normalize && self.top_k > 1;
                let weights = if is_normalized { normalized(weights)? } else { weights };
                Ok((chosen, (weights * router.scale)?))
            }
        }
    }
}

impl SigmoidRouter {
    /// Sets scores, `[B, L, N]`, to minus infinity but for those of the best groups.
    ///
    /// DIFFERENCE: mlx-lm sets them to 0, which wins over negative scores.
    fn within_groups(&self, scores: Array) -> mlx_core::Result<Array> {
        if self.n_group == 1 {
            return Ok(scores);
        }
        let [b, l, n] = scores.dims()?;
        let groups = scores.reshape([b, l, self.n_group, -1])?;
        let of_group = groups.topk(2, -1)?.sum(-1, false)?;
        let least = of_group.topk(self.topk_group, -1)?.min(-1, true)?;
        let is_best = of_group.greater_equal(least)?.expand_dims(-1)?;
        ops::where_(&is_best, &groups, f32::NEG_INFINITY)?.reshape([b, l, n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(n_group: i32, topk_group: i32) -> SigmoidRouter {
        let bias = "gate.e_score_correction_bias";
        SigmoidRouter { bias, wide_input: false, n_group, topk_group, normalize: true, scale: 1.0 }
    }

    fn within(n_group: i32, topk_group: i32, scores: &[f32]) -> Vec<f32> {
        let scores = Array::from_slice(scores, &[1, 1, scores.len() as i32]).expect("scores");
        let within = router(n_group, topk_group).within_groups(scores);
        within.and_then(|scores| scores.to_vec()).expect("scores")
    }

    #[test]
    fn groups_are_judged_by_their_two_best() {
        const NO: f32 = f32::NEG_INFINITY;
        // Sums of two: -1, 1.1, 1.2; the greatest alone is in the first.
        let scores = [2.0, -3.0, -3.0, 0.6, 0.5, -9.0, 0.6, 0.6, 0.1];
        assert_eq!(within(3, 1, &scores), [NO, NO, NO, NO, NO, NO, 0.6, 0.6, 0.1]);
        assert_eq!(within(3, 2, &scores), [NO, NO, NO, 0.6, 0.5, -9.0, 0.6, 0.6, 0.1]);
        assert_eq!(within(3, 3, &scores), scores);
        assert_eq!(within(1, 1, &scores), scores);
    }

    #[test]
    fn numbers_that_no_model_has_are_refused() {
        let args = |top_k, router| MoeArgs::new(6, top_k, 8, router);
        let sigmoid = |n_group, topk_group| Router::Sigmoid(router(n_group, topk_group));
        for top_k in [0, -1, 7] {
            assert!(args(top_k, Router::SoftmaxOfChosen).check().is_err(), "{top_k}");
        }
        for (n_group, topk_group) in [(0, 1), (4, 1), (6, 1), (3, 0), (3, 4), (-3, 1)] {
            let check = args(2, sigmoid(n_group, topk_group)).check();
            assert!(check.is_err(), "{topk_group} of {n_group}");
        }
        for (n_group, topk_group) in [(1, 1), (3, 2), (2, 1)] {
            args(2, sigmoid(n_group, topk_group)).check().expect("sizes of a model");
        }
    }
}
