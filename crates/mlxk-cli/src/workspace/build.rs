//! A directory that is built beside its place and then renamed into it.
//!
//! Whatever happens, a kill or a power cut included, the target is either what it was or the
//! complete new directory. While it is built it is called `.NAME.mlxk-partial-…` and locked; what
//! an interrupted command left is removed by the next one for the same target, which sees by the
//! lock that nobody works on it any more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::paths;
use crate::error::{CommandError, Kind};
use crate::health::BUILDING;

/// A directory on its way to its place; dropped before [`commit`](Building::commit) it is removed.
pub(crate) struct Building {
    dir: TempDir,
    target: PathBuf,
    /// Held as long as the directory is being built.
    _lock: File,
}

impl Building {
    /// Begins a directory for a target that is absent or an empty directory.
    ///
    /// # Errors
    /// When something is at the target, a link to nowhere included, when it has no parent
    /// directory, lies in one of `caches`, or nothing can be written there.
    pub(crate) fn begin(target: &Path, caches: &[PathBuf]) -> Result<Building, CommandError> {
        let target = check_target(target, caches)?;
        let (parent, prefix) = place(&target)?;
        remove_leftovers(&parent, &prefix);
        let failed = |error: io::Error| invalid(format!("{}: {error}", parent.display()));
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // A temporary directory is private by default; this one becomes an ordinary one.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let dir = builder.tempdir_in(&parent).map_err(failed)?;
        let lock = File::open(dir.path()).map_err(failed)?;
        // Where a file system knows no locks, leftovers stay.
        let _ = lock.try_lock();
        Ok(Building { dir, target, _lock: lock })
    }

    /// Returns where to build.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns where the directory will be, as an absolute path.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Makes all of it durable and renames it to its place.
    ///
    /// # Errors
    /// When the file system fails, or something came to be at the target meanwhile.
    pub(crate) fn commit(self) -> Result<(), CommandError> {
        let Building { dir, target, .. } = self;
        let failed = |path: &Path, error: &io::Error| CommandError::file(path, error);
        sync_tree(dir.path()).map_err(|error| failed(&target, &error))?;
        // An empty directory at the target is replaced by this; anything else is an error.
        fs::rename(dir.path(), &target).map_err(|error| failed(&target, &error))?;
        // It is no longer there to be removed.
        let _ = dir.keep();
        let parent = target.parent().unwrap_or(Path::new("."));
        sync_dir(parent).map_err(|error| failed(parent, &error))
    }
}

/// Checks a target; returns it as an absolute path.
///
/// # Errors
/// As [`Building::begin`].
pub(crate) fn check_target(target: &Path, caches: &[PathBuf]) -> Result<PathBuf, CommandError> {
    let shown = target.display();
    let absolute = outside_caches(target, caches)?;
    match absolute.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(invalid(format!("{shown}: {error}"))),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(invalid(format!("{shown} exists")).hint("name a directory that does not"));
        }
        Ok(_) => {
            let entries = absolute.read_dir().map_err(|e| invalid(format!("{shown}: {e}")))?;
            if entries.into_iter().next().is_some() {
                let text = format!("{shown} exists and is not empty");
                return Err(invalid(text).hint("name a directory that does not exist"));
            }
        }
    }
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        return Err(invalid(format!("{}: there is no such directory", parent.display()))
            .hint("make it first"));
    }
    Ok(absolute)
}

/// Checks that a target lies in no cache; returns it as an absolute path.
///
/// # Errors
/// When it does, or where it lies cannot be told.
pub(crate) fn outside_caches(target: &Path, caches: &[PathBuf]) -> Result<PathBuf, CommandError> {
    let shown = target.display();
    let absolute = std::path::absolute(target).map_err(|e| invalid(format!("{shown}: {e}")))?;
    match cache_of(&absolute, caches)? {
        None => Ok(absolute),
        Some(cache) => {
            let text = format!("{shown} lies in the cache of models, {}", cache.display());
            Err(invalid(text).hint("nothing is ever written there; name a directory elsewhere"))
        }
    }
}

/// Returns which of the caches a path lies in, by its name or by where its links lead; any place
/// that is laid out as a hub's cache is one.
///
/// # Errors
/// When links lead in a circle.
pub(crate) fn cache_of(path: &Path, caches: &[PathBuf]) -> Result<Option<PathBuf>, CommandError> {
    let failed = |error: io::Error| invalid(error.to_string());
    for cache in caches {
        if paths::is_inside(path, cache).map_err(failed)? {
            return Ok(Some(cache.clone()));
        }
    }
    let resolved = paths::resolve(path).map_err(failed)?;
    let model = resolved.ancestors().find(|ancestor| {
        let name = ancestor.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("models--") && ancestor.join("snapshots").is_dir()
    });
    Ok(model.and_then(Path::parent).map(Path::to_path_buf))
}

fn invalid(text: String) -> CommandError {
    CommandError::new(Kind::InvalidTarget, text)
}

/// Returns the directory to build in and how a directory for this target is called there.
fn place(target: &Path) -> Result<(PathBuf, String), CommandError> {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
    let (Some(parent), Some(name)) = (target.parent(), name) else {
        return Err(invalid(format!("{}: not a name for a directory", target.display())));
    };
    Ok((parent.to_path_buf(), format!(".{name}{BUILDING}-")))
}

fn remove_leftovers(parent: &Path, prefix: &str) {
    let entries = parent.read_dir().into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)) {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let unlocked = || File::open(&path).is_ok_and(|dir| dir.try_lock().is_ok());
        if is_dir && unlocked() {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Writes all files and directories of a tree through to the disk.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir)?.sync_all() {
        // Some network and FUSE file systems know no such call.
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        result => result,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = dir.read_dir().unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("ws");
        let building = Building::begin(&target, &[]).unwrap();
        fs::write(building.path().join("a"), "x").unwrap();
        assert!(!target.exists());
        drop(building);
        assert!(names(root.path()).is_empty());

        fs::create_dir(&target).unwrap();
        let building = Building::begin(&target, &[]).unwrap();
        fs::write(building.path().join("a"), "x").unwrap();
        building.commit().unwrap();
        assert_eq!((names(root.path()), names(&target)), (vec!["ws".into()], vec!["a".into()]));
        use std::os::unix::fs::PermissionsExt;
        let plain = root.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&target), mode(&plain));
    }

    #[test]
    fn only_leftovers_that_nobody_works_on_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("ws");
        let left = root.path().join(format!(".ws{BUILDING}-old"));
        let other = root.path().join(format!(".ws2{BUILDING}-old"));
        fs::create_dir_all(left.join("sub")).unwrap();
        fs::create_dir(&other).unwrap();
        let first = Building::begin(&target, &[]).unwrap();
        assert!(!left.exists() && other.exists());
        let second = Building::begin(&target, &[]).unwrap();
        assert!(first.path().exists() && second.path().exists());
        fs::write(first.path().join("a"), "1").unwrap();
        fs::write(second.path().join("a"), "2").unwrap();
        second.commit().unwrap();
        assert!(first.commit().is_err(), "the target is taken");
        assert_eq!(fs::read(target.join("a")).unwrap(), b"2");
    }

    #[test]
    fn targets_that_are_none() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("full/sub")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        fs::create_dir_all(at("hub/models--a--b/snapshots/1")).unwrap();
        fs::create_dir_all(at("other/models--a--b/snapshots/1")).unwrap();
        symlink("hub", at("alias")).unwrap();
        symlink(at("hub/models--a--b"), at("into")).unwrap();
        for (target, cache) in [
            ("full", "hub"),
            ("file", "hub"),
            ("dangling", "hub"),
            ("absent/ws", "hub"),
            ("hub/ws", "hub"),
            ("alias/ws", "hub"),
            ("hub/ws", "alias"),
            ("into/ws", "hub"),
            ("full/../hub/ws", "hub"),
            ("other/models--a--b/ws", "hub"),
        ] {
            let result = Building::begin(&at(target), &[at(cache)]);
            let error = result.err().unwrap_or_else(|| panic!("{target}"));
            assert_eq!(error.kind, Kind::InvalidTarget, "{target}");
        }
        assert!(Building::begin(&at("ws"), &[at("hub")]).is_ok());
    }
}
