//! Caches: what the layers of a model remember of the tokens that they have seen.
//!
//! Keys and values are `[B, KV, S, D]`. A cache gives up its handle to the old arrays before it
//! writes, so that MLX reuses their memory: a handle that stayed would make every step copy the
//! whole cache.

mod full;
mod padding;
mod recurrent;
mod rotating;
mod store;

pub use full::FullCache;
pub use padding::Padding;
pub use recurrent::RecurrentCache;
pub use rotating::RotatingCache;

use mlx_core::nn::KvStore;
use mlx_core::{Array, Dtype, Error, ErrorKind, Quantization, Result};

use crate::layers::mask::Mask;

/// The memory of one layer.
pub enum Cache {
    /// Keys and values of each token.
    Kv(Box<dyn KvCache>),
    /// What a recurrence made of all tokens.
    Recurrent(RecurrentCache),
}

impl Cache {
    /// Makes a cache of keys and values: of the last `window` tokens, where there is a window.
    pub fn kv(window: Option<i32>) -> Cache {
        Cache::Kv(match window {
            Some(window) => Box::new(RotatingCache::new(window)),
            None => Box::new(FullCache::default()),
        })
    }

    /// Returns the keys and values.
    ///
    /// # Errors
    /// When it is the memory of another kind of layer.
    pub fn as_kv(&mut self) -> Result<&mut dyn KvCache> {
        match self {
            Cache::Kv(cache) => Ok(cache.as_mut()),
            Cache::Recurrent(_) => Err(of_another("keys and values", "a recurrence")),
        }
    }

    /// Returns the memory of a recurrence.
    ///
    /// # Errors
    /// When it is the memory of another kind of layer.
    pub fn as_recurrent(&mut self) -> Result<&mut RecurrentCache> {
        match self {
            Cache::Recurrent(cache) => Ok(cache),
            Cache::Kv(_) => Err(of_another("a recurrence", "keys and values")),
        }
    }

    /// Returns how many places have gone through, those of padding among them.
    pub fn offset(&self) -> i32 {
        match self {
            Cache::Kv(cache) => cache.offset(),
            Cache::Recurrent(cache) => cache.offset(),
        }
    }

    /// Says which places of the batch, whose first tokens are still to come, hold none.
    pub fn pad(&mut self, padding: &Padding) {
        match self {
            Cache::Kv(cache) => cache.pad(padding),
            Cache::Recurrent(cache) => cache.pad(padding),
        }
    }

    /// Forgets the last `n` tokens; returns false and changes nothing where it cannot.
    pub fn trim(&mut self, n: i32) -> bool {
        match self {
            Cache::Kv(cache) => cache.trim(n),
            Cache::Recurrent(_) => n == 0,
        }
    }

    /// Packs the keys and values that it has and those that come, where it has any.
    ///
    /// # Errors
    /// When rows are not of whole groups.
    pub fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        match self {
            Cache::Kv(cache) => cache.quantize(quantization),
            Cache::Recurrent(_) => Ok(()),
        }
    }

    /// Returns the arrays to evaluate after a part of the prompt.
    pub fn state(&self) -> Vec<&Array> {
        match self {
            Cache::Kv(cache) => cache.state(),
            Cache::Recurrent(cache) => cache.state(),
        }
    }
}

fn of_another(needed: &str, found: &str) -> Error {
    let text = format!("a layer needs a cache of {needed} and was given one of {found}");
    Error::new(ErrorKind::InvalidArgument, text)
}

/// The memory of one attention layer.
pub trait KvCache {
    /// Appends keys and values and returns all that the new rows may look at.
    ///
    /// # Errors
    /// When the shapes do not fit what is there.
    fn update_and_fetch(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)>;

    /// Returns what the last new rows may look at, for a layer that shares it; unpacked to this dtype
    /// where it is packed.
    ///
    /// # Errors
    /// When there is nothing in it.
    fn fetch(&self, dtype: Dtype) -> Result<(Array, Array)>;

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

    /// Returns the place of the next token: its position, where there is no padding.
    fn offset(&self) -> i32;

    /// Returns how many tokens it keeps at most; nothing where it keeps all.
    fn max_size(&self) -> Option<i32> {
        None
    }

    /// Says which places of the batch, whose first tokens are still to come, hold none.
    fn pad(&mut self, padding: &Padding);

    /// Returns the position of the next token of each sequence, `[B]`, where they differ.
    ///
    /// # Errors
    /// When memory runs out.
    fn offsets(&self) -> Result<Option<Array>>;

    /// Returns the mask for `n` new tokens, each seeing `window` tokens where there is a window.
    ///
    /// # Errors
    /// When memory runs out.
    fn make_mask(&self, n: i32, window: Option<i32>) -> Result<Mask>;

    /// Forgets the last `n` tokens; returns false and changes nothing where it cannot.
    fn trim(&mut self, n: i32) -> bool;

    /// Packs the tokens it has and those that come.
    ///
    /// # Errors
    /// When rows are not of whole groups.
    fn quantize(&mut self, quantization: Quantization) -> Result<()>;

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
