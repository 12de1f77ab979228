//! Products of bytes by NEON: `sdot` multiplies sixteen signed weights with as many activations and
//! adds fours of neighbours to 32 bits.
//!
//! Four rows of weights are taken together and become the lanes of their sum, where additions of
//! neighbours (`addp`) bring them. What follows on the integers, their scales, is then one vector for
//! the four rows, and nothing is left to be added up in the end:
//!
//! ```text
//! row 0  a0 a1 a2 a3 ─┐
//! row 1  b0 b1 b2 b3 ─┴ a01 a23 b01 b23 ─┐
//! row 2  c0 c1 c2 c3 ─┐                  ├ a b c d   × scales of the rows, + sums
//! row 3  d0 d1 d2 d3 ─┴ c01 c23 d01 d23 ─┘
//! ```
//!
//! Where a chunk has several groups, whole registers or pairs of lanes belong to one of them each, and
//! are added up apart ([`dots`]).
//!
//! What depends on the format is a handful of functions ([`Kernel`]), so that the rest is compiled once
//! for each type of scales.

mod mmla;
mod unpack;

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::ops::Range;

use self::unpack::{Unpack, Unpacked};
use super::format::with_unpack;
use super::{Activations, CHUNK, Out, Rows, Scale};

/// Rows of weights that are taken together.
const R: usize = 4;

/// Rows and chunks of activations that stay in the first-level cache, half of which they take, while
/// rows of weights pass.
const BLOCK_ROWS: usize = 32;
const BLOCK_CHUNKS: usize = 16;

/// Sixteens of bytes, in the format's order.
type Chunk = [int8x16_t; 4];

/// # Safety
/// `CHUNK` bytes are there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load(p: *const i8) -> Chunk {
    // SAFETY: the caller's promise.
    unsafe { [vld1q_s8(p), vld1q_s8(p.add(16)), vld1q_s8(p.add(32)), vld1q_s8(p.add(48))] }
}

/// # Safety
/// The CPU has NEON with dot products; `rows` are below `w.n_rows`, and no other thread has them.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn matmul<S: Scale>(
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let kernel = with_unpack!(w.format, U => Kernel::new::<U>(w.lanes), else => None);
    // SAFETY: the caller's promise.
    unsafe {
        match kernel {
            None => super::scalar::matmul(x, w, rows, out),
            Some(kernel) if x.n_rows == 1 => one(&kernel, x, w, rows, out),
            Some(kernel)
                if x.n_rows >= mmla::LEAST_ROWS && is_aarch64_feature_detected!("i8mm") =>
            {
                mmla::many(&kernel, x, w, rows, out);
            }
            Some(kernel) => many(&kernel, x, w, rows, out),
        }
    }
}

/// [`Tile::add`] for `T` rows of activations.
type Add<const T: usize> = unsafe fn(Tile, &Activations, &[[f32; R]], &mut [float32x4_t; T]);

/// What depends on the format and on how groups lie in a chunk.
struct Kernel {
    /// Size of a chunk.
    bytes: usize,
    /// How far a chunk is read.
    reads: usize,
    unpack: unsafe fn(*const u8, &mut [[i8; CHUNK]]),
    /// With the scales of both.
    packed: Add<1>,
    /// With the scales of weights.
    unpacked: (Add<1>, Add<2>, Add<4>),
    mmla: mmla::Adds,
}

impl Kernel {
    fn new<U: Unpack>(lanes: [i32; 8]) -> Option<Kernel> {
        match lanes {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some(Kernel::of::<U, false, false>()),
            [0, 0, 0, 0, 1, 1, 1, 1] => Some(Kernel::of::<U, true, false>()),
            [0, 0, 1, 1, 0, 0, 1, 1] => Some(Kernel::of::<U, false, true>()),
            [0, 0, 1, 1, 2, 2, 3, 3] => Some(Kernel::of::<U, true, true>()),
            _ => None,
        }
    }

    /// For what the two say see [`dots`].
    fn of<U: Unpack, const SPLIT: bool, const PAIRED: bool>() -> Kernel {
        Kernel {
            bytes: U::BYTES,
            reads: U::READS,
            unpack: unpack::row::<U>,
            packed: Tile::add::<U, SPLIT, PAIRED, true, 1>,
            unpacked: (
                Tile::add::<Unpacked, SPLIT, PAIRED, false, 1>,
                Tile::add::<Unpacked, SPLIT, PAIRED, false, 2>,
                Tile::add::<Unpacked, SPLIT, PAIRED, false, 4>,
            ),
            mmla: mmla::adds::<SPLIT, PAIRED>(),
        }
    }
}

/// Products with one row of activations, whose scales are multiplied with those of the weights before
/// the sum.
///
/// # Safety
/// As [`matmul`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn one<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let offset = w.format.offset();
    // Rows of activations have whole vectors of groups, and zeros behind the last.
    let n_fours = w.n_groups().div_ceil(4);
    let mut factors = Factors::new(w.n_groups());
    let mut scales = vec![[[0.0f32; R]; 4]; n_fours];
    let (x_scales, x_sums) = (x.scales.as_chunks::<4>().0, x.sums.as_chunks::<4>().0);
    for n in rows.clone().step_by(R) {
        let quad = Quad::new(kernel, w, n, rows.end);
        factors.read(&quad, 0..w.n_groups());
        let mut sums = [vdupq_n_f32(0.0); R];
        for i in 0..n_fours {
            let [mut of_rows, biases] = factors.four(i, offset);
            // SAFETY: four numbers each.
            let (x_scales, x_sums) =
                unsafe { (vld1q_f32(x_scales[i].as_ptr()), vld1q_f32(x_sums[i].as_ptr())) };
            for r in 0..R {
                of_rows[r] = vmulq_f32(of_rows[r], x_scales);
                sums[r] = vfmaq_f32(sums[r], biases[r], x_sums);
            }
            put_columns(&mut scales[i], of_rows);
        }
        let [a, b, c, d] = sums;
        let mut sum = [vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))];
        let scales = scales.as_flattened();
        // SAFETY: whole chunks are read where they are, others from copies; all are chunks of the
        // activations, whose groups `scales` has; `count` rows are there.
        unsafe {
            let whole = Tile { w: quad.at(0), chunks: 0..quad.n_whole, first: 0, m: 0 };
            (kernel.packed)(whole, x, scales, &mut sum);
            for c in quad.n_whole..x.k_padded / CHUNK {
                let copies = quad.padded(c);
                let w = copies.each_ref().map(|copy| copy.as_ptr());
                let last = Tile { w, chunks: c..c + 1, first: 0, m: 0 };
                (kernel.packed)(last, x, scales, &mut sum);
            }
            for (r, &sum) in lanes(sum[0]).iter().enumerate().take(quad.count) {
                out.set(0, n + r, sum);
            }
        }
    }
}

/// Products with several rows of activations, in blocks that stay in the first-level cache while rows
/// of weights pass, unpacked once for the block.
///
/// # Safety
/// As [`matmul`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn many<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let mut block = Block::new(w.group_size);
    for extent in extents(x, w) {
        for n in rows.clone().step_by(R) {
            let quad = Quad::new(kernel, w, n, rows.end);
            block.fill(&quad, &extent);
            let Extent { ms, chunks, .. } = &extent;
            let mut m = ms.start;
            while m < ms.end {
                macro_rules! tile {
                    ($t:expr, $add:expr) => {{
                        let mut sums = [vdupq_n_f32(0.0); $t];
                        let tile = Tile {
                            w: block.rows.each_ref().map(|row| row.as_ptr().cast()),
                            chunks: chunks.clone(),
                            first: chunks.start,
                            m,
                        };
                        // SAFETY: the block has all chunks and their groups; so many rows of
                        // activations and `count` of weights are there.
                        unsafe {
                            $add(tile, x, &block.scales, &mut sums);
                            add_biases(&mut sums, &block.biases, x, m, extent.groups.clone());
                            for (t, sum) in sums.into_iter().enumerate() {
                                for (r, &sum) in lanes(sum).iter().enumerate().take(quad.count) {
                                    extent.put(out, m + t, n + r, sum);
                                }
                            }
                        }
                        m += $t;
                    }};
                }
                // More would take registers that those of weights need.
                match ms.end - m {
                    4.. => tile!(4, (kernel.unpacked.2)),
                    2.. => tile!(2, (kernel.unpacked.1)),
                    _ => tile!(1, (kernel.unpacked.0)),
                }
            }
        }
    }
}

/// Adds the biases of some groups times what activations of these groups sum up to.
#[inline]
#[target_feature(enable = "neon")]
fn add_biases<const T: usize>(
    sums: &mut [float32x4_t; T],
    biases: &[[f32; R]],
    x: &Activations,
    m: usize,
    groups: Range<usize>,
) {
    let x_sums: [_; T] =
        std::array::from_fn(|t| &x.sums[(m + t) * x.groups_padded..][groups.clone()]);
    for (g, bias) in biases[..groups.len()].iter().enumerate() {
        // SAFETY: four numbers.
        let bias = unsafe { vld1q_f32(bias.as_ptr()) };
        for t in 0..T {
            sums[t] = vfmaq_n_f32(sums[t], bias, x_sums[t][g]);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn lanes(x: float32x4_t) -> [f32; R] {
    let mut lanes = [0.0; R];
    // SAFETY: four numbers.
    unsafe { vst1q_f32(lanes.as_mut_ptr(), x) };
    lanes
}

/// Rows and chunks of activations that meet all rows of weights before others do.
struct Extent {
    ms: Range<usize>,
    chunks: Range<usize>,
    groups: Range<usize>,
}

impl Extent {
    /// Adds to a result that the extents of earlier chunks have begun.
    ///
    /// # Safety
    /// As [`Out::set`].
    #[inline(always)]
    unsafe fn put(&self, out: &Out, m: usize, n: usize, sum: f32) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.chunks.start {
                0 => out.set(m, n, sum),
                _ => out.add(m, n, sum),
            }
        }
    }
}

fn extents<S: Scale>(x: &Activations, w: &Rows<'_, S>) -> impl Iterator<Item = Extent> {
    let (n_rows, n_chunks) = (x.n_rows, x.k_padded / CHUNK);
    let (group_size, n_groups) = (w.group_size, w.n_groups());
    (0..n_rows).step_by(BLOCK_ROWS).flat_map(move |m| {
        (0..n_chunks).step_by(BLOCK_CHUNKS).map(move |first| {
            let end = (first + BLOCK_CHUNKS).min(n_chunks);
            Extent {
                ms: m..(m + BLOCK_ROWS).min(n_rows),
                chunks: first..end,
                groups: first * CHUNK / group_size..(end * CHUNK / group_size).min(n_groups),
            }
        })
    })
}

/// Chunks of four rows of weights, unpacked, with what belongs to their groups.
#[repr(align(64))]
struct Block {
    rows: [[[i8; CHUNK]; BLOCK_CHUNKS]; R],
    factors: Factors,
    /// A group's of the four rows.
    scales: Vec<[f32; R]>,
    biases: Vec<[f32; R]>,
}

impl Block {
    fn new(group_size: usize) -> Block {
        let factors = Factors::new(BLOCK_CHUNKS * CHUNK / group_size);
        let zeros = vec![[0.0; R]; 4 * factors.n_fours];
        let rows = [[[0; CHUNK]; BLOCK_CHUNKS]; R];
        Block { rows, factors, scales: zeros.clone(), biases: zeros }
    }

    #[target_feature(enable = "neon")]
    fn fill<S: Scale>(&mut self, quad: &Quad<'_, S>, extent: &Extent) {
        self.factors.read(quad, extent.groups.clone());
        let scales = self.scales.as_chunks_mut::<4>().0.iter_mut();
        let columns = scales.zip(self.biases.as_chunks_mut::<4>().0);
        let n_fours = extent.groups.len().div_ceil(4);
        for (i, (scales, biases)) in columns.enumerate().take(n_fours) {
            let of_rows = self.factors.four(i, quad.w.format.offset());
            put_columns(scales, of_rows[0]);
            put_columns(biases, of_rows[1]);
        }
        let Range { start, end } = extent.chunks;
        let n_whole = quad.n_whole.clamp(start, end) - start;
        for (row, at) in self.rows.iter_mut().zip(quad.at(start)) {
            // SAFETY: so many chunks can be read there.
            unsafe { (quad.kernel.unpack)(at, &mut row[..n_whole]) };
        }
        for c in n_whole..end - start {
            for (row, copy) in self.rows.iter_mut().zip(quad.padded(start + c)) {
                // SAFETY: copies have room for what is read.
                unsafe { (quad.kernel.unpack)(copy.as_ptr(), &mut row[c..c + 1]) };
            }
        }
    }
}

/// Four rows of weights; behind the last one stands the last again.
struct Quad<'a, S> {
    kernel: &'a Kernel,
    w: &'a Rows<'a, S>,
    numbers: [usize; R],
    /// How many there are.
    count: usize,
    /// Chunks that can be read where they are.
    n_whole: usize,
}

/// Room for a chunk and what is read behind it.
const PADDED: usize = 64;

impl<'a, S: Scale> Quad<'a, S> {
    fn new(kernel: &'a Kernel, w: &'a Rows<'a, S>, n: usize, end: usize) -> Self {
        let numbers = std::array::from_fn(|r| (n + r).min(end - 1));
        // Only the last row of all can end before what is read of its last chunk.
        let room = w.packed.len() - numbers[R - 1] * w.row_bytes;
        let within = room.checked_sub(kernel.reads).map_or(0, |room| room / kernel.bytes + 1);
        Quad { kernel, w, numbers, count: R.min(end - n), n_whole: within.min(w.k / CHUNK) }
    }

    /// Where a chunk starts, of all weights: what is read may end in the next row.
    fn at(&self, chunk: usize) -> [*const u8; R] {
        let start = chunk * self.kernel.bytes;
        self.numbers.map(|n| self.w.packed[n * self.w.row_bytes + start..].as_ptr())
    }

    /// Copies a chunk to where it can be read.
    #[cold]
    fn padded(&self, chunk: usize) -> [[u8; PADDED]; R] {
        let mut copies = [[0; PADDED]; R];
        for (copy, &n) in copies.iter_mut().zip(&self.numbers) {
            let row = &self.w.row(n)[chunk * self.kernel.bytes..];
            let len = row.len().min(self.kernel.bytes);
            copy[..len].copy_from_slice(&row[..len]);
        }
        copies
    }
}

/// Scales and biases of some groups of four rows of weights, with zeros behind them.
struct Factors {
    /// `[R, n_fours]`
    scales: Vec<[f32; 4]>,
    biases: Vec<[f32; 4]>,
    n_fours: usize,
}

impl Factors {
    fn new(n_groups: usize) -> Factors {
        let n_fours = n_groups.div_ceil(4);
        let zeros = vec![[0.0; 4]; R * n_fours];
        Factors { scales: zeros.clone(), biases: zeros, n_fours }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn read<S: Scale>(&mut self, quad: &Quad<'_, S>, groups: Range<usize>) {
        let n_groups = quad.w.n_groups();
        let is_one = groups.len() == n_groups && n_groups == 4 * self.n_fours && quad.count == R;
        for (values, out) in [(quad.w.scales, &mut self.scales), (quad.w.biases, &mut self.biases)]
        {
            if values.is_empty() {
                continue;
            }
            if is_one {
                // Rows lie behind one another.
                widen(&values[quad.numbers[0] * n_groups..], out.as_flattened_mut());
                continue;
            }
            for (out, n) in out.chunks_exact_mut(self.n_fours).zip(quad.numbers) {
                let (out, rest) = out.as_flattened_mut().split_at_mut(groups.len());
                widen(&values[n * n_groups..][groups.clone()], out);
                rest.fill(0.0);
            }
        }
    }

    /// The scales of four groups, a row of weights in each vector, and their biases for weights that
    /// have `offset` taken off.
    #[inline]
    #[target_feature(enable = "neon")]
    fn four(&self, i: usize, offset: f32) -> [[float32x4_t; R]; 2] {
        let [mut scales, mut biases] = [[vdupq_n_f32(0.0); R]; 2];
        assert!(i < self.n_fours && R * self.n_fours <= self.scales.len().min(self.biases.len()));
        for r in 0..R {
            // SAFETY: as just asserted; each is four numbers.
            unsafe {
                scales[r] = vld1q_f32(self.scales.as_ptr().add(r * self.n_fours + i).cast());
                biases[r] = vld1q_f32(self.biases.as_ptr().add(r * self.n_fours + i).cast());
            }
            biases[r] = vfmaq_n_f32(biases[r], scales[r], offset);
        }
        [scales, biases]
    }
}

/// Writes as many as `out` has places for.
#[inline]
fn widen<S: Scale>(values: &[S], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_f32();
    }
}

/// Writes four rows as columns.
#[inline]
#[target_feature(enable = "neon")]
fn put_columns(out: &mut [[f32; R]; 4], [a, b, c, d]: [float32x4_t; R]) {
    // SAFETY: sixteen numbers.
    unsafe { vst4q_f32(out.as_flattened_mut().as_mut_ptr(), float32x4x4_t(a, b, c, d)) }
}

/// Four rows of weights that meet rows of activations from `m` on.
struct Tile {
    /// Where the first of the chunks is.
    w: [*const u8; R],
    chunks: Range<usize>,
    /// The chunk that scales start with.
    first: usize,
    m: usize,
}

impl Tile {
    /// Adds the products with `T` rows of activations, but for the biases. `BOTH` says that the scales
    /// are those of the activations, too; for the other two see [`dots`].
    ///
    /// # Safety
    /// `U::READS` bytes are there of each chunk, `chunks` and `T` rows from `m` on are in the
    /// activations, and `scales` has all groups of the chunks.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add<
        U: Unpack,
        const SPLIT: bool,
        const PAIRED: bool,
        const BOTH: bool,
        const T: usize,
    >(
        self,
        x: &Activations,
        scales: &[[f32; R]],
        sums: &mut [float32x4_t; T],
    ) {
        let Tile { mut w, chunks, first, m } = self;
        let (n_halves, n_pairs) = (1 + usize::from(SPLIT), 1 + usize::from(PAIRED));
        let (k_padded, groups_padded) = (x.k_padded, x.groups_padded);
        // A power of two.
        let shift = x.group_size.trailing_zeros();
        let mut totals = *sums;
        // SAFETY: the caller's promise.
        unsafe {
            let mut q = x.q.as_ptr().add(m * k_padded + chunks.start * CHUNK);
            let x_scales = x.scales.as_ptr().add(m * groups_padded);
            for c in chunks {
                // Not loops, here and below: the compiler would keep them, and what they make in memory.
                let weights = [U::unpack(w[0]), U::unpack(w[1]), U::unpack(w[2]), U::unpack(w[3])];
                w = w.map(|w| w.add(U::BYTES));
                let scales = scales.as_ptr().add(((c - first) * CHUNK) >> shift);
                let x_scales = x_scales.add((c * CHUNK) >> shift);
                macro_rules! meet {
                    ($($t:expr),*) => {$(
                        if $t < T {
                            let x = load(q.add($t * k_padded));
                            let x_scales = x_scales.add($t * groups_padded);
                            let dots = dots::<SPLIT, PAIRED>(&weights, &x);
                            for half in 0..n_halves {
                                for pair in 0..n_pairs {
                                    let g = half * n_pairs + pair;
                                    let mut scale = vld1q_f32(scales.add(g).cast());
                                    if !BOTH {
                                        scale = vmulq_n_f32(scale, *x_scales.add(g));
                                    }
                                    let dot = vcvtq_f32_s32(dots[half][pair]);
                                    totals[$t] = vfmaq_f32(totals[$t], dot, scale);
                                }
                            }
                        }
                    )*};
                }
                meet!(0, 1, 2, 3);
                q = q.add(CHUNK);
            }
        }
        *sums = totals;
    }
}

/// Sums of the products of a chunk, the rows of weights in the lanes, for each of its groups.
///
/// `SPLIT` says that even registers belong to other groups than odd ones, `PAIRED` that the lower two
/// lanes of a register do to another than the upper two. The sums of even registers come first where
/// they are apart, and those of lower lanes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots<const SPLIT: bool, const PAIRED: bool>(w: &[Chunk; R], x: &Chunk) -> [[int32x4_t; 2]; 2] {
    let zero = vdupq_n_s32(0);
    let (mut even, mut odd) = ([zero; R], [zero; R]);
    for r in 0..R {
        even[r] = sdot(sdot(zero, w[r][0], x[0]), w[r][2], x[2]);
        let start = if SPLIT { zero } else { even[r] };
        odd[r] = sdot(sdot(start, w[r][1], x[1]), w[r][3], x[3]);
    }
    let odd = in_lanes::<PAIRED>(odd);
    if SPLIT { [in_lanes::<PAIRED>(even), odd] } else { [odd, [zero; 2]] }
}

/// The sums of each of four registers, or those of their lower and their upper halves.
#[inline]
#[target_feature(enable = "neon")]
fn in_lanes<const PAIRED: bool>([a, b, c, d]: [int32x4_t; R]) -> [int32x4_t; 2] {
    let (low, high) = (vpaddq_s32(a, b), vpaddq_s32(c, d));
    if PAIRED {
        [vuzp1q_s32(low, high), vuzp2q_s32(low, high)]
    } else {
        [vpaddq_s32(low, high), vdupq_n_s32(0)]
    }
}

/// Adds the products of sixteen bytes, fours of neighbours to each lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers alone, and the CPU has the instruction, whose intrinsic is not stable.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
