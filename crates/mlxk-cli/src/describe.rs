//! A model as `list` and `show` tell of it: mlx-knife's fields, and none that means another thing.

use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use mlx_lm::files::ModelFiles;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::detect::{Capability, Detected, Framework, ModelKind, detect};
use crate::hub::{CachedModel, Snapshot, files};
use crate::integrity;

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

impl ModelObject {
    /// Describes a revision of a cached model; none is a download that brought no files.
    pub(crate) fn cached(model: &CachedModel, snapshot: Option<&Snapshot>) -> ModelObject {
        let Some(snapshot) = snapshot else {
            let mut object = ModelObject::of_dir(model.id().to_owned(), model.dir());
            object.size_bytes = 0;
            object.set_defect("no files of its main revision are here".to_owned());
            return ModelObject { cached: true, ..object };
        };
        ModelObject {
            hash: snapshot.hash().map(str::to_owned),
            cached: true,
            ..ModelObject::of_dir(model.id().to_owned(), &snapshot.dir)
        }
    }

    /// Describes a workspace, under the name that a list shows.
    pub(crate) fn workspace(dir: &Path, display_name: Option<String>) -> ModelObject {
        let path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        ModelObject { display_name, ..ModelObject::of_dir(path.display().to_string(), dir) }
    }

    /// Describes files wherever they are, without a word on whether they are sound.
    pub(crate) fn of_files(name: String, files: &ModelFiles) -> ModelObject {
        let Detected { framework, kind, capabilities, context_length, quantization, obstacle } =
            detect(files);
        ModelObject {
            name,
            display_name: None,
            hash: None,
            size_bytes: 0,
            last_modified: files.root().and_then(last_modified),
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

    fn of_dir(name: String, dir: &Path) -> ModelObject {
        let found = ModelFiles::directory(dir);
        let mut object = match &found {
            Ok(files) => ModelObject::of_files(name, files),
            Err(_) => ModelObject::of_files(name, &ModelFiles::embedded("", &[])),
        };
        object.last_modified = last_modified(dir);
        object.size_bytes = files(dir).iter().filter_map(|file| file.size).sum();
        if let Some(defect) = integrity::defect(dir) {
            object.set_defect(defect);
        }
        object
    }

    /// Makes it unhealthy, for a reason that goes before others.
    pub(crate) fn set_defect(&mut self, defect: String) {
        self.health = Health::Unhealthy;
        self.runtime_compatible = false;
        self.reason = Some(defect);
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
