//! A cache of the last tokens only.

use mlx_core::{Array, Result, ops};

use super::{KvCache, shape_with, write};
use crate::layers::mask::{Mask, causal_mask};

/// Rows that the store grows by until it is full.
const STEP: i32 = 256;

/// Keeps the last `max_size` tokens: single tokens go round in a ring, several at once put the
/// ring in order of time first.
pub struct RotatingCache {
    keys: Option<Array>,
    values: Option<Array>,
    max_size: i32,
    offset: i32,
    /// Where the next single token goes.
    index: i32,
}

impl RotatingCache {
    /// Makes a cache of the last `max_size` tokens.
    pub fn new(max_size: i32) -> RotatingCache {
        RotatingCache { keys: None, values: None, max_size, offset: 0, index: 0 }
    }

    /// Puts a store in order of time, without the rows that no token has filled.
    fn in_order(&self, store: &Array) -> Result<Array> {
        let capacity = store.dim(2)?;
        if self.index == capacity {
            Ok(store.clone())
        } else if self.index < self.offset {
            let old = store.at((.., .., self.index..))?;
            ops::concatenate([&old, &store.at((.., .., ..self.index))?], 2)
        } else {
            store.at((.., .., ..self.index))
        }
    }

    fn append_many(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        let n = keys.dim(2)?;
        let join = |store: &Option<Array>, rows: &Array| -> Result<Array> {
            let Some(store) = store else { return Ok(rows.clone()) };
            let ordered = self.in_order(store)?;
            // The first new token still sees the last `max_size - 1` tokens before it.
            let excess = (ordered.dim(2)? - self.max_size + 1).max(0);
            ops::concatenate([&ordered.at((.., .., excess..))?, rows], 2)
        };
        let (k, v) = (join(&self.keys, keys)?, join(&self.values, values)?);
        self.offset += n;
        self.index = k.dim(2)?;
        (self.keys, self.values) = (Some(k.clone()), Some(v.clone()));
        Ok((k, v))
    }

    fn append_one(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        let capacity = self.keys.as_ref().map_or(Ok(0), |k| k.dim(2))?;
        if self.index >= capacity && capacity < self.max_size {
            let grown = STEP.min(self.max_size - capacity);
            for (store, rows) in [(&mut self.keys, keys), (&mut self.values, values)] {
                let room = ops::zeros(&shape_with(rows.shape(), grown), rows.dtype())?;
                *store = Some(match store.take() {
                    Some(old) => ops::concatenate([&old, &room], 2)?,
                    None => room,
                });
            }
        }
        let capacity = self.keys.as_ref().map_or(Ok(0), |k| k.dim(2))?;
        if capacity > self.max_size {
            let excess = capacity - self.max_size;
            for store in [&mut self.keys, &mut self.values] {
                if let Some(old) = store.take() {
                    *store = Some(old.at((.., .., excess..))?);
                }
            }
            self.index = self.max_size;
        }
        if self.index == self.max_size {
            self.index = 0;
        }
        write(&mut self.keys, keys, self.index)?;
        write(&mut self.values, values, self.index)?;
        self.offset += 1;
        self.index += 1;
        match (&self.keys, &self.values) {
            (Some(k), Some(v)) if self.offset < self.max_size => {
                Ok((k.at((.., .., ..self.offset))?, v.at((.., .., ..self.offset))?))
            }
            (Some(k), Some(v)) => Ok((k.clone(), v.clone())),
            _ => Ok((keys.clone(), values.clone())),
        }
    }
}

impl KvCache for RotatingCache {
    fn update_and_fetch(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        if keys.dim(2)? == 1 {
            self.append_one(keys, values)
        } else {
            self.append_many(keys, values)
        }
    }

    fn offset(&self) -> i32 {
        self.offset
    }

    fn make_mask(&self, n: i32, window: Option<i32>) -> Result<Mask> {
        let max_size = self.max_size;
        if n > 1 {
            let window = window.unwrap_or(max_size);
            let offset = self.offset.min(max_size - 1);
            if offset + n <= window {
                return Ok(Mask::Causal);
            }
            return Ok(Mask::Array(causal_mask(n, offset, Some(window))?));
        }
        let Some(window) = window.filter(|&w| self.offset >= w && max_size > w) else {
            return Ok(Mask::None);
        };
        let index = if self.index >= max_size { 0 } else { self.index };
        let size = (self.offset + 1).min(max_size);
        let is_recent = Array::range(size)?.greater_equal(size - window)?;
        Ok(Mask::Array(is_recent.roll(index + 1, None)?))
    }

    fn trim(&mut self, n: i32) -> bool {
        // Once the ring has gone round, the tokens before are gone.
        if self.offset >= self.max_size {
            return n == 0;
        }
        let n = n.clamp(0, self.offset);
        self.offset -= n;
        self.index -= n;
        true
    }

    fn state(&self) -> Vec<&Array> {
        self.keys.iter().chain(&self.values).collect()
    }
}
