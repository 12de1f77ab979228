//! The K types: blocks of 256 elements, made of smaller ones whose scales are themselves quantized.

use super::{half, scales_and_mins};

/// 16 scales with least values (4 bits each), 64 bytes of two-bit elements, two scales of those.
///
/// 32 bytes hold 128 elements: the lowest bits of each make the first 32, and so on.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, min) = (half(block, 80), half(block, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, least) = (block[group] & 15, block[group] >> 4);
        let (dl, ml) = (d * f32::from(scale), min * f32::from(least));
        let (bytes, shift) = (16 + group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2);
        for (j, x) in out.iter_mut().enumerate() {
            *x = dl * f32::from(block[bytes + j] >> shift & 3) - ml;
        }
    }
}

/// 32 bytes of third bits, 64 of the lower two, 16 six-bit scales in 12 bytes, their scale.
///
/// A third bit that is set means that nothing is subtracted.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half(block, 108);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = block[96 + group % 8] >> (group / 8 * 4) & 15;
        let high = block[104 + group % 4] >> (group / 4 * 2) & 3;
        let dl = d * f32::from((low | high << 4) as i8 - 32);
        let (bytes, shift) = (32 + group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2);
        let (masks, bit) = (group % 2 * 16, group / 2);
        for (j, x) in out.iter_mut().enumerate() {
            let q = block[bytes + j] >> shift & 3;
            let third = block[masks + j] >> bit & 1;
            *x = dl * f32::from((q | third << 2) as i8 - 4);
        }
    }
}

/// Scales of scales and of least values, 8 of each in 12 bytes, 128 bytes of four-bit elements.
///
/// 32 bytes hold 64 elements, the first 32 in their lower halves.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, min) = (half(block, 0), half(block, 2));
    let (scales, mins) = scales_and_mins(&packed(block));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (dl, ml) = (d * f32::from(scales[group]), min * f32::from(mins[group]));
        let (bytes, shift) = (16 + group / 2 * 32, group % 2 * 4);
        for (j, x) in out.iter_mut().enumerate() {
            *x = dl * f32::from(block[bytes + j] >> shift & 15) - ml;
        }
    }
}

/// As `q4_k`, with 32 bytes of fifth bits before the others, a bit of each byte per 32 elements.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, min) = (half(block, 0), half(block, 2));
    let (scales, mins) = scales_and_mins(&packed(block));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (dl, ml) = (d * f32::from(scales[group]), min * f32::from(mins[group]));
        let (bytes, shift) = (48 + group / 2 * 32, group % 2 * 4);
        for (j, x) in out.iter_mut().enumerate() {
            let fifth = block[16 + j] >> group & 1;
            *x = dl * f32::from(block[bytes + j] >> shift & 15 | fifth << 4) - ml;
        }
    }
}

/// 128 bytes of lower halves, 64 of the upper two bits, 16 signed scales, their scale.
///
/// Half of each holds 128 elements: 64 lower halves, then 64 upper; the upper bits in fours.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let dl = d * f32::from(block[192 + group].cast_signed());
        // Of a half's eight groups, two share the upper bits of one place, four the lower halves.
        let (side, place) = (group / 8, group % 8);
        let (low, shift) = (side * 64 + place % 4 * 16, place / 4 * 4);
        let (high, up) = (128 + side * 32 + place % 2 * 16, place / 2 * 2);
        for (j, x) in out.iter_mut().enumerate() {
            let q = block[low + j] >> shift & 15 | (block[high + j] >> up & 3) << 4;
            *x = dl * f32::from(q as i8 - 32);
        }
    }
}

/// A single-precision scale, signed bytes, and sums that are not needed here.
pub(super) fn q8_k(block: &[u8; 292], out: &mut [f32; 256]) {
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (x, q) in out.iter_mut().zip(&block[4..260]) {
        *x = d * f32::from(q.cast_signed());
    }
}

/// Returns the twelve bytes behind two scales.
fn packed<const N: usize>(block: &[u8; N]) -> [u8; 12] {
    std::array::from_fn(|j| block[4 + j])
}
