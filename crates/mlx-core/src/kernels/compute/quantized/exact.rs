//! Products in float32 with weights unpacked on the way: MLX's result to rounding.

use std::ops::Range;

use super::{CHUNK, Format, Out, Rows, Scale};
use crate::kernels::compute::isa::{Level, multiversion};
use crate::kernels::compute::{Float, Isa};

/// Rows of activations that share the unpacking of weights.
const T: usize = 4;

/// Weights in a row, in the order of [`Ordered`], that have one group.
pub(super) const BLOCK: usize = 8;

/// Weights that have one group in formats whose order is the weights' own.
const RUN: usize = 16;

/// Groups of a chunk at most.
pub(super) const GROUPS: usize = CHUNK / 16;

/// Bytes ahead that weights are fetched: the CPU itself does not look beyond a page.
const AHEAD: usize = 8 * 1024;

/// Rows of activations in the order in which weights come out, padded to whole chunks: that of
/// [`Format::place`] where halves or quarters of bytes come together, else the weights' own.
pub(crate) struct Ordered {
    /// `[M, k_padded]`
    pub(super) x: Vec<f32>,
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
            match format.bits() {
                2 | 4 => {
                    for (x, ordered) in x.chunks(CHUNK).zip(ordered.chunks_exact_mut(CHUNK)) {
                        for (i, x) in x.iter().enumerate() {
                            ordered[format.place(i)] = x.to_f32();
                        }
                    }
                }
                _ => ordered.iter_mut().zip(x).for_each(|(ordered, x)| *ordered = x.to_f32()),
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
        let n_rows = x.len() / k_padded;
        Ordered { x, n_rows, ..*self }
    }

    /// Tells whether it is one row for weights that are 8-bit floats, which are used as they are unpacked.
    pub(super) fn is_one_of_fp8(&self) -> bool {
        self.n_rows == 1 && self.format == Format::Fp8
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
    match x.is_one_of_fp8() {
        true => part_of_one(isa, &x.x, w, rows, out),
        false => part_matmul(isa, &x.x, w, rows, out),
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
    let n_groups = (k_padded / w.group_size.min(CHUNK)).max(1) + GROUPS;
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

multiversion! {
    fn part_of_one[S: Scale] = part_of_one_body(x: &[f32], w: &Rows<'_, S>, rows: Range<usize>, out: &Out)
}

/// Writes the products of one row with weights that are 8-bit floats, which are used as they are unpacked.
#[inline(always)]
fn part_of_one_body<L: Level, S: Scale>(x: &[f32], w: &Rows<'_, S>, rows: Range<usize>, out: &Out) {
    let x_runs = x.as_chunks::<RUN>().0;
    let (mut scales, mut biases) = (vec![0.0; w.n_groups()], vec![0.0; w.n_groups()]);
    let shift = (w.group_size / RUN).trailing_zeros();
    for n in rows {
        w.factors(n, 0..w.n_groups(), 0.0, &mut scales, &mut biases);
        let row = w.row(n);
        // Four by constant index: those by a computed one would lie in memory.
        let mut sums = [[0.0f32; 8]; 4];
        let fours = row.as_chunks::<{ 4 * RUN }>().0.iter().zip(x_runs.as_chunks::<4>().0);
        let n_fours = w.k / (4 * RUN);
        for (i, (packed, x)) in fours.enumerate() {
            L::prefetch(packed.as_ptr().wrapping_add(AHEAD));
            for j in 0..4 {
                let scale = scales[(4 * i + j) >> shift];
                sums[j] = run::<L>(&packed.as_chunks::<RUN>().0[j], &x[j], scale, sums[j]);
            }
        }
        for i in 4 * n_fours..w.k / RUN {
            sums[0] = run::<L>(&row.as_chunks().0[i], &x_runs[i], scales[i >> shift], sums[0]);
        }
        let sum: f32 = L::totals(&sums).iter().sum();
        // Weights are divided by 2^8, and scales are those of twice the weight.
        // SAFETY: there is one row of activations, and `n` is in range.
        unsafe { out.set(0, n, sum * 512.0) };
    }
}

/// Adds the products of a run with its scale.
#[inline(always)]
fn run<L: Level>(packed: &[u8; RUN], x: &[f32; RUN], scale: f32, sum: [f32; 8]) -> [f32; 8] {
    let ([a, b], [x_a, x_b]) = (packed.as_chunks::<8>().0, x.as_chunks::<8>().0) else {
        return sum;
    };
    let product = L::fma8(L::widen_e4m3(a), *x_a, [0.0; 8]);
    let product = L::fma8(L::widen_e4m3(b), *x_b, product);
    L::fma8(product, [scale; 8], sum)
}

/// Writes a row's weights from the chunk `start` on, in the order of [`Ordered`]; behind the last one `x`
/// has zeros. There are [`GROUPS`] scales and biases from each group on.
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
    let (row, chunk_bytes) = (w.row(n), CHUNK * w.format.bits() / 8);
    // A power of two; dividing by it would take as long as a block.
    let shift = w.group_size.trailing_zeros();
    let mut within = [0; CHUNK / BLOCK];
    for (block, within) in within.iter_mut().enumerate() {
        let first = match w.format.bits() {
            4 => block % 4 * 16,
            2 => block % 2 * 32,
            _ => block * 8,
        };
        *within = first >> shift;
    }
    for (c, out) in weights.chunks_exact_mut(CHUNK).enumerate() {
        let packed = &row[((start + c) * chunk_bytes).min(row.len())..];
        let mut copy = [0u8; CHUNK];
        let bytes = packed.first_chunk().unwrap_or_else(|| {
            copy[..packed.len()].copy_from_slice(packed);
            &copy
        });
        let values = values::<L>(w.format, bytes);
        let group = ((start + c) * CHUNK) >> shift;
        let known = (scales[group..].first_chunk(), biases[group..].first_chunk());
        let (Some(scales), Some(biases)): (Option<&[f32; GROUPS]>, Option<&[f32; GROUPS]>) = known
        else {
            break;
        };
        if !is_scaled {
            out.copy_from_slice(&values);
            let factors = &mut factors[c * within.len()..][..within.len()];
            factors.iter_mut().zip(within).for_each(|(factor, g)| *factor = scales[g % GROUPS]);
            continue;
        }
        let blocks = out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(values.as_chunks().0);
        for ((out, values), g) in blocks.zip(within) {
            let (scale, bias) = (scales[g % GROUPS], biases[g % GROUPS]);
            *out = L::fma8(*values, [scale; BLOCK], [bias; BLOCK]);
        }
    }
}

/// Brings a chunk from the order of [`Ordered`] into the weights' own.
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

/// Unpacks a chunk in the order of [`Ordered`], into what scales are for.
#[inline(always)]
pub(super) fn values<L: Level>(format: Format, bytes: &[u8; 64]) -> [f32; CHUNK] {
    let mut codes = *bytes;
    match format {
        Format::Affine(4) | Format::Fp4 => {
            for i in 0..32 {
                (codes[i], codes[32 + i]) = (bytes[i] & 15, bytes[i] >> 4);
            }
        }
        Format::Affine(2) => {
            for i in 0..16 {
                for j in 0..4 {
                    codes[16 * j + i] = bytes[i] >> (2 * j) & 3;
                }
            }
        }
        Format::Affine(8) | Format::Fp8 => {}
        Format::Affine(bits) => {
            for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *codes = match bits {
                    3 => eight_codes::<3>(&bytes[3 * i..]),
                    5 => eight_codes::<5>(&bytes[5 * i..]),
                    _ => eight_codes::<6>(&bytes[6 * i..]),
                };
            }
        }
    }
    if format == Format::Fp4 {
        // As 8-bit floats, but for the exponents' offset.
        for code in &mut codes {
            *code = (*code & 7) << 2 | (*code & 8) << 4;
        }
    }
    let mut out = [0.0; CHUNK];
    for (out, codes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<8>().0) {
        *out = match format {
            Format::Affine(_) => L::widen_u8(codes),
            // Twice the values; these powers of two move the exponent, subnormals included. With the
            // negative zero a zero keeps its sign.
            Format::Fp4 => L::fma8(L::widen_e4m3(codes), [f32::from_bits(142 << 23); 8], [-0.0; 8]),
            Format::Fp8 => L::fma8(L::widen_e4m3(codes), [f32::from_bits(136 << 23); 8], [-0.0; 8]),
        };
    }
    out
}

/// Eight neighbours, spread by halves: fours to 32 bits each, then twos to 16, then each to a byte.
#[inline(always)]
fn eight_codes<const BITS: usize>(packed: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    word[..BITS].copy_from_slice(&packed[..BITS]);
    let word = u64::from_le_bytes(word);
    let word = word & const { low_bits(4 * BITS, 64) }
        | word << (32 - 4 * BITS) & const { low_bits(4 * BITS, 64) << 32 };
    let word = word & const { low_bits(2 * BITS, 32) }
        | word << (16 - 2 * BITS) & const { low_bits(2 * BITS, 32) << 16 };
    let word = word & const { low_bits(BITS, 16) }
        | word << (8 - BITS) & const { low_bits(BITS, 16) << 8 };
    word.to_le_bytes()
}

/// The first `n` bits of each `width` of a word.
const fn low_bits(n: usize, width: usize) -> u64 {
    ((1 << n) - 1) * (u64::MAX / (u64::MAX >> (64 - width)))
}

#[inline(always)]
fn dots<L: Level, const N: usize>(x: [&[f32]; N], w: &[f32]) -> [f32; N] {
    let mut sums = [[[0.0f32; BLOCK]; 2]; N];
    let mut x = x.map(|x| x.as_chunks::<{ 2 * BLOCK }>().0.iter());
    for w in w.as_chunks::<{ 2 * BLOCK }>().0 {
        let w = w.as_chunks::<BLOCK>().0;
        for (sums, x) in sums.iter_mut().zip(&mut x) {
            let Some(x) = x.next() else { continue };
            let x = x.as_chunks::<BLOCK>().0;
            for i in 0..2 {
                sums[i] = L::fma8(x[i], w[i], sums[i]);
            }
        }
    }
    sums.map(|sums| total::<L>(sums))
}

/// Does as [`dots`] with factors on the products of each block.
#[inline(always)]
fn scaled_dots<L: Level, const N: usize>(x: [&[f32]; N], w: &[f32], factors: &[f32]) -> [f32; N] {
    let mut sums = [[[0.0f32; BLOCK]; 2]; N];
    let mut x = x.map(|x| x.as_chunks::<{ 2 * BLOCK }>().0.iter());
    for (w, factors) in w.as_chunks::<{ 2 * BLOCK }>().0.iter().zip(factors.as_chunks::<2>().0) {
        let w = w.as_chunks::<BLOCK>().0;
        for (sums, x) in sums.iter_mut().zip(&mut x) {
            let Some(x) = x.next() else { continue };
            let x = x.as_chunks::<BLOCK>().0;
            for i in 0..2 {
                let product = L::fma8(x[i], w[i], [0.0; BLOCK]);
                sums[i] = L::fma8(product, [factors[i]; BLOCK], sums[i]);
            }
        }
    }
    sums.map(|sums| total::<L>(sums))
}

#[inline(always)]
fn total<L: Level>([a, b]: [[f32; BLOCK]; 2]) -> f32 {
    L::totals(&[a, b, [0.0; BLOCK], [0.0; BLOCK]]).iter().sum()
}
