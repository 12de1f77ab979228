//! `mlxk verify`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::hub::{BlobReport, CachedModel, Outcome, verify};
use crate::model;
use crate::output::{Bytes, Output};
use crate::progress::Progress;

/// Compare cached files with their names, which are hashes of what they held
///
/// Reads every file whole: large ones are named by SHA-256, small ones as git names them. Nothing is
/// asked of a network. Files whose names tell nothing, as in a cache made without links, are
/// reported as such; they are no defect.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model; all when absent
    model: Option<PathBuf>,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "verify")]
pub(crate) struct Data {
    /// Whether nothing was found to be wrong.
    verified: bool,
    models: Vec<ModelEntry>,
    /// How much was read.
    read_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "verify_model")]
struct ModelEntry {
    name: String,
    verified: bool,
    /// How many files are what their names say.
    files_verified: usize,
    /// All the others.
    findings: Vec<FileEntry>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "verify_file")]
struct FileEntry {
    /// Below the model's directory in the cache.
    path: String,
    size_bytes: u64,
    outcome: Outcome,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let resolver = model::resolver()?;
    let models = match &args.model {
        Some(name) => vec![super::cached(&resolver, name)?],
        None => resolver.models()?,
    };
    let read = Progress::bytes("verifying", models.iter().map(blob_bytes).sum(), output);
    let entries: Vec<ModelEntry> =
        models.iter().map(|model| ModelEntry::new(model, verify(model, &read))).collect();
    let data = Data {
        verified: entries.iter().all(|entry| entry.verified),
        models: entries,
        read_bytes: read.done(),
    };
    drop(read);
    if !data.verified {
        output.verdict(Kind::InvalidModel);
    }
    if output.is_json() {
        return output.success("verify", &data);
    }
    output.write(&text(&data))?;
    for entry in data.models.iter().filter(|entry| !entry.verified) {
        let name = &entry.name;
        output.hint(&format!("fetch {name} again; `mlxk rm {name}` deletes it first"));
    }
    Ok(())
}

impl ModelEntry {
    fn new(model: &CachedModel, reports: Vec<BlobReport>) -> Self {
        let all = reports.len();
        let findings: Vec<FileEntry> = reports
            .into_iter()
            .filter(|report| report.outcome != Outcome::Verified)
            .map(|report| FileEntry {
                path: report.path,
                size_bytes: report.bytes,
                outcome: report.outcome,
            })
            .collect();
        ModelEntry {
            name: model.id().to_owned(),
            verified: !findings.iter().any(|finding| finding.outcome.is_defect()),
            files_verified: all - findings.len(),
            findings,
        }
    }
}

fn blob_bytes(model: &CachedModel) -> u64 {
    let blobs = crate::hub::files(&model.dir().join("blobs"));
    blobs.iter().filter_map(|blob| blob.size).sum()
}

fn text(data: &Data) -> String {
    let mut text = String::new();
    for entry in &data.models {
        let word = if entry.verified { "verified" } else { "damaged" };
        let files = if entry.files_verified == 1 { "file" } else { "files" };
        text += &format!("{word:<9} {} — {} {files}\n", entry.name, entry.files_verified);
        for finding in &entry.findings {
            let bytes = Bytes(finding.size_bytes);
            text += &format!("  {} ({bytes}): {}\n", finding.path, finding.outcome.words());
        }
    }
    text += &format!("{} read\n", Bytes(data.read_bytes));
    crate::output::printable(&text)
}
