//! The files below a directory as the file system tells of them, without a look into them.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// How many directories deep files are looked for, as deep as sizes are counted.
const MAX_DEPTH: usize = 8;
/// How many files a model may have to be remembered.
const MAX_FILES: usize = 10_000;

/// How long files have to be left alone before their state is taken for settled. Times of files are
/// as coarse as 2 s on some file systems: a second change within that time may not show.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What a model's directory holds.
#[derive(Default)]
pub(crate) struct Tree {
    /// The size of all files; links are followed.
    pub(crate) bytes: u64,
    /// Name, kind, size, times and identity of every file, hashed; nothing where they may change
    /// unseen.
    pub(super) stamp: Option<String>,
}

/// What is found on the way.
struct Walk {
    bytes: u64,
    lines: Vec<String>,
    /// Whether all that a look into the files could depend on is among the lines.
    is_whole: bool,
    now: SystemTime,
}

impl Tree {
    /// Lists a directory.
    pub(crate) fn read(dir: &Path) -> Tree {
        let mut walk = Walk { bytes: 0, lines: Vec::new(), is_whole: true, now: SystemTime::now() };
        walk.note("", &fs::metadata(dir));
        walk.directory(dir, "", MAX_DEPTH);
        // A snapshot is judged by what is being downloaded for it, too.
        if dir.parent().is_some_and(|parent| parent.ends_with("snapshots")) {
            walk.note("/blobs", &fs::metadata(dir.join("../../blobs")));
        }
        walk.lines.sort_unstable();
        let stamp = walk.is_whole.then(|| hash(&walk.lines));
        Tree { bytes: walk.bytes, stamp }
    }
}

impl Walk {
    fn directory(&mut self, dir: &Path, prefix: &str, depth: usize) {
        let Ok(entries) = dir.read_dir() else {
            self.is_whole = false;
            return;
        };
        for entry in entries {
            let kind = entry.as_ref().map_err(drop).and_then(|e| e.file_type().map_err(drop));
            let (Ok(entry), Ok(kind)) = (entry, kind) else {
                self.is_whole = false;
                continue;
            };
            let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}"))
            else {
                self.is_whole = false;
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                match depth {
                    1 => self.is_whole = false,
                    _ => self.directory(&path, &(name + "/"), depth - 1),
                }
                continue;
            }
            if self.lines.len() >= MAX_FILES {
                self.is_whole = false;
                return;
            }
            let target = fs::metadata(&path);
            match &target {
                // What lies behind such a link is not listed.
                Ok(target) if target.is_dir() => self.is_whole = false,
                Ok(target) => self.bytes += target.len(),
                Err(_) => {}
            }
            self.note(&name, &target);
        }
    }

    /// Notes one file, or that it is not there.
    fn note(&mut self, name: &str, found: &io::Result<Metadata>) {
        match found {
            Ok(metadata) => {
                let (identity, changed) = state(metadata);
                // Neither has it changed just now, nor will it in a future of another clock.
                let age = changed.and_then(|changed| self.now.duration_since(changed).ok());
                self.is_whole &= age.is_some_and(|age| age >= SETTLED_AFTER);
                self.lines.push(format!("{name}\0{identity}"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lines.push(format!("{name}\0-"));
            }
            Err(_) => self.is_whole = false,
        }
    }
}

/// Returns what differs when a file is another one or has other content, and when that was last so.
#[cfg(unix)]
fn state(metadata: &Metadata) -> (String, Option<SystemTime>) {
    use std::os::unix::fs::MetadataExt as _;
    let m = metadata;
    // Nobody but the system sets the time of change: it also tells of a file that was put back
    // under its old time.
    let identity = format!(
        "{:o} {} {}.{} {}.{} {}:{}",
        m.mode(),
        m.size(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec(),
        m.dev(),
        m.ino()
    );
    let seconds = u64::try_from(m.ctime()).ok();
    let changed = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    (identity, changed)
}

#[cfg(not(unix))]
fn state(metadata: &Metadata) -> (String, Option<SystemTime>) {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let kind = if metadata.is_dir() { "d" } else { "f" };
    (format!("{kind} {} {since:?}", metadata.len()), modified)
}

fn hash(lines: &[String]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        // No name has a zero byte or a line of its own.
        hash.update((line.len() as u64).to_le_bytes());
        hash.update(line);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
