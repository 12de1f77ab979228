//! The arithmetic of the kernels, on slices: no arrays, no graph, nothing of MLX.
//!
//! That keeps it testable by itself, for any instruction set and under any sanitizer or emulator.
// Several arrays are walked by one index, lane by lane, so that it is seen which vectors meet.
#![allow(clippy::needless_range_loop)]
// Coefficients stand as their sources have them.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod exp;
pub(crate) mod float;
pub(crate) mod heads;
pub(crate) mod isa;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod pool;
pub(crate) mod quantized;
pub(crate) mod rope;
pub(crate) mod routes;
mod rows;
mod scratch;
pub(crate) mod softmax;

pub(crate) use float::Float;
pub use isa::Isa;
