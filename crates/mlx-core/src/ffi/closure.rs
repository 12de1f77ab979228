//! Functions over arrays that MLX calls back.
//!
//! A Rust closure lives in a C++ function object. Its error waits here while C++ carries a generic
//! one to the caller, where it takes that one's place.

use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mlx_sys as sys;

use super::{ArrayVec, IntoC, check, last_error, read_vector};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};

/// A function over arrays as MLX calls it back.
pub(crate) type ArrayFn = dyn Fn(&[Array]) -> Result<Vec<Array>>;

thread_local! {
    /// The error of a Rust callback, which beats the generic text that comes back through C++.
    static PENDING: Cell<Option<Error>> = const { Cell::new(None) };
}

/// Moves the error of the last callback out.
pub(super) fn take_pending() -> Option<Error> {
    PENDING.take()
}

/// A C++ function object around a Rust closure.
pub(crate) struct Closure(sys::mlx_closure);

impl Closure {
    pub(crate) fn empty() -> Self {
        Closure(sys::mlx_closure { ctx: ptr::null_mut() })
    }

    pub(crate) fn new(f: Box<ArrayFn>) -> Result<Self> {
        unsafe extern "C" fn call(
            result: *mut sys::mlx_vector_array,
            inputs: sys::mlx_vector_array,
            payload: *mut c_void,
        ) -> i32 {
            // SAFETY: the payload is the box leaked below; C++ keeps it alive during a call.
            let f = unsafe { &*payload.cast::<Box<ArrayFn>>() };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let outputs = ArrayVec::new(&f(&read_vector(inputs)?)?)?;
                // SAFETY: `result` is the vector that C++ wants filled.
                let status = unsafe { sys::mlx_vector_array_set(result, outputs.0) };
                check(status, "mlx_vector_array_set")
            }));
            let error = match outcome {
                Ok(Ok(())) => return 0,
                Ok(Err(e)) => e,
                Err(panic) => {
                    let text = (panic.downcast_ref::<&str>().copied().map(str::to_owned))
                        .or_else(|| panic.downcast_ref::<String>().cloned())
                        .unwrap_or_default();
                    Error::new(ErrorKind::Panic, format!("callback panicked: {text}"))
                }
            };
            PENDING.set(Some(error));
            1
        }
        unsafe extern "C" fn free(payload: *mut c_void) {
            // SAFETY: the payload is the box leaked below, handed back exactly once.
            drop(unsafe { Box::from_raw(payload.cast::<Box<ArrayFn>>()) });
        }
        let payload = Box::into_raw(Box::new(f)).cast();
        // SAFETY: `call` and `free` fit the payload.
        let raw = unsafe { sys::mlx_closure_new_func_payload(Some(call), payload, Some(free)) };
        if raw.ctx.is_null() { Err(last_error("mlx_closure_new")) } else { Ok(Closure(raw)) }
    }

    pub(crate) fn as_mut(&mut self) -> *mut sys::mlx_closure {
        &mut self.0
    }

    pub(crate) fn apply(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let inputs = ArrayVec::new(inputs)?;
        let mut outputs = ArrayVec::empty();
        // SAFETY: all three handles are live; the vector is filled on success.
        let status = unsafe { sys::mlx_closure_apply(outputs.as_mut(), self.0, inputs.0) };
        check(status, "mlx_closure_apply")?;
        outputs.into_arrays()
    }

    /// Traces the closure with `inputs` as MLX's vmap does and maps over `in_axes`.
    pub(crate) fn vmap(
        &self,
        inputs: &[Array],
        in_axes: &[i32],
        out_axes: &[i32],
    ) -> Result<Vec<Array>> {
        let inputs = ArrayVec::new(inputs)?;
        let (mut traced_in, mut traced_out) = (ArrayVec::empty(), ArrayVec::empty());
        // SAFETY: handles are live, slices outlive the call.
        let status = unsafe {
            sys::mlx_detail_vmap_trace(
                traced_in.as_mut(),
                traced_out.as_mut(),
                self.0,
                inputs.0,
                in_axes.as_ptr(),
                in_axes.len(),
            )
        };
        check(status, "mlx_vmap")?;
        // SAFETY: the vector is live.
        let n_outputs = unsafe { sys::mlx_vector_array_size(traced_out.0) };
        if out_axes.len() != n_outputs {
            let got = out_axes.len();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("vmap: {got} output axes for {n_outputs} outputs"),
            ));
        }
        let mut outputs = ArrayVec::empty();
        // SAFETY: as above.
        let status = unsafe {
            sys::mlx_detail_vmap_replace(
                outputs.as_mut(),
                inputs.0,
                traced_in.0,
                traced_out.0,
                in_axes.as_ptr(),
                in_axes.len(),
                out_axes.as_ptr(),
                out_axes.len(),
            )
        };
        check(status, "mlx_vmap")?;
        outputs.into_arrays()
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_closure_free(self.0) };
    }
}

impl IntoC for &Closure {
    type C = sys::mlx_closure;
    fn into_c(self) -> sys::mlx_closure {
        self.0
    }
}
