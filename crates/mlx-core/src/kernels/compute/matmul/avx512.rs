//! Tiles of many rows of activations by AVX-512: 12 rows of weights by 32 of activations, whose 24 sums
//! leave room for two vectors of activations and a weight. Each weight is read once for both, so that
//! there are 14 loads for 24 products; the first-level cache feeds two a cycle.

use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

use super::{BLOCK, Element, MAX_ROWS, Out, PANEL, PART_ROWS, WeightRows};
use crate::kernels::compute::isa::Avx2;

/// Rows of weights of a tile.
const R: usize = 12;

const _: () = assert!(PART_ROWS.is_multiple_of(R) && PANEL == 16);

/// Writes a part's columns of some rows, as `many_part` does.
///
/// # Safety
/// No other thread may have these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn many_part<W: WeightRows, T: Element>(
    panels: &[[f32; PANEL]],
    w: &W,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &Out<'_, T>,
) {
    let n_panels = rows.len().div_ceil(PANEL);
    let n_tiles = columns.len().div_ceil(R);
    let mut sums = [[[[0.0f32; PANEL]; R]; PART_ROWS / R]; MAX_ROWS / PANEL];
    let mut weights = [[[0.0f32; BLOCK]; R]; PART_ROWS / R];
    for k0 in (0..w.depth()).step_by(BLOCK) {
        let len = BLOCK.min(w.depth() - k0);
        for (column, weights) in columns.clone().zip(weights.as_flattened_mut()) {
            w.unpack::<Avx2>(column, k0, &mut weights[..len]);
        }
        let part = |panel: usize| &panels[panel * w.depth()..][k0..k0 + len];
        for first in (0..n_panels).step_by(2) {
            let is_pair = first + 1 < n_panels;
            for (t, weights) in weights[..n_tiles].iter().enumerate() {
                match is_pair {
                    true => {
                        let mut both = [sums[first][t], sums[first + 1][t]];
                        tile(weights, [part(first), part(first + 1)], &mut both);
                        [sums[first][t], sums[first + 1][t]] = both;
                    }
                    false => {
                        let mut one = [sums[first][t]];
                        tile(weights, [part(first)], &mut one);
                        [sums[first][t]] = one;
                    }
                }
            }
        }
    }
    for row in rows.clone() {
        let i = row - rows.start;
        let values: [[f32; R]; PART_ROWS / R] =
            array::from_fn(|t| array::from_fn(|r| sums[i / PANEL][t][r][i % PANEL]));
        // SAFETY: the part's own columns.
        unsafe { out.put::<Avx2>(row, columns.start, &values.as_flattened()[..columns.len()]) };
    }
}

/// Adds the products of a block of weights with `P` panels, all of one length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn tile<const P: usize>(
    weights: &[[f32; BLOCK]; R],
    panels: [&[[f32; PANEL]]; P],
    sums: &mut [[[f32; PANEL]; R]; P],
) {
    let len = panels[0].len();
    assert!(len <= BLOCK && panels.iter().all(|panel| panel.len() == len));
    let mut vectors = [[_mm512_setzero_ps(); R]; P];
    // SAFETY: sums are of that size; `k` is below the length of each panel and of a block.
    unsafe {
        for p in 0..P {
            for r in 0..R {
                vectors[p][r] = _mm512_loadu_ps(sums[p][r].as_ptr());
            }
        }
        for k in 0..len {
            let mut x = [_mm512_setzero_ps(); P];
            for p in 0..P {
                x[p] = _mm512_loadu_ps(panels[p].get_unchecked(k).as_ptr());
            }
            for r in 0..R {
                let weight = _mm512_set1_ps(*weights[r].get_unchecked(k));
                for p in 0..P {
                    vectors[p][r] = _mm512_fmadd_ps(weight, x[p], vectors[p][r]);
                }
            }
        }
        for p in 0..P {
            for r in 0..R {
                _mm512_storeu_ps(sums[p][r].as_mut_ptr(), vectors[p][r]);
            }
        }
    }
}
