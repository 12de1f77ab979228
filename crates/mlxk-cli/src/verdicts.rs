//! What was found of models, kept from one run to the next, so that a list of hundreds is quick.
//!
//! A [`Verdict`] is all that is read from a model's files: their health, and what they are.
//! [`Verdicts`] has those of earlier runs in one file of the user's cache directory. One is used
//! as long as no file of the model is another one by its name, size, times or identity
//! ([`tree`]), and by the same build of this program only. That file is a convenience and nothing
//! else: where it is absent, damaged or cannot be written, models are looked at anew. So they are
//! where one is asked for by name, and with `--deep`; an unsound one always is, as what was wrong
//! may have been the disk. Nothing is deleted or copied by what is kept here.

mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx_lm::files::ModelFiles;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::CLI_VERSION;
use crate::detect::{Detected, detect};
use crate::health::{self, Finding, HealthOptions, HealthReport};
use crate::settings::Settings;

pub(crate) use tree::Tree;

const FILE: &str = "models.json";
/// The largest file that is read, in bytes; an entry takes less than a kilobyte.
const MAX_BYTES: u64 = 64 << 20;
/// The most models that are kept.
const MAX_MODELS: usize = 20_000;
/// How many models are looked at together. Disks are quicker when they are asked for much at once.
const AT_ONCE: usize = 32;

/// What was found in the files of one model.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) health: HealthReport,
    pub(crate) detected: Detected,
}

impl Verdict {
    /// Looks into the files of a directory.
    pub(crate) fn of(dir: &Path, options: &HealthOptions) -> Verdict {
        let files = ModelFiles::directory(dir).ok();
        let detected = detect_files(files.as_ref());
        Verdict { health: health::check_files(dir, files, options), detected }
    }
}

/// Finds out what the model in a directory is.
pub(crate) fn detect_in(dir: &Path) -> Detected {
    detect_files(ModelFiles::directory(dir).ok().as_ref())
}

/// Finds out what files are; none are nothing.
fn detect_files(files: Option<&ModelFiles>) -> Detected {
    files.map_or_else(|| detect(&ModelFiles::embedded("", &[])), detect)
}

/// The verdicts of earlier runs.
#[derive(Default)]
pub(crate) struct Verdicts {
    /// Where they are kept; nothing where they are not.
    file: Option<PathBuf>,
    known: BTreeMap<String, Entry>,
    /// Those that were used or found in this run.
    seen: Mutex<BTreeMap<String, Entry>>,
    has_news: AtomicBool,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The build that wrote it: another one may judge otherwise.
    program: String,
    models: BTreeMap<String, Entry>,
}

/// A verdict as it is kept, under the path of its directory.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    /// The state of the files, and how they were called.
    stamp: String,
    findings: Vec<KeptFinding>,
    detected: Detected,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptFinding {
    code: String,
    message: String,
    repair: Option<String>,
}

impl Verdicts {
    /// Reads what is kept, unless the settings say not to.
    pub(crate) fn load(settings: &Settings) -> Verdicts {
        if settings.no_cache.value {
            return Verdicts::default();
        }
        let file = settings.cache_dir.value.join(FILE);
        let kept = read(&file).filter(|kept| kept.program == program());
        let known = kept.map(|kept| kept.models).unwrap_or_default();
        Verdicts { file: Some(file), known, ..Verdicts::default() }
    }

    /// Returns what is known of a directory in the state of `tree`, or looks into it. `tree` is
    /// older than that look: what changes meanwhile is seen the next time.
    pub(crate) fn get(&self, dir: &Path, tree: &Tree, options: &HealthOptions) -> Verdict {
        let key = std::path::absolute(dir).ok().and_then(|path| Some(path.to_str()?.to_owned()));
        let stamp = tree.stamp.as_ref().filter(|_| self.file.is_some() && !options.deep);
        let (Some(key), Some(stamp)) = (key, stamp) else { return Verdict::of(dir, options) };
        let stamp = format!("{stamp} {} {}", options.name.as_deref().unwrap_or(""), dir.display());
        let known = self.known.get(&key).filter(|entry| entry.stamp == stamp);
        if let Some((entry, verdict)) = known.and_then(|entry| Some((entry, entry.verdict()?))) {
            self.note(key, entry.clone());
            return verdict;
        }
        let verdict = Verdict::of(dir, options);
        if verdict.health.healthy {
            self.has_news.store(true, Ordering::Relaxed);
            self.note(key, Entry::new(stamp, &verdict));
        }
        verdict
    }

    fn note(&self, key: String, entry: Entry) {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, entry);
    }

    /// Keeps what was found, with what was known of other models that are still there. It cannot
    /// fail: what is not kept is found out again.
    pub(crate) fn save(self) {
        let Verdicts { file: Some(file), known, seen, has_news } = self else { return };
        if !has_news.into_inner() {
            return;
        }
        let mut models = seen.into_inner().unwrap_or_default();
        for (path, entry) in known {
            if models.len() < MAX_MODELS && !models.contains_key(&path) && is_there(&path) {
                models.insert(path, entry);
            }
        }
        let _ = write(&file, &Kept { program: program(), models });
    }
}

impl Entry {
    fn new(stamp: String, verdict: &Verdict) -> Entry {
        let finding = |finding: &Finding| KeptFinding {
            code: finding.code.to_owned(),
            message: finding.message.clone(),
            repair: finding.repair.clone(),
        };
        Entry {
            stamp,
            findings: verdict.health.findings.iter().map(finding).collect(),
            // Those who list models have no use for it, and it may be long.
            detected: Detected { quantization: None, ..verdict.detected.clone() },
        }
    }

    /// Returns the verdict, unless it has codes that there are none of.
    fn verdict(&self) -> Option<Verdict> {
        let findings = self
            .findings
            .iter()
            .map(|kept| Finding::known(&kept.code, kept.message.clone(), kept.repair.clone()));
        let health = HealthReport::new(findings.collect::<Option<_>>()?);
        Some(Verdict { health, detected: self.detected.clone() })
    }
}

/// Looks at many models at once, in their order.
pub(crate) fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    look: impl Fn(T) -> R + Sync + Send,
) -> Vec<R> {
    match rayon::ThreadPoolBuilder::new().num_threads(items.len().clamp(1, AT_ONCE)).build() {
        Ok(pool) => pool.install(|| items.into_par_iter().map(look).collect()),
        Err(_) => items.into_iter().map(look).collect(),
    }
}

/// Names this build: the version, and which file it is in.
fn program() -> String {
    let metadata = std::env::current_exe().and_then(fs::metadata);
    let build = metadata.ok().map(|m| {
        let time = m.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        format!("{} {}", m.len(), time.unwrap_or_default().as_nanos())
    });
    format!("{CLI_VERSION} {}", build.unwrap_or_default())
}

/// Whether a model's directory is there, with or without its files.
fn is_there(path: &str) -> bool {
    Path::new(path).is_dir()
}

fn read(file: &Path) -> Option<Kept> {
    // Asked before opening, which would wait for a writer if this were a pipe.
    let metadata = fs::metadata(file).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Puts a file in its place at once, so that whoever reads it has all of it.
fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    std::io::Write::write_all(&mut new, &serde_json::to_vec(kept)?)?;
    new.persist(file)?;
    Ok(())
}
