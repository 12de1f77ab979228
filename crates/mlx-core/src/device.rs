//! Devices, what they tell about themselves, and the version of the library behind them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};
use crate::ffi;

/// A kind of device.
///
/// ```
/// use mlx_core::Device;
///
/// # fn main() -> mlx_core::Result<()> {
/// assert!(Device::Cpu.is_available());
/// let info = Device::Cpu.info()?;
/// println!("{}", info["architecture"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor; always there.
    Cpu,
    /// The Metal or CUDA device, where this build of MLX has one.
    Gpu,
}

impl Device {
    /// Tells whether arrays can be computed on this device here.
    pub fn is_available(self) -> bool {
        static GPU: OnceLock<bool> = OnceLock::new();
        match self {
            Device::Cpu => true,
            Device::Gpu => *GPU.get_or_init(ffi::gpu_is_available),
        }
    }

    /// Returns the device used where nothing else is asked for: the GPU if there is one.
    pub fn default_device() -> Device {
        if Device::Gpu.is_available() { Device::Gpu } else { Device::Cpu }
    }

    /// Returns how many devices of this kind there are; MLX runs on the first.
    ///
    /// # Errors
    /// When MLX cannot tell.
    pub fn count(self) -> Result<usize> {
        ffi::device::count(self == Device::Gpu)
    }

    /// Returns what MLX tells about the device.
    ///
    /// Every device has `device_name` and `architecture`. Metal and CUDA have more, such as
    /// `memory_size`, `max_buffer_length` and `max_recommended_working_set_size`, or
    /// `total_memory` and `compute_capability_major`.
    ///
    /// # Errors
    /// When there is no such device.
    ///
    /// ```
    /// use mlx_core::Device;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// for (key, value) in Device::Cpu.info()? {
    ///     assert!(!format!("{key}: {value}").is_empty());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn info(self) -> Result<BTreeMap<String, DeviceValue>> {
        if !self.is_available() {
            let text = format!("device info: no {self} device in this build of MLX");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(ffi::device::info(self == Device::Gpu)?.into_iter().collect())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        })
    }
}

/// A value of [`Device::info`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceValue {
    /// A name.
    Text(String),
    /// A number of bytes or of anything else.
    Size(usize),
}

impl fmt::Display for DeviceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceValue::Text(text) => f.write_str(text),
            DeviceValue::Size(size) => write!(f, "{size}"),
        }
    }
}

/// Returns the version of MLX that this program runs with.
///
/// [`MLX_VERSION`](crate::MLX_VERSION) is the one that the crate is built for.
///
/// # Errors
/// When memory runs out.
pub fn mlx_version() -> Result<String> {
    ffi::device::text(mlx_sys::mlx_version, "mlx_version")
}
