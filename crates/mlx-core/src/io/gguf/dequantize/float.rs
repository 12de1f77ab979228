//! Types of 4-bit floats (E2M1) with a small float as their scale.

/// Twice the values of E2M1; scales are halved instead.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The exponent of a power of two, then 16 elements in lower halves of bytes, 16 in upper ones.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let d = half_power(block[0]);
    for j in 0..16 {
        let q = block[1 + j];
        out[j] = d * f32::from(DOUBLED[usize::from(q & 15)]);
        out[j + 16] = d * f32::from(DOUBLED[usize::from(q >> 4)]);
    }
}

/// Four scales, then 8 bytes for each, which hold 16 elements as those of `mxfp4`.
pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let d = half_e4m3(block[group]);
        for j in 0..8 {
            let q = block[4 + group * 8 + j];
            out[j] = d * f32::from(DOUBLED[usize::from(q & 15)]);
            out[j + 8] = d * f32::from(DOUBLED[usize::from(q >> 4)]);
        }
    }
}

/// Returns half of two to the power of `e - 127`.
fn half_power(e: u8) -> f32 {
    // The two smallest are not normal numbers.
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        _ => u32::from(e - 1) << 23,
    })
}

/// Returns half of an E4M3 number, whose sign ggml ignores, and whose NaN it takes for zero.
fn half_e4m3(byte: u8) -> f32 {
    if byte == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), u32::from(byte & 7));
    match exponent {
        // 2^-9 for a unit, halved.
        0 => f32::from(mantissa as u8) * f32::from_bits((127 - 10) << 23),
        _ => f32::from_bits((exponent + 127 - 8) << 23 | mantissa << 20),
    }
}
