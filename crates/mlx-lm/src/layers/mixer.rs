//! What lets a token know of those before it: attention, or a recurrence.

use mlx_core::nn::Module;
use mlx_core::{Array, Result};

use super::mask::Mask;
use crate::cache::Cache;

/// The part of a layer that looks at other tokens.
pub trait Mixer: Module {
    /// Applies it, and remembers the tokens.
    ///
    /// # Shape
    /// `x: [B, L, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit, or the cache is that of another kind of layer.
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array>;

    /// Makes an empty memory, which need not go back further than the window.
    fn make_cache(&self, window: Option<i32>) -> Cache;
}
