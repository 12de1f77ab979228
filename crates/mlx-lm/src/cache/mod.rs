//! Key-value caches: what a model remembers of the tokens that it has seen.
//!
//! Keys and values are `[B, KV, S, D]`. A cache gives up its handle to the old arrays before it
//! writes, so that MLX reuses their memory: a handle that stayed would make every step copy the
//! whole cache.

mod full;
mod quantized;
mod rotating;
mod store;

pub use full::FullCache;
pub use quantized::QuantizedCache;
pub use rotating::RotatingCache;

use mlx_core::nn::KvStore;
use mlx_core::{Array, Dtype, Quantization, Result};

use crate::layers::mask::Mask;

/// The memory of one attention layer.
pub trait KvCache {
    /// Appends keys and values and returns all that the new rows may look at.
    ///
    /// # Errors
    /// When the shapes do not fit what is there.
    fn update_and_fetch(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)>;

    /// Gives its arrays up, with room for the tokens of `rows`, if it keeps tokens in order; they come
    /// back by [`put_back`](KvCache::put_back), without which they are lost.
    ///
    /// # Errors
    /// When the shapes do not fit what is there.
    fn lend(&mut self, _rows: &NewRows) -> Result<Option<KvStore>> {
        Ok(None)
    }

    /// Takes the arrays back that were lent, with new tokens.
    fn put_back(&mut self, _store: KvStore) {}

    /// Returns the position of the next token.
    fn offset(&self) -> i32;

    /// Returns the mask for `n` new tokens, each seeing `window` tokens where there is a window.
    ///
    /// # Errors
    /// When memory runs out.
    fn make_mask(&self, n: i32, window: Option<i32>) -> Result<Mask>;

    /// Forgets the last `n` tokens; returns false and changes nothing where it cannot.
    fn trim(&mut self, n: i32) -> bool;

    /// Packs the tokens it has and those that come; returns the cache that has them now, if that is
    /// another one.
    ///
    /// # Errors
    /// When rows are not of whole groups.
    fn quantize(&mut self, _quantization: Quantization) -> Result<Option<Box<dyn KvCache>>> {
        Ok(None)
    }

    /// Returns the arrays to evaluate after a part of the prompt.
    fn state(&self) -> Vec<&Array>;
}

/// Tokens that are about to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRows {
    /// Number of sequences.
    pub batch: i32,
    /// Number of new tokens of each.
    pub n: i32,
    /// Number of key and value heads.
    pub n_kv_heads: i32,
    /// Size of a key.
    pub head_dim: i32,
    /// Size of a value.
    pub value_dim: i32,
    /// Element type of both.
    pub dtype: Dtype,
}

#[cfg(test)]
mod tests;
