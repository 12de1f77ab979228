//! `mlxk ps`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::CommandError;
use crate::output::{Bytes, Output};
use crate::running::{self, Process};
use crate::settings::Settings;
use crate::table::{Column, relative_time, render, terminal_width};

/// List the running processes that have a model loaded
///
/// Those are your own, whichever terminal they were started in. Memory is what of a process is in
/// the machine's memory, mapped weights included.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ps")]
pub(crate) struct Data {
    processes: Vec<Entry>,
    count: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "process")]
struct Entry {
    pid: u32,
    /// What mlxk was asked to do.
    command: String,
    /// The model as the user called it.
    model: String,
    /// The memory in use, in bytes, where it can be told.
    memory_bytes: Option<u64>,
    /// When it began, in UTC.
    started_at: String,
}

impl From<Process> for Entry {
    fn from(process: Process) -> Entry {
        let Process { pid, command, model, started_at } = process;
        Entry { memory_bytes: running::resident_bytes(pid), pid, command, model, started_at }
    }
}

pub(super) fn run(_: &Args, output: &Output) -> Result<(), CommandError> {
    let settings = Settings::load()?;
    let processes = running::list(&settings)
        .map_err(|error| CommandError::file(&settings.cache_dir.value, &error))?;
    let processes: Vec<Entry> = processes.into_iter().map(Entry::from).collect();
    let data = Data { count: processes.len(), processes };
    if output.is_json() {
        return output.success("ps", &data);
    }
    output.write(&text(&data))?;
    if data.count == 0 {
        output.hint("no model is loaded");
    }
    Ok(())
}

fn text(data: &Data) -> String {
    let columns = [
        Column::right("Pid"),
        Column::left("Command"),
        Column::text("Model"),
        Column::right("Memory"),
        Column::left("Since"),
    ];
    let now = Timestamp::now();
    let rows = data.processes.iter().map(|process| {
        vec![
            process.pid.to_string(),
            process.command.clone(),
            process.model.clone(),
            process.memory_bytes.map_or("-".to_owned(), |bytes| Bytes(bytes).to_string()),
            relative_time(&process.started_at, now),
        ]
    });
    render(&columns, &rows.collect::<Vec<_>>(), terminal_width())
}
