//! Products in float32 with weights unpacked on the way: MLX's result to rounding.

use std::ops::Range;

use super::{CHUNK, Format, Out, Rows, Scale};
use crate::kernels::compute::isa::{Level, multiversion};
use crate::kernels::compute::{Float, Isa};

/// Rows of activations that share the unpacking of weights.
const T: usize = 4;

const LANES: usize = 16;

/// Weights in a row, in the order of [`place`], that have one group.
pub(super) const BLOCK: usize = 8;

/// Rows of activations in the order in which weights come out, padded to whole chunks.
pub(crate) struct Ordered {
    /// `[M, k_padded]`
    x: Vec<f32>,
    pub(super) n_rows: usize,
    pub(super) k: usize,
    pub(super) format: Format,
}

impl Ordered {
    /// # Panics
    /// When `x` is not whole rows.
    pub(super) fn new<T: Float>(x: &[T], k: usize, format: Format) -> Ordered {
        assert!(k > 0 && x.len().is_multiple_of(k), "sizes");
        let (n_rows, k_padded) = (x.len() / k, k.next_multiple_of(CHUNK));
        let mut ordered = vec![0.0f32; n_rows * k_padded];
        for (x, ordered) in x.chunks_exact(k).zip(ordered.chunks_exact_mut(k_padded)) {
            for (i, x) in x.iter().enumerate() {
                ordered[i / CHUNK * CHUNK + place(format, i % CHUNK)] = x.to_f32();
            }
        }
        Ordered { x: ordered, n_rows, k, format }
    }

    /// Returns the rows that are named.
    ///
    /// # Panics
    /// When one is not there.
    pub(super) fn select(&self, rows: impl Iterator<Item = usize>) -> Ordered {
        let k_padded = self.k.next_multiple_of(CHUNK);
        let mut x = Vec::new();
        for row in rows {
            x.extend_from_slice(&self.x[row * k_padded..][..k_padded]);
        }
        Ordered { n_rows: x.len() / k_padded, x, ..*self }
    }
}

/// Writes the products with some rows of weights.
pub(super) fn matmul<S: Scale>(
    isa: Isa,
    x: &Ordered,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    part_matmul(isa, &x.x, w, rows, out);
}

/// The place of a chunk's `i`th weight: that of [`Format::place`] where halves or quarters of bytes
/// come together, else its own.
fn place(format: Format, i: usize) -> usize {
    match format.bits() {
        2 | 4 => format.place(i),
        _ => i,
    }
}

multiversion! {
    fn part_matmul[S: Scale] = part_matmul_body(x: &[f32], w: &Rows<'_, S>, rows: Range<usize>, out: &Out)
}

#[inline(always)]
fn part_matmul_body<L: Level, S: Scale>(x: &[f32], w: &Rows<'_, S>, rows: Range<usize>, out: &Out) {
    let k_padded = w.k.next_multiple_of(CHUNK);
    let n_rows = x.len() / k_padded;
    // A chunk of the padding may belong to groups that are not there.
    let n_groups = (k_padded / w.group_size.min(CHUNK)).max(1) + CHUNK / 16;
    let (mut scales, mut biases) = (vec![0.0; n_groups], vec![0.0; n_groups]);
    let mut weights = vec![0.0f32; k_padded];
    let mut factors = vec![0.0f32; k_padded / BLOCK];
    for n in rows {
        w.factors(n, 0..w.n_groups(), 0.0, &mut scales, &mut biases);
        unpack_row::<L, S>(w, n, 0, [&scales, &biases], &mut weights, &mut factors);
        let is_scaled = !w.biases.is_empty();
        let mut m = 0;
        while m < n_rows {
            let tile = &x[m * k_padded..];
            // SAFETY: `m` and `n` are in range.
            unsafe {
                if m + T <= n_rows {
                    let tile = std::array::from_fn(|t| &tile[t * k_padded..][..k_padded]);
                    let sums: [f32; T] = match is_scaled {
                        true => dots::<L, T>(tile, &weights),
                        false => scaled_dots::<L, T>(tile, &weights, &factors),
                    };
                    sums.iter().enumerate().for_each(|(t, &sum)| out.set(m + t, n, sum));
                    m += T;
                } else {
                    let tile = [&tile[..k_padded]];
                    let [sum] = match is_scaled {
                        true => dots::<L, 1>(tile, &weights),
                        false => scaled_dots::<L, 1>(tile, &weights, &factors),
                    };
                    out.set(m, n, sum);
                    m += 1;
                }
            }
        }
    }
}

/// Writes a row's weights from the chunk `start` on, in the order of [`place`]; behind the last one `x`
/// has zeros.
///
/// Those of formats without biases stay as they are, and `factors` get their scales: a scale may be so
/// great that the weight is infinite where its product with zero is not.
#[inline(always)]
pub(super) fn unpack_row<L: Level, S: Scale>(
    w: &Rows<'_, S>,
    n: usize,
    start: usize,
    [scales, biases]: [&[f32]; 2],
    weights: &mut [f32],
    factors: &mut [f32],
) {
    let is_scaled = !w.biases.is_empty();
    let packed = w.row(n).chunks(CHUNK * w.format.bits() / 8).skip(start);
    for (c, (packed, out)) in packed.zip(weights.chunks_exact_mut(CHUNK)).enumerate() {
        let mut bytes = [0u8; 64];
        bytes[..packed.len()].copy_from_slice(packed);
        let values = values(w.format, &bytes);
        for (block, (out, values)) in
            out.chunks_exact_mut(BLOCK).zip(values.chunks_exact(BLOCK)).enumerate()
        {
            let first = match w.format.bits() {
                4 => block % 4 * 16,
                2 => block % 2 * 32,
                _ => block * 8,
            };
            // A power of two; dividing by it would take as long as the block.
            let g = ((start + c) * CHUNK + first) >> w.group_size.trailing_zeros();
            let (scale, bias) = (scales[g], biases[g]);
            if !is_scaled {
                factors[c * (CHUNK / BLOCK) + block] = scale;
                out.copy_from_slice(values);
                continue;
            }
            for (out, value) in out.iter_mut().zip(values) {
                *out = L::fma(*value, scale, bias);
            }
        }
    }
}

/// Brings a chunk from the order of [`place`] into the weights' own.
#[inline(always)]
pub(super) fn in_own_order(format: Format, placed: &[f32; CHUNK]) -> [f32; CHUNK] {
    let mut out = *placed;
    match format.bits() {
        4 => {
            for i in 0..CHUNK / 2 {
                out[2 * i] = placed[i];
                out[2 * i + 1] = placed[CHUNK / 2 + i];
            }
        }
        2 => {
            for i in 0..CHUNK / 4 {
                for j in 0..4 {
                    out[4 * i + j] = placed[CHUNK / 4 * j + i];
                }
            }
        }
        _ => {}
    }
    out
}

/// Unpacks a chunk in the order of [`place`], into what scales are for.
#[inline(always)]
pub(super) fn values(format: Format, bytes: &[u8; 64]) -> [f32; CHUNK] {
    let mut out = [0.0; CHUNK];
    match format {
        Format::Affine(4) => {
            for i in 0..32 {
                out[i] = f32::from(bytes[i] & 15);
                out[32 + i] = f32::from(bytes[i] >> 4);
            }
        }
        Format::Affine(2) => {
            for i in 0..16 {
                for j in 0..4 {
                    out[16 * j + i] = f32::from(bytes[i] >> (2 * j) & 3);
                }
            }
        }
        Format::Affine(8) => {
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = f32::from(*byte);
            }
        }
        Format::Affine(bits) => {
            let (bits, mask) = (usize::from(bits), (1u64 << bits) - 1);
            for i in 0..8 {
                let mut word = [0; 8];
                word[..bits].copy_from_slice(&bytes[i * bits..][..bits]);
                let word = u64::from_le_bytes(word);
                for j in 0..8 {
                    out[8 * i + j] = (word >> (j * bits) & mask) as f32;
                }
            }
        }
        Format::Fp4 => {
            for i in 0..32 {
                out[i] = fp4(bytes[i] & 15);
                out[32 + i] = fp4(bytes[i] >> 4);
            }
        }
        Format::Fp8 => {
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = fp8(*byte);
            }
        }
    }
    out
}

/// Twice the value of a 4-bit float.
#[inline(always)]
fn fp4(bits: u8) -> f32 {
    let bits = u32::from(bits);
    // Exponent and mantissa where those of a `f32` are; 2^127 moves the exponent, subnormals included.
    let magnitude = f32::from_bits((bits & 7) << 22) * f32::from_bits(254 << 23);
    f32::from_bits(magnitude.to_bits() | (bits & 8) << 28)
}

/// Twice the value of an 8-bit float.
#[inline(always)]
fn fp8(bits: u8) -> f32 {
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7f) << 20) * f32::from_bits(248 << 23);
    f32::from_bits(magnitude.to_bits() | (bits & 0x80) << 24)
}

#[inline(always)]
fn dots<L: Level, const N: usize>(x: [&[f32]; N], w: &[f32]) -> [f32; N] {
    let mut sums = [[0.0f32; 2 * LANES]; N];
    let mut x = x.map(|x| x.chunks_exact(2 * LANES));
    for w in w.chunks_exact(2 * LANES) {
        for (sums, x) in sums.iter_mut().zip(&mut x) {
            let Some(x) = x.next() else { continue };
            for i in 0..2 * LANES {
                sums[i] = L::fma(x[i], w[i], sums[i]);
            }
        }
    }
    sums.map(total)
}

/// Does as [`dots`] with factors on the products of each block.
#[inline(always)]
fn scaled_dots<L: Level, const N: usize>(x: [&[f32]; N], w: &[f32], factors: &[f32]) -> [f32; N] {
    let mut sums = [[0.0f32; 2 * LANES]; N];
    let mut x = x.map(|x| x.chunks_exact(2 * LANES));
    let factors = factors.chunks_exact(2 * LANES / BLOCK);
    for (w, factors) in w.chunks_exact(2 * LANES).zip(factors) {
        for (sums, x) in sums.iter_mut().zip(&mut x) {
            let Some(x) = x.next() else { continue };
            for i in 0..2 * LANES {
                sums[i] = L::fma(x[i] * w[i], factors[i / BLOCK], sums[i]);
            }
        }
    }
    sums.map(total)
}

#[inline(always)]
fn total(sums: [f32; 2 * LANES]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for i in 0..LANES {
        lanes[i] = sums[i] + sums[i + LANES];
    }
    lanes.iter().sum()
}
