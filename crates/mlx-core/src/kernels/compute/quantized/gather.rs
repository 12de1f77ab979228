//! Products with weights chosen from a stack, `[E, N, K]`, as those of a mixture of experts are.
//!
//! A stack is one matrix of `E * N` rows, so a chosen weight is a range of them. Rows of activations
//! are rounded once, then brought together by the weight that they go to; all weights in use make
//! one job, whose parts are rows of one weight each.

use std::ops::Range;

use super::{Input, Layer, Rows, Scale, finish_gated, part_rows};
use crate::kernels::compute::activation::GatedActivation;
use crate::kernels::compute::routes::{Group, Routes, Scatter};
use crate::kernels::compute::rows::for_each;
use crate::kernels::compute::{Float, Isa, pool};

/// Writes the products, plus the bias of the weight in use, of each stack to its part of `outs`, `[M, N]`;
/// biases are `[E, N]`.
///
/// # Panics
/// When the activations were made for another format or size, or a size does not fit.
pub(crate) fn gather_matmul<S: Scale, T: Float>(
    isa: Isa,
    x: &Input,
    stacks: &[Layer<'_, S, T>],
    routes: &Routes,
    outs: &mut [&mut [T]],
) {
    assert_eq!(stacks.len(), outs.len(), "number of results");
    let outs: Vec<_> = stacks
        .iter()
        .zip(outs)
        .map(|(stack, out)| Scatter::new(out, rows_each(x, stack, routes), routes))
        .collect();
    let weights: Vec<_> = stacks.iter().map(|stack| &stack.w).collect();
    for_each_part(isa, x, &weights, routes, &|i, x, group, columns, rows| {
        let products = stacks[i].products(isa, x, rows.clone());
        let mut rounded = vec![T::default(); products.len()];
        let each = products.chunks_exact(rows.len()).zip(rounded.chunks_exact_mut(rows.len()));
        each.for_each(|(products, out)| stacks[i].finish(isa, products, rows.clone(), out));
        // SAFETY: the part's own columns.
        unsafe { outs[i].put(group, columns.start, &rounded) };
    });
}

/// Writes `function(a) * b` to `out`, `[M, N]`, where `a` and `b` are the results that [`gather_matmul`] has
/// for the two stacks, each rounded to its type.
///
/// # Panics
/// As there.
pub(crate) fn gather_gated_matmul<S: Scale, T: Float>(
    isa: Isa,
    x: &Input,
    function: GatedActivation,
    stacks: [Layer<'_, S, T>; 2],
    routes: &Routes,
    out: &mut [T],
) {
    let [n, other] = stacks.map(|stack| rows_each(x, &stack, routes));
    assert_eq!(n, other, "size of the weights");
    let out = Scatter::new(out, n, routes);
    // A part has rows of both; what it costs is that of rows twice as long.
    let twice = Rows { row_bytes: 2 * stacks[0].w.row_bytes, ..stacks[0].w };
    for_each_part(isa, x, &[&twice], routes, &|_, x, group, columns, rows| {
        let [a, b] = stacks.each_ref().map(|stack| stack.products(isa, x, rows.clone()));
        let both = a.chunks_exact(rows.len()).zip(b.chunks_exact(rows.len()));
        let mut gated = vec![T::default(); a.len()];
        for ((a, b), out) in both.zip(gated.chunks_exact_mut(rows.len())) {
            finish_gated(isa, function, &stacks, [a, b], rows.clone(), out);
        }
        // SAFETY: the part's own columns.
        unsafe { out.put(group, columns.start, &gated) };
    });
}

/// Returns `N`.
///
/// # Panics
/// When the stack goes with neither activations nor routes.
fn rows_each<S: Scale, T>(x: &Input, stack: &Layer<'_, S, T>, routes: &Routes) -> usize {
    x.check(&stack.w);
    assert_eq!(x.n_rows(), routes.n_inputs, "number of activations");
    let n = stack.w.n_rows / routes.n_matrices.max(1);
    assert_eq!(stack.w.n_rows, n * routes.n_matrices, "size of the weights");
    assert!(stack.bias.is_none_or(|bias| bias.len() == stack.w.n_rows), "size of the bias");
    n
}

/// What is done with a part: a stack's number, the activations that go to one of its weights, their
/// group, and some columns of their products, which are those rows of the stack.
type Part<'a> = dyn Fn(usize, &Input, &Group, Range<usize>, Range<usize>) + Sync + 'a;

/// Calls `part` with all rows of all weights in use, in parts, on several threads.
fn for_each_part<S: Scale>(
    isa: Isa,
    x: &Input,
    stacks: &[&Rows<'_, S>],
    routes: &Routes,
    part: &Part<'_>,
) {
    let groups = routes.groups();
    // One row of activations is what all weights are for.
    let mut selected: Vec<Option<Input>> = groups.iter().map(|_| None).collect();
    if x.n_rows() > 1 {
        for_each(groups.iter().zip(&mut selected), |(group, selected)| {
            *selected = Some(x.select(isa, group.routes.iter().map(|route| route.input)));
        });
    } else {
        for (group, selected) in groups.iter().zip(&mut selected) {
            if group.routes.len() > 1 {
                *selected = Some(x.select(isa, group.routes.iter().map(|_| 0)));
            }
        }
    }
    let rows_of = |w: &Rows<'_, S>| w.n_rows / routes.n_matrices;
    let all: usize = stacks.iter().map(|w| groups.len() * rows_of(w)).sum();
    let share = all.div_ceil(4 * pool::threads());
    let mut parts = Vec::new();
    for (i, w) in stacks.iter().enumerate() {
        let n = rows_of(w);
        for (g, group) in groups.iter().enumerate() {
            let step = part_rows(isa, w, group.routes.len(), share);
            for start in (0..n).step_by(step) {
                parts.push((i, g, start..(start + step).min(n)));
            }
        }
    }
    pool::run(parts.len(), &|p| {
        let (i, g, columns) = parts[p].clone();
        let first = groups[g].matrix * rows_of(stacks[i]);
        let rows = first + columns.start..first + columns.end;
        part(i, selected[g].as_ref().unwrap_or(x), &groups[g], columns, rows);
    });
}
