//! Heads of queries, keys and values on their way from the projections to attention.

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::norm::scale_row;
use super::pool;
use super::rope::rotate_row;
use super::rows::rows_per_part;

/// Rows `[B, L, H, D]` and what becomes of each.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a, T> {
    pub(crate) x: &'a [T],
    /// `[B, L, H, D]`
    pub(crate) shape: [usize; 4],
    /// Weight, `[D]`, and epsilon of a norm over each row.
    pub(crate) norm: Option<(&'a [T], f32)>,
    pub(crate) rotation: Option<Rotation<'a>>,
}

/// The rotation of rows by their position.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    /// `[L, dims]`: what [`fill_table`](super::rope::fill_table) writes.
    pub(crate) table: &'a [f32],
    pub(crate) dims: usize,
    /// Pairs neighbours instead of halves.
    pub(crate) traditional: bool,
}

/// Where rows go.
pub(crate) struct Destination<T> {
    pub(crate) out: *mut [T],
    /// The place of the first row.
    pub(crate) start: usize,
    /// Elements from one of `B`, `L` and `H` to the next.
    pub(crate) strides: [usize; 3],
}

/// Norms and rotates rows, and writes them to where they go.
///
/// # Safety
/// The destination is valid for writes, and nobody else reads or writes the places of rows.
///
/// # Panics
/// When sizes do not fit, or places overlap.
pub(crate) unsafe fn place<T: Float>(isa: Isa, heads: Heads<'_, T>, to: Destination<T>) {
    let [b, l, h, d] = heads.shape;
    assert_eq!(heads.x.len(), b * l * h * d, "size of the heads");
    assert!(heads.norm.is_none_or(|(weight, _)| weight.len() == d), "size of the norm");
    if let Some(Rotation { table, dims, .. }) = heads.rotation {
        assert!(table.len() == l * dims && dims <= d && dims % 2 == 0, "size of the rotation");
    }
    if heads.x.is_empty() {
        return;
    }
    let reach = to.strides.iter().zip([b, l, h]).map(|(stride, n)| stride * (n - 1)).sum::<usize>();
    assert!(to.start + reach + d <= to.out.len(), "end of the destination");
    assert!(are_apart(to.strides, [b, l, h], d), "places of rows");
    let out = Out { data: to.out.cast::<T>(), start: to.start, strides: to.strides };
    let n_rows = b * l * h;
    let step = rows_per_part(n_rows, d);
    pool::run(n_rows.div_ceil(step), &|part| {
        place_part(isa, &heads, part * step, step.min(n_rows - part * step), &out);
    });
}

/// Tells whether no two rows of `d` elements have a place in common.
fn are_apart(strides: [usize; 3], counts: [usize; 3], d: usize) -> bool {
    let mut axes: Vec<_> = strides.into_iter().zip(counts).filter(|&(_, n)| n > 1).collect();
    axes.sort_unstable();
    let mut reach = d;
    axes.into_iter().all(|(stride, n)| {
        let fits = stride >= reach;
        reach += stride * (n - 1);
        fits
    })
}

struct Out<T> {
    data: *mut T,
    start: usize,
    strides: [usize; 3],
}

// SAFETY: the parts of a job write distinct rows, which are apart.
unsafe impl<T: Send> Sync for Out<T> {}

multiversion! {
    fn place_part[T: Float] =
        place_body(heads: &Heads<'_, T>, first: usize, n: usize, out: &Out<T>)
}

#[inline(always)]
fn place_body<S: Level, T: Float>(heads: &Heads<'_, T>, first: usize, n: usize, out: &Out<T>) {
    let [_, l, h, d] = heads.shape;
    let mut normed = vec![T::default(); if heads.norm.is_some() { d } else { 0 }];
    for (row, mut x) in (first..first + n).zip(heads.x[first * d..].chunks_exact(d)) {
        let at = [row / (l * h), row / h % l, row % h];
        let place = at.iter().zip(out.strides).map(|(i, stride)| i * stride).sum::<usize>();
        // SAFETY: `place` saw that the last row ends within the slice and that no two meet; this one is
        // written by this part alone, and by nobody else, as its caller promised.
        let out = unsafe { std::slice::from_raw_parts_mut(out.data.add(out.start + place), d) };
        if let Some((weight, eps)) = heads.norm {
            scale_row::<S, T>(x, weight, eps, &mut normed);
            x = &normed;
        }
        match heads.rotation {
            Some(Rotation { table, dims, traditional }) => {
                rotate_row::<S, T>(x, &table[at[1] * dims..][..dims], traditional, out);
            }
            None => out.copy_from_slice(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::compute::{norm, rope};

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7).sin()).collect()
    }

    /// Against the kernels that do one step each.
    #[test]
    fn rows_are_normed_rotated_and_placed() {
        let [b, l, h, d] = [2, 5, 3, 8];
        let (x, weight) = (values(b * l * h * d), values(d));
        let table = values(l * 6);
        for isa in Isa::available() {
            for (has_norm, has_rotation, traditional) in [
                (false, false, false),
                (true, false, false),
                (false, true, true),
                (true, true, false),
            ] {
                let mut expected = x.clone();
                if has_norm {
                    norm::rms_norm(isa, &x, &weight, 1e-5, &mut expected);
                }
                // Heads before positions, as `rope` has them.
                let mut swapped = vec![0.0; x.len()];
                for row in 0..b * l * h {
                    let [i, j, k] = [row / (l * h), row / h % l, row % h];
                    swapped[((i * h + k) * l + j) * d..][..d]
                        .copy_from_slice(&expected[row * d..][..d]);
                }
                let mut expected = swapped.clone();
                if has_rotation {
                    let layout = rope::Layout {
                        d,
                        dims: 6,
                        length: l,
                        heads: h,
                        by_batch: false,
                        traditional,
                    };
                    rope::rope(isa, &swapped, layout, &table, &mut expected);
                }
                // Into rows 2 to 7 of a store of 9.
                let mut out = vec![7.0; b * h * 9 * d];
                let rotation = Rotation { table: &table, dims: 6, traditional };
                let heads = Heads {
                    x: &x,
                    shape: [b, l, h, d],
                    norm: has_norm.then_some((&weight[..], 1e-5)),
                    rotation: has_rotation.then_some(rotation),
                };
                let strides = [h * 9 * d, d, 9 * d];
                let to = Destination { out: &raw mut out[..], start: 2 * d, strides };
                // SAFETY: the vector is ours.
                unsafe { place(isa, heads, to) };
                for (i, out) in out.chunks_exact(9 * d).enumerate() {
                    assert_eq!(out[..2 * d], vec![7.0; 2 * d]);
                    assert_eq!(out[2 * d..7 * d], expected[i * l * d..][..l * d], "{}", isa.name());
                    assert_eq!(out[7 * d..], vec![7.0; 2 * d]);
                }
            }
        }
    }

    #[test]
    fn rows_that_meet_are_found() {
        assert!(are_apart([90, 8, 30], [2, 3, 3], 8));
        assert!(are_apart([0, 8, 30], [1, 3, 3], 8));
        assert!(!are_apart([90, 8, 20], [2, 3, 3], 8));
        assert!(!are_apart([70, 8, 30], [2, 3, 3], 8));
        assert!(!are_apart([0, 8, 30], [2, 3, 3], 8));
    }
}
