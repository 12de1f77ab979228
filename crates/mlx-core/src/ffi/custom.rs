//! Functions with derivatives of their own.
//!
//! MLX takes what the callbacks here return without looking, and reads past the end of what is too
//! short; so each result is held against what it has to be before C++ gets it.

use std::ffi::c_void;
use std::ptr;

use mlx_sys as sys;

use super::closure::{give, release, run};
use super::{Closure, check, last_error, read_vector};
use crate::array::Array;
use crate::error::Result;

/// From inputs, cotangents and outputs to a gradient for each input.
pub(crate) type VjpFn = dyn Fn(&[Array], &[Array], &[Array]) -> Result<Vec<Array>>;
/// From inputs, tangents and the inputs that these are of to a change of each output.
pub(crate) type JvpFn = dyn Fn(&[Array], &[Array], &[i32]) -> Result<Vec<Array>>;
/// From inputs and their mapped axes (-1: none) to outputs and theirs.
pub(crate) type VmapFn = dyn Fn(&[Array], &[i32]) -> Result<(Vec<Array>, Vec<i32>)>;

/// The rules of a custom function; MLX derives those that are missing.
#[derive(Default)]
pub(crate) struct CustomRules {
    pub(crate) vjp: Option<Box<VjpFn>>,
    pub(crate) jvp: Option<Box<JvpFn>>,
    pub(crate) vmap: Option<Box<VmapFn>>,
}

/// Defines the owner of a C++ function object around a boxed Rust closure.
macro_rules! callback {
    ($name:ident, $f:ty, $raw:ident, $new:ident, $free:ident,
     |$payload:ident, $result:ident $(, $arg:ident: $t:ty)*| $body:expr) => {
        struct $name(sys::$raw);

        impl $name {
            fn new(f: Option<Box<$f>>) -> Result<Self> {
                unsafe extern "C" fn call(
                    $result: *mut sys::mlx_vector_array,
                    $($arg: $t,)*
                    payload: *mut c_void,
                ) -> i32 {
                    run(|| {
                        // SAFETY: the payload is the box leaked below, alive during a call; the
                        // other arguments are as the signature has them.
                        unsafe {
                            let $payload = &*payload.cast::<Box<$f>>();
                            $body
                        }
                    })
                }
                let Some(f) = f else { return Ok($name(sys::$raw { ctx: ptr::null_mut() })) };
                let payload = Box::into_raw(Box::new(f)).cast();
                // SAFETY: `call` and `release` fit the payload.
                let raw = unsafe { sys::$new(Some(call), payload, Some(release::<Box<$f>>)) };
                if raw.ctx.is_null() { Err(last_error("mlx_closure_new")) } else { Ok($name(raw)) }
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the handle is owned, and an empty one is allowed.
                unsafe { sys::$free(self.0) };
            }
        }
    };
}

callback!(
    Vjp,
    VjpFn,
    mlx_closure_custom,
    mlx_closure_custom_new_func_payload,
    mlx_closure_custom_free,
    |f,
     result,
     primals: sys::mlx_vector_array,
     cotangents: sys::mlx_vector_array,
     outputs: sys::mlx_vector_array| {
        give(result, &f(&read_vector(primals)?, &read_vector(cotangents)?, &read_vector(outputs)?)?)
    }
);

callback!(
    Jvp,
    JvpFn,
    mlx_closure_custom_jvp,
    mlx_closure_custom_jvp_new_func_payload,
    mlx_closure_custom_jvp_free,
    |f,
     result,
     primals: sys::mlx_vector_array,
     tangents: sys::mlx_vector_array,
     argnums: *const i32,
     n_argnums: usize| {
        let argnums = numbers(argnums, n_argnums);
        give(result, &f(&read_vector(primals)?, &read_vector(tangents)?, argnums)?)
    }
);

callback!(
    Vmap,
    VmapFn,
    mlx_closure_custom_vmap,
    mlx_closure_custom_vmap_new_func_payload,
    mlx_closure_custom_vmap_free,
    |f,
     result,
     axes_out: *mut sys::mlx_vector_int,
     inputs: sys::mlx_vector_array,
     axes: *const i32,
     n_axes: usize| {
        let (outputs, mut axes) = f(&read_vector(inputs)?, numbers(axes, n_axes))?;
        let status = sys::mlx_vector_int_set_data(axes_out, axes.as_mut_ptr(), axes.len());
        check(status, "mlx_vector_int_set_data")?;
        give(result, &outputs)
    }
);

/// Reads the numbers that C++ passes along.
///
/// # Safety
/// `data` points to `len` numbers that live as long as the call, or `len` is 0.
unsafe fn numbers<'a>(data: *const i32, len: usize) -> &'a [i32] {
    // SAFETY: by this function's contract.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } }
}

impl Closure {
    /// Makes the function that computes like `self` and is transformed by `rules`.
    pub(crate) fn custom(&self, rules: CustomRules) -> Result<Closure> {
        let (vjp, jvp, vmap) = (Vjp::new(rules.vjp)?, Jvp::new(rules.jvp)?, Vmap::new(rules.vmap)?);
        let mut result = Closure::empty();
        // SAFETY: handles are live or, where MLX allows it, empty; MLX copies what it keeps.
        let status =
            unsafe { sys::mlx_custom_function(result.as_mut(), self.0, vjp.0, jvp.0, vmap.0) };
        check(status, "mlx_custom_function")?;
        Ok(result)
    }

    /// Makes the function that computes like `self` and computes again for its gradient.
    pub(crate) fn checkpoint(&self) -> Result<Closure> {
        let mut result = Closure::empty();
        // SAFETY: both handles are live; the first is empty.
        let status = unsafe { sys::mlx_checkpoint(result.as_mut(), self.0) };
        check(status, "mlx_checkpoint")?;
        Ok(result)
    }
}
