//! Rotation of pairs of elements by angles that grow with the position.
//!
//! Frequencies and angles are MLX's on a CPU, float32 step by step: at far positions another
//! rounding of a frequency is another angle. Sines, cosines and the rotation are rounded once.

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::rows::{for_each, rows_per_part};

/// Returns `base ** (-i / n)` for each `i` below `n`.
pub(crate) fn frequencies(isa: Isa, base: f32, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    let step = base.ln() / n as f32;
    out.iter_mut().enumerate().for_each(|(i, out)| *out = -(i as f32) * step);
    exp_of_mlx(isa, &mut out);
    out
}

multiversion! { fn exp_of_mlx[] = exp_of_mlx_body(x: &mut [f32]) }

/// Does the steps of MLX's own exponential.
#[inline(always)]
fn exp_of_mlx_body<S: Level>(x: &mut [f32]) {
    for x in x {
        let y = *x * 1.442_695;
        let whole = (y + 0.5).floor();
        let y = y - whole;
        let mut p = 1.535_336_2e-4f32;
        p = p.mul_add(y, 1.339_887_4e-3);
        p = p.mul_add(y, 9.618_437e-3);
        p = p.mul_add(y, 5.550_332_5e-2);
        p = p.mul_add(y, 0.240_226_48);
        p = p.mul_add(y, 0.693_147_2);
        p = p.mul_add(y, 1.0);
        let power = f32::from_bits(((whole as i32).wrapping_add(127) as u32) << 23);
        let result = power * p;
        let result = if *x > 88.0 { f32::INFINITY } else { result };
        *x = if *x < -88.0 { 0.0 } else { result };
    }
}

/// The positions that a table of angles has rows for, the first of them and a factor on all.
#[derive(Clone, Copy)]
pub(crate) struct Positions {
    pub(crate) offset: f32,
    pub(crate) n: usize,
    pub(crate) scale: f32,
}

/// Fills a table of one row for each position: the cosines of its angles, then the sines, each
/// times `magnitude`.
pub(crate) fn fill_table(
    isa: Isa,
    frequencies: &[f32],
    positions: Positions,
    magnitude: f32,
    table: &mut [f32],
) {
    let dims = 2 * frequencies.len();
    // An angle costs as much as some ten rotations.
    let step = rows_per_part(positions.n, 16 * dims);
    for_each(table.chunks_mut(step * dims).enumerate(), |(part, table)| {
        fill_rows(isa, frequencies, positions, part * step, magnitude, table);
    });
}

multiversion! {
    fn fill_rows[] = fill_rows_body(
        frequencies: &[f32],
        positions: Positions,
        first: usize,
        magnitude: f32,
        table: &mut [f32],
    )
}

#[inline(always)]
fn fill_rows_body<S: Level>(
    frequencies: &[f32],
    positions: Positions,
    first: usize,
    magnitude: f32,
    table: &mut [f32],
) {
    let half = frequencies.len();
    for (i, row) in table.chunks_exact_mut(2 * half).enumerate() {
        let position = ((first + i) as f32 + positions.offset) * positions.scale;
        let (cos, sin) = row.split_at_mut(half);
        for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
            let (s, c) = sin_cos(position * frequency);
            (*cos, *sin) = (c * magnitude, s * magnitude);
        }
    }
}

/// Returns sine and cosine, rounded from float64 arithmetic; polynomials of FreeBSD's `k_sinf` and
/// `k_cosf`.
#[inline(always)]
fn sin_cos(x: f32) -> (f32, f32) {
    /// Adding it to a float64 of less than 2⁵¹ rounds to an integer, held in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // π/2 in two parts, of which the first times 20 bits is exact.
    const HIGH: f64 = 1.570_796_326_734_125_6;
    const LOW: f64 = 6.077_100_506_506_192e-11;
    let x = f64::from(x);
    let rounded = x * std::f64::consts::FRAC_2_PI + ROUND;
    let quarters = rounded - ROUND;
    let r = (x - quarters * HIGH) - quarters * LOW;
    let z = r * r;
    let s = (2.718_311_493_989_822e-6 * z - 1.983_933_483_609_663_2e-4) * z;
    let s = r + r * z * ((s + 8.333_329_385_889_463e-3) * z - 0.166_666_666_416_265_24);
    let c = (2.439_044_879_627_774e-5 * z - 1.388_676_377_460_993e-3) * z;
    let c = 1.0 + z * ((c + 4.166_662_332_373_906_4e-2) * z - 0.499_999_997_251_031);
    let turns = rounded.to_bits();
    let (sin, cos) = if turns & 1 == 1 { (c, s) } else { (s, c) };
    let sin = f64::from_bits(sin.to_bits() ^ ((turns & 2) << 62));
    let cos = f64::from_bits(cos.to_bits() ^ ((turns.wrapping_add(1) & 2) << 62));
    (sin as f32, cos as f32)
}

/// How [`rope`] finds what belongs to a row of `x: [B, H, L, D]`.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// `D`
    pub(crate) d: usize,
    /// Leading elements of a row that are rotated.
    pub(crate) dims: usize,
    /// `L`
    pub(crate) length: usize,
    /// `H`
    pub(crate) heads: usize,
    /// Whether the table has `L` rows for each batch row, or `L` for all.
    pub(crate) by_batch: bool,
    /// Pairs neighbours instead of halves.
    pub(crate) traditional: bool,
}

/// Rotates the rows of `x` by the angles of the table.
pub(crate) fn rope<T: Float>(isa: Isa, x: &[T], layout: Layout, table: &[f32], out: &mut [T]) {
    let d = layout.d;
    if x.is_empty() {
        return;
    }
    let step = rows_per_part(x.len() / d, d);
    let parts = x.chunks(step * d).zip(out.chunks_mut(step * d)).enumerate();
    for_each(parts, |(part, (x, out))| rope_rows(isa, x, layout, part * step, table, out));
}

multiversion! {
    fn rope_rows[T: Float] = rope_body(
        x: &[T],
        layout: Layout,
        first: usize,
        table: &[f32],
        out: &mut [T],
    )
}

#[inline(always)]
fn rope_body<S: Level, T: Float>(
    x: &[T],
    layout: Layout,
    first: usize,
    table: &[f32],
    out: &mut [T],
) {
    let Layout { d, dims, length, heads, by_batch, traditional } = layout;
    for (i, (x, out)) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        let row = first + i;
        let batch = if by_batch { row / (heads * length) } else { 0 };
        let at = (batch * length + row % length) * dims;
        rotate_row::<S, T>(x, &table[at..at + dims], traditional, out);
    }
}

/// Rotates the leading elements of a row, as many as the table's row has, and copies the rest.
#[inline(always)]
pub(super) fn rotate_row<S: Level, T: Float>(
    x: &[T],
    table: &[f32],
    traditional: bool,
    out: &mut [T],
) {
    let (cos, sin) = table.split_at(table.len() / 2);
    let ((x, x_rest), (out, out_rest)) = (x.split_at(table.len()), out.split_at_mut(table.len()));
    if traditional {
        rotate_neighbours::<S, T>(x, cos, sin, out);
    } else {
        rotate_halves::<S, T>(x, cos, sin, out);
    }
    out_rest.copy_from_slice(x_rest);
}

#[inline(always)]
fn rotate_neighbours<S: Level, T: Float>(x: &[T], cos: &[f32], sin: &[f32], out: &mut [T]) {
    let (x, out) = (x.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
    for (((out, x), &cos), &sin) in out.iter_mut().zip(x).zip(cos).zip(sin) {
        let (a, b) = rotate::<S>(x[0].to_f32(), x[1].to_f32(), cos, sin);
        *out = [T::from_f32(a), T::from_f32(b)];
    }
}

#[inline(always)]
fn rotate_halves<S: Level, T: Float>(x: &[T], cos: &[f32], sin: &[f32], out: &mut [T]) {
    let half = cos.len();
    let ((x1, x2), (out1, out2)) = (x.split_at(half), out.split_at_mut(half));
    let (x, out) = (x1.iter().zip(x2), out1.iter_mut().zip(out2));
    for (((out, x), &cos), &sin) in out.zip(x).zip(cos).zip(sin) {
        let (a, b) = rotate::<S>(x.0.to_f32(), x.1.to_f32(), cos, sin);
        (*out.0, *out.1) = (T::from_f32(a), T::from_f32(b));
    }
}

#[inline(always)]
fn rotate<S: Level>(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (S::fma(a, cos, -(b * sin)), S::fma(a, sin, b * cos))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::{cases, most};

    #[test]
    fn sines_are_rounded_from_float64() {
        for i in -400_000..400_000 {
            let x = if i % 2 == 0 { i as f32 * 0.37 } else { i as f32 * 1e-5 };
            let (sin, cos) = sin_cos(x);
            let (s, c) = f64::from(x).sin_cos();
            for (ours, expected) in [(sin, s), (cos, c)] {
                assert!(
                    (f64::from(ours) - expected).abs() <= 6.1e-8 * expected.abs() + 1e-10,
                    "{x}"
                );
            }
        }
        let (sin, cos) = sin_cos(f32::INFINITY);
        assert!(sin.is_nan() && cos.is_nan());
    }

    #[test]
    fn frequencies_are_powers() {
        for isa in Isa::available() {
            for (base, n) in [(10_000.0f32, 64), (500_000.0, 32), (1.0, 3), (100.0, 1)] {
                for (i, frequency) in frequencies(isa, base, n).into_iter().enumerate() {
                    let expected = f64::from(base).powf(-(i as f64) / n as f64);
                    assert!((f64::from(frequency) - expected).abs() <= 2e-6 * expected);
                }
            }
        }
    }

    /// The definition, on a row.
    fn spec(x: &[f64], traditional: bool, angles: &[f64]) -> Vec<f64> {
        let mut out = x.to_vec();
        for (i, angle) in angles.iter().enumerate() {
            let (a, b) = match traditional {
                true => (2 * i, 2 * i + 1),
                false => (i, i + angles.len()),
            };
            out[a] = x[a] * angle.cos() - x[b] * angle.sin();
            out[b] = x[a] * angle.sin() + x[b] * angle.cos();
        }
        out
    }

    fn check<T: Float>(batch: usize, layout: Layout, values: &[f32], bound: f64) {
        let Layout { d, dims, length, heads, by_batch, traditional } = layout;
        let n = batch * heads * length * d;
        let x: Vec<T> = (0..n).map(|i| T::from_f32(values[i * 7 % values.len()])).collect();
        for isa in Isa::available() {
            let inverse = frequencies(isa, 100.0, dims / 2);
            let n_tables = if by_batch { batch } else { 1 };
            let mut table = vec![0.0; n_tables * length * dims];
            for (b, table) in table.chunks_mut((length * dims).max(1)).enumerate() {
                let positions = Positions { offset: 5.0 + b as f32, n: length, scale: 0.5 };
                fill_table(isa, &inverse, positions, 1.5, table);
            }
            let mut out = vec![T::default(); n];
            rope(isa, &x, layout, &table, &mut out);
            for (row, (x, out)) in x.chunks(d).zip(out.chunks(d)).enumerate() {
                let b = if by_batch { row / (heads * length) } else { 0 };
                let position = ((row % length) as f32 + 5.0 + b as f32) * 0.5;
                let angles: Vec<f64> =
                    inverse.iter().map(|&frequency| f64::from(position * frequency)).collect();
                let wide = x
                    .iter()
                    .enumerate()
                    .map(|(i, x)| f64::from(x.to_f32()) * if i < dims { 1.5 } else { 1.0 });
                let expected = spec(&wide.collect::<Vec<_>>(), traditional, &angles);
                for (out, expected) in out.iter().zip(expected) {
                    let out = f64::from(out.to_f32());
                    assert!((out - expected).abs() <= bound * expected.abs().max(1.0), "{row}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        #[test]
        fn agrees_with_float64(
            (batch, heads, length) in (0..3usize, 1..4usize, 0..6usize),
            (half, rest) in (1..most(40), 0..9usize),
            (traditional, by_batch) in (any::<bool>(), any::<bool>()),
            values in prop::collection::vec(-2.0..2.0f32, 100..200),
        ) {
            let dims = 2 * half;
            let layout = Layout { d: dims + rest, dims, length, heads, by_batch, traditional };
            check::<f32>(batch, layout, &values, 4e-6);
            check::<f16>(batch, layout, &values, 1e-3);
            check::<bf16>(batch, layout, &values, 5e-3);
        }
    }

    #[test]
    fn several_threads_agree_with_one() {
        let values: Vec<f32> = (0..997).map(|i| (i as f32 * 0.7).sin()).collect();
        let layout =
            Layout { d: 64, dims: 64, length: 200, heads: 5, by_batch: true, traditional: false };
        check::<f32>(2, layout, &values, 4e-6);
    }
}
