//! Repairs: what is wrong with a model's files and can be mended from these files alone.
//!
//! A repair reads the source and plans [`Change`]s to single files ([`index`], [`weights`],
//! [`config`], [`tokenizer`], [`preprocessor`]); nothing is written before all of it is planned.
//! Then a workspace is built of the files that stay and of those that change, checked, and put in
//! place. The same source always gives the same files, and no byte of a tensor is ever another.
//! With `--dry-run` the plan is shown, which is all that there is of it.

mod config;
mod index;
mod object;
mod preprocessor;
mod tokenizer;
mod weights;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use mlx_lm::files::ModelFiles;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::{CommandError, Kind};
use crate::health::{self, HealthOptions, HealthReport};
use crate::workspace::copy::{self, Files};

pub(crate) use weights::Rewrite;

/// Which repair to make; exactly one of them.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[group(id = "repair", multiple = false)]
pub(crate) struct RepairArgs {
    /// Write the index of the weight files anew, from their headers
    #[arg(long)]
    pub(crate) repair_index: bool,

    /// Turn npz weights into safetensors, and add metadata that safetensors files lack
    #[arg(long)]
    pub(crate) repair_weights: bool,

    /// Set end tokens that are null, a missing model type, and other known gaps of config.json
    #[arg(long)]
    pub(crate) repair_config: bool,

    /// Correct the splitting rule in tokenizer.json that Mistral's had for a time
    #[arg(long)]
    pub(crate) repair_tokenizer: bool,

    /// Add the preprocessor_config.json that a Whisper model lacks
    #[arg(long)]
    pub(crate) add_preprocessor_config: bool,

    /// Make all of these repairs, where they are needed
    #[arg(long)]
    pub(crate) repair_all: bool,
}

impl RepairArgs {
    /// Returns the name of the mode, if one was asked for.
    pub(crate) fn mode(&self) -> Option<&'static str> {
        let modes = [
            (self.repair_index, "repair-index"),
            (self.repair_weights, "repair-weights"),
            (self.repair_config, "repair-config"),
            (self.repair_tokenizer, "repair-tokenizer"),
            (self.add_preprocessor_config, "add-preprocessor-config"),
            (self.repair_all, "repair-all"),
        ];
        modes.into_iter().find_map(|(wanted, name)| wanted.then_some(name))
    }
}

/// What becomes of one file.
pub(crate) enum Change {
    /// It has this content.
    Write(Vec<u8>),
    /// It is not in the result.
    Remove,
    /// It holds the tensors of another file.
    Rewrite(Rewrite),
}

/// All that is to be done.
pub(crate) struct Plan {
    model: ModelFiles,
    health: HealthReport,
    files: Files,
    changes: BTreeMap<String, Change>,
    /// What is wrong and could not be mended.
    notes: Vec<String>,
}

/// One change, as it is shown.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Shown {
    file: String,
    /// `write`, `rewrite` or `remove`.
    action: &'static str,
    /// A unified diff of a text, or what happens to weights.
    diff: String,
}

impl Plan {
    /// Plans the repairs of a model's directory.
    ///
    /// # Errors
    /// When the source is no model, or is damaged in a way that a repair would only hide.
    pub(crate) fn new(args: &RepairArgs, source: &Path) -> Result<Plan, CommandError> {
        let read = |error: &std::io::Error| CommandError::file(source, error);
        let mut plan = Plan {
            model: ModelFiles::directory(source)?,
            health: health::check(source, &HealthOptions::default()),
            files: copy::files(source).map_err(|error| read(&error))?,
            changes: BTreeMap::new(),
            notes: Vec::new(),
        };
        let all = args.repair_all;
        if all || args.repair_weights {
            weights::plan(&mut plan)?;
        }
        if all || args.repair_config {
            config::plan(&mut plan)?;
        }
        if all || args.repair_tokenizer {
            tokenizer::plan(&mut plan)?;
        }
        if all || args.add_preprocessor_config {
            preprocessor::plan(&mut plan)?;
        }
        // Last, as it lists what the weights have become.
        if all || args.repair_index || args.repair_weights {
            index::plan(&mut plan)?;
        }
        Ok(plan)
    }

    /// Whether the source has a finding of this code.
    fn has(&self, code: &str) -> bool {
        self.health.findings.iter().any(|finding| finding.code == code)
    }

    /// Returns what could not be mended.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Writes a file, unless it is that already.
    fn write(&mut self, name: &str, content: Vec<u8>) {
        let same = self.read(name).is_some_and(|old| old == content);
        if !same {
            self.changes.insert(name.to_owned(), Change::Write(content));
        }
    }

    /// Reads a small file of the source.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.model.read(name).ok().flatten().map(|bytes| bytes.into_owned())
    }

    fn object(&self, name: &str) -> Value {
        self.model.read_json(name).ok().flatten().unwrap_or(Value::Null)
    }

    /// Makes the files of the result in an empty directory.
    ///
    /// # Errors
    /// When the file system fails, or a weight file turns out to be damaged.
    pub(crate) fn execute(&self, dir: &Path) -> Result<(), CommandError> {
        for (name, path) in &self.files {
            if !self.changes.contains_key(name) {
                copy::copy(path, dir, name).map_err(general)?;
            }
        }
        for (name, change) in &self.changes {
            match change {
                Change::Write(content) => std::fs::write(dir.join(name), content)
                    .map_err(|error| CommandError::file(&dir.join(name), &error))?,
                Change::Rewrite(rewrite) => rewrite.execute(&dir.join(name))?,
                Change::Remove => {}
            }
        }
        Ok(())
    }

    /// Shows the changes as diffs.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let shown = self.changes.iter().map(|(name, change)| {
            let old = || self.files.get(name).and_then(|path| std::fs::read(path).ok());
            let (action, diff) = match change {
                Change::Write(content) => {
                    ("write", unified(name, &old().unwrap_or_default(), content))
                }
                Change::Rewrite(rewrite) => ("rewrite", format!("{name}: {rewrite}\n")),
                Change::Remove if is_text(name) => {
                    ("remove", unified(name, &old().unwrap_or_default(), b""))
                }
                Change::Remove => ("remove", format!("{name}: removed\n")),
            };
            Shown { file: name.clone(), action, diff }
        });
        shown.collect()
    }
}

/// Puts diffs one behind the other.
pub(crate) fn diff_text(changes: &[Shown]) -> String {
    let mut text = String::new();
    for change in changes {
        let _ = write!(text, "{}", change.diff);
    }
    text
}

fn is_text(name: &str) -> bool {
    name.ends_with(".json")
}

fn unified(name: &str, old: &[u8], new: &[u8]) -> String {
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    let diff = similar::TextDiff::from_lines(&*old, &*new);
    let from = if old.is_empty() { "/dev/null".to_owned() } else { format!("a/{name}") };
    let to = if new.is_empty() { "/dev/null".to_owned() } else { format!("b/{name}") };
    diff.unified_diff().header(&from, &to).to_string()
}

fn general(error: std::io::Error) -> CommandError {
    CommandError::new(Kind::General, error.to_string())
}
