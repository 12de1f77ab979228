//! Between ggml's blocks and MLX's packed weights, where nothing is lost.

use half::f16;

use super::dequantize::scales_and_mins;
use super::types::GgmlType;
use crate::quantization::{QuantMode, Quantization};

/// A weight in one of MLX's packed forms, on the host.
///
/// Affine scales are single precision, and unpacking with them gives the very numbers that
/// [`GgufFile::dequantize`](super::GgufFile::dequantize) gives, bit for bit; only a zero may have
/// the other sign where a scale of `Q1_0`, `Q2_0`, `Q4_0`, `Q5_0`, `Q8_0`, `TQ1_0` or `TQ2_0` is
/// negative.
///
/// | ggml | MLX | scale | bias | exact as `float16` |
/// | --- | --- | --- | --- | --- |
/// | `Q4_0`, `Q5_0`, `Q8_0` | affine 4, 5, 8 bits, groups of 32 | d | -8 d, -16 d, -128 d | scales yes |
/// | `Q4_1`, `Q5_1` | affine 4, 5 bits, groups of 32 | d | m | scales yes |
/// | `Q4_K`, `Q5_K` | affine 4, 5 bits, groups of 32 | d times 6 bits | -dmin times 6 bits | no |
/// | `Q2_0` | affine 2 bits, groups of 64 | d | -d | scales yes |
/// | `TQ1_0`, `TQ2_0` | affine 2 bits, groups of 128 | d | -d | scales yes |
/// | `Q1_0` | affine 2 bits, groups of 128 | 2 d | -d | scales yes |
/// | `MXFP4` | mxfp4 | the same byte | | all |
/// | `NVFP4` | nvfp4 | the same byte | | all |
///
/// As `float16` a bias overflows where d is very large, and MLX then computes in `float16`, where
/// products round. The other types have groups of 16 or code books, which MLX has not.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufPacked {
    /// The form.
    pub quantization: Quantization,
    /// The shape of the unpacked weight.
    pub shape: Vec<i32>,
    /// The elements of each row, lowest bits first, as bytes of little-endian `uint32`.
    pub weight: Vec<u8>,
    /// What each group is multiplied with.
    pub scales: GgufScales,
}

/// The scales of a [`GgufPacked`], a row after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufScales {
    /// For [`QuantMode::Affine`].
    Affine {
        /// What a group's elements are multiplied with.
        scales: Vec<f32>,
        /// What is then added.
        biases: Vec<f32>,
    },
    /// For the other modes: the scale as a small float.
    Micro(Vec<u8>),
}

/// Packs a tensor; `None` where there is no such form or a scale is not an ordinary number.
pub(super) fn pack(ty: GgmlType, shape: &[i32], bytes: &[u8]) -> Option<GgufPacked> {
    if shape.len() < 2 || ty.byte_size(shape) != Some(bytes.len() as u64) {
        return None;
    }
    let mut out = Packer::new(ty, bytes.len())?;
    match ty {
        GgmlType::Q4_0 => out.each(bytes, |out, b: &[u8; 18]| {
            let d = half(b, 0);
            out.group(d, -8.0 * d);
            out.nibbles(b, 2);
        }),
        GgmlType::Q4_1 => out.each(bytes, |out, b: &[u8; 20]| {
            out.group(half(b, 0), half(b, 2));
            out.nibbles(b, 4);
        }),
        GgmlType::Q5_0 => out.each(bytes, |out, b: &[u8; 22]| {
            let d = half(b, 0);
            out.group(d, -16.0 * d);
            out.fives(&std::array::from_fn(|j| {
                b[6 + j % 16] >> (j / 16 * 4) & 15 | fifth(b, 2, j)
            }));
        }),
        GgmlType::Q5_1 => out.each(bytes, |out, b: &[u8; 24]| {
            out.group(half(b, 0), half(b, 2));
            out.fives(&std::array::from_fn(|j| {
                b[8 + j % 16] >> (j / 16 * 4) & 15 | fifth(b, 4, j)
            }));
        }),
        GgmlType::Q8_0 => out.each(bytes, |out, b: &[u8; 34]| {
            let d = half(b, 0);
            out.group(d, -128.0 * d);
            out.weight.extend(b[2..].iter().map(|q| q ^ 0x80));
        }),
        GgmlType::Q4_K => out.each(bytes, |out, b: &[u8; 144]| {
            out.k_groups(b);
            for group in 0..8 {
                let (at, shift) = (16 + group / 2 * 32, group % 2 * 4);
                let nibble = |j: usize| b[at + j] >> shift & 15;
                out.weight.extend((0..16).map(|j| nibble(2 * j) | nibble(2 * j + 1) << 4));
            }
        }),
        GgmlType::Q5_K => out.each(bytes, |out, b: &[u8; 176]| {
            out.k_groups(b);
            for group in 0..8 {
                let (at, shift) = (48 + group / 2 * 32, group % 2 * 4);
                out.fives(&std::array::from_fn(|j| {
                    b[at + j] >> shift & 15 | (b[16 + j] >> group & 1) << 4
                }));
            }
        }),
        GgmlType::Q1_0 => out.each(bytes, |out, b: &[u8; 18]| {
            let d = half(b, 0);
            out.group(2.0 * d, -d);
            out.twos(128, |j| b[2 + j / 8] >> (j % 8) & 1);
        }),
        GgmlType::Q2_0 => out.each(bytes, |out, b: &[u8; 18]| {
            let d = half(b, 0);
            out.group(d, -d);
            out.weight.extend(&b[2..]);
        }),
        GgmlType::TQ1_0 => out.each(bytes, |out, b: &[u8; 54]| {
            let d = half(b, 52);
            (0..2).for_each(|_| out.group(d, -d));
            out.twos(256, |j| ternary_digit(b, j));
        }),
        GgmlType::TQ2_0 => out.each(bytes, |out, b: &[u8; 66]| {
            let d = half(b, 64);
            (0..2).for_each(|_| out.group(d, -d));
            out.twos(256, |j| b[j / 128 * 32 + j % 32] >> (j / 32 % 4 * 2) & 3);
        }),
        GgmlType::MXFP4 => out.each(bytes, |out, b: &[u8; 17]| {
            // The greatest is a power of two for ggml, and not a number for MLX.
            out.micro(b[0], b[0] < 255);
            out.floats(b, 1, 32);
        }),
        GgmlType::NVFP4 => out.each(bytes, |out, b: &[u8; 36]| {
            for group in 0..4 {
                out.micro(b[group], b[group] < 0x7f);
                out.floats(b, 4 + group * 8, 16);
            }
        }),
        _ => return None,
    }
    out.finish(shape)
}

/// The form that a type has in MLX.
fn quantization_of(ty: GgmlType) -> Option<Quantization> {
    let affine = |bits, group_size| Quantization { group_size, bits, mode: QuantMode::Affine };
    Some(match ty {
        GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4_K => affine(4, 32),
        GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5_K => affine(5, 32),
        GgmlType::Q8_0 => affine(8, 32),
        GgmlType::Q2_0 => affine(2, 64),
        GgmlType::Q1_0 | GgmlType::TQ1_0 | GgmlType::TQ2_0 => affine(2, 128),
        GgmlType::MXFP4 => Quantization::of(QuantMode::Mxfp4),
        GgmlType::NVFP4 => Quantization::of(QuantMode::Nvfp4),
        _ => return None,
    })
}

#[inline(always)]
fn half<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Returns the fifth bit of an element in its place, from 32 of them at `at`.
#[inline(always)]
fn fifth<const N: usize>(block: &[u8; N], at: usize, j: usize) -> u8 {
    (block[at + j / 8] >> (j % 8) & 1) << 4
}

/// Returns the base-3 digit of an element of [`GgmlType::TQ1_0`].
fn ternary_digit(block: &[u8; 54], j: usize) -> u8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let (byte, power) = match j {
        0..160 => (j % 32, j / 32),
        160..240 => (32 + (j - 160) % 16, (j - 160) / 16),
        _ => (48 + (j - 240) % 4, (j - 240) / 4),
    };
    ((u16::from(block[byte].wrapping_mul(POWERS[power % 5])) * 3) >> 8) as u8
}

/// Collects the parts of a packed weight.
struct Packer {
    quantization: Quantization,
    weight: Vec<u8>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    micro: Vec<u8>,
    ordinary: bool,
}

impl Packer {
    fn new(ty: GgmlType, n_bytes: usize) -> Option<Packer> {
        let quantization = quantization_of(ty)?;
        let elements = n_bytes / ty.block_bytes() * ty.block_size();
        let groups = elements / quantization.group_size as usize;
        let affine = if quantization.mode == QuantMode::Affine { groups } else { 0 };
        Some(Packer {
            quantization,
            weight: Vec::with_capacity(elements / 8 * quantization.bits as usize),
            scales: Vec::with_capacity(affine),
            biases: Vec::with_capacity(affine),
            micro: Vec::with_capacity(groups - affine),
            ordinary: true,
        })
    }

    fn each<const N: usize>(&mut self, bytes: &[u8], f: impl Fn(&mut Packer, &[u8; N])) {
        bytes.as_chunks().0.iter().for_each(|block| f(self, block));
    }

    fn group(&mut self, scale: f32, bias: f32) {
        self.ordinary &= scale.is_finite() && bias.is_finite();
        self.scales.push(scale);
        self.biases.push(bias);
    }

    /// Adds the eight groups of a block that begins as [`GgmlType::Q4_K`] does.
    fn k_groups<const N: usize>(&mut self, block: &[u8; N]) {
        let (d, min) = (half(block, 0), half(block, 2));
        let (scales, mins) = scales_and_mins(&std::array::from_fn(|j| block[4 + j]));
        for (scale, least) in scales.into_iter().zip(mins) {
            self.group(d * f32::from(scale), -(min * f32::from(least)));
        }
    }

    fn micro(&mut self, scale: u8, ordinary: bool) {
        self.ordinary &= ordinary;
        self.micro.push(scale);
    }

    /// Adds 32 elements, the first 16 of which are lower halves of bytes, the others upper.
    fn nibbles<const N: usize>(&mut self, block: &[u8; N], at: usize) {
        for shift in [0, 4] {
            let nibble = |j: usize| block[at + j] >> shift & 15;
            self.weight.extend((0..8).map(|j| nibble(2 * j) | nibble(2 * j + 1) << 4));
        }
    }

    /// Adds floats as `nibbles` does; minus zero becomes zero, which is what ggml reads.
    fn floats<const N: usize>(&mut self, block: &[u8; N], at: usize, count: usize) {
        for shift in [0, 4] {
            let nibble = |j: usize| match block[at + j] >> shift & 15 {
                8 => 0,
                q => q,
            };
            self.weight.extend((0..count / 4).map(|j| nibble(2 * j) | nibble(2 * j + 1) << 4));
        }
    }

    /// Adds 32 elements of five bits.
    fn fives(&mut self, elements: &[u8; 32]) {
        for eight in elements.as_chunks::<8>().0 {
            let bits = eight.iter().rev().fold(0u64, |bits, &q| bits << 5 | u64::from(q));
            self.weight.extend(&bits.to_le_bytes()[..5]);
        }
    }

    /// Adds elements of two bits.
    fn twos(&mut self, count: usize, element: impl Fn(usize) -> u8) {
        let four = |j: usize| (0..4).fold(0, |bits, k| bits | element(4 * j + k) << (2 * k));
        self.weight.extend((0..count / 4).map(four));
    }

    fn finish(self, shape: &[i32]) -> Option<GgufPacked> {
        let Packer { quantization, weight, scales, biases, micro, ordinary } = self;
        let scales = match quantization.mode {
            QuantMode::Affine => GgufScales::Affine { scales, biases },
            _ => GgufScales::Micro(micro),
        };
        ordinary.then(|| GgufPacked { quantization, shape: shape.to_vec(), weight, scales })
    }
}
