//! A model as `list` and `show` tell of it: mlx-knife's fields, and none that means another thing.

use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use mlx_lm::files::ModelFiles;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::detect::{Capability, Detected, Framework, ModelKind, detect};
use crate::health::{self, HealthOptions, HealthReport};
use crate::hub::{CachedModel, Snapshot};
use crate::verdicts::{Tree, Verdict, Verdicts, detect_in};
use crate::workspace::sentinel::Sentinel;

/// The model object of the JSON interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ModelObject {
    /// `org/name`, or the absolute path of a workspace.
    pub(crate) name: String,
    /// What the list calls a workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// The commit of a cached model.
    pub(crate) hash: Option<String>,
    /// The size of all of its files; links are followed.
    pub(crate) size_bytes: u64,
    /// When the directory last changed, in UTC.
    pub(crate) last_modified: Option<String>,
    pub(crate) framework: Framework,
    pub(crate) model_type: ModelKind,
    pub(crate) capabilities: Vec<Capability>,
    /// The context window in tokens, as the configuration states it.
    pub(crate) context_length: Option<u64>,
    pub(crate) health: Health,
    pub(crate) runtime_compatible: bool,
    /// What is wrong first: with the files, or else why they do not run here.
    pub(crate) reason: Option<String>,
    pub(crate) cached: bool,
    /// The repository that a workspace was made from.
    pub(crate) origin: Option<String>,
    /// The hash of a workspace's content when it was last pinned.
    pub(crate) content_hash: Option<String>,
    /// When it was pinned.
    pub(crate) hash_modified: Option<String>,
    /// Whether a workspace is as it was pinned.
    pub(crate) clean: Option<bool>,
    /// `quantization` of the configuration; `show` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantization: Option<Value>,
}

/// Whether the files are sound, not whether they run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    Healthy,
    Unhealthy,
}

impl Health {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
    }
}

/// A model object, and all that was found in the files behind it.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) model: ModelObject,
    pub(crate) health: HealthReport,
}

impl Description {
    /// Describes a revision of a cached model; none is a download that brought no files.
    pub(crate) fn cached(
        model: &CachedModel,
        snapshot: Option<&Snapshot>,
        verdicts: &Verdicts,
    ) -> Description {
        let name = model.id().to_owned();
        let options = HealthOptions { name: Some(name.clone()), ..HealthOptions::default() };
        let mut description = match snapshot {
            Some(snapshot) => {
                let tree = Tree::read(&snapshot.dir);
                let verdict = verdicts.get(&snapshot.dir, &tree, &options);
                Description::new(name, &snapshot.dir, &tree, verdict)
            }
            None => {
                let health = health::without_snapshot(&name);
                let verdict = Verdict { health, detected: detect_in(model.dir()) };
                Description::new(name, model.dir(), &Tree::default(), verdict)
            }
        };
        description.model.hash = snapshot.and_then(Snapshot::hash).map(str::to_owned);
        description.model.cached = true;
        description
    }

    /// Describes a workspace, under the name that a list shows.
    pub(crate) fn workspace(
        dir: &Path,
        display_name: Option<String>,
        verdicts: &Verdicts,
    ) -> Description {
        let path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let tree = Tree::read(dir);
        let verdict = verdicts.get(dir, &tree, &HealthOptions::default());
        let mut description = Description::new(path.display().to_string(), dir, &tree, verdict);
        let model = &mut description.model;
        model.display_name = display_name;
        if let Some(mut sentinel) = managed(dir) {
            let text = |key: &str| sentinel.rest.get(key)?.as_str().map(str::to_owned);
            model.content_hash = text("content_hash");
            model.hash_modified = text("hash_modified");
            model.origin = sentinel.source_repo.clone();
            model.clean = sentinel.state(dir).clean();
        }
        description
    }

    fn new(name: String, dir: &Path, tree: &Tree, verdict: Verdict) -> Description {
        let Verdict { health, detected } = verdict;
        let mut model = ModelObject::new(name, detected);
        model.last_modified = last_modified(dir);
        model.size_bytes = tree.bytes;
        if !health.healthy {
            model.health = Health::Unhealthy;
            model.set_obstacle(health.reason());
        }
        Description { model, health }
    }
}

/// Returns the sentinel of a managed workspace.
pub(crate) fn managed(dir: &Path) -> Option<Sentinel> {
    Sentinel::read(dir).ok().filter(|sentinel| sentinel.managed)
}

impl ModelObject {
    /// Describes files wherever they are, without a word on whether they are sound.
    pub(crate) fn of_files(name: String, files: &ModelFiles) -> ModelObject {
        let last_modified = files.root().and_then(last_modified);
        ModelObject { last_modified, ..ModelObject::new(name, detect(files)) }
    }

    fn new(name: String, detected: Detected) -> ModelObject {
        let Detected { framework, kind, capabilities, context_length, quantization, obstacle } =
            detected;
        ModelObject {
            name,
            display_name: None,
            hash: None,
            size_bytes: 0,
            last_modified: None,
            framework,
            model_type: kind,
            capabilities,
            context_length,
            health: Health::Healthy,
            runtime_compatible: obstacle.is_none(),
            reason: obstacle,
            cached: false,
            origin: None,
            content_hash: None,
            hash_modified: None,
            clean: None,
            quantization,
        }
    }

    /// Notes why it does not run, before all other reasons.
    pub(crate) fn set_obstacle(&mut self, obstacle: String) {
        self.runtime_compatible = false;
        self.reason = Some(obstacle);
    }

    /// Whether a list shows it without being asked for more.
    pub(crate) fn is_runnable(&self) -> bool {
        self.health == Health::Healthy && self.runtime_compatible
    }
}

/// Returns when a directory last changed, as `2026-01-31T12:00:00Z`.
pub(crate) fn last_modified(dir: &Path) -> Option<String> {
    let modified: SystemTime = dir.metadata().ok()?.modified().ok()?;
    let timestamp = Timestamp::try_from(modified).ok()?;
    Some(timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
