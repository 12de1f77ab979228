//! A few queries along the rows of keys and values.

use std::ops::Range;

use super::exp::{exp, exp_all, soft_cap};
use super::rows::{Head, HeadRows, fetch};
use super::{Attention, Block, FEW, HIDDEN, KEYS, LANES, Mask, State, larger};
use crate::kernels::compute::isa::Level;
use crate::kernels::compute::matmul::Element;

/// The scores, then the weights, of a block of keys for each of a few queries.
type Rows = [[f32; KEYS]; FEW];

#[inline(always)]
pub(super) fn few<S: Level, T: Element>(
    a: &Attention<'_, T>,
    block: &Block,
    keys: Range<usize>,
    state: &mut State,
) {
    let [depth, depth_v] = a.depths();
    let (n_queries, n_chunks) = (block.queries.len(), depth.div_ceil(LANES));
    let mut q = vec![[0.0f32; LANES]; n_queries * n_chunks];
    for (i, q) in q.chunks_exact_mut(n_chunks.max(1)).enumerate() {
        let [b, h, l] = a.query(block, block.queries.start + i);
        for (x, q) in a.q.head(b, h).row(l).iter().zip(q.as_flattened_mut()) {
            *q = x.to_f32() * a.scale;
        }
    }
    let (k, v) = (a.k.head(block.batch, block.head), a.v.head(block.batch, block.head));
    let n_chunks_v = depth_v.div_ceil(LANES);
    let mut acc = vec![[0.0f32; LANES]; n_queries * n_chunks_v];
    let mut scores: Rows = [[0.0; KEYS]; FEW];
    let mut decay = [0.0; FEW];
    let is_packed = [&k, &v].into_iter().any(|rows| matches!(rows, HeadRows::Packed(_)));
    let mut block_rows = vec![0.0f32; if is_packed { KEYS * depth.max(depth_v) } else { 0 }];
    for start in keys.clone().step_by(KEYS) {
        let keys = start..(start + KEYS).min(keys.end);
        match &k {
            HeadRows::Dense(k) => score::<S, T>(k, keys.clone(), &q, n_queries, &mut scores),
            HeadRows::Packed(_) => {
                let block = widen_block::<S, T>(&k, keys.clone(), depth, &mut block_rows);
                score::<S, f32>(&block, 0..keys.len(), &q, n_queries, &mut scores);
            }
        }
        for r in 0..n_queries {
            let scores = &mut scores[r];
            if let Some(cap) = a.soft_cap {
                for score in scores.iter_mut() {
                    *score = soft_cap::<S>(*score, cap);
                }
            }
            mask_row(a, a.query(block, block.queries.start + r), keys.clone(), scores);
            scores[keys.len()..].fill(f32::NEG_INFINITY);
            decay[r] = weigh_row::<S>(scores, &mut state.max[r], &mut state.sum[r]);
        }
        match &v {
            HeadRows::Dense(v) => {
                add_values::<S, T>(v, keys, &scores, &decay, n_queries, &mut acc);
            }
            HeadRows::Packed(_) => {
                let block = widen_block::<S, T>(&v, keys.clone(), depth_v, &mut block_rows);
                add_values::<S, f32>(&block, 0..keys.len(), &scores, &decay, n_queries, &mut acc);
            }
        }
    }
    for (i, acc) in acc.chunks_exact(n_chunks_v).enumerate() {
        state.acc[i * depth_v..][..depth_v].copy_from_slice(&acc.as_flattened()[..depth_v]);
    }
}

/// Writes a block of keys or values in float32.
#[inline(always)]
fn widen_block<'a, S: Level, T: Element>(
    rows: &HeadRows<'_, T>,
    keys: Range<usize>,
    depth: usize,
    out: &'a mut [f32],
) -> Head<'a, f32> {
    let out = &mut out[..keys.len() * depth];
    for (key, out) in keys.zip(out.chunks_exact_mut(depth)) {
        rows.widen::<S>(key, out);
    }
    Head::of_block(out, depth)
}

/// Writes the scores of queries, as many keys at once as there are registers for sums.
#[inline(always)]
fn score<S: Level, T: Element>(
    k: &Head<'_, T>,
    keys: Range<usize>,
    q: &[[f32; LANES]],
    n_queries: usize,
    scores: &mut Rows,
) {
    match n_queries {
        1 => score_rows::<S, T, 1, 8>(k, keys, q, scores),
        2 => score_rows::<S, T, 2, 6>(k, keys, q, scores),
        3 => score_rows::<S, T, 3, 4>(k, keys, q, scores),
        _ => score_rows::<S, T, 4, 3>(k, keys, q, scores),
    }
}

/// Decays the sums of queries and adds values by their weights.
#[inline(always)]
fn add_values<S: Level, T: Element>(
    v: &Head<'_, T>,
    keys: Range<usize>,
    weights: &Rows,
    decay: &[f32; FEW],
    n_queries: usize,
    acc: &mut [[f32; LANES]],
) {
    match n_queries {
        1 => value_rows::<S, T, 1, 8>(v, keys, weights, decay, acc),
        2 => value_rows::<S, T, 2, 4>(v, keys, weights, decay, acc),
        3 => value_rows::<S, T, 3, 4>(v, keys, weights, decay, acc),
        _ => value_rows::<S, T, 4, 2>(v, keys, weights, decay, acc),
    }
}

/// Makes weights of scores and returns what those before are to be multiplied by.
#[inline(always)]
fn weigh_row<S: Level>(scores: &mut [f32; KEYS], max: &mut f32, sum: &mut f32) -> f32 {
    let mut top = [*max; LANES];
    for scores in scores.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            top[i] = larger(scores[i], top[i]);
        }
    }
    let new_max = top.iter().fold(*max, |max, &x| larger(x, max));
    let decay = exp::<S>(*max - new_max);
    scores.iter_mut().for_each(|score| *score -= new_max);
    exp_all::<S>(scores);
    let mut sums = [0.0; LANES];
    for scores in scores.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            sums[i] += scores[i];
        }
    }
    *max = new_max;
    *sum = *sum * decay + sums.iter().sum::<f32>();
    decay
}

/// Widens the first elements of a row, fewer than eight.
#[inline(always)]
fn last<S: Level, T: Element>(rest: &[T]) -> [f32; LANES] {
    let mut last = [T::default(); LANES];
    last[..rest.len()].copy_from_slice(rest);
    T::widen::<S>(&last)
}

/// Writes the scores of `R` queries, `J` keys at a time; `R * J` is a multiple of 4.
#[inline(always)]
fn score_rows<S: Level, T: Element, const R: usize, const J: usize>(
    k: &Head<'_, T>,
    keys: Range<usize>,
    q: &[[f32; LANES]],
    scores: &mut [[f32; KEYS]],
) {
    let (n_chunks, n_whole) = (k.depth.div_ceil(LANES), k.depth / LANES);
    let mut rows_of_q = [&[][..]; R];
    for r in 0..R {
        rows_of_q[r] = &q[r * n_chunks..][..n_chunks];
    }
    let scores = &mut scores[..R];
    for j in (0..keys.len()).step_by(J) {
        let (mut rows, mut rests) = ([&[][..]; J], [&[][..]; J]);
        for i in 0..J {
            // Those past the end again; what comes of them is hidden later.
            let row = k.row((keys.start + j + i).min(keys.end - 1));
            (rows[i], rests[i]) = row.as_chunks::<LANES>();
            rows[i] = &rows[i][..n_whole];
        }
        fetch::<S, T>(k, keys.start + KEYS + j, J);
        let mut sums = [[[0.0f32; LANES]; J]; R];
        for c in 0..n_whole {
            let mut k = [[0.0; LANES]; J];
            for i in 0..J {
                // SAFETY: rows were cut to `n_whole` chunks above.
                k[i] = T::widen::<S>(unsafe { rows[i].get_unchecked(c) });
            }
            for r in 0..R {
                // SAFETY: these were cut to no less.
                let q = *unsafe { rows_of_q[r].get_unchecked(c) };
                for i in 0..J {
                    sums[r][i] = S::fma8(q, k[i], sums[r][i]);
                }
            }
        }
        if n_whole < n_chunks {
            for i in 0..J {
                let k = last::<S, T>(rests[i]);
                for r in 0..R {
                    sums[r][i] = S::fma8(rows_of_q[r][n_whole], k, sums[r][i]);
                }
            }
        }
        for (group, sums) in sums.as_flattened().as_chunks::<4>().0.iter().enumerate() {
            for (i, total) in S::totals(sums).into_iter().enumerate() {
                let i = group * 4 + i;
                scores[i / J][j + i % J] = total;
            }
        }
    }
}

/// Decays the sums of `R` queries and adds values by their weights, `C` vectors at a time.
#[inline(always)]
fn value_rows<S: Level, T: Element, const R: usize, const C: usize>(
    v: &Head<'_, T>,
    keys: Range<usize>,
    weights: &[[f32; KEYS]],
    decay: &[f32],
    acc: &mut [[f32; LANES]],
) {
    let (n_chunks, n_whole) = (v.depth.div_ceil(LANES), v.depth / LANES);
    assert!(keys.len() <= KEYS && weights.len() >= R && acc.len() >= R * n_chunks, "sizes");
    let mut c0 = 0;
    while c0 + C <= n_whole {
        let mut sums = [[[0.0; LANES]; C]; R];
        for r in 0..R {
            for c in 0..C {
                for i in 0..LANES {
                    sums[r][c][i] = acc[r * n_chunks + c0 + c][i] * decay[r];
                }
            }
        }
        for (j, key) in keys.clone().enumerate() {
            let row = v.row(key);
            if c0 == 0 {
                fetch::<S, T>(v, key + KEYS, 1);
            }
            let mut values = [[0.0; LANES]; C];
            for c in 0..C {
                // SAFETY: `n_whole` chunks are in each row.
                values[c] =
                    T::widen::<S>(unsafe { row.as_chunks::<LANES>().0.get_unchecked(c0 + c) });
            }
            for r in 0..R {
                // SAFETY: as just asserted.
                let weight = [*unsafe { weights.get_unchecked(r).get_unchecked(j) }; LANES];
                for c in 0..C {
                    sums[r][c] = S::fma8(weight, values[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                acc[r * n_chunks + c0 + c] = sums[r][c];
            }
        }
        c0 += C;
    }
    for c in c0..n_chunks {
        for r in 0..R {
            for i in 0..LANES {
                acc[r * n_chunks + c][i] *= decay[r];
            }
        }
        for (j, key) in keys.clone().enumerate() {
            let (chunks, rest) = v.row(key).as_chunks::<LANES>();
            let values = match chunks.get(c) {
                Some(chunk) => T::widen::<S>(chunk),
                None => last::<S, T>(rest),
            };
            for r in 0..R {
                let acc = &mut acc[r * n_chunks + c];
                *acc = S::fma8([weights[r][j]; LANES], values, *acc);
            }
        }
    }
}

/// Applies the mask to the scores of one query.
#[inline(always)]
fn mask_row<T: Element>(
    a: &Attention<'_, T>,
    query: [usize; 3],
    keys: Range<usize>,
    scores: &mut [f32; KEYS],
) {
    match a.mask {
        Mask::None => {}
        Mask::Causal { .. } => {
            let visible = a.visible(query[2]);
            if visible.start > keys.start || visible.end < keys.end {
                for (key, score) in keys.zip(scores) {
                    if !visible.contains(&key) {
                        *score = HIDDEN;
                    }
                }
            }
        }
        Mask::Bool(mask) => mask.each(query, keys, |j, is_seen| {
            if is_seen == 0 {
                scores[j] = HIDDEN;
            }
        }),
        Mask::Additive(mask) => mask.each(query, keys, |j, x| scores[j] += x.to_f32()),
    }
}
