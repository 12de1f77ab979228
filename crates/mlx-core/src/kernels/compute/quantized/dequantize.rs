//! Unpacking of rows to the numbers that MLX's `dequantize` gives, bit for bit.

use super::exact::{in_own_order, values};
use super::{CHUNK, Rows, Scale};
use crate::kernels::compute::isa::{Level, multiversion};
use crate::kernels::compute::rows::{for_each, rows_per_part};
use crate::kernels::compute::{Float, Isa};

/// Writes some rows of a weight to `out`, `[rows, K]`, each product and each sum rounded to `T`.
///
/// # Panics
/// When there is no such row, or the size does not fit.
pub(crate) fn dequantize_rows<S: Scale, T: Float>(
    isa: Isa,
    w: &Rows<'_, S>,
    rows: &[usize],
    out: &mut [T],
) {
    assert_eq!(out.len(), rows.len() * w.k, "size of the result");
    let step = rows_per_part(rows.len(), w.k);
    for_each(rows.chunks(step).zip(out.chunks_mut(step * w.k)), |(rows, out)| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(w.k)) {
            dequantize_row(isa, w, row, out);
        }
    });
}

multiversion! {
    fn dequantize_row[S: Scale, T: Float] = dequantize_row_body(w: &Rows<'_, S>, row: usize, out: &mut [T])
}

#[inline(always)]
fn dequantize_row_body<L: Level, S: Scale, T: Float>(w: &Rows<'_, S>, row: usize, out: &mut [T]) {
    let groups = row * w.n_groups();
    let packed = w.row(row).chunks(CHUNK * w.format.bits() / 8);
    // Groups divide chunks, or chunks groups.
    let run = w.group_size.min(CHUNK);
    for (c, (packed, out)) in packed.zip(out.chunks_mut(CHUNK)).enumerate() {
        let mut bytes = [0u8; CHUNK];
        bytes[..packed.len()].copy_from_slice(packed);
        let values = in_own_order(w.format, &values::<L>(w.format, &bytes));
        for (r, (values, out)) in values.chunks(run).zip(out.chunks_mut(run)).enumerate() {
            let group = groups + (c * CHUNK + r * run) / w.group_size;
            let scale = w.scales[group].to_f32();
            // A sum is rounded as the product is, and not with it: no fused operation.
            match w.biases.get(group).map(|bias| bias.to_f32()) {
                Some(bias) => {
                    for (out, value) in out.iter_mut().zip(values) {
                        *out = T::from_f32(T::from_f32(value * scale).to_f32() + bias);
                    }
                }
                None => {
                    for (out, value) in out.iter_mut().zip(values) {
                        *out = T::from_f32(value * scale);
                    }
                }
            }
        }
    }
}
