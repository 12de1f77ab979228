//! Counters and limits of MLX's allocator, in bytes, for the whole process.
//!
//! No limit here refuses memory. Running out of it does, and is an error of kind
//! [`OutOfMemory`](crate::ErrorKind::OutOfMemory) of the evaluation that needed it. Weights that are
//! mapped from a file without a copy are not in these numbers.

use mlx_sys as sys;

use crate::error::Result;
use crate::ffi;

/// Returns the bytes in use by arrays.
///
/// # Errors
/// When MLX fails.
pub fn active() -> Result<usize> {
    ffi::memory_counter(sys::mlx_get_active_memory)
}

/// Returns the most bytes that were in use at once since the start or [`reset_peak`].
///
/// # Errors
/// When MLX fails.
pub fn peak() -> Result<usize> {
    ffi::memory_counter(sys::mlx_get_peak_memory)
}

/// Returns the bytes of freed arrays that are kept for reuse; they are not in [`active`].
///
/// # Errors
/// When MLX fails.
pub fn cache() -> Result<usize> {
    ffi::memory_counter(sys::mlx_get_cache_memory)
}

/// Returns the limit set by [`set_limit`].
///
/// # Errors
/// When MLX fails.
pub fn limit() -> Result<usize> {
    ffi::memory_counter(sys::mlx_get_memory_limit)
}

/// Sets the peak to nothing; the next allocation brings it up to what is in use.
///
/// # Errors
/// When MLX fails.
pub fn reset_peak() -> Result<()> {
    ffi::c_call!(mlx_reset_peak_memory)
}

/// Gives the memory kept for reuse back to the system, once running work on CPU streams is done,
/// and what this thread keeps of numbers that stood beside arrays.
///
/// # Errors
/// When MLX fails.
pub fn clear_cache() -> Result<()> {
    crate::array::clear_constants();
    ffi::c_call!(mlx_clear_cache)
}

/// Sets the number of bytes above which an evaluation waits for work under way, which frees
/// memory, before it starts more; returns the old one.
///
/// It bounds how far work is queued ahead, not what arrays may take: what is needed at once is
/// allocated also above it. By default it is most of the machine's or GPU's memory.
///
/// # Errors
/// When MLX fails.
pub fn set_limit(bytes: usize) -> Result<usize> {
    ffi::memory_limit(sys::mlx_set_memory_limit, bytes)
}

/// Sets the number of unused bytes that are kept for reuse, and gives back what is above it;
/// returns the old one. With 0 nothing is kept.
///
/// # Errors
/// When MLX fails.
///
/// ```
/// use mlx_core::memory;
///
/// # fn main() -> mlx_core::Result<()> {
/// let old = memory::set_cache_limit(0)?; // keeps nothing
/// memory::set_cache_limit(old)?;
/// # Ok(())
/// # }
/// ```
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    ffi::memory_limit(sys::mlx_set_cache_limit, bytes)
}

/// Sets the number of bytes that Metal keeps resident; returns the old one. Does nothing and
/// returns 0 elsewhere.
///
/// # Errors
/// When MLX fails.
pub fn set_wired_limit(bytes: usize) -> Result<usize> {
    ffi::memory_limit(sys::mlx_set_wired_limit, bytes)
}
