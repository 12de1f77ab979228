//! Compiling: a function's graph is traced once, simplified and fused, and replayed.

use crate::array::Array;
use crate::error::Result;
use crate::ffi::{Closure, c_call};

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
