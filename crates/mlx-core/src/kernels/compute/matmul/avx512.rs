//! Tiles of many rows of activations by AVX-512: 12 rows of weights by 32 of activations, whose 24 sums
//! leave room for two vectors of activations and a weight. Each weight is read once for both, so that
//! there are 14 loads for 24 products; the first-level cache feeds two a cycle.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{
    BLOCK, Block, Element, Out, PANEL, PART_ROWS, PanelSums, Tiles, WeightRows, many_part_body,
};
use crate::kernels::compute::isa::Avx2;

/// Rows of weights of a tile.
const R: usize = 12;

const _: () = assert!(PART_ROWS.is_multiple_of(R) && PANEL == 16);

/// Writes a part's columns of some rows, as `many_part` does.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn many_part<W: WeightRows, T: Element>(
    panels: &[[f32; PANEL]],
    w: &W,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &Out<'_, T>,
) {
    many_part_body::<Wide, W, T>(panels, w, rows, columns, out);
}

/// Tiles of `R` rows of weights by two panels.
struct Wide;

impl Tiles for Wide {
    type Level = Avx2;

    #[inline(always)]
    fn add<'a>(
        weights: &Block,
        n: usize,
        mut panels: impl Iterator<Item = &'a [[f32; PANEL]]>,
        sums: &mut [PanelSums],
    ) {
        for sums in sums.chunks_mut(2) {
            // SAFETY: only `many_part` has it done so.
            unsafe {
                match (sums, panels.next(), panels.next()) {
                    ([a, b], Some(x), Some(y)) => add(weights, n, [x, y], [a, b]),
                    ([a, ..], Some(x), _) => add(weights, n, [x], [a]),
                    _ => {}
                }
            }
        }
    }
}

/// Does as [`Tiles::add`] for `P` panels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add<const P: usize>(
    weights: &Block,
    n: usize,
    panels: [&[[f32; PANEL]]; P],
    sums: [&mut PanelSums; P],
) {
    let mut sums = sums.map(|sums| sums.as_chunks_mut::<R>().0);
    for (t, weights) in weights.as_chunks().0.iter().take(n.div_ceil(R)).enumerate() {
        tile(weights, panels, sums.each_mut().map(|sums| &mut sums[t]));
    }
}

/// Adds the products of a block of weights with `P` panels, all of one length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn tile<const P: usize>(
    weights: &[[f32; BLOCK]; R],
    panels: [&[[f32; PANEL]]; P],
    sums: [&mut [[f32; PANEL]; R]; P],
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
