//! Rows of a matrix: sums over one, and many in parts for several threads where that pays.

use std::sync::{Mutex, PoisonError};

use super::{Float, pool};

/// Reductions run in this many independent lanes, which become vector registers.
pub(super) const LANES: usize = 32;

/// Returns `f` of all elements, folded by `combine` from `start`.
#[inline(always)]
pub(super) fn fold<T: Float>(
    row: &[T],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, x.to_f32());
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, x.to_f32());
    }
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        let (low, high) = lanes.split_at_mut(n);
        for (low, high) in low.iter_mut().zip(high) {
            *low = combine(*low, *high);
        }
    }
    lanes[0]
}

/// Below this many elements other threads are not worth waking.
const PARALLEL: usize = 1 << 16;

/// What a part has at least, so that taking it off the counter is nothing beside it.
const PART: usize = 1 << 13;

/// Returns how many rows make a part; all where one thread is to do them.
pub(crate) fn rows_per_part(n_rows: usize, row_len: usize) -> usize {
    let threads = pool::threads();
    if n_rows.saturating_mul(row_len) < PARALLEL || threads < 2 {
        return n_rows.max(1);
    }
    n_rows.div_ceil(4 * threads).max(PART.div_ceil(row_len.max(1)))
}

/// Calls `task` with each part, on several threads where there are several.
pub(crate) fn for_each<P: Send>(parts: impl Iterator<Item = P>, task: impl Fn(P) + Sync) {
    let mut parts = parts.peekable();
    let Some(first) = parts.next() else { return };
    if parts.peek().is_none() {
        return task(first);
    }
    let parts: Vec<Mutex<Option<P>>> =
        std::iter::once(first).chain(parts).map(|part| Mutex::new(Some(part))).collect();
    pool::run(parts.len(), &|i| {
        let part = parts[i].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(part) = part {
            task(part);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_counted_once() {
        for n in [0, 1, 31, 32, 33, 100] {
            let row: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let sum = fold(&row, 0.0, |sum, x| sum + x, |a, b| a + b);
            assert_eq!(sum, (n * (n - 1) / 2) as f32);
            let max = fold(&row, f32::NEG_INFINITY, f32::max, f32::max);
            assert_eq!(max, if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 });
        }
    }

    #[test]
    fn every_part_is_done_once() {
        for n in [0, 1, 2, 77] {
            let mut counts = vec![0; n];
            for_each(counts.iter_mut(), |count| *count += 1);
            assert_eq!(counts, vec![1; n]);
        }
        for (n_rows, row_len) in [(0, 0), (0, 5), (5, 0), (1, 1 << 20), (1 << 20, 1), (100, 4096)] {
            assert!(rows_per_part(n_rows, row_len) > 0);
        }
    }
}
