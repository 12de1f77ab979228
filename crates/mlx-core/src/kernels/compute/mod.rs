//! The arithmetic of the kernels, on slices: no arrays, no graph, nothing of MLX.
//!
//! That keeps it testable by itself, for any instruction set and under any sanitizer or emulator.
// Several arrays are walked by one index, lane by lane, so that it is seen which vectors meet.
#![allow(clippy::needless_range_loop)]
// Coefficients stand as their sources have them.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

pub(crate) mod activation;
pub(crate) mod ahead;
pub(crate) mod argmax;
pub(crate) mod attention;
pub(crate) mod causal_conv;
mod cores;
pub(crate) mod elementwise;
pub(crate) mod exp;
pub(crate) mod float;
pub(crate) mod gated_delta;
pub(crate) mod heads;
pub(crate) mod isa;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod packed_rows;
pub(crate) mod packing;
pub(crate) mod pool;
pub(crate) mod quantized;
pub(crate) mod read;
pub(crate) mod rope;
pub(crate) mod routes;
pub(crate) mod rows;
pub(crate) mod sampling;
mod scratch;
pub(crate) mod softmax;
pub(crate) mod ssm;

pub(crate) use float::Float;
pub use isa::Isa;

/// How to check a property with `n` random cases, or fewer where `PROPTEST_CASES` says so: an emulator
/// or a sanitizer is slow.
#[cfg(test)]
fn cases(n: u32) -> proptest::test_runner::Config {
    let default = proptest::test_runner::Config::default();
    proptest::test_runner::Config { cases: default.cases.min(n), ..default }
}

/// What a size goes up to in tests: `n`, or a little where an interpreter runs them.
#[cfg(test)]
const fn most(n: usize) -> usize {
    if cfg!(miri) && n > 8 { n / 16 + 2 } else { n }
}

/// The step through a table of cases: each of them, or one of `n` where an interpreter runs them.
#[cfg(test)]
const fn every(n: usize) -> usize {
    if cfg!(miri) { n } else { 1 }
}
