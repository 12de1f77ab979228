//! One save from its checks to the rename, in the order that makes it durable.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::Value;

use super::card::CARD_NAME;
use super::companions::{Companion, companions};
use super::file_system::FileSystem;
use super::journal::Journal;
use super::json::python_json;
use super::outcome::{Boundary, Missing, SaveError, Saved, Unsynced, io_error, refused};
use super::partial::PartialDir;
use super::shards::{INDEX_NAME, Shard, index, split};
use super::target::{Target, check_space};
use super::writer::{Meter, write_shard};
use super::{Finish, SaveArgs, TensorSource};
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;

const CONFIG_NAME: &str = "config.json";

/// What a disk may need beside the bytes of files: blocks that are not full, directories, journal.
const SPARE_BYTES: u64 = 1 << 20;

/// Everything that is known before the first tensor is.
struct Plan<'a> {
    shards: Vec<Shard<'a>>,
    n_weight_bytes: u64,
    /// Files that a model cannot be without, as text.
    documents: [(&'static str, Vec<u8>); 2],
    companions: Vec<Companion>,
    card: String,
    journal: Journal,
}

impl<'a> Plan<'a> {
    fn new(args: &SaveArgs<'a>) -> Result<Plan<'a>> {
        let shards = split(args.tensors, args.max_shard_bytes)?;
        let index = index(&shards, args.tensors, args.n_parameters)?;
        let config = config(args.config)?;
        // A card that cannot be read has nothing to give.
        let card = args.source.and_then(|source| source.read_text(CARD_NAME).ok().flatten());
        Ok(Plan {
            n_weight_bytes: shards.iter().map(|shard| shard.plan.file_size()).sum(),
            documents: [(INDEX_NAME, index), (CONFIG_NAME, config)],
            companions: args.source.map(companions).unwrap_or_default(),
            card: args.model_card.render(card.as_deref()),
            journal: Journal::new(args.fingerprint, &shards, args.tensors),
            shards,
        })
    }

    /// Returns the bytes of the files that are not weights.
    fn small_bytes(&self, fs: &dyn FileSystem, source: Option<&ModelFiles>) -> u64 {
        let size = |companion: &Companion| {
            let source = source?;
            match source.embedded_bytes(&companion.name) {
                Some(bytes) => Some(bytes.len() as u64),
                None => Some(fs.metadata(&source.path(&companion.name)?).ok()?.len()),
            }
        };
        let documents: usize = self.documents.iter().map(|(_, text)| text.len()).sum();
        let copied: u64 = self.companions.iter().filter_map(size).sum();
        (documents + self.card.len()) as u64 + copied + SPARE_BYTES
    }
}

/// Writes a configuration the way mlx-lm does: sorted at the top, the old and the new name of the
/// quantization, and not the name under which transformers loaded it.
fn config(config: &Value) -> Result<Vec<u8>> {
    let Value::Object(config) = config else {
        let text = "the configuration is not a JSON object";
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    };
    let mut config = config.clone();
    config.shift_remove("_name_or_path");
    if let Some(quantization) = config.get("quantization").cloned() {
        config.insert("quantization_config".to_owned(), quantization);
    }
    config.sort_keys();
    python_json(&config)
}

pub(super) fn run(
    mut args: SaveArgs<'_>,
    source: &mut dyn TensorSource,
) -> Result<Saved, SaveError> {
    let (fs, finish) = (args.file_system, args.finish.take());
    let source_root = args.source.and_then(ModelFiles::root);
    let target = Target::check(fs, args.destination, source_root).map_err(refused)?;
    if target.exists && !args.resume {
        return Err(refused(target.occupied()));
    }
    let plan = Plan::new(&args).map_err(refused)?;
    let mut meter = Meter::new(plan.n_weight_bytes, args.progress);
    let mut partial = match target.exists {
        true => open_committed(fs, &target, &plan, &mut meter)?,
        false => open(fs, &target, &plan, args.resume, &mut meter)?,
    };
    let session = Session {
        fs,
        files: args.source,
        target: &target,
        plan: &plan,
        meter,
        unsynced: Vec::new(),
        missing: Vec::new(),
        n_resumed_shards: partial.n_finished(),
    };
    match target.exists {
        true => session.confirm(&partial),
        false => session.run(&mut partial, source, finish),
    }
}

/// Opens the directory in which the result grows, with what an earlier run finished if that is to
/// be continued.
fn open<'a>(
    fs: &'a dyn FileSystem,
    target: &Target,
    plan: &Plan<'_>,
    resume: bool,
    meter: &mut Meter<'_>,
) -> Result<PartialDir<'a>, SaveError> {
    let (mut partial, earlier) = PartialDir::open(fs, target, &plan.journal, plan.shards.len())?;
    let Some(earlier) = earlier else {
        return Ok(partial);
    };
    let n_finished = partial.count_finished(&earlier);
    let refuse = |text: &str| {
        let text = format!("{}: {text}", target.path.display());
        Error::new(ErrorKind::InvalidArgument, text)
    };
    if resume && !earlier.is_of_same_run(&plan.journal) {
        let error = refuse("what an interrupted run left is of another source or other options")
            .with_hint(format!("use the same ones, or remove {}", target.partial.display()));
        return Err(partial.leave(error, None));
    }
    if !resume && n_finished > 0 {
        let error = refuse("an earlier run was interrupted");
        return Err(partial.leave(error, Some(n_finished)));
    }
    if resume && let Err(error) = partial.adopt(&partial.model(), &earlier, &plan.shards, meter) {
        return Err(partial.leave(error, Some(n_finished)));
    }
    Ok(partial)
}

/// Opens what a run left that was killed behind its rename: everything is at the destination, and
/// beside it is the journal that tells so.
///
/// # Errors
/// When what is at the destination is anything else.
fn open_committed<'a>(
    fs: &'a dyn FileSystem,
    target: &Target,
    plan: &Plan<'_>,
    meter: &mut Meter<'_>,
) -> Result<PartialDir<'a>, SaveError> {
    let occupied = || refused(target.occupied());
    if fs.symlink_metadata(&target.partial).is_err() {
        return Err(occupied());
    }
    let opened = PartialDir::open(fs, target, &plan.journal, plan.shards.len());
    let (mut partial, earlier) = opened.map_err(|_| occupied())?;
    let earlier = earlier.filter(|earlier| earlier.is_of_same_run(&plan.journal));
    let earlier = earlier.filter(|_| fs.symlink_metadata(&partial.model()).is_err());
    let earlier = earlier.ok_or_else(occupied)?;
    partial.adopt(&target.path, &earlier, &plan.shards, meter).map_err(refused)?;
    let has = |name: &str| fs.symlink_metadata(&target.path.join(name)).is_ok();
    let whole = partial.n_finished() == plan.shards.len()
        && plan.documents.iter().all(|(name, _)| has(name));
    whole.then_some(partial).ok_or_else(occupied)
}

/// A save under way.
struct Session<'a> {
    fs: &'a dyn FileSystem,
    files: Option<&'a ModelFiles>,
    target: &'a Target,
    plan: &'a Plan<'a>,
    meter: Meter<'a>,
    unsynced: Vec<Unsynced>,
    missing: Vec<Missing>,
    n_resumed_shards: usize,
}

impl Session<'_> {
    fn run(
        mut self,
        partial: &mut PartialDir<'_>,
        source: &mut dyn TensorSource,
        finish: Option<Finish<'_>>,
    ) -> Result<Saved, SaveError> {
        match self.fill(partial, source, finish) {
            Ok(()) => Ok(self.outcome(partial)?),
            Err(error) => Err(partial.abandon(error)),
        }
    }

    /// Writes everything and renames it to the destination.
    fn fill(
        &mut self,
        partial: &mut PartialDir<'_>,
        source: &mut dyn TensorSource,
        finish: Option<Finish<'_>>,
    ) -> Result<()> {
        self.meter.check()?;
        self.check_space(partial)?;
        partial.clear()?;
        let model = partial.model();
        for shard in &self.plan.shards {
            if !partial.is_finished(shard) {
                self.write_shard(partial, shard, source)?;
            }
        }
        for (name, bytes) in &self.plan.documents {
            self.write_file(&model, name, bytes)?;
        }
        self.copy_companions(&model)?;
        if let Err(error) = self.write_file(&model, CARD_NAME, self.plan.card.as_bytes()) {
            self.leave_out(&model, CARD_NAME, error);
        }
        if let Some(finish) = finish {
            finish(&model)?;
        }
        self.sync(&model, "", Boundary::Directory)?;
        self.meter.check()?;
        let target = self.target;
        self.fs.rename_new(&model, &target.path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => target.occupied(),
            _ => io_error(&target.path, e),
        })
    }

    fn check_space(&self, partial: &PartialDir<'_>) -> Result<()> {
        let unfinished = self.plan.shards.iter().filter(|shard| !partial.is_finished(shard));
        let n_bytes = unfinished.map(|shard| shard.plan.file_size()).sum::<u64>();
        let small = self.plan.small_bytes(self.fs, self.files);
        check_space(self.fs, &self.target.parent, n_bytes.saturating_add(small))
    }

    fn write_shard(
        &mut self,
        partial: &mut PartialDir<'_>,
        shard: &Shard<'_>,
        source: &mut dyn TensorSource,
    ) -> Result<()> {
        let path = partial.model().join(&shard.name);
        let mut written = write_shard(self.fs, &path, shard, source, &mut self.meter)?;
        let result = written.file.sync();
        if self.note(result, &path, &shard.name, Boundary::File)? {
            partial.note(written.shard);
        }
        Ok(())
    }

    fn write_file(&mut self, model: &Path, name: &str, bytes: &[u8]) -> Result<()> {
        let path = model.join(name);
        let io = |error| io_error(&path, error);
        let mut file = self.fs.create_new(&path).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        let result = file.sync();
        self.note(result, &path, name, Boundary::File)?;
        Ok(())
    }

    fn copy_companions(&mut self, model: &Path) -> Result<()> {
        let directories: BTreeSet<&str> =
            self.plan.companions.iter().filter_map(|c| Some(c.name.split_once('/')?.0)).collect();
        for name in &directories {
            let path = model.join(name);
            self.fs.create_dir(&path).map_err(|e| io_error(&path, e))?;
        }
        for companion in &self.plan.companions {
            self.meter.check()?;
            match self.copy(model, &companion.name) {
                Err(error) if companion.is_essential => return Err(error),
                Err(error) => self.leave_out(model, &companion.name, error),
                Ok(()) => {}
            }
        }
        directories.iter().try_for_each(|name| self.sync(model, name, Boundary::Directory))
    }

    fn copy(&mut self, model: &Path, name: &str) -> Result<()> {
        let Some(files) = self.files else { return Ok(()) };
        if let Some(bytes) = files.embedded_bytes(name) {
            return self.write_file(model, name, bytes);
        }
        let from = files.path(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{}: no longer there", files.describe(name)))
        })?;
        let path = model.join(name);
        self.fs.copy(&from, &path).map_err(|e| io_error(&path, e))?;
        self.sync(model, name, Boundary::File)
    }

    /// Does without a file that was to be copied.
    fn leave_out(&mut self, model: &Path, name: &str, error: Error) {
        // Half a file is worse than none; where it stays, it is named all the same.
        let _ = self.fs.remove_file(&model.join(name));
        self.unsynced.retain(|point| !point.path.ends_with(name));
        self.missing.push(Missing { name: name.to_owned(), error: Some(error) });
    }

    fn sync(&mut self, model: &Path, name: &str, boundary: Boundary) -> Result<()> {
        let path = if name.is_empty() { model.to_owned() } else { model.join(name) };
        let result = self.fs.sync(&path);
        self.note(result, &path, name, boundary)?;
        Ok(())
    }

    /// Notes down what could not be forced to the disk; returns whether it could.
    ///
    /// # Errors
    /// When that is because the disk is full: some file systems find room only now.
    fn note(
        &mut self,
        result: io::Result<()>,
        path: &Path,
        name: &str,
        boundary: Boundary,
    ) -> Result<bool> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match result {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => {
                Err(io_error(path, error))
            }
            Err(error) => {
                let path = self.target.path.join(name);
                self.unsynced.push(Unsynced { boundary, path, error });
                Ok(false)
            }
        }
    }

    /// Ends an earlier run, which may have been killed before all was on the disk.
    fn confirm(mut self, partial: &PartialDir<'_>) -> Result<Saved, SaveError> {
        let (plan, path) = (self.plan, self.target.path.clone());
        let essential = plan.shards.iter().map(|shard| shard.name.as_str());
        let documents = plan.documents.iter().map(|(name, _)| *name);
        let others = plan.companions.iter().map(|c| c.name.as_str()).chain([CARD_NAME]);
        let names: Vec<&str> = essential.chain(documents).chain(others).collect();
        let parents: BTreeSet<&str> =
            names.iter().filter_map(|name| Some(name.split_once('/')?.0)).chain([""]).collect();
        for name in names {
            if self.fs.symlink_metadata(&path.join(name)).is_err() {
                self.missing.push(Missing { name: name.to_owned(), error: None });
            } else {
                self.sync(&path, name, Boundary::File).map_err(refused)?;
            }
        }
        for name in parents {
            self.sync(&path, name, Boundary::Directory).map_err(refused)?;
        }
        self.outcome(partial)
    }

    /// Ends a run whose result is at the destination.
    fn outcome(mut self, partial: &PartialDir<'_>) -> Result<Saved, SaveError> {
        if let Err(error) = self.fs.sync(&self.target.parent) {
            let path = self.target.path.clone();
            self.unsynced.push(Unsynced { boundary: Boundary::Rename, path, error });
        }
        let saved = Saved {
            path: self.target.path.clone(),
            n_shards: self.plan.shards.len(),
            n_resumed_shards: self.n_resumed_shards,
            n_weight_bytes: self.plan.n_weight_bytes,
            left_over: partial.remove(),
        };
        match (self.missing, self.unsynced) {
            (missing, unsynced) if !missing.is_empty() => {
                Err(SaveError::Incomplete { saved, missing, unsynced })
            }
            (_, unsynced) if !unsynced.is_empty() => Err(SaveError::NotDurable { saved, unsynced }),
            _ => Ok(saved),
        }
    }
}
