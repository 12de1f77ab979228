//! Products of bytes by AVX2: `maddubs` multiplies unsigned weights with signed activations and adds
//! neighbours to 16 bits, `madd` adds those to 32.
//!
//! What depends on the format is a handful of functions ([`Kernel`]), so that the rest is compiled once
//! for each type of scales.

pub(super) mod fp8;
mod panels;
mod unpack;

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;

pub(super) use self::panels::Panels;
pub(super) use self::unpack::arrange;

use self::unpack::Unpack;
use super::format::with_unpack;
use super::vectors::{LINE, padded, prefetch, whole};
use super::{Activations, CHUNK, Out, Rows, Scale};

/// Rows and chunks of activations that stay in the first-level cache, half of which they take, while
/// rows of weights pass.
const BLOCK_ROWS: usize = 16;
const BLOCK_CHUNKS: usize = 16;

/// Bytes ahead that a stream of weights is fetched, some rows as a rule: the CPU itself does not look
/// beyond a page.
const AHEAD: usize = 8 * 1024;

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
    let kernel = with_unpack!(
        w.format,
        U => if w.group_size >= CHUNK { Kernel::new::<U, true>() } else { Kernel::new::<U, false>() },
        else => return super::scalar::matmul(x, w, rows, out)
    );
    // SAFETY: the caller's promise.
    unsafe {
        match &x.panels {
            Some(panels) => panels::matmul(&kernel.panels, x, panels, w, rows, out),
            None if x.n_rows == 1 => one(&kernel, x, w, rows, out),
            None => many(&kernel, x, w, rows, out),
        }
    }
}

/// What depends on the format and on whether a chunk lies in one group.
struct Kernel {
    one: SumTile<1, 1>,
    one_rows: SumTile<ROWS, 1>,
    /// For eight, four, two rows of activations and one.
    many: (SumTile<1, 8>, SumTile<1, 4>, SumTile<1, 2>, SumTile<1, 1>),
    panels: panels::Kernel,
}

impl Kernel {
    fn new<U: Unpack, const WHOLE: bool>() -> Kernel {
        Kernel {
            one: tile::<U, WHOLE, true, 1, 1>,
            one_rows: tile::<U, WHOLE, true, ROWS, 1>,
            many: (
                tile::<U, WHOLE, false, 1, 8>,
                tile::<U, WHOLE, false, 1, 4>,
                tile::<U, WHOLE, false, 1, 2>,
                tile::<U, WHOLE, false, 1, 1>,
            ),
            panels: panels::Kernel::new::<U, WHOLE>(),
        }
    }
}

/// [`tile`] of `R` rows of weights and `T` of activations.
type SumTile<const R: usize, const T: usize> =
    unsafe fn(&Activations, &Rows<'_, ()>, [usize; 2], Range<usize>, Factors) -> [[__m256; T]; R];

/// Rows of weights that are taken together with one row of activations.
const ROWS: usize = 4;

/// Products with one row of activations.
///
/// Scales and biases of some rows of weights are multiplied with those of the activations a vector at a
/// time, so little that weights are on their way all the while.
///
/// # Safety
/// As [`matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    // Groups that whole vectors can be read from.
    let last = w.scales.len().saturating_sub(LANES);
    let mut n = rows.start;
    while n < rows.end {
        let together = n + ROWS <= rows.end && (n + ROWS) * w.n_groups() <= last;
        // SAFETY: so many rows are there, which no other thread has.
        unsafe {
            match together {
                true => products(kernel.one_rows, x, w, n, out),
                false => products(kernel.one, x, w, n, out),
            }
        }
        n += if together { ROWS } else { 1 };
    }
}

/// Writes the products of the row of activations with `R` rows of weights from `n` on.
///
/// # Safety
/// As [`matmul`]; so many rows are there and, if there are several, a vector of groups behind them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<S: Scale, const R: usize>(
    sum: SumTile<R, 1>,
    x: &Activations,
    w: &Rows<'_, S>,
    n: usize,
    out: &Out,
) {
    let (bare, n_groups) = (w.bare(), w.n_groups());
    let at_once = VECTORS * LANES * (CHUNK / w.group_size).max(1);
    let ahead = AHEAD.div_ceil(R * w.row_bytes) * R * n_groups;
    let scales = &w.scales[n * n_groups..];
    let biases = w.biases.get(n * n_groups..).filter(|biases| !biases.is_empty());
    let offset = _mm256_set1_ps(w.format.offset());
    let mut sums = [_mm256_setzero_ps(); R];
    // Written below as far as it is read; clearing it all would take longer than that.
    let mut factors = MaybeUninit::<[[f32; FACTORS]; R]>::uninit();
    let factors = factors.as_mut_ptr().cast::<f32>();
    let mut start = 0;
    while start < n_groups {
        let end = (start + at_once).min(n_groups);
        let mut g = start;
        while g < end {
            prefetch(scales, ahead + R * g, R * LANES);
            prefetch(biases.unwrap_or_default(), ahead + R * g, R * LANES);
            let mask = first_lanes(end - g);
            // SAFETY: activations have groups for whole vectors, as `factors` do; behind several rows of
            // weights are such, too, which the mask takes away.
            unsafe {
                let x_scales = _mm256_loadu_ps(x.scales.as_ptr().add(g));
                let x_sums = _mm256_loadu_ps(x.sums.as_ptr().add(g));
                for r in 0..R {
                    let at = r * n_groups + g;
                    let scales = _mm256_and_ps(vector::<S, R>(scales, at), mask);
                    let biases = match biases {
                        Some(biases) => _mm256_and_ps(vector::<S, R>(biases, at), mask),
                        None => _mm256_setzero_ps(),
                    };
                    let biases = _mm256_fmadd_ps(scales, offset, biases);
                    sums[r] = _mm256_fmadd_ps(biases, x_sums, sums[r]);
                    let factors = factors.add(r * FACTORS + g - start);
                    _mm256_storeu_ps(factors, _mm256_mul_ps(scales, x_scales));
                }
            }
            g += LANES;
        }
        for r in 0..R {
            // SAFETY: a row has room for a vector behind `at_once`. The last chunk's groups are read as
            // part of a vector.
            unsafe { _mm256_storeu_ps(factors.add(r * FACTORS + g - start), _mm256_setzero_ps()) };
        }
        let chunks = start * w.group_size / CHUNK..(end * w.group_size).div_ceil(CHUNK);
        let factors = Factors { scales: factors, stride: FACTORS };
        // SAFETY: so many rows and groups are there.
        let products = unsafe { sum(x, &bare, [n, 0], chunks, factors) };
        for r in 0..R {
            sums[r] = _mm256_add_ps(sums[r], products[r][0]);
        }
        start = end;
    }
    for r in 0..R {
        // SAFETY: as above.
        unsafe { out.set(0, n + r, horizontal_sum(sums[r])) };
    }
}

/// Vectors of scales of a row that are made before its weights are read, where a chunk has one of them.
const VECTORS: usize = 2;

/// Groups of a row whose scales are made at once, at most, and a vector of room.
const FACTORS: usize = GROUPS * VECTORS * LANES + LANES;

/// Returns a vector of scales or biases.
///
/// # Safety
/// So many are there unless it is for one row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn vector<S: Scale, const R: usize>(from: &[S], at: usize) -> __m256 {
    // SAFETY: the caller's promise; arrays are of that size.
    unsafe {
        let wide: [f32; LANES] = match R {
            1 => padded(&from[at..]),
            _ => whole(from.as_ptr().add(at)),
        };
        _mm256_loadu_ps(wide.as_ptr())
    }
}

/// The mask of the first lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn first_lanes(n: usize) -> __m256 {
    let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(LANES) as i32), index))
}

/// Products with several rows of activations, in blocks that stay in the first-level cache while rows
/// of weights pass.
///
/// # Safety
/// As [`matmul`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let bare = w.bare();
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
                            ($t:expr, $sums:expr) => {{
                                let chunks = chunks.clone();
                                let [sums] = $sums(x, &bare, [n, m], chunks, factors);
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
                        // More rows of weights would share what is read of activations, which then takes
                        // registers that sums need.
                        match ms.end - m {
                            8.. => tile!(8, (kernel.many.0)),
                            4.. => tile!(4, (kernel.many.1)),
                            2.. => tile!(2, (kernel.many.2)),
                            _ => tile!(1, (kernel.many.3)),
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
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<U: Unpack, const WHOLE: bool, const BOTH: bool, const R: usize, const T: usize>(
    x: &Activations,
    w: &Rows<'_, ()>,
    [n, m]: [usize; 2],
    chunks: Range<usize>,
    factors: Factors,
) -> [[__m256; T]; R] {
    // SAFETY: all pointers below stay in the vectors they start from: rows of activations are
    // `k_padded` long, groups `groups_padded`, which has a whole vector to spare, and weights are read
    // directly only where `READS` bytes are there, and `BEFORE` before them.
    unsafe {
        let lanes = _mm256_loadu_si256(w.lanes.as_ptr().cast());
        // Groups of 128 have two chunks each, those of 32 and 16 are two and four to a chunk.
        let (halves, times) = if WHOLE {
            ((w.group_size / CHUNK).trailing_zeros(), 0)
        } else {
            (0, (CHUNK / w.group_size).trailing_zeros())
        };
        let n_whole = whole_chunks::<U>(w, n + R - 1).clamp(chunks.start, chunks.end);

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
        // What rows before the first chunk had fetched goes on.
        let fetched = chunks.start * (R - 1) * U::BYTES;
        let mut ahead = tile.packed.wrapping_add(AHEAD.max(R * w.row_bytes) + fetched);
        let group = |c: usize| ((c - chunks.start) >> halves) << times;
        macro_rules! copied {
            ($c:expr) => {{
                let g = group($c);
                let at = Tile { x_scales: tile.x_scales.add(g), ..tile };
                sums = at.step_copied::<U, WHOLE, BOTH, R, T>(w, n, $c, g, lanes, sums);
                tile.packed = tile.packed.wrapping_add(U::BYTES);
                tile.q = tile.q.add(CHUNK);
            }};
        }
        let mut c = chunks.start;
        if U::BEFORE > 0 && n == 0 && c == 0 {
            copied!(0);
            c = 1;
        }
        while c < n_whole {
            if BOTH {
                for line in 0..(R * U::BYTES).div_ceil(LINE) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE).cast());
                }
                ahead = ahead.wrapping_add(R * U::BYTES);
            }
            tile.step::<U, WHOLE, BOTH, R, T>(group(c), lanes, &mut sums);
            tile.packed = tile.packed.wrapping_add(U::BYTES);
            tile.q = tile.q.add(CHUNK);
            c += 1;
        }
        while c < chunks.end {
            copied!(c);
            c += 1;
        }
        sums
    }
}

/// Where a tile reads. Rows are reached from the first by their distance, which takes fewer registers
/// than a pointer for each.
#[derive(Clone, Copy)]
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

    /// Does as [`Tile::step`] with copies of chunk `c` of the rows from `n` on.
    ///
    /// # Safety
    /// As there, but that what is around the chunk need not be.
    #[cold]
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn step_copied<
        U: Unpack,
        const WHOLE: bool,
        const BOTH: bool,
        const R: usize,
        const T: usize,
    >(
        &self,
        w: &Rows<'_, ()>,
        n: usize,
        c: usize,
        g: usize,
        lanes: __m256i,
        mut sums: [[__m256; T]; R],
    ) -> [[__m256; T]; R] {
        let mut copies = [[0u8; PADDED]; R];
        let mut scales = [[0.0f32; GROUPS]; R];
        // What a chunk of the padding has of groups behind the row's are others' scales, which may be
        // infinite.
        let n_groups = if WHOLE { 1 } else { ((w.k - c * CHUNK) / w.group_size).min(GROUPS) };
        // SAFETY: the caller's promise; copies are as long as what is read.
        unsafe {
            for r in 0..R {
                copies[r] = pad::<U>(w, n + r, c);
                let known = self.factors.scales.add(r * self.factors.stride + g);
                scales[r][..n_groups].copy_from_slice(slice::from_raw_parts(known, n_groups));
            }
            let copied = Tile {
                packed: copies.as_ptr().cast::<u8>().add(U::BEFORE),
                row_bytes: PADDED,
                factors: Factors { scales: scales.as_ptr().cast(), stride: GROUPS },
                ..*self
            };
            copied.step::<U, WHOLE, BOTH, R, T>(0, lanes, &mut sums);
        }
        sums
    }
}

/// Room for a chunk and what `unpack` reads around it.
const PADDED: usize = 96;

/// Returns how many chunks of a row can be read where they are: all whole ones, but that only the last
/// row of all can end before what `unpack` reads of its last chunk.
#[inline(always)]
fn whole_chunks<U: Unpack>(w: &Rows<'_, ()>, n: usize) -> usize {
    let last = w.packed.len() - n * w.row_bytes;
    let within = if last < U::READS { 0 } else { (last - U::READS) / U::BYTES + 1 };
    (w.k / CHUNK).min(within)
}

/// Copies a row's chunk to where it can be read whole, `BEFORE` bytes from the start.
#[cold]
fn pad<U: Unpack>(w: &Rows<'_, ()>, n: usize, chunk: usize) -> [u8; PADDED] {
    const { assert!(U::BEFORE + U::READS <= PADDED) };
    let (mut copy, row, start) = ([0; PADDED], w.row(n), chunk * U::BYTES);
    let bytes = &row[start.min(row.len())..(start + U::BYTES).min(row.len())];
    copy[U::BEFORE..][..bytes.len()].copy_from_slice(bytes);
    copy
}

/// Groups of a chunk at most.
const GROUPS: usize = 4;

/// The factor of the group of each lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn spread<const WHOLE: bool>(p: *const f32, lanes: __m256i) -> __m256 {
    // SAFETY: the caller has AVX2, and `GROUPS` numbers behind `p` unless `WHOLE`.
    unsafe {
        if WHOLE {
            _mm256_broadcast_ss(&*p)
        } else {
            let groups = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
            _mm256_permutevar_ps(_mm256_castsi256_ps(groups), lanes)
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
