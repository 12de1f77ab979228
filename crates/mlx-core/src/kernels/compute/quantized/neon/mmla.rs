//! Products with several rows of activations by `smmla`, which takes two rows of eight weights and two
//! of activations, and adds the four products to 32 bits each: twice what `sdot` does.
//!
//! Rows therefore lie two beside one another, eights of bytes of the one and the other in turn, those
//! of activations as those of weights. In all formats eights belong to one group each.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::{Activations, BLOCK_CHUNKS, BLOCK_ROWS, CHUNK, Kernel, R};
use super::{Block, Chunk, Extent, Out, Quad, Rows, Scale, extents, lanes, load};

/// Fewer rows of activations do not make up for bringing rows together.
pub(super) const LEAST_ROWS: usize = 4;

/// Chunks of two rows.
type Pairs = [[i8; 2 * CHUNK]; BLOCK_CHUNKS];

/// [`add`] for `T` pairs of rows of activations.
type Add<const T: usize> = unsafe fn(&Tile<'_>, &mut Sums<T>);

/// For each pair of weights and each of activations the four sums of its rows.
type Sums<const T: usize> = [[float32x4_t; T]; R / 2];

pub(super) type Adds = (Add<1>, Add<2>);

pub(super) fn adds<const SPLIT: bool, const PAIRED: bool>() -> Adds {
    (add::<SPLIT, PAIRED, 1>, add::<SPLIT, PAIRED, 2>)
}

/// # Safety
/// As [`matmul`](super::matmul), and the CPU has products of matrices of bytes.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn many<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let mut block = Block::new(w.group_size);
    let mut weights = [[[0; 2 * CHUNK]; BLOCK_CHUNKS]; R / 2];
    let mut inputs = Inputs::new(x);
    for extent in extents(x, w) {
        inputs.fill(x, &extent);
        for n in rows.clone().step_by(R) {
            let quad = Quad::new(kernel, w, n, rows.end);
            block.fill(&quad, &extent);
            for (pairs, rows) in weights.iter_mut().zip(block.rows.as_chunks::<2>().0) {
                for i in 0..extent.chunks.len() {
                    // SAFETY: chunks.
                    let rows = unsafe { [load(rows[0][i].as_ptr()), load(rows[1][i].as_ptr())] };
                    put_pair(&mut pairs[i], rows);
                }
            }
            let mut m = extent.ms.start;
            while m < extent.ms.end {
                macro_rules! tile {
                    ($t:expr, $add:expr) => {{
                        let (block, n_chunks) = (&block, extent.chunks.len());
                        let pair = (m - extent.ms.start) / 2;
                        let tile =
                            Tile { weights: &weights, block, inputs: &inputs, pair, n_chunks };
                        let mut sums = [[vdupq_n_f32(0.0); $t]; R / 2];
                        // SAFETY: all three have these chunks and their groups; the result has
                        // `count` rows of weights and all of `extent`.
                        unsafe {
                            $add(&tile, &mut sums);
                            tile.add_biases(&mut sums, extent.groups.len());
                            for (i, sums) in sums.into_iter().enumerate() {
                                for (t, sums) in sums.into_iter().enumerate() {
                                    for (lane, sum) in lanes(sums).into_iter().enumerate() {
                                        let (r, m) = (2 * i + lane / 2, m + 2 * t + lane % 2);
                                        if r < quad.count && m < extent.ms.end {
                                            extent.put(out, m, n + r, sum);
                                        }
                                    }
                                }
                            }
                        }
                        m += 2 * $t;
                    }};
                }
                match extent.ms.end - m {
                    3.. => tile!(2, (kernel.mmla.1)),
                    _ => tile!(1, (kernel.mmla.0)),
                }
            }
        }
    }
}

/// Pairs of rows of activations, the last with zeros where their number is odd.
struct Inputs {
    q: Vec<Pairs>,
    /// `[pair, group]`
    scales: Vec<[f32; 2]>,
    sums: Vec<[f32; 2]>,
    /// Groups of a block.
    n_groups: usize,
    /// Of the size of a group, a power of two.
    shift: u32,
}

impl Inputs {
    fn new(x: &Activations) -> Inputs {
        let n_pairs = x.n_rows.min(BLOCK_ROWS).div_ceil(2);
        let n_groups = BLOCK_CHUNKS * CHUNK / x.group_size;
        Inputs {
            q: vec![[[0; 2 * CHUNK]; BLOCK_CHUNKS]; n_pairs],
            scales: vec![[0.0; 2]; n_pairs * n_groups],
            sums: vec![[0.0; 2]; n_pairs * n_groups],
            n_groups,
            shift: x.group_size.trailing_zeros(),
        }
    }

    #[target_feature(enable = "neon")]
    fn fill(&mut self, x: &Activations, extent: &Extent) {
        let Extent { ms, chunks, groups } = extent;
        let n_groups = self.n_groups.min(x.groups_padded - groups.start);
        for (pair, m) in ms.clone().step_by(2).enumerate() {
            let has_two = m + 1 < ms.end;
            for (i, c) in chunks.clone().enumerate() {
                let q = &x.q[m * x.k_padded + c * CHUNK..];
                let mut rows = [[vdupq_n_s8(0); 4]; 2];
                // SAFETY: rows of activations are whole chunks.
                unsafe {
                    rows[0] = load(q.as_ptr());
                    if has_two {
                        rows[1] = load(q[x.k_padded..].as_ptr());
                    }
                }
                put_pair(&mut self.q[pair][i], rows);
            }
            let place = pair * self.n_groups..pair * self.n_groups + n_groups;
            for (to, from) in [(&mut self.scales, &x.scales), (&mut self.sums, &x.sums)] {
                let from = &from[m * x.groups_padded + groups.start..];
                for (g, to) in to[place.clone()].iter_mut().enumerate() {
                    *to = [from[g], if has_two { from[x.groups_padded + g] } else { 0.0 }];
                }
            }
        }
    }
}

/// Writes eights of bytes of two rows in turn.
#[inline]
#[target_feature(enable = "neon")]
fn put_pair(out: &mut [i8; 2 * CHUNK], rows: [Chunk; 2]) {
    for i in 0..4 {
        let [a, b] = [vreinterpretq_s64_s8(rows[0][i]), vreinterpretq_s64_s8(rows[1][i])];
        // SAFETY: two vectors for each of four.
        unsafe {
            let to = out.as_mut_ptr().add(32 * i);
            vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
            vst1q_s8(to.add(16), vreinterpretq_s8_s64(vzip2q_s64(a, b)));
        }
    }
}

/// Two pairs of rows of weights that meet pairs of activations from `pair` on.
pub(super) struct Tile<'a> {
    weights: &'a [Pairs; R / 2],
    block: &'a Block,
    inputs: &'a Inputs,
    pair: usize,
    n_chunks: usize,
}

impl Tile<'_> {
    /// Adds the biases of some groups times what activations of these groups sum up to.
    #[inline]
    #[target_feature(enable = "neon")]
    fn add_biases<const T: usize>(&self, sums: &mut Sums<T>, n_groups: usize) {
        for g in 0..n_groups {
            for t in 0..T {
                let x_sums = &self.inputs.sums[(self.pair + t) * self.inputs.n_groups + g];
                // SAFETY: two numbers.
                let x_sums = unsafe { both_twice(x_sums) };
                for i in 0..R / 2 {
                    let bias = twice_each(&self.block.biases[g], i);
                    sums[i][t] = vfmaq_f32(sums[i][t], bias, x_sums);
                }
            }
        }
    }
}

/// Adds the products with `T` pairs, but for the biases; for the others see [`dots`](super::dots).
///
/// # Safety
/// There are `n_chunks` chunks, and `T` pairs from `pair` on; the CPU has the instructions.
#[target_feature(enable = "neon,i8mm")]
unsafe fn add<const SPLIT: bool, const PAIRED: bool, const T: usize>(
    tile: &Tile<'_>,
    sums: &mut Sums<T>,
) {
    let (n_halves, n_pairs) = (1 + usize::from(SPLIT), 1 + usize::from(PAIRED));
    let Inputs { q, scales, n_groups, shift, .. } = tile.inputs;
    let mut totals = *sums;
    // SAFETY: the caller's promise.
    unsafe {
        let (q, scales) = (q.as_ptr().add(tile.pair), scales.as_ptr().add(tile.pair * n_groups));
        for c in 0..tile.n_chunks {
            let weights = [0, 1].map(|i| tile.weights[i].as_ptr().add(c).cast::<i8>());
            let weights = [
                load(weights[0]),
                load(weights[0].add(64)),
                load(weights[1]),
                load(weights[1].add(64)),
            ];
            let group = (c * CHUNK) >> shift;
            for t in 0..T {
                let x = (*q.add(t)).as_ptr().add(c).cast::<i8>();
                let x = [load(x), load(x.add(64))];
                for i in 0..R / 2 {
                    let mut dots = [[vdupq_n_s32(0); 2]; 2];
                    for e in 0..8 {
                        let half = if SPLIT { e / 2 % 2 } else { 0 };
                        let pair = if PAIRED { e % 2 } else { 0 };
                        let w = weights[2 * i + e / 4][e % 4];
                        dots[half][pair] = smmla(dots[half][pair], w, x[e / 4][e % 4]);
                    }
                    for half in 0..n_halves {
                        for pair in 0..n_pairs {
                            let g = group + half * n_pairs + pair;
                            let factor = vmulq_f32(
                                twice_each(&tile.block.scales[g], i),
                                both_twice(scales.add(t * n_groups + g)),
                            );
                            let dot = vcvtq_f32_s32(dots[half][pair]);
                            totals[i][t] = vfmaq_f32(totals[i][t], dot, factor);
                        }
                    }
                }
            }
        }
    }
    *sums = totals;
}

/// `a a b b` of the `i`th pair.
#[inline]
#[target_feature(enable = "neon")]
fn twice_each(x: &[f32; R], i: usize) -> float32x4_t {
    // SAFETY: four numbers.
    let x = unsafe { vld1q_f32(x.as_ptr()) };
    if i == 0 { vzip1q_f32(x, x) } else { vzip2q_f32(x, x) }
}

/// `a b a b`
///
/// # Safety
/// Two numbers are there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn both_twice(x: *const [f32; 2]) -> float32x4_t {
    // SAFETY: the caller's promise.
    let x = unsafe { vld1_f32(x.cast()) };
    vcombine_f32(x, x)
}

/// Adds the products of two rows of eight bytes with two, `a0 b0`, `a0 b1`, `a1 b0`, `a1 b1`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers alone, and the CPU has the instruction, whose intrinsic is not stable.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
