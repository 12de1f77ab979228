//! A cache that keeps every token.

use mlx_core::nn::KvStore;
use mlx_core::{Array, Dtype, Error, ErrorKind, Result, ops};

use super::{KvCache, NewRows, shape_with, write};
use crate::layers::mask::{Mask, causal_mask};

/// Rows that the store grows by.
const STEP: i32 = 256;

/// Keeps every token; grows by 256 at a time.
#[derive(Default)]
pub struct FullCache {
    keys: Option<Array>,
    values: Option<Array>,
    offset: i32,
    /// Whether rows from the offset on may be seen by what was handed out.
    is_trimmed: bool,
}

impl FullCache {
    /// Makes room for rows of a shape behind the first `offset`.
    fn reserve(
        store: &mut Option<Array>,
        shape: &[i32],
        dtype: Dtype,
        offset: i32,
        is_trimmed: bool,
    ) -> Result<()> {
        let n = shape[2];
        let capacity = store.as_ref().map_or(Ok(0), |store| store.dim(2))?;
        if offset + n <= capacity && !is_trimmed {
            return Ok(());
        }
        if store.is_none() && offset > 0 {
            return Err(Error::new(
                ErrorKind::Runtime,
                "a cache was lost with the step that failed; start with a new one",
            ));
        }
        let grown = (STEP + n - 1) / STEP * STEP;
        let room = ops::zeros(&shape_with(shape, grown), dtype)?;
        *store = Some(match store.take() {
            // Rows behind the offset are left over from a trim and would end up in the middle.
            Some(old) if offset % STEP != 0 || offset < capacity => {
                ops::concatenate([&old.at((.., .., ..offset))?, &room], 2)?
            }
            Some(old) => ops::concatenate([&old, &room], 2)?,
            None => room,
        });
        Ok(())
    }
}

impl KvCache for FullCache {
    fn update_and_fetch(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        let n = keys.dim(2)?;
        for (store, rows) in [(&mut self.keys, keys), (&mut self.values, values)] {
            Self::reserve(store, rows.shape(), rows.dtype(), self.offset, false)?;
            write(store, rows, self.offset)?;
        }
        self.offset += n;
        match (&self.keys, &self.values) {
            (Some(k), Some(v)) => {
                Ok((k.at((.., .., ..self.offset))?, v.at((.., .., ..self.offset))?))
            }
            _ => Ok((keys.clone(), values.clone())),
        }
    }

    fn lend(&mut self, rows: &NewRows) -> Result<Option<KvStore>> {
        let NewRows { batch, n, n_kv_heads, head_dim, value_dim, dtype } = *rows;
        for (store, dim) in [(&mut self.keys, head_dim), (&mut self.values, value_dim)] {
            let shape = [batch, n_kv_heads, n, dim];
            Self::reserve(store, &shape, dtype, self.offset, self.is_trimmed)?;
        }
        self.is_trimmed = false;
        let (keys, values) = (self.keys.take(), self.values.take());
        Ok(keys.zip(values).map(|(keys, values)| KvStore { keys, values, len: self.offset }))
    }

    fn put_back(&mut self, store: KvStore) {
        (self.keys, self.values) = (Some(store.keys), Some(store.values));
        self.offset = store.len;
    }

    fn offset(&self) -> i32 {
        self.offset
    }

    fn make_mask(&self, n: i32, window: Option<i32>) -> Result<Mask> {
        match window {
            Some(window) if self.offset + n > window => {
                Ok(Mask::Array(causal_mask(n, self.offset, Some(window))?))
            }
            _ if n == 1 => Ok(Mask::None),
            _ => Ok(Mask::Causal),
        }
    }

    fn trim(&mut self, n: i32) -> bool {
        self.offset -= n.clamp(0, self.offset);
        self.is_trimmed |= n > 0;
        true
    }

    fn state(&self) -> Vec<&Array> {
        self.keys.iter().chain(&self.values).collect()
    }
}
