//! From the bits of packed weights to bytes.

use std::arch::aarch64::*;

use super::super::CHUNK;
use super::super::format::{Bits2, Bits4, Bits8, FP4_BYTES, Fp4, Odd};
use super::{Chunk, PADDED, load};

/// From a chunk's bits to bytes.
pub(super) trait Unpack {
    /// Size of a chunk.
    const BYTES: usize;
    /// How far `unpack` reads.
    const READS: usize = Self::BYTES;

    /// # Safety
    /// `READS` bytes are there.
    unsafe fn unpack(p: *const u8) -> Chunk;
}

/// Bytes that were unpacked before.
pub(super) struct Unpacked;

impl Unpack for Bits4 {
    const BYTES: usize = 32;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(p: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        let [a, b] = unsafe { [vld1q_u8(p), vld1q_u8(p.add(16))] };
        let mask = vdupq_n_u8(15);
        let high = [vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)];
        signed([vandq_u8(a, mask), vandq_u8(b, mask), high[0], high[1]])
    }
}

impl Unpack for Fp4 {
    const BYTES: usize = 32;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(p: *const u8) -> Chunk {
        // SAFETY: the caller's promise; the table has sixteen bytes.
        unsafe {
            let table = vld1q_s8(FP4_BYTES.as_ptr().cast());
            let mut chunk = Bits4::unpack(p);
            for bytes in &mut chunk {
                *bytes = vqtbl1q_s8(table, vreinterpretq_u8_s8(*bytes));
            }
            chunk
        }
    }
}

impl Unpack for Bits2 {
    const BYTES: usize = 16;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(p: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        let packed = unsafe { vld1q_u8(p) };
        let mask = vdupq_n_u8(3);
        signed([
            vandq_u8(packed, mask),
            vandq_u8(vshrq_n_u8::<2>(packed), mask),
            vandq_u8(vshrq_n_u8::<4>(packed), mask),
            vshrq_n_u8::<6>(packed),
        ])
    }
}

impl Unpack for Bits8 {
    const BYTES: usize = 64;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(p: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        let [a, b, c, d] = unsafe { load(p.cast()) };
        let flip = vdupq_n_s8(-128);
        [veorq_s8(a, flip), veorq_s8(c, flip), veorq_s8(b, flip), veorq_s8(d, flip)]
    }
}

struct Tables<const BITS: usize>;

impl<const BITS: usize> Tables<BITS> {
    /// Moves the two bytes that each of sixteen weights touches into 16 bits.
    const SHUFFLE: [[u8; 16]; 2] = {
        let mut bytes = [[0; 16]; 2];
        let mut i = 0;
        while i < 16 {
            bytes[i / 8][i % 8 * 2] = (i * BITS / 8) as u8;
            bytes[i / 8][i % 8 * 2 + 1] = (i * BITS / 8 + 1) as u8;
            i += 1;
        }
        bytes
    };
    /// Moves the weight to the bottom of them; eight weights are whole bytes.
    const SHIFTS: [i16; 8] = {
        let mut shifts = [0; 8];
        let mut i = 0;
        while i < 8 {
            shifts[i] = -((i * BITS % 8) as i16);
            i += 1;
        }
        shifts
    };
}

impl<const BITS: usize> Unpack for Odd<BITS> {
    const BYTES: usize = 8 * BITS;
    const READS: usize = 6 * BITS + 16;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(p: *const u8) -> Chunk {
        // SAFETY: the caller's promise; the tables are as long as what is read of them.
        unsafe {
            let low = vld1q_u8(Tables::<BITS>::SHUFFLE[0].as_ptr());
            let high = vld1q_u8(Tables::<BITS>::SHUFFLE[1].as_ptr());
            let shifts = vld1q_s16(Tables::<BITS>::SHIFTS.as_ptr());
            let mask = vdupq_n_u8((1 << BITS) - 1);
            // Not functions: the compiler would not be sure to put them here.
            macro_rules! eight {
                ($packed:expr, $shuffle:expr) => {{
                    let pairs = vreinterpretq_u16_u8(vqtbl1q_u8($packed, $shuffle));
                    vreinterpretq_u8_u16(vshlq_u16(pairs, shifts))
                }};
            }
            macro_rules! sixteen {
                ($i:expr) => {{
                    let packed = vld1q_u8(p.add($i * 2 * BITS));
                    // The lower bytes of both.
                    vandq_u8(vuzp1q_u8(eight!(packed, low), eight!(packed, high)), mask)
                }};
            }
            signed([sixteen!(0), sixteen!(2), sixteen!(1), sixteen!(3)])
        }
    }
}

impl Unpack for Unpacked {
    const BYTES: usize = CHUNK;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(p: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        unsafe { load(p.cast()) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn signed([a, b, c, d]: [uint8x16_t; 4]) -> Chunk {
    [vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b), vreinterpretq_s8_u8(c), vreinterpretq_s8_u8(d)]
}

/// Unpacks chunks that lie behind one another.
///
/// # Safety
/// `U::READS` bytes are there of each.
#[target_feature(enable = "neon")]
pub(super) unsafe fn row<U: Unpack>(mut p: *const u8, out: &mut [[i8; CHUNK]]) {
    const { assert!(U::READS <= PADDED) };
    for out in out {
        // SAFETY: the caller's promise; a chunk is four vectors.
        unsafe {
            let [a, b, c, d] = U::unpack(p);
            vst1q_s8_x4(out.as_mut_ptr(), int8x16x4_t(a, b, c, d));
            p = p.add(U::BYTES);
        }
    }
}
