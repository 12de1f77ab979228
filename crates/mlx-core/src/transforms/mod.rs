//! Evaluation and function transforms.
//!
//! A transformed function is built once and called often. An error or a panic in the function
//! comes back to the caller as an [`Error`](crate::Error), not through C++.

use crate::array::Array;
use crate::error::Result;
use crate::ffi::{ArrayVec, Closure, c_call};

/// Computes arrays and waits for them.
///
/// # Errors
/// When an op on the way fails; the arrays are then unusable.
pub fn eval<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    let arrays = ArrayVec::new(arrays)?;
    c_call!(mlx_eval, (crate::ffi::IntoC::into_c(&arrays)))
}

/// Starts to compute arrays and returns at once; a later read waits.
///
/// # Errors
/// When the work cannot be scheduled.
pub fn async_eval<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    let arrays = ArrayVec::new(arrays)?;
    c_call!(mlx_async_eval, (crate::ffi::IntoC::into_c(&arrays)))
}

/// A function compiled by [`compile`].
pub struct Compiled {
    compiled: Closure,
}

impl Compiled {
    /// Calls the function.
    ///
    /// # Errors
    /// Those of the function while it is traced, and MLX's.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.compiled.apply(inputs)
    }
}

/// Compiles `f`: traced once for each set of input shapes and dtypes, once in all if `shapeless`.
///
/// On a CPU, MLX compiles fused elementwise ops with a C++ compiler at run time.
///
/// # Errors
/// When MLX cannot make the function.
pub fn compile(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    shapeless: bool,
) -> Result<Compiled> {
    let function = Closure::new(Box::new(f))?;
    let mut compiled = Closure::empty();
    c_call!(mlx_compile, (compiled.as_mut()), (crate::ffi::IntoC::into_c(&function)), shapeless)?;
    Ok(Compiled { compiled })
}

/// A function mapped over an axis by [`vmap`].
pub struct Mapped {
    function: Closure,
    in_axes: Vec<i32>,
    out_axes: Vec<i32>,
}

impl Mapped {
    /// Calls the function on each element of the mapped axes at once.
    ///
    /// # Errors
    /// Those of the function while it is traced, and MLX's.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.function.vmap(inputs, &self.in_axes, &self.out_axes)
    }
}

/// Maps `f` over axis `in_axes[i]` of input `i` (-1: the same for all) to axis `out_axes[j]` of
/// output `j`.
///
/// # Errors
/// When MLX cannot make the function.
pub fn vmap(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    in_axes: &[i32],
    out_axes: &[i32],
) -> Result<Mapped> {
    let function = Closure::new(Box::new(f))?;
    Ok(Mapped { function, in_axes: in_axes.to_vec(), out_axes: out_axes.to_vec() })
}
