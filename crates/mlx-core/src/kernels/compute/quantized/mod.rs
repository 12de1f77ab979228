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
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dequantize;
mod exact;
mod format;
mod gather;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod sums;
#[cfg(target_arch = "x86_64")]
mod vectors;

pub(crate) use activations::Activations;
pub(crate) use dequantize::dequantize_rows;
pub(crate) use format::{E4m3, E8m0, Format, Rows, Scale};
pub(crate) use gather::{gather_gated_matmul, gather_matmul};
pub(crate) use sums::gather_sums;

use std::ops::Range;

use self::exact::Ordered;
use super::activation::{GatedActivation, gated_part};
use super::isa::{Isa, Kind, Level, multiversion};
use super::scratch::Scratch;
use super::{Float, pool};

/// Weights that are unpacked together.
pub(crate) const CHUNK: usize = 64;

/// Bytes of weights that are worth a part of a job of their own.
const PART_BYTES: usize = 64 * 1024;

/// Rows of activations, `[M, K]`, as products take them.
pub(crate) enum Input {
    /// In float32.
    Exact(Ordered),
    /// Rounded to 8 bits.
    Fast(Activations),
}

impl Input {
    /// Takes rows for products whose only rounding is that of sums in float32.
    pub(crate) fn exact<T: Float>(x: &[T], k: usize, format: Format) -> Input {
        Input::Exact(Ordered::new(x, k, format))
    }

    /// Rounds rows, for products of integers; for formats that are no integers does as
    /// [`Input::exact`].
    pub(crate) fn fast<T: Float>(
        isa: Isa,
        x: &[T],
        k: usize,
        group_size: usize,
        format: Format,
    ) -> Input {
        match format {
            Format::Fp8 => Input::exact(x, k, format),
            _ => Input::Fast(Activations::new(isa, x, k, group_size, format)),
        }
    }

    /// Takes rows as [`Input::fast`] does, for products with some of them at a time.
    pub(crate) fn fast_apart<T: Float>(
        isa: Isa,
        x: &[T],
        k: usize,
        group_size: usize,
        format: Format,
    ) -> Input {
        match format {
            _ if x.len() <= k => Input::fast(isa, x, k, group_size, format),
            Format::Fp8 => Input::exact(x, k, format),
            _ => Input::Fast(Activations::rounded(isa, x, k, group_size, format)),
        }
    }

    /// Returns the rows that are named.
    ///
    /// # Panics
    /// When one is not there.
    fn select(&self, isa: Isa, rows: impl Iterator<Item = usize>) -> Input {
        match self {
            Input::Exact(x) => Input::Exact(x.select(rows)),
            Input::Fast(x) => Input::Fast(x.select(isa, rows)),
        }
    }

    fn n_rows(&self) -> usize {
        match self {
            Input::Exact(x) => x.n_rows,
            Input::Fast(x) => x.n_rows,
        }
    }

    fn check<S: Scale>(&self, w: &Rows<'_, S>) {
        match self {
            Input::Exact(x) => assert_eq!((x.k, x.format), (w.k, w.format), "activations"),
            Input::Fast(x) => {
                let (x, w) = ((x.k, x.format, x.group_size), (w.k, w.format, w.group_size));
                assert_eq!(x, w, "activations");
            }
        }
    }

    /// Returns the products with some rows of a weight, `[M, rows]`.
    fn products<S: Scale>(&self, isa: Isa, w: &Rows<'_, S>, rows: Range<usize>) -> Scratch {
        let mut products = Scratch::new(self.n_rows() * rows.len());
        let out = Out { data: products.as_mut_ptr(), first: rows.start, n: rows.len() };
        match (self, isa.0) {
            #[cfg(target_arch = "x86_64")]
            (Input::Exact(x), Kind::Avx512)
                if x.is_one_of_fp8() && w.group_size.is_multiple_of(vectors::FP8_GROUP) =>
            {
                // SAFETY: a value of `Isa` is made only where the CPU has the instructions.
                unsafe { avx512::fp8::one(&x.x, w, rows, &out) }
            }
            #[cfg(target_arch = "x86_64")]
            (Input::Exact(x), Kind::Avx2)
                if x.is_one_of_fp8() && w.group_size.is_multiple_of(vectors::FP8_GROUP) =>
            {
                // SAFETY: as above.
                unsafe { avx2::fp8::one(&x.x, w, rows, &out) }
            }
            (Input::Exact(x), _) => exact::matmul(isa, x, w, rows, &out),
            (Input::Fast(x), Kind::Scalar) => scalar::matmul(x, w, rows, &out),
            // SAFETY: a value of `Isa` is made only where the CPU has the instructions.
            #[cfg(target_arch = "x86_64")]
            (Input::Fast(x), Kind::Avx2) => unsafe { avx2::matmul(x, w, rows, &out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Input::Fast(x), Kind::Avx512) => unsafe { avx512::matmul(x, w, rows, &out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            (Input::Fast(x), Kind::Neon) => unsafe { neon::matmul(x, w, rows, &out) },
        }
        products
    }
}

/// A layer: a weight, `[N, K]`, and what is added to products with it, `[N]`.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a, S, T> {
    pub(crate) w: Rows<'a, S>,
    pub(crate) bias: Option<&'a [T]>,
}

impl<S: Scale, T: Float> Layer<'_, S, T> {
    /// Returns some columns of the layer's result, `[M, rows]`, but for the bias.
    fn products(&self, isa: Isa, x: &Input, rows: Range<usize>) -> Scratch {
        x.products(isa, &self.w, rows)
    }

    /// Adds the bias to what [`Layer::products`] returned of one row of activations, and rounds.
    fn finish(&self, isa: Isa, products: &[f32], rows: Range<usize>, out: &mut [T]) {
        add_and_round(isa, products, self.bias.map(|bias| &bias[rows]), out);
    }
}

/// Writes `x × wᵀ + bias` of each layer to its part of `outs`, `[M, N]`.
///
/// # Panics
/// When the activations were made for another format or size, or a size does not fit.
pub(crate) fn matmul<S: Scale, T: Float>(
    isa: Isa,
    x: &Input,
    layers: &[Layer<'_, S, T>],
    outs: &mut [&mut [T]],
) {
    assert_eq!(layers.len(), outs.len(), "number of results");
    let outs: Vec<_> =
        layers.iter().zip(outs).map(|(layer, out)| Columns::new(x, layer, out)).collect();
    let weights: Vec<_> = layers.iter().map(|layer| &layer.w).collect();
    for_each_part(isa, &weights, x.n_rows(), &|i, rows| {
        let products = layers[i].products(isa, x, rows.clone());
        for (m, products) in products.chunks_exact(rows.len()).enumerate() {
            // SAFETY: `rows` are columns of this part alone, and `outs[i]` was checked.
            let out = unsafe { outs[i].part(m, rows.clone()) };
            layers[i].finish(isa, products, rows.clone(), out);
        }
    });
}

/// Writes `function(a) * b` to `out`, `[M, N]`, where `a` and `b` are `x × wᵀ + bias` of the two layers,
/// each rounded to its type.
///
/// # Panics
/// As [`matmul`].
pub(crate) fn gated_matmul<S: Scale, T: Float>(
    isa: Isa,
    x: &Input,
    function: GatedActivation,
    layers: [Layer<'_, S, T>; 2],
    out: &mut [T],
) {
    assert_eq!(layers[0].w.n_rows, layers[1].w.n_rows, "size of the layers");
    x.check(&layers[1].w);
    let out = Columns::new(x, &layers[0], out);
    // A part has rows of both; what it costs is that of rows twice as long.
    let twice = Rows { row_bytes: 2 * layers[0].w.row_bytes, ..layers[0].w };
    for_each_part(isa, &[&twice], x.n_rows(), &|_, rows| {
        let [a, b] = layers.each_ref().map(|layer| layer.products(isa, x, rows.clone()));
        let both = a.chunks_exact(rows.len()).zip(b.chunks_exact(rows.len()));
        for (m, (a, b)) in both.enumerate() {
            // SAFETY: `rows` are columns of this part alone, and `out` was checked.
            let out = unsafe { out.part(m, rows.clone()) };
            finish_gated(isa, function, &layers, [a, b], rows.clone(), out);
        }
    });
}

/// Writes `function(a) * b` of what [`Layer::products`] returned for the two layers and one row of
/// activations, with their biases and rounded as [`Layer::finish`] does.
fn finish_gated<S: Scale, T: Float>(
    isa: Isa,
    function: GatedActivation,
    layers: &[Layer<'_, S, T>; 2],
    [a, b]: [&[f32]; 2],
    rows: Range<usize>,
    out: &mut [T],
) {
    const AT_ONCE: usize = 64;
    let chunks = a.chunks(AT_ONCE).zip(b.chunks(AT_ONCE)).zip(out.chunks_mut(AT_ONCE));
    for (i, ((a, b), out)) in chunks.enumerate() {
        let start = rows.start + i * AT_ONCE;
        let rows = start..start + out.len();
        let (mut gate, mut up) = ([T::default(); AT_ONCE], [T::default(); AT_ONCE]);
        let (gate, up) = (&mut gate[..out.len()], &mut up[..out.len()]);
        layers[0].finish(isa, a, rows.clone(), gate);
        layers[1].finish(isa, b, rows, up);
        gated_part(isa, function, gate, up, out);
    }
}

/// Calls `part(i, rows)` with all rows of each weight, in parts, on several threads.
fn for_each_part<S: Scale>(
    isa: Isa,
    weights: &[&Rows<'_, S>],
    n_rows: usize,
    part: &(dyn Fn(usize, Range<usize>) + Sync),
) {
    let all: usize = weights.iter().map(|w| w.n_rows).sum();
    let share = all.div_ceil(4 * pool::threads());
    let mut parts = Vec::new();
    for (i, w) in weights.iter().enumerate() {
        let step = part_rows(isa, w, n_rows, share);
        for start in (0..w.n_rows).step_by(step) {
            parts.push((i, start..(start + step).min(w.n_rows)));
        }
    }
    pool::run(parts.len(), &|p| {
        let (i, rows) = parts[p].clone();
        part(i, rows);
    });
}

/// Rows of weights that make a part of the job: eight or a multiple, so that tiles are whole; a quarter
/// of a thread's share at most, so that threads end together.
fn part_rows<S: Scale>(isa: Isa, w: &Rows<'_, S>, n_rows: usize, share: usize) -> usize {
    let work = w.row_bytes * n_rows.clamp(1, 64);
    let together = match isa.0 {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if n_rows > 1 => avx512::PANEL,
        _ => 8,
    };
    (PART_BYTES / work.max(1)).min(share).max(1).next_multiple_of(together)
}

/// Products with the rows of weights from `first` on, `[M, n]`.
struct Out {
    data: *mut f32,
    first: usize,
    n: usize,
}

impl Out {
    /// Writes the product of activation row `m` and weight row `n`.
    ///
    /// # Safety
    /// Both are in range.
    #[inline(always)]
    unsafe fn set(&self, m: usize, n: usize, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { *self.data.add(m * self.n + (n - self.first)) = value };
    }

    /// Adds to what [`Out::set`] wrote.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn add(&self, m: usize, n: usize, value: f32) {
        // SAFETY: as above.
        unsafe { *self.data.add(m * self.n + (n - self.first)) += value };
    }
}

/// A result, `[M, n]`, whose columns are shared out among the parts of a job.
struct Columns<T> {
    data: *mut T,
    n: usize,
}

// SAFETY: parts of a job have distinct columns.
unsafe impl<T: Send> Sync for Columns<T> {}

impl<T: Float> Columns<T> {
    /// # Panics
    /// When the layer does not go with the input, or a size does not fit.
    fn new<S: Scale>(x: &Input, layer: &Layer<'_, S, T>, out: &mut [T]) -> Columns<T> {
        let n = layer.w.n_rows;
        x.check(&layer.w);
        assert_eq!(out.len(), x.n_rows() * n, "size of the result");
        assert!(layer.bias.is_none_or(|bias| bias.len() == n), "size of the bias");
        Columns { data: out.as_mut_ptr(), n }
    }

    /// Returns some columns of a row.
    ///
    /// # Safety
    /// The matrix has the row and these columns, and no one else has them.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, m: usize, columns: Range<usize>) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe {
            let data = self.data.add(m * self.n + columns.start);
            std::slice::from_raw_parts_mut(data, columns.len())
        }
    }
}

multiversion! {
    fn add_and_round[T: Float] =
        add_and_round_body(products: &[f32], bias: Option<&[T]>, out: &mut [T])
}

/// Rounds `products + bias`, `[M, N]`.
#[inline(always)]
fn add_and_round_body<L: Level, T: Float>(products: &[f32], bias: Option<&[T]>, out: &mut [T]) {
    let Some(bias) = bias.filter(|bias| !bias.is_empty()) else {
        for (out, product) in out.iter_mut().zip(products) {
            *out = T::from_f32(*product);
        }
        return;
    };
    for (products, out) in products.chunks_exact(bias.len()).zip(out.chunks_exact_mut(bias.len())) {
        for ((out, product), bias) in out.iter_mut().zip(products).zip(bias) {
            *out = T::from_f32(product + bias.to_f32());
        }
    }
}

#[cfg(test)]
mod grid;
#[cfg(test)]
mod tests;
