//! A cache that keeps every token.

use mlx_core::nn::KvStore;
use mlx_core::{Array, Dtype, Quantization, Result};

use super::store::Store;
use super::{KvCache, NewRows, Padding};
use crate::layers::mask::Mask;

/// Keeps every token; grows by 256 at a time.
///
/// Packed, keys and values are in groups along each row, and an element takes about as many bits as the
/// format has, and half a bit more for groups of 64.
#[derive(Default)]
pub struct FullCache {
    store: Store,
}

impl FullCache {
    /// Makes an empty cache of packed keys and values, in a format that has to be affine.
    pub fn packed(quantization: Quantization) -> FullCache {
        FullCache { store: Store::new(Some(quantization)) }
    }
}

impl KvCache for FullCache {
    /// As [`KvCache::update_and_fetch`]; what it returns is unpacked. [`KvCache::lend`] is the way
    /// to attend to rows as they are.
    fn update_and_fetch(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        self.store.append(keys, values)
    }

    fn fetch(&self, dtype: Dtype) -> Result<(Array, Array)> {
        self.store.fetch(dtype)
    }

    fn lend(&mut self, rows: &NewRows) -> Result<Option<KvStore>> {
        let offset = self.offset();
        self.store.lend(rows, offset)
    }

    fn put_back(&mut self, store: KvStore) {
        self.store.put_back(store);
    }

    fn offset(&self) -> i32 {
        self.store.n_seen()
    }

    fn pad(&mut self, padding: &Padding) {
        self.store.pad(padding);
    }

    fn offsets(&self) -> Result<Option<Array>> {
        self.store.offsets(self.offset())
    }

    fn make_mask(&self, n: i32, window: Option<i32>) -> Result<Mask> {
        self.store.mask([self.offset(), self.offset(), n], window)
    }

    fn trim(&mut self, n: i32) -> bool {
        self.store.trim(n.clamp(0, self.offset()));
        true
    }

    fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        self.store.quantize(quantization)
    }

    fn state(&self) -> Vec<&Array> {
        self.store.parts()
    }
}
