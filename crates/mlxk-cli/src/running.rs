//! Which processes of this user have a model loaded.
//!
//! Each of them has a file in the cache directory, which says what it runs and is locked as long as
//! the process lives, however it ends. Whoever lists them removes the files that nobody holds any
//! more; that the system gives the number of an ended process to another cannot mislead.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

const DIRECTORY: &str = "running";
/// What a file is called until it is locked.
const NEW: &str = ".new-";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 16;

/// A process that has a model loaded, or is loading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// What mlxk was asked to do: `run`, `bench`.
    pub(crate) command: String,
    /// The model as the user called it.
    pub(crate) model: String,
    /// When it began, in UTC.
    pub(crate) started_at: String,
}

/// The file of this process.
struct Registration {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

/// That of this process, which loads one model.
static OWN: Mutex<Option<Registration>> = Mutex::new(None);

/// Lets others see that this process is about to load a model. Where nothing can be written, none
/// sees it, and nothing else is amiss.
pub(crate) fn enter(command: &str, model: &Path) {
    let Ok(settings) = Settings::load() else { return };
    let process = Process {
        pid: std::process::id(),
        command: command.to_owned(),
        model: model.display().to_string(),
        started_at: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let registration = Registration::new(&directory(&settings), &process);
    *OWN.lock().unwrap_or_else(PoisonError::into_inner) = registration.ok();
}

/// Takes this process off the list, at its end.
pub(crate) fn leave() {
    if let Some(own) = OWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // What stays, the next reader removes.
        let _ = fs::remove_file(own.path);
    }
}

/// Lists the processes by their number, and removes what ended ones have left.
///
/// # Errors
/// When the directory is there and cannot be read.
pub(crate) fn list(settings: &Settings) -> io::Result<Vec<Process>> {
    let entries = match fs::read_dir(directory(settings)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut processes: Vec<Process> = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_new = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(NEW));
        match path.is_file() && is_held(&path) {
            true if !is_new => processes.extend(read(&path)),
            true => {}
            false => {
                // One that is made just now gets its lock in a moment.
                if !is_new || is_old(&path) {
                    let _ = fs::remove_file(&path);
                }
            }
        }
    }
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// Returns how much of a process's memory is in use, in bytes; nothing where it cannot be told.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    if cfg!(target_os = "linux") {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        return kibibytes(line.trim_end_matches("kB"));
    }
    let ps = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output();
    kibibytes(&String::from_utf8(ps.ok()?.stdout).ok()?)
}

fn kibibytes(text: &str) -> Option<u64> {
    text.trim().parse::<u64>().ok()?.checked_mul(1024)
}

impl Registration {
    fn new(dir: &Path, process: &Process) -> io::Result<Registration> {
        fs::create_dir_all(dir)?;
        // No later process of the same number has the same name.
        let name = format!("{}-{}.json", process.pid, Timestamp::now().as_nanosecond());
        let (new, path) = (dir.join(format!("{NEW}{name}")), dir.join(name));
        let mut file = File::create(&new)?;
        file.lock()?;
        file.write_all(&serde_json::to_vec(process)?)?;
        // Seen under its name, it is locked already.
        fs::rename(&new, &path)?;
        Ok(Registration { path, _lock: file })
    }
}

fn directory(settings: &Settings) -> PathBuf {
    settings.cache_dir.value.join(DIRECTORY)
}

/// Whether a running process holds a file, or it cannot be told.
fn is_held(path: &Path) -> bool {
    match File::open(path).map(|file| file.try_lock_shared()) {
        Ok(Ok(())) => false,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn is_old(path: &Path) -> bool {
    const MOMENT: std::time::Duration = std::time::Duration::from_secs(60);
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > MOMENT))
}

fn read(path: &Path) -> Option<Process> {
    let is_small = path.metadata().ok()?.len() <= MAX_BYTES;
    serde_json::from_slice(&is_small.then(|| fs::read(path).ok())??).ok()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        Process {
            pid,
            command: "run".to_owned(),
            model: "demo".to_owned(),
            started_at: "2026-01-31T12:00:00Z".to_owned(),
        }
    }

    #[test]
    fn a_file_that_nobody_holds_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().to_path_buf();
        let settings = Settings::in_home(&home);
        let dir = directory(&settings);
        assert_eq!(list(&settings).unwrap(), []);
        let (second, first) =
            (Registration::new(&dir, &process(7)).unwrap(), Registration::new(&dir, &process(3)));
        // What is no such file does not matter.
        let stray = dir.join("stray.json");
        for text in ["", "{}", "[1"] {
            fs::write(&stray, text).unwrap();
            let held = File::open(&stray).unwrap();
            held.lock().unwrap();
            assert_eq!(list(&settings).unwrap(), [process(3), process(7)], "{text}");
            assert!(stray.exists());
        }
        let young = dir.join(format!("{NEW}9.json"));
        fs::write(&young, "").unwrap();
        drop(first);
        assert_eq!(list(&settings).unwrap(), [process(7)]);
        let names = || fs::read_dir(&dir).unwrap().count();
        assert_eq!((young.exists(), names()), (true, 2), "7 and what is being made");
        fs::remove_file(&second.path).unwrap();
        assert_eq!(list(&settings).unwrap(), []);
    }

    #[test]
    fn memory_is_told_of_who_runs() {
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
