//! Products with several rows of activations.
//!
//! Four rows make a panel. The products of a chunk of weights with the four are sums in eight lanes
//! each; they are added across, two panels' worth of shuffles for four rows, into one vector whose
//! lanes are the rows, so that scales are applied, and sums kept, four rows at a time:
//!
//! ```text
//! a0 a1 a2 a3 | …      b, c, d alike      eight lanes; halves are of one group each
//! a  b  a  b  | …      c  d  c  d  | …    sums of two lanes
//! a  b  c  d  | …                         sums of four: times the weights' scale and those of a, b, c, d
//! ```

use std::arch::x86_64::*;
use std::ops::Range;

use super::unpack::Unpack;
use super::{pad, whole_chunks};
use crate::kernels::compute::quantized::{Activations, CHUNK, Out, Rows, Scale};

/// Rows of a panel.
const ROWS: usize = 4;

/// Panels and chunks of activations that stay in the first-level cache, half of which they take,
/// while rows of weights pass.
const BLOCK_PANELS: usize = 4;
const BLOCK_CHUNKS: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Chunk([i8; CHUNK]);

/// Rows of activations, four by four.
pub(in crate::kernels::compute::quantized) struct Panels {
    /// `[M / 4, chunks, 4]`
    q: Vec<Chunk>,
    /// `[M / 4, groups, 4]`, a group more than there are, so that two can be read.
    scales: Vec<[f32; ROWS]>,
    /// As `scales`.
    sums: Vec<[f32; ROWS]>,
    n_chunks: usize,
    n_groups: usize,
}

impl Panels {
    /// Returns `None` where halves of vectors have weights of several groups.
    pub(in crate::kernels::compute::quantized) fn new(x: &Activations) -> Option<Panels> {
        let lanes = x.format.lane_groups(x.group_size.min(CHUNK));
        let (low, high) = lanes.split_at(ROWS);
        if low.iter().any(|&g| g != low[0]) || high.iter().any(|&g| g != high[0]) {
            return None;
        }
        let (n_chunks, n_panels) = (x.k_padded / CHUNK, x.n_rows.div_ceil(ROWS));
        let n_groups = n_chunks * CHUNK.div_ceil(x.group_size) + 1;
        let mut panels = Panels {
            q: vec![Chunk([0; CHUNK]); n_panels * n_chunks * ROWS],
            scales: vec![[0.0; ROWS]; n_panels * n_groups],
            sums: vec![[0.0; ROWS]; n_panels * n_groups],
            n_chunks,
            n_groups,
        };
        for m in 0..x.n_rows {
            let (panel, lane) = (m / ROWS, m % ROWS);
            let q = x.q[m * x.k_padded..][..x.k_padded].as_chunks::<CHUNK>().0;
            for (c, q) in q.iter().enumerate() {
                panels.q[(panel * n_chunks + c) * ROWS + lane].0 = *q;
            }
            for g in 0..x.k / x.group_size {
                panels.scales[panel * n_groups + g][lane] = x.scales[m * x.groups_padded + g];
                panels.sums[panel * n_groups + g][lane] = x.sums[m * x.groups_padded + g];
            }
        }
        Some(panels)
    }
}

/// What depends on the format and on whether a chunk lies in one group: [`tile`] of as many panels as are
/// taken together, of two and of one.
pub(super) struct Kernel(SumTile<BLOCK_PANELS>, SumTile<2>, SumTile<1>);

impl Kernel {
    pub(super) fn new<U: Unpack, const WHOLE: bool>() -> Kernel {
        Kernel(tile::<U, WHOLE, BLOCK_PANELS>, tile::<U, WHOLE, 2>, tile::<U, WHOLE, 1>)
    }
}

/// [`tile`] of `P` panels.
type SumTile<const P: usize> =
    unsafe fn(&Panels, &Rows<'_, ()>, [usize; 2], Range<usize>, &[[f32; ROWS]]) -> [__m256; P];

/// Scales and biases of a row's groups, each as often as a panel has rows.
struct Factors {
    scales: Vec<[f32; ROWS]>,
    biases: Vec<[f32; ROWS]>,
}

/// # Safety
/// As [`matmul`](super::matmul); `panels` are those of `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul<S: Scale>(
    kernel: &Kernel,
    x: &Activations,
    panels: &Panels,
    w: &Rows<'_, S>,
    rows: Range<usize>,
    out: &Out,
) {
    let bare = w.bare();
    let n_panels = x.n_rows.div_ceil(ROWS);
    let n_chunks = x.k_padded / CHUNK;
    // A group more, as panels have.
    let room = BLOCK_CHUNKS * CHUNK.div_ceil(w.group_size) + 1;
    let zeros = || vec![[0.0f32; ROWS]; rows.len() * room];
    let mut all = Factors { scales: zeros(), biases: zeros() };
    let (mut scales, mut biases) = (vec![0.0f32; room], vec![0.0f32; room]);
    for first in (0..n_chunks).step_by(BLOCK_CHUNKS) {
        let chunks = first..(first + BLOCK_CHUNKS).min(n_chunks);
        let first_group = first * CHUNK / w.group_size;
        let groups = first_group..(chunks.end * CHUNK).div_ceil(w.group_size).min(w.n_groups());
        for (i, n) in rows.clone().enumerate() {
            w.factors(n, groups.clone(), w.format.offset(), &mut scales, &mut biases);
            for g in 0..room {
                all.scales[i * room + g] = [scales[g]; ROWS];
                all.biases[i * room + g] = [biases[g]; ROWS];
            }
        }
        let mut panel = 0;
        while panel < n_panels {
            macro_rules! columns {
                ($p:expr, $sums:expr) => {{
                    for (i, n) in rows.clone().enumerate() {
                        let scales = &all.scales[i * room..][..room];
                        let biases = &all.biases[i * room..][..groups.len()];
                        // SAFETY: so many panels are there, and `n` is a row.
                        unsafe {
                            let sums = $sums(panels, &bare, [n, panel], chunks.clone(), scales);
                            for p in 0..$p {
                                let x_sums = (panel + p) * panels.n_groups + first_group;
                                let sum = add_biases(sums[p], biases, &panels.sums[x_sums..]);
                                put(out, x.n_rows, (panel + p) * ROWS, n, first == 0, sum);
                            }
                        }
                    }
                    panel += $p;
                }};
            }
            match n_panels - panel {
                BLOCK_PANELS.. => columns!(BLOCK_PANELS, (kernel.0)),
                2.. => columns!(2, (kernel.1)),
                _ => columns!(1, (kernel.2)),
            }
        }
    }
}

/// Adds the products of biases with the sums of activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_biases(mut sum: __m256, biases: &[[f32; ROWS]], x_sums: &[[f32; ROWS]]) -> __m256 {
    let x_sums = &x_sums[..biases.len()];
    let ((b, b_rest), (x, x_rest)) = (biases.as_chunks::<2>(), x_sums.as_chunks::<2>());
    // SAFETY: arrays of the vectors' size are read.
    unsafe {
        for (b, x) in b.iter().zip(x) {
            let (b, x) = (_mm256_loadu_ps(b.as_ptr().cast()), _mm256_loadu_ps(x.as_ptr().cast()));
            sum = _mm256_fmadd_ps(b, x, sum);
        }
        if let ([b], [x]) = (b_rest, x_rest) {
            let product = _mm_mul_ps(_mm_loadu_ps(b.as_ptr()), _mm_loadu_ps(x.as_ptr()));
            sum = _mm256_add_ps(sum, _mm256_zextps128_ps256(product));
        }
    }
    sum
}

/// Writes a panel's products with row `n`, or adds them.
///
/// # Safety
/// `n` is in range.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn put(out: &Out, n_rows: usize, m: usize, n: usize, is_first: bool, sum: __m256) {
    let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let mut values = [0.0f32; ROWS];
    // SAFETY: an array of the vector's size is written; rows of the padding are left out.
    unsafe {
        _mm_storeu_ps(values.as_mut_ptr(), sum);
        for (m, value) in (m..n_rows).zip(values) {
            if is_first { out.set(m, n, value) } else { out.add(m, n, value) }
        }
    }
}

/// Returns the products of a row of weights with `P` panels, but for the biases: lanes are rows, in
/// either half.
///
/// # Safety
/// Panels and row are there.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<U: Unpack, const WHOLE: bool, const P: usize>(
    x: &Panels,
    w: &Rows<'_, ()>,
    [n, panel]: [usize; 2],
    chunks: Range<usize>,
    scales: &[[f32; ROWS]],
) -> [__m256; P] {
    let mut sums = [_mm256_setzero_ps(); P];
    // Groups of 128 have two chunks each, those of 32 are two to a chunk.
    let halves = (w.group_size / CHUNK).max(1).trailing_zeros();
    let groups_of = |c: usize| if WHOLE { c >> halves } else { 2 * c };
    let first_group = groups_of(chunks.start);
    let n_whole = whole_chunks::<U>(w, n).clamp(chunks.start, chunks.end);
    // SAFETY: chunks are within the row, or copied to where there is room; a group more than a chunk has
    // can be read of `scales` and of the panel's.
    unsafe {
        let q = x.q.as_ptr().add((panel * x.n_chunks) * ROWS);
        let x_scales = x.scales.as_ptr().add(panel * x.n_groups);
        let packed = w.packed.as_ptr().add(n * w.row_bytes);
        macro_rules! step {
            ($packed:expr, $c:expr) => {{
                let (c, g) = ($c, groups_of($c));
                let weights = U::unpack($packed);
                let scale = if WHOLE {
                    _mm256_broadcast_ss(&*scales.as_ptr().add(g - first_group).cast())
                } else {
                    _mm256_loadu_ps(scales.as_ptr().add(g - first_group).cast())
                };
                for p in 0..P {
                    let sum = four::<U>(weights, q.add((p * x.n_chunks + c) * ROWS));
                    let x_scales = x_scales.add(p * x.n_groups + g);
                    let x_scale = if WHOLE {
                        _mm256_broadcast_ps(&*x_scales.cast())
                    } else {
                        _mm256_loadu_ps(x_scales.cast())
                    };
                    let factor = _mm256_mul_ps(scale, x_scale);
                    sums[p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), factor, sums[p]);
                }
            }};
        }
        for c in chunks {
            if c >= n_whole || (U::BEFORE > 0 && n == 0 && c == 0) {
                let copy = pad::<U>(w, n, c);
                step!(copy.as_ptr().add(U::BEFORE), c);
            } else {
                step!(packed.add(c * U::BYTES), c);
            }
        }
    }
    sums
}

/// Returns the products of a chunk with four of activations, a lane for each, in either half.
///
/// # Safety
/// There are four chunks at `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn four<U: Unpack>(w: [__m256i; 2], x: *const Chunk) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let mut wide = [_mm256_setzero_si256(); ROWS];
    let magnitudes = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        let x = unsafe {
            let x = x.add(r).cast::<__m256i>();
            [_mm256_load_si256(x), _mm256_load_si256(x.add(1))]
        };
        let products = if U::IS_SIGNED {
            [
                _mm256_maddubs_epi16(magnitudes[0], _mm256_sign_epi8(x[0], w[0])),
                _mm256_maddubs_epi16(magnitudes[1], _mm256_sign_epi8(x[1], w[1])),
            ]
        } else {
            [_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1])]
        };
        wide[r] = match U::DOUBLINGS {
            0 => _mm256_add_epi32(
                _mm256_madd_epi16(products[0], ones),
                _mm256_madd_epi16(products[1], ones),
            ),
            1 => _mm256_madd_epi16(_mm256_add_epi16(products[0], products[1]), ones),
            _ => _mm256_add_epi16(products[0], products[1]),
        };
    }
    // From here on, lanes of 32 bits hold one sum of 32 bits or two of 16.
    macro_rules! add {
        ($least:expr, $a:expr, $b:expr) => {
            match U::DOUBLINGS >= $least {
                true => _mm256_add_epi16($a, $b),
                false => _mm256_add_epi32($a, $b),
            }
        };
    }
    macro_rules! pairs {
        ($a:expr, $b:expr) => {
            add!(2, _mm256_unpacklo_epi32($a, $b), _mm256_unpackhi_epi32($a, $b))
        };
    }
    let (ab, cd) = (pairs!(wide[0], wide[1]), pairs!(wide[2], wide[3]));
    let (ab, cd) = match U::DOUBLINGS {
        2 => (_mm256_madd_epi16(ab, ones), _mm256_madd_epi16(cd, ones)),
        _ => (ab, cd),
    };
    let sum = add!(3, _mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    if U::DOUBLINGS >= 3 { _mm256_madd_epi16(sum, ones) } else { sum }
}
