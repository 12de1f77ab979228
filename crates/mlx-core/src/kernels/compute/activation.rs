//! Gated activations: a function of one array times another.

use super::Float;
use super::exp::{normal_cdf, sigmoid};
use super::isa::{Isa, Level, multiversion};
use super::rows::{for_each, rows_per_part};

/// The function that [`nn::gated`](crate::nn::gated) applies to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GatedActivation {
    /// [`nn::silu`](crate::nn::silu), as in SwiGLU.
    Silu,
    /// [`nn::gelu`](crate::nn::gelu).
    Gelu,
    /// [`nn::gelu_approx`](crate::nn::gelu_approx), as in GeGLU.
    GeluApprox,
    /// [`nn::gelu_fast_approx`](crate::nn::gelu_fast_approx).
    GeluFastApprox,
    /// [`nn::relu`](crate::nn::relu).
    Relu,
    /// [`nn::relu2`](crate::nn::relu2).
    Relu2,
    /// [`nn::sigmoid`](crate::nn::sigmoid), as in the first gated linear unit.
    Sigmoid,
    /// That of gpt-oss: `gate * sigmoid(1.702 * gate) * (x + 1)` after `gate` is bounded by 7 from above
    /// and `x` by 7 from both sides (OpenAI's gpt-oss, `torch/model.py`).
    ClampedSwiglu,
}

impl GatedActivation {
    /// All of them.
    pub const ALL: [GatedActivation; 8] = [
        GatedActivation::Silu,
        GatedActivation::Gelu,
        GatedActivation::GeluApprox,
        GatedActivation::GeluFastApprox,
        GatedActivation::Relu,
        GatedActivation::Relu2,
        GatedActivation::Sigmoid,
        GatedActivation::ClampedSwiglu,
    ];

    /// Limit and slope of [`GatedActivation::ClampedSwiglu`].
    pub(crate) const CLAMPED_SWIGLU: (f32, f32) = (7.0, 1.702);
}

/// Writes `function(a) * b`, or what else the function says, computed in float32 and rounded once.
pub(crate) fn gated<T: Float>(
    isa: Isa,
    function: GatedActivation,
    a: &[T],
    b: &[T],
    out: &mut [T],
) {
    let step = rows_per_part(out.len(), 1);
    let inputs = a.chunks(step).zip(b.chunks(step));
    for_each(inputs.zip(out.chunks_mut(step)), |((a, b), out)| {
        gated_part(isa, function, a, b, out);
    });
}

multiversion! {
    pub(super) fn gated_part[T: Float] = gated_body(function: GatedActivation, a: &[T], b: &[T], out: &mut [T])
}

#[inline(always)]
fn gated_body<S: Level, T: Float>(function: GatedActivation, a: &[T], b: &[T], out: &mut [T]) {
    // As √(2/π) and its product with 0.044715, twice each.
    const LINEAR: f32 = 1.595_769_1;
    const CUBIC: f32 = 0.071_354_814;
    match function {
        GatedActivation::Silu => apply(a, b, out, |x| x * sigmoid::<S>(x)),
        GatedActivation::Gelu => apply(a, b, out, |x| x * normal_cdf::<S>(x)),
        // (1 + tanh(y)) / 2 = sigmoid(2y)
        GatedActivation::GeluApprox => {
            apply(a, b, out, |x| x * sigmoid::<S>(x * S::fma(x * x, CUBIC, LINEAR)));
        }
        GatedActivation::GeluFastApprox => apply(a, b, out, |x| x * sigmoid::<S>(1.702 * x)),
        GatedActivation::Relu => apply(a, b, out, relu),
        GatedActivation::Relu2 => apply(a, b, out, |x| relu(x) * relu(x)),
        GatedActivation::Sigmoid => apply(a, b, out, |x| sigmoid::<S>(x)),
        GatedActivation::ClampedSwiglu => {
            let (limit, slope) = GatedActivation::CLAMPED_SWIGLU;
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                let (a, b) = (at_most(a.to_f32(), limit), at_most(b.to_f32(), limit));
                let b = if b < -limit { -limit } else { b };
                *out = T::from_f32(a * sigmoid::<S>(slope * a) * (b + 1.0));
            }
        }
    }
}

/// Leaves a NaN as it is.
#[inline(always)]
fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

/// Leaves a NaN as it is.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn apply<T: Float>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(f32) -> f32) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = T::from_f32(f(a.to_f32()) * b.to_f32());
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::cases;

    fn spec(function: GatedActivation, x: f64, b: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        b * match function {
            GatedActivation::Silu => x * sigmoid(x),
            GatedActivation::Gelu => x * sigmoid_of_normal(x),
            GatedActivation::GeluApprox => {
                let y = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + y.tanh())
            }
            GatedActivation::GeluFastApprox => x * sigmoid(1.702 * x),
            GatedActivation::Relu => x.max(0.0),
            GatedActivation::Relu2 => x.max(0.0).powi(2),
            GatedActivation::Sigmoid => sigmoid(x),
            GatedActivation::ClampedSwiglu => {
                let x = x.min(7.0);
                return x * sigmoid(1.702 * x) * (b.clamp(-7.0, 7.0) + 1.0);
            }
        }
    }

    /// The normal distribution, by the power series around 0.
    fn sigmoid_of_normal(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    fn check<T: Float>(a: &[f32], b: &[f32], bound: f64) {
        let of = |x: &[f32]| -> Vec<T> { x.iter().map(|&x| T::from_f32(x)).collect() };
        let (a, b) = (of(a), of(b));
        for isa in Isa::available() {
            for function in GatedActivation::ALL {
                let mut out = vec![T::default(); a.len()];
                gated(isa, function, &a, &b, &mut out);
                for ((out, a), b) in out.iter().zip(&a).zip(&b) {
                    let (out, a, b) = (out.to_f32(), a.to_f32(), b.to_f32());
                    let expected = spec(function, a.into(), b.into());
                    let error = (f64::from(out) - expected).abs();
                    let scale = expected.abs().max(0.1 * f64::from(a * b).abs());
                    assert!(
                        error <= bound * scale.max(1e-3),
                        "{function:?}({a}) * {b}: {out}, {expected}"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        #[test]
        fn agree_with_float64(pairs in prop::collection::vec((-9.0..9.0f32, -9.0..9.0f32), 0..80)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            check::<f32>(&a, &b, 3e-6);
            check::<f16>(&a, &b, 1e-3);
            check::<bf16>(&a, &b, 5e-3);
        }
    }

    #[test]
    fn several_threads_agree_with_one() {
        let a: Vec<f32> = (0..70_001).map(|i| (i as f32 * 0.7).sin() * 5.0).collect();
        check::<f32>(&a, &a, 3e-6);
    }
}
