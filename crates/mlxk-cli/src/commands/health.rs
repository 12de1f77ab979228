//! `mlxk health`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::health::{self, CODES, Code, Finding, HealthOptions, HealthReport, Severity};
use crate::hub::short_name;
use crate::output::{Output, printable};
use crate::resolve::{Purpose, Resolved, Resolver};
use crate::settings::Settings;
use crate::verdicts::{Tree, Verdicts, in_parallel};
use crate::workspace;

/// Check whether a model's files are all there and sound
///
/// Reads the configuration, the tokenizer, and the headers of the weight files; with --deep also
/// the weights themselves. Every finding has a code, a severity and, where something mends it,
/// the command that does. A model with an error is unhealthy, one with warnings or notes is not;
/// with --strict-exit the exit code is 4 where a model is unhealthy. Without MODEL all workspaces
/// and cached models are checked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory with the model's files, or the name of a cached model
    #[arg(value_hint = clap::ValueHint::DirPath)]
    model: Option<PathBuf>,

    /// Read everything: hash cached files, look for NaN in weights, build the tokenizer
    #[arg(long)]
    deep: bool,

    /// Tell what the code of a finding means, `all` of every one; looks at no model
    #[arg(long, value_name = "CODE", conflicts_with_all = ["model", "deep"])]
    explain: Option<String>,
}

/// `data` of the envelope; what mlx-knife has no field for is added.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "health")]
pub(crate) struct Data {
    healthy: Vec<Entry>,
    unhealthy: Vec<Entry>,
    summary: Summary,
    /// What codes mean, where that was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    codes: Vec<Explained>,
}

/// A code of findings.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "health_code")]
struct Explained {
    code: &'static str,
    severity: Severity,
    /// Its number in mlx-knife's catalogue of known defects.
    defect: Option<&'static str>,
    meaning: &'static str,
    mended_by: String,
}

impl From<&Code> for Explained {
    fn from(code: &Code) -> Explained {
        let &Code { name, severity, defect, meaning, remedy } = code;
        Explained { code: name, severity, defect, meaning, mended_by: remedy.to_string() }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "health_entry")]
struct Entry {
    name: String,
    status: &'static str,
    reason: String,
    /// Whether a workspace is a managed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<bool>,
    findings: Vec<Finding>,
}

#[derive(Serialize, JsonSchema)]
struct Summary {
    total: usize,
    healthy_count: usize,
    unhealthy_count: usize,
}

impl Entry {
    fn new(name: String, managed: Option<bool>, report: HealthReport) -> Entry {
        let status = if report.healthy { "healthy" } else { "unhealthy" };
        Entry { name, status, reason: report.reason(), managed, findings: report.findings }
    }
}

impl Data {
    fn new(entries: Vec<Entry>) -> Data {
        let total = entries.len();
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.status == "healthy");
        let summary =
            Summary { total, healthy_count: healthy.len(), unhealthy_count: unhealthy.len() };
        Data { healthy, unhealthy, summary, codes: Vec::new() }
    }
}

/// One model to be checked.
enum Target {
    Workspace(PathBuf),
    Cached {
        name: String,
        dir: PathBuf,
    },
    /// A cached model without any revision.
    Hollow(String),
    Demo,
}

impl Target {
    fn check(&self, deep: bool, verdicts: &Verdicts) -> Entry {
        let look = |dir: &Path, options: &HealthOptions| {
            verdicts.get(dir, &Tree::read(dir), options).health
        };
        match self {
            Target::Workspace(dir) => {
                let path = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                let report = look(dir, &HealthOptions { deep, ..Default::default() });
                let managed = Some(workspace::is_managed(dir));
                Entry::new(path.display().to_string(), managed, report)
            }
            Target::Cached { name, dir } => {
                let options =
                    HealthOptions { name: Some(name.clone()), deep, ..Default::default() };
                Entry::new(name.clone(), None, look(dir, &options))
            }
            Target::Hollow(name) => Entry::new(name.clone(), None, health::without_snapshot(name)),
            Target::Demo => {
                let report = HealthReport { healthy: true, findings: Vec::new() };
                Entry::new(crate::resolve::DEMO.to_owned(), None, report)
            }
        }
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    if let Some(code) = &args.explain {
        return explain(code, output);
    }
    let settings = Settings::load()?;
    let resolver = Resolver::of(&settings);
    let (targets, verdicts): (Vec<_>, _) = match &args.model {
        // Who asks for one model gets a look at it.
        Some(model) => (named(&resolver, model)?.into_iter().collect(), Verdicts::default()),
        None => (all(&resolver)?, Verdicts::load(&settings)),
    };
    let entries = in_parallel(targets, |target| target.check(args.deep, &verdicts));
    verdicts.save();
    let data = Data::new(entries);
    if args.model.is_some() && data.summary.total == 0 {
        output.verdict(Kind::ModelNotFound);
    }
    if data.summary.unhealthy_count > 0 {
        output.verdict(Kind::InvalidModel);
    }
    match output.is_json() {
        true => output.success("health", &data),
        false => output.write(&printable(&text(&data))),
    }
}

/// Tells what a code means.
fn explain(code: &str, output: &Output) -> Result<(), CommandError> {
    let known = CODES.iter().filter(|known| code == "all" || known.name == code);
    let codes: Vec<Explained> = known.map(|code| (*code).into()).collect();
    if codes.is_empty() {
        return Err(CommandError::usage(format!("no finding has the code `{code}`"))
            .hint("`mlxk health --explain all` lists the codes"));
    }
    if output.is_json() {
        return output.success("health", &Data { codes, ..Data::new(Vec::new()) });
    }
    let mut text = String::new();
    for Explained { code, severity, defect, meaning, mended_by } in codes {
        let defect = defect.map_or(String::new(), |id| format!(" ({id})"));
        let _ = writeln!(text, "{code}: {}{defect}", severity.name());
        let _ = writeln!(text, "  {meaning}\n  mended by: {mended_by}");
    }
    output.write(&text)
}

/// Finds the model of a name; that there is none is no error, as in mlx-knife.
fn named(resolver: &Resolver, model: &Path) -> Result<Option<Target>, CommandError> {
    match resolver.resolve(model, Purpose::Read) {
        Ok(Resolved::Demo) => Ok(Some(Target::Demo)),
        Ok(Resolved::Workspace(dir)) => Ok(Some(Target::Workspace(dir))),
        Ok(Resolved::Cached(cached)) => {
            let name = cached.model.id().to_owned();
            Ok(Some(Target::Cached { name, dir: cached.snapshot.dir.clone() }))
        }
        Err(error) if error.kind == Kind::AmbiguousMatch => Err(error),
        // A directory that is no model yet, or no longer, can be asked about, too.
        Err(_) if model.is_dir() => Ok(Some(Target::Workspace(model.to_owned()))),
        Err(error) if matches!(error.kind, Kind::ModelNotFound | Kind::RevisionNotFound) => {
            let name = model.to_str().and_then(|name| resolver.cache().model(name));
            Ok(name.map(|model| Target::Hollow(model.id().to_owned())))
        }
        Err(error) => Err(error),
    }
}

/// Lists the workspaces, then the cached models but for those that a workspace stands for.
fn all(resolver: &Resolver) -> Result<Vec<Target>, CommandError> {
    let workspaces = resolver.workspaces();
    let names: Vec<_> = workspaces.iter().filter_map(|dir| dir.file_name()).collect();
    let cache = resolver.cache();
    let models = cache.models().map_err(|error| CommandError::file(cache.root(), &error))?;
    let models = models.into_iter().filter(|model| {
        let short = std::ffi::OsStr::new(short_name(model.id()));
        !names.contains(&short) && !model.id().contains("TEST-CACHE-SENTINEL")
    });
    let cached = models.map(|model| {
        let name = model.id().to_owned();
        match model.main() {
            Some(snapshot) => Target::Cached { name, dir: snapshot.dir.clone() },
            None => Target::Hollow(name),
        }
    });
    let cached: Vec<Target> = cached.collect();
    Ok(workspaces.into_iter().map(Target::Workspace).chain(cached).collect())
}

fn text(data: &Data) -> String {
    let mut text = String::new();
    let Summary { total, healthy_count, unhealthy_count } = data.summary;
    if total != 1 {
        let _ = writeln!(
            text,
            "Summary: total {total}, healthy {healthy_count}, unhealthy {unhealthy_count}"
        );
    }
    for entry in data.healthy.iter().chain(&data.unhealthy) {
        let _ = writeln!(text, "{:<9} {} — {}", entry.status, entry.name, entry.reason);
        for finding in &entry.findings {
            let Finding { code, severity, message, repair, .. } = finding;
            let _ = writeln!(text, "  {:<7} {code}: {message}", severity.name());
            if let Some(repair) = repair {
                let _ = writeln!(text, "          repair: {repair}");
            }
        }
    }
    text
}
