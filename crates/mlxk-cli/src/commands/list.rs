//! `mlxk list`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::version::System;
use crate::describe::{Description, Health, ModelObject};
use crate::detect::Capability;
use crate::error::CommandError;
use crate::output::{Bytes, Output};
use crate::resolve::{Resolver, is_explicit_path, is_workspace_dir, workspaces_in};
use crate::settings::Settings;
use crate::table::{Column, relative_time, render, terminal_width};
use crate::verdicts::{Verdicts, in_parallel};

/// List the models in the cache and the workspace home
///
/// Shows what can be run; --all shows everything. JSON always has all models that match, and all of
/// their fields.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mlxk list                    what can be run
  mlxk list qwen --all         everything with `qwen` in its name
  mlxk list ./models --health  the workspaces in a directory, and whether they are sound")]
pub(crate) struct Args {
    /// A part of the name, or a directory with workspaces
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pattern: Option<PathBuf>,

    /// Show models that do not run here, too, and who made their files
    #[arg(long)]
    all: bool,

    /// Show whether the files are sound
    #[arg(long)]
    health: bool,

    /// Show whole names, and why a model does not run
    #[arg(long)]
    verbose: bool,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "list")]
pub(crate) struct Data {
    models: Vec<ModelObject>,
    count: usize,
    system: System,
}

/// What names of the test suites' own have, which nobody wants to see.
const SENTINEL: &str = "TEST-CACHE-SENTINEL";
/// The owner that is left out of names.
const USUAL_OWNER: &str = "mlx-community/";

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let settings = Settings::load()?;
    let resolver = Resolver::of(&settings);
    let verdicts = Verdicts::load(&settings);
    let mut models = match &args.pattern {
        Some(path) if is_explicit_path(path) => workspaces(path, &verdicts),
        pattern => matching(&resolver, pattern.as_deref(), &verdicts)?,
    };
    verdicts.save();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    if output.is_json() {
        // `show` has it.
        models.iter_mut().for_each(|model| model.quantization = None);
        let data = Data { count: models.len(), models, system: System::read() };
        return output.success("list", &data);
    }
    let is_shown = |model: &&ModelObject| args.all || model.is_runnable();
    let shown: Vec<&ModelObject> = models.iter().filter(is_shown).collect();
    output.write(&args.table(&shown))?;
    args.say_what_is_missing(&models, shown.len(), &resolver, output);
    Ok(())
}

/// Describes what has a pattern in its name, all where there is none.
fn matching(
    resolver: &Resolver,
    pattern: Option<&Path>,
    verdicts: &Verdicts,
) -> Result<Vec<ModelObject>, CommandError> {
    let pattern = pattern.map_or(String::new(), |p| p.to_string_lossy().to_lowercase());
    let is_asked_for =
        |name: &str| name.to_lowercase().contains(&pattern) && !name.contains(SENTINEL);
    let cached: Vec<_> = resolver.models()?.into_iter().filter(|m| is_asked_for(m.id())).collect();
    let mut objects = in_parallel(cached, |model| {
        Description::cached(&model, model.main().as_ref(), verdicts).model
    });
    let named = resolver.workspaces().into_iter().filter_map(|dir| {
        let name = dir.file_name()?.to_string_lossy().into_owned();
        name.to_lowercase().contains(&pattern).then_some((dir, name))
    });
    objects.extend(in_parallel(named.collect(), |(dir, name)| {
        Description::workspace(&dir, Some(name), verdicts).model
    }));
    Ok(objects)
}

/// Describes the workspaces that a path means: itself, those in it, or those whose names begin like
/// it.
fn workspaces(path: &Path, verdicts: &Verdicts) -> Vec<ModelObject> {
    let found: Vec<PathBuf> = if is_workspace_dir(path) || path.join("config.json").is_file() {
        vec![path.to_path_buf()]
    } else if path.is_dir() {
        workspaces_in(path)
    } else {
        let beginning = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let begins = |dir: &PathBuf| {
            dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&beginning))
        };
        let siblings = path.parent().map_or_else(Vec::new, workspaces_in);
        siblings.into_iter().filter(begins).collect()
    };
    // Spelled as the user spelled the directory.
    in_parallel(found, |dir| {
        Description::workspace(&dir, Some(dir.display().to_string()), verdicts).model
    })
}

impl Args {
    fn table(&self, models: &[&ModelObject]) -> String {
        let mut columns = vec![
            Column::text("Name"),
            Column::left("Hash"),
            Column::right("Size"),
            Column::left("Modified"),
            Column::left("Src"),
        ];
        let has_more = self.all || self.verbose;
        if has_more {
            columns.extend([Column::left("Clean"), Column::left("Framework")]);
        }
        columns.push(Column::left("Type"));
        match (self.health, self.verbose) {
            (true, true) => columns.extend([
                Column::left("Integrity"),
                Column::left("Runtime"),
                Column::text("Reason"),
            ]),
            (true, false) => columns.push(Column::left("Health")),
            (false, _) => {}
        }
        let now = Timestamp::now();
        let rows: Vec<Vec<String>> = models.iter().map(|model| self.row(model, now)).collect();
        render(&columns, &rows, terminal_width())
    }

    fn row(&self, model: &ModelObject, now: Timestamp) -> Vec<String> {
        let mut row = vec![
            self.name(model),
            short_hash(model).unwrap_or("-").to_owned(),
            Bytes(model.size_bytes).to_string(),
            model.last_modified.as_deref().map_or("-".to_owned(), |t| relative_time(t, now)),
            source(model).to_owned(),
        ];
        if self.all || self.verbose {
            let clean = model.clean.map_or("—", |clean| if clean { "✓" } else { "✗" });
            row.extend([clean.to_owned(), model.framework.name().to_owned()]);
        }
        row.push(kind(model));
        let runs = if model.runtime_compatible { "yes" } else { "no" };
        let health = model.health.name();
        match (self.health, self.verbose) {
            (true, true) => {
                let reason = model.reason.clone().unwrap_or("-".to_owned());
                row.extend([health.to_owned(), runs.to_owned(), reason]);
            }
            // Sound, and does not run.
            (true, false) if model.health == Health::Healthy && !model.runtime_compatible => {
                row.push("healthy*".to_owned());
            }
            (true, false) => row.push(health.to_owned()),
            (false, _) => {}
        }
        row
    }

    fn name(&self, model: &ModelObject) -> String {
        let name = model.display_name.as_deref().unwrap_or(&model.name);
        let short = name.strip_prefix(USUAL_OWNER).filter(|_| !self.verbose);
        short.unwrap_or(name).to_owned()
    }

    /// Says on stderr where the models are that the user may be looking for.
    fn say_what_is_missing(
        &self,
        models: &[ModelObject],
        shown: usize,
        resolver: &Resolver,
        output: &Output,
    ) {
        let root = resolver.cache().root().display();
        match models.len() - shown {
            0 if models.is_empty() && self.pattern.is_some() => output.hint("no model matches"),
            0 if models.is_empty() => output.hint(&format!("there are no models in {root}")),
            0 => {}
            1 => output
                .hint("1 more does not run here: `mlxk list --all --health --verbose` tells why"),
            n => output.hint(&format!(
                "{n} more do not run here: `mlxk list --all --health --verbose` tells why"
            )),
        }
    }
}

/// Returns as much of the commit, or of the content's hash, as tells models apart.
fn short_hash(model: &ModelObject) -> Option<&str> {
    let content = model.content_hash.as_deref().map(|hash| hash.trim_start_matches("sha256:"));
    model.hash.as_deref().or(content)?.get(..7)
}

/// Says where a model is; of a workspace also whether it was changed.
fn source(model: &ModelObject) -> &'static str {
    match (model.cached, model.clean) {
        (true, _) => "cache",
        (false, Some(true)) => "ws",
        (false, Some(false)) => "ws*",
        (false, None) => "ws?",
    }
}

/// Says what a model is for, as `chat+vision`.
fn kind(model: &ModelObject) -> String {
    let senses = model.capabilities.iter().filter(|capability| {
        matches!(capability, Capability::Vision | Capability::Audio)
            && capability.name() != model.model_type.name()
    });
    senses.fold(model.model_type.name().to_owned(), |kind, sense| kind + "+" + sense.name())
}
