//! `mlxk config`.

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::settings::{self, Origin, Setting, Settings};

/// Show the settings, and where each comes from
#[derive(clap::Args)]
#[command(after_help = settings::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show all settings
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print the path of the file, which need not exist
    Path,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "config")]
pub(crate) struct Data {
    /// The file that settings are read from.
    file: Option<String>,
    file_exists: bool,
    /// Empty where only the path was asked for.
    settings: Vec<Entry>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "config_entry")]
struct Entry {
    name: &'static str,
    value: Value,
    /// What decided: `flag`, `environment`, `file` or `default`, with its name.
    origin: String,
}

pub(super) fn run(args: &Args, threads: Option<u16>, output: &Output) -> Result<(), CommandError> {
    let settings = Settings::load()?;
    let file = settings.file.as_ref().map(|path| path.display().to_string());
    let entries = match args.action {
        Action::Show { .. } => entries(settings.clone(), threads, output),
        Action::Path => Vec::new(),
    };
    let data = Data { file, file_exists: settings.file_exists, settings: entries };
    if output.is_json() {
        return output.success("config", &data);
    }
    let text = match args.action {
        Action::Path => data.file.unwrap_or_default() + "\n",
        Action::Show { origin } => text(&data.settings, origin),
    };
    output.write(&printable(&text))
}

fn entries(settings: Settings, threads: Option<u16>, output: &Output) -> Vec<Entry> {
    let path = |path: &std::path::Path| Value::from(path.display().to_string());
    let entry =
        |name, value: Value, origin: Origin| Entry { name, value, origin: origin.to_string() };
    let threads = match threads {
        Some(n) => Setting { value: Some(n), origin: Origin::Flag("--threads") },
        None => settings.threads,
    };
    let strict_exit = match output.has_strict_flag() {
        true => Setting { value: true, origin: Origin::Flag("--strict-exit") },
        false => settings.strict_exit,
    };
    let home = settings.workspace_home;
    vec![
        entry("hub_cache", path(&settings.hub_cache.value), settings.hub_cache.origin),
        entry("workspace_home", home.value.as_deref().map_or(Value::Null, path), home.origin),
        entry("threads", threads.value.map_or(Value::Null, Value::from), threads.origin),
        entry("strict_exit", strict_exit.value.into(), strict_exit.origin),
        entry("cache_dir", path(&settings.cache_dir.value), settings.cache_dir.origin),
        entry("no_cache", settings.no_cache.value.into(), settings.no_cache.origin),
    ]
}

/// Writes the settings as the file would have them.
fn text(entries: &[Entry], with_origin: bool) -> String {
    let mut text = String::new();
    for Entry { name, value, origin } in entries {
        let line = match value {
            Value::Null => format!("# {name} is not set"),
            value => format!("{name} = {value}"),
        };
        text += &match with_origin {
            true => format!("{line}  # {origin}\n"),
            false => line + "\n",
        };
    }
    text
}
