//! Softmax and the logarithm of a sum of exponentials, of rows, in float32.

use super::Float;
use super::exp::exp;
use super::isa::{Isa, Level, multiversion};
use super::rows::{fold, for_each, rows_per_part};

/// Writes the softmax of each row of `d` elements.
pub(crate) fn softmax<T: Float>(isa: Isa, x: &[T], d: usize, out: &mut [T]) {
    if d == 0 {
        return;
    }
    let step = d * rows_per_part(x.len() / d, d);
    for_each(x.chunks(step).zip(out.chunks_mut(step)), |(x, out)| softmax_rows(isa, x, d, out));
}

multiversion! { fn softmax_rows[T: Float] = softmax_body(x: &[T], d: usize, out: &mut [T]) }

#[inline(always)]
fn softmax_body<S: Level, T: Float>(x: &[T], d: usize, out: &mut [T]) {
    for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        let max = max(x);
        let scale = sum_exp::<S, T>(x, max).recip();
        for (out, x) in out.iter_mut().zip(x) {
            *out = T::from_f32(exp::<S>(x.to_f32() - max) * scale);
        }
    }
}

/// Writes `log(Σ exp(x))` of each row of `d` elements.
pub(crate) fn logsumexp<T: Float>(isa: Isa, x: &[T], d: usize, out: &mut [T]) {
    if d == 0 {
        return out.fill(T::from_f32(f32::NEG_INFINITY));
    }
    let step = rows_per_part(out.len(), d);
    for_each(x.chunks(d * step).zip(out.chunks_mut(step)), |(x, out)| {
        logsumexp_rows(isa, x, d, out);
    });
}

multiversion! { fn logsumexp_rows[T: Float] = logsumexp_body(x: &[T], d: usize, out: &mut [T]) }

#[inline(always)]
fn logsumexp_body<S: Level, T: Float>(x: &[T], d: usize, out: &mut [T]) {
    for (x, out) in x.chunks_exact(d).zip(out) {
        let max = max(x);
        // Beside an infinite maximum the differences are no numbers.
        let log = if max.is_infinite() { max } else { sum_exp::<S, T>(x, max).ln() + max };
        *out = T::from_f32(log);
    }
}

#[inline(always)]
fn max<T: Float>(row: &[T]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    fold(row, f32::NEG_INFINITY, greater, greater)
}

#[inline(always)]
fn sum_exp<S: Level, T: Float>(row: &[T], max: f32) -> f32 {
    fold(row, 0.0, |sum, x| sum + exp::<S>(x - max), |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::cases;

    fn check<T: Float>(values: &[f32], rows: usize, d: usize, bound: f64) {
        let x: Vec<T> = (0..rows * d).map(|i| T::from_f32(values[i * 3 % values.len()])).collect();
        for isa in Isa::available() {
            let mut probs = vec![T::default(); rows * d];
            let mut logs = vec![T::default(); rows];
            softmax(isa, &x, d, &mut probs);
            logsumexp(isa, &x, d, &mut logs);
            for ((x, probs), log) in x.chunks(d).zip(probs.chunks(d)).zip(&logs) {
                let wide = |x: &T| f64::from(x.to_f32());
                let sum: f64 = x.iter().map(|x| wide(x).exp()).sum();
                for (x, p) in x.iter().zip(probs) {
                    let (p, expected) = (wide(p), wide(x).exp() / sum);
                    assert!((p - expected).abs() <= bound * expected.max(1e-4), "{p} {expected}");
                }
                let (log, expected) = (wide(log), sum.ln());
                assert!(
                    (log - expected).abs() <= bound * expected.abs().max(1.0),
                    "{log} {expected}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        #[test]
        fn agree_with_float64(
            (rows, d) in (0..4usize, 1..150usize),
            values in prop::collection::vec(-20.0..20.0f32, 200..400),
        ) {
            check::<f32>(&values, rows, d, 3e-6);
            check::<f16>(&values, rows, d, 1e-3);
            check::<bf16>(&values, rows, d, 5e-3);
        }
    }

    #[test]
    fn several_threads_agree_with_one() {
        let values: Vec<f32> = (0..997).map(|i| (i as f32 * 0.7).sin() * 5.0).collect();
        check::<f32>(&values, 300, 257, 3e-6);
    }

    #[test]
    fn infinities_and_nan_come_out() {
        for isa in Isa::available() {
            let (inf, mut out, mut log) = (f32::INFINITY, [0.0; 3], [0.0]);
            softmax(isa, &[-inf, 0.0, -inf], 3, &mut out);
            assert_eq!(out, [0.0, 1.0, 0.0]);
            for x in [[-inf; 3], [inf, 0.0, 1.0], [f32::NAN, 0.0, 1.0]] {
                softmax(isa, &x, 3, &mut out);
                assert!(out.iter().all(|p| p.is_nan()), "{x:?}: {out:?}");
            }
            for (x, expected) in [([-inf; 3], -inf), ([inf, 0.0, 1.0], inf)] {
                logsumexp(isa, &x, 3, &mut log);
                assert_eq!(log, [expected]);
            }
            logsumexp(isa, &[f32::NAN, 0.0, 1.0], 3, &mut log);
            assert!(log[0].is_nan());
        }
    }
}
