//! Gated feed-forward layers.

use mlx_core::nn::{GatedActivation, Linear};
use mlx_core::{Array, Weights};

use crate::error::Result;

/// `down(silu(gate(x)) * up(x))` (SwiGLU, arXiv 2002.05202).
pub struct Mlp {
    gate_proj: Linear,
    down_proj: Linear,
    up_proj: Linear,
}

mlx_core::module! { Mlp { gate_proj, down_proj, up_proj } }

impl Mlp {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(w: &Weights, dim: i32, hidden_dim: i32, bias: bool) -> Result<Self> {
        Ok(Mlp {
            gate_proj: w.linear("gate_proj", dim, hidden_dim, bias)?,
            down_proj: w.linear("down_proj", hidden_dim, dim, bias)?,
            up_proj: w.linear("up_proj", dim, hidden_dim, bias)?,
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
        self.down_proj.forward(&Linear::forward_gated(gate, up, x, GatedActivation::Silu)?)
    }
}
