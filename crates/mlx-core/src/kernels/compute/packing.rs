//! Packing of rows of weights into the numbers that MLX's `quantize` gives on a CPU, bit for bit, or,
//! in the same format, into those that are nearer to the weights ([`ScaleSearch`]).
//!
//! A row goes group by group through registers: its weights in float32, after rounding to the type
//! that scales have, then a code of eight bits for each, then those codes' low bits joined.

use std::any::TypeId;
use std::marker::PhantomData;

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::quantized::Format;

/// The longest group.
const MAX_GROUP: usize = 128;

/// Weights that are looked at together.
const LANES: usize = 16;

/// The format of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) format: Format,
    pub(crate) group_size: usize,
    /// How scales and biases of integers are found.
    pub(crate) search: ScaleSearch,
}

/// How the scale and the bias of a group of weights are found that are packed as integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScaleSearch {
    /// From the group's least and greatest weight, as MLX's `quantize` does.
    #[default]
    MinMax,
    /// Those with the least squares of differences from the weights, of some that are tried: ranges
    /// that leave out the farthest weights more and more, each fitted to the codes that it gives.
    /// The result is in the same format, and never farther from the weights than that of the other.
    LeastSquares,
}

impl Packing {
    /// Bytes that `n` weights take.
    pub(crate) fn packed_bytes(self, n: usize) -> usize {
        n * self.format.bits() / 8
    }
}

/// Where the parts of packed rows go.
pub(crate) struct Parts<'a, T> {
    pub(crate) packed: &'a mut [u8],
    /// One for each group: of `T` for integers, else a byte.
    pub(crate) scales: Scales<'a, T>,
}

/// What groups are multiplied with.
pub(crate) enum Scales<'a, T> {
    /// Scales and biases of integers.
    Affine(&'a mut [T], &'a mut [T]),
    /// Powers of two (E8M0), or 8-bit floats (E4M3) in groups of 16.
    Bytes(&'a mut [u8]),
}

/// Packs whole groups and tells whether all weights were finite; of others the result is of no use.
///
/// Weights of `S` are rounded to `T` first.
///
/// # Panics
/// When sizes do not fit.
pub(crate) fn pack<S: Float, T: Float>(
    isa: Isa,
    packing: Packing,
    weights: &[S],
    parts: Parts<'_, T>,
) -> bool {
    let Packing { format, group_size, search } = packing;
    let n_groups = weights.len() / group_size;
    assert_eq!(n_groups * group_size, weights.len(), "whole groups");
    assert!(matches!(group_size, 16 | 32 | 64 | 128), "groups of {group_size}");
    assert_eq!(parts.packed.len(), packing.packed_bytes(weights.len()), "packed weights");
    match (parts.scales, format) {
        (Scales::Affine(scales, biases), Format::Affine(bits)) => {
            assert_eq!((scales.len(), biases.len()), (n_groups, n_groups), "scales and biases");
            let (bits, packed) = (bits.into(), parts.packed);
            match search {
                ScaleSearch::MinMax => {
                    let search = PhantomData::<MinMax>;
                    affine(isa, bits, group_size, weights, packed, scales, biases, search)
                }
                ScaleSearch::LeastSquares => {
                    let search = PhantomData::<LeastSquares>;
                    affine(isa, bits, group_size, weights, packed, scales, biases, search)
                }
            }
        }
        (Scales::Bytes(scales), Format::Fp4 | Format::Fp8) => {
            assert_eq!(scales.len(), n_groups, "scales");
            let is_fp8 = format == Format::Fp8;
            floats(isa, is_fp8, group_size, weights, parts.packed, scales, PhantomData::<T>)
        }
        _ => panic!("scales of another format"),
    }
}

multiversion! {
    fn affine[F: Search, S: Float, T: Float] = affine_body(
        bits: usize, group_size: usize, weights: &[S], packed: &mut [u8], scales: &mut [T], biases: &mut [T], search: PhantomData<F>,
    ) -> bool
}

#[inline(always)]
fn affine_body<L: Level, F: Search, S: Float, T: Float>(
    bits: usize,
    group_size: usize,
    weights: &[S],
    packed: &mut [u8],
    scales: &mut [T],
    biases: &mut [T],
    _search: PhantomData<F>,
) -> bool {
    let greatest = ((1u32 << bits) - 1) as f32;
    let mut is_finite = true;
    let groups =
        weights.chunks_exact(group_size).zip(packed.chunks_exact_mut(group_size * bits / 8));
    for ((weights, packed), (to_scale, to_bias)) in groups.zip(scales.iter_mut().zip(biases)) {
        let mut group = [0.0f32; MAX_GROUP];
        let group = widen::<S, T>(weights, &mut group);
        let (min, max) = range(group);
        is_finite &= (max - min).is_finite();
        let (grid, codes) = F::find::<T>(group, [min, max], greatest);
        join(bits, &codes[..group_size], packed);
        (*to_scale, *to_bias) = (T::from_f32(grid.scale), T::from_f32(grid.bias));
    }
    is_finite
}

/// How the grid of a group is found; see [`ScaleSearch`].
trait Search {
    /// Returns the grid of a group with this range, and the codes in it.
    fn find<T: Float>(group: &[f32], range: [f32; 2], greatest: f32) -> (Grid, [u8; MAX_GROUP]);
}

struct MinMax;

impl Search for MinMax {
    #[inline(always)]
    fn find<T: Float>(
        group: &[f32],
        [min, max]: [f32; 2],
        greatest: f32,
    ) -> (Grid, [u8; MAX_GROUP]) {
        // MLX's codes are those of a grid that is not rounded yet.
        let grid = Grid::over(min, max, greatest);
        (grid, grid.codes(group, greatest))
    }
}

struct LeastSquares;

impl Search for LeastSquares {
    #[inline(always)]
    fn find<T: Float>(
        group: &[f32],
        [min, max]: [f32; 2],
        greatest: f32,
    ) -> (Grid, [u8; MAX_GROUP]) {
        let (plain, mut codes) = MinMax::find::<T>(group, [min, max], greatest);
        let mut nearest = plain.rounded::<T>();
        let mut least = nearest.distance(group, &codes);
        for clip in CLIPS {
            let margin = clip * (max - min);
            let mut grid = Grid::over(min + margin, max - margin, greatest).rounded::<T>();
            for _ in 0..FITS {
                let (distance, fitted) = grid.fit(group, greatest);
                if distance < least {
                    (least, nearest) = (distance, grid);
                    codes = grid.codes(group, greatest);
                }
                let Some(fitted) = fitted else { break };
                grid = fitted.rounded::<T>();
            }
        }
        (nearest, codes)
    }
}

/// The parts of a group's range that are left out at each end, one after the other.
const CLIPS: [f32; 8] = [0.0, 0.02, 0.04, 0.07, 0.1, 0.14, 0.18, 0.23];

/// How often a grid is fitted to the codes that it gives.
const FITS: usize = 3;

/// The numbers that codes stand for: `scale * code + bias`.
#[derive(Clone, Copy)]
struct Grid {
    scale: f32,
    bias: f32,
}

impl Grid {
    /// Returns the grid that MLX lays over a range: of its ends, the one farther from 0 is hit exactly.
    #[inline(always)]
    fn over(min: f32, max: f32, greatest: f32) -> Grid {
        let is_min = min.abs() > max.abs();
        let (edge, sign) = if is_min { (min, 1.0) } else { (max, -1.0) };
        let scale = sign * greater((max - min) / greatest, 1e-7);
        let steps = (edge / scale).round_ties_even();
        match steps != 0.0 {
            true => Grid { scale: edge / steps, bias: edge },
            false => Grid { scale, bias: 0.0 },
        }
    }

    /// Returns the grid that a file can have.
    #[inline(always)]
    fn rounded<T: Float>(self) -> Grid {
        let round = |x: f32| T::from_f32(x).to_f32();
        Grid { scale: round(self.scale), bias: round(self.bias) }
    }

    #[inline(always)]
    fn codes(self, group: &[f32], greatest: f32) -> [u8; MAX_GROUP] {
        let mut codes = [0u8; MAX_GROUP];
        for (codes, group) in codes.as_chunks_mut::<LANES>().0.iter_mut().zip(group.as_chunks().0) {
            *codes = integers(group, self.scale, self.bias, greatest);
        }
        codes
    }

    /// Returns the sum of squared differences of weights from what codes stand for.
    #[inline(always)]
    fn distance(self, group: &[f32], codes: &[u8; MAX_GROUP]) -> f32 {
        let mut sums = [0.0f32; LANES];
        let codes = codes.as_chunks::<LANES>().0;
        for (group, codes) in group.as_chunks::<LANES>().0.iter().zip(codes) {
            for i in 0..LANES {
                let difference = group[i] - (self.scale * f32::from(codes[i]) + self.bias);
                sums[i] += difference * difference;
            }
        }
        sums.iter().sum()
    }

    /// Returns the sum of squared differences from the nearest numbers of the grid, and the grid that is
    /// nearest to the weights with the same codes, if these are not all one.
    #[inline(always)]
    fn fit(self, group: &[f32], greatest: f32) -> (f32, Option<Grid>) {
        let inverse = 1.0 / self.scale;
        let [mut d, mut x, mut q, mut qq, mut xq] = [[0.0f32; LANES]; 5];
        for group in group.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                let code = ((group[i] - self.bias) * inverse).round_ties_even();
                let code = less(greater(code, 0.0), greatest);
                let difference = group[i] - (self.scale * code + self.bias);
                d[i] += difference * difference;
                x[i] += group[i];
                q[i] += code;
                qq[i] += code * code;
                xq[i] += group[i] * code;
            }
        }
        let [distance, x, q, qq, xq] = [d, x, q, qq, xq].map(|sums| sums.iter().sum::<f32>());
        let n = group.len() as f32;
        let spread = n * qq - q * q;
        let scale = (n * xq - x * q) / spread;
        let bias = (x - scale * q) / n;
        let is_grid = spread > 0.0 && scale != 0.0 && (scale + bias).is_finite();
        (distance, is_grid.then_some(Grid { scale, bias }))
    }
}

/// Brings a group to float32, rounded to `T` on the way.
#[inline(always)]
fn widen<'g, S: Float, T: Float>(weights: &[S], group: &'g mut [f32; MAX_GROUP]) -> &'g [f32] {
    let group = &mut group[..weights.len()];
    if TypeId::of::<S>() == TypeId::of::<T>() {
        group.iter_mut().zip(weights).for_each(|(to, weight)| *to = weight.to_f32());
    } else {
        for (to, weight) in group.iter_mut().zip(weights) {
            *to = T::from_f32(weight.to_f32()).to_f32();
        }
    }
    group
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn less(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Returns least and greatest; neither is finite where a weight is not.
#[inline(always)]
fn range(group: &[f32]) -> (f32, f32) {
    let (mut min, mut max, mut odd) = ([f32::MAX; LANES], [f32::MIN; LANES], [0.0f32; LANES]);
    for group in group.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            (min[i], max[i]) = (less(group[i], min[i]), greater(group[i], max[i]));
            // Zero, but for an infinity or NaN.
            odd[i] += group[i] * 0.0;
        }
    }
    let odd: f32 = odd.iter().sum();
    let min = min.iter().fold(f32::MAX, |a, &b| less(a, b));
    (min + odd, max.iter().fold(f32::MIN, |a, &b| greater(a, b)) + odd)
}

#[inline(always)]
fn integers(group: &[f32; LANES], scale: f32, bias: f32, greatest: f32) -> [u8; LANES] {
    // An integer below 2^23 and that are the low bits of their sum.
    group.map(|x| {
        let q = ((x - bias) / scale).round_ties_even();
        (less(greater(q, 0.0), greatest) + 8_388_608.0).to_bits() as u8
    })
}

/// Joins the low bits of codes, the first lowest.
#[inline(always)]
fn join(bits: usize, codes: &[u8], packed: &mut [u8]) {
    if bits == 8 {
        return packed.copy_from_slice(codes);
    }
    for (codes, packed) in codes.as_chunks::<8>().0.iter().zip(packed.chunks_exact_mut(bits)) {
        // Two by two, neighbours come together.
        let x = u64::from_le_bytes(*codes);
        let x = (x & 0x00ff_00ff_00ff_00ff) | ((x & 0xff00_ff00_ff00_ff00) >> (8 - bits));
        let x = (x & 0x0000_ffff_0000_ffff) | ((x & 0xffff_0000_ffff_0000) >> (16 - 2 * bits));
        let x = (x & 0xffff_ffff) | (x >> 32) << (4 * bits);
        packed.copy_from_slice(&x.to_le_bytes()[..bits]);
    }
}

multiversion! {
    fn floats[S: Float, T: Float] = floats_body(
        is_fp8: bool, group_size: usize, weights: &[S], packed: &mut [u8], scales: &mut [u8], to: PhantomData<T>,
    ) -> bool
}

#[inline(always)]
fn floats_body<L: Level, S: Float, T: Float>(
    is_fp8: bool,
    group_size: usize,
    weights: &[S],
    packed: &mut [u8],
    scales: &mut [u8],
    _to: PhantomData<T>,
) -> bool {
    let (bits, greatest) = if is_fp8 { (8, 448.0) } else { (4, 6.0) };
    let mut is_finite = true;
    let groups =
        weights.chunks_exact(group_size).zip(packed.chunks_exact_mut(group_size * bits / 8));
    for ((weights, packed), to_scale) in groups.zip(scales) {
        let mut group = [0.0f32; MAX_GROUP];
        let group = widen::<S, T>(weights, &mut group);
        let (min, max) = range(group);
        is_finite &= (max - min).is_finite();
        // Each step is rounded to `T`, as those of MLX are.
        let ideal = T::from_f32(greater(max.abs(), min.abs()) / greatest).to_f32();
        let scale = match group_size {
            16 => {
                *to_scale = e4m3(ideal);
                e4m3_value(*to_scale)
            }
            _ => {
                *to_scale = e8m0_at_least(ideal);
                e8m0_value(*to_scale)
            }
        };
        let mut codes = [0u8; MAX_GROUP];
        // A scale of 0 is that of weights too small for any other.
        if scale > 0.0 {
            for (codes, group) in
                codes.as_chunks_mut().0.iter_mut().zip(group.as_chunks::<LANES>().0)
            {
                let scaled = group.map(|x| T::from_f32(x / scale).to_f32());
                *codes = if is_fp8 { scaled.map(e4m3) } else { scaled.map(e2m1) };
            }
        }
        join(bits, &codes[..group_size], packed);
    }
    is_finite
}

/// Returns the nearest 4-bit float (E2M1), of two the smaller; there is no negative zero.
#[inline(always)]
fn e2m1(x: f32) -> u8 {
    let size = x.abs();
    let above = |limit: f32| u8::from(size > limit);
    let code = above(0.25) + above(0.75) + above(1.25) + above(1.75);
    let code = code + above(2.5) + above(3.5) + above(5.0);
    code | (u8::from(x < 0.0) & u8::from(code > 0)) << 3
}

/// Returns the nearest 8-bit float (E4M3), ties to even, and the greatest for all that is greater.
#[inline(always)]
fn e4m3(x: f32) -> u8 {
    let (sign, size) = (x.to_bits() >> 24 & 0x80, x.to_bits() & 0x7fff_ffff);
    // By an addition whose last bit is that of a subnormal, or by integers, the exponent moving from
    // its bias of 127 to that of 7.
    let subnormal = (f32::from_bits(size) + 16384.0).to_bits().wrapping_sub(0x4680_0000);
    let normal = size.wrapping_add(0xc407_ffff + (size >> 20 & 1)) >> 20;
    let code = if size < 0x3c80_0000 { subnormal } else { normal };
    let code = if size >= 0x43e0_0000 { 0x7e } else { code };
    (sign | code) as u8
}

#[inline(always)]
fn e4m3_value(code: u8) -> f32 {
    f32::from_bits(u32::from(code & 0x7f) << 20) * f32::from_bits(247 << 23)
}

/// Returns the least power of two (E8M0) that is no less than `x`.
///
/// DIFFERENCE: that is one for all that is not above 2⁻¹²⁷; in MLX the byte wraps there. Of 0 it is
/// 1, as there.
#[inline(always)]
fn e8m0_at_least(x: f32) -> u8 {
    let bits = x.to_bits();
    match bits {
        0 => 127,
        1..=0x0040_0000 => 0,
        _ => ((bits >> 23) + u32::from(bits & 0x007f_ffff != 0)).min(254) as u8,
    }
}

#[inline(always)]
fn e8m0_value(code: u8) -> f32 {
    f32::from_bits((u32::from(code) << 23).max(0x0040_0000))
}

multiversion! {
    /// Rounds to another type.
    pub(crate) fn convert[S: Float, T: Float] = convert_body(from: &[S], to: &mut [T])
}

#[inline(always)]
fn convert_body<L: Level, S: Float, T: Float>(from: &[S], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::from_f32(from.to_f32());
    }
}

#[cfg(test)]
mod tests;
