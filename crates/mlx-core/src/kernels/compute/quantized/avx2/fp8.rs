//! Products of one row of activations with 8-bit floats, as `avx512/fp8.rs` makes them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{AHEAD, LANES};
use crate::kernels::compute::quantized::vectors::{FP8_GROUP as GROUP, LINE};
use crate::kernels::compute::quantized::{Out, Rows, Scale};

/// Writes the products of `x` with some rows of weights.
///
/// A weight's bits, put where a `f32` has its own, and an exponent that makes up for the other offset,
/// are the weight divided by `2^8`, but for zeros and subnormal ones. Where one of those is, its
/// neighbours are taken by way of halves as well, which takes half as long again.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C; `rows` are below `w.n_rows`, and no other thread has them.
///
/// # Panics
/// When `x` is shorter than rows of weights, or groups are not of whole `GROUP`s.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels::compute::quantized) unsafe fn one<S: Scale>(
    x: &[f32],
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    assert!(x.len() >= w.k && w.group_size.is_multiple_of(GROUP), "sizes");
    let n_groups = w.n_groups();
    let shift = w.group_size.trailing_zeros();
    let mut scales = vec![0.0f32; n_groups];
    for n in rows {
        for (to, from) in scales.iter_mut().zip(&w.scales[n * n_groups..]) {
            *to = from.to_f32();
        }
        let (row, x, scales) = (w.row(n).as_ptr(), x.as_ptr(), scales.as_ptr());
        let mut sums = [_mm256_setzero_ps(); 2];
        let mut at = 0;
        // SAFETY: what is read begins below `k`, of which `x` and the row have as many, and ends there; a
        // scale is there for each group that begins below it.
        unsafe {
            let scale_of = |at: usize| *scales.add(at >> shift);
            while at + LINE <= w.k {
                let packed = row.add(at);
                _mm_prefetch::<_MM_HINT_T0>(packed.wrapping_add(AHEAD).cast());
                let halves = [packed, packed.add(GROUP)].map(|p| _mm256_loadu_si256(p.cast()));
                let is_plain = are_plain(halves);
                for (half, sum) in sums.iter_mut().enumerate() {
                    let at = at + half * GROUP;
                    *sum = add(row.add(at), x.add(at), scale_of(at), is_plain, *sum);
                }
                at += LINE;
            }
            if at < w.k {
                sums[0] = add(row.add(at), x.add(at), scale_of(at), false, sums[0]);
            }
            // Weights are divided by 2^8, and scales are those of twice the weight.
            let sum = super::horizontal_sum(_mm256_add_ps(sums[0], sums[1]));
            out.set(0, n, sum * 512.0);
        }
    }
}

/// Tells whether no weight's exponent is 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn are_plain([a, b]: [__m256i; 2]) -> bool {
    let exponents = _mm256_set1_epi8(0x78);
    let least = _mm256_min_epu8(_mm256_and_si256(a, exponents), _mm256_and_si256(b, exponents));
    _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_setzero_si256())) == 0
}

/// Adds the products of `GROUP` weights with their scale.
///
/// # Safety
/// As [`one`]; so many weights and activations are there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add(packed: *const u8, x: *const f32, scale: f32, is_plain: bool, sum: __m256) -> __m256 {
    let mut product = _mm256_setzero_ps();
    for i in 0..GROUP / LANES {
        // SAFETY: the caller's promise.
        unsafe {
            let weights = _mm_loadl_epi64(packed.add(i * LANES).cast());
            let weights = if is_plain { plain(weights) } else { any(weights) };
            let x = _mm256_loadu_ps(x.add(i * LANES));
            product = match i {
                0 => _mm256_mul_ps(weights, x),
                _ => _mm256_fmadd_ps(weights, x, product),
            };
        }
    }
    _mm256_fmadd_ps(product, _mm256_set1_ps(scale), sum)
}

/// Widens weights whose exponents are not 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn plain(packed: __m128i) -> __m256 {
    let bits = _mm256_slli_epi32::<20>(_mm256_cvtepi8_epi32(packed));
    let fields = _mm256_and_si256(bits, _mm256_set1_epi32(0x87f0_0000_u32 as i32));
    // 112 in the exponent, which of the format is at most 15.
    _mm256_castsi256_ps(_mm256_or_si256(fields, _mm256_set1_epi32(112 << 23)))
}

/// Widens any weights.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn any(packed: __m128i) -> __m256 {
    let bits = _mm_slli_epi16::<7>(_mm_cvtepi8_epi16(packed));
    _mm256_cvtph_ps(_mm_and_si128(bits, _mm_set1_epi16(0xbf80_u16 as i16)))
}
