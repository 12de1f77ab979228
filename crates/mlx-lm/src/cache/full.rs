//! A cache that keeps every token.

use mlx_core::{Array, Result, ops};

use super::{KvCache, shape_with, write};
use crate::layers::mask::{Mask, causal_mask};

/// Rows that the store grows by.
const STEP: i32 = 256;

/// Keeps every token; grows by 256 at a time.
#[derive(Default)]
pub struct FullCache {
    keys: Option<Array>,
    values: Option<Array>,
    offset: i32,
}

impl FullCache {
    fn reserve(store: &mut Option<Array>, rows: &Array, offset: i32) -> Result<()> {
        let n = rows.dim(2)?;
        let capacity = store.as_ref().map_or(Ok(0), |store| store.dim(2))?;
        if offset + n <= capacity {
            return Ok(());
        }
        let grown = (STEP + n - 1) / STEP * STEP;
        let room = ops::zeros(&shape_with(rows.shape(), grown), rows.dtype())?;
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
            Self::reserve(store, rows, self.offset)?;
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
        true
    }

    fn state(&self) -> Vec<&Array> {
        self.keys.iter().chain(&self.values).collect()
    }
}
