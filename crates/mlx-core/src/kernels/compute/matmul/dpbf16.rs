//! Products of bfloat16 by AVX-512 with BF16: `vdpbf16ps` multiplies pairs and adds both products to a
//! float32.
//!
//! Float32 has the product of two bfloat16, and each addition rounds once, as a fused one does. So the
//! result differs from the other kernels' by the order of additions only; but numbers below 2⁻¹²⁶ count
//! as zero (Intel 64 and IA-32 Architectures Software Developer's Manual, "VDPBF16PS").
//!
//! Neither operand is widened or rearranged, so one row of activations and many are the same tiles, of
//! dot products along the rows.

use std::arch::x86_64::*;
use std::mem;
use std::ops::Range;

use half::bf16;

use super::{AHEAD, Dense, Element, Out, part_columns};
use crate::kernels::compute::isa::{Avx2, Isa, Kind, Level};
use crate::kernels::compute::pool;

/// Rows of weights of a tile.
const R: usize = 8;

/// Rows of activations of a tile. The sums of three and a step's weights would be more than registers
/// hold.
const M: usize = 2;

/// Elements of a vector.
const LANES: usize = 32;

/// Tells whether [`matmul`] may be called.
pub(super) fn is_available(isa: Isa) -> bool {
    isa.0 == Kind::Avx512 && is_x86_feature_detected!("avx512bf16")
}

/// Writes `x × wᵀ + bias`.
///
/// # Safety
/// The CPU [is able](is_available), `x` has the result's rows, and `w` its columns.
pub(super) unsafe fn matmul<T: Element>(x: &[bf16], w: &Dense<'_, bf16>, out: &Out<'_, T>) {
    let n_part = part_columns(w.n_rows, w.depth, R);
    pool::run(w.n_rows.div_ceil(n_part), &|part| {
        let columns = part * n_part..((part + 1) * n_part).min(w.n_rows);
        // SAFETY: the caller's promise; the columns are this part's own.
        unsafe { matmul_part(x, w, columns, out) };
    });
}

/// # Safety
/// As [`matmul`]; no other thread has these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn matmul_part<T: Element>(
    x: &[bf16],
    w: &Dense<'_, bf16>,
    columns: Range<usize>,
    out: &Out<'_, T>,
) {
    let mut column = columns.start;
    while column < columns.end {
        let is_whole = column + R <= columns.end;
        let mut row = 0;
        while row < out.n_rows {
            let at = [row, column];
            // SAFETY: so many rows are there of both, and the columns are the caller's.
            row += unsafe {
                match (is_whole, out.n_rows - row) {
                    (true, M..) => tile::<T, R, M>(x, w, at, out),
                    (true, _) => tile::<T, R, 1>(x, w, at, out),
                    (false, M..) => tile::<T, 1, M>(x, w, at, out),
                    (false, _) => tile::<T, 1, 1>(x, w, at, out),
                }
            };
        }
        column += if is_whole { R } else { 1 };
    }
}

/// Writes the products of `M` rows of activations with `R` rows of weights, and returns `M`.
///
/// # Safety
/// As [`matmul_part`]; so many rows are there from `row` and `column` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn tile<T: Element, const R: usize, const M: usize>(
    x: &[bf16],
    w: &Dense<'_, bf16>,
    [row, column]: [usize; 2],
    out: &Out<'_, T>,
) -> usize {
    let depth = w.depth;
    let mut sums = [[_mm512_setzero_ps(); R]; M];
    // SAFETY: reads end with the rows, vectors where they are whole, and masks.
    unsafe {
        let (x, w) = (x.as_ptr().add(row * depth), w.data.as_ptr().add(column * depth));
        // Not a function: the compiler would not be sure to put it here.
        macro_rules! step {
            ($k:expr, $mask:expr) => {{
                let mut vectors = [_mm512_setzero_si512(); M];
                for m in 0..M {
                    vectors[m] = _mm512_maskz_loadu_epi16($mask, x.add(m * depth + $k).cast());
                }
                for r in 0..R {
                    let weights = _mm512_maskz_loadu_epi16($mask, w.add(r * depth + $k).cast());
                    let weights = mem::transmute::<__m512i, __m512bh>(weights);
                    for m in 0..M {
                        let x = mem::transmute::<__m512i, __m512bh>(vectors[m]);
                        sums[m][r] = _mm512_dpbf16_ps(sums[m][r], x, weights);
                    }
                }
            }};
        }
        let rest = depth % LANES;
        for k in (0..depth - rest).step_by(LANES) {
            for r in 0..R {
                let ahead = w.add(r * depth + k).wrapping_byte_add(AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            step!(k, u32::MAX);
        }
        if rest > 0 {
            step!(depth - rest, u32::MAX >> (LANES - rest));
        }
        for m in 0..M {
            out.put::<Avx2>(row + m, column, &totals(&sums[m]));
        }
    }
    M
}

/// Returns the sum of each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn totals<const R: usize>(sums: &[__m512; R]) -> [f32; R] {
    let (mut fours, mut totals) = ([[0.0f32; 8]; 4], [0.0; R]);
    for (sums, totals) in sums.chunks(fours.len()).zip(totals.chunks_mut(fours.len())) {
        for (sum, half) in sums.iter().zip(&mut fours) {
            let (low, high) = (_mm512_castps512_ps256(*sum), _mm512_extractf32x8_ps::<1>(*sum));
            // SAFETY: of equal size.
            *half = unsafe { mem::transmute::<__m256, [f32; 8]>(_mm256_add_ps(low, high)) };
        }
        totals.copy_from_slice(&Avx2::totals(&fours)[..totals.len()]);
    }
    totals
}
