//! From bits to bytes.

use std::arch::x86_64::*;

use crate::kernels::compute::quantized::format::{Bits2, Bits4, Bits8, Fp4, Odd};

/// From a chunk's bits to two vectors of bytes, in the format's order.
pub(super) trait Unpack {
    /// Size of a chunk.
    const BYTES: usize;
    /// How far `unpack` reads.
    const READS: usize = Self::BYTES;
    /// Whether the bytes are signed.
    const IS_SIGNED: bool = false;
    /// The largest magnitude of a byte.
    const MAX: u16;
    /// How often sums of two products can be added to others in 16 bits.
    const DOUBLINGS: u32 = (i16::MAX as u16 / (2 * 127 * Self::MAX)).ilog2();

    /// # Safety
    /// `READS` bytes are there, and the CPU has AVX2.
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
            let table = _mm_loadu_si128(
                crate::kernels::compute::quantized::format::FP4_BYTES.as_ptr().cast(),
            );
            let table = _mm256_broadcastsi128_si256(table);
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

struct Tables<const BITS: usize>;

impl<const BITS: usize> Tables<BITS> {
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
    const MAX: u16 = (1 << BITS) - 1;
    const READS: usize = 7 * BITS + 16;

    #[inline(always)]
    unsafe fn unpack(p: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Not a function: the compiler would not be sure to put it here.
            macro_rules! twice {
                ($p:expr) => {
                    _mm256_broadcastsi128_si256(_mm_loadu_si128($p.cast()))
                };
            }
            let (shuffle, factors) = (
                twice!(Tables::<BITS>::SHUFFLE.as_ptr()),
                twice!(Tables::<BITS>::FACTORS.as_ptr()),
            );
            // Eight weights of the chunk's first half and eight of its second, 16 bits each.
            macro_rules! eights {
                ($i:expr) => {{
                    let low = _mm_loadu_si128(p.add($i * BITS).cast());
                    let high = _mm_loadu_si128(p.add(($i + 4) * BITS).cast());
                    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
                    let top = _mm256_mullo_epi16(_mm256_shuffle_epi8(both, shuffle), factors);
                    _mm256_srl_epi16(top, _mm_cvtsi32_si128(16 - BITS as i32))
                }};
            }
            [
                _mm256_packus_epi16(eights!(0), eights!(1)),
                _mm256_packus_epi16(eights!(2), eights!(3)),
            ]
        }
    }
}
