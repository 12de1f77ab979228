//! From bits to bytes.

use std::arch::x86_64::*;

use crate::kernels::compute::quantized::format::{Bits2, Bits4, Bits8, FP4_BYTES, Fp4, Odd};
use crate::kernels::compute::quantized::{CHUNK, Format};

/// From a chunk's bits to two vectors of bytes, in the order of [`place`].
pub(super) trait Unpack {
    /// Size of a chunk.
    const BYTES: usize;
    /// How far before the chunk, and how far from its start on, `unpack` reads.
    const BEFORE: usize = 0;
    const READS: usize = Self::BYTES;
    /// Whether the bytes are signed.
    const IS_SIGNED: bool = false;
    /// The largest magnitude of a byte.
    const MAX: u16;
    /// How often sums of two products can be added to others in 16 bits.
    const DOUBLINGS: u32 = (i16::MAX as u16 / (2 * 127 * Self::MAX)).ilog2();

    /// # Safety
    /// `READS` bytes are there and `BEFORE` before them, and the CPU has AVX2.
    unsafe fn unpack(p: *const u8) -> [__m256i; 2];
}

impl Unpack for Bits4 {
    const BYTES: usize = 32;
    const MAX: u16 = 15;

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
    const MAX: u16 = 24;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(FP4_BYTES.as_ptr().cast()));
            let [low, high] = Bits4::unpack(p);
            [_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high)]
        }
    }
}

impl Unpack for Bits2 {
    const BYTES: usize = 16;
    const MAX: u16 = 3;

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
    const MAX: u16 = 128;
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

/// Eights of weights of three bytes, first, second and third bytes of four eights together, so that one
/// shift serves four weights:
///
/// ```text
/// bits    7  6  5  4  3  2  1  0
/// first   w2 w2 w1 w1 w1 w0 w0 w0
/// second  w5 w4 w4 w4 w3 w3 w3 w2
/// third   w7 w7 w7 w6 w6 w6 w5 w5
/// ```
impl Unpack for Odd<3> {
    const BYTES: usize = 24;
    const MAX: u16 = 7;
    // So that the halves of one vector have those of the chunk.
    const BEFORE: usize = 4;
    const READS: usize = 28;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = _mm256_loadu_si256(p.sub(4).cast());
            // First, second, first and third bytes.
            let whole = _mm256_setr_epi8(
                4, 7, 10, 13, 5, 8, 11, 14, 4, 7, 10, 13, 6, 9, 12, 15, //
                0, 3, 6, 9, 1, 4, 7, 10, 0, 3, 6, 9, 2, 5, 8, 11,
            );
            // First, second, second and third bytes.
            let split = _mm256_setr_epi8(
                4, 7, 10, 13, 5, 8, 11, 14, 5, 8, 11, 14, 6, 9, 12, 15, //
                0, 3, 6, 9, 1, 4, 7, 10, 1, 4, 7, 10, 2, 5, 8, 11,
            );
            let (whole, split) =
                (_mm256_shuffle_epi8(halves, whole), _mm256_shuffle_epi8(halves, split));
            // Not a function: the compiler would not be sure to put it here.
            macro_rules! twice {
                ($a:expr, $b:expr, $c:expr, $d:expr) => {
                    _mm256_setr_epi32($a, $b, $c, $d, $a, $b, $c, $d)
                };
            }
            // Weights 0, 3, 1 and 6.
            let whole = _mm256_srlv_epi32(whole, twice!(0, 1, 3, 2));
            // The lower bits of 2, all of 4, the lowest of 5, all of 7.
            let low = _mm256_srlv_epi32(split, twice!(6, 4, 7, 5));
            let low_mask = twice!(0x0303_0303, 0x0707_0707, 0x0101_0101, 0x0707_0707);
            // The upper bits of 2 and 5 are in the next bytes, 32 bits on.
            let high = _mm256_srlv_epi64(split, _mm256_setr_epi64x(30, 31, 30, 31));
            let high_mask = twice!(0x0404_0404, 0, 0x0606_0606, 0);
            let low = _mm256_and_si256(low, low_mask);
            let high = _mm256_and_si256(high, high_mask);
            [_mm256_and_si256(whole, _mm256_set1_epi8(7)), _mm256_or_si256(low, high)]
        }
    }
}

/// Moves the two bytes that each pair of sixteen weights touches into 16 bits, where the weights' bytes begin
/// at `start`.
const fn pairs(bits: usize, start: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < 8 {
        bytes[2 * i] = (start + 2 * i * bits / 8) as u8;
        bytes[2 * i + 1] = (start + 2 * i * bits / 8 + 1) as u8;
        i += 1;
    }
    bytes
}

/// Moves the pairs to the top of their 16 bits.
const fn factors(bits: usize) -> [u16; 8] {
    let mut factors = [0; 8];
    let mut i = 0;
    while i < 8 {
        factors[i] = 1 << (16 - 2 * bits - 2 * i * bits % 8);
        i += 1;
    }
    factors
}

/// Sixteen weights of `$bits` in each half of a vector, whose bytes begin where `$starts` say, to bytes, the
/// second of a pair before the first. A macro: the compiler would not be sure to put a function here.
macro_rules! sixteens {
    ($bits:expr, $packed:expr, $starts:expr) => {{
        const SHUFFLE: [[u8; 16]; 2] = [pairs($bits, $starts[0]), pairs($bits, $starts[1])];
        const FACTORS: [[u16; 8]; 2] = [factors($bits); 2];
        let shuffle = _mm256_loadu_si256(SHUFFLE.as_ptr().cast());
        let factors = _mm256_loadu_si256(FACTORS.as_ptr().cast());
        let pairs = _mm256_mullo_epi16(_mm256_shuffle_epi8($packed, shuffle), factors);
        let second = _mm256_srli_epi16::<{ 16 - $bits }>(pairs);
        let first = _mm256_slli_epi16::<{ 2 * $bits - 8 }>(pairs);
        let mask = _mm256_set1_epi16(((1 << $bits) - 1) << 8);
        _mm256_or_si256(second, _mm256_and_si256(first, mask))
    }};
}

impl Unpack for Odd<5> {
    const BYTES: usize = 40;
    const MAX: u16 = 31;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Bytes from 0 and 20 on, and from 10 and 30 on.
            let (even, odd) = (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast()));
            [sixteens!(5, even, [0, 4]), sixteens!(5, odd, [2, 6])]
        }
    }
}

impl Unpack for Odd<6> {
    const BYTES: usize = 48;
    const MAX: u16 = 63;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Bytes from 12 and 24 on, and from 0 and 36 on.
            let inner = _mm256_loadu_si256(p.add(8).cast());
            let first = _mm256_castsi128_si256(_mm_loadu_si128(p.cast()));
            let last = _mm_loadu_si128(p.add(32).cast());
            let outer = _mm256_inserti128_si256::<1>(first, last);
            [sixteens!(6, inner, [4, 0]), sixteens!(6, outer, [0, 4])]
        }
    }
}

/// The place of a chunk's `i`th weight: that of [`Format::place`] but for 3, 5 and 6 bits.
const fn place(bits: usize, i: usize) -> usize {
    let (half, quarter) = (i / 32, i / 16);
    match bits {
        3 => [0, 8, 32, 4, 36, 40, 12, 44][i % 8] + 16 * half + i % 32 / 8,
        5 => [0, 32, 16, 48][quarter] + ((i % 16) ^ 1),
        _ => [32, 0, 16, 48][quarter] + ((i % 16) ^ 1),
    }
}

/// From which bytes of each sixteen of a chunk in the order of [`Format::place`] those of each sixteen in the
/// order of [`place`] are.
const fn shuffles(bits: usize) -> [[[u8; 16]; 4]; 4] {
    let mut shuffles = [[[0x80; 16]; 4]; 4];
    let mut i = 0;
    while i < CHUNK {
        let from = i & 0b00_1111 | (i & 0b01_0000) << 1 | (i & 0b10_0000) >> 1;
        let to = place(bits, i);
        shuffles[to / 16][from / 16][to % 16] = (from % 16) as u8;
        i += 1;
    }
    shuffles
}

/// Brings activations from the order of [`Format::place`] into that of [`place`].
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn arrange(format: Format, q: &mut [i8]) {
    static THREE: [[[u8; 16]; 4]; 4] = shuffles(3);
    static FIVE: [[[u8; 16]; 4]; 4] = shuffles(5);
    static SIX: [[[u8; 16]; 4]; 4] = shuffles(6);
    let shuffles = match format {
        Format::Affine(3) => &THREE,
        Format::Affine(5) => &FIVE,
        Format::Affine(6) => &SIX,
        _ => return,
    };
    for chunk in q.as_chunks_mut::<CHUNK>().0 {
        let from = *chunk;
        for (to, shuffles) in chunk.as_chunks_mut::<16>().0.iter_mut().zip(shuffles) {
            let mut bytes = _mm_setzero_si128();
            for (from, shuffle) in from.as_chunks::<16>().0.iter().zip(shuffles) {
                // SAFETY: sixteen bytes each.
                let (from, shuffle) = unsafe {
                    (
                        _mm_loadu_si128(from.as_ptr().cast()),
                        _mm_loadu_si128(shuffle.as_ptr().cast()),
                    )
                };
                bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(from, shuffle));
            }
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) };
        }
    }
}
