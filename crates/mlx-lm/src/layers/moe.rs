//! Mixtures of experts: feed-forward layers of which each token uses some.

use mlx_core::nn::{GatedActivation, Linear, SwitchGlu};
use mlx_core::{Array, Weights, ops};

use super::check_size;
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
}

impl MoeArgs {
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
        Ok(())
    }
}

/// Experts, a layer that chooses among them for each token, and the sum of what these give.
pub struct Moe {
    gate: Linear,
    switch_mlp: SwitchGlu,
    top_k: i32,
    router: Router,
}

mlx_core::module! { Moe { gate, switch_mlp } }

impl Moe {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(w: &Weights, dim: i32, args: &MoeArgs) -> Result<Self> {
        let MoeArgs { intermediate_size, n_experts, top_k, .. } = *args;
        let silu = GatedActivation::Silu;
        Ok(Moe {
            gate: w.linear("gate", dim, n_experts, false)?,
            switch_mlp: w.switch_glu(
                "switch_mlp",
                dim,
                intermediate_size,
                n_experts,
                silu,
                false,
            )?,
            top_k,
            router: args.router.clone(),
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
        let (chosen, weights) = self.route(x)?;
        let y = self.switch_mlp.forward(x, &chosen)?;
        (y * weights.astype(x.dtype())?.expand_dims(-1))?.sum(-2, false)
    }

    /// Returns which experts each token goes to, and the weight of each, `[B, L, k]`.
    fn route(&self, x: &Array) -> mlx_core::Result<(Array, Array)> {
        let outputs = self.gate.forward(x)?;
        let top = |scores: &Array| {
            let order = scores.negative()?.argpartition(self.top_k - 1, -1)?;
            order.at((.., .., ..self.top_k))
        };
        match self.router {
            Router::SoftmaxOfAll { normalize } => {
                let scores = outputs.softmax(-1, true)?;
                let chosen = top(&scores)?;
                let weights = scores.take_along_axis(&chosen, -1)?;
                let weights = match normalize {
                    true => ops::divide(&weights, weights.sum(-1, true)?)?,
                    false => weights,
                };
                Ok((chosen, weights))
            }
            Router::SoftmaxOfChosen => {
                let chosen = top(&outputs)?;
                let weights = outputs.take_along_axis(&chosen, -1)?.softmax(-1, true)?;
                Ok((chosen, weights))
            }
        }
    }
}
