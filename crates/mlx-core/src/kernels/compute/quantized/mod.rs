//! Products with packed weights, on integers.
//!
//! A weight is `scale * q + bias` with a small integer `q`, in groups along the row. Activations are
//! rounded to 8 bits with a scale of their own for each group, so that a group's part of a product
//! is an integer dot product, two factors, and the bias times the group's sum.
//!
//! Work goes in chunks of 64 weights. How a chunk's bits become bytes is a matter of the format
//! ([`Format`]); in what order they come out is chosen for the fewest instructions, and activations
//! are put in that order once ([`Activations`]), while weights stay as MLX packs them:
//!
//! ```text
//! 4 bits, byte j of 32:   e(2j+1) e(2j)         →  low halves: e0 e2 e4 … e62   high halves: e1 e3 … e63
//! 2 bits, byte j of 16:   e(4j+3) … e(4j)       →  e0 e4 e8 …, e1 e5 …, e2 e6 …, e3 e7 …
//! 3, 5, 6, 8 bits:                                 e0…e15 e32…e47, e16…e31 e48…e63
//! ```
//!
//! In each case 32-bit lane `i` of a dot product over the chunk has weights of one group only.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
pub(crate) mod exact;
mod format;
mod scalar;

pub(crate) use activations::Activations;
pub(crate) use format::{E4m3, E8m0, Format, Rows, Scale};

use super::isa::{Isa, Kind};
use super::pool;

/// Weights that are unpacked together.
pub(crate) const CHUNK: usize = 64;

/// Bytes of weights that are worth a part of a job of their own.
const PART_BYTES: usize = 64 * 1024;

/// Writes `x × wᵀ` to `out`, `[M, N]`: the products of all rows of activations with all of weights.
///
/// # Panics
/// When the activations were made for another format or size, or `out` has another size.
pub(crate) fn matmul<S: Scale>(isa: Isa, x: &Activations, w: &Rows<'_, S>, out: &mut [f32]) {
    assert_eq!(out.len(), x.n_rows * w.n_rows, "size of the result");
    assert_eq!((x.k, x.format, x.group_size), (w.k, w.format, w.group_size), "activations");
    let out = Out { data: out.as_mut_ptr(), n: w.n_rows };
    let step = part_rows(w, x.n_rows);
    pool::run(w.n_rows.div_ceil(step), &|part| {
        let rows = part * step..(part * step + step).min(w.n_rows);
        match isa.0 {
            Kind::Scalar => scalar::matmul(x, w, rows, &out),
            // SAFETY: a value of `Isa` is made only where the CPU has the instructions.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::matmul(x, w, rows, &out) },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => scalar::matmul(x, w, rows, &out),
        }
    });
}

/// Rows of weights that make a part of the job: eight or a multiple, so that tiles are whole; a quarter
/// of a thread's share at most, so that threads end together.
fn part_rows<S: Scale>(w: &Rows<'_, S>, n_rows: usize) -> usize {
    let work = w.row_bytes * n_rows.clamp(1, 64);
    let share = w.n_rows.div_ceil(4 * pool::threads());
    (PART_BYTES / work.max(1)).min(share).max(1).next_multiple_of(8)
}

/// The result, each of whose columns one part of the job writes.
struct Out {
    data: *mut f32,
    n: usize,
}

// SAFETY: parts of a job have distinct columns.
unsafe impl Sync for Out {}

impl Out {
    /// Writes the product of activation row `m` and weight row `n`.
    ///
    /// # Safety
    /// Both are in range, and no other thread has column `n`.
    #[inline(always)]
    unsafe fn set(&self, m: usize, n: usize, value: f32) {
        // SAFETY: `matmul` checked the size; the rest is the caller's promise.
        unsafe { *self.data.add(m * self.n + n) = value };
    }

    /// Adds to what [`Out::set`] wrote.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn add(&self, m: usize, n: usize, value: f32) {
        // SAFETY: as above.
        unsafe { *self.data.add(m * self.n + n) += value };
    }
}

#[cfg(test)]
mod tests;
