//! Products with several rows of activations.
//!
//! Rows of weights are unpacked, and fours of their bytes brought together that meet the same activations.
//! A lane is a row of weights then, so that nothing is added across lanes, and a group's conversion,
//! factor and addition serve sixteen rows:
//!
//! ```text
//! row 0   a0 a1 a2 a3 | a4 …           a0 a1 a2 a3 | b0 b1 b2 b3 | … | p0 p1 p2 p3   × x0 x1 x2 x3, …
//! row 1   b0 b1 b2 b3 | b4 …     →     a4 a5 a6 a7 | b4 b5 b6 b7 | … | p4 p5 p6 p7   × x4 x5 x6 x7, …
//! …                                    …
//! ```
//!
//! Activations stay as they are: four of them are broadcast from memory.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Kernel, LANES, first_lanes};
use crate::kernels::compute::quantized::{Activations, CHUNK, Out, Rows, Scale};

/// Rows of activations from which on the panels are worth making.
pub(in crate::kernels::compute::quantized) const LEAST_ROWS: usize = 4;

/// Vectors of rows that share what is read of activations.
const V: usize = 2;

/// Rows of weights in a panel.
pub(in crate::kernels::compute::quantized) const PANEL: usize = V * LANES;

/// Rows of activations of a tile: sums of as many are enough not to wait for one another.
const ROWS: usize = 8;

/// Weights of a row that are unpacked at once: the panel stays in the first-level cache, half of which
/// it takes, while rows of activations pass.
const BLOCK: usize = 8 * CHUNK;

/// Fours of weights in a chunk.
const FOURS: usize = CHUNK / 4;

/// Some rows of weights, from `ks.start` to `ks.end`.
struct Panel {
    /// `[fours, V]`, in the order of `order`.
    weights: Vec<__m512i>,
    /// `[groups]`
    scales: Vec<[f32; PANEL]>,
    /// As `scales`.
    biases: Vec<[f32; PANEL]>,
    /// Where the chunk's fours are in the format's order, those of one group behind one another; in
    /// groups of 128, the fours of two chunks.
    order: Vec<usize>,
    group_size: usize,
    ks: Range<usize>,
}

/// # Safety
/// As [`matmul`](super::matmul).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let n_groups = BLOCK / w.group_size;
    let mut panel = Panel {
        weights: vec![_mm512_setzero_si512(); BLOCK / CHUNK * FOURS * V],
        scales: vec![[0.0; PANEL]; n_groups],
        biases: vec![[0.0; PANEL]; n_groups],
        order: (0..FOURS.max(w.group_size / 4)).collect(),
        group_size: w.group_size,
        ks: 0..0,
    };
    if w.group_size < CHUNK {
        panel.order.sort_by_key(|four| w.lanes[four % w.lanes.len()]);
    }
    for n in rows.clone().step_by(PANEL) {
        let ns = n..(n + PANEL).min(rows.end);
        for start in (0..w.k).step_by(BLOCK) {
            panel.ks = start..(start + BLOCK).min(w.k);
            // SAFETY: the caller's promise; tiles stay within the rows of activations.
            unsafe {
                panel.fill(kernel, w, ns.clone());
                let mut m = 0;
                while m < x.n_rows {
                    m += match (x.n_rows - m, ns.len() <= LANES) {
                        (ROWS.., false) => panel.tile::<V, ROWS>(x, m, ns.clone(), out),
                        (4.., false) => panel.tile::<V, 4>(x, m, ns.clone(), out),
                        (_, false) => panel.tile::<V, 1>(x, m, ns.clone(), out),
                        (ROWS.., true) => panel.tile::<1, ROWS>(x, m, ns.clone(), out),
                        (_, true) => panel.tile::<1, 1>(x, m, ns.clone(), out),
                    }
                }
            }
        }
    }
}

impl Panel {
    /// Takes the rows `ns` of a weight. Where there are fewer than a panel has, what is in their place is
    /// not written to the result.
    ///
    /// # Safety
    /// They are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn fill<S: Scale>(&mut self, kernel: &Kernel, w: &Rows<'_, S>, ns: Range<usize>) {
        let groups = self.ks.start / w.group_size..self.ks.end / w.group_size;
        let (mut scales, mut biases) = ([0.0; BLOCK / 16], [0.0; BLOCK / 16]);
        for (r, n) in ns.clone().enumerate() {
            w.factors(n, groups.clone(), kernel.offset, &mut scales, &mut biases);
            for g in 0..groups.len() {
                self.scales[g][r] = scales[g];
                self.biases[g][r] = biases[g];
            }
        }
        for (c, k) in self.ks.clone().step_by(CHUNK).enumerate() {
            let mask = kernel.mask(self.ks.end - k);
            for (v, n) in ns.clone().step_by(LANES).enumerate() {
                let mut bytes = [_mm512_setzero_si512(); LANES];
                let bytes_of_rows = &mut bytes[..(ns.end - n).min(LANES)];
                let packed = &w.packed[n * w.row_bytes + k / CHUNK * kernel.bytes..];
                // SAFETY: rows to `ns.end` are there, and of the chunk as many bytes as the mask has.
                unsafe { (kernel.unpack)(packed.as_ptr(), w.row_bytes, mask, bytes_of_rows) };
                transpose(&mut bytes);
                for i in 0..FOURS {
                    let from = self.order[c * FOURS % self.order.len() + i] % FOURS;
                    self.weights[(c * FOURS + i) * V + v] = bytes[from];
                }
            }
        }
    }

    /// Writes the products of `W` vectors of rows with the `T` rows of activations from `m` on, or adds
    /// them to those of the blocks before, and returns `T`.
    ///
    /// # Safety
    /// So many rows are there, and no other thread has columns `ns` of the result.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tile<const W: usize, const T: usize>(
        &self,
        x: &Activations,
        m: usize,
        ns: Range<usize>,
        out: &Out,
    ) -> usize {
        let per_group = self.group_size / 4;
        let first_group = self.ks.start / self.group_size;
        let x_factors = m * x.groups_padded + first_group;
        let (x_scales, x_sums) = (&x.scales[x_factors..], &x.sums[x_factors..]);
        let mut weights = self.weights.as_ptr();
        let mut sums = [[_mm512_setzero_ps(); W]; T];
        // SAFETY: activations are read up to `ks.end`, weights as `fill` wrote them, and masks have the
        // lanes that `ns` has.
        unsafe {
            let mut q = [x.q.as_ptr().add(m * x.k_padded + self.ks.start); T];
            for t in 0..T {
                q[t] = q[t].add(t * x.k_padded);
            }
            for g in 0..self.ks.len() / self.group_size {
                let four = g * per_group;
                let order = &self.order[four % self.order.len()..][..per_group];
                let chunk = four / self.order.len() * self.order.len();
                let mut dots = [[_mm512_setzero_si512(); W]; T];
                for i in order {
                    let mut bytes = [_mm512_setzero_si512(); W];
                    for v in 0..W {
                        bytes[v] = _mm512_load_si512(weights.add(v));
                    }
                    weights = weights.add(V);
                    for t in 0..T {
                        let x = q[t].add((chunk + i) * 4).cast::<i32>();
                        let x = _mm512_set1_epi32(x.read_unaligned());
                        for v in 0..W {
                            dots[t][v] = _mm512_dpbusd_epi32(dots[t][v], bytes[v], x);
                        }
                    }
                }
                for t in 0..T {
                    let x_scale = _mm512_set1_ps(x_scales[t * x.groups_padded + g]);
                    let x_sum = _mm512_set1_ps(x_sums[t * x.groups_padded + g]);
                    for v in 0..W {
                        let scale = _mm512_loadu_ps(self.scales[g][v * LANES..].as_ptr());
                        let bias = _mm512_loadu_ps(self.biases[g][v * LANES..].as_ptr());
                        let dot = _mm512_cvtepi32_ps(dots[t][v]);
                        let sum = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, x_scale), sums[t][v]);
                        sums[t][v] = _mm512_fmadd_ps(bias, x_sum, sum);
                    }
                }
            }
            for t in 0..T {
                for v in 0..W {
                    let n = ns.start + v * LANES;
                    let mask = first_lanes(ns.end - n);
                    let out = out.data.add((m + t) * out.n + (n - out.first));
                    let sum = match self.ks.start {
                        0 => sums[t][v],
                        _ => _mm512_add_ps(sums[t][v], _mm512_maskz_loadu_ps(mask, out)),
                    };
                    _mm512_mask_storeu_ps(out, mask, sum);
                }
            }
        }
        T
    }
}

/// Makes rows of 32-bit lanes columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn transpose(x: &mut [__m512i; LANES]) {
    // Each step exchanges what is at odd places in one of two with what is at even ones in the other, in
    // units of 1, 2, 4 and 8 lanes.
    let mut y = *x;
    for i in 0..LANES / 2 {
        let (a, b) = (x[2 * i], x[2 * i + 1]);
        y[2 * i] = _mm512_unpacklo_epi32(a, b);
        y[2 * i + 1] = _mm512_unpackhi_epi32(a, b);
    }
    // Of four rows: columns 0 and 1 of each quarter, 2 and 3.
    for i in 0..LANES / 4 {
        for j in 0..2 {
            let (a, b) = (y[4 * i + j], y[4 * i + j + 2]);
            x[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            x[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // Quarters of `x[4 * i + j]` are columns `j`, `4 + j`, `8 + j`, `12 + j` of four rows from `4 * i` on.
    for j in 0..4 {
        let [a, b, c, d] = [x[j], x[4 + j], x[8 + j], x[12 + j]];
        let (ab_low, ab_high) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
        );
        let (cd_low, cd_high) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        );
        y[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low);
        y[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high);
        y[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low);
        y[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high);
    }
    *x = y;
}
