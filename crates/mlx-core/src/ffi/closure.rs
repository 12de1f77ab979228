//! Functions over arrays that MLX calls back.
//!
//! A Rust closure lives in a C++ function object. What ends it early, an error or a panic, waits
//! here while a C++ exception carries the news to the Rust caller, where it goes on as what it was.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::rc::Rc;

use mlx_sys as sys;

use super::recording::{Noting, Switch};
use super::{ArrayVec, IntoC, Live, check, last_error, read_vector};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};

/// A function over arrays as MLX calls it back.
pub(crate) type ArrayFn = dyn Fn(&[Array]) -> Result<Vec<Array>>;

/// Outputs and what belongs to them: gradients or tangents.
pub(crate) type Pair = (Vec<Array>, Vec<Array>);

/// What ended a callback early.
enum Failure {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

thread_local! {
    /// What ended the last callback, on its way through C++.
    static PENDING: Cell<Option<Failure>> = const { Cell::new(None) };
}

/// Returns the error, or goes on with the panic, of the callback that `text` tells of.
///
/// Any other text is of another failure; a callback's that C++ recovered from is then forgotten.
pub(super) fn resume(text: &str) -> Option<Error> {
    let pending = PENDING.try_with(Cell::take).ok().flatten();
    let of_callback =
        text.starts_with("mlx_closure") && text.ends_with("returned a non-zero value");
    match pending.filter(|_| of_callback)? {
        Failure::Error(error) => Some(error),
        Failure::Panic(payload) => resume_unwind(payload),
    }
}

/// Runs the body of a callback and returns the status for C++.
pub(super) fn run(body: impl FnOnce() -> Result<()>) -> i32 {
    let _switch = Switch::set(Noting::Never);
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => Failure::Error(error),
        Err(payload) => Failure::Panic(payload),
    };
    // Fails only while the thread ends, when nobody is left to tell.
    let _ = PENDING.try_with(|pending| pending.set(Some(failure)));
    1
}

/// Drops a boxed payload that C++ hands back.
///
/// # Safety
/// `payload` came from `Box::<T>::into_raw` and is handed back once.
pub(super) unsafe extern "C" fn release<T>(payload: *mut c_void) {
    // SAFETY: by this function's contract.
    let payload = unsafe { Box::from_raw(payload.cast::<T>()) };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A C++ destructor has no caller in which it could go on.
        mem::forget(panic);
    }
}

/// Puts `arrays` where a callback's caller wants them.
///
/// # Safety
/// `result` is the vector that C++ wants filled.
pub(super) unsafe fn give(result: *mut sys::mlx_vector_array, arrays: &[Array]) -> Result<()> {
    let arrays = ArrayVec::new(arrays)?;
    // SAFETY: by this function's contract.
    let status = unsafe { sys::mlx_vector_array_set(result, arrays.0) };
    check(status, "mlx_vector_array_set")
}

/// Runs `f` with room for C++ to recurse through a graph, one frame for each op in a row.
///
/// A thread's own stack holds some thousands. This one is address space until it is touched.
pub(super) fn on_large_stack<R>(f: impl FnOnce() -> R) -> R {
    const BYTES: usize = 256 << 20;
    stacker::maybe_grow(BYTES / 2, BYTES, f)
}

/// Calls a function `name` of mlx-c that runs closures or walks what they made.
///
/// Transforms make nodes of their own. Where no op came before, MLX would make a default stream for
/// these that no later thread gets, so ours is made first.
pub(super) fn trace(name: &str, call: impl FnOnce() -> i32) -> Result<()> {
    crate::stream::ensure_default()?;
    check(on_large_stack(call), name)
}

thread_local! {
    /// How many [`Closure::vmap`] are under way, one within the other.
    static MAPPING: Cell<usize> = const { Cell::new(0) };
}

struct Mapping;

impl Mapping {
    fn start() -> Self {
        MAPPING.set(MAPPING.get() + 1);
        Mapping
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MAPPING.set(MAPPING.get().saturating_sub(1));
    }
}

/// Whether a function is being mapped on this thread.
pub(crate) fn is_mapping() -> bool {
    MAPPING.get() > 0
}

/// A C++ function object around a Rust closure.
pub(crate) struct Closure(pub(super) sys::mlx_closure, Live);

impl Closure {
    pub(crate) fn empty() -> Self {
        Closure(sys::mlx_closure { ctx: ptr::null_mut() }, Live::new())
    }

    pub(crate) fn new(f: Box<ArrayFn>) -> Result<Self> {
        unsafe extern "C" fn call(
            result: *mut sys::mlx_vector_array,
            inputs: sys::mlx_vector_array,
            payload: *mut c_void,
        ) -> i32 {
            run(|| {
                // SAFETY: the payload is the box leaked below; C++ keeps it alive during a call.
                let f = unsafe { &*payload.cast::<Box<ArrayFn>>() };
                // SAFETY: `result` is the vector that C++ wants filled.
                unsafe { give(result, &f(&read_vector(inputs)?)?) }
            })
        }
        let payload = Box::into_raw(Box::new(f)).cast();
        // SAFETY: `call` and `release` fit the payload.
        let raw = unsafe {
            sys::mlx_closure_new_func_payload(Some(call), payload, Some(release::<Box<ArrayFn>>))
        };
        if raw.ctx.is_null() {
            return Err(last_error("mlx_closure_new"));
        }
        Ok(Closure(raw, Live::new()))
    }

    /// Runs `body` with a function object around `f`, which may borrow.
    ///
    /// A copy of the object that outlives `body`, say in a graph, gives an error when called.
    pub(crate) fn with_scoped<R>(
        f: &dyn Fn(&[Array]) -> Result<Vec<Array>>,
        body: impl FnOnce(&Closure) -> Result<R>,
    ) -> Result<R> {
        struct Scope(Rc<Cell<Option<*const ArrayFn>>>);
        impl Drop for Scope {
            fn drop(&mut self) {
                self.0.set(None);
            }
        }
        // SAFETY: only the lifetime changes. The cell that holds the pointer is emptied before
        // `f`'s borrow ends, when `Scope` is dropped: as `body` returns or unwinds. MLX traces on
        // the calling thread, and neither the cell nor an array can reach another one.
        let erased = unsafe {
            mem::transmute::<*const (dyn Fn(&[Array]) -> Result<Vec<Array>> + '_), *const ArrayFn>(
                f,
            )
        };
        let scope = Scope(Rc::new(Cell::new(Some(erased))));
        let cell = scope.0.clone();
        let closure = Closure::new(Box::new(move |inputs| match cell.get() {
            // SAFETY: a pointer that is still there is within its borrow, see above.
            Some(f) => unsafe { (*f)(inputs) },
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                "transform: a function was called after the call that it was lent to",
            )),
        }))?;
        body(&closure)
    }

    pub(crate) fn as_mut(&mut self) -> *mut sys::mlx_closure {
        &mut self.0
    }

    pub(crate) fn apply(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let inputs = ArrayVec::new(inputs)?;
        let mut outputs = ArrayVec::empty();
        // SAFETY: all three handles are live; the vector is filled on success.
        trace("mlx_closure_apply", || unsafe {
            sys::mlx_closure_apply(outputs.as_mut(), self.0, inputs.0)
        })?;
        outputs.into_arrays()
    }

    /// Returns the outputs and the gradients of the primals, weighted by `cotangents`.
    pub(crate) fn vjp(&self, primals: &[Array], cotangents: &[Array]) -> Result<Pair> {
        self.differentiate(primals, cotangents, sys::mlx_vjp, "mlx_vjp")
    }

    /// Returns the outputs and their change along `tangents`.
    pub(crate) fn jvp(&self, primals: &[Array], tangents: &[Array]) -> Result<Pair> {
        self.differentiate(primals, tangents, sys::mlx_jvp, "mlx_jvp")
    }

    fn differentiate(
        &self,
        primals: &[Array],
        directions: &[Array],
        function: unsafe extern "C" fn(
            *mut sys::mlx_vector_array,
            *mut sys::mlx_vector_array,
            sys::mlx_closure,
            sys::mlx_vector_array,
            sys::mlx_vector_array,
        ) -> i32,
        name: &str,
    ) -> Result<Pair> {
        let (primals, directions) = (ArrayVec::new(primals)?, ArrayVec::new(directions)?);
        let (mut outputs, mut changes) = (ArrayVec::empty(), ArrayVec::empty());
        // SAFETY: handles are live; the empty vectors are filled on success.
        trace(name, || unsafe {
            function(outputs.as_mut(), changes.as_mut(), self.0, primals.0, directions.0)
        })?;
        Ok((outputs.into_arrays()?, changes.into_arrays()?))
    }

    /// Returns the outputs and the gradients of the inputs `argnums`, which ascend.
    pub(crate) fn value_and_grad(&self, inputs: &[Array], argnums: &[i32]) -> Result<Pair> {
        struct Gradient(sys::mlx_closure_value_and_grad);
        impl Drop for Gradient {
            fn drop(&mut self) {
                // SAFETY: the handle is owned, and an empty one is allowed.
                unsafe { sys::mlx_closure_value_and_grad_free(self.0) };
            }
        }
        let inputs = ArrayVec::new(inputs)?;
        let mut gradient = Gradient(sys::mlx_closure_value_and_grad { ctx: ptr::null_mut() });
        // SAFETY: the closure is live, the slice outlives the call, the handle is empty.
        let status = unsafe {
            sys::mlx_value_and_grad(&mut gradient.0, self.0, argnums.as_ptr(), argnums.len())
        };
        check(status, "mlx_value_and_grad")?;
        let (mut values, mut gradients) = (ArrayVec::empty(), ArrayVec::empty());
        // SAFETY: handles are live; the empty vectors are filled on success.
        trace("mlx_value_and_grad", || unsafe {
            sys::mlx_closure_value_and_grad_apply(
                values.as_mut(),
                gradients.as_mut(),
                gradient.0,
                inputs.0,
            )
        })?;
        Ok((values.into_arrays()?, gradients.into_arrays()?))
    }

    /// Traces the closure with an element's stand-ins and maps it over `in_axes` (-1: none);
    /// `out_axes` gives the axes of the outputs, of which it gets the elements' stand-ins.
    pub(crate) fn vmap(
        &self,
        inputs: &[Array],
        in_axes: &[i32],
        out_axes: impl FnOnce(&[Array]) -> Result<Vec<i32>>,
    ) -> Result<Vec<Array>> {
        let _mapping = Mapping::start();
        let inputs = ArrayVec::new(inputs)?;
        let (mut traced_in, mut traced_out) = (ArrayVec::empty(), ArrayVec::empty());
        // SAFETY: handles are live, slices outlive the call.
        trace("mlx_vmap", || unsafe {
            sys::mlx_detail_vmap_trace(
                traced_in.as_mut(),
                traced_out.as_mut(),
                self.0,
                inputs.0,
                in_axes.as_ptr(),
                in_axes.len(),
            )
        })?;
        let out_axes = out_axes(&read_vector(traced_out.0)?)?;
        let mut outputs = ArrayVec::empty();
        // SAFETY: as above.
        trace("mlx_vmap", || unsafe {
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
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored_by_cpp(f: Box<ArrayFn>) {
        let closure = Closure::new(f).unwrap();
        let mut outputs = ArrayVec::empty();
        let inputs = ArrayVec::new(&[]).unwrap();
        // SAFETY: all three handles are live.
        let status = unsafe { sys::mlx_closure_apply(outputs.as_mut(), closure.0, inputs.0) };
        assert_eq!(status, 1);
    }

    #[test]
    fn a_stale_failure_replaces_no_other() {
        let failing: [fn() -> Box<ArrayFn>; 2] = [
            || Box::new(|_| Err(Error::new(ErrorKind::NotFound, "stale"))),
            || Box::new(|_| panic!("stale")),
        ];
        for f in failing {
            ignored_by_cpp(f());
            let error = Array::from(1.0f32).reshape([5]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().starts_with("reshape: "), "{error}");
            // Nor does it come up when the next callback fails.
            ignored_by_cpp(f());
            let own = Closure::new(Box::new(|_| Err(Error::new(ErrorKind::Io, "own")))).unwrap();
            assert_eq!(own.apply(&[]).unwrap_err().to_string(), "own");
            assert!(PENDING.take().is_none());
        }
    }

    #[test]
    fn a_copy_of_a_scoped_closure_fails_after_the_scope() {
        let calls = Cell::new(0);
        let f = |_: &[Array]| {
            calls.set(calls.get() + 1);
            Ok(Vec::new())
        };
        let mut kept = Closure::empty();
        let body = |closure: &Closure| {
            // SAFETY: both handles are live; the first is empty.
            let status = unsafe { sys::mlx_closure_set(kept.as_mut(), closure.0) };
            check(status, "mlx_closure_set")?;
            closure.apply(&[])
        };
        Closure::with_scoped(&f, body).unwrap();
        let error = kept.apply(&[]).unwrap_err();
        assert!(error.to_string().starts_with("transform: "), "{error}");

        let unwinding = catch_unwind(AssertUnwindSafe(|| {
            Closure::with_scoped(&f, |closure| -> Result<()> {
                // SAFETY: as above.
                unsafe { sys::mlx_closure_set(kept.as_mut(), closure.0) };
                panic!("in the body");
            })
        }));
        assert!(unwinding.is_err());
        assert!(kept.apply(&[]).is_err());
        assert_eq!(calls.get(), 1);
    }
}
