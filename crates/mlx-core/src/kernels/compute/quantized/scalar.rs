//! The specification of the other instruction sets.

use std::ops::Range;

use super::{Activations, CHUNK, Format, Out, Rows, Scale};

pub(super) fn matmul<S: Scale>(x: &Activations, w: &Rows<'_, S>, rows: Range<usize>, out: &Out) {
    let mut scales = vec![0.0; x.groups_padded];
    let mut biases = vec![0.0; x.groups_padded];
    let mut chunk = [0u8; CHUNK];
    // What the kernels take off 8-bit weights to make them signed, which the biases make good.
    let offset = if w.format == Format::Affine(8) { 128 } else { 0 };
    for n in rows {
        w.factors(n, 0..w.n_groups(), w.format.offset(), &mut scales, &mut biases);
        for m in 0..x.n_rows {
            let q = &x.q[m * x.k_padded..][..x.k_padded];
            let factors = &x.scales[m * x.groups_padded..][..x.groups_padded];
            let sums = &x.sums[m * x.groups_padded..][..x.groups_padded];
            let mut dots = vec![0i32; x.groups_padded];
            let packed = w.row(n).chunks(CHUNK * w.format.bits() / 8);
            for (c, (packed, q)) in packed.zip(q.chunks_exact(CHUNK)).enumerate() {
                w.format.unpack(packed, &mut chunk);
                for (i, &weight) in chunk.iter().enumerate() {
                    let product = (i32::from(weight) - offset) * i32::from(q[w.format.place(i)]);
                    dots[(c * CHUNK + i) / w.group_size] += product;
                }
            }
            let mut sum = 0.0f32;
            for g in 0..w.k / w.group_size {
                sum += dots[g] as f32 * (scales[g] * factors[g]) + biases[g] * sums[g];
            }
            // SAFETY: `m` and `n` are in range.
            unsafe { out.set(m, n, sum) };
        }
    }
}
