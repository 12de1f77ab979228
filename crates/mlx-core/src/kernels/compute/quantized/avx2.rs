//! Products of bytes by AVX2: `maddubs` multiplies unsigned weights with signed activations and adds
//! neighbours to 16 bits, `madd` adds those to 32.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Activations, CHUNK, Format, Out, Rows, Scale};

/// Bytes of activations that stay in the second-level cache while rows of weights pass.
const BLOCK_BYTES: usize = 192 * 1024;

/// From a chunk's bits to two vectors of bytes, in the format's order.
trait Unpack {
    /// Size of a chunk.
    const BYTES: usize;
    /// How far `unpack` reads.
    const READS: usize = Self::BYTES;
    /// Whether the bytes are signed.
    const IS_SIGNED: bool = false;

    /// # Safety
    /// `READS` bytes are there, and the CPU has AVX2.
    unsafe fn unpack(p: *const u8) -> [__m256i; 2];
}

struct Bits2;
struct Bits4;
struct Fp4;
struct Bits8;
/// 3, 5 and 6 bits.
struct Odd<const BITS: usize>;

impl Unpack for Bits4 {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (packed, mask) = (_mm256_loadu_si256(p.cast()), _mm256_set1_epi8(15));
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask);
            [_mm256_and_si256(packed, mask), high]
        }
    }
}

impl Unpack for Fp4 {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let table = _mm_loadu_si128(super::format::FP4_BYTES.as_ptr().cast());
            let table = _mm256_broadcastsi128_si256(table);
            Bits4::unpack(p).map(|q| _mm256_shuffle_epi8(table, q))
        }
    }
}

impl Unpack for Bits2 {
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let packed = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
            let mask = _mm256_set1_epi8(3);
            let low = _mm256_srlv_epi32(packed, _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2));
            let high = _mm256_srlv_epi32(packed, _mm256_setr_epi32(4, 4, 4, 4, 6, 6, 6, 6));
            [_mm256_and_si256(low, mask), _mm256_and_si256(high, mask)]
        }
    }
}

impl Unpack for Bits8 {
    const BYTES: usize = 64;
    const IS_SIGNED: bool = true;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let flip = _mm256_set1_epi8(-128);
            let (a, b) = (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast()));
            let (a, b) = (_mm256_xor_si256(a, flip), _mm256_xor_si256(b, flip));
            // Lanes of 16 bytes: the chunk's first and third quarter, second and fourth.
            [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
        }
    }
}

impl<const BITS: usize> Odd<BITS> {
    /// Moves the two bytes that a weight touches into 16 bits.
    const SHUFFLE: [u8; 16] = {
        let mut bytes = [0; 16];
        let mut i = 0;
        while i < 8 {
            bytes[2 * i] = (i * BITS / 8) as u8;
            bytes[2 * i + 1] = (i * BITS / 8 + 1) as u8;
            i += 1;
        }
        bytes
    };
    /// Moves the weight to the top of them.
    const FACTORS: [u16; 8] = {
        let mut factors = [0; 8];
        let mut i = 0;
        while i < 8 {
            factors[i] = 1 << (16 - BITS - i * BITS % 8);
            i += 1;
        }
        factors
    };
}

impl<const BITS: usize> Unpack for Odd<BITS> {
    const BYTES: usize = 8 * BITS;
    const READS: usize = 7 * BITS + 16;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let twice = |p: *const u8| _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
            let shuffle = twice(Self::SHUFFLE.as_ptr());
            let factors = twice(Self::FACTORS.as_ptr().cast());
            // Eight weights of the chunk's first half and eight of its second, 16 bits each.
            let eights = |i: usize| {
                let low = _mm_loadu_si128(p.add(i * BITS).cast());
                let high = _mm_loadu_si128(p.add((i + 4) * BITS).cast());
                let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
                let top = _mm256_mullo_epi16(_mm256_shuffle_epi8(both, shuffle), factors);
                _mm256_srl_epi16(top, _mm_cvtsi32_si128(16 - BITS as i32))
            };
            [_mm256_packus_epi16(eights(0), eights(1)), _mm256_packus_epi16(eights(2), eights(3))]
        }
    }
}

/// Products of a chunk, summed into the 32-bit lanes that the format tells groups by.
#[inline(always)]
unsafe fn dot<U: Unpack>(w: [__m256i; 2], x: *const i8) -> __m256i {
    // SAFETY: the caller has 64 activations and AVX2.
    unsafe {
        let x = [_mm256_load_chunk(x), _mm256_load_chunk(x.add(32))];
        let ones = _mm256_set1_epi16(1);
        if U::IS_SIGNED {
            // At most 128 * 127 * 2, which 16 bits hold.
            let half = |i: usize| {
                let products =
                    _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(x[i], w[i]));
                _mm256_madd_epi16(products, ones)
            };
            _mm256_add_epi32(half(0), half(1))
        } else {
            // At most 63 * 127 * 4.
            let low = _mm256_maddubs_epi16(w[0], x[0]);
            let high = _mm256_maddubs_epi16(w[1], x[1]);
            _mm256_madd_epi16(_mm256_add_epi16(low, high), ones)
        }
    }
}

#[inline(always)]
unsafe fn _mm256_load_chunk(p: *const i8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_loadu_si256(p.cast()) }
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
        match w.format {
            Format::Affine(2) => blocks::<S, Bits2>(x, w, rows, out),
            Format::Affine(3) => blocks::<S, Odd<3>>(x, w, rows, out),
            Format::Affine(4) => blocks::<S, Bits4>(x, w, rows, out),
            Format::Affine(5) => blocks::<S, Odd<5>>(x, w, rows, out),
            Format::Affine(6) => blocks::<S, Odd<6>>(x, w, rows, out),
            Format::Affine(8) => blocks::<S, Bits8>(x, w, rows, out),
            Format::Fp4 => blocks::<S, Fp4>(x, w, rows, out),
            Format::Affine(_) | Format::Fp8 => super::scalar::matmul(x, w, rows, out),
        }
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
    let m_block = (BLOCK_BYTES / x.k_padded).max(4) / 4 * 4;
    let mut factors = Factors::new(x);
    for m in (0..x.n_rows).step_by(m_block) {
        let ms = m..(m + m_block).min(x.n_rows);
        // SAFETY: the caller's promise.
        unsafe {
            let factors = &mut factors;
            match (ms.len(), w.group_size >= CHUNK) {
                (1, true) => sweep::<S, U, true, 4, 1>(x, w, rows.clone(), ms, out, factors),
                (1, false) => sweep::<S, U, false, 4, 1>(x, w, rows.clone(), ms, out, factors),
                (_, true) => sweep::<S, U, true, 2, 4>(x, w, rows.clone(), ms, out, factors),
                (_, false) => sweep::<S, U, false, 2, 4>(x, w, rows.clone(), ms, out, factors),
            }
        }
    }
}

/// Scales and biases of the rows of a tile, as `f32`.
struct Factors {
    scales: Vec<f32>,
    biases: Vec<f32>,
    stride: usize,
}

const MAX_R: usize = 4;

impl Factors {
    fn new(x: &Activations) -> Factors {
        let n = MAX_R * x.groups_padded;
        Factors { scales: vec![0.0; n], biases: vec![0.0; n], stride: x.groups_padded }
    }

    #[inline(always)]
    fn fill<S: Scale>(&mut self, w: &Rows<'_, S>, n: usize, count: usize) {
        for r in 0..count {
            let range = r * self.stride..(r + 1) * self.stride;
            w.factors(
                n + r,
                w.format.offset(),
                &mut self.scales[range.clone()],
                &mut self.biases[range],
            );
        }
    }
}

/// Goes over `rows` by `R` and over `ms` by `T`, remainders by smaller tiles.
///
/// # Safety
/// As [`matmul`]; `ms` are below `x.n_rows`.
#[inline(always)]
unsafe fn sweep<S: Scale, U: Unpack, const WHOLE: bool, const R: usize, const T: usize>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    ms: Range<usize>,
    out: &Out,
    factors: &mut Factors,
) {
    let mut n = rows.start;
    while n < rows.end {
        let count = if n + R <= rows.end { R } else { 1 };
        factors.fill(w, n, count);
        let mut m = ms.start;
        // SAFETY: the caller's promise; tiles stay within both ranges.
        unsafe {
            while m < ms.end {
                let left = ms.end - m;
                match (count == R, left >= T) {
                    (true, true) => tile::<S, U, WHOLE, R, T>(x, w, n, m, out, factors),
                    (true, false) => tile::<S, U, WHOLE, R, 1>(x, w, n, m, out, factors),
                    (false, true) => tile::<S, U, WHOLE, 1, T>(x, w, n, m, out, factors),
                    (false, false) => tile::<S, U, WHOLE, 1, 1>(x, w, n, m, out, factors),
                }
                m += if left >= T { T } else { 1 };
            }
        }
        n += count;
    }
}

/// Computes the products of `R` rows of weights with `T` rows of activations; `WHOLE` says that a chunk
/// lies in one group.
///
/// # Safety
/// As [`matmul`]; `n + R` rows and `m + T` rows are there, and `factors` are of row `n`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<S: Scale, U: Unpack, const WHOLE: bool, const R: usize, const T: usize>(
    x: &Activations,
    w: &Rows<'_, S>,
    n: usize,
    m: usize,
    out: &Out,
    factors: &mut Factors,
) {
    // SAFETY: all pointers below stay in the vectors they start from: rows of activations are
    // `k_padded` long, groups `groups_padded`, which has a whole vector to spare, and weights are read
    // directly only where `READS` bytes are there.
    unsafe {
        let stride = factors.stride;
        let scales: [*const f32; R] =
            std::array::from_fn(|r| factors.scales.as_ptr().add(r * stride));
        let q: [*const i8; T] = std::array::from_fn(|t| x.q.as_ptr().add((m + t) * x.k_padded));
        let x_scales: [*const f32; T] =
            std::array::from_fn(|t| x.scales.as_ptr().add((m + t) * stride));
        let packed: [*const u8; R] =
            std::array::from_fn(|r| w.packed.as_ptr().add((n + r) * w.row_bytes));
        let mut sums = [[_mm256_setzero_ps(); T]; R];

        let lanes = _mm256_loadu_si256(w.lanes.as_ptr().cast());
        // Groups of 128 have two chunks each, those of 32 and 16 are two and four to a chunk.
        let (halves, times) = if WHOLE {
            ((w.group_size / CHUNK).trailing_zeros(), 0)
        } else {
            (0, (CHUNK / w.group_size).trailing_zeros())
        };
        let n_chunks = x.k_padded / CHUNK;
        // Only the last row of all can end before what `unpack` reads of its last chunk.
        let last = w.packed.len() - (n + R - 1) * w.row_bytes;
        let within = if last < U::READS { 0 } else { (last - U::READS) / U::BYTES + 1 };
        let n_whole = (w.k / CHUNK).min(within);
        let mut copies = [[0u8; PADDED]; R];

        for c in 0..n_chunks {
            let g = c >> halves << times;
            let weights: [*const u8; R] = if c < n_whole {
                std::array::from_fn(|r| packed[r].add(c * U::BYTES))
            } else {
                std::array::from_fn(|r| pad(w.row(n + r), c * U::BYTES, U::BYTES, &mut copies[r]))
            };
            for r in 0..R {
                let unpacked = U::unpack(weights[r]);
                let factor = spread::<WHOLE>(scales[r].add(g), lanes);
                for t in 0..T {
                    let dot = _mm256_cvtepi32_ps(dot::<U>(unpacked, q[t].add(c * CHUNK)));
                    let factor = _mm256_mul_ps(factor, spread::<WHOLE>(x_scales[t].add(g), lanes));
                    sums[r][t] = _mm256_fmadd_ps(dot, factor, sums[r][t]);
                }
            }
        }

        for t in 0..T {
            let x_sums = x.sums.as_ptr().add((m + t) * stride);
            for r in 0..R {
                let mut sum = sums[r][t];
                for g in (0..w.k / w.group_size).step_by(8) {
                    let bias = _mm256_loadu_ps(factors.biases.as_ptr().add(r * stride + g));
                    sum = _mm256_fmadd_ps(bias, _mm256_loadu_ps(x_sums.add(g)), sum);
                }
                out.set(m + t, n + r, horizontal_sum(sum));
            }
        }
    }
}

/// Room for a chunk and what `unpack` reads behind it.
const PADDED: usize = 96;

/// Copies a row's last chunk to where it can be read whole.
#[cold]
fn pad(row: &[u8], start: usize, len: usize, copy: &mut [u8; PADDED]) -> *const u8 {
    let bytes = &row[start.min(row.len())..(start + len).min(row.len())];
    copy[..bytes.len()].copy_from_slice(bytes);
    copy.as_ptr()
}

/// The factor of the group of each lane.
#[inline(always)]
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

#[inline(always)]
unsafe fn horizontal_sum(x: __m256) -> f32 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
    }
}
