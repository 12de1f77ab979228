//! Attention in one pass over keys and values, with an online softmax in float32.
//!
//! Scores are made for a block of keys at a time and never kept: each query has the maximum and the
//! sum of what it has seen, and values summed with weights relative to that maximum, all scaled down
//! when the maximum grows. The queries of all heads that share one head of keys are worked on
//! together, so that keys and values are read once for them.
//!
//! Up to four queries (`few`) are dot products along the rows of keys, which take about as long as
//! reading those does. More (`many`) lie in the lanes of panels `[D, 8]` or `[D, 16]`: keys and values
//! are widened to float32 once per block, every score is a multiplication with a panel, and nothing
//! of the softmax goes across lanes. Where there are fewer blocks of queries than threads, the keys
//! are shared out too, and the results of the shares are merged in the end.

mod exp;
mod few;
mod many;
mod rows;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use self::exp::exp;
use self::few::few;
use self::many::many;
pub(crate) use self::rows::{Heads, PackedHeads, Rows};
use super::isa::{Level, multiversion};
use super::matmul::Element;
use super::{Isa, pool};

/// A vector register's worth of float32.
const LANES: usize = 8;

/// Keys of a block; a multiple of what meets a panel, or a row, at once.
const KEYS: usize = 48;

/// Queries that share a widened block of keys.
const QUERIES: usize = 64;

/// As many queries go along rows instead of panels.
const FEW: usize = 4;

/// Fewer keys are not worth a part of a job of their own.
const PART_KEYS: usize = 256;

/// The score of a key that a mask hides, as MLX has it: where all are hidden, all weigh the same.
const HIDDEN: f32 = f32::MIN;

/// A mask `[B, H, L, S]`; broadcast axes have stride 0.
#[derive(Clone, Copy)]
pub(crate) struct MaskArray<'a, T> {
    data: &'a [T],
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a, T: Copy> MaskArray<'a, T> {
    /// Returns `None` where an element would lie outside of `data`.
    pub(crate) fn new(
        data: &'a [T],
        shape: [usize; 4],
        strides: [usize; 4],
    ) -> Option<MaskArray<'a, T>> {
        let is_empty = shape.contains(&0);
        let mut end = 1usize;
        for (n, stride) in shape.into_iter().zip(strides) {
            end = end.checked_add(n.saturating_sub(1).checked_mul(stride)?)?;
        }
        (is_empty || end <= data.len()).then_some(MaskArray { data, shape, strides })
    }

    /// Calls `visit` with a position and the element there, for `keys` of a row.
    #[inline(always)]
    fn each(&self, row: [usize; 3], keys: Range<usize>, mut visit: impl FnMut(usize, T)) {
        let [b, h, l] = row;
        let start = b * self.strides[0] + h * self.strides[1] + l * self.strides[2];
        match self.strides[3] {
            1 => {
                let elements = &self.data[start + keys.start..start + keys.end];
                elements.iter().enumerate().for_each(|(j, &x)| visit(j, x));
            }
            stride => {
                keys.enumerate().for_each(|(j, key)| visit(j, self.data[start + key * stride]))
            }
        }
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy)]
pub(crate) enum Mask<'a, T> {
    None,
    /// Those not after it, the last query being the last key, and of these the last `window`.
    Causal {
        window: Option<usize>,
    },
    /// Those whose byte is not 0.
    Bool(MaskArray<'a, u8>),
    /// All, with something added to the scores.
    Additive(MaskArray<'a, T>),
}

/// The operands of [`attention`].
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a, T> {
    /// `[B, H, L, D]`
    pub(crate) q: Heads<'a, T>,
    /// `[B, KV, S, D]`
    pub(crate) k: Rows<'a, T>,
    /// `[B, KV, S, DV]`
    pub(crate) v: Rows<'a, T>,
    pub(crate) mask: Mask<'a, T>,
    /// `[H]`: scores of their own, with values of zero.
    pub(crate) sinks: Option<&'a [T]>,
    pub(crate) scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub(crate) soft_cap: Option<f32>,
}

impl<T> Attention<'_, T> {
    fn n_keys(&self) -> usize {
        self.k.shape()[2]
    }

    /// Query heads that share a head of keys.
    fn n_shared(&self) -> usize {
        self.q.shape[1] / self.k.shape()[1]
    }

    fn depths(&self) -> [usize; 2] {
        [self.k.shape()[3], self.v.shape()[3]]
    }

    fn check(&self, out_len: usize) {
        let ([b, h, l, d], [_, kv, s, dv]) = (self.q.shape, self.v.shape());
        assert_eq!(self.k.shape(), [b, kv, s, d], "shape of the keys");
        assert_eq!(self.v.shape()[0], b, "shape of the values");
        assert!(kv > 0 && h.is_multiple_of(kv), "{h} heads over {kv}");
        assert_eq!(out_len, b * h * l * dv, "size of the result");
        assert!(self.sinks.is_none_or(|sinks| sinks.len() == h), "number of sinks");
        let mask = match &self.mask {
            Mask::Bool(mask) => mask.shape,
            Mask::Additive(mask) => mask.shape,
            Mask::None | Mask::Causal { .. } => return,
        };
        assert_eq!(mask, [b, h, l, s], "shape of the mask");
    }

    /// The place of a query among those that share a head of keys: neighbours first, so that a block
    /// of them ends at about the same key.
    #[inline(always)]
    fn query(&self, block: &Block, i: usize) -> [usize; 3] {
        let shared = self.n_shared();
        [block.batch, block.head * shared + i % shared, i / shared]
    }

    /// The first key that a query sees and the one behind the last; an empty range if it sees none.
    fn visible(&self, l: usize) -> Range<usize> {
        let n_keys = self.n_keys();
        let Mask::Causal { window } = self.mask else { return 0..n_keys };
        // Counts keys up to the query, with the missing ones in front.
        let end = (n_keys + l + 1).saturating_sub(self.q.shape[2]);
        end.saturating_sub(window.unwrap_or(usize::MAX))..end
    }

    /// The keys that any of a block's queries sees.
    ///
    /// All of them where a query sees none and so takes the mean.
    fn visible_to(&self, block: &Block, queries: Range<usize>) -> Range<usize> {
        let visible = |i: usize| self.visible(self.query(block, i)[2]);
        let (first, last) = (visible(queries.start), visible(queries.end - 1));
        if first.is_empty() { 0..self.n_keys() } else { first.start..last.end }
    }
}

/// Queries that share a head of keys.
struct Block {
    batch: usize,
    head: usize,
    queries: Range<usize>,
}

/// In which order results lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `[B, H, L, DV]`
    HeadsFirst,
    /// `[B, L, H, DV]`
    RowsFirst,
}

/// Writes `softmax(scale * q × kᵀ + mask) × v` to `out`.
///
/// # Panics
/// When shapes do not fit.
pub(crate) fn attention<T: Element>(isa: Isa, a: &Attention<'_, T>, order: Order, out: &mut [T]) {
    a.check(out.len());
    if out.is_empty() {
        return;
    }
    if a.n_keys() == 0 {
        out.fill(T::default());
        return;
    }
    let [n_batches, n_heads, n_kv, n_queries] =
        [a.q.shape[0], a.q.shape[1], a.k.shape()[1], a.n_shared() * a.q.shape[2]];
    let step = n_queries.min(QUERIES);
    let mut blocks = Vec::new();
    // Those that see the most keys first.
    for start in (0..n_queries).step_by(step).rev() {
        for (batch, head) in (0..n_batches).flat_map(|b| (0..n_kv).map(move |kv| (b, kv))) {
            let queries = start..(start + step).min(n_queries);
            blocks.push(Block { batch, head, queries });
        }
    }
    let (n_rows, depth) = (a.q.shape[2], a.depths()[1]);
    let [head, row] = match order {
        Order::HeadsFirst => [n_rows * depth, depth],
        Order::RowsFirst => [depth, n_heads * depth],
    };
    let strides = [n_heads * n_rows * depth, head, row];
    let out = Out { data: out.as_mut_ptr(), len: out.len(), strides };
    // What no query sees is no part of the job.
    let visible = blocks.iter().map(|block| a.visible_to(block, block.queries.clone()));
    let keys = visible.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0);
    let step = keys_of_part(keys.len(), blocks.len());
    let n_shares = keys.len().div_ceil(step);
    if n_shares == 1 {
        return pool::run(blocks.len(), &|i| {
            let mut state = State::new(a, &blocks[i]);
            part(isa, a, &blocks[i], keys.clone(), &mut state);
            put(isa, &out, a, &blocks[i], &state);
        });
    }
    let states: Vec<_> = (0..blocks.len() * n_shares).map(|_| Mutex::new(None)).collect();
    pool::run(states.len(), &|i| {
        let (block, start) = (&blocks[i / n_shares], keys.start + i % n_shares * step);
        let mut state = State::new(a, block);
        part(isa, a, block, start..(start + step).min(keys.end), &mut state);
        *states[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    });
    let mut states = states
        .into_iter()
        .filter_map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner));
    for block in &blocks {
        let shares = states.by_ref().take(n_shares);
        if let Some(state) = shares.reduce(State::merge) {
            put(isa, &out, a, block, &state);
        }
    }
}

/// How many keys a part of the job takes.
fn keys_of_part(n_keys: usize, n_blocks: usize) -> usize {
    let n_threads = pool::threads();
    if n_threads == 1 || n_blocks >= 4 * n_threads {
        return n_keys;
    }
    let n_shares = (4 * n_threads).div_ceil(n_blocks).min(n_keys / PART_KEYS).max(1);
    n_keys.div_ceil(n_shares).next_multiple_of(KEYS)
}

/// What queries have seen.
struct State {
    max: Vec<f32>,
    /// Of weights `exp(score - max)`.
    sum: Vec<f32>,
    /// `[queries, DV]`: values summed with these weights.
    acc: Vec<f32>,
}

impl State {
    fn new<T>(a: &Attention<'_, T>, block: &Block) -> State {
        let n = block.queries.len();
        State { max: vec![HIDDEN; n], sum: vec![0.0; n], acc: vec![0.0; n * a.depths()[1]] }
    }

    fn merge(mut self, other: State) -> State {
        let depth = self.acc.len() / self.max.len();
        for i in 0..self.max.len() {
            let max = if other.max[i] > self.max[i] { other.max[i] } else { self.max[i] };
            let [ours, theirs] = [self.max[i], other.max[i]].map(|x| (x - max).exp());
            self.max[i] = max;
            self.sum[i] = ours * self.sum[i] + theirs * other.sum[i];
            let acc = self.acc[i * depth..][..depth].iter_mut();
            for (acc, other) in acc.zip(&other.acc[i * depth..][..depth]) {
                *acc = ours * *acc + theirs * other;
            }
        }
        self
    }
}

/// The result, whose rows are shared out among the blocks.
struct Out<T> {
    data: *mut T,
    len: usize,
    /// Elements from one batch row, head and query to the next.
    strides: [usize; 3],
}

// SAFETY: blocks are of distinct rows, and each is written by one part of the job.
unsafe impl<T: Element> Sync for Out<T> {}

multiversion! {
    fn put[T: Element] = put_body(out: &Out<T>, a: &Attention<'_, T>, block: &Block, state: &State)
}

/// Writes the rows of a block, each divided by the sum of its weights.
#[inline(always)]
fn put_body<S: Level, T: Element>(
    out: &Out<T>,
    a: &Attention<'_, T>,
    block: &Block,
    state: &State,
) {
    let depth = a.depths()[1];
    for (i, query) in block.queries.clone().enumerate() {
        let [b, h, l] = a.query(block, query);
        let start = b * out.strides[0] + h * out.strides[1] + l * out.strides[2];
        assert!(start + depth <= out.len, "position of the row");
        // SAFETY: within the result, as just seen, and this block's alone.
        let row = unsafe { std::slice::from_raw_parts_mut(out.data.add(start), depth) };
        let (mut sum, mut weight) = (state.sum[i], 1.0);
        if let Some(sinks) = a.sinks {
            let sink = sinks[h].to_f32();
            let max = larger(sink, state.max[i]);
            weight = exp::<S>(state.max[i] - max);
            sum = sum * weight + exp::<S>(sink - max);
        }
        let weight = weight / sum;
        let (acc, acc_rest) = state.acc[i * depth..][..depth].as_chunks::<LANES>();
        let (row, row_rest) = row.as_chunks_mut::<LANES>();
        for (row, acc) in row.iter_mut().zip(acc) {
            let mut values = *acc;
            for value in &mut values {
                *value *= weight;
            }
            *row = T::narrow::<S>(values);
        }
        for (row, acc) in row_rest.iter_mut().zip(acc_rest) {
            *row = T::from_f32(acc * weight);
        }
    }
}

multiversion! {
    fn part[T: Element] =
        part_body(a: &Attention<'_, T>, block: &Block, keys: Range<usize>, state: &mut State)
}

#[inline(always)]
fn part_body<S: Level, T: Element>(
    a: &Attention<'_, T>,
    block: &Block,
    keys: Range<usize>,
    state: &mut State,
) {
    let visible = a.visible_to(block, block.queries.clone());
    let keys = keys.start.max(visible.start)..keys.end.min(visible.end);
    if keys.is_empty() {
        return;
    }
    // As many keys, and elements of values, meet a panel at once as there are registers for sums.
    match block.queries.len() {
        n if n <= FEW => few::<S, T>(a, block, keys, state),
        n if n <= LANES => many::<S, T, 1, 12, 13>(a, block, keys, state),
        _ => many::<S, T, 2, 6, 6>(a, block, keys, state),
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
