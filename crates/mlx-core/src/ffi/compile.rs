//! Compiling functions, and records of what a trace did.

use std::ptr;

use mlx_sys as sys;

use super::closure::trace;
use super::{ArrayVec, Closure, check};
use crate::array::Array;
use crate::error::Result;
use crate::transforms::CompileMode;

pub(crate) fn set_compile_mode(mode: CompileMode) -> Result<()> {
    let mode = match mode {
        CompileMode::Disabled => sys::MLX_COMPILE_MODE_DISABLED,
        CompileMode::NoSimplify => sys::MLX_COMPILE_MODE_NO_SIMPLIFY,
        CompileMode::NoFuse => sys::MLX_COMPILE_MODE_NO_FUSE,
        CompileMode::Enabled => sys::MLX_COMPILE_MODE_ENABLED,
    };
    // SAFETY: the mode is one of the enumerators.
    check(unsafe { sys::mlx_set_compile_mode(mode) }, "mlx_set_compile_mode")
}

/// Forgets the traces of this thread's compiled functions.
pub(crate) fn clear_compile_cache() -> Result<()> {
    struct Cache(sys::mlx_compile_cache);
    impl Drop for Cache {
        fn drop(&mut self) {
            // SAFETY: the handle is owned, and an empty one is allowed.
            unsafe { sys::mlx_compile_cache_free(self.0) };
        }
    }
    let mut cache = Cache(sys::mlx_compile_cache { ctx: ptr::null_mut() });
    // SAFETY: the handle is empty, then filled with a weak reference to this thread's cache.
    unsafe {
        check(sys::mlx_detail_compile_cache(&mut cache.0), "mlx_compile_cache")?;
        check(sys::mlx_detail_compile_clear_cache(cache.0), "mlx_compile_clear_cache")
    }
}

impl Closure {
    /// Makes the compiled function, whose traces go when it goes.
    ///
    /// MLX files them under the address of its own copy of the function, which is one function's
    /// at a time, and removes them as that copy is destroyed. The file is the thread's, and no
    /// closure leaves its thread.
    pub(crate) fn compile(&self, shapeless: bool) -> Result<Closure> {
        let mut result = Closure::empty();
        // SAFETY: both handles are live; the first is empty.
        let status = unsafe { sys::mlx_compile(result.as_mut(), self.0, shapeless) };
        check(status, "mlx_compile")?;
        Ok(result)
    }
}

/// The graph that a shapeless trace made, to compare with another's.
pub(crate) struct TraceRecord(sys::mlx_shim_record);

impl TraceRecord {
    fn empty() -> Self {
        TraceRecord(sys::mlx_shim_record { ctx: ptr::null_mut() })
    }

    /// Records the graph from `inputs` to `outputs`.
    pub(crate) fn new(inputs: &[Array], outputs: &[Array]) -> Result<Self> {
        let (inputs, outputs) = (ArrayVec::new(inputs)?, ArrayVec::new(outputs)?);
        let mut record = TraceRecord::empty();
        // SAFETY: handles are live, the record is filled on success.
        let status = unsafe { sys::mlx_shim_record_new(&mut record.0, inputs.0, outputs.0) };
        check(status, "mlx_compile")?;
        Ok(record)
    }

    /// Records what `function` does with stand-ins for `inputs`.
    pub(crate) fn trace(function: &Closure, inputs: &[Array]) -> Result<Self> {
        let inputs = ArrayVec::new(inputs)?;
        let mut record = TraceRecord::empty();
        // SAFETY: handles are live, the record is filled on success.
        trace("mlx_compile", || unsafe {
            sys::mlx_shim_record_trace(&mut record.0, function.0, inputs.0)
        })?;
        Ok(record)
    }

    /// Whether both made the same graph, whatever the shapes.
    pub(crate) fn same(&self, other: &TraceRecord) -> bool {
        // SAFETY: both records are live; the comparison changes neither.
        unsafe { sys::mlx_shim_record_same(self.0, other.0) }
    }
}

impl Drop for TraceRecord {
    fn drop(&mut self) {
        // SAFETY: the record is owned, and an empty one is allowed.
        unsafe { sys::mlx_shim_record_free(self.0) };
    }
}
