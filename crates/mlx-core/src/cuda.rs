//! What only the CUDA backend has.

use crate::device::Device;
use crate::error::Result;
use crate::ffi;

/// Tells whether there is a CUDA device.
///
/// # Errors
/// When MLX cannot tell.
pub fn is_available() -> Result<bool> {
    // MLX only tells whether it was built for one.
    let is_built = ffi::device::flag(mlx_sys::mlx_cuda_is_available, "mlx_cuda_is_available")?;
    Ok(is_built && Device::Gpu.is_available())
}
