//! Exponentials in loops that become vector instructions.

use crate::kernels::compute::isa::Level;

#[inline(always)]
pub(super) fn soft_cap<S: Level>(x: f32, cap: f32) -> f32 {
    // tanh, whose exponential may be infinite.
    cap * (1.0 - 2.0 / (exp::<S>(2.0 * x / cap) + 1.0))
}

/// Makes each the exponential of itself, in a loop that is nothing else.
#[inline(always)]
pub(super) fn exp_all<S: Level>(x: &mut [f32]) {
    for x in x {
        *x = exp::<S>(*x);
    }
}

/// Returns `e^x` within 2 units in the last place, and 0 where that is subnormal.
///
/// Without branches, so that loops of it become vector instructions.
#[inline(always)]
pub(super) fn exp<S: Level>(x: f32) -> f32 {
    // Adding this rounds to an integer, which stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = S::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first of few bits, so that its multiples are exact.
    let r = S::fma(n, 2.121_944_4e-4, S::fma(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = S::fma(p, r, c);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let result = S::fma(p, r * r, r + 1.0) * power;
    let result = if x < -87.3 { 0.0 } else { result };
    if x > 88.3 { f32::INFINITY } else { result }
}
