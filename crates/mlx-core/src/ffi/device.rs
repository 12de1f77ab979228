//! Questions about devices, backends and the library itself.

use std::ffi::{CStr, c_char};
use std::ptr;

use mlx_sys as sys;

use super::{check, last_error};
use crate::device::DeviceValue;
use crate::error::{Error, ErrorKind, Result};

/// The number of devices of a kind.
pub(crate) fn count(gpu: bool) -> Result<usize> {
    let mut count = 0;
    // SAFETY: `count` is valid for writes.
    let status =
        unsafe { sys::mlx_device_count(&mut count, if gpu { sys::MLX_GPU } else { sys::MLX_CPU }) };
    check(status, "mlx_device_count")?;
    usize::try_from(count)
        .map_err(|_| Error::new(ErrorKind::Runtime, format!("device_count: {count}")))
}

/// Asks a backend a yes-or-no question.
pub(crate) fn flag(which: unsafe extern "C" fn(*mut bool) -> i32, name: &str) -> Result<bool> {
    let mut flag = false;
    // SAFETY: `flag` is valid for writes.
    check(unsafe { which(&mut flag) }, name)?;
    Ok(flag)
}

/// Asks for a text.
pub(crate) fn text(
    which: unsafe extern "C" fn(*mut sys::mlx_string) -> i32,
    name: &str,
) -> Result<String> {
    let mut string = sys::mlx_string { ctx: ptr::null_mut() };
    // SAFETY: `string` is an empty handle to fill; its text is copied before it is freed.
    unsafe {
        let status = which(&mut string);
        let text = check(status, name).map(|()| owned(sys::mlx_string_data(string)));
        sys::mlx_string_free(string);
        text
    }
}

/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

struct Info(sys::mlx_device_info);

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_device_info_free(self.0) };
    }
}

struct Keys(sys::mlx_vector_string);

impl Drop for Keys {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_vector_string_free(self.0) };
    }
}

/// What MLX tells about the first device of a kind.
pub(crate) fn info(gpu: bool) -> Result<Vec<(String, DeviceValue)>> {
    let mut info = Info(sys::mlx_device_info { ctx: ptr::null_mut() });
    let mut keys = Keys(sys::mlx_vector_string { ctx: ptr::null_mut() });
    // SAFETY: the device handle is freed after the call has read it; both results are empty
    // handles to fill.
    let n_keys = unsafe {
        sys::mlx_shim_init();
        let device = sys::mlx_device_new_type(if gpu { sys::MLX_GPU } else { sys::MLX_CPU }, 0);
        if device.ctx.is_null() {
            return Err(last_error("mlx_device_new"));
        }
        let status = sys::mlx_device_info_get(&mut info.0, device);
        sys::mlx_device_free(device);
        check(status, "mlx_device_info")?;
        check(sys::mlx_device_info_get_keys(&mut keys.0, info.0), "mlx_device_info")?;
        sys::mlx_vector_string_size(keys.0)
    };
    (0..n_keys).map(|i| entry(&info, &keys, i)).collect()
}

fn entry(info: &Info, keys: &Keys, i: usize) -> Result<(String, DeviceValue)> {
    let (mut key, mut text, mut size) = (ptr::null_mut(), ptr::null(), 0);
    let mut is_string = false;
    // SAFETY: both handles are live and `i` is in range; the key and the text belong to them and
    // are copied here.
    unsafe {
        check(sys::mlx_vector_string_get(&mut key, keys.0, i), "mlx_device_info")?;
        let status = sys::mlx_device_info_is_string(&mut is_string, info.0, key);
        check(status, "mlx_device_info")?;
        let value = if is_string {
            let status = sys::mlx_device_info_get_string(&mut text, info.0, key);
            check(status, "mlx_device_info")?;
            DeviceValue::Text(owned(text))
        } else {
            let status = sys::mlx_device_info_get_size(&mut size, info.0, key);
            check(status, "mlx_device_info")?;
            DeviceValue::Size(size)
        };
        Ok((owned(key), value))
    }
}
