//! What only the Metal backend has: GPU captures and the place of its kernel library.
//!
//! Where this build of MLX has no Metal, everything but [`is_available`] is an error of kind
//! [`ErrorKind::Unsupported`]. What Python keeps here for all backends is elsewhere: memory in
//! [`memory`](crate::memory), information in [`Device::info`](crate::Device::info).

use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, c_call};

/// Tells whether there is a Metal device.
///
/// # Errors
/// When MLX cannot tell.
pub fn is_available() -> Result<bool> {
    ffi::device::flag(mlx_sys::mlx_metal_is_available, "mlx_metal_is_available")
}

/// Starts to record what the GPU does, for Xcode, into a new file that ends in `.gputrace`.
///
/// The process needs `MTL_CAPTURE_ENABLED=1` in its environment.
///
/// # Errors
/// When there is no Metal device or the capture cannot begin.
pub fn start_capture(path: impl AsRef<Path>) -> Result<()> {
    let path = &c_path("start_capture", path.as_ref())?;
    require("start_capture")?;
    let path = path.as_c_str();
    c_call!(mlx_metal_start_capture, path)
}

/// Ends the recording that [`start_capture`] began.
///
/// # Errors
/// When there is no Metal device.
pub fn stop_capture() -> Result<()> {
    require("stop_capture")?;
    c_call!(mlx_metal_stop_capture)
}

/// Returns where MLX looks for its compiled kernels.
///
/// # Errors
/// When there is no Metal device.
pub fn metallib_path() -> Result<PathBuf> {
    require("metallib_path")?;
    let text =
        ffi::device::text(mlx_sys::mlx_metal_get_metallib_path, "mlx_metal_get_metallib_path")?;
    Ok(PathBuf::from(text))
}

/// Sets where MLX looks for its compiled kernels; to be called before anything uses the GPU.
///
/// # Errors
/// When there is no Metal device, or the path is not UTF-8.
pub fn set_metallib_path(path: impl AsRef<Path>) -> Result<()> {
    let path = &c_path("set_metallib_path", path.as_ref())?;
    require("set_metallib_path")?;
    let path = path.as_c_str();
    c_call!(mlx_metal_set_metallib_path, path)
}

fn require(op: &str) -> Result<()> {
    if is_available()? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{op}: no Metal device in this build of MLX")))
}

fn c_path(op: &str, path: &Path) -> Result<CString> {
    path.to_str().and_then(|text| CString::new(text).ok()).ok_or_else(|| {
        let text = format!("{op}: a path of UTF-8 without NUL is needed, not {path:?}");
        Error::new(ErrorKind::InvalidArgument, text)
    })
}
