//! Evaluation and function transforms.
//!
//! A transform takes a function from arrays to arrays, traces the graph that it makes and returns
//! another function. They nest. An error in the function comes back to the caller as the very
//! [`Error`](crate::Error) that it was, whatever C++ is in between, and a panic goes on as a panic.
//!
//! Start at [`value_and_grad`] and [`vjp`] for derivatives and [`vmap`] for batches; [`compile`]
//! trades a trace for fewer, fused ops.

mod autodiff;
mod compile;
mod custom;
pub mod export;
pub mod graph;
mod vmap;

use crate::array::Array;
use crate::error::Result;
use crate::ffi::{ArrayVec, evaluate};

pub use autodiff::{
    Grad, ValueAndGrad, grad, grad_once, jvp, value_and_grad, value_and_grad_once, vjp,
};
pub use compile::{
    CompileMode, Compiled, clear_compile_cache, compile, disable_compile, enable_compile,
    set_compile_mode,
};
pub use custom::{Checkpoint, CustomFunction, CustomFunctionBuilder, checkpoint, custom_function};
pub(crate) use vmap::mapped_as;
pub use vmap::{MapAxes, Mapped, vmap, vmap_once};

/// Computes arrays and waits for them.
///
/// # Errors
/// When an op on the way fails; the arrays are then unusable.
///
/// ```
/// use mlx_core::{Array, eval};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::range(3)?;
/// let (y, z) = ((&x + 1)?, (&x * 2)?);
/// eval([&y, &z])?; // once, for both
/// assert!(y.is_available() && z.is_available());
/// # Ok(())
/// # }
/// ```
pub fn eval<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    evaluate(&ArrayVec::new(arrays)?, false)
}

/// Starts to compute arrays and returns at once; a later read waits.
///
/// # Errors
/// When the work cannot be scheduled.
///
/// ```
/// use mlx_core::{Array, async_eval};
///
/// # fn main() -> mlx_core::Result<()> {
/// let y = (Array::range(3)? + 1)?;
/// async_eval([&y])?; // goes on here while it is computed
/// assert_eq!(y.to_vec::<i32>()?, [1, 2, 3]); // waits
/// # Ok(())
/// # }
/// ```
pub fn async_eval<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    evaluate(&ArrayVec::new(arrays)?, true)
}
