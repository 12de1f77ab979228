//! Whether a model's files are all there and sound.
//!
//! [`check`] looks at one directory: a workspace, a snapshot of the hub's cache, or any other. It
//! reads small files whole and of weights the headers only, so that it takes milliseconds however
//! large a model is; with `deep` it reads everything. It asks whether the files are sound, not
//! whether the model runs here. Each thing it finds has a [`Code`] of the table in [`codes`], from
//! where the severity and the remedy come; a model is healthy when none of its findings is an
//! error. Weights are opened as the loader opens them, so that what is healthy can be loaded.
//!
//! [`listing`] is what there is at all; [`config`], [`weights`], [`tokenizer`] and [`processors`]
//! look at a part each, [`deep`] at the content.

mod codes;
pub(crate) mod config;
mod deep;
mod listing;
mod processors;
mod tokenizer;
mod weights;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use mlx_lm::files::ModelFiles;

pub(crate) use codes::{CODES, Code, Remedy, Severity};
pub(crate) use listing::BUILDING;
use listing::{Listing, State};

/// What to look at, and how findings are to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct HealthOptions {
    /// The name of a cached model, for commands that mend it; without one the directory is named.
    pub(crate) name: Option<String>,
    /// Whether the directory is one that is still being built, under the name of such.
    pub(crate) building: bool,
    /// Whether to read all content: hashes of cached files, NaN and infinities, the tokenizer.
    pub(crate) deep: bool,
}

/// The state of one model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HealthReport {
    pub(crate) healthy: bool,
    /// The worst first, and beyond that in the order of a check.
    pub(crate) findings: Vec<Finding>,
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// What is wrong with which file or tensor.
    pub(crate) message: String,
    /// A command or, where there is none, an action that mends it.
    pub(crate) repair: Option<String>,
    /// The number in mlx-knife's catalogue of known defects.
    pub(crate) defect: Option<&'static str>,
}

impl Finding {
    /// Makes a finding of a code by its name; nothing where there is no such code.
    pub(crate) fn known(code: &str, message: String, repair: Option<String>) -> Option<Finding> {
        let code = CODES.iter().find(|known| known.name == code)?;
        Some(Finding::new(code, message, repair))
    }

    fn new(code: &Code, message: String, repair: Option<String>) -> Finding {
        let Code { name, severity, defect, .. } = *code;
        Finding { code: name, severity, message, repair, defect }
    }
}

impl HealthReport {
    /// Sorts findings and judges by them.
    pub(crate) fn new(mut findings: Vec<Finding>) -> HealthReport {
        findings.sort_by_key(|finding| finding.severity);
        let healthy = findings.iter().all(|finding| finding.severity != Severity::Error);
        HealthReport { healthy, findings }
    }

    /// Returns one line for the whole, as `reason` of the JSON interface.
    pub(crate) fn reason(&self) -> String {
        let count = |severity| self.findings.iter().filter(|f| f.severity == severity).count();
        match (self.findings.first(), count(Severity::Warning)) {
            (Some(finding), _) if !self.healthy => finding.message.clone(),
            (_, 0) => "Model is healthy".to_owned(),
            (_, 1) => "Model is healthy, with 1 warning".to_owned(),
            (_, n) => format!("Model is healthy, with {n} warnings"),
        }
    }
}

/// Checks the model of a directory.
pub(crate) fn check(dir: &Path, options: &HealthOptions) -> HealthReport {
    check_files(dir, ModelFiles::directory(dir).ok(), options)
}

/// Checks the model of a directory whose files are known; nothing where it holds none.
pub(crate) fn check_files(
    dir: &Path,
    files: Option<ModelFiles>,
    options: &HealthOptions,
) -> HealthReport {
    let mut findings = Findings { place: Place::new(dir, options), list: Vec::new() };
    match Model::read(dir, files) {
        Ok(model) => {
            listing::check(&model, options.building, &mut findings);
            config::check(&model, &mut findings);
            let weights = weights::check(&model, &mut findings);
            tokenizer::check(&model, options.deep, &mut findings);
            processors::check(&model, &mut findings);
            if options.deep {
                deep::check(&model, &weights, &mut findings);
            }
        }
        Err(error) => {
            let absent = error.kind() == std::io::ErrorKind::NotFound;
            let code = if absent { &codes::DIRECTORY_MISSING } else { &codes::FILE_UNREADABLE };
            findings.add(code, format!("{}: {error}", dir.display()));
        }
    }
    HealthReport::new(findings.list)
}

/// Makes the report of a cached model of which there is no revision.
pub(crate) fn without_snapshot(name: &str) -> HealthReport {
    let mut findings = Findings { place: Place::Cached(name.to_owned()), list: Vec::new() };
    findings.add(&codes::SNAPSHOT_MISSING, format!("{name}: the cache has no revision of it"));
    HealthReport::new(findings.list)
}

/// What all parts of a check look at.
struct Model<'a> {
    dir: &'a Path,
    listing: Listing,
    /// Nothing where the directory holds no file.
    files: Option<ModelFiles>,
    /// `config.json`, where it is an object.
    config: Option<Value>,
    /// The JSON files that were read, by name: several parts of a check look at the same ones.
    json: RefCell<BTreeMap<String, Rc<Json>>>,
}

impl<'a> Model<'a> {
    fn read(dir: &'a Path, files: Option<ModelFiles>) -> std::io::Result<Self> {
        let listing = Listing::read(dir)?;
        let mut model = Model { dir, listing, files, config: None, json: RefCell::default() };
        if let Json::Object(config) = &*model.json("config.json") {
            model.config = Some(config.clone());
        }
        Ok(model)
    }

    /// Reads a file that is to hold a JSON object.
    fn json(&self, name: &str) -> Rc<Json> {
        if let Some(json) = self.json.borrow().get(name) {
            return json.clone();
        }
        let json = Rc::new(self.read_json(name));
        self.json.borrow_mut().insert(name.to_owned(), json.clone());
        json
    }

    fn read_json(&self, name: &str) -> Json {
        let (Some(files), Some(entry)) = (&self.files, self.listing.get(name)) else {
            return Json::Absent;
        };
        if matches!(entry.state, State::Dangling | State::Unreadable(_)) && !files.contains(name) {
            return Json::Absent;
        }
        match files.read_json(name) {
            Ok(Some(value)) if value.is_object() => Json::Object(value),
            Ok(Some(_)) => Json::Broken(format!("{name}: not a JSON object")),
            Ok(None) => Json::Absent,
            Err(error) => Json::Broken(self.short(&error.to_string())),
        }
    }

    /// Names files in an error's text from the model's directory on.
    fn short(&self, text: &str) -> String {
        let dir = self.dir.display().to_string();
        text.replace(&format!("{}/", dir.trim_end_matches('/')), "").replace(&dir, "the model")
    }

    /// Returns `model_type`, or nothing.
    fn model_type(&self) -> &str {
        let config = self.config.as_ref();
        config.and_then(|config| config["model_type"].as_str()).unwrap_or_default()
    }
}

/// A JSON file.
enum Json {
    Absent,
    Broken(String),
    Object(Value),
}

/// Findings as they come.
struct Findings {
    place: Place,
    list: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, code: &'static Code, message: impl Into<String>) {
        self.push(code, message.into(), self.place.repair(code.remedy));
    }

    /// Adds a finding of which its code's remedy does not help in this case.
    fn add_by_hand(&mut self, code: &'static Code, message: impl Into<String>) {
        self.push(code, message.into(), None);
    }

    fn push(&mut self, code: &'static Code, message: String, repair: Option<String>) {
        self.list.push(Finding::new(code, message, repair));
    }

    fn has_error(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// How commands call the model.
enum Place {
    Cached(String),
    Directory(String),
}

impl Place {
    fn new(dir: &Path, options: &HealthOptions) -> Place {
        match &options.name {
            Some(name) => Place::Cached(name.clone()),
            None => Place::Directory(quoted(&dir.display().to_string())),
        }
    }

    fn repair(&self, remedy: Remedy) -> Option<String> {
        match (remedy, self) {
            (Remedy::ByHand, _) => None,
            // Nothing is ever changed in the cache: first a copy.
            (Remedy::Convert(flag), Place::Cached(name)) => {
                let short = quoted(name.rsplit('/').next().unwrap_or(name));
                let clone = format!("mlxk clone {name} ./{short}");
                Some(format!("{clone} && mlxk convert ./{short} ./{short}-repaired {flag}"))
            }
            (Remedy::Convert(flag), Place::Directory(dir)) => {
                let dir = dir.trim_end_matches('/');
                Some(format!("mlxk convert {dir} {dir}-repaired {flag}"))
            }
            (Remedy::Download, Place::Cached(name)) => Some(format!("hf download {name}")),
            (Remedy::Download, Place::Directory(_)) => Some("download the model again".to_owned()),
        }
    }
}

/// Quotes a path for a shell where it needs that.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,=".contains(c);
    match path.chars().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}
