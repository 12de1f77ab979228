//! A cache of the last tokens only.

use mlx_core::nn::KvStore;
use mlx_core::{Array, Dtype, Quantization, Result};

use super::store::Store;
use super::{KvCache, NewRows, Padding};
use crate::layers::mask::Mask;

/// Keeps the last `max_size` tokens, and of a prompt's part also what the first of its tokens sees.
///
/// DIFFERENCE: mlx-lm's rows go round in a ring; these lie in the order of time, in memory that has
/// room for 256 more, and move to its front when that is used up: a move of all rows in 256 steps,
/// where each step reads all of them. So a window is a range of rows, and no mask goes round.
pub struct RotatingCache {
    store: Store,
    max_size: i32,
    keep: i32,
    offset: i32,
}

impl RotatingCache {
    /// Makes a cache of the last `max_size` tokens.
    pub fn new(max_size: i32) -> RotatingCache {
        RotatingCache::with_first(max_size, 0)
    }

    /// Makes a cache of `max_size` tokens: the first `keep` of all, and the last.
    pub fn with_first(max_size: i32, keep: i32) -> RotatingCache {
        let max_size = max_size.max(1);
        let keep = keep.clamp(0, max_size - 1);
        RotatingCache { store: Store::new(None), max_size, keep, offset: 0 }
    }

    /// Lets go what no new token sees: the first of them sees `max_size` tokens, itself among them.
    fn make_place(&mut self) {
        self.store.shrink_to(self.max_size - 1, self.keep);
    }
}

impl KvCache for RotatingCache {
    fn update_and_fetch(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        self.make_place();
        let seen = self.store.append(keys, values)?;
        self.offset += keys.dim(2)?;
        Ok(seen)
    }

    fn fetch(&self, dtype: Dtype) -> Result<(Array, Array)> {
        self.store.fetch(dtype)
    }

    fn lend(&mut self, rows: &NewRows) -> Result<Option<KvStore>> {
        self.make_place();
        self.store.lend(rows, self.offset)
    }

    fn put_back(&mut self, store: KvStore) {
        self.offset = store.offset;
        self.store.put_back(store);
    }

    fn offset(&self) -> i32 {
        self.offset
    }

    fn max_size(&self) -> Option<i32> {
        Some(self.max_size)
    }

    fn pad(&mut self, padding: &Padding) {
        self.store.pad(padding);
    }

    fn offsets(&self) -> Result<Option<Array>> {
        self.store.offsets(self.offset)
    }

    fn make_mask(&self, n: i32, window: Option<i32>) -> Result<Mask> {
        let before = self.offset.min(self.max_size - 1);
        self.store.mask([before, self.offset, n], Some(window.unwrap_or(self.max_size)))
    }

    fn trim(&mut self, n: i32) -> bool {
        // Once the ring has gone round, the tokens before are gone.
        if self.offset >= self.max_size {
            return n == 0;
        }
        let n = n.clamp(0, self.offset);
        self.store.trim(n);
        self.offset -= n;
        true
    }

    fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        self.store.quantize(quantization)
    }

    fn state(&self) -> Vec<&Array> {
        self.store.parts()
    }
}
