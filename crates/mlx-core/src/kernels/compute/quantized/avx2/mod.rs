//! Products of bytes by AVX2: `maddubs` multiplies unsigned weights with signed activations and adds
//! neighbours to 16 bits, `madd` adds those to 32.

mod panels;
mod unpack;

use std::arch::x86_64::*;
use std::ops::Range;
use std::slice;

pub(super) use self::panels::Panels;

use self::unpack::Unpack;
use super::format::with_unpack;
use super::{Activations, CHUNK, Out, Rows, Scale, Scratch};

/// Rows and chunks of activations that stay in the first-level cache, half of which they take, while
/// rows of weights pass.
const BLOCK_ROWS: usize = 16;
const BLOCK_CHUNKS: usize = 16;

/// Bytes ahead that a stream of weights is fetched, some rows as a rule: the CPU itself does not look
/// beyond a page.
const AHEAD: usize = 8 * 1024;

/// What is fetched at once.
const LINE: usize = 64;

/// Products of a chunk, summed into the 32-bit lanes that the format tells groups by.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot<U: Unpack>(w: [__m256i; 2], x: *const i8) -> __m256i {
    // SAFETY: the caller has 64 activations and AVX2.
    unsafe {
        let x = [_mm256_loadu_si256(x.cast()), _mm256_loadu_si256(x.add(32).cast())];
        let ones = _mm256_set1_epi16(1);
        if U::IS_SIGNED {
            // At most 128 * 127 * 2, which 16 bits hold.
            let low = _mm256_maddubs_epi16(_mm256_abs_epi8(w[0]), _mm256_sign_epi8(x[0], w[0]));
            let high = _mm256_maddubs_epi16(_mm256_abs_epi8(w[1]), _mm256_sign_epi8(x[1], w[1]));
            _mm256_add_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones))
        } else {
            // At most 63 * 127 * 4.
            let low = _mm256_maddubs_epi16(w[0], x[0]);
            let high = _mm256_maddubs_epi16(w[1], x[1]);
            _mm256_madd_epi16(_mm256_add_epi16(low, high), ones)
        }
    }
}

/// # Safety
/// The CPU has AVX2, FMA and F16C; `rows` are below `w.n_rows`, and no other thread has them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul<S: Scale>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    // SAFETY: the caller's promise.
    unsafe {
        with_unpack!(
            w.format,
            U => blocks::<S, U>(x, w, rows, out),
            else => super::scalar::matmul(x, w, rows, out)
        );
    }
}

/// # Safety
/// As [`matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn blocks<S: Scale, U: Unpack>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_whole = w.group_size >= CHUNK;
        if let Some(panels) = &x.panels {
            return match is_whole {
                true => panels::matmul::<S, U, true>(x, panels, w, rows, out),
                false => panels::matmul::<S, U, false>(x, panels, w, rows, out),
            };
        }
        match (x.n_rows, is_whole) {
            (1, true) => one::<S, U, true>(x, w, rows, out),
            (1, false) => one::<S, U, false>(x, w, rows, out),
            (_, true) => many::<S, U, true>(x, w, rows, out),
            (_, false) => many::<S, U, false>(x, w, rows, out),
        }
    }
}

/// Rows of weights that are taken together with one row of activations.
pub(super) const ROWS: usize = 4;

/// Products with one row of activations.
///
/// Its rows are short beside what precedes them, so scales and biases of four rows, which lie behind one
/// another, are taken at once, and multiplied with those of the activations before the sum.
///
/// # Safety
/// As [`matmul`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one<S: Scale, U: Unpack, const WHOLE: bool>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    const R: usize = ROWS;
    let n_groups = w.k / w.group_size;
    let [x_scales, x_sums] = &x.repeated;
    // Whole vectors may be read behind the last group; a chunk that is padded has groups there.
    let room = R * n_groups + 2 * LANES;
    let (mut scales, mut biases) = (Scratch::new(room), Scratch::new(room));
    // What was there before may be no number, which times zero is none either.
    scales.fill(0.0);
    let (chunks, offset) = (0..x.k_padded / CHUNK, w.format.offset());
    let mut n = rows.start;
    while n < rows.end {
        let count = if n + R <= rows.end { R } else { 1 };
        let range = n * n_groups..(n + count) * n_groups;
        let known = &w.scales[range.clone()];
        for ((out, scale), x) in scales.iter_mut().zip(known).zip(x_scales) {
            *out = scale.to_f32() * x;
        }
        if w.biases.is_empty() {
            for ((out, scale), x) in biases.iter_mut().zip(known).zip(x_sums) {
                *out = offset * scale.to_f32() * x;
            }
        } else {
            let parts = known.iter().zip(&w.biases[range]);
            for ((out, (scale, bias)), x) in biases.iter_mut().zip(parts).zip(x_sums) {
                *out = (bias.to_f32() + offset * scale.to_f32()) * x;
            }
        }
        let factors = Factors { scales: scales.as_ptr(), stride: n_groups };
        // SAFETY: `count` rows are there, which no other thread has.
        unsafe {
            let mut sums = [[_mm256_setzero_ps()]; R];
            if count == R {
                sums = tile::<S, U, WHOLE, true, R, 1>(x, w, n, 0, chunks.clone(), factors);
            } else {
                [sums[0]] = tile::<S, U, WHOLE, true, 1, 1>(x, w, n, 0, chunks.clone(), factors);
            }
            for r in 0..count {
                let sum = add_all(sums[r][0], &biases[r * n_groups..][..n_groups]);
                out.set(0, n + r, horizontal_sum(sum));
            }
        }
        n += count;
    }
}

/// Adds `row`, in any order of its elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_all(mut sum: __m256, row: &[f32]) -> __m256 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    // SAFETY: the caller has AVX2; the masked load reads what `rest` has.
    unsafe {
        for chunk in chunks {
            sum = _mm256_add_ps(sum, _mm256_loadu_ps(chunk.as_ptr()));
        }
        if !rest.is_empty() {
            let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(rest.len() as i32), index);
            sum = _mm256_add_ps(sum, _mm256_maskload_ps(rest.as_ptr(), mask));
        }
        sum
    }
}

/// Products with several rows of activations, in blocks that stay in the first-level cache while rows
/// of weights pass.
///
/// # Safety
/// As [`matmul`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many<S: Scale, U: Unpack, const WHOLE: bool>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    // More rows of weights would share what is read of activations, which then takes registers that sums
    // need.
    const T: usize = 8;
    let n_chunks = x.k_padded / CHUNK;
    let room = BLOCK_CHUNKS * CHUNK / w.group_size + 2 * LANES;
    let (mut scales, mut biases) = (vec![0.0f32; room], vec![0.0f32; room]);
    for start in (0..x.n_rows).step_by(BLOCK_ROWS) {
        let ms = start..(start + BLOCK_ROWS).min(x.n_rows);
        for first in (0..n_chunks).step_by(BLOCK_CHUNKS) {
            let chunks = first..(first + BLOCK_CHUNKS).min(n_chunks);
            let groups =
                first * CHUNK / w.group_size..(chunks.end * CHUNK / w.group_size).min(w.n_groups());
            for n in rows.clone() {
                w.factors(n, groups.clone(), w.format.offset(), &mut scales, &mut biases);
                let factors = Factors { scales: scales.as_ptr(), stride: 0 };
                let mut m = ms.start;
                while m < ms.end {
                    // SAFETY: tiles stay within both ranges; no other thread has this row.
                    unsafe {
                        macro_rules! tile {
                            ($t:expr) => {{
                                let chunks = chunks.clone();
                                let [sums] =
                                    tile::<S, U, WHOLE, false, 1, $t>(x, w, n, m, chunks, factors);
                                for t in 0..$t {
                                    let x_sums = &x.sums[(m + t) * x.groups_padded..];
                                    let x_sums = &x_sums[groups.start..x.groups_padded];
                                    let sum = add_products(sums[t], &biases, x_sums);
                                    let sum = horizontal_sum(sum);
                                    match first {
                                        0 => out.set(m + t, n, sum),
                                        _ => out.add(m + t, n, sum),
                                    }
                                }
                                m += $t;
                            }};
                        }
                        match ms.end - m {
                            T.. => tile!(T),
                            4.. => tile!(4),
                            2.. => tile!(2),
                            _ => tile!(1),
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of two rows of whole vectors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_products(mut sum: __m256, a: &[f32], b: &[f32]) -> __m256 {
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr()), sum);
        }
    }
    sum
}

/// `f32`s in a vector.
const LANES: usize = 8;

/// Scales of the rows of a tile, one row `stride` behind the other and a vector of room behind the last.
#[derive(Clone, Copy)]
struct Factors {
    scales: *const f32,
    stride: usize,
}

/// Sums the products of `R` rows of weights with `T` rows of activations, but for the biases. `WHOLE`
/// says that a chunk lies in one group, `BOTH` that the scales are those of the activations, too.
///
/// # Safety
/// As [`matmul`]; `n + R` rows and `m + T` rows are there, and `factors` are of row `n`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<
    S: Scale,
    U: Unpack,
    const WHOLE: bool,
    const BOTH: bool,
    const R: usize,
    const T: usize,
>(
    x: &Activations,
    w: &Rows<'_, S>,
    n: usize,
    m: usize,
    chunks: Range<usize>,
    factors: Factors,
) -> [[__m256; T]; R] {
    // SAFETY: all pointers below stay in the vectors they start from: rows of activations are
    // `k_padded` long, groups `groups_padded`, which has a whole vector to spare, and weights are read
    // directly only where `READS` bytes are there.
    unsafe {
        let lanes = _mm256_loadu_si256(w.lanes.as_ptr().cast());
        // Groups of 128 have two chunks each, those of 32 and 16 are two and four to a chunk.
        let (halves, times) = if WHOLE {
            ((w.group_size / CHUNK).trailing_zeros(), 0)
        } else {
            (0, (CHUNK / w.group_size).trailing_zeros())
        };
        let n_whole = whole_chunks::<S, U>(w, n + R - 1).clamp(chunks.start, chunks.end);

        // Factors start with the first chunk's.
        let first_group = (chunks.start >> halves) << times;
        let mut sums = [[_mm256_setzero_ps(); T]; R];
        let mut tile = Tile {
            packed: w.packed.as_ptr().add(n * w.row_bytes + chunks.start * U::BYTES),
            row_bytes: w.row_bytes,
            q: x.q.as_ptr().add(m * x.k_padded + chunks.start * CHUNK),
            k_padded: x.k_padded,
            x_scales: x.scales.as_ptr().add(m * x.groups_padded + first_group),
            groups_padded: x.groups_padded,
            factors,
        };
        let mut ahead = tile.packed.wrapping_add(AHEAD.max(R * w.row_bytes));
        for c in chunks.start..n_whole {
            let g = ((c - chunks.start) >> halves) << times;
            if BOTH {
                for line in 0..R * U::BYTES / LINE {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE).cast());
                }
                ahead = ahead.wrapping_add(R * U::BYTES);
            }
            tile.step::<U, WHOLE, BOTH, R, T>(g, lanes, &mut sums);
            tile.packed = tile.packed.add(U::BYTES);
            tile.q = tile.q.add(CHUNK);
        }
        if n_whole < chunks.end {
            let mut copies = [[0u8; PADDED]; R];
            for c in n_whole..chunks.end {
                let g = ((c - chunks.start) >> halves) << times;
                // What a chunk of the padding has of groups behind the row's are others' scales, which may
                // be infinite.
                let n_groups =
                    if WHOLE { 1 } else { ((w.k - c * CHUNK) / w.group_size).min(LANES) };
                let mut scales = [[0.0f32; LANES]; R];
                for r in 0..R {
                    copies[r] = pad(w.row(n + r), c * U::BYTES, U::BYTES);
                    let known = factors.scales.add(r * factors.stride + g);
                    scales[r][..n_groups].copy_from_slice(slice::from_raw_parts(known, n_groups));
                }
                let padded = Tile {
                    packed: copies.as_ptr().cast(),
                    row_bytes: PADDED,
                    x_scales: tile.x_scales.add(g),
                    factors: Factors { scales: scales.as_ptr().cast(), stride: LANES },
                    ..tile
                };
                padded.step::<U, WHOLE, BOTH, R, T>(0, lanes, &mut sums);
                tile.q = tile.q.add(CHUNK);
            }
        }
        sums
    }
}

/// Where a tile reads. Rows are reached from the first by their distance, which takes fewer registers
/// than a pointer for each.
struct Tile {
    packed: *const u8,
    row_bytes: usize,
    q: *const i8,
    k_padded: usize,
    x_scales: *const f32,
    groups_padded: usize,
    factors: Factors,
}

impl Tile {
    /// Adds the products of a chunk, whose first group is `g`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn step<
        U: Unpack,
        const WHOLE: bool,
        const BOTH: bool,
        const R: usize,
        const T: usize,
    >(
        &self,
        g: usize,
        lanes: __m256i,
        sums: &mut [[__m256; T]; R],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for r in 0..R {
                let weights = U::unpack(self.packed.add(r * self.row_bytes));
                let scales = self.factors.scales.add(r * self.factors.stride + g);
                let scale = spread::<WHOLE>(scales, lanes);
                for t in 0..T {
                    let dot = dot::<U>(weights, self.q.add(t * self.k_padded));
                    let factor = if BOTH {
                        scale
                    } else {
                        let x_scales = self.x_scales.add(t * self.groups_padded + g);
                        _mm256_mul_ps(scale, spread::<WHOLE>(x_scales, lanes))
                    };
                    sums[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, sums[r][t]);
                }
            }
        }
    }
}

/// Room for a chunk and what `unpack` reads behind it.
const PADDED: usize = 96;

/// Returns how many chunks of a row can be read where they are: all whole ones, but that only the last
/// row of all can end before what `unpack` reads of its last chunk.
#[inline(always)]
fn whole_chunks<S: Scale, U: Unpack>(w: &Rows<'_, S>, n: usize) -> usize {
    let last = w.packed.len() - n * w.row_bytes;
    let within = if last < U::READS { 0 } else { (last - U::READS) / U::BYTES + 1 };
    (w.k / CHUNK).min(within)
}

/// Copies a row's last chunk to where it can be read whole.
#[cold]
fn pad(row: &[u8], start: usize, len: usize) -> [u8; PADDED] {
    let mut copy = [0; PADDED];
    let bytes = &row[start.min(row.len())..(start + len).min(row.len())];
    copy[..bytes.len()].copy_from_slice(bytes);
    copy
}

/// The factor of the group of each lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn spread<const WHOLE: bool>(p: *const f32, lanes: __m256i) -> __m256 {
    // SAFETY: the caller has AVX2, and a whole vector behind `p` unless `WHOLE`.
    unsafe {
        if WHOLE {
            _mm256_broadcast_ss(&*p)
        } else {
            _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), lanes)
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn horizontal_sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
}
