//! Activations as 8-bit integers.

use super::{CHUNK, Format};
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
        };
        let places: [u8; CHUNK] = std::array::from_fn(|i| format.place(i) as u8);
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
                quantize_row(isa, x, q, scales, sums, group_size, &places);
            }
        });
        result
    }
}

multiversion! {
    fn quantize_row[T: Float] = quantize_row_body(
        x: &[T], q: &mut [i8], scales: &mut [f32], sums: &mut [f32], group_size: usize, places: &[u8; CHUNK]
    )
}

#[inline(always)]
fn quantize_row_body<S: Level, T: Float>(
    x: &[T],
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [f32],
    group_size: usize,
    places: &[u8; CHUNK],
) {
    for (g, x) in x.chunks_exact(group_size).enumerate() {
        let mut largest = [0.0f32; 16];
        for x in x.chunks_exact(16) {
            for (largest, x) in largest.iter_mut().zip(x) {
                let x = x.to_f32().abs();
                *largest = if x > *largest { x } else { *largest };
            }
        }
        let largest = largest.iter().fold(0.0f32, |a, &b| a.max(b));
        let scale = largest / 127.0;
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sum = 0i32;
        for (i, x) in x.chunks_exact(16).enumerate() {
            let mut rounded = [0i32; 16];
            for (rounded, x) in rounded.iter_mut().zip(x) {
                // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
                let shifted = x.to_f32() * inverse + 12_582_912.0;
                *rounded = shifted.to_bits() as i32 - 0x4b40_0000;
            }
            sum += rounded.iter().sum::<i32>();
            for (j, rounded) in rounded.iter().enumerate() {
                let at = g * group_size + i * 16 + j;
                q[at / CHUNK * CHUNK + usize::from(places[at % CHUNK])] = *rounded as i8;
            }
        }
        scales[g] = scale;
        sums[g] = scale * sum as f32;
    }
}
