//! Which tokens a token sees.

use mlx_core::fast::AttentionMask;
use mlx_core::{Array, NewAxis, Result};

/// A mask made once for all layers that share it.
#[derive(Clone, Debug)]
pub enum Mask {
    /// Every token sees every token.
    None,
    /// A token sees itself and what is before it.
    Causal,
    /// Broadcasts to `[B, H, L, S]`; true where a token is seen.
    Array(Array),
}

impl Mask {
    /// Returns the form that the attention op takes.
    pub fn as_attention(&self) -> AttentionMask<'_> {
        match self {
            Mask::None => AttentionMask::None,
            Mask::Causal => AttentionMask::Causal,
            Mask::Array(mask) => AttentionMask::Array(mask),
        }
    }
}

/// Makes the mask of `n` tokens after `offset` others, each seeing the last `window` tokens.
///
/// # Shape
/// `[n, offset + n]`
///
/// # Errors
/// When memory runs out.
pub fn causal_mask(n: i32, offset: i32, window: Option<i32>) -> Result<Array> {
    let keys = Array::range(offset + n)?;
    let queries = keys.at((offset.., NewAxis))?;
    let mask = queries.greater_equal(&keys)?;
    match window {
        Some(window) => mask.logical_and(queries.less(keys.add(window)?)?),
        None => Ok(mask),
    }
}
