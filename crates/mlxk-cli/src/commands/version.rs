//! `mlxk --version`.

use mlx_lm::core::{Device, MLX_VERSION, metal};
use schemars::JsonSchema;
use serde::Serialize;

use crate::CLI_VERSION;
use crate::error::CommandError;
use crate::output::Output;

/// The version of mlx-knife's JSON interface that the envelopes follow.
const JSON_API_SPEC_VERSION: &str = "0.2.4";

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "version")]
pub(crate) struct Data {
    cli_version: &'static str,
    json_api_spec_version: &'static str,
    mlx_version: &'static str,
    /// What computes: `cpu`, `metal` or `cuda`.
    device: &'static str,
    device_name: Option<String>,
    system: System,
}

/// The machine.
#[derive(Serialize, JsonSchema)]
pub(crate) struct System {
    pub(super) memory_total_bytes: Option<u64>,
}

impl System {
    pub(super) fn read() -> System {
        System { memory_total_bytes: memory_total_bytes() }
    }
}

pub(super) fn run(output: &Output) -> Result<(), CommandError> {
    let (device, device_name) = (device(), device_name());
    if output.is_json() {
        let data = Data {
            cli_version: CLI_VERSION,
            json_api_spec_version: JSON_API_SPEC_VERSION,
            mlx_version: MLX_VERSION,
            device,
            device_name,
            system: System::read(),
        };
        return output.success("version", &data);
    }
    let name = device_name.map(|name| format!(": {name}")).unwrap_or_default();
    output.write(&format!("mlxk {CLI_VERSION} (MLX {MLX_VERSION}, {device}{name})\n"))
}

/// Returns the backend that models run on.
pub(super) fn device() -> &'static str {
    match Device::default_device() {
        Device::Cpu => "cpu",
        Device::Gpu if metal::is_available().unwrap_or(false) => "metal",
        Device::Gpu => "cuda",
    }
}

/// Returns what MLX calls the device.
pub(super) fn device_name() -> Option<String> {
    let info = Device::default_device().info().ok()?;
    info.get("device_name").map(ToString::to_string)
}

/// Returns the size of the machine's memory, where the system tells.
fn memory_total_bytes() -> Option<u64> {
    if cfg!(target_os = "macos") {
        let mut sysctl = std::process::Command::new("/usr/sbin/sysctl");
        let answer = sysctl.args(["-n", "hw.memsize"]).output().ok()?;
        return String::from_utf8(answer.stdout).ok()?.trim().parse().ok();
    }
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
