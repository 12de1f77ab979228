//! Which tokens a token sees.

use mlx_core::fast::AttentionMask;
use mlx_core::{Array, NewAxis, Result};

use crate::cache::Cache;

/// A mask made once for all layers that share it.
#[derive(Clone, Debug)]
pub enum Mask {
    /// Every token sees every token.
    None,
    /// A token sees itself and what is before it.
    Causal,
    /// A token sees so many tokens up to itself.
    Window(i32),
    /// Broadcasts to `[B, H, L, S]`; true where a token is seen, or added to scores.
    Array(Array),
}

impl Mask {
    /// Returns the mask of `n` tokens after `before` others, each seeing the last `window` tokens.
    pub fn of(before: i32, n: i32, window: Option<i32>) -> Mask {
        match window {
            Some(window) if before + n > window => Mask::Window(window),
            _ if n == 1 => Mask::None,
            _ => Mask::Causal,
        }
    }

    /// Calls `f` with the form that the attention op takes, for `l` tokens that are the last of `s`.
    ///
    /// # Errors
    /// As `f`, and when memory runs out.
    pub fn with_attention<R>(
        &self,
        [l, s]: [i32; 2],
        f: impl FnOnce(AttentionMask<'_>) -> Result<R>,
    ) -> Result<R> {
        match self {
            Mask::None => f(AttentionMask::None),
            Mask::Causal => f(AttentionMask::Causal),
            Mask::Window(window) => f(AttentionMask::Array(&causal_mask(l, s - l, Some(*window))?)),
            Mask::Array(mask) => f(AttentionMask::Array(mask)),
        }
    }
}

/// The masks of the layers of a model, made when the first layer of a kind needs one.
#[derive(Default)]
pub struct Masks(Vec<(Option<i32>, Mask)>);

impl Masks {
    /// Returns the mask of a layer with this window, for `n` tokens behind those of its cache.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn of(&mut self, cache: &Cache, n: i32, window: Option<i32>) -> Result<&Mask> {
        let Cache::Kv(cache) = cache else { return Ok(&Mask::None) };
        let i = match self.0.iter().position(|(other, _)| *other == window) {
            Some(i) => i,
            None => {
                self.0.push((window, cache.make_mask(n, window)?));
                self.0.len() - 1
            }
        };
        Ok(&self.0[i].1)
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
