//! Many queries in the lanes of panels.

use std::ops::Range;

use super::exp::{exp_all, soft_cap};
use super::{Attention, Block, HIDDEN, KEYS, LANES, Mask, State, larger};
use crate::kernels::compute::isa::Level;
use crate::kernels::compute::matmul::Element;

/// Something for each query of a panel.
type Lanes<const V: usize> = [[f32; LANES]; V];

/// What a panel's queries have seen.
#[derive(Clone, Copy)]
struct Seen<const V: usize> {
    max: Lanes<V>,
    sum: Lanes<V>,
}

/// Attends queries in panels of `V` vectors, `J` keys and `C` elements of values at a time.
#[inline(always)]
pub(super) fn many<S: Level, T: Element, const V: usize, const J: usize, const C: usize>(
    a: &Attention<'_, T>,
    block: &Block,
    keys: Range<usize>,
    state: &mut State,
) {
    let [depth, depth_v] = a.depths();
    let (n_queries, width) = (block.queries.len(), V * LANES);
    let (n_panels, n_tiles_v) = (n_queries.div_ceil(width), depth_v.div_ceil(C));
    let mut q = vec![[[0.0f32; LANES]; V]; n_panels * depth];
    for (i, query) in block.queries.clone().enumerate() {
        let [b, h, l] = a.query(block, query);
        let panel = q[i / width * depth..].iter_mut();
        for (x, lanes) in a.q.head(b, h).row(l).iter().zip(panel) {
            lanes.as_flattened_mut()[i % width] = x.to_f32() * a.scale;
        }
    }
    let (k, v) = (a.k.head(block.batch, block.head), a.v.head(block.batch, block.head));
    let mut k_block = vec![0.0f32; KEYS * depth];
    let mut v_block = vec![[0.0f32; C]; KEYS * n_tiles_v];
    let mut acc = vec![[[[0.0f32; LANES]; V]; C]; n_panels * n_tiles_v];
    let mut seen = vec![Seen { max: [[HIDDEN; LANES]; V], sum: [[0.0; LANES]; V] }; n_panels];
    let mut scores = [[[0.0f32; LANES]; V]; KEYS];
    for start in keys.clone().step_by(KEYS) {
        let keys = start..(start + KEYS).min(keys.end);
        for (j, key) in keys.clone().enumerate() {
            k.widen::<S>(key, &mut k_block[j * depth..][..depth]);
            let values = v_block[j * n_tiles_v..][..n_tiles_v].as_flattened_mut();
            v.widen::<S>(key, &mut values[..depth_v]);
        }
        // What is left there of the block before has no weight, but must be finite.
        v_block[keys.len() * n_tiles_v..].fill([0.0; C]);
        for panel in 0..n_panels {
            let first = block.queries.start + panel * width;
            let queries = first..(first + width).min(block.queries.end);
            let visible = a.visible_to(block, queries.clone());
            if visible.end <= keys.start || visible.start >= keys.end {
                continue;
            }
            let q = &q[panel * depth..][..depth];
            let n_tiles = keys.len().div_ceil(J);
            for (t, scores) in scores.as_chunks_mut::<J>().0[..n_tiles].iter_mut().enumerate() {
                if panel == 0 {
                    k.fetch::<S>(start + KEYS + t * J, J);
                }
                *scores = score_tile::<S, V, J>(&k_block[t * J * depth..][..J * depth], q);
            }
            let scores = &mut scores[..n_tiles * J];
            if let Some(cap) = a.soft_cap {
                for score in scores.as_flattened_mut().as_flattened_mut() {
                    *score = soft_cap::<S>(*score, cap);
                }
            }
            mask_panel(a, block, queries, keys.clone(), scores);
            scores[keys.len()..].fill([[f32::NEG_INFINITY; LANES]; V]);
            let decay = weigh::<S, V>(scores, &mut seen[panel]);
            let acc = &mut acc[panel * n_tiles_v..][..n_tiles_v];
            let n_fetched = KEYS.div_ceil(n_tiles_v);
            for (t, acc) in acc.iter_mut().enumerate() {
                if panel == 0 {
                    v.fetch::<S>(start + KEYS + t * n_fetched, n_fetched);
                }
                value_tile::<S, V, C>(scores, &v_block[t..], n_tiles_v, &decay, acc);
            }
        }
    }
    for i in 0..n_queries {
        let (panel, lane) = (i / width, i % width);
        state.max[i] = seen[panel].max.as_flattened()[lane];
        state.sum[i] = seen[panel].sum.as_flattened()[lane];
        let acc = acc[panel * n_tiles_v..][..n_tiles_v].as_flattened();
        for (out, acc) in state.acc[i * depth_v..][..depth_v].iter_mut().zip(acc) {
            *out = acc.as_flattened()[lane];
        }
    }
}

/// Returns the products of `J` keys and a panel of queries.
#[inline(always)]
fn score_tile<S: Level, const V: usize, const J: usize>(
    k: &[f32],
    q: &[Lanes<V>],
) -> [Lanes<V>; J] {
    let depth = q.len();
    assert_eq!(k.len(), J * depth, "size of the tile");
    let mut sums = [[[0.0; LANES]; V]; J];
    for (d, q) in q.iter().enumerate() {
        for j in 0..J {
            // SAFETY: less than `J * depth`.
            let x = [*unsafe { k.get_unchecked(j * depth + d) }; LANES];
            for i in 0..V {
                sums[j][i] = S::fma8(x, q[i], sums[j][i]);
            }
        }
    }
    sums
}

/// Decays a tile of sums and adds values, every `step`th of `v`, by their weights.
#[inline(always)]
fn value_tile<S: Level, const V: usize, const C: usize>(
    weights: &[Lanes<V>],
    v: &[[f32; C]],
    step: usize,
    decay: &Lanes<V>,
    acc: &mut [Lanes<V>; C],
) {
    assert!(weights.is_empty() || v.len() > (weights.len() - 1) * step, "size of the values");
    let mut sums = *acc;
    for c in 0..C {
        for i in 0..V {
            for lane in 0..LANES {
                sums[c][i][lane] *= decay[i][lane];
            }
        }
    }
    for (j, weights) in weights.iter().enumerate() {
        // SAFETY: as just asserted.
        let v = unsafe { v.get_unchecked(j * step) };
        for c in 0..C {
            let x = [v[c]; LANES];
            for i in 0..V {
                sums[c][i] = S::fma8(x, weights[i], sums[c][i]);
            }
        }
    }
    *acc = sums;
}

/// Makes weights of scores and returns what those before are to be multiplied by.
#[inline(always)]
fn weigh<S: Level, const V: usize>(scores: &mut [Lanes<V>], seen: &mut Seen<V>) -> Lanes<V> {
    let (mut max, mut sum, mut decay) = (seen.max, [[0.0; LANES]; V], [[0.0; LANES]; V]);
    for scores in &*scores {
        for i in 0..V {
            for lane in 0..LANES {
                max[i][lane] = larger(scores[i][lane], max[i][lane]);
            }
        }
    }
    for scores in &mut *scores {
        for i in 0..V {
            for lane in 0..LANES {
                scores[i][lane] -= max[i][lane];
            }
        }
    }
    exp_all::<S>(scores.as_flattened_mut().as_flattened_mut());
    for scores in &*scores {
        for i in 0..V {
            for lane in 0..LANES {
                sum[i][lane] += scores[i][lane];
            }
        }
    }
    for i in 0..V {
        for lane in 0..LANES {
            decay[i][lane] = seen.max[i][lane] - max[i][lane];
        }
    }
    exp_all::<S>(decay.as_flattened_mut());
    for i in 0..V {
        for lane in 0..LANES {
            seen.sum[i][lane] = seen.sum[i][lane] * decay[i][lane] + sum[i][lane];
        }
    }
    seen.max = max;
    decay
}

/// Applies the mask to the scores of a panel.
#[inline(always)]
fn mask_panel<T: Element, const V: usize>(
    a: &Attention<'_, T>,
    block: &Block,
    queries: Range<usize>,
    keys: Range<usize>,
    scores: &mut [Lanes<V>],
) {
    match a.mask {
        Mask::None => {}
        Mask::Causal { .. } => {
            // Relative to the block, so that they are small.
            let (mut starts, mut ends) = ([[0i32; LANES]; V], [[KEYS as i32; LANES]; V]);
            let relative = |key: usize| key.saturating_sub(keys.start).min(KEYS) as i32;
            let (mut is_cut, len) = (false, keys.len() as i32);
            for (lane, query) in queries.enumerate() {
                let visible = a.visible(a.query(block, query)[2]);
                let (start, end) = (relative(visible.start), relative(visible.end));
                is_cut |= start > 0 || end < len;
                starts.as_flattened_mut()[lane] = start;
                ends.as_flattened_mut()[lane] = end;
            }
            if !is_cut {
                return;
            }
            for (j, scores) in scores.iter_mut().enumerate() {
                let j = j as i32;
                for i in 0..V {
                    for lane in 0..LANES {
                        let is_seen = (starts[i][lane] <= j) & (j < ends[i][lane]);
                        scores[i][lane] = if is_seen { scores[i][lane] } else { HIDDEN };
                    }
                }
            }
        }
        Mask::Bool(mask) => {
            for (lane, query) in queries.enumerate() {
                mask.each(a.query(block, query), keys.clone(), |j, is_seen| {
                    let score = &mut scores[j].as_flattened_mut()[lane];
                    *score = if is_seen != 0 { *score } else { HIDDEN };
                });
            }
        }
        Mask::Additive(mask) => {
            for (lane, query) in queries.enumerate() {
                mask.each(a.query(block, query), keys.clone(), |j, x| {
                    scores[j].as_flattened_mut()[lane] += x.to_f32();
                });
            }
        }
    }
}
