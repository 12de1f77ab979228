//! Exponentials and what is made of them, as arithmetic that loops over elements vectorise.

use super::isa::Level;

/// Adding it to a float32 of less than 2²² rounds to an integer, held in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Returns `eˣ` to 2 ulp, subnormal results included.
#[inline(always)]
pub(crate) fn exp<S: Level>(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite; comparisons leave a NaN as it is.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let rounded = S::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 in two parts, of which the first has so few bits that its product is exact.
    let r = S::fma(n, 2.121_944_4e-4, S::fma(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    p = S::fma(p, r, 1.398_2e-3);
    p = S::fma(p, r, 8.333_452e-3);
    p = S::fma(p, r, 4.166_579_6e-2);
    p = S::fma(p, r, 0.166_666_66);
    p = S::fma(p, r, 0.5);
    p = S::fma(p, r * r, r) + 1.0;
    // In two factors, as 2ⁿ alone may be no normal float.
    let n = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Returns `1 / (1 + e⁻ˣ)` to 3 ulp; 0 below -88.8, where that is no normal float.
#[inline(always)]
pub(crate) fn sigmoid<S: Level>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

/// Returns the share of the standard normal distribution below `x`, `(1 + erf(x / √2)) / 2`, to an
/// ulp of one.
///
/// Polynomials of N. Juffa's `erff`.
#[inline(always)]
pub(crate) fn normal_cdf<S: Level>(x: f32) -> f32 {
    let a = x * std::f32::consts::FRAC_1_SQRT_2;
    let (t, s) = (a.abs(), a * a);

    let high = S::fma(-1.728_534_7e-5, t, 3.831_972e-4);
    let low = S::fma(-3.883_964_4e-3, t, 2.425_462_2e-2);
    let mut tail = S::fma(high, s, low);
    tail = S::fma(tail, t, -0.106_777_88);
    tail = S::fma(tail, t, -0.634_846_7);
    tail = S::fma(tail, t, -0.128_717_51);
    tail = 0.5 * exp::<S>(S::fma(tail, t, -t));

    let mut centre = -5.967_617e-4;
    centre = S::fma(centre, s, 4.991_194e-3);
    centre = S::fma(centre, s, -2.676_813_5e-2);
    centre = S::fma(centre, s, 0.112_819_92);
    centre = S::fma(centre, s, -0.376_125_34);
    centre = S::fma(centre, s, 0.128_379_17);
    let erf = S::fma(centre, a, a);

    let outside = if x < 0.0 { tail } else { 1.0 - tail };
    if t > 0.927_734_4 { outside } else { S::fma(0.5, erf, 0.5) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::compute::Isa;
    use crate::kernels::compute::isa::multiversion;

    fn exp_body<S: Level>(x: f32) -> f32 {
        exp::<S>(x)
    }
    fn sigmoid_body<S: Level>(x: f32) -> f32 {
        sigmoid::<S>(x)
    }
    fn normal_cdf_body<S: Level>(x: f32) -> f32 {
        normal_cdf::<S>(x)
    }
    multiversion! { fn exp_of[] = exp_body(x: f32) -> f32 }
    multiversion! { fn sigmoid_of[] = sigmoid_body(x: f32) -> f32 }
    multiversion! { fn normal_cdf_of[] = normal_cdf_body(x: f32) -> f32 }

    fn ulp(x: f64) -> f64 {
        f64::from(f32::EPSILON) * x.abs().max(f64::from(f32::MIN_POSITIVE))
    }

    /// The integral of the density by Simpson's rule.
    fn normal_cdf_f64(x: f64) -> f64 {
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let n = 2000;
        let h = x / f64::from(n);
        let sum: f64 = (0..=n)
            .map(|i| {
                let weight = if i == 0 || i == n { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
                weight * density(f64::from(i) * h)
            })
            .sum();
        0.5 + sum * h / 3.0
    }

    #[test]
    fn agree_with_float64() {
        for isa in Isa::available() {
            for i in -40_000..=40_000 {
                let x = i as f32 * 0.002_6;
                let wide = f64::from(x);
                let (y, expected) = (f64::from(exp_of(isa, x)), wide.exp());
                if x < 88.7 {
                    assert!((y - expected).abs() <= 2.0 * ulp(expected), "exp({x}) = {y}");
                }
                let (y, expected) = (f64::from(sigmoid_of(isa, x)), 1.0 / (1.0 + (-wide).exp()));
                if x > -88.0 {
                    assert!((y - expected).abs() <= 3.0 * ulp(expected), "sigmoid({x}) = {y}");
                }
            }
            for i in -700..=700 {
                let x = i as f32 * 0.01;
                let (y, expected) = (f64::from(normal_cdf_of(isa, x)), normal_cdf_f64(x.into()));
                assert!((y - expected).abs() <= ulp(1.0), "Φ({x}) = {y}, {expected}");
            }
        }
    }

    #[test]
    fn have_limits() {
        for isa in Isa::available() {
            for big in [f32::INFINITY, f32::MAX, 1e6, 200.0] {
                assert_eq!((exp_of(isa, big), exp_of(isa, -big)), (f32::INFINITY, 0.0), "{big}");
                assert_eq!((sigmoid_of(isa, big), sigmoid_of(isa, -big)), (1.0, 0.0), "{big}");
            }
            for big in [f32::INFINITY, f32::MAX, 1e20, 1e6, 30.0] {
                assert_eq!(normal_cdf_of(isa, big), 1.0, "{big}");
                assert_eq!(normal_cdf_of(isa, -big), 0.0, "{big}");
            }
            assert_eq!((exp_of(isa, 0.0), normal_cdf_of(isa, 0.0)), (1.0, 0.5));
            assert!(exp_of(isa, f32::NAN).is_nan());
            assert!(sigmoid_of(isa, f32::NAN).is_nan() && normal_cdf_of(isa, f32::NAN).is_nan());
            assert!(exp_of(isa, 88.72).is_finite() && exp_of(isa, -103.0) > 0.0);
        }
    }
}
