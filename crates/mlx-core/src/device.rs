//! Devices.

use std::fmt;
use std::sync::OnceLock;

use crate::ffi;

/// A kind of device.
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
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        })
    }
}
