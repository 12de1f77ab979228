//! From a chunk's bits to one vector of bytes.

use std::arch::x86_64::*;

use crate::kernels::compute::quantized::CHUNK;
use crate::kernels::compute::quantized::format::{Bits2, Bits4, Bits8, FP4_BYTES, Fp4, Odd};

/// A format's bytes of a chunk, in its order.
pub(super) trait Unpack {
    /// Size of a chunk.
    const BYTES: usize;
    /// The mask of a whole chunk.
    const ALL: u64 = u64::MAX >> (CHUNK - Self::BYTES);

    /// Reads only the bytes that `mask` has, the first ones; what others would be is of no use.
    ///
    /// # Safety
    /// Those bytes are there, and the CPU has AVX-512.
    unsafe fn unpack(p: *const u8, mask: u64) -> __m512i;
}

impl Unpack for Bits4 {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn unpack(p: *const u8, mask: u64) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let packed = _mm512_broadcast_i64x4(_mm256_maskz_loadu_epi8(mask as u32, p.cast()));
            // The upper half takes the upper halves of bytes.
            let halves = _mm512_mask_srli_epi32::<4>(packed, 0xff00, packed);
            _mm512_and_si512(halves, _mm512_set1_epi8(15))
        }
    }
}

impl Unpack for Fp4 {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn unpack(p: *const u8, mask: u64) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(FP4_BYTES.as_ptr().cast()));
            _mm512_shuffle_epi8(table, Bits4::unpack(p, mask))
        }
    }
}

impl Unpack for Bits2 {
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn unpack(p: *const u8, mask: u64) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let packed = _mm512_broadcast_i32x4(_mm_maskz_loadu_epi8(mask as u16, p.cast()));
            let shifts = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
            _mm512_and_si512(_mm512_srlv_epi32(packed, shifts), _mm512_set1_epi8(3))
        }
    }
}

impl Unpack for Bits8 {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn unpack(p: *const u8, mask: u64) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm512_maskz_loadu_epi8(mask, p.cast());
            // The chunk's first and third quarter, second and fourth.
            _mm512_shuffle_i64x2::<0b11_01_10_00>(bytes, bytes)
        }
    }
}

struct Tables<const BITS: usize>;

impl<const BITS: usize> Tables<BITS> {
    /// Moves the bytes of the chunk's first and third quarter, second and fourth, to sixteen each.
    const WORDS: [u16; 32] = {
        let (mut words, quarters) = ([0; 32], [0, 2, 1, 3]);
        let mut i = 0;
        while i < 32 {
            words[i] = (quarters[i / 8] * BITS + i % 8) as u16;
            i += 1;
        }
        words
    };
    /// Moves the two bytes that a pair of weights touches into 16 bits.
    const SHUFFLE: [u8; 16] = {
        let mut bytes = [0; 16];
        let mut i = 0;
        while i < 8 {
            bytes[2 * i] = (2 * i * BITS / 8) as u8;
            bytes[2 * i + 1] = (2 * i * BITS / 8 + 1) as u8;
            i += 1;
        }
        bytes
    };
    /// Where in them the pair begins.
    const SHIFTS: [u16; 8] = {
        let mut shifts = [0; 8];
        let mut i = 0;
        while i < 8 {
            shifts[i] = (2 * i * BITS % 8) as u16;
            i += 1;
        }
        shifts
    };
}

impl<const BITS: usize> Unpack for Odd<BITS> {
    const BYTES: usize = 8 * BITS;

    #[inline(always)]
    unsafe fn unpack(p: *const u8, mask: u64) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            // Not a function: the compiler would not be sure to put it here.
            macro_rules! four_times {
                ($bytes:expr) => {
                    _mm512_broadcast_i32x4(_mm_loadu_si128($bytes.as_ptr().cast()))
                };
            }
            let bytes = _mm512_maskz_loadu_epi8(mask, p.cast());
            let words = _mm512_loadu_si512(Tables::<BITS>::WORDS.as_ptr().cast());
            let quarters = _mm512_permutexvar_epi16(words, bytes);
            let touched = _mm512_shuffle_epi8(quarters, four_times!(Tables::<BITS>::SHUFFLE));
            let pairs = _mm512_srlv_epi16(touched, four_times!(Tables::<BITS>::SHIFTS));
            // The second of a pair goes to the upper byte.
            let second = _mm512_sll_epi16(pairs, _mm_cvtsi32_si128(8 - BITS as i32));
            let low = _mm512_set1_epi16((1 << BITS) - 1);
            let high = _mm512_set1_epi16(((1 << BITS) - 1) << 8);
            _mm512_or_si512(_mm512_and_si512(pairs, low), _mm512_and_si512(second, high))
        }
    }
}

/// Unpacks a chunk of each of several rows, which are `row_bytes` apart.
///
/// # Safety
/// As [`Unpack::unpack`], for as many rows as `out` has places.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn rows<U: Unpack>(
    p: *const u8,
    row_bytes: usize,
    mask: u64,
    out: &mut [__m512i],
) {
    for (r, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *out = unsafe { U::unpack(p.add(r * row_bytes), mask) };
    }
}
