//! Types that store small integers and a scale, without blocks in blocks.

use super::half;

/// Scale, then a bit per element: plus or minus the scale.
pub(super) fn q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = half(block, 0);
    for (j, x) in out.iter_mut().enumerate() {
        *x = if block[2 + j / 8] >> (j % 8) & 1 == 1 { d } else { -d };
    }
}

/// Scale, then two bits per element.
pub(super) fn q2_0(block: &[u8; 18], out: &mut [f32; 64]) {
    let d = half(block, 0);
    for (j, x) in out.iter_mut().enumerate() {
        let q = block[2 + j / 4] >> (j % 4 * 2) & 3;
        *x = d * f32::from(q as i8 - 1);
    }
}

/// Scale, then the first 16 elements in the lower halves of bytes, the others in the upper.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for j in 0..16 {
        let q = block[2 + j];
        out[j] = d * f32::from((q & 15) as i8 - 8);
        out[j + 16] = d * f32::from((q >> 4) as i8 - 8);
    }
}

/// As `q4_0`, with the least value behind the scale.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for j in 0..16 {
        let q = block[4 + j];
        out[j] = d * f32::from(q & 15) + m;
        out[j + 16] = d * f32::from(q >> 4) + m;
    }
}

/// As `q4_0`, with a word of fifth bits behind the scale.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for j in 0..16 {
        let q = block[6 + j];
        let (low, up) = ((high >> j & 1) << 4, (high >> (j + 16) & 1) << 4);
        out[j] = d * f32::from((q & 15 | low as u8) as i8 - 16);
        out[j + 16] = d * f32::from((q >> 4 | up as u8) as i8 - 16);
    }
}

/// As `q5_0`, with the least value behind the scale.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for j in 0..16 {
        let q = block[8 + j];
        let (low, up) = ((high >> j & 1) << 4, (high >> (j + 16) & 1) << 4);
        out[j] = d * f32::from(q & 15 | low as u8) + m;
        out[j + 16] = d * f32::from(q >> 4 | up as u8) + m;
    }
}

/// Scale, then signed bytes.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (x, q) in out.iter_mut().zip(&block[2..]) {
        *x = d * f32::from(q.cast_signed());
    }
}

/// Scale, a sum that is not needed here, then signed bytes.
pub(super) fn q8_1(block: &[u8; 36], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (x, q) in out.iter_mut().zip(&block[4..]) {
        *x = d * f32::from(q.cast_signed());
    }
}

/// Base-3 fractions of a byte: multiplied by a power of three, the next digit is what overflows
/// a product with three. 32 bytes of five digits, 16 of five, 4 of four, then the scale.
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = half(block, 52);
    let digits = |bytes: &[u8], n_digits: usize, out: &mut [f32]| {
        let mut power = 1u8;
        for out in out.chunks_exact_mut(bytes.len()).take(n_digits) {
            for (x, byte) in out.iter_mut().zip(bytes) {
                let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                *x = d * f32::from(digit as i8 - 1);
            }
            power = power.wrapping_mul(3);
        }
    };
    digits(&block[..32], 5, &mut out[..160]);
    digits(&block[32..48], 5, &mut out[160..240]);
    digits(&block[48..52], 4, &mut out[240..]);
}

/// Two bits per element, 32 bytes for each 128 elements, then the scale.
pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half(block, 64);
    for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        for (l, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (m, x) in out.iter_mut().enumerate() {
                let q = block[half * 32 + m] >> (2 * l) & 3;
                *x = d * f32::from(q as i8 - 1);
            }
        }
    }
}
