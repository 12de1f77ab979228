//! Activations as 8-bit integers.

use super::{CHUNK, Format};
#[cfg(target_arch = "x86_64")]
use crate::kernels::compute::isa::Kind;
use crate::kernels::compute::isa::{Level, multiversion};
use crate::kernels::compute::{Float, Isa, pool};

/// Rows of activations rounded to 8 bits, in the order in which a format's weights come out.
pub(crate) struct Activations {
    /// `[M, k_padded]`
    pub(super) q: Vec<i8>,
    /// `[M, groups_padded]`: what one step is worth.
    pub(super) scales: Vec<f32>,
    /// `[M, groups_padded]`: the sum of what the integers stand for.
    pub(super) sums: Vec<f32>,
    pub(super) n_rows: usize,
    pub(super) k: usize,
    pub(super) k_padded: usize,
    pub(super) groups_padded: usize,
    pub(super) group_size: usize,
    pub(super) format: Format,
    /// The same once more, where that is how they are read.
    #[cfg(target_arch = "x86_64")]
    pub(super) panels: Option<Box<super::avx2::Panels>>,
}

/// Groups are padded to this many, so that whole vectors of them can be read.
const GROUPS: usize = 8;

impl Activations {
    /// Rounds `[M, K]` numbers.
    ///
    /// # Panics
    /// When `x` is not whole rows, or `k` not whole groups.
    pub(crate) fn new<T: Float>(
        isa: Isa,
        x: &[T],
        k: usize,
        group_size: usize,
        format: Format,
    ) -> Activations {
        Activations::rounded(isa, x, k, group_size, format).arranged(isa)
    }

    /// Does as [`Activations::new`] for rows of which products take some: those of [`Activations::select`].
    ///
    /// # Panics
    /// As there.
    pub(super) fn rounded<T: Float>(
        isa: Isa,
        x: &[T],
        k: usize,
        group_size: usize,
        format: Format,
    ) -> Activations {
        assert!(k > 0 && x.len().is_multiple_of(k) && k.is_multiple_of(group_size), "sizes");
        let n_rows = x.len() / k;
        let k_padded = k.next_multiple_of(CHUNK);
        let groups_padded = (k_padded / group_size).max(1).next_multiple_of(GROUPS) + GROUPS;
        let mut result = Activations {
            q: vec![0; n_rows * k_padded],
            scales: vec![0.0; n_rows * groups_padded],
            sums: vec![0.0; n_rows * groups_padded],
            n_rows,
            k,
            k_padded,
            groups_padded,
            group_size,
            format,
            #[cfg(target_arch = "x86_64")]
            panels: None,
        };
        let rows: Vec<_> = x
            .chunks_exact(k)
            .zip(result.q.chunks_exact_mut(k_padded))
            .zip(result.scales.chunks_exact_mut(groups_padded))
            .zip(result.sums.chunks_exact_mut(groups_padded))
            .map(|(((x, q), scales), sums)| std::sync::Mutex::new((x, q, scales, sums)))
            .collect();
        let parts = if x.len() < 16 * 1024 { 1 } else { rows.len() };
        let each = rows.len().div_ceil(parts.max(1)).max(1);
        pool::run(parts, &|part| {
            for row in rows.iter().skip(part * each).take(each) {
                let mut row = row.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let (x, q, scales, sums) = &mut *row;
                quantize_row(isa, x, q, scales, sums, group_size, format);
                #[cfg(target_arch = "x86_64")]
                if isa.0 == Kind::Avx2 {
                    // SAFETY: a value of `Isa` is made only where the CPU has the instructions.
                    unsafe { super::avx2::arrange(format, q) };
                }
            }
        });
        result
    }

    /// Adds the form in which the instruction set reads rows, which products need.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut, unused_variables))]
    fn arranged(mut self, isa: Isa) -> Activations {
        #[cfg(target_arch = "x86_64")]
        if isa.0 == Kind::Avx2 && self.n_rows > 1 {
            self.panels = super::avx2::Panels::new(&self).map(Box::new);
        }
        self
    }

    /// Returns the rows that are named.
    ///
    /// # Panics
    /// When one is not there.
    pub(super) fn select(&self, isa: Isa, rows: impl Iterator<Item = usize>) -> Activations {
        let (mut q, mut scales, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        let (mut n_rows, groups) = (0, self.groups_padded);
        for row in rows {
            q.extend_from_slice(&self.q[row * self.k_padded..][..self.k_padded]);
            scales.extend_from_slice(&self.scales[row * groups..][..groups]);
            sums.extend_from_slice(&self.sums[row * groups..][..groups]);
            n_rows += 1;
        }
        let selected = Activations {
            q,
            scales,
            sums,
            n_rows,
            #[cfg(target_arch = "x86_64")]
            panels: None,
            ..*self
        };
        selected.arranged(isa)
    }
}

multiversion! {
    fn quantize_row[T: Float] = quantize_row_body(
        x: &[T], q: &mut [i8], scales: &mut [f32], sums: &mut [f32], group_size: usize, format: Format
    )
}

#[inline(always)]
fn quantize_row_body<S: Level, T: Float>(
    x: &[T],
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [f32],
    group_size: usize,
    format: Format,
) {
    let groups = x.chunks_exact(group_size).zip(q.chunks_mut(group_size));
    for ((x, q), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        // As integers, among which what is no number is the greatest.
        let mut largest = [0u32; 16];
        for x in x.as_chunks::<16>().0 {
            for i in 0..16 {
                largest[i] = largest[i].max(x[i].to_f32().to_bits() & 0x7fff_ffff);
            }
        }
        for n in [8, 4, 2, 1] {
            for i in 0..n {
                largest[i] = largest[i].max(largest[i + n]);
            }
        }
        let largest = f32::from_bits(largest[0]);
        let inverse = 127.0 / largest;
        if !(largest.is_finite() && inverse.is_finite()) {
            // All zeros or nearly, or a number among them that no integer stands for.
            q.fill(0);
            *scale = if largest.is_finite() { 0.0 } else { f32::NAN };
            *sum = *scale;
            continue;
        }
        let mut total = [0i32; 16];
        for (x, q) in x.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0) {
            for i in 0..16 {
                // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
                let shifted = x[i].to_f32() * inverse + 12_582_912.0;
                let rounded = shifted.to_bits() as i32 - 0x4b40_0000;
                total[i] += rounded;
                q[i] = rounded as i8;
            }
        }
        *scale = largest / 127.0;
        *sum = *scale * total.iter().sum::<i32>() as f32;
    }
    for chunk in q.as_chunks_mut::<CHUNK>().0 {
        arrange(format, chunk);
    }
}

/// Puts a chunk in the order of [`Format::place`].
#[inline(always)]
fn arrange(format: Format, chunk: &mut [i8; CHUNK]) {
    match format.bits() {
        4 => separate::<2>(chunk),
        2 => separate::<4>(chunk),
        _ => {
            let from = *chunk;
            chunk[16..32].copy_from_slice(&from[32..48]);
            chunk[32..48].copy_from_slice(&from[16..32]);
        }
    }
}

/// Puts every `N`th together; in words of `N` bytes, where the compiler finds the vectors.
#[inline(always)]
fn separate<const N: usize>(chunk: &mut [i8; CHUNK]) {
    let mut words = [0u32; CHUNK / 2];
    let words = &mut words[..CHUNK / N];
    for (word, bytes) in words.iter_mut().zip(chunk.as_chunks::<N>().0) {
        for j in 0..N {
            *word |= u32::from(bytes[j] as u8) << (8 * j);
        }
    }
    for (j, out) in chunk.chunks_exact_mut(CHUNK / N).enumerate() {
        for (out, word) in out.iter_mut().zip(&*words) {
            *out = (word >> (8 * j)) as i8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_in_the_order_of_their_format() {
        for format in [2, 3, 4, 5, 6, 8].map(Format::Affine).into_iter().chain([Format::Fp4]) {
            let mut chunk = std::array::from_fn(|i| i as i8);
            arrange(format, &mut chunk);
            for i in 0..CHUNK {
                assert_eq!(usize::try_from(chunk[format.place(i)]), Ok(i), "{format:?}");
            }
        }
    }
}
