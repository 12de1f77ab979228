//! Rows of keys and values in memory, with room for more.

use std::ops::Range;

use mlx_core::nn::{KvRows, KvStore};
use mlx_core::{Array, Dtype, Error, ErrorKind, Quantization, Result, ops};

use super::{NewRows, Padding};
use crate::layers::mask::Mask;

/// Rows that the memory grows by.
const STEP: i32 = 256;

/// What caches keep rows in.
///
/// Rows lie in the order of time, new ones behind the others. Those of tokens that are no longer seen
/// stay until there is no room for new ones; then the others move to larger memory, or to as large.
#[derive(Default)]
pub(super) struct Store {
    /// Keys and values; absent before the first token, and while lent.
    rows: Option<[KvRows; 2]>,
    quantization: Option<Quantization>,
    /// Rows, those that are skipped among them.
    len: i32,
    /// Rows that are no longer seen.
    skipped: Range<i32>,
    /// Whether rows from `len` on may be seen by what was handed out.
    is_trimmed: bool,
    padding: Option<Padding>,
}

impl Store {
    /// Makes an empty one, of packed rows if a format is given.
    pub(super) fn new(quantization: Option<Quantization>) -> Store {
        Store { quantization, ..Store::default() }
    }

    /// Returns how many rows are seen.
    pub(super) fn n_seen(&self) -> i32 {
        self.len - (self.skipped.end - self.skipped.start)
    }

    /// Lets the oldest rows behind the first `keep` go, until `n` are seen.
    pub(super) fn shrink_to(&mut self, n: i32, keep: i32) {
        let excess = (self.n_seen() - n).max(0);
        match self.skipped.is_empty() {
            true if excess == 0 => {}
            true => self.skipped = keep..keep + excess,
            false => self.skipped.end += excess,
        }
    }

    /// Says which places of the batch hold no token.
    pub(super) fn pad(&mut self, padding: &Padding) {
        self.padding = Some(padding.clone());
    }

    /// Returns the position of what is at a place, for each sequence where they differ.
    pub(super) fn offsets(&self, place: i32) -> Result<Option<Array>> {
        self.padding.as_ref().map(|padding| padding.positions(place)).transpose()
    }

    /// Returns the mask of `n` tokens behind `place` others, of which the last `before` are seen.
    pub(super) fn mask(&self, [before, place, n]: [i32; 3], window: Option<i32>) -> Result<Mask> {
        match &self.padding {
            None => Ok(Mask::of(before, n, window)),
            Some(padding) => padding.mask(n, before + n, place - before, window),
        }
    }

    /// Forgets the last `n` rows.
    pub(super) fn trim(&mut self, n: i32) {
        self.len -= n;
        self.is_trimmed |= n > 0;
    }

    /// Makes room for rows behind the others.
    fn reserve(&mut self, new: &NewRows) -> Result<()> {
        let NewRows { batch, n, n_kv_heads, head_dim, value_dim, dtype } = *new;
        let room = match &self.rows {
            Some([keys, _]) => keys.dims()?[2] - self.len,
            None if self.len > 0 => return Err(lost()),
            None => 0,
        };
        if n <= room && !self.is_trimmed {
            return Ok(());
        }
        let grown = (STEP + n - 1) / STEP * STEP;
        let room = |d| KvRows::zeros([batch, n_kv_heads, grown, d], dtype, self.quantization);
        let room = [room(head_dim)?, room(value_dim)?];
        self.rows = Some(match self.rows.take() {
            None => room,
            Some([keys, values]) => {
                let [more_keys, more_values] = &room;
                [self.moved(keys, more_keys)?, self.moved(values, more_values)?]
            }
        });
        (self.len, self.skipped, self.is_trimmed) = (self.n_seen(), 0..0, false);
        Ok(())
    }

    /// Puts the rows that are seen in front of others.
    fn moved(&self, rows: KvRows, others: &KvRows) -> Result<KvRows> {
        let mut others = others.parts().into_iter();
        rows.map_into(|part| {
            let mut all = self.seen_of(&part)?;
            all.extend(others.next().cloned());
            ops::concatenate(&all, 2)
        })
    }

    /// Returns the rows that are seen, in one piece or two.
    fn seen_of(&self, part: &Array) -> Result<Vec<Array>> {
        let Range { start, end } = self.skipped;
        let back = part.at((.., .., end..self.len))?;
        Ok(match start {
            0 => vec![back],
            _ => vec![part.at((.., .., ..start))?, back],
        })
    }

    /// Gives the rows up, with room for new ones.
    pub(super) fn lend(&mut self, new: &NewRows, offset: i32) -> Result<Option<KvStore>> {
        self.reserve(new)?;
        let (len, skipped) = (self.len, self.skipped.clone());
        Ok(self.rows.take().map(|[keys, values]| KvStore { keys, values, len, offset, skipped }))
    }

    /// Takes them back.
    pub(super) fn put_back(&mut self, store: KvStore) {
        let KvStore { keys, values, len, skipped, .. } = store;
        (self.rows, self.len, self.skipped) = (Some([keys, values]), len, skipped);
    }

    /// Writes rows behind the others, and returns all that are seen.
    pub(super) fn append(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array)> {
        let ([batch, n_kv_heads, n, head_dim], [_, _, _, value_dim]) =
            (keys.dims()?, values.dims()?);
        let dtype = keys.dtype();
        self.reserve(&NewRows { batch, n, n_kv_heads, head_dim, value_dim, dtype })?;
        let Some([old_keys, old_values]) = self.rows.take() else { return Err(lost()) };
        let append = |old: KvRows, rows: &Array| {
            let rows = match self.quantization {
                Some(quantization) => KvRows::pack(rows, quantization)?,
                None => KvRows::Dense(rows.clone()),
            };
            old.append(&rows, self.len)
        };
        let rows = [append(old_keys, keys)?, append(old_values, values)?];
        self.len += n;
        let [keys, values] = &rows;
        let seen = (self.seen(keys, dtype)?, self.seen(values, dtype)?);
        self.rows = Some(rows);
        Ok(seen)
    }

    /// Returns all rows that are seen.
    pub(super) fn fetch(&self, dtype: Dtype) -> Result<(Array, Array)> {
        let Some([keys, values]) = &self.rows else { return Err(lost()) };
        Ok((self.seen(keys, dtype)?, self.seen(values, dtype)?))
    }

    fn seen(&self, rows: &KvRows, dtype: Dtype) -> Result<Array> {
        let seen = rows.map(|part| {
            let pieces = self.seen_of(part)?;
            match &pieces[..] {
                [one] => Ok(one.clone()),
                pieces => ops::concatenate(pieces, 2),
            }
        })?;
        seen.to_dense(dtype)
    }

    /// Packs the rows, and those that come.
    pub(super) fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        if self.quantization.is_some() {
            return Ok(());
        }
        if let Some([KvRows::Dense(keys), KvRows::Dense(values)]) = &self.rows {
            let pack = |rows| KvRows::pack(rows, quantization);
            self.rows = Some([pack(keys)?, pack(values)?]);
        }
        self.quantization = Some(quantization);
        Ok(())
    }

    /// Returns the arrays.
    pub(super) fn parts(&self) -> Vec<&Array> {
        self.rows.iter().flatten().flat_map(KvRows::parts).collect()
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Runtime,
        "a cache was lost with the step that failed; start with a new one",
    )
}
