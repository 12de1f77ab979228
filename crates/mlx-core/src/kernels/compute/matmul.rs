//! Products with the rows of a matrix, `x × wᵀ`, in float32.
//!
//! Both operands have the summed axis last, as a layer's activations and weights do, so nothing is
//! transposed in memory. Where the weights come from is a matter of [`WeightRows`]: [`Dense`] reads
//! them off a slice; packed ones are unpacked block by block into a buffer that stays in the cache.
//!
//! A few rows of activations are dot products along the rows, which take as long as reading the
//! weights does (`few`). More are tiles of 16 rows of activations by 6 of weights, which take as
//! long as the multiplications do (`many`): activations are brought into panels `[K, 16]` once,
//! and a weight is multiplied with 16 of them at a time. Where the CPU multiplies bfloat16, these
//! are products of their own (`dpbf16`).

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod dpbf16;

mod gather;
#[cfg(test)]
mod tests;

pub(crate) use gather::gather_matmul;

use std::array;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::isa::Kind;
use super::isa::{Level, multiversion};
use super::routes::Route;
use super::{Float, Isa, pool};

/// The grain of unpacking along a row.
pub(crate) const BLOCK: usize = 256;

/// A vector register's worth of sums.
const LANES: usize = 8;

/// Elements along a row that dot products take in one step.
const CHUNK: usize = 2 * LANES;

/// Bytes ahead that a stream of weights is fetched, some rows as a rule: the CPU itself does not
/// look beyond a page.
const AHEAD: usize = 14 * 1024;

/// What becomes the sum of one dot product.
type Sums = [[f32; LANES]; 2];

/// A matrix `[N, K]` whose rows can be had in float32.
pub(crate) trait WeightRows: Sync {
    /// As many rows of activations are dot products; for more of them, rows are unpacked once
    /// instead of once for each four.
    const FEW: usize = 4;

    /// `N`
    fn n_rows(&self) -> usize;

    /// `K`
    fn depth(&self) -> usize;

    /// Writes the weights from `k0` of a row, as many as `out` has places.
    ///
    /// `k0` is a multiple of [`BLOCK`]; so is the number of places, or the row ends there.
    fn unpack<S: Level>(&self, row: usize, k0: usize, out: &mut [f32]);

    /// Returns all of it, where the rows are that.
    #[cfg(target_arch = "x86_64")]
    fn as_bf16(&self) -> Option<Dense<'_, bf16>> {
        None
    }

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
        let mut sums = [[Sums::default(); M]; R];
        let mut weights = [[0.0; BLOCK]; R];
        for k0 in (0..self.depth()).step_by(BLOCK) {
            let len = BLOCK.min(self.depth() - k0);
            let padded = len.next_multiple_of(CHUNK);
            for (r, weights) in weights.iter_mut().enumerate() {
                self.unpack::<S>(row + r, k0, &mut weights[..len]);
                weights[len..padded].fill(0.0);
            }
            let mut x = x;
            for x in &mut x {
                *x = &x[k0 / CHUNK..][..padded / CHUNK];
            }
            for i in 0..padded / CHUNK {
                for half in 0..2 {
                    let mut w = [[0.0; LANES]; R];
                    for r in 0..R {
                        w[r] = *half_of(&weights[r].as_chunks().0[i], half);
                    }
                    // SAFETY: `x` was cut to so many chunks above.
                    unsafe { step::<S, R, M>(&mut sums, &w, &x, i, half) };
                }
            }
        }
        totals(&sums)
    }
}

/// Adds the products of one half of the `i`th chunks of `R` rows of weights and `M` rows of
/// activations.
///
/// Loops, here and in its callers, where `map` would do: its closures are not always inlined, and are
/// not compiled for the level then. Nor checks of bounds, next to which sums do not stay in registers.
///
/// # Safety
/// Each of `x` has more than `i` chunks.
#[inline(always)]
unsafe fn step<S: Level, const R: usize, const M: usize>(
    sums: &mut [[Sums; M]; R],
    weights: &[[f32; LANES]; R],
    x: &[&[[f32; CHUNK]]; M],
    i: usize,
    half: usize,
) {
    for m in 0..M {
        // SAFETY: as the caller says.
        let x = *half_of(unsafe { x[m].get_unchecked(i) }, half);
        for r in 0..R {
            // Few sums would wait for one another.
            let sum = &mut sums[r][m][if R * M > 6 { 0 } else { half }];
            *sum = S::fma8(weights[r], x, *sum);
        }
    }
}

#[inline(always)]
fn half_of<T>(x: &[T; CHUNK], half: usize) -> &[T; LANES] {
    &x.as_chunks().0[half]
}

#[inline(always)]
fn totals<const R: usize, const M: usize>(sums: &[[Sums; M]; R]) -> [[f32; M]; R] {
    let mut totals = [[0.0; M]; R];
    for (totals, sums) in totals.iter_mut().zip(sums) {
        for (total, [x, y]) in totals.iter_mut().zip(sums) {
            let mut x = *x;
            for (x, y) in x.iter_mut().zip(y) {
                *x += y;
            }
            *total = ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
        }
    }
    totals
}

/// An element type that vectors of are read and written.
pub(crate) trait Element: Float {
    fn widen<S: Level>(x: &[Self; LANES]) -> [f32; LANES];
    fn narrow<S: Level>(x: [f32; LANES]) -> [Self; LANES];

    /// Widens one half of a chunk; which elements make a half is a matter of what is cheapest, and
    /// [`Element::arrange`] brings others in that order.
    #[inline(always)]
    fn widen_half<S: Level>(x: &[Self; CHUNK], half: usize) -> [f32; LANES] {
        Self::widen::<S>(half_of(x, half))
    }

    fn arrange(_x: &mut [f32; CHUNK]) {}

    /// Returns the elements, where they are that.
    #[cfg(target_arch = "x86_64")]
    fn as_bf16(_x: &[Self]) -> Option<&[bf16]> {
        None
    }
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
    /// The even ones or the odd ones: each is one instruction on 32-bit lanes.
    #[inline(always)]
    fn widen_half<S: Level>(x: &[bf16; CHUNK], half: usize) -> [f32; LANES] {
        // SAFETY: of equal size, and of any bits.
        let pairs: [u32; LANES] = unsafe { std::mem::transmute(*x) };
        let mut widened = [0.0; LANES];
        for (widened, pair) in widened.iter_mut().zip(pairs) {
            let bits = if half == 0 { pair.to_le() << 16 } else { pair.to_le() & 0xffff_0000 };
            *widened = f32::from_bits(bits);
        }
        widened
    }
    fn arrange(x: &mut [f32; CHUNK]) {
        *x = array::from_fn(|i| x[i % LANES * 2 + i / LANES]);
    }

    #[cfg(target_arch = "x86_64")]
    fn as_bf16(x: &[bf16]) -> Option<&[bf16]> {
        Some(x)
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
    // 67 GFLOP/s from four rows on; a tile has 100 if it is full, and is full from 32 on.
    const FEW: usize = 24;

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

    #[cfg(target_arch = "x86_64")]
    fn as_bf16(&self) -> Option<Dense<'_, bf16>> {
        T::as_bf16(self.data).map(|data| Dense { data, n_rows: self.n_rows, depth: self.depth })
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
        let n_chunks = self.depth / CHUNK;
        let (mut weights, mut rests) = ([&[][..]; R], [&[][..]; R]);
        for r in 0..R {
            let row = &self.data[(row + r) * self.depth..][..self.depth];
            (weights[r], rests[r]) = row.as_chunks::<CHUNK>();
            weights[r] = &weights[r][..n_chunks];
        }
        for x in x {
            assert!(x.len() >= n_chunks, "size of the activations");
        }
        let mut sums = [[Sums::default(); M]; R];
        for i in 0..n_chunks {
            for weights in &weights {
                S::prefetch(weights.as_ptr().wrapping_add(i + AHEAD / size_of::<[T; CHUNK]>()));
            }
            for half in 0..2 {
                let mut w = [[0.0; LANES]; R];
                for r in 0..R {
                    // SAFETY: `weights` was cut to `n_chunks` above.
                    w[r] = T::widen_half::<S>(unsafe { weights[r].get_unchecked(i) }, half);
                }
                // SAFETY: as just asserted.
                unsafe { step::<S, R, M>(&mut sums, &w, &x, i, half) };
            }
        }
        if !self.depth.is_multiple_of(CHUNK) {
            for half in 0..2 {
                let mut w = [[0.0; LANES]; R];
                for r in 0..R {
                    let mut last = [T::default(); CHUNK];
                    last[..rests[r].len()].copy_from_slice(rests[r]);
                    w[r] = T::widen_half::<S>(&last, half);
                }
                assert!(x.iter().all(|x| x.len() > n_chunks), "size of the activations");
                // SAFETY: as just asserted.
                unsafe { step::<S, R, M>(&mut sums, &w, &x, n_chunks, half) };
            }
        }
        totals(&sums)
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
    /// Where the rows are, if not one behind the other: each is one of the result's.
    routes: Option<&'a [Route]>,
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
        let row = self.routes.map_or(row, |routes| routes[row].output);
        // SAFETY: within the matrix, as just seen or known of routes, and the caller's alone.
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
    let out = Out { data: out.as_mut_ptr(), n_rows: m, n_columns: n, bias, routes: None };
    #[cfg(target_arch = "x86_64")]
    if let (Some(x), Some(w)) = (T::as_bf16(x), w.as_bf16())
        && dpbf16::is_available(isa)
    {
        // SAFETY: as just seen; so are the sizes.
        return unsafe { dpbf16::matmul(x, &w, &out) };
    }
    if m <= W::FEW {
        few(isa, x, w, &out);
    } else {
        many(isa, x, w, &out);
    }
}

/// Weights that are worth a part of a job of their own.
const PART_WEIGHTS: usize = 64 * 1024;

/// Rows of weights that make a part, a multiple of `together`; a quarter of a thread's share at most, so
/// that threads end together.
fn part_columns(n_rows: usize, depth: usize, together: usize) -> usize {
    let share = n_rows.div_ceil(4 * pool::threads());
    (PART_WEIGHTS / depth.max(1)).clamp(1, share.max(1)).next_multiple_of(together)
}

fn few<T: Element, W: WeightRows>(isa: Isa, x: &[T], w: &W, out: &Out<'_, T>) {
    let arranged = match w.depth() {
        0 => vec![],
        depth => arranged::<T, W>(x.chunks_exact(depth), depth),
    };
    let n_part = part_columns(w.n_rows(), w.depth(), 24);
    pool::run(w.n_rows().div_ceil(n_part), &|part| {
        let columns = part * n_part..((part + 1) * n_part).min(w.n_rows());
        few_part(isa, &arranged, w, columns, out);
    });
}

/// Widens rows and puts them in the order in which weights are read.
fn arranged<'a, T: Element, W: WeightRows>(
    rows: impl ExactSizeIterator<Item = &'a [T]>,
    depth: usize,
) -> Vec<[f32; CHUNK]> {
    let stride = depth.div_ceil(CHUNK);
    let mut arranged = vec![[0.0f32; CHUNK]; rows.len() * stride];
    for (x, arranged) in rows.zip(arranged.chunks_exact_mut(stride.max(1))) {
        for (&x, arranged) in x.iter().zip(arranged.as_flattened_mut()) {
            *arranged = x.to_f32();
        }
        W::arrange(arranged);
    }
    arranged
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
            1 => few_rows::<S, W, T, 4, 1>(x, w, row, columns.clone(), out),
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
            let mut values = [0.0; R];
            for (value, sums) in values.iter_mut().zip(&sums) {
                *value = sums[m];
            }
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
    let mut panels = vec![[0.0f32; PANEL]; step / PANEL * w.depth()];
    for row in (0..out.n_rows).step_by(step) {
        let rows = row..(row + step).min(out.n_rows);
        let x = &x[rows.start * w.depth()..rows.end * w.depth()];
        pack(isa, x, w.depth(), &mut panels);
        pool::run(w.n_rows().div_ceil(PART_ROWS), &|part| {
            let columns = part * PART_ROWS..((part + 1) * PART_ROWS).min(w.n_rows());
            #[cfg(target_arch = "x86_64")]
            if isa.0 == Kind::Avx512 {
                // SAFETY: a value of `Isa` is made only where the CPU has the instructions, and the columns
                // are this part's own.
                return unsafe { avx512::many_part(&panels, w, rows.clone(), columns, out) };
            }
            many_part(isa, &panels, w, rows.clone(), columns, out);
        });
    }
}

/// Brings rows into panels, `[M / PANEL, K, PANEL]`, padded with zeros.
fn pack<T: Element>(isa: Isa, x: &[T], depth: usize, panels: &mut [[f32; PANEL]]) {
    if depth == 0 {
        return;
    }
    let panels: Vec<_> = panels.chunks_exact_mut(depth).zip(x.chunks(PANEL * depth)).collect();
    let panels: Vec<_> = panels.into_iter().map(Mutex::new).collect();
    pool::run(panels.len(), &|i| {
        let mut panel = panels[i].lock().unwrap_or_else(PoisonError::into_inner);
        let (panel, x) = &mut *panel;
        pack_panel(isa, x, panel);
    });
}

multiversion! {
    fn pack_panel[T: Element] = pack_panel_body(x: &[T], panel: &mut [[f32; PANEL]])
}

#[inline(always)]
fn pack_panel_body<S: Level, T: Element>(x: &[T], panel: &mut [[f32; PANEL]]) {
    let depth = panel.len();
    let mut widened = [0.0; BLOCK];
    for (block, panel) in panel.chunks_mut(BLOCK).enumerate() {
        let k0 = block * BLOCK;
        for lane in 0..PANEL {
            match x.get(lane * depth + k0..lane * depth + k0 + panel.len()) {
                Some(x) => widen_all::<S, T>(x, &mut widened[..panel.len()]),
                None => widened.fill(0.0),
            }
            for (x, panel) in widened.iter().zip(&mut *panel) {
                panel[lane] = *x;
            }
        }
    }
}

multiversion! {
    fn many_part[W: WeightRows, T: Element] =
        many_part_body(panels: &[[f32; PANEL]], w: &W, rows: Range<usize>, columns: Range<usize>, out: &Out<'_, T>)
}

/// A block of the weights of a part.
type Block = [[f32; BLOCK]; PART_ROWS];
/// Their sums with a panel of activations.
type PanelSums = [[f32; PANEL]; PART_ROWS];

/// How tiles are multiplied.
trait Tiles {
    /// For all else.
    type Level: Level;

    /// Adds the products of the first `n` rows of a block with the same stretch of each panel; rows behind
    /// them may be added, too.
    fn add<'a>(
        weights: &Block,
        n: usize,
        panels: impl Iterator<Item = &'a [[f32; PANEL]]>,
        sums: &mut [PanelSums],
    );
}

impl<S: Level> Tiles for S {
    type Level = S;

    #[inline(always)]
    fn add<'a>(
        weights: &Block,
        n: usize,
        panels: impl Iterator<Item = &'a [[f32; PANEL]]>,
        sums: &mut [PanelSums],
    ) {
        for (panel, sums) in panels.zip(sums) {
            let tiles = weights.as_chunks::<TILE>().0.iter().zip(sums.as_chunks_mut().0);
            for (weights, sums) in tiles.take(n.div_ceil(TILE)) {
                *sums = tile::<S>(weights, panel, *sums);
            }
        }
    }
}

#[inline(always)]
fn many_part_body<S: Tiles, W: WeightRows, T: Element>(
    panels: &[[f32; PANEL]],
    w: &W,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &Out<'_, T>,
) {
    let n_panels = rows.len().div_ceil(PANEL);
    let mut sums: [PanelSums; MAX_ROWS / PANEL] = [[[0.0; PANEL]; PART_ROWS]; MAX_ROWS / PANEL];
    let mut weights: Block = [[0.0; BLOCK]; PART_ROWS];
    for k0 in (0..w.depth()).step_by(BLOCK) {
        let len = BLOCK.min(w.depth() - k0);
        for (column, weights) in columns.clone().zip(&mut weights) {
            w.unpack::<S::Level>(column, k0, &mut weights[..len]);
        }
        let panels = panels.chunks_exact(w.depth()).map(|panel| &panel[k0..k0 + len]);
        S::add(&weights, columns.len(), panels, &mut sums[..n_panels]);
    }
    for row in rows.clone() {
        let i = row - rows.start;
        let values: [f32; PART_ROWS] = array::from_fn(|r| sums[i / PANEL][r][i % PANEL]);
        // SAFETY: the part's own columns; another job has the other rows.
        unsafe { out.put::<S::Level>(row, columns.start, &values[..columns.len()]) };
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
