//! Rows of queries, keys and values, as they lie in memory.

use std::ops::Range;

use crate::kernels::compute::isa::Level;
use crate::kernels::compute::matmul::Element;
use crate::kernels::compute::packed_rows::PackedParts;

use super::LANES;

/// Rows that are in memory and not counted.
#[derive(Clone, Copy, Default)]
struct Gap {
    at: usize,
    len: usize,
}

impl Gap {
    /// Returns where the `i`th row that counts lies.
    #[inline(always)]
    fn place(self, i: usize) -> usize {
        i + if i < self.at { 0 } else { self.len }
    }

    /// Returns `None` where there are fewer rows.
    fn new(rows: Range<usize>, n_rows: usize) -> Option<Gap> {
        let fits = rows.start <= rows.end && rows.end <= n_rows;
        fits.then_some(Gap { at: rows.start, len: rows.end - rows.start })
    }
}

/// An array `[B, N, S, D]` whose rows are contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a, T> {
    data: &'a [T],
    pub(super) shape: [usize; 4],
    strides: [usize; 3],
    gap: Gap,
}

impl<'a, T> Heads<'a, T> {
    /// Returns `None` where a row would lie outside of `data`.
    pub(crate) fn new(
        data: &'a [T],
        shape: [usize; 4],
        strides: [usize; 3],
    ) -> Option<Heads<'a, T>> {
        let is_empty = shape.contains(&0);
        let mut end = shape[3];
        for (n, stride) in shape.into_iter().zip(strides) {
            end = end.checked_add(n.saturating_sub(1).checked_mul(stride)?)?;
        }
        (is_empty || end <= data.len()).then_some(Heads {
            data,
            shape,
            strides,
            gap: Gap::default(),
        })
    }

    /// Leaves out some rows of each head; returns `None` where there are no such rows.
    pub(crate) fn without(mut self, rows: Range<usize>) -> Option<Heads<'a, T>> {
        self.gap = Gap::new(rows, self.shape[2])?;
        self.shape[2] -= self.gap.len;
        Some(self)
    }

    pub(super) fn head(&self, batch: usize, head: usize) -> Head<'a, T> {
        let [n_batches, n_heads, n_rows, depth] = self.shape;
        assert!(batch < n_batches && head < n_heads, "position of the head");
        let start = batch * self.strides[0] + head * self.strides[1];
        let data = if n_rows * depth == 0 { &[] } else { &self.data[start..] };
        Head { data, n_rows, depth, stride: self.strides[2], gap: self.gap }
    }
}

/// The rows of one head.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, T> {
    data: &'a [T],
    pub(super) n_rows: usize,
    pub(super) depth: usize,
    stride: usize,
    gap: Gap,
}

impl<'a, T> Head<'a, T> {
    /// Takes whole rows that lie one behind the other.
    #[inline(always)]
    pub(super) fn of_block(data: &'a [T], depth: usize) -> Head<'a, T> {
        let n_rows = data.len() / depth.max(1);
        Head { data, n_rows, depth, stride: depth, gap: Gap::default() }
    }

    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.n_rows, "position of the row");
        let start = self.gap.place(i) * self.stride;
        // SAFETY: `Heads::new` saw that all rows of all heads lie within the data, those of the gap
        // among them; so do whole rows that follow one another.
        unsafe { self.data.get_unchecked(start..start + self.depth) }
    }
}

/// Packed keys or values, the first rows of each head of a store with room for more.
#[derive(Clone, Copy)]
pub(crate) struct PackedHeads<'a, T> {
    parts: PackedParts<'a, T>,
    /// `[B, N, S, D]`
    shape: [usize; 4],
    /// Rows of a head that there is room for.
    capacity: usize,
    gap: Gap,
}

impl<'a, T> PackedHeads<'a, T> {
    /// Returns `None` where the parts have other sizes.
    pub(crate) fn new(
        parts: PackedParts<'a, T>,
        shape: [usize; 4],
        capacity: usize,
    ) -> Option<PackedHeads<'a, T>> {
        let [b, n, s, d] = shape;
        let n_rows = b.checked_mul(n)?.checked_mul(capacity)?;
        let fits = parts.n_rows(d)? == n_rows && s <= capacity;
        fits.then_some(PackedHeads { parts, shape, capacity, gap: Gap::default() })
    }

    /// Leaves out some rows of each head; returns `None` where there are no such rows.
    pub(crate) fn without(mut self, rows: Range<usize>) -> Option<PackedHeads<'a, T>> {
        self.gap = Gap::new(rows, self.shape[2])?;
        self.shape[2] -= self.gap.len;
        Some(self)
    }
}

/// The packed rows of one head.
#[derive(Clone, Copy)]
pub(super) struct PackedHead<'a, T> {
    parts: PackedParts<'a, T>,
    /// The place of the head's first row among all.
    start: usize,
    n_rows: usize,
    depth: usize,
    gap: Gap,
}

impl<T: Element> PackedHead<'_, T> {
    #[inline(always)]
    fn widen<S: Level>(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n_rows, "position of the row");
        self.parts.widen::<S>(self.start + self.gap.place(i), self.depth, out);
    }
}

/// Keys or values, `[B, N, S, D]`.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a, T> {
    Dense(Heads<'a, T>),
    Packed(PackedHeads<'a, T>),
}

impl<'a, T> Rows<'a, T> {
    pub(super) fn shape(&self) -> [usize; 4] {
        match self {
            Rows::Dense(heads) => heads.shape,
            Rows::Packed(heads) => heads.shape,
        }
    }
}

impl<'a, T: Copy> Rows<'a, T> {
    pub(super) fn head(&self, batch: usize, head: usize) -> HeadRows<'a, T> {
        match self {
            Rows::Dense(heads) => HeadRows::Dense(heads.head(batch, head)),
            Rows::Packed(PackedHeads { parts, shape, capacity, gap }) => {
                let [n_batches, n_heads, n_rows, depth] = *shape;
                assert!(batch < n_batches && head < n_heads, "position of the head");
                let start = (batch * n_heads + head) * capacity;
                HeadRows::Packed(PackedHead { parts: *parts, start, n_rows, depth, gap: *gap })
            }
        }
    }
}

/// The keys or values of one head.
#[derive(Clone, Copy)]
pub(super) enum HeadRows<'a, T> {
    Dense(Head<'a, T>),
    Packed(PackedHead<'a, T>),
}

impl<T: Element> HeadRows<'_, T> {
    /// Writes a row in float32.
    #[inline(always)]
    pub(super) fn widen<S: Level>(&self, i: usize, out: &mut [f32]) {
        match self {
            HeadRows::Dense(head) => widen_row::<S, T>(head.row(i), out),
            HeadRows::Packed(head) => head.widen::<S>(i, out),
        }
    }

    /// Has `n` rows brought near, as far as there are so many.
    #[inline(always)]
    pub(super) fn fetch<S: Level>(&self, start: usize, n: usize) {
        if let HeadRows::Dense(head) = self {
            fetch::<S, T>(head, start, n);
        }
    }
}

#[inline(always)]
fn widen_row<S: Level, T: Element>(x: &[T], out: &mut [f32]) {
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (x, out) in x.iter().zip(out) {
        *out = T::widen::<S>(x);
    }
    for (x, out) in x_rest.iter().zip(out_rest) {
        *out = x.to_f32();
    }
}

/// Has `n` rows brought near, as far as there are so many.
///
/// Within the work on what is there already, so that the one waits for nothing while the other runs.
#[inline(always)]
pub(super) fn fetch<S: Level, T>(head: &Head<'_, T>, start: usize, n: usize) {
    for i in start..(start + n).min(head.n_rows) {
        for byte in (0..head.depth * size_of::<T>()).step_by(64) {
            S::prefetch(head.row(i).as_ptr().wrapping_byte_add(byte));
        }
    }
}
