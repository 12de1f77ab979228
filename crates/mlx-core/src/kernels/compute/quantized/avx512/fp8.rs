//! Products of one row of activations with 8-bit floats, which are no integers and need no rounding of
//! activations either.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{AHEAD, LANES};
use crate::kernels::compute::quantized::vectors::{FP8_GROUP as GROUP, LINE};
use crate::kernels::compute::quantized::{Out, Rows, Scale};

/// Writes the products of `x` with some rows of weights.
///
/// A weight's bits, put where a `f32` has its own, and an exponent that makes up for the other offset,
/// are the weight divided by `2^8`, but for zeros and subnormal ones. Trained weights have hardly any of
/// those, since the largest of a group is near the format's greatest number; where there is one, its
/// neighbours are taken by way of halves as well, which takes half as long again.
///
/// # Safety
/// The CPU has AVX-512 with BW, DQ and VL; `rows` are below `w.n_rows`, and no other thread has them.
///
/// # Panics
/// When `x` is shorter than rows of weights, or groups are not of whole `GROUP`s.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(in crate::kernels::compute::quantized) unsafe fn one<S: Scale>(
    x: &[f32],
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    assert!(x.len() >= w.k && w.group_size.is_multiple_of(GROUP), "sizes");
    let n_groups = w.n_groups();
    let shift = w.group_size.trailing_zeros();
    let exponents = _mm512_set1_epi8(0x78);
    let mut scales = vec![0.0f32; n_groups];
    for n in rows {
        for (to, from) in scales.iter_mut().zip(&w.scales[n * n_groups..]) {
            *to = from.to_f32();
        }
        let (row, scale_of) = (w.row(n).as_ptr(), |at: usize| scales[at >> shift]);
        let mut sums = [_mm512_setzero_ps(); 2];
        let mut at = 0;
        // SAFETY: what is read begins below `k`, of which `x` and the row have as many, and ends there.
        unsafe {
            while at + LINE <= w.k {
                let packed = row.add(at);
                _mm_prefetch::<_MM_HINT_T0>(packed.wrapping_add(AHEAD).cast());
                let bytes = _mm512_loadu_si512(packed.cast());
                let is_plain = _mm512_testn_epi8_mask(bytes, exponents) == 0;
                for (half, sum) in sums.iter_mut().enumerate() {
                    let at = at + half * GROUP;
                    *sum = add(row.add(at), &x[at..], scale_of(at), is_plain, *sum);
                }
                at += LINE;
            }
            if at < w.k {
                sums[0] = add(row.add(at), &x[at..], scale_of(at), false, sums[0]);
            }
            // Weights are divided by 2^8, and scales are those of twice the weight.
            out.set(0, n, _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) * 512.0);
        }
    }
}

/// Adds the products of `GROUP` weights with their scale.
///
/// # Safety
/// As [`one`]; so many weights are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add(packed: *const u8, x: &[f32], scale: f32, is_plain: bool, sum: __m512) -> __m512 {
    // SAFETY: the caller's promise; slices of `x` are checked.
    unsafe {
        let weights = [packed, packed.add(LANES)].map(|packed| _mm_loadu_si128(packed.cast()));
        let [a, b] = match is_plain {
            true => [plain(weights[0]), plain(weights[1])],
            false => [any(weights[0]), any(weights[1])],
        };
        let x = &x[..GROUP];
        let product = _mm512_mul_ps(a, _mm512_loadu_ps(x.as_ptr()));
        let product = _mm512_fmadd_ps(b, _mm512_loadu_ps(x[LANES..].as_ptr()), product);
        _mm512_fmadd_ps(product, _mm512_set1_ps(scale), sum)
    }
}

/// Widens weights whose exponents are not 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn plain(packed: __m128i) -> __m512 {
    let bits = _mm512_slli_epi32::<20>(_mm512_cvtepi8_epi32(packed));
    // (bits & fields) | 112 in the exponent, which of the format is at most 15.
    let (fields, offset) =
        (_mm512_set1_epi32(0x87f0_0000_u32 as i32), _mm512_set1_epi32(112 << 23));
    _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xea>(bits, fields, offset))
}

/// Widens any weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn any(packed: __m128i) -> __m512 {
    let bits = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(packed));
    _mm512_cvtph_ps(_mm256_and_si256(bits, _mm256_set1_epi16(0xbf80_u16 as i16)))
}
