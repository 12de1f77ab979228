//! `mlxk clone`.

use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::health::{self, HealthOptions, HealthReport};
use crate::model;
use crate::output::{Output, printable};
use crate::resolve::{DEMO, Purpose, Resolved};
use crate::settings::Settings;
use crate::workspace::build::Building;
use crate::workspace::sentinel::{Sentinel, Source};
use crate::workspace::{copy, sentinel, target_path};

/// Make a workspace of a cached model, a directory, or the program's own model
///
/// Copies the files into a directory of their own, where they can be changed; the file system
/// shares their blocks where it can. The source stays as it is, and the workspace appears at once
/// when it is complete. An unhealthy model is cloned, too, so that it can be mended.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The name of a cached model, which may end in @REVISION, a directory, or `demo`
    #[arg(value_hint = clap::ValueHint::DirPath)]
    model: PathBuf,

    /// The workspace: a path, or a name in the workspace home [default: the model's name there]
    #[arg(value_hint = clap::ValueHint::DirPath)]
    target_dir: Option<PathBuf>,

    /// The revision of a cached model
    #[arg(long, value_name = "REV")]
    branch: Option<String>,

    /// Do not look whether the model is healthy
    #[arg(long)]
    no_health_check: bool,

    /// Print only where the workspace is
    #[arg(long)]
    quiet: bool,

    /// Without effect, as nothing is downloaded
    #[arg(long, hide = true)]
    force_resume: bool,
}

/// `data` of the envelope, as in mlx-knife.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "clone")]
pub(crate) struct Data {
    model: String,
    clone_status: &'static str,
    message: String,
    target_dir: String,
    health_check: bool,
    health: Option<&'static str>,
    health_reason: Option<String>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let settings = Settings::load()?;
    let (files, source) = source(args)?;
    let name = args.target_dir.clone().or_else(|| own_name(&source).map(PathBuf::from));
    let name = name.ok_or_else(|| CommandError::usage("the target directory is missing"))?;
    let home = settings.workspace_home.value.as_deref();
    if args.target_dir.is_none() && home.is_none() {
        return Err(CommandError::new(Kind::InvalidTarget, "the target directory is missing")
            .hint("give one, or set MLXK_WORKSPACE_HOME"));
    }
    let target = target_path(&name, home);
    let caches = [settings.hub_cache.value.clone()];
    let (building, health) = build(&files, &target, source, &caches, !args.no_health_check)
        .map_err(|error| with_data(error, args, &target))?;
    let target = building.target().to_path_buf();
    building.commit()?;
    let data = Data {
        model: args.model.display().to_string(),
        clone_status: "success",
        message: format!("Cloned to {}", target.display()),
        target_dir: target.display().to_string(),
        health_check: !args.no_health_check,
        health: health.as_ref().map(|r| if r.healthy { "healthy" } else { "unhealthy" }),
        health_reason: health.as_ref().map(HealthReport::reason),
    };
    match output.is_json() {
        true => output.success("clone", &data),
        false => output.write(&printable(&text(&data, args.quiet))),
    }
}

/// The files to copy.
enum Files {
    In(PathBuf),
    /// Those of the model that is part of the program.
    OfProgram,
}

impl Files {
    /// Writes them to a directory.
    fn write(&self, dir: &Path) -> io::Result<()> {
        match self {
            Files::In(source) => {
                let files = copy::files(source)?;
                files.iter().try_for_each(|(name, path)| copy::copy(path, dir, name))
            }
            Files::OfProgram => fixtures::demo::FILES
                .iter()
                .try_for_each(|(name, content)| std::fs::write(dir.join(name), content)),
        }
    }
}

/// Finds the files to copy and what the sentinel calls their origin.
fn source(args: &Args) -> Result<(Files, Source), CommandError> {
    let spec = match (&args.branch, args.model.to_str()) {
        (Some(branch), Some(name)) => PathBuf::from(format!("{name}@{branch}")),
        _ => args.model.clone(),
    };
    match model::resolver()?.resolve(&spec, Purpose::Download) {
        Ok(Resolved::Cached(cached)) => {
            let repo = cached.model.id().to_owned();
            let source = Source { repo, revision: Some(cached.snapshot.commit) };
            Ok((Files::In(cached.snapshot.dir), source))
        }
        Ok(Resolved::Workspace(dir)) => Ok((Files::In(dir.clone()), of_directory(&dir))),
        Ok(Resolved::Demo) => {
            Ok((Files::OfProgram, Source { repo: DEMO.to_owned(), revision: None }))
        }
        // Damaged ones are cloned to be mended.
        Err(_) if args.branch.is_none() && args.model.is_dir() => {
            Ok((Files::In(args.model.clone()), of_directory(&args.model)))
        }
        Err(error) => Err(error),
    }
}

/// Returns where the files of a workspace came from first, as far as is known.
pub(super) fn of_directory(dir: &Path) -> Source {
    let known = Sentinel::read(dir).ok();
    let path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let path = || path.display().to_string();
    match known {
        Some(Sentinel { source_repo: Some(repo), source_revision: revision, .. }) => {
            Source { repo, revision }
        }
        _ => Source { repo: path(), revision: None },
    }
}

fn own_name(source: &Source) -> Option<&str> {
    Path::new(&source.repo).file_name()?.to_str()
}

/// Copies everything and writes the sentinel, which comes last.
fn build(
    files: &Files,
    target: &Path,
    source: Source,
    caches: &[PathBuf],
    with_health: bool,
) -> Result<(Building, Option<HealthReport>), CommandError> {
    let failed = |error: io::Error| CommandError::new(Kind::CloneFailed, error.to_string());
    let building = Building::begin(target, caches)?;
    files.write(building.path()).map_err(failed)?;
    let mut sentinel = Sentinel::new("clone", source);
    pin(&mut sentinel, building.path());
    sentinel.write(building.path()).map_err(failed)?;
    let options = HealthOptions { building: true, ..Default::default() };
    let health = with_health.then(|| health::check(building.path(), &options));
    Ok((building, health))
}

/// Pins the content; a tree that has no hash, as one with a broken safetensors file, has none.
pub(super) fn pin(sentinel: &mut sentinel::Sentinel, dir: &Path) {
    let _ = sentinel.pin(dir);
}

fn with_data(error: CommandError, args: &Args, target: &Path) -> CommandError {
    let data = Data {
        model: args.model.display().to_string(),
        clone_status: "filesystem_error",
        message: error.to_string(),
        target_dir: target.display().to_string(),
        health_check: !args.no_health_check,
        health: None,
        health_reason: None,
    };
    match serde_json::to_value(&data) {
        Ok(data) => error.data(data),
        Err(_) => error,
    }
}

fn text(data: &Data, quiet: bool) -> String {
    let Data { model, target_dir, .. } = data;
    let health = match (data.health, &data.health_reason) {
        (Some("healthy"), _) => " (✓ healthy)".to_owned(),
        (Some(_), Some(reason)) => format!(" (⚠ unhealthy: {reason})"),
        _ => String::new(),
    };
    let health = if quiet { "" } else { &health };
    format!("clone: {model} → {target_dir}{health}\n")
}
