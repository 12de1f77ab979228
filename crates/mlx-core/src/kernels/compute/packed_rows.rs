//! Rows packed as MLX's affine format has them: written one by one, and read in float32.
//!
//! Unlike [`quantized`](super::quantized), where a weight is packed once and multiplied with often,
//! these are keys and values, which come a row at a time and are read whole.

use std::ops::Range;

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::pool;
use super::rows::rows_per_part;

/// Integers of 4 or 8 bits with a scale and a bias for each group along the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedFormat {
    bits: usize,
    group_size: usize,
}

impl PackedFormat {
    /// Returns `None` where there is no code for it.
    pub(crate) fn new(bits: i32, group_size: i32) -> Option<PackedFormat> {
        let is_known = matches!(bits, 4 | 8) && matches!(group_size, 32 | 64 | 128);
        is_known.then_some(PackedFormat { bits: bits as usize, group_size: group_size as usize })
    }

    /// A number of its own.
    pub(crate) fn number(self) -> u64 {
        (self.bits << 16 | self.group_size) as u64
    }

    fn row_bytes(self, depth: usize) -> usize {
        depth * self.bits / 8
    }
}

/// The parts of packed rows, each row contiguous.
#[derive(Clone, Copy)]
pub(crate) struct PackedParts<'a, T> {
    pub(crate) weight: &'a [u8],
    pub(crate) scales: &'a [T],
    pub(crate) biases: &'a [T],
    pub(crate) format: PackedFormat,
}

impl<T> PackedParts<'_, T> {
    /// Returns how many rows of a depth there are, if the parts agree on it.
    pub(crate) fn n_rows(&self, depth: usize) -> Option<usize> {
        let PackedFormat { group_size, .. } = self.format;
        if depth == 0 || !depth.is_multiple_of(group_size) {
            return None;
        }
        let n_rows = self.scales.len() / (depth / group_size);
        let fits = self.scales.len() == n_rows * (depth / group_size)
            && self.biases.len() == self.scales.len()
            && self.weight.len() == n_rows.checked_mul(self.format.row_bytes(depth))?;
        fits.then_some(n_rows)
    }
}

impl<T: Float> PackedParts<'_, T> {
    /// Writes a row in float32.
    ///
    /// # Panics
    /// When it lies outside of the parts, or sizes do not fit.
    #[inline(always)]
    pub(crate) fn widen<S: Level>(&self, row: usize, depth: usize, out: &mut [f32]) {
        let PackedFormat { bits, group_size } = self.format;
        let (n_groups, row_bytes) = (depth / group_size, self.format.row_bytes(depth));
        let weight = &self.weight[row * row_bytes..][..row_bytes];
        let scales = &self.scales[row * n_groups..][..n_groups];
        let biases = &self.biases[row * n_groups..][..n_groups];
        // As far as the CPU itself does not look, which is a page.
        S::prefetch(weight.as_ptr().wrapping_add(AHEAD));
        let groups =
            weight.chunks_exact(group_size * bits / 8).zip(out.chunks_exact_mut(group_size));
        for ((weight, out), (scale, bias)) in groups.zip(scales.iter().zip(biases)) {
            let (scale, bias) = (scale.to_f32(), bias.to_f32());
            let (out, _) = out.as_chunks_mut::<8>();
            if bits == 4 {
                for (word, out) in weight.as_chunks::<4>().0.iter().zip(out) {
                    let word = u32::from_le_bytes(*word);
                    for i in 0..8 {
                        out[i] = S::fma((word >> (4 * i) & 15) as i32 as f32, scale, bias);
                    }
                }
            } else {
                for (bytes, out) in weight.as_chunks::<8>().0.iter().zip(out) {
                    for i in 0..8 {
                        out[i] = S::fma(f32::from(bytes[i]), scale, bias);
                    }
                }
            }
        }
    }
}

/// Bytes ahead that packed rows are fetched.
const AHEAD: usize = 2048;

/// Where packed rows go: a store of `capacity` rows for each head.
pub(crate) struct PackedStore<T> {
    pub(crate) weight: *mut [u8],
    pub(crate) scales: *mut [T],
    pub(crate) biases: *mut [T],
    pub(crate) format: PackedFormat,
    pub(crate) capacity: usize,
}

// SAFETY: the parts of a job write distinct rows.
unsafe impl<T: Send> Sync for PackedStore<T> {}

impl<T> PackedStore<T> {
    fn n_rows(&self, depth: usize) -> Option<usize> {
        let PackedFormat { group_size, .. } = self.format;
        let n_rows = self.scales.len().checked_div(depth / group_size)?;
        let fits = depth.is_multiple_of(group_size)
            && self.scales.len() == n_rows * (depth / group_size)
            && self.biases.len() == self.scales.len()
            && self.weight.len() == n_rows.checked_mul(self.format.row_bytes(depth))?;
        fits.then_some(n_rows)
    }
}

/// Packs rows `[N, L, D]`, and writes those of each of `N` heads to its rows from `start` on.
///
/// # Safety
/// The store is valid for writes, and nobody else reads or writes the places of rows.
///
/// # Panics
/// When sizes do not fit.
pub(crate) unsafe fn pack<T: Float>(
    isa: Isa,
    x: &[T],
    [n_heads, l, depth]: [usize; 3],
    start: usize,
    store: &PackedStore<T>,
) {
    assert_eq!(x.len(), n_heads * l * depth, "size of the rows");
    if x.is_empty() {
        return;
    }
    assert_eq!(store.n_rows(depth), n_heads.checked_mul(store.capacity), "size of the store");
    assert!(start.checked_add(l).is_some_and(|end| end <= store.capacity), "end of the store");
    let n_rows = n_heads * l;
    let step = rows_per_part(n_rows, depth);
    pool::run(n_rows.div_ceil(step), &|part| {
        let rows = part * step..(part * step + step).min(n_rows);
        pack_part(isa, x, [l, depth], start, rows, store);
    });
}

multiversion! {
    fn pack_part[T: Float] = pack_part_body(
        x: &[T],
        shape: [usize; 2],
        start: usize,
        rows: Range<usize>,
        store: &PackedStore<T>,
    )
}

#[inline(always)]
fn pack_part_body<S: Level, T: Float>(
    x: &[T],
    [l, depth]: [usize; 2],
    start: usize,
    rows: Range<usize>,
    store: &PackedStore<T>,
) {
    let PackedFormat { bits, group_size } = store.format;
    let (n_groups, row_bytes) = (depth / group_size, store.format.row_bytes(depth));
    let group_bytes = group_size * bits / 8;
    let mut group = [0.0f32; 128];
    let group = &mut group[..group_size];
    for row in rows {
        let place = row / l * store.capacity + start + row % l;
        // SAFETY: `pack` saw that all rows are within the store; this one is written by this part
        // alone, and by nobody else, as its caller promised.
        let (weight, scales, biases) = unsafe {
            let weight = store.weight.cast::<u8>().add(place * row_bytes);
            let scales = store.scales.cast::<T>().add(place * n_groups);
            let biases = store.biases.cast::<T>().add(place * n_groups);
            (
                std::slice::from_raw_parts_mut(weight, row_bytes),
                std::slice::from_raw_parts_mut(scales, n_groups),
                std::slice::from_raw_parts_mut(biases, n_groups),
            )
        };
        let x = x[row * depth..][..depth].chunks_exact(group_size);
        for ((x, weight), (scale, bias)) in
            x.zip(weight.chunks_exact_mut(group_bytes)).zip(scales.iter_mut().zip(biases))
        {
            for (group, x) in group.iter_mut().zip(x) {
                *group = x.to_f32();
            }
            let [s, b] = pack_group(group, bits, weight);
            (*scale, *bias) = (T::from_f32(s), T::from_f32(b));
        }
    }
}

#[inline(always)]
fn integer(x: f32, scale: f32, bias: f32, greatest: f32) -> u8 {
    ((x - bias) / scale).round_ties_even().max(0.0).min(greatest) as i32 as u8
}

/// Packs a group and returns its scale and bias, as MLX's `quantize` has them: the greatest
/// magnitude is exact, and zero is an integer.
#[inline(always)]
fn pack_group(x: &[f32], bits: usize, out: &mut [u8]) -> [f32; 2] {
    let greatest = ((1u32 << bits) - 1) as f32;
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &x in x {
        low = if x < low { x } else { low };
        high = if x > high { x } else { high };
    }
    let is_low = low.abs() > high.abs();
    let scale = ((high - low) / greatest).max(1e-7);
    let (mut scale, edge) = if is_low { (scale, low) } else { (-scale, high) };
    let (n, mut bias) = ((edge / scale).round_ties_even(), 0.0);
    if n != 0.0 {
        (scale, bias) = (edge / n, edge);
    }
    if bits == 4 {
        for (x, out) in x.as_chunks::<2>().0.iter().zip(out) {
            *out = integer(x[0], scale, bias, greatest) | integer(x[1], scale, bias, greatest) << 4;
        }
    } else {
        for (&x, out) in x.iter().zip(out) {
            *out = integer(x, scale, bias, greatest);
        }
    }
    [scale, bias]
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    const FORMATS: [(i32, i32); 4] = [(4, 32), (4, 64), (8, 64), (8, 128)];

    fn widen_body<S: Level, T: Float>(parts: PackedParts<'_, T>, row: usize, out: &mut [f32]) {
        parts.widen::<S>(row, out.len(), out);
    }
    multiversion! {
        fn widen[T: Float] = widen_body(parts: PackedParts<'_, T>, row: usize, out: &mut [f32])
    }

    fn check<T: Float + std::fmt::Debug + PartialEq>(isa: Isa, bits: i32, group_size: i32) {
        let format = PackedFormat::new(bits, group_size).expect("known");
        let ([n_heads, l, depth], start, capacity) = ([2, 3, 128], 1, 5);
        let x: Vec<T> = (0..n_heads * l * depth)
            .map(|i| T::from_f32((i as f32 * 0.7).sin() * if i < 300 { 1.0 } else { 40.0 }))
            .collect();
        let n_groups = n_heads * capacity * depth / group_size as usize;
        let mut weight = vec![7u8; n_heads * capacity * depth * bits as usize / 8];
        let (mut scales, mut biases) = (vec![T::default(); n_groups], vec![T::default(); n_groups]);
        let store = PackedStore {
            weight: &raw mut weight[..],
            scales: &raw mut scales[..],
            biases: &raw mut biases[..],
            format,
            capacity,
        };
        // SAFETY: vectors of our own.
        unsafe { pack(isa, &x, [n_heads, l, depth], start, &store) };
        let parts = PackedParts { weight: &weight, scales: &scales, biases: &biases, format };
        assert_eq!(parts.n_rows(depth), Some(n_heads * capacity));
        let mut row = vec![0.0; depth];
        for (i, x) in x.chunks_exact(depth).enumerate() {
            widen(isa, parts, i / l * capacity + start + i % l, &mut row);
            for (x, row) in
                x.chunks_exact(group_size as usize).zip(row.chunks_exact(group_size as usize))
            {
                let greatest = x.iter().map(|x| x.to_f32().abs()).fold(0.0, f32::max);
                // Less than a step, as what is farthest from the greatest magnitude may be cut off; and
                // what rounding of the scale makes of the greatest integer.
                let greatest_integer = ((1 << bits) - 1) as f32;
                let rounding = (T::from_f32(1.0 / 3.0).to_f32() - 1.0 / 3.0).abs() * 6.0;
                let bound = 2.0 * greatest * (1.0 / greatest_integer + rounding);
                for (x, ours) in x.iter().zip(row) {
                    assert!((x.to_f32() - ours).abs() <= bound, "{x:?} {ours} {bound}");
                }
            }
        }
        // Nothing else was written.
        let row_bytes = format.row_bytes(depth);
        for head in weight.chunks_exact(capacity * row_bytes) {
            assert_eq!(head[..row_bytes], vec![7; row_bytes]);
            assert_eq!(head[4 * row_bytes..], vec![7; row_bytes]);
        }
    }

    #[test]
    fn rows_come_back_within_a_step() {
        for isa in Isa::available() {
            for (bits, group_size) in FORMATS {
                check::<f32>(isa, bits, group_size);
                check::<f16>(isa, bits, group_size);
                check::<bf16>(isa, bits, group_size);
            }
        }
    }

    #[test]
    fn refuses_parts_that_do_not_fit() {
        assert_eq!(PackedFormat::new(3, 64), None);
        assert_eq!(PackedFormat::new(4, 16), None);
        let format = PackedFormat::new(4, 32).expect("known");
        let of = |weight, n| PackedParts::<f32> {
            weight: &[0; 64][..weight],
            scales: &[0.0; 8][..n],
            biases: &[0.0; 8][..n],
            format,
        };
        assert_eq!(of(64, 4).n_rows(64), Some(2));
        assert_eq!(of(63, 4).n_rows(64), None);
        assert_eq!(of(64, 3).n_rows(64), None);
        assert_eq!(of(64, 4).n_rows(48), None);
        assert_eq!(of(64, 4).n_rows(0), None);
    }
}
