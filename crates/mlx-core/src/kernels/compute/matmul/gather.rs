//! Products with dense weights chosen from a stack, as those of a mixture of experts are.

use std::borrow::Cow;

use super::{CHUNK, Dense, Element, Out, WeightRows, arranged, few_part, many, part_columns};
use crate::kernels::compute::routes::{Group, Routes};
use crate::kernels::compute::rows::for_each;
use crate::kernels::compute::{Isa, pool};

/// A weight in use, `[N, K]`.
struct Task<'a, T: Element> {
    weight: Cow<'a, [T]>,
    /// What goes to it, where that is a few rows.
    few: Vec<[f32; CHUNK]>,
    /// Else.
    many: Vec<T>,
}

/// Writes the products, plus the bias of the weight in use, to `out`, `[M, N]`: `x: [M, K]`, `bias: [E, N]`,
/// and `weight(i)` is the `i`th of the stack, `[N, K]`.
///
/// Weights that a few rows go to are one job; those with more have a job each.
///
/// # Panics
/// When a size does not fit.
pub(crate) fn gather_matmul<'a, T: Element>(
    isa: Isa,
    x: &[T],
    [n, k]: [usize; 2],
    weight: &(dyn Fn(usize) -> Cow<'a, [T]> + Sync),
    bias: Option<&[T]>,
    routes: &Routes,
    out: &mut [T],
) {
    assert_eq!((x.len(), out.len()), (routes.n_inputs * k, routes.n_outputs * n), "sizes");
    assert!(bias.is_none_or(|bias| bias.len() == routes.n_matrices * n), "size of the bias");
    let groups = routes.groups();
    let data = out.as_mut_ptr();
    let outs: Vec<_> = groups
        .iter()
        .map(|group| Out {
            data,
            n_rows: group.routes.len(),
            n_columns: n,
            bias: bias.map(|bias| &bias[group.matrix * n..][..n]),
            routes: Some(&group.routes),
        })
        .collect();
    let mut tasks: Vec<Option<Task<'a, T>>> = groups.iter().map(|_| None).collect();
    for_each(groups.iter().zip(&mut tasks), |(group, slot)| {
        *slot = Some(task(x, k, group, weight(group.matrix)));
    });
    let dense = |i: usize| tasks[i].as_ref().map(|task| (task, Dense::new(&task.weight, n, k)));
    let (few, rest): (Vec<_>, Vec<_>) = (0..groups.len()).partition(|&i| is_few::<T>(&groups[i]));
    let step = part_columns(few.len() * n, k, 24);
    let columns = (0..n).step_by(step).map(|start| start..(start + step).min(n));
    let parts: Vec<_> =
        few.into_iter().flat_map(|i| columns.clone().map(move |columns| (i, columns))).collect();
    pool::run(parts.len(), &|p| {
        let (i, columns) = parts[p].clone();
        if let Some((task, w)) = dense(i) {
            few_part(isa, &task.few, &w, columns, &outs[i]);
        }
    });
    for i in rest {
        if let Some((task, w)) = dense(i) {
            many(isa, &task.many, &w, &outs[i]);
        }
    }
}

fn is_few<T: Element>(group: &Group) -> bool {
    group.routes.len() <= <Dense<'_, T> as WeightRows>::FEW
}

/// Brings the rows together that go to a weight.
fn task<'a, T: Element>(x: &[T], k: usize, group: &Group, weight: Cow<'a, [T]>) -> Task<'a, T> {
    let rows = group.routes.iter().map(|route| &x[route.input * k..][..k]);
    if is_few::<T>(group) {
        return Task { weight, few: arranged::<T, Dense<'_, T>>(rows, k), many: vec![] };
    }
    let mut many = Vec::with_capacity(rows.len() * k);
    rows.for_each(|row| many.extend_from_slice(row));
    Task { weight, few: vec![], many }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::matmul::matmul;
    use crate::kernels::compute::{cases, most};

    /// Multiples of an eighth that every element type has, and sums of them exactly.
    fn values(seed: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7 + seed) * 2_654_435_761 % 64) as f32 / 8.0 - 4.0).collect()
    }

    fn check(n: usize, k: usize, m: usize, n_weights: usize, pairs: &[[usize; 2]]) {
        let n_blocks = pairs.iter().map(|pair| pair[0] + 1).max().unwrap_or(1);
        let (x, w) = (values(1, n_blocks * m * k), values(2, n_weights * n * k));
        let bias = values(3, n_weights * n);
        let routes = Routes::new(pairs, m, n_blocks, n_weights).expect("in range");
        for isa in Isa::available() {
            for is_owned in [false, true] {
                let mut out = vec![f32::NAN; pairs.len() * m * n];
                let weight = |i: usize| match (&w[i * n * k..][..n * k], is_owned) {
                    (w, true) => Cow::Owned(w.to_vec()),
                    (w, false) => Cow::Borrowed(w),
                };
                gather_matmul(isa, &x, [n, k], &weight, Some(&bias), &routes, &mut out);
                let mut expected = vec![f32::NAN; m * n];
                for (&[block, i], out) in pairs.iter().zip(out.chunks_exact((m * n).max(1))) {
                    let (x, bias) = (&x[block * m * k..][..m * k], &bias[i * n..][..n]);
                    let w = Dense::new(&w[i * n * k..][..n * k], n, k);
                    matmul(Isa::SCALAR, x, &w, Some(bias), &mut expected);
                    assert_eq!(out, expected, "{} {n} {k} {m}", isa.name());
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(64))]

        #[test]
        fn products_are_those_with_each_weight_by_itself(
            n in 0..most(60),
            k in 0..most(70),
            m in 1usize..4,
            n_weights in 1usize..6,
            pairs in prop::collection::vec((0usize..7, any::<usize>()), 0..20),
        ) {
            let pairs: Vec<_> = pairs.into_iter().map(|(a, b)| [a, b % n_weights]).collect();
            check(n, k, m, n_weights, &pairs);
        }
    }

    #[test]
    fn many_rows_for_one_weight_and_few_for_another() {
        let pairs: Vec<_> = (0..90).map(|p| [p % 13, if p < 20 { 2 } else { 0 }]).collect();
        check(most(70), most(300), 1, 3, &pairs);
        check(5, most(17), 2, 3, &pairs);
    }
}
