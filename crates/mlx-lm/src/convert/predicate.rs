//! Which layers are quantized, and how.

use mlx_core::{Dtype, QuantMode, Quantization};

use super::recipe::RecipePlan;
use crate::error::Result;

/// Decides how each layer is quantized. It is called once for each, and what it says goes into both the
/// weights and the configuration.
pub trait QuantPredicate {
    /// Decides on a layer.
    ///
    /// # Errors
    /// Any; it ends the conversion before anything is written.
    fn decide(&mut self, layer: &LayerInfo<'_>) -> Result<Decision>;
}

/// A layer that can be quantized.
#[derive(Clone, Copy, Debug)]
pub struct LayerInfo<'a> {
    /// Its path, as mlx-lm names it: `model.layers.0.mlp.down_proj`.
    pub path: &'a str,
    /// The shape of its weight, `[…, D, E]`; experts and heads are along further axes in front.
    pub shape: &'a [i32],
    /// The type that its weight has before it is quantized.
    pub dtype: Dtype,
    /// What is meant by [`Decision::Default`].
    pub default: Quantization,
    /// What the model's family asks for, which protects layers that choose among experts.
    pub family: Decision,
}

/// What becomes of a layer. One whose rows are no whole groups stays dense in any event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is not quantized.
    Dense,
    /// It is quantized as the options say.
    Default,
    /// It is quantized like this.
    Packed(Quantization),
}

/// What routers are quantized in.
pub(super) const ROUTER: Quantization =
    Quantization { group_size: 64, bits: 8, mode: QuantMode::Affine };

/// What a family asks for, and a recipe for the rest.
pub(super) struct Composed(pub(super) Option<RecipePlan>);

impl QuantPredicate for Composed {
    fn decide(&mut self, layer: &LayerInfo<'_>) -> Result<Decision> {
        Ok(match (&self.0, layer.family) {
            (Some(recipe), Decision::Default) => Decision::Packed(recipe.quantization(layer)),
            (_, family) => family,
        })
    }
}
