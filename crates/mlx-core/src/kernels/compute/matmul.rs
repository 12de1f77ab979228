//! Products with the rows of a matrix, `x × wᵀ`, in float32.
//!
//! Both operands have the summed axis last, as a layer's activations and weights do, so nothing is
//! transposed in memory. Where the weights come from is a matter of [`WeightRows`]: [`Dense`] reads
//! them off a slice; packed ones are unpacked block by block into a buffer that stays in the cache.
//!
//! A few rows of activations are dot products along the rows, which take as long as reading the
//! weights does ([`Few`]). More are tiles of 16 rows of activations by 6 of weights, which take as
//! long as the multiplications do ([`Many`]): activations are brought into panels `[K, 16]` once,
//! and a weight is multiplied with 16 of them at a time.

use std::array;
use std::ops::Range;

use half::{bf16, f16};

use super::isa::{Level, multiversion};
use super::{Float, Isa, pool};

/// The grain of unpacking along a row.
pub(crate) const BLOCK: usize = 256;

/// A vector register's worth of sums.
const LANES: usize = 8;

/// Elements along a row that dot products take in one step.
const CHUNK: usize = 2 * LANES;

/// A matrix `[N, K]` whose rows can be had in float32.
pub(crate) trait WeightRows: Sync {
    /// `N`
    fn n_rows(&self) -> usize;

    /// `K`
    fn depth(&self) -> usize;

    /// Writes the weights from `k0` of a row, as many as `out` has places.
    ///
    /// `k0` is a multiple of [`BLOCK`]; so is the number of places, or the row ends there.
    fn unpack<S: Level>(&self, row: usize, k0: usize, out: &mut [f32]);

    /// Puts a row of activations, padded with zeros to whole chunks, in the order in which
    /// [`WeightRows::dots`] reads it.
    fn arrange(_x: &mut [[f32; CHUNK]]) {}

    /// Returns the products of the `R` rows from `row` on with `M` rows of arranged activations.
    ///
    /// A source that can be read register by register has its own.
    #[inline(always)]
    fn dots<S: Level, const R: usize, const M: usize>(
        &self,
        row: usize,
        x: [&[[f32; CHUNK]]; M],
    ) -> [[f32; M]; R] {
        let mut sums = [[[0.0; LANES]; M]; R];
        let mut weights = [[0.0; BLOCK]; R];
        for k0 in (0..self.depth()).step_by(BLOCK) {
            let len = BLOCK.min(self.depth() - k0);
            let padded = len.next_multiple_of(CHUNK);
            for (r, weights) in weights.iter_mut().enumerate() {
                self.unpack::<S>(row + r, k0, &mut weights[..len]);
                weights[len..padded].fill(0.0);
            }
            let weights = weights.each_ref().map(|w| w[..padded].as_chunks::<CHUNK>().0);
            let x = x.map(|x| &x[k0 / CHUNK..][..padded / CHUNK]);
            for i in 0..padded / CHUNK {
                step::<S, R, M>(&mut sums, weights.map(|w| halves(&w[i])), x.map(|x| &x[i]));
            }
        }
        sums.map(|sums| sums.map(sum))
    }
}

/// Adds the products of a chunk of `R` rows of weights and one of `M` rows of activations.
#[inline(always)]
fn step<S: Level, const R: usize, const M: usize>(
    sums: &mut [[[f32; LANES]; M]; R],
    weights: [[[f32; LANES]; 2]; R],
    x: [&[f32; CHUNK]; M],
) {
    for half in 0..2 {
        for m in 0..M {
            let x = halves(x[m])[half];
            for r in 0..R {
                sums[r][m] = array::from_fn(|i| S::fma(weights[r][half][i], x[i], sums[r][m][i]));
            }
        }
    }
}

#[inline(always)]
fn halves(x: &[f32; CHUNK]) -> [[f32; LANES]; 2] {
    [array::from_fn(|i| x[i]), array::from_fn(|i| x[LANES + i])]
}

#[inline(always)]
fn sum(x: [f32; LANES]) -> f32 {
    let x: [f32; 4] = array::from_fn(|i| x[i] + x[4 + i]);
    (x[0] + x[2]) + (x[1] + x[3])
}

/// An element type that vectors of are read and written.
pub(crate) trait Element: Float {
    fn widen<S: Level>(x: &[Self; LANES]) -> [f32; LANES];
    fn narrow<S: Level>(x: [f32; LANES]) -> [Self; LANES];

    /// Widens a chunk in whatever order is cheapest, that of [`Element::arrange`].
    #[inline(always)]
    fn widen_chunk<S: Level>(x: &[Self; CHUNK]) -> [[f32; LANES]; 2] {
        let (low, high) = (array::from_fn(|i| x[i]), array::from_fn(|i| x[LANES + i]));
        [Self::widen::<S>(&low), Self::widen::<S>(&high)]
    }

    fn arrange(_x: &mut [f32; CHUNK]) {}
}

impl Element for f32 {
    #[inline(always)]
    fn widen<S: Level>(x: &[f32; LANES]) -> [f32; LANES] {
        *x
    }
    #[inline(always)]
    fn narrow<S: Level>(x: [f32; LANES]) -> [f32; LANES] {
        x
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen<S: Level>(x: &[f16; LANES]) -> [f32; LANES] {
        S::widen_f16(x)
    }
    #[inline(always)]
    fn narrow<S: Level>(x: [f32; LANES]) -> [f16; LANES] {
        S::narrow_f16(x)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen<S: Level>(x: &[bf16; LANES]) -> [f32; LANES] {
        x.map(Float::to_f32)
    }
    #[inline(always)]
    fn narrow<S: Level>(x: [f32; LANES]) -> [bf16; LANES] {
        x.map(Float::from_f32)
    }
    /// The even ones, then the odd ones: each is one instruction on 32-bit lanes.
    #[inline(always)]
    fn widen_chunk<S: Level>(x: &[bf16; CHUNK]) -> [[f32; LANES]; 2] {
        // SAFETY: of equal size, and of any bits.
        let pairs: [u32; LANES] = unsafe { std::mem::transmute(*x) };
        let pairs = pairs.map(u32::to_le);
        [pairs.map(|x| f32::from_bits(x << 16)), pairs.map(|x| f32::from_bits(x & 0xffff_0000))]
    }
    fn arrange(x: &mut [f32; CHUNK]) {
        *x = array::from_fn(|i| x[i % LANES * 2 + i / LANES]);
    }
}

/// A row-contiguous matrix `[N, K]`.
pub(crate) struct Dense<'a, T> {
    data: &'a [T],
    n_rows: usize,
    depth: usize,
}

impl<'a, T> Dense<'a, T> {
    /// # Panics
    /// When `data` is not of that size.
    pub(crate) fn new(data: &'a [T], n_rows: usize, depth: usize) -> Dense<'a, T> {
        assert_eq!(data.len(), n_rows * depth, "size of the weights");
        Dense { data, n_rows, depth }
    }
}

impl<T: Element> WeightRows for Dense<'_, T> {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn depth(&self) -> usize {
        self.depth
    }

    #[inline(always)]
    fn unpack<S: Level>(&self, row: usize, k0: usize, out: &mut [f32]) {
        widen_all::<S, T>(&self.data[row * self.depth + k0..][..out.len()], out);
    }

    fn arrange(x: &mut [[f32; CHUNK]]) {
        x.iter_mut().for_each(T::arrange);
    }

    #[inline(always)]
    fn dots<S: Level, const R: usize, const M: usize>(
        &self,
        row: usize,
        x: [&[[f32; CHUNK]]; M],
    ) -> [[f32; M]; R] {
        let rows: [_; R] = array::from_fn(|r| {
            self.data[(row + r) * self.depth..][..self.depth].as_chunks::<CHUNK>()
        });
        let n_chunks = self.depth / CHUNK;
        let weights = rows.map(|(chunks, _)| &chunks[..n_chunks]);
        let whole = x.map(|x| &x[..n_chunks]);
        let mut sums = [[[0.0; LANES]; M]; R];
        for i in 0..n_chunks {
            let weights = weights.map(|w| T::widen_chunk::<S>(&w[i]));
            step::<S, R, M>(&mut sums, weights, whole.map(|x| &x[i]));
        }
        if self.depth % CHUNK != 0 {
            let weights = rows.map(|(_, rest)| {
                let mut last = [T::default(); CHUNK];
                last[..rest.len()].copy_from_slice(rest);
                T::widen_chunk::<S>(&last)
            });
            step::<S, R, M>(&mut sums, weights, x.map(|x| &x[n_chunks]));
        }
        sums.map(|sums| sums.map(sum))
    }
}

#[inline(always)]
fn widen_all<S: Level, T: Element>(x: &[T], out: &mut [f32]) {
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (x, out) in x.iter().zip(out) {
        *out = T::widen::<S>(x);
    }
    for (x, out) in x_rest.iter().zip(out_rest) {
        *out = x.to_f32();
    }
}

/// The result `[M, N]`, whose columns are shared out among the parts of a job.
struct Out<'a, T> {
    data: *mut T,
    n_rows: usize,
    n_columns: usize,
    bias: Option<&'a [T]>,
}

// SAFETY: the parts of a job write distinct columns.
unsafe impl<T: Element> Sync for Out<'_, T> {}

impl<T: Element> Out<'_, T> {
    /// Writes a row's columns from `column` on, with the bias.
    ///
    /// # Safety
    /// No other thread may have these columns.
    #[inline(always)]
    unsafe fn put<S: Level>(&self, row: usize, column: usize, values: &[f32]) {
        assert!(row < self.n_rows && column + values.len() <= self.n_columns);
        // SAFETY: within the matrix, as just seen, and the caller's alone.
        let out = unsafe {
            let start = self.data.add(row * self.n_columns + column);
            std::slice::from_raw_parts_mut(start, values.len())
        };
        let bias = self.bias.map(|bias| &bias[column..][..values.len()]);
        let (values, values_rest) = values.as_chunks::<LANES>();
        let (out, out_rest) = out.as_chunks_mut::<LANES>();
        for (i, (out, values)) in out.iter_mut().zip(values).enumerate() {
            let bias = bias.map_or([0.0; LANES], |bias| {
                T::widen::<S>(bias[i * LANES..].first_chunk().expect("a chunk"))
            });
            *out = T::narrow::<S>(array::from_fn(|i| values[i] + bias[i]));
        }
        for (i, (out, value)) in out_rest.iter_mut().zip(values_rest).enumerate() {
            let bias = bias.map_or(0.0, |bias| bias[values.len() * LANES + i].to_f32());
            *out = T::from_f32(value + bias);
        }
    }
}

/// As many rows of activations are dot products; measured.
const FEW: usize = 24;

/// Writes `x × wᵀ + bias` to `out`: `x: [M, K]`, `bias: [N]`, `out: [M, N]`.
///
/// # Panics
/// When a size does not fit.
pub(crate) fn matmul<T: Element, W: WeightRows>(
    isa: Isa,
    x: &[T],
    w: &W,
    bias: Option<&[T]>,
    out: &mut [T],
) {
    let (n, k) = (w.n_rows(), w.depth());
    if out.is_empty() {
        return;
    }
    let m = out.len() / n;
    assert_eq!((m * n, m * k), (out.len(), x.len()), "sizes");
    assert!(bias.is_none_or(|bias| bias.len() == n), "size of the bias");
    let out = Out { data: out.as_mut_ptr(), n_rows: m, n_columns: n, bias };
    if m <= FEW {
        few(isa, x, w, &out);
    } else {
        many(isa, x, w, &out);
    }
}

/// Bytes of weights, as float32, that are worth a part of a job of their own.
const PART_WEIGHTS: usize = 64 * 1024;

fn few<T: Element, W: WeightRows>(isa: Isa, x: &[T], w: &W, out: &Out<'_, T>) {
    let stride = w.depth().div_ceil(CHUNK);
    let mut arranged = vec![[0.0f32; CHUNK]; out.n_rows * stride];
    if stride > 0 {
        for (x, arranged) in x.chunks_exact(w.depth()).zip(arranged.chunks_exact_mut(stride)) {
            for (&x, arranged) in x.iter().zip(arranged.as_flattened_mut()) {
                *arranged = x.to_f32();
            }
            W::arrange(arranged);
        }
    }
    let share = w.n_rows().div_ceil(4 * pool::threads());
    let n_part = (PART_WEIGHTS / w.depth().max(1)).min(share).next_multiple_of(24);
    pool::run(w.n_rows().div_ceil(n_part), &|part| {
        let columns = part * n_part..((part + 1) * n_part).min(w.n_rows());
        few_part(isa, &arranged, w, columns, out);
    });
}

multiversion! {
    fn few_part[W: WeightRows, T: Element] =
        few_part_body(x: &[[f32; CHUNK]], w: &W, columns: Range<usize>, out: &Out<'_, T>)
}

#[inline(always)]
fn few_part_body<S: Level, W: WeightRows, T: Element>(
    x: &[[f32; CHUNK]],
    w: &W,
    columns: Range<usize>,
    out: &Out<'_, T>,
) {
    let mut row = 0;
    while row < out.n_rows {
        // As many weights at once as there are registers for sums.
        row += match out.n_rows - row {
            1 => few_rows::<S, W, T, 8, 1>(x, w, row, columns.clone(), out),
            2 => few_rows::<S, W, T, 4, 2>(x, w, row, columns.clone(), out),
            3 => few_rows::<S, W, T, 3, 3>(x, w, row, columns.clone(), out),
            _ => few_rows::<S, W, T, 3, 4>(x, w, row, columns.clone(), out),
        }
    }
}

/// Writes `M` rows of a part's columns, `R` at once, and returns `M`.
#[inline(always)]
fn few_rows<S: Level, W: WeightRows, T: Element, const R: usize, const M: usize>(
    x: &[[f32; CHUNK]],
    w: &W,
    row: usize,
    columns: Range<usize>,
    out: &Out<'_, T>,
) -> usize {
    let stride = w.depth().div_ceil(CHUNK);
    let x: [_; M] = array::from_fn(|m| &x[(row + m) * stride..][..stride]);
    let mut column = columns.start;
    while column + R <= columns.end {
        let sums = w.dots::<S, R, M>(column, x);
        for m in 0..M {
            let values = sums.map(|sums| sums[m]);
            // SAFETY: the part's own columns.
            unsafe { out.put::<S>(row + m, column, &values) };
        }
        column += R;
    }
    for column in column..columns.end {
        let [sums] = w.dots::<S, 1, M>(column, x);
        for (m, sum) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { out.put::<S>(row + m, column, &[sum]) };
        }
    }
    M
}

/// Rows of activations in a panel.
const PANEL: usize = 16;

/// Rows of weights in a tile.
const TILE: usize = 6;

/// Rows of weights of a part: their blocks and sums stay in the second cache.
const PART_ROWS: usize = 8 * TILE;

/// The most rows of activations of a part.
const MAX_ROWS: usize = 256;

fn many<T: Element, W: WeightRows>(isa: Isa, x: &[T], w: &W, out: &Out<'_, T>) {
    let step = out.n_rows.div_ceil(out.n_rows.div_ceil(MAX_ROWS)).next_multiple_of(PANEL);
    let mut panels = vec![0.0f32; step * w.depth()];
    for row in (0..out.n_rows).step_by(step) {
        let rows = row..(row + step).min(out.n_rows);
        let x = &x[rows.start * w.depth()..rows.end * w.depth()];
        pack(isa, x, w.depth(), &mut panels);
        pool::run(w.n_rows().div_ceil(PART_ROWS), &|part| {
            let columns = part * PART_ROWS..((part + 1) * PART_ROWS).min(w.n_rows());
            many_part(isa, &panels, w, rows.clone(), columns, out);
        });
    }
}

/// Brings rows into panels, `[K / BLOCK, M / PANEL, BLOCK, PANEL]`.
fn pack<T: Element>(isa: Isa, x: &[T], depth: usize, panels: &mut [f32]) {
    let n_panels = (x.len() / depth.max(1)).div_ceil(PANEL);
    let mut blocks = panels;
    for k0 in (0..depth).step_by(BLOCK) {
        let len = BLOCK.min(depth - k0);
        let (block, rest) = blocks.split_at_mut(n_panels * len * PANEL);
        blocks = rest;
        for (i, panel) in block.chunks_exact_mut(len * PANEL).enumerate() {
            pack_panel(isa, &x[i * PANEL * depth..], depth, k0, panel.as_chunks_mut().0);
        }
    }
}

multiversion! {
    fn pack_panel[T: Element] =
        pack_panel_body(x: &[T], depth: usize, k0: usize, panel: &mut [[f32; PANEL]])
}

#[inline(always)]
fn pack_panel_body<S: Level, T: Element>(
    x: &[T],
    depth: usize,
    k0: usize,
    panel: &mut [[f32; PANEL]],
) {
    let mut row = [0.0; BLOCK];
    for lane in 0..PANEL {
        match x.get(lane * depth + k0..lane * depth + k0 + panel.len()) {
            Some(x) => widen_all::<S, T>(x, &mut row[..panel.len()]),
            None => row.fill(0.0),
        }
        for (x, panel) in row.iter().zip(&mut *panel) {
            panel[lane] = *x;
        }
    }
}

multiversion! {
    fn many_part[W: WeightRows, T: Element] =
        many_part_body(panels: &[f32], w: &W, rows: Range<usize>, columns: Range<usize>, out: &Out<'_, T>)
}

#[inline(always)]
fn many_part_body<S: Level, W: WeightRows, T: Element>(
    panels: &[f32],
    w: &W,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &Out<'_, T>,
) {
    let n_panels = rows.len().div_ceil(PANEL);
    let n_tiles = columns.len().div_ceil(TILE);
    let mut sums = [[[[0.0f32; PANEL]; TILE]; PART_ROWS / TILE]; MAX_ROWS / PANEL];
    let mut weights = [[[0.0f32; BLOCK]; TILE]; PART_ROWS / TILE];
    let mut blocks = panels.as_chunks::<PANEL>().0;
    for k0 in (0..w.depth()).step_by(BLOCK) {
        let len = BLOCK.min(w.depth() - k0);
        for (column, weights) in columns.clone().zip(weights.as_flattened_mut()) {
            w.unpack::<S>(column, k0, &mut weights[..len]);
        }
        let (block, rest) = blocks.split_at(n_panels * len);
        blocks = rest;
        for (panel, sums) in block.chunks_exact(len).zip(&mut sums) {
            for (weights, sums) in weights[..n_tiles].iter().zip(sums) {
                *sums = tile::<S>(weights, panel, *sums);
            }
        }
    }
    for row in rows.clone() {
        let i = row - rows.start;
        let values: [[f32; TILE]; PART_ROWS / TILE] =
            array::from_fn(|t| array::from_fn(|r| sums[i / PANEL][t][r][i % PANEL]));
        // SAFETY: the part's own columns; another job has the other rows.
        unsafe { out.put::<S>(row, columns.start, &values.as_flattened()[..columns.len()]) };
    }
}

/// Adds a tile of weights times a panel.
#[inline(always)]
fn tile<S: Level>(
    weights: &[[f32; BLOCK]; TILE],
    panel: &[[f32; PANEL]],
    mut sums: [[f32; PANEL]; TILE],
) -> [[f32; PANEL]; TILE] {
    for (k, x) in panel[..panel.len().min(BLOCK)].iter().enumerate() {
        for r in 0..TILE {
            let weight = weights[r][k];
            sums[r] = array::from_fn(|i| S::fma(weight, x[i], sums[r][i]));
        }
    }
    sums
}
