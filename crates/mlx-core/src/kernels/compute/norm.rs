//! Norms in one pass over each row, rounded where MLX's ops round.

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::rows::{fold, for_each, rows_per_part};

/// Scales each row of `x` to root mean square one, then by `weight`.
pub(crate) fn rms_norm<T: Float>(isa: Isa, x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    let d = weight.len();
    if d == 0 {
        return;
    }
    let step = d * rows_per_part(x.len() / d, d);
    for_each(x.chunks(step).zip(out.chunks_mut(step)), |(x, out)| {
        rms_norm_rows(isa, x, weight, eps, out);
    });
}

multiversion! {
    fn rms_norm_rows[T: Float] = rms_norm_body(x: &[T], weight: &[T], eps: f32, out: &mut [T])
}

#[inline(always)]
fn rms_norm_body<S: Level, T: Float>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    let d = weight.len();
    for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        scale_row::<S, T>(x, weight, eps, out);
    }
}

#[inline(always)]
pub(super) fn scale_row<S: Level, T: Float>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    let squares = fold(x, 0.0, |sum, x| S::fma(x, x, sum), |a, b| a + b);
    let scale = (squares / x.len() as f32 + eps).sqrt().recip();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        // Rounded to the element type before the weight, as MLX's own op is.
        let normed = T::from_f32(x.to_f32() * scale);
        *out = T::from_f32(normed.to_f32() * weight.to_f32());
    }
}

/// The slices of [`add_rms_norm`]: `sum = x + residual`, and `normed` its norm.
pub(crate) struct AddRmsNorm<'a, T> {
    pub(crate) x: &'a [T],
    pub(crate) residual: &'a [T],
    pub(crate) weight: &'a [T],
    pub(crate) eps: f32,
    pub(crate) sum: &'a mut [T],
    pub(crate) normed: &'a mut [T],
}

/// Adds two matrices and norms the rows of the sum as [`rms_norm`] does.
pub(crate) fn add_rms_norm<T: Float>(isa: Isa, slices: AddRmsNorm<'_, T>) {
    let AddRmsNorm { x, residual, weight, eps, sum, normed } = slices;
    let d = weight.len();
    if d == 0 {
        return;
    }
    let step = d * rows_per_part(x.len() / d, d);
    let inputs = x.chunks(step).zip(residual.chunks(step));
    let outputs = sum.chunks_mut(step).zip(normed.chunks_mut(step));
    for_each(inputs.zip(outputs), |((x, residual), (sum, normed))| {
        add_rms_norm_rows(isa, AddRmsNorm { x, residual, weight, eps, sum, normed });
    });
}

multiversion! {
    fn add_rms_norm_rows[T: Float] = add_rms_norm_body(slices: AddRmsNorm<'_, T>)
}

#[inline(always)]
fn add_rms_norm_body<S: Level, T: Float>(slices: AddRmsNorm<'_, T>) {
    let AddRmsNorm { x, residual, weight, eps, sum, normed } = slices;
    let d = weight.len();
    let inputs = x.chunks_exact(d).zip(residual.chunks_exact(d));
    let outputs = sum.chunks_exact_mut(d).zip(normed.chunks_exact_mut(d));
    for ((x, residual), (sum, normed)) in inputs.zip(outputs) {
        for ((sum, x), residual) in sum.iter_mut().zip(x).zip(residual) {
            *sum = T::from_f32(x.to_f32() + residual.to_f32());
        }
        scale_row::<S, T>(sum, weight, eps, normed);
    }
}

/// What [`layer_norm`] does to a row of `d` elements.
#[derive(Clone, Copy)]
pub(crate) struct LayerNorm<'a, T> {
    pub(crate) d: usize,
    pub(crate) weight: Option<&'a [T]>,
    pub(crate) bias: Option<&'a [T]>,
    pub(crate) eps: f32,
}

/// Normalizes each row of `x` to mean zero and variance one, then applies weight and bias.
pub(crate) fn layer_norm<T: Float>(isa: Isa, x: &[T], norm: LayerNorm<'_, T>, out: &mut [T]) {
    let d = norm.d;
    if d == 0 {
        return;
    }
    let step = d * rows_per_part(x.len() / d, d);
    for_each(x.chunks(step).zip(out.chunks_mut(step)), |(x, out)| {
        layer_norm_rows(isa, x, norm, out);
    });
}

multiversion! {
    fn layer_norm_rows[T: Float] = layer_norm_body(x: &[T], norm: LayerNorm<'_, T>, out: &mut [T])
}

#[inline(always)]
fn layer_norm_body<S: Level, T: Float>(x: &[T], norm: LayerNorm<'_, T>, out: &mut [T]) {
    let LayerNorm { d, weight, bias, eps } = norm;
    for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        let mean = fold(x, 0.0, |sum, x| sum + x, |a, b| a + b) / d as f32;
        let squares = fold(x, 0.0, |sum, x| S::fma(x - mean, x - mean, sum), |a, b| a + b);
        let scale = (squares / d as f32 + eps).sqrt().recip();
        for (out, x) in out.iter_mut().zip(x) {
            *out = T::from_f32((x.to_f32() - mean) * scale);
        }
        for (out, weight) in out.iter_mut().zip(weight.unwrap_or_default()) {
            *out = T::from_f32(out.to_f32() * weight.to_f32());
        }
        for (out, bias) in out.iter_mut().zip(bias.unwrap_or_default()) {
            *out = T::from_f32(out.to_f32() + bias.to_f32());
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::cases;

    fn check<T: Float>(ours: &[T], expected: &[f64], bound: f64) {
        assert_eq!(ours.len(), expected.len());
        for (i, (ours, expected)) in ours.iter().zip(expected).enumerate() {
            let ours = f64::from(ours.to_f32());
            assert!(
                (ours - expected).abs() <= bound * expected.abs().max(0.1),
                "{i}: {ours} {expected}"
            );
        }
    }

    /// Norms by the book: with `centred` a layer norm, else of the root mean square.
    fn spec<T: Float>(x: &[T], weight: &[T], bias: Option<&[T]>, centred: bool) -> Vec<f64> {
        let wide = |x: &T| f64::from(x.to_f32());
        let d = weight.len();
        let rows = x.chunks(d).flat_map(|row| {
            let mean = if centred { row.iter().map(wide).sum::<f64>() / d as f64 } else { 0.0 };
            let square = row.iter().map(|x| (wide(x) - mean).powi(2)).sum::<f64>() / d as f64;
            let scale = 1.0 / (square + f64::from(EPS)).sqrt();
            (0..d).map(move |i| {
                let bias = bias.map_or(0.0, |bias| wide(&bias[i]));
                (wide(&row[i]) - mean) * scale * wide(&weight[i]) + bias
            })
        });
        rows.collect()
    }

    const EPS: f32 = 1e-5;

    fn check_norms<T: Float>(rows: usize, d: usize, values: &[f32], bound: f64) {
        let of = |n: usize, shift: usize| -> Vec<T> {
            (0..n).map(|i| T::from_f32(values[(i * 7 + shift) % values.len()])).collect()
        };
        let (x, residual) = (of(rows * d, 0), of(rows * d, 3));
        let (weight, bias) = (of(d, 5), of(d, 1));
        for isa in Isa::available() {
            let mut out = vec![T::default(); rows * d];
            rms_norm(isa, &x, &weight, EPS, &mut out);
            check(&out, &spec(&x, &weight, None, false), bound);

            let mut sum = vec![T::default(); rows * d];
            let (weight, eps) = (&weight[..], EPS);
            let normed = &mut out[..];
            let slices =
                AddRmsNorm { x: &x, residual: &residual, weight, eps, sum: &mut sum, normed };
            add_rms_norm(isa, slices);
            for ((sum, x), residual) in sum.iter().zip(&x).zip(&residual) {
                let expected = T::from_f32(x.to_f32() + residual.to_f32());
                assert_eq!(sum.to_f32(), expected.to_f32());
            }
            check(&out, &spec(&sum, weight, None, false), bound);

            let norm = LayerNorm { d, weight: Some(weight), bias: Some(&bias), eps };
            layer_norm(isa, &x, norm, &mut out);
            // Rows of few elements that are nearly alike lose bits to the mean.
            check(&out, &spec(&x, weight, Some(&bias), true), 30.0 * bound);
            layer_norm(isa, &x, LayerNorm { weight: None, bias: None, ..norm }, &mut out);
            let ones = vec![T::from_f32(1.0); d];
            check(&out, &spec(&x, &ones, None, true), 30.0 * bound);
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        #[test]
        fn agree_with_float64(
            (rows, d) in (0..5usize, 1..150usize),
            values in prop::collection::vec(-4.0..4.0f32, 200..400),
        ) {
            check_norms::<f32>(rows, d, &values, 1e-6);
            check_norms::<f16>(rows, d, &values, 4e-3);
            check_norms::<bf16>(rows, d, &values, 3e-2);
        }
    }

    #[test]
    fn several_threads_agree_with_one() {
        let values: Vec<f32> = (0..997).map(|i| (i as f32 * 0.7).sin()).collect();
        check_norms::<f32>(300, 257, &values, 1e-6);
    }
}
