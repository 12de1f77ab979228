//! Sums of a weight's rows, `x × w`, in float32 with rows unpacked on the way.

use std::ops::Range;

use super::exact::{BLOCK, GROUPS, in_own_order, unpack_row};
use super::{CHUNK, PART_BYTES, Rows, Scale};
use crate::kernels::compute::isa::{Level, multiversion};
use crate::kernels::compute::routes::{Group, Routes, Scatter};
use crate::kernels::compute::{Float, Isa, pool};

/// Bytes of sums that stay in the second-level cache while rows pass.
const SUMS_BYTES: usize = 128 * 1024;

/// Writes `x × w` of each route to `out`, `[M, K]`: `x: [M, N]`, and `w` a stack of `[N, K]`.
///
/// # Panics
/// When a size does not fit.
pub(crate) fn gather_sums<S: Scale, T: Float>(
    isa: Isa,
    x: &[T],
    w: &Rows<'_, S>,
    routes: &Routes,
    out: &mut [T],
) {
    let n = w.n_rows / routes.n_matrices.max(1);
    assert_eq!((x.len(), w.n_rows), (routes.n_inputs * n, routes.n_matrices * n), "sizes");
    let out = Scatter::new(out, w.k, routes);
    let (groups, n_chunks) = (routes.groups(), w.k.div_ceil(CHUNK));
    let all: usize = groups.len() * n_chunks;
    let mut parts = Vec::new();
    for group in groups {
        let chunk_bytes = n * CHUNK * w.format.bits() / 8;
        let step = (PART_BYTES / chunk_bytes.max(1)).min(all.div_ceil(4 * pool::threads()));
        let most = SUMS_BYTES / (group.routes.len() * CHUNK * size_of::<f32>()).max(1);
        let step = step.max(n_chunks.div_ceil(64)).min(most).max(1);
        for start in (0..n_chunks).step_by(step) {
            parts.push((group, start..(start + step).min(n_chunks)));
        }
    }
    pool::run(parts.len(), &|p| {
        let (group, chunks) = (parts[p].0, parts[p].1.clone());
        // As they are read: row by row of the weight.
        let x: Vec<f32> = (0..n)
            .flat_map(|i| group.routes.iter().map(move |route| x[route.input * n + i].to_f32()))
            .collect();
        let sums = part_sums(isa, &x, w, group, chunks.clone());
        let (first, len) = (chunks.start * CHUNK, chunks.len() * CHUNK);
        let columns = len.min(w.k - first);
        let mut rounded = vec![T::default(); group.routes.len() * columns];
        for (sums, rounded) in sums.chunks_exact(len).zip(rounded.chunks_exact_mut(columns)) {
            let chunks = sums.as_chunks::<CHUNK>().0.iter().zip(rounded.chunks_mut(CHUNK));
            for (sums, rounded) in chunks {
                for (sum, rounded) in in_own_order(w.format, sums).iter().zip(rounded) {
                    *rounded = T::from_f32(*sum);
                }
            }
        }
        // SAFETY: the part's own columns.
        unsafe { out.put(group, first, &rounded) };
    });
}

multiversion! {
    fn part_sums[S: Scale] =
        part_sums_body(x: &[f32], w: &Rows<'_, S>, group: &Group, chunks: Range<usize>) -> Vec<f32>
}

/// Returns the sums of some chunks, `[M, columns]`, in the order that [`unpack_row`] has; `x` is `[N, M]`.
#[inline(always)]
fn part_sums_body<L: Level, S: Scale>(
    x: &[f32],
    w: &Rows<'_, S>,
    group: &Group,
    chunks: Range<usize>,
) -> Vec<f32> {
    let (m, len) = (group.routes.len(), chunks.len() * CHUNK);
    // A chunk of the padding may belong to groups that are not there.
    let room = w.n_groups() + GROUPS;
    let (mut scales, mut biases) = (vec![0.0; room], vec![0.0; room]);
    let (mut weights, mut factors) = (vec![0.0f32; len], vec![0.0f32; len / BLOCK]);
    let mut sums = vec![0.0f32; m * len];
    let first = group.matrix * (x.len() / m.max(1));
    for (i, x) in x.chunks_exact(m).enumerate() {
        w.factors(first + i, 0..w.n_groups(), 0.0, &mut scales, &mut biases);
        let known = [&scales[..], &biases[..]];
        unpack_row::<L, S>(w, first + i, chunks.start, known, &mut weights, &mut factors);
        for (sums, &x) in sums.chunks_exact_mut(len).zip(x) {
            match w.biases.is_empty() {
                false => add::<L>(x, &weights, sums),
                true => add_scaled::<L>(x, &weights, &factors, sums),
            }
        }
    }
    sums
}

#[inline(always)]
fn add<L: Level>(x: f32, weights: &[f32], sums: &mut [f32]) {
    let (weights, sums) = (weights.as_chunks::<BLOCK>().0, sums.as_chunks_mut::<BLOCK>().0);
    for (sums, weights) in sums.iter_mut().zip(weights) {
        *sums = L::fma8([x; BLOCK], *weights, *sums);
    }
}

/// Does as [`add`] with factors on the products of each block.
#[inline(always)]
fn add_scaled<L: Level>(x: f32, weights: &[f32], factors: &[f32], sums: &mut [f32]) {
    let (weights, sums) = (weights.as_chunks::<BLOCK>().0, sums.as_chunks_mut::<BLOCK>().0);
    for ((sums, weights), &factor) in sums.iter_mut().zip(weights).zip(factors) {
        let mut products = *weights;
        for product in &mut products {
            *product *= x;
        }
        *sums = L::fma8(products, [factor; BLOCK], *sums);
    }
}
