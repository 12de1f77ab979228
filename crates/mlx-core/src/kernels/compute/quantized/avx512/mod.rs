//! Products of bytes by AVX-512 with VNNI: `vpdpbusd` multiplies unsigned weights with signed activations
//! and adds fours of neighbours to 32 bits, which nothing overflows; weights of 8 bits need not be made
//! signed.
//!
//! A chunk is one vector. Of its sixteen 32-bit lanes, `i` and `i + 8` have weights of the same groups:
//! they are what [`Format::lane_groups`] has as one.
//!
//! What depends on the format is a handful of functions ([`Kernel`]), so that the rest is compiled once
//! for each type of scales.

pub(super) mod fp8;
mod panels;
mod unpack;

use std::arch::x86_64::*;
use std::ops::Range;

pub(super) use self::panels::{LEAST_ROWS, PANEL};

use self::unpack::Unpack;
use super::format::with_unpack;
use super::vectors::{LINE, padded, prefetch, whole};
use super::{Activations, CHUNK, Format, Out, Rows, Scale};

/// Bytes ahead that a stream of weights is fetched: the CPU itself does not look beyond a page.
const AHEAD: usize = 8 * 1024;

/// # Safety
/// The CPU has AVX-512 with BW, DQ, VL and VNNI; `rows` are below `w.n_rows`, and no other thread has
/// them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<S: Scale>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    // Weights of 8 bits stay unsigned here.
    let offset = if w.format == Format::Fp4 { w.format.offset() } else { 0.0 };
    let kernel = with_unpack!(
        w.format,
        U => Kernel::new::<U>(w.group_size, offset),
        else => return super::scalar::matmul(x, w, rows, out)
    );
    // SAFETY: the caller's promise.
    unsafe {
        match x.n_rows < LEAST_ROWS {
            true => few(&kernel, x, w, rows, out),
            false => panels::matmul(&kernel, x, w, rows, out),
        }
    }
}

/// [`sum`] of `R` rows.
type Sum<const R: usize> = unsafe fn(&mut Stretch, &Factors<R>, &mut [__m512; R]);

/// What depends on the format and on how groups lie in a chunk.
struct Kernel {
    /// Size of a chunk.
    bytes: usize,
    /// What a weight's byte is more than the integer that it stands for.
    offset: f32,
    /// [`unpack::rows`]
    unpack: unsafe fn(*const u8, usize, u64, &mut [__m512i]),
    sum: Sum<1>,
    sum_rows: Sum<R>,
}

impl Kernel {
    fn new<U: Unpack>(group_size: usize, offset: f32) -> Kernel {
        match group_size / CHUNK {
            0 => Kernel::of::<U, 0>(offset),
            1 => Kernel::of::<U, 1>(offset),
            _ => Kernel::of::<U, 2>(offset),
        }
    }

    /// For `CHUNKS` see [`sum`].
    fn of<U: Unpack, const CHUNKS: usize>(offset: f32) -> Kernel {
        Kernel {
            bytes: U::BYTES,
            offset,
            unpack: unpack::rows::<U>,
            sum: sum::<U, CHUNKS, 1>,
            sum_rows: sum::<U, CHUNKS, R>,
        }
    }

    /// The mask of the bytes of a chunk's first weights.
    fn mask(&self, n_weights: usize) -> u64 {
        u64::MAX >> (CHUNK - n_weights.min(CHUNK) * self.bytes / CHUNK)
    }
}

/// Rows of weights that are taken together.
const R: usize = 4;

/// Products with a few rows of activations, one after the other.
///
/// Scales and biases of some rows of weights are multiplied with those of the activations a vector at a
/// time, so little that weights are on their way all the while.
///
/// # Safety
/// As [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn few<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let (mut many, mut one) = (Factors::<R>::new(), Factors::<1>::new());
    // Groups that whole vectors can be read from.
    let last = w.scales.len().saturating_sub(LANES);
    let mut n = rows.start;
    while n < rows.end {
        let together = n + R <= rows.end && (n + R) * w.n_groups() <= last;
        for m in 0..x.n_rows {
            // SAFETY: so many rows are there, which no other thread has.
            unsafe {
                match together {
                    true => products(kernel.sum_rows, &mut many, kernel, x, w, [m, n], out),
                    false => products(kernel.sum, &mut one, kernel, x, w, [m, n], out),
                }
            }
        }
        n += if together { R } else { 1 };
    }
}

/// Writes the products of row `m` of activations with `R` rows of weights from `n` on.
///
/// # Safety
/// As [`matmul`]; so many rows are there and, if there are several, a vector of groups behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn products<S: Scale, const R: usize>(
    sum: Sum<R>,
    factors: &mut Factors<R>,
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    [m, n]: [usize; 2],
    out: &Out,
) {
    let n_groups = w.n_groups();
    let at_once = LANES * (CHUNK / w.group_size).max(1);
    let ahead = AHEAD.div_ceil(R * w.row_bytes) * R * n_groups;
    let scales = &w.scales[n * n_groups..];
    // Without biases, all weights of a group are as much too great.
    let (biases, times) = match w.biases.is_empty() {
        true => (scales, _mm512_set1_ps(kernel.offset)),
        false => (&w.biases[n * n_groups..], _mm512_set1_ps(1.0)),
    };
    let mut sums = [_mm512_setzero_ps(); R];
    let mut stretch = Stretch::new(kernel, x, w, n, m);
    let mut start = 0;
    while start < n_groups {
        let end = (start + at_once).min(n_groups);
        let mut g = start;
        while g < end {
            prefetch(scales, ahead + R * g, R * LANES);
            prefetch(biases, ahead + R * g, R * LANES);
            let mask = first_lanes(end - g);
            let at = m * x.groups_padded + g;
            // SAFETY: the masks read groups that the row has, `factors` are as long, and behind several
            // rows are groups for whole vectors.
            unsafe {
                let x_scales = _mm512_maskz_loadu_ps(mask, x.scales.as_ptr().add(at));
                let x_sums = _mm512_maskz_loadu_ps(mask, x.sums.as_ptr().add(at));
                let x_sums = _mm512_mul_ps(x_sums, times);
                for r in 0..R {
                    let at = r * n_groups + g;
                    let scales = vector::<S, R>(scales, at);
                    let biases = vector::<S, R>(biases, at);
                    sums[r] = _mm512_mask3_fmadd_ps(biases, x_sums, sums[r], mask);
                    let factors = factors.of[r].as_mut_ptr().add(g - start);
                    _mm512_storeu_ps(factors, _mm512_mul_ps(scales, x_scales));
                }
            }
            g += LANES;
        }
        factors.n_groups = end - start;
        // SAFETY: so many rows and groups are there.
        unsafe { sum(&mut stretch, factors, &mut sums) };
        start = end;
    }
    for r in 0..R {
        // SAFETY: as above.
        unsafe { out.set(m, n + r, _mm512_reduce_add_ps(sums[r])) };
    }
}

/// Returns a vector of scales or biases.
///
/// # Safety
/// So many are there unless it is for one row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn vector<S: Scale, const R: usize>(from: &[S], at: usize) -> __m512 {
    // SAFETY: the caller's promise; arrays are of that size.
    unsafe {
        let wide: [f32; LANES] = match R {
            1 => padded(&from[at..]),
            _ => whole(from.as_ptr().add(at)),
        };
        _mm512_loadu_ps(wide.as_ptr())
    }
}

/// `f32`s in a vector.
const LANES: usize = 16;

/// The mask of the first lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n.min(LANES)) - 1) as __mmask16
}

/// Scales that are read at once where a chunk has several groups: the most that it has.
const SPREAD: usize = 4;

/// Groups of a row whose scales are made at once, at most, and room to read `SPREAD` from the last on.
const FACTORS: usize = SPREAD * LANES + LANES;

/// Scales of some groups of rows of weights, times those of the activations.
struct Factors<const R: usize> {
    of: [[f32; FACTORS]; R],
    n_groups: usize,
}

impl<const R: usize> Factors<R> {
    fn new() -> Self {
        Factors { of: [[0.0; FACTORS]; R], n_groups: 0 }
    }
}

/// Where some rows of weights and one of activations are read. Rows are reached from the first by their
/// distance, which takes fewer registers than a pointer for each.
struct Stretch {
    packed: *const u8,
    row_bytes: usize,
    q: *const i8,
    /// What of weights is fetched next.
    ahead: *const u8,
    group_size: usize,
    /// [`Format::lane_groups`]
    lanes: [i32; 8],
}

impl Stretch {
    /// Begins with row `n` of weights; `m` is the row of activations.
    fn new<S: Scale>(
        kernel: &Kernel,
        x: &Activations,
        w: &Rows<'_, S>,
        n: usize,
        m: usize,
    ) -> Stretch {
        debug_assert_eq!(w.row_bytes, w.k * kernel.bytes / CHUNK);
        let packed = w.packed[n * w.row_bytes..].as_ptr();
        Stretch {
            packed,
            row_bytes: w.row_bytes,
            q: x.q[m * x.k_padded..].as_ptr(),
            ahead: packed.wrapping_add(AHEAD.max(R * w.row_bytes)),
            group_size: w.group_size,
            lanes: w.lanes,
        }
    }

    /// Adds the products of what `part` says of each of the next chunks, whose first group is `g`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step<U: Unpack, const CHUNKS: usize, const R: usize>(
        &self,
        factors: &Factors<R>,
        g: usize,
        part: Part,
        lanes: __m512i,
        sums: &mut [__m512; R],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for r in 0..R {
                let mut dot = _mm512_setzero_si512();
                for c in 0..CHUNKS.max(1) {
                    let packed = self.packed.add(r * self.row_bytes + c * U::BYTES);
                    let q = _mm512_loadu_si512(self.q.add(c * CHUNK).cast());
                    dot = _mm512_dpbusd_epi32(dot, U::unpack(packed, part.bytes), q);
                }
                let scales = factors.of.get_unchecked(r).as_ptr().add(g);
                let scale = if CHUNKS > 0 {
                    _mm512_set1_ps(*scales)
                } else {
                    _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(scales)), lanes)
                };
                let dot = _mm512_cvtepi32_ps(dot);
                sums[r] = _mm512_mask3_fmadd_ps(dot, scale, sums[r], part.lanes);
            }
        }
    }
}

/// What there is of a chunk: of its bytes, and of the lanes that products have.
#[derive(Clone, Copy)]
struct Part {
    bytes: u64,
    lanes: __mmask16,
}

/// Adds the products of `R` rows of weights with a row of activations over some groups, and moves on.
/// `CHUNKS` make a group, or a chunk has several where that is 0.
///
/// # Safety
/// As [`matmul`]; there are so many rows and groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sum<U: Unpack, const CHUNKS: usize, const R: usize>(
    at: &mut Stretch,
    factors: &Factors<R>,
    into: &mut [__m512; R],
) {
    let chunks = CHUNKS.max(1);
    let groups = if CHUNKS > 0 { 1 } else { CHUNK / at.group_size };
    // Kept in registers.
    let mut sums = *into;
    let mut g = 0;
    // SAFETY: each step has its weights before it, whole chunks or the bytes that the mask names;
    // activations are padded to whole chunks.
    unsafe {
        let lanes = _mm512_broadcast_i32x8(_mm256_loadu_si256(at.lanes.as_ptr().cast()));
        let whole = Part { bytes: U::ALL, lanes: !0 };
        for _ in 0..factors.n_groups / groups {
            for line in 0..(R * chunks * U::BYTES).div_ceil(LINE) {
                _mm_prefetch::<_MM_HINT_T0>(at.ahead.wrapping_add(line * LINE).cast());
            }
            at.ahead = at.ahead.wrapping_add(R * chunks * U::BYTES);
            at.step::<U, CHUNKS, R>(factors, g, whole, lanes, &mut sums);
            at.packed = at.packed.add(chunks * U::BYTES);
            at.q = at.q.add(chunks * CHUNK);
            g += groups;
        }
        // Only where a chunk has several groups can a row end within one.
        let rest = factors.n_groups % groups;
        if CHUNKS == 0 && rest > 0 {
            let part = Part {
                bytes: U::ALL >> (U::BYTES - rest * at.group_size * U::BYTES / CHUNK),
                // The scales of others are not this row's and may be infinite.
                lanes: _mm512_cmplt_epi32_mask(lanes, _mm512_set1_epi32(rest as i32)),
            };
            at.step::<U, CHUNKS, R>(factors, g, part, lanes, &mut sums);
        }
    }
    *into = sums;
}
