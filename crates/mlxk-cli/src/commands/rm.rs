//! `mlxk rm`.

use std::io;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::hub::{CachedModel, Lock, RemovePlan, locks};
use crate::model;
use crate::output::{Bytes, Output};
use crate::resolve::{Cached, Purpose, Resolved, Resolver, Spelling};
use crate::settings::is_yes;

/// Delete a cached model, or one of its revisions
///
/// `org/name` deletes the model with all its revisions; `org/name@revision` deletes that revision
/// and the files that no other one uses. A name without its owner deletes nothing unless --force is
/// given; a part of a name never does. Workspaces are directories of your own and stay.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model's name, with `@` and a branch, tag or commit behind it for one revision
    model: PathBuf,

    /// Delete what a name without its owner means, and what another program is downloading
    #[arg(short, long)]
    force: bool,
}

/// `data` of the envelope.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "rm")]
pub(crate) struct Data {
    model: Option<String>,
    action: Action,
    message: String,
    requires_confirmation: bool,
    matches: Vec<String>,
    lock_files_cleaned: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    locks_detected: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lock_files: Vec<String>,
    /// The revision that was deleted, where it was not the whole model.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_hash: Option<String>,
    /// The space that is free now.
    freed_bytes: u64,
}

/// How far it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    #[default]
    Unknown,
    Ambiguous,
    RequiresConfirmation,
    Deleted,
}

/// Where only caches made for tests may be changed: mlx-knife's variable, and its mark of such.
const STRICT_TEST: &str = "MLXK2_STRICT_TEST_DELETE";
const TEST_CACHE: &str = "mlxk2_test_";

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let resolver = model::resolver()?;
    let mut data = Data::default();
    match args.delete(&resolver, &mut data) {
        Ok(()) => {
            if data.requires_confirmation {
                output.verdict(Kind::ConfirmationNeeded);
            }
            report(&data, output)
        }
        Err(error) => {
            if error.kind == Kind::AmbiguousMatch {
                data.action = Action::Ambiguous;
            }
            data.matches.clone_from(&error.matches);
            let data = serde_json::to_value(&data);
            Err(error.data(data.map_err(|e| CommandError::new(Kind::General, e))?))
        }
    }
}

impl Args {
    fn delete(&self, resolver: &Resolver, data: &mut Data) -> Result<(), CommandError> {
        let root = resolver.cache().root();
        let cached = match resolver.resolve(&self.model, Purpose::Delete) {
            Ok(Resolved::Cached(cached)) => cached,
            // The resolver gives nothing else to delete.
            Ok(_) => return Err(CommandError::new(Kind::ModelNotFound, "no cached model")),
            Err(error) if error.kind == Kind::ModelNotFound && !root.is_dir() => {
                let text = format!("the cache {} does not exist", root.display());
                return Err(CommandError::new(Kind::CacheNotFound, text));
            }
            // A part of one name: it is said which, and nothing is done.
            Err(error) => match (error.kind, error.matches.as_slice(), self.force) {
                (Kind::ModelNotFound, [only], false) => {
                    let model = only.clone();
                    self.ask(&model, data);
                    return Ok(());
                }
                _ => return Err(error),
            },
        };
        let name = named(&cached);
        data.model = Some(cached.model.id().to_owned());
        if cached.spelling != Spelling::Exact && !self.force {
            self.ask(&name, data);
            return Ok(());
        }
        if std::env::var(STRICT_TEST).is_ok_and(|text| is_yes(&text))
            && !root.to_string_lossy().contains(TEST_CACHE)
        {
            let text = format!("{STRICT_TEST} is set, and {} is no test's cache", root.display());
            return Err(CommandError::new(Kind::PermissionDenied, text));
        }
        self.refuse_locked(&cached.model, root, data)?;
        let Cached { model, snapshot, is_pinned, .. } = cached;
        let commit = snapshot.commit.clone();
        let plan = match is_pinned {
            true => RemovePlan::revision(model, snapshot),
            false => RemovePlan::model(model),
        };
        let removed = plan.execute().map_err(|error| failed(&name, &error))?;
        data.action = Action::Deleted;
        data.lock_files_cleaned = removed.locks;
        data.freed_bytes = removed.freed_bytes;
        data.message = match plan.is_whole_model() {
            true => format!("Deleted entire model {}", data.model.as_deref().unwrap_or_default()),
            false => format!("Deleted {name}"),
        };
        data.commit_hash = is_pinned.then_some(commit);
        Ok(())
    }

    /// Says what would be deleted.
    fn ask(&self, name: &str, data: &mut Data) {
        data.model = Some(name.split('@').next().unwrap_or_default().to_owned());
        data.action = Action::RequiresConfirmation;
        data.requires_confirmation = true;
        data.message = format!("Would delete '{name}' (matched from '{}')", self.model.display());
    }

    /// Refuses what is being downloaded.
    fn refuse_locked(
        &self,
        model: &CachedModel,
        root: &std::path::Path,
        data: &mut Data,
    ) -> Result<(), CommandError> {
        let held: Vec<Lock> = locks(model).into_iter().filter(|lock| lock.is_held).collect();
        if held.is_empty() || self.force {
            return Ok(());
        }
        let below = |lock: &Lock| {
            lock.path.strip_prefix(root).unwrap_or(&lock.path).to_string_lossy().replace('\\', "/")
        };
        data.locks_detected = Some(true);
        data.lock_files = held.iter().map(below).collect();
        let text = format!("{} is being downloaded: {} is held", model.id(), data.lock_files[0]);
        Err(CommandError::new(Kind::LocksPresent, text)
            .hint("wait for the other program to end; --force deletes all the same"))
    }
}

/// Returns the whole name of what is deleted.
fn named(cached: &Cached) -> String {
    match cached.is_pinned {
        true => format!("{}@{}", cached.model.id(), cached.snapshot.commit),
        false => cached.model.id().to_owned(),
    }
}

fn failed(name: &str, error: &io::Error) -> CommandError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        _ => Kind::DeletionFailed,
    };
    CommandError::new(kind, format!("{name} was not deleted: {error}"))
        .hint("`mlxk prune` clears away what a deletion left behind")
}

fn report(data: &Data, output: &Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.success("rm", data);
    }
    let model = data.model.as_deref().unwrap_or_default();
    match data.action {
        Action::RequiresConfirmation => {
            let message = &data.message;
            output.write(&format!("rm: {model} — requires_confirmation: {message}\n"))?;
            output.hint(&format!("nothing was deleted; `mlxk rm {model}` deletes it"));
            Ok(())
        }
        _ => {
            let freed = Bytes(data.freed_bytes);
            output.write(&format!("rm: {model} — deleted: {} ({freed})\n", data.message))
        }
    }
}
