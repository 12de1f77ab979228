//! Gated feed-forward layers.

use mlx_core::nn::{GatedActivation, Linear};
use mlx_core::{Array, Weights};

use crate::error::Result;

/// What a gated feed-forward layer is made from.
#[derive(Clone, Copy, Debug)]
pub struct MlpArgs {
    /// Size between its projections.
    pub intermediate_size: i32,
    /// Whether these have a bias.
    pub bias: bool,
    /// What gates them.
    pub activation: GatedActivation,
}

impl MlpArgs {
    /// Returns a SwiGLU without biases.
    pub fn new(intermediate_size: i32) -> MlpArgs {
        MlpArgs { intermediate_size, bias: false, activation: GatedActivation::Silu }
    }
}

/// `down(activation(gate(x)) * up(x))` (arXiv 2002.05202).
pub struct Mlp {
    gate_proj: Linear,
    down_proj: Linear,
    up_proj: Linear,
    activation: GatedActivation,
}

mlx_core::module! { Mlp { gate_proj, down_proj, up_proj } }

impl Mlp {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(w: &Weights, dim: i32, args: &MlpArgs) -> Result<Self> {
        let MlpArgs { intermediate_size, bias, activation } = *args;
        Ok(Mlp {
            gate_proj: w.linear("gate_proj", dim, intermediate_size, bias)?,
            down_proj: w.linear("down_proj", intermediate_size, dim, bias)?,
            up_proj: w.linear("up_proj", dim, intermediate_size, bias)?,
            activation,
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
        let (gate, up) = (&self.gate_proj, &self.up_proj);
        self.down_proj.forward(&Linear::forward_gated(gate, up, x, self.activation)?)
    }
}
