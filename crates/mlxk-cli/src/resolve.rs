//! What a MODEL argument means, for every command.
//!
//! The first of these that holds: a path (`./x`, `../x`, `/x`), the embedded model, the exact name
//! of a workspace in the workspace home or of a cached model, the name of one of mlx-community's,
//! a directory, and, only to read, a part of one name. `@` and a branch, a tag or the beginning of a
//! commit behind the name choose a revision. What could mean several is an error that lists them.
//!
//! Nothing is deleted or downloaded on a guess: see [`Purpose`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use mlx_lm::files::ModelFiles;
use strsim::levenshtein;

use crate::error::{CommandError, Kind};
use crate::hub::{Cache, CachedModel, Snapshot, short_name};
use crate::settings::Settings;

/// The name of the embedded model.
pub(crate) const DEMO: &str = "demo";

/// The owner that names without one are looked up under.
const DEFAULT_OWNER: &str = "mlx-community";

/// The most candidates that a message lists; `matches` has all.
const MAX_LISTED: usize = 10;

/// What a model is wanted for, which decides how far its name may be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run it or look at it.
    Read,
    /// To delete it: only in the cache, and no part of a name. Directories are the user's own.
    Delete,
    /// To fetch or copy it: no part of a name, and no workspace by its name alone.
    Download,
}

/// What a name means.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// The model that is part of the program.
    Demo,
    /// A directory with a model's files.
    Workspace(PathBuf),
    /// A revision of a cached model.
    Cached(Cached),
}

/// A revision of a cached model.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    pub(crate) model: CachedModel,
    pub(crate) snapshot: Snapshot,
    /// How the name was understood.
    pub(crate) spelling: Spelling,
    /// Whether a revision was named.
    pub(crate) is_pinned: bool,
}

/// How a name was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As it stands.
    Exact,
    /// With the owner `mlx-community` before it.
    Short,
    /// As a part of the only name that has it.
    Part,
}

/// Finds models by name.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    cache: Cache,
    workspace_home: Option<PathBuf>,
}

impl Resolver {
    pub(crate) fn new(cache: Cache, workspace_home: Option<PathBuf>) -> Self {
        Resolver { cache, workspace_home: workspace_home.filter(|home| home.is_dir()) }
    }

    pub(crate) fn of(settings: &Settings) -> Self {
        let cache = Cache::new(&settings.hub_cache.value);
        Resolver::new(cache, settings.workspace_home.value.clone())
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Lists the workspaces in the workspace home by name.
    pub(crate) fn workspaces(&self) -> Vec<PathBuf> {
        self.workspace_home.as_deref().map_or_else(Vec::new, workspaces_in)
    }

    /// Finds a model.
    ///
    /// # Errors
    /// [`Kind::AmbiguousMatch`] where several have that name or part of one, [`Kind::ModelNotFound`]
    /// where none has it, [`Kind::RevisionNotFound`] where the model has no such revision,
    /// [`Kind::WorkspaceModel`] where a directory was to be deleted.
    pub(crate) fn resolve(&self, spec: &Path, purpose: Purpose) -> Result<Resolved, CommandError> {
        let text = spec.to_str();
        if text.is_some_and(|text| text.trim().is_empty()) {
            return Err(CommandError::usage("the name of the model is empty"));
        }
        if is_explicit_path(spec) {
            return self.path(spec, purpose);
        }
        if spec == Path::new(DEMO) && purpose != Purpose::Delete {
            return Ok(Resolved::Demo);
        }
        if purpose == Purpose::Read
            && let Some(workspace) = self.workspace(spec)
        {
            return Ok(Resolved::Workspace(workspace));
        }
        // Names in the cache are text; anything else can only be a path.
        if let Some(text) = text
            && let Some(found) = self.cached(text, purpose)?
        {
            return Ok(Resolved::Cached(found));
        }
        if is_workspace_dir(spec) || self.workspace(spec).is_some() {
            return match purpose {
                Purpose::Read => Ok(Resolved::Workspace(spec.to_path_buf())),
                Purpose::Delete => Err(is_workspace(spec)),
                Purpose::Download => Err(not_found(spec).hint(path_hint(spec))),
            };
        }
        self.by_part(spec, purpose)
    }

    fn path(&self, path: &Path, purpose: Purpose) -> Result<Resolved, CommandError> {
        match (path.exists(), purpose) {
            (false, _) => {
                let text =
                    format!("model `{}` not found: there is no such directory", path.display());
                Err(CommandError::new(Kind::ModelNotFound, text)
                    .hint("give the directory that holds the model's config.json")
                    .hint(format!("`{DEMO}` is the model that is part of this program")))
            }
            (true, Purpose::Delete) => Err(is_workspace(path)),
            (true, _) => Ok(Resolved::Workspace(path.to_path_buf())),
        }
    }

    /// Finds a workspace in the workspace home by its exact name.
    fn workspace(&self, name: &Path) -> Option<PathBuf> {
        let home = self.workspace_home.as_deref()?;
        let is_one_name =
            name.components().count() == 1 && name.file_name() == Some(name.as_os_str());
        let path = home.join(name);
        (is_one_name && is_workspace_dir(&path)).then_some(path)
    }

    /// Finds a cached model by its exact or short name, with or without a revision.
    fn cached(&self, text: &str, purpose: Purpose) -> Result<Option<Cached>, CommandError> {
        let (name, revision) = split_revision(text);
        let exact = self.cache.model(name).map(|model| (model, Spelling::Exact));
        let short = || {
            let model = (!name.contains('/')).then(|| format!("{DEFAULT_OWNER}/{name}"))?;
            Some((self.cache.model(&model)?, Spelling::Short))
        };
        let Some((model, spelling)) = exact.or_else(short) else { return Ok(None) };
        pick(model, revision, spelling, purpose).map(Some)
    }

    /// Finds the one model that has this as a part of its name, in any case of letters.
    fn by_part(&self, spec: &Path, purpose: Purpose) -> Result<Resolved, CommandError> {
        let text = spec.to_string_lossy();
        let (name, revision) = split_revision(&text);
        let candidates = self.containing(name, revision, purpose)?;
        let names: Vec<String> = candidates.iter().map(Candidate::name).collect();
        match (<[Candidate; 1]>::try_from(candidates), purpose) {
            (Ok([Candidate::Workspace(path)]), Purpose::Read) => Ok(Resolved::Workspace(path)),
            (Ok([Candidate::Model(model)]), Purpose::Read) => {
                pick(model, revision, Spelling::Part, purpose).map(Resolved::Cached)
            }
            (Ok(_), _) => Err(not_exact(spec, names)),
            // It is there, so what it lacks is to be told.
            (Err(none), Purpose::Read) if none.is_empty() && spec.exists() => {
                Ok(Resolved::Workspace(spec.to_path_buf()))
            }
            (Err(none), _) if none.is_empty() => Err(self.none(spec, name)),
            (Err(_), _) => Err(ambiguous(&text, names)),
        }
    }

    /// Returns what has `part` in its name; with a revision, the models that have that.
    fn containing(
        &self,
        part: &str,
        revision: Option<&str>,
        purpose: Purpose,
    ) -> Result<Vec<Candidate>, CommandError> {
        let part = part.to_lowercase();
        let models = self.models()?.into_iter();
        let models = models.filter(|model| model.id().to_lowercase().contains(&part));
        let models = models
            .filter(|model| revision.is_none_or(|revision| !model.revisions(revision).is_empty()));
        let mut candidates: Vec<Candidate> = models.map(Candidate::Model).collect();
        if purpose == Purpose::Read && revision.is_none() {
            let has_part = |path: &PathBuf| file_name(path).to_lowercase().contains(&part);
            let workspaces = self.workspaces().into_iter().filter(has_part);
            candidates.extend(workspaces.map(Candidate::Workspace));
        }
        Ok(candidates)
    }

    /// Lists the cached models.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub(crate) fn models(&self) -> Result<Vec<CachedModel>, CommandError> {
        self.cache.models().map_err(|error| CommandError::file(self.cache.root(), &error))
    }

    /// Makes the error for a name that nothing has, with the names that are nearly it.
    fn none(&self, spec: &Path, name: &str) -> CommandError {
        let error = not_found(spec);
        let models = self.models().unwrap_or_default();
        let wanted = name.to_lowercase();
        let most = 1 + wanted.chars().count() / 6;
        let near = models.iter().filter(|model| {
            let id = model.id().to_lowercase();
            levenshtein(&wanted, &id).min(levenshtein(&wanted, short_name(&id))) <= most
        });
        let near: Vec<String> = near.map(|model| format!("`{}`", model.id())).take(3).collect();
        let error = match near.is_empty() {
            true => error.hint("`mlxk list --all` shows the models that are here"),
            false => error.hint(format!("there is {}", near.join(", "))),
        };
        error.hint(format!("`{DEMO}` is the model that is part of this program"))
    }
}

/// What has a given part in its name.
#[derive(Debug)]
enum Candidate {
    Model(CachedModel),
    Workspace(PathBuf),
}

impl Candidate {
    fn name(&self) -> String {
        match self {
            Candidate::Model(model) => model.id().to_owned(),
            Candidate::Workspace(path) => path.display().to_string(),
        }
    }
}

impl Resolved {
    /// Opens the files.
    ///
    /// # Errors
    /// When the directory holds none or cannot be read.
    pub(crate) fn files(&self) -> Result<ModelFiles, CommandError> {
        let dir = match self {
            Resolved::Demo => return Ok(ModelFiles::embedded(DEMO, fixtures::demo::FILES)),
            Resolved::Workspace(dir) => dir,
            Resolved::Cached(cached) => &cached.snapshot.dir,
        };
        ModelFiles::directory(dir).map_err(|error| {
            let error = CommandError::from(error);
            match error.kind {
                Kind::Usage => CommandError { kind: Kind::InvalidModel, ..error },
                _ => error,
            }
        })
    }
}

/// Lists the directories below one that hold a model's configuration, by name.
pub(crate) fn workspaces_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| is_workspace_dir(path)).collect();
    paths.sort();
    paths
}

/// Whether a directory holds a model's configuration; hidden ones do not count.
pub(crate) fn is_workspace_dir(path: &Path) -> bool {
    !file_name(path).starts_with('.') && path.join("config.json").is_file()
}

/// Whether an argument is spelled as a path: `.`, `..`, `./x`, `../x`, `/x`.
pub(crate) fn is_explicit_path(spec: &Path) -> bool {
    let bytes = spec.as_os_str().as_encoded_bytes();
    spec.is_absolute()
        || matches!(bytes, b"." | b"..")
        || bytes.starts_with(b"./")
        || bytes.starts_with(b"../")
}

/// Splits `name@revision` at the last `@`.
fn split_revision(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('@') {
        Some((name, revision)) if !name.is_empty() => (name, Some(revision)),
        _ => (text, None),
    }
}

/// Picks the revision that was asked for, or that of the main branch.
fn pick(
    model: CachedModel,
    revision: Option<&str>,
    spelling: Spelling,
    purpose: Purpose,
) -> Result<Cached, CommandError> {
    let Some(revision) = revision else {
        let snapshot = match model.main() {
            Some(snapshot) => snapshot,
            // What is broken can be deleted all the same.
            None if purpose == Purpose::Delete => no_snapshot(&model),
            None => return Err(no_main(&model)),
        };
        return Ok(Cached { model, snapshot, spelling, is_pinned: false });
    };
    let snapshots = model.revisions(revision);
    match <[Snapshot; 1]>::try_from(snapshots) {
        Ok([snapshot]) => Ok(Cached { model, snapshot, spelling, is_pinned: true }),
        Err(none) if none.is_empty() => Err(no_revision(&model, revision)),
        Err(several) => {
            let names = several.iter().map(|s| format!("{}@{}", model.id(), s.commit));
            Err(ambiguous(&format!("{}@{revision}", model.id()), names.collect()))
        }
    }
}

fn no_snapshot(model: &CachedModel) -> Snapshot {
    Snapshot { commit: String::new(), dir: model.dir().join("snapshots") }
}

fn no_main(model: &CachedModel) -> CommandError {
    let id = model.id();
    let snapshots = model.snapshots();
    let error = match model.main_commit() {
        Some(commit) if !snapshots.is_empty() => {
            let text = format!("{id}: the files of its main revision {commit} are not here");
            CommandError::new(Kind::InvalidModel, text)
        }
        _ => CommandError::new(Kind::InvalidModel, format!("{id}: no files of it are here")),
    };
    let error = error.hint("a download was interrupted; fetch the model again");
    snapshots.first().into_iter().fold(error, |error, snapshot| {
        error.hint(format!("an older revision is here: `{id}@{}`", short_hash(&snapshot.commit)))
    })
}

fn no_revision(model: &CachedModel, revision: &str) -> CommandError {
    let id = model.id();
    let snapshots = model.snapshots();
    let hashes: Vec<String> = snapshots.iter().map(|s| short_hash(&s.commit).to_owned()).collect();
    let text = match model.refs().get(revision) {
        Some(commit) => {
            format!("{id}: the files of revision `{revision}`, commit {commit}, are not here")
        }
        None => format!("{id}: there is no revision `{revision}` here"),
    };
    let mut error = CommandError::new(Kind::RevisionNotFound, text);
    if !hashes.is_empty() {
        error = error.hint(format!("revisions that are here: {}", hashes.join(", ")));
    }
    CommandError { available_hashes: hashes, ..error }
}

/// Returns as much of a commit as mlx-knife shows for one that can be chosen.
fn short_hash(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

fn is_workspace(path: &Path) -> CommandError {
    let text = format!("`{}` is a directory of your own, not a cached model", path.display());
    CommandError::new(Kind::WorkspaceModel, text)
        .hint("only cached models are removed; delete it yourself")
}

fn ambiguous(name: &str, matches: Vec<String>) -> CommandError {
    let listed: Vec<&str> = matches.iter().take(MAX_LISTED).map(String::as_str).collect();
    let more = match matches.len() - listed.len() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let text = format!("`{name}` could be any of {}{more}", listed.join(", "));
    CommandError::new(Kind::AmbiguousMatch, text)
        .hint("give more of the name, or all of it")
        .matches(matches)
}

/// Makes the error for a part of a name where only whole names count.
fn not_exact(spec: &Path, matches: Vec<String>) -> CommandError {
    let name = spec.display();
    let text = format!("no model is called `{name}`; {} has that in its name", matches.join(", "));
    CommandError::new(Kind::ModelNotFound, text).hint("give the whole name").matches(matches)
}

fn not_found(spec: &Path) -> CommandError {
    let name = spec.display();
    let text = format!("model `{name}` not found: it is neither in the cache nor a directory");
    let error = CommandError::new(Kind::ModelNotFound, text);
    match is_hub_name(spec) {
        true => {
            error.hint(format!("`{name}` looks like a name on a hub; models are not downloaded"))
        }
        false => error,
    }
}

fn path_hint(spec: &Path) -> String {
    format!("`./{}` is the directory", spec.display())
}

/// Whether something reads like `org/name`.
fn is_hub_name(spec: &Path) -> bool {
    let Some((owner, name)) = spec.to_str().and_then(|text| text.split_once('/')) else {
        return false;
    };
    !owner.is_empty() && !owner.starts_with('.') && !name.is_empty() && !name.contains('/')
}

fn file_name(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

#[cfg(test)]
mod tests;
