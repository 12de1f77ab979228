//! `mlxk doctor`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use mlx_lm::core::kernels::Isa;
use mlx_lm::core::{Device, MLX_VERSION, cuda, metal};
use schemars::JsonSchema;
use serde::Serialize;

use super::version::{self, System};
use crate::CLI_VERSION;
use crate::error::{CommandError, Kind};
use crate::hub::Cache;
use crate::output::{Bytes, Output, printable};
use crate::settings::Settings;

/// Look at what models need here, and say what to do where something lacks
#[derive(clap::Args)]
pub(crate) struct Args {}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "doctor")]
pub(crate) struct Data {
    cli_version: &'static str,
    mlx_version: &'static str,
    /// Whether nothing is broken; what is only missing does not count.
    sound: bool,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Check {
    name: &'static str,
    status: Status,
    /// What is there.
    found: String,
    /// What to do.
    fix: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Something works less well, or not at all.
    Warning,
    /// It is broken.
    Error,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, status: Status::Ok, found: found.into(), fix: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, fix: &str) -> Check {
        Check { name, status: Status::Warning, found: found.into(), fix: Some(fix.to_owned()) }
    }

    fn error(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { name, status: Status::Error, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Below this much memory few models fit, in bytes.
const LITTLE_MEMORY: u64 = 8_000_000_000;

pub(super) fn run(_: &Args, output: &Output) -> Result<(), CommandError> {
    let settings = Settings::load();
    let mut checks = vec![device(), backends(), cpu(), memory(), config(&settings)];
    if let Ok(settings) = &settings {
        checks.push(cache(settings));
        checks.push(workspace_home(settings));
        checks.push(token(&settings.hub_cache.value));
    }
    checks.push(ffmpeg());
    let sound = checks.iter().all(|check| check.status != Status::Error);
    if !sound {
        output.verdict(Kind::Config);
    }
    let data = Data { cli_version: CLI_VERSION, mlx_version: MLX_VERSION, sound, checks };
    match output.is_json() {
        true => output.success("doctor", &data),
        false => output.write(&printable(&text(&data))),
    }
}

fn text(data: &Data) -> String {
    let mut text = format!("mlxk {} on MLX {}\n", data.cli_version, data.mlx_version);
    for check in &data.checks {
        let sign = match check.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Error => "error",
        };
        text += &format!("{sign:<7}  {:<14}  {}\n", check.name, check.found);
        if let Some(fix) = &check.fix {
            text += &format!("{:<25}{fix}\n", "");
        }
    }
    text
}

fn device() -> Check {
    let name = version::device_name().map_or(String::new(), |name| format!(": {name}"));
    let found = format!("{}{name}", version::device());
    match Device::default_device() {
        Device::Cpu if cfg!(target_os = "macos") => Check::warning(
            "device",
            found,
            "this build of MLX has no Metal; build it with Xcode's tools installed",
        ),
        _ => Check::ok("device", found),
    }
}

fn backends() -> Check {
    let has = |available: Result<bool, mlx_lm::core::Error>| available.unwrap_or(false);
    let backends =
        [(true, "cpu"), (has(metal::is_available()), "metal"), (has(cuda::is_available()), "cuda")];
    let there: Vec<&str> =
        backends.into_iter().filter_map(|(is, name)| is.then_some(name)).collect();
    Check::ok("backends", there.join(", "))
}

fn cpu() -> Check {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let isa = Isa::detect();
    let found = format!("{} with {}, {threads} threads", env::consts::ARCH, isa.name());
    match isa == Isa::SCALAR {
        true => Check::warning(
            "cpu",
            found,
            "without AVX2 or NEON with dot products, models run slowly on the CPU",
        ),
        false => Check::ok("cpu", found),
    }
}

fn memory() -> Check {
    match System::read().memory_total_bytes {
        Some(bytes) if bytes < LITTLE_MEMORY => Check::warning(
            "memory",
            Bytes(bytes).to_string(),
            "choose models whose files are well below that size: `mlxk list` shows it",
        ),
        Some(bytes) => Check::ok("memory", Bytes(bytes).to_string()),
        None => {
            Check::warning("memory", "unknown", "the system does not tell; look before you load")
        }
    }
}

fn config(settings: &Result<Settings, CommandError>) -> Check {
    match settings {
        Ok(Settings { file: Some(path), file_exists: true, .. }) => {
            Check::ok("config", path.display().to_string())
        }
        Ok(_) => Check::ok("config", "no file; defaults and environment"),
        Err(error) => {
            let fix =
                error.hints.first().cloned().unwrap_or("mend the file or the variable".into());
            Check::error("config", error.to_string(), fix)
        }
    }
}

fn cache(settings: &Settings) -> Check {
    let root = &settings.hub_cache.value;
    let place = root.display();
    match (root.is_dir(), Cache::new(root).models()) {
        (false, _) if fs::symlink_metadata(root).is_ok() => Check::error(
            "cache",
            format!("{place} is no directory"),
            "let HF_HOME name a directory, or move the file away",
        ),
        (false, _) => Check::ok("cache", format!("{place}, not there yet")),
        (true, Err(error)) => Check::error(
            "cache",
            format!("{place}: {error}"),
            "make the directory readable, or let HF_HOME name another one",
        ),
        (true, Ok(models)) => {
            let found = format!("{place}, {} models", models.len());
            match is_writable(root) {
                true => Check::ok("cache", found),
                false => Check::warning(
                    "cache",
                    format!("{found}, not writable"),
                    "nothing can be deleted or added there",
                ),
            }
        }
    }
}

/// Whether a directory may be written to, as far as its permissions tell. Trying would change it.
fn is_writable(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|metadata| !metadata.permissions().readonly())
}

fn workspace_home(settings: &Settings) -> Check {
    match &settings.workspace_home.value {
        None => Check::ok("workspace home", "not set"),
        Some(path) if path.is_dir() => Check::ok("workspace home", path.display().to_string()),
        Some(path) => Check::warning(
            "workspace home",
            format!("{} is no directory", path.display()),
            "make it, or set MLXK_WORKSPACE_HOME to another one",
        ),
    }
}

/// Whether there is a token, which is never read.
fn token(hub_cache: &Path) -> Check {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(name) = ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"].into_iter().find(|n| is_set(n)) {
        return Check::ok("hub token", format!("in {name}"));
    }
    let path = env::var_os("HF_TOKEN_PATH").map(PathBuf::from);
    let path = path.or_else(|| Some(hub_cache.parent()?.join("token")));
    match path.filter(|path| path.is_file()) {
        Some(path) => Check::ok("hub token", format!("in {}", path.display())),
        None => Check::ok("hub token", "none; only gated and private models need one"),
    }
}

fn ffmpeg() -> Check {
    let paths = env::var_os("PATH").unwrap_or_default();
    let name = format!("ffmpeg{}", env::consts::EXE_SUFFIX);
    let found = env::split_paths(&paths).map(|dir| dir.join(&name)).find(|path| path.is_file());
    match found {
        Some(path) => Check::ok("ffmpeg", path.display().to_string()),
        None => Check::warning(
            "ffmpeg",
            "not found",
            "install it where audio files are to be read; nothing else needs it",
        ),
    }
}
