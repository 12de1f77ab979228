//! Mapping: a function of one element, turned into a function of many at once.

use crate::array::Array;
use crate::error::Result;
use crate::ffi::Closure;

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
