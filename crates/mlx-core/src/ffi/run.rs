//! Evaluation and streams, through the shim: it keeps what failed from being read, and leaves the
//! streams of a thread that ends to later ones.

use std::ptr;

use mlx_sys as sys;

use super::{ArrayVec, check};
use crate::error::Result;

/// Starts to compute arrays, and waits for them unless told not to.
pub(crate) fn evaluate(arrays: &ArrayVec, is_async: bool) -> Result<()> {
    let name = if is_async { "mlx_async_eval" } else { "mlx_eval" };
    // SAFETY: the vector is live.
    check(unsafe { sys::mlx_shim_eval(arrays.0, is_async) }, name)
}

/// The default stream of this thread on a device, as a handle to free.
///
/// Every op needs a stream and every stream comes from here or from [`new_stream`].
pub(crate) fn default_stream(gpu: bool) -> Result<sys::mlx_stream> {
    let mut raw = sys::mlx_stream { ctx: ptr::null_mut() };
    // SAFETY: `raw` is an empty handle to fill.
    check(unsafe { sys::mlx_shim_default_stream(&mut raw, gpu) }, "mlx_stream")?;
    Ok(raw)
}

/// A new stream of this thread on a device, as a handle to free.
pub(crate) fn new_stream(gpu: bool) -> Result<sys::mlx_stream> {
    let mut raw = sys::mlx_stream { ctx: ptr::null_mut() };
    // SAFETY: `raw` is an empty handle to fill.
    check(unsafe { sys::mlx_shim_new_stream(&mut raw, gpu) }, "mlx_stream")?;
    Ok(raw)
}

pub(crate) fn stream_free(raw: sys::mlx_stream) {
    // SAFETY: called once, by the table that owns the handle.
    unsafe { sys::mlx_stream_free(raw) };
}

/// Waits for this thread's work and gives its streams up.
pub(crate) fn clear_streams() -> Result<()> {
    // SAFETY: streams given up are known by number; using one afterwards is an error of MLX's.
    check(unsafe { sys::mlx_shim_clear_streams() }, "mlx_clear_streams")
}

#[cfg(test)]
mod tests;
