//! Products of bytes by AVX-512 with VNNI: `vpdpbusd` multiplies unsigned weights with signed activations
//! and adds fours of neighbours to 32 bits, which nothing overflows; weights of 8 bits need not be made
//! signed.
//!
//! A chunk is one vector. Of its sixteen 32-bit lanes, `i` and `i + 8` have weights of the same groups:
//! they are what [`Format::lane_groups`] has as one.
//!
//! What depends on the format is a handful of functions ([`Kernel`]), so that the rest is compiled once
//! for each type of scales.

mod panels;
mod unpack;

use std::arch::x86_64::*;
use std::ops::Range;

pub(super) use self::panels::{LEAST_ROWS, PANEL};

use self::unpack::Unpack;
use super::format::with_unpack;
use super::{Activations, CHUNK, Format, Out, Rows, Scale, Scratch};

/// Bytes ahead that a stream of weights is fetched: the CPU itself does not look beyond a page.
const AHEAD: usize = 8 * 1024;

/// What is fetched at once.
const LINE: usize = 64;

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
type Sum<const R: usize> = unsafe fn(Stretch) -> [__m512; R];

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
pub(super) const R: usize = 4;

/// Products with a few rows of activations, one after the other.
///
/// Rows are short beside what precedes them, so scales and biases of some rows of weights, which lie
/// behind one another, are taken at once, and multiplied with those of the activations before the sum.
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
    let n_groups = w.n_groups();
    // What was there before in the room behind them is in no lane that counts.
    let mut scales = Scratch::new(R * n_groups + SPREAD);
    let mut biases = Scratch::new(R * n_groups);
    let offset = kernel.offset;
    let mut n = rows.start;
    while n < rows.end {
        let count = if n + R <= rows.end { R } else { 1 };
        let range = n * n_groups..(n + count) * n_groups;
        let known = &w.scales[range.clone()];
        for m in 0..x.n_rows {
            let [x_scales, x_sums] = x.repeated.each_ref().map(|x| &x[m * R * n_groups..]);
            for ((out, scale), x) in scales.iter_mut().zip(known).zip(x_scales) {
                *out = scale.to_f32() * x;
            }
            if w.biases.is_empty() {
                for ((out, scale), x) in biases.iter_mut().zip(known).zip(x_sums) {
                    *out = offset * scale.to_f32() * x;
                }
            } else {
                for ((out, bias), x) in biases.iter_mut().zip(&w.biases[range.clone()]).zip(x_sums)
                {
                    *out = bias.to_f32() * x;
                }
            }
            // SAFETY: `count` rows are there, which no other thread has, and `scales` are as many rows
            // of `n_groups` and `SPREAD`.
            unsafe {
                let stretch = Stretch::new(kernel, x, w, n, m, &scales);
                let mut sums = [_mm512_setzero_ps(); R];
                if count == R {
                    sums = (kernel.sum_rows)(stretch);
                } else {
                    [sums[0]] = (kernel.sum)(stretch);
                }
                for r in 0..count {
                    let sum = add_all(sums[r], &biases[r * n_groups..][..n_groups]);
                    out.set(m, n + r, _mm512_reduce_add_ps(sum));
                }
            }
        }
        n += count;
    }
}

/// Adds `row`, in any order of its elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_all(mut sum: __m512, row: &[f32]) -> __m512 {
    for part in row.chunks(LANES) {
        // SAFETY: the mask reads what `part` has.
        let part = unsafe { _mm512_maskz_loadu_ps(first_lanes(part.len()), part.as_ptr()) };
        sum = _mm512_add_ps(sum, part);
    }
    sum
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

/// Where some rows of weights and one of activations are read. Rows are reached from the first by their
/// distance, which takes fewer registers than a pointer for each.
#[derive(Clone, Copy)]
struct Stretch {
    packed: *const u8,
    row_bytes: usize,
    q: *const i8,
    /// Of weights and activations, one row of weights behind the other.
    scales: *const f32,
    n_groups: usize,
    k: usize,
    group_size: usize,
    /// [`Format::lane_groups`]
    lanes: [i32; 8],
}

impl Stretch {
    /// Begins with row `n` of weights, for which `scales` are; `m` is the row of activations.
    fn new<S: Scale>(
        kernel: &Kernel,
        x: &Activations,
        w: &Rows<'_, S>,
        n: usize,
        m: usize,
        scales: &[f32],
    ) -> Stretch {
        debug_assert_eq!(w.row_bytes, w.k * kernel.bytes / CHUNK);
        Stretch {
            packed: w.packed[n * w.row_bytes..].as_ptr(),
            row_bytes: w.row_bytes,
            q: x.q[m * x.k_padded..].as_ptr(),
            scales: scales.as_ptr(),
            n_groups: w.n_groups(),
            k: w.k,
            group_size: w.group_size,
            lanes: w.lanes,
        }
    }

    /// Adds the products of what `part` says of each of the next chunks, whose first group is `g`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step<U: Unpack, const CHUNKS: usize, const R: usize>(
        &self,
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
                let scales = self.scales.add(r * self.n_groups + g);
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

/// Sums the products of `R` rows of weights with a row of activations, but for the biases. `CHUNKS` make a
/// group, or a chunk has several where that is 0.
///
/// # Safety
/// As [`matmul`]; there are so many rows, and `SPREAD` scales from each group on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sum<U: Unpack, const CHUNKS: usize, const R: usize>(mut at: Stretch) -> [__m512; R] {
    let chunks = CHUNKS.max(1);
    let n_groups = if CHUNKS > 0 { 1 } else { CHUNK / at.group_size };
    let mut sums = [_mm512_setzero_ps(); R];
    let mut ahead = at.packed.wrapping_add(AHEAD.max(R * at.row_bytes));
    let mut g = 0;
    // SAFETY: each step has its weights before it, whole chunks or the bytes that the mask names;
    // activations are padded to whole chunks.
    unsafe {
        let lanes = _mm512_broadcast_i32x8(_mm256_loadu_si256(at.lanes.as_ptr().cast()));
        let whole = Part { bytes: U::ALL, lanes: !0 };
        for _ in 0..at.k / (CHUNK * chunks) {
            for line in 0..(R * chunks * U::BYTES).div_ceil(LINE) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE).cast());
            }
            ahead = ahead.wrapping_add(R * chunks * U::BYTES);
            at.step::<U, CHUNKS, R>(g, whole, lanes, &mut sums);
            at.packed = at.packed.add(chunks * U::BYTES);
            at.q = at.q.add(chunks * CHUNK);
            g += n_groups;
        }
        // Only where a chunk has several groups can a row end within one.
        let rest = at.k % CHUNK;
        if CHUNKS == 0 && rest > 0 {
            let n_groups = _mm512_set1_epi32((rest / at.group_size) as i32);
            let part = Part {
                bytes: U::ALL >> (U::BYTES - rest * U::BYTES / CHUNK),
                // The scales of others are not this row's and may be infinite.
                lanes: _mm512_cmplt_epi32_mask(lanes, n_groups),
            };
            at.step::<U, CHUNKS, R>(g, part, lanes, &mut sums);
        }
    }
    sums
}
