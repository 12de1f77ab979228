//! The I types: elements are looked up in code books, several at once, with signs apart.

use super::{half, word};
use crate::io::gguf::grids;

static IQ1: [[i8; 8]; 2048] = ternary(&grids::IQ1_S);
static IQ2_XXS: [[u8; 8]; 256] = vectors(&grids::IQ2_XXS, &[8, 25, 43]);
static IQ2_XS: [[u8; 8]; 512] = vectors(&grids::IQ2_XS, &[8, 25, 43]);
static IQ2_S: [[u8; 8]; 1024] = vectors(&grids::IQ2_S, &[8, 25, 43]);
static IQ3_XXS: [[u8; 4]; 256] = vectors(&grids::IQ3_XXS, &[4, 12, 20, 28, 36, 44, 52, 62]);
static IQ3_S: [[u8; 4]; 512] = vectors(&grids::IQ3_S, &[1, 3, 5, 7, 9, 11, 13, 15]);

/// The code book of the non-linear 4-bit types.
const NON_LINEAR: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What is added to the vectors of the 1-bit types, or subtracted.
const DELTA: f32 = 0.125;

/// Eight signs, of which seven are stored: their number is always even.
const SIGNS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut i = 0;
    while i < signs.len() {
        signs[i] = i as u8 | ((i.count_ones() & 1) << 7) as u8;
        i += 1;
    }
    signs
};

/// Looks up the digits of each word of a code book, the lowest first, `16 / M` bits each.
const fn vectors<const M: usize, const N: usize>(words: &[u16; N], values: &[u8]) -> [[u8; M]; N] {
    let bits = 16 / M as u32;
    let mut vectors = [[0; M]; N];
    let mut at = 0;
    while at < N * M {
        let digit = words[at / M] >> (bits * (at % M) as u32) & ((1 << bits) - 1);
        vectors[at / M][at % M] = values[digit as usize];
        at += 1;
    }
    vectors
}

/// As `vectors`, for the values -1, 0 and 1.
const fn ternary<const N: usize>(words: &[u16; N]) -> [[i8; 8]; N] {
    let digits = vectors::<8, N>(words, &[0, 1, 2]);
    let mut vectors = [[0; 8]; N];
    let mut at = 0;
    while at < N * 8 {
        vectors[at / 8][at % 8] = digits[at / 8][at % 8] as i8 - 1;
        at += 1;
    }
    vectors
}

/// Writes `d` times a vector, negated where a bit of `signs` is set, the lowest first.
#[inline(always)]
fn signed<const N: usize>(out: &mut [f32], d: f32, vector: &[u8; N], signs: u8) {
    for (j, (x, value)) in out.iter_mut().zip(vector).enumerate() {
        let sign = u32::from(signs >> j & 1) << 31;
        *x = f32::from_bits((d * f32::from(*value)).to_bits() ^ sign);
    }
}

/// Writes `d` times a ternary vector that is moved by `delta`.
#[inline(always)]
fn moved(out: &mut [f32; 8], d: f32, vector: &[i8; 8], delta: f32) {
    for (x, value) in out.iter_mut().zip(vector) {
        *x = d * (f32::from(*value) + delta);
    }
}

/// Scale, then for each 32 elements four vectors and a word of signs and a 4-bit scale.
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let at = 2 + group * 8;
        let signs = u32::from(word(block, at + 4)) | u32::from(word(block, at + 6)) << 16;
        let dl = d * (0.5 + (signs >> 28) as f32) * 0.25;
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let vector = &IQ2_XXS[usize::from(block[at + l])];
            signed(out, dl, vector, SIGNS[(signs >> (7 * l) & 127) as usize]);
        }
    }
}

/// Scale, 32 words of a 9-bit vector and 7 signs, a 4-bit scale for each two of them.
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let q = usize::from(word(block, 2 + l * 2));
        let scale = block[66 + l / 4] >> (l / 2 % 2 * 4) & 15;
        let dl = d * (0.5 + f32::from(scale)) * 0.25;
        signed(out, dl, &IQ2_XS[q & 511], SIGNS[q >> 9]);
    }
}

/// Scale, 32 vectors, 32 bytes of signs, two more bits for each vector, 4-bit scales as `iq2_xs`.
pub(super) fn iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = usize::from(block[66 + l / 4] >> (l % 4 * 2) & 3);
        let vector = &IQ2_S[usize::from(block[2 + l]) | high << 8];
        let scale = block[74 + l / 4] >> (l / 2 % 2 * 4) & 15;
        let dl = d * (0.5 + f32::from(scale)) * 0.25;
        signed(out, dl, vector, block[34 + l]);
    }
}

/// Scale, 64 vectors, and for each 32 elements a word of signs and a 4-bit scale.
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let at = 66 + group * 4;
        let signs = u32::from(word(block, at)) | u32::from(word(block, at + 2)) << 16;
        let dl = d * (0.5 + (signs >> 28) as f32) * 0.5;
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let eight = SIGNS[(signs >> (7 * l) & 127) as usize];
            let at = 2 + group * 8 + l * 2;
            let (first, second) = out.split_at_mut(4);
            signed(first, dl, &IQ3_XXS[usize::from(block[at])], eight);
            signed(second, dl, &IQ3_XXS[usize::from(block[at + 1])], eight >> 4);
        }
    }
}

/// Scale, 64 vectors, a ninth bit for each, 32 bytes of signs, a 4-bit scale per 32 elements.
pub(super) fn iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (l, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let ninth = usize::from(block[66 + l / 8] >> (l % 8) & 1);
        let vector = &IQ3_S[usize::from(block[2 + l]) | ninth << 8];
        let scale = block[106 + l / 16] >> (l / 8 % 2 * 4) & 15;
        let dl = d * f32::from(1 + 2 * scale);
        signed(out, dl, vector, block[74 + l / 2] >> (l % 2 * 4));
    }
}

/// Scale, 32 vectors, and for each 32 elements a word: three more bits for each vector, a 3-bit
/// scale, and which way the vectors are moved.
pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let high = word(block, 34 + group * 2);
        let dl = d * f32::from(2 * (high >> 12 & 7) + 1);
        let delta = if high & 0x8000 == 0 { DELTA } else { -DELTA };
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index = u16::from(block[2 + group * 4 + l]) | (high >> (3 * l) & 7) << 8;
            moved(out, dl, &IQ1[usize::from(index)], delta);
        }
    }
}

/// 32 vectors, three more bits and a direction for each, four words of four 3-bit scales, of which
/// the upper four bits make the scale of all.
pub(super) fn iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    let bits = (0..4).fold(0, |d, k| d | word(block, 48 + 2 * k) >> 12 << (4 * k));
    let d = half(&bits.to_le_bytes(), 0);
    for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = block[32 + l / 2] >> (l % 2 * 4);
        let scale = word(block, 48 + l / 8 * 2) >> (l % 8 / 2 * 3) & 7;
        let dl = d * f32::from(2 * scale + 1);
        let delta = if high & 8 == 0 { DELTA } else { -DELTA };
        let index = u16::from(block[l]) | u16::from(high & 7) << 8;
        moved(out, dl, &IQ1[usize::from(index)], delta);
    }
}

/// Scale, then 16 elements in lower halves of bytes, 16 in upper ones.
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for j in 0..16 {
        let q = block[2 + j];
        out[j] = d * f32::from(NON_LINEAR[usize::from(q & 15)]);
        out[j + 16] = d * f32::from(NON_LINEAR[usize::from(q >> 4)]);
    }
}

/// Scale, upper two and lower four bits of eight scales, then 16 bytes for each as in `iq4_nl`.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = half(block, 0);
    let high = word(block, 2);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let scale = low | ((high >> (2 * group) & 3) << 4) as u8;
        let dl = d * f32::from(scale as i8 - 32);
        for j in 0..16 {
            let q = block[8 + group * 16 + j];
            out[j] = dl * f32::from(NON_LINEAR[usize::from(q & 15)]);
            out[j + 16] = dl * f32::from(NON_LINEAR[usize::from(q >> 4)]);
        }
    }
}
