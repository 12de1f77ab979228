//! What files a directory has, and those that are no files: pointers, dead links, traces of
//! downloads.

use std::io::{self, Read as _};
use std::path::Path;

use super::{Findings, Model, codes};

/// How many directories deep files are looked for.
const MAX_DEPTH: usize = 4;

/// Endings that downloaders give a file until it is whole.
const PARTIAL: [&str; 7] =
    [".incomplete", ".partial", ".part", ".download", ".tmp", ".crdownload", ".aria2"];

/// How a directory is called while a clone or a conversion is building it.
pub(crate) const BUILDING: &str = ".mlxk-partial";

/// The files of a directory; hidden ones are nobody's.
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
}

/// One file, by its name from the directory on, with `/` between directories.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) state: State,
}

pub(super) enum State {
    /// A file of so many bytes.
    File(u64),
    /// A git-lfs pointer in place of a file.
    Pointer,
    /// A link to nowhere.
    Dangling,
    /// A file that the system does not let us read.
    Unreadable(String),
}

impl Entry {
    pub(super) fn is_top_level(&self) -> bool {
        !self.name.contains('/')
    }

    /// Whether the file is there as itself.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.state, State::File(_))
    }
}

impl Listing {
    pub(super) fn read(dir: &Path) -> io::Result<Listing> {
        let mut entries = Vec::new();
        read_directory(dir, "", MAX_DEPTH, &mut entries)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { entries })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Lists the files with one of these endings, those of the directory itself or all.
    pub(super) fn ending(&self, endings: &[&str], nested: bool) -> Vec<&Entry> {
        let ends = |entry: &&Entry| endings.iter().any(|ending| entry.name.ends_with(ending));
        self.entries.iter().filter(|entry| nested || entry.is_top_level()).filter(ends).collect()
    }
}

fn read_directory(
    dir: &Path,
    prefix: &str,
    depth: usize,
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let state = match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                // One that cannot be listed has nothing that a model is made from.
                if depth > 1 {
                    let _ = read_directory(&path, &format!("{prefix}{name}/"), depth - 1, entries);
                }
                continue;
            }
            Ok(metadata) if metadata.is_file() => state(&path, metadata.len()),
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::Dangling,
            Err(error) => State::Unreadable(error.to_string()),
        };
        entries.push(Entry { name: format!("{prefix}{name}"), state });
    }
    Ok(())
}

/// Opens small files, which may be pointers, and asks of the others only whether they open.
fn state(path: &Path, size: u64) -> State {
    const MAX_POINTER: u64 = 1024;
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return State::Unreadable(error.to_string()),
    };
    let mut begin = [0; POINTER.len()];
    if size <= MAX_POINTER && file.read_exact(&mut begin).is_ok() && begin == POINTER {
        return State::Pointer;
    }
    State::File(size)
}

pub(super) fn check(model: &Model<'_>, building: bool, findings: &mut Findings) {
    let resolved = model.dir.canonicalize().unwrap_or_default();
    let own_name = resolved.file_name().map(|name| name.to_string_lossy().into_owned());
    if let Some(name) = own_name.filter(|name| !building && name.contains(BUILDING)) {
        let text = format!("{name}: a clone or conversion was building this and did not finish");
        findings.add(&codes::WORKSPACE_PARTIAL, text);
    }
    for Entry { name, state } in &model.listing.entries {
        match state {
            State::Pointer => findings.add(
                &codes::LFS_POINTER,
                format!("{name}: a git-lfs pointer; the file itself was never downloaded"),
            ),
            State::Dangling if matters(name) => {
                findings.add(&codes::FILE_DANGLING, format!("{name}: a link to nowhere"));
            }
            State::Unreadable(error) if matters(name) => {
                findings.add(&codes::FILE_UNREADABLE, format!("{name}: {error}"));
            }
            _ => {}
        }
    }
    partial_files(model, findings);
    sentinel(model, findings);
}

/// Whether a model may need the file.
fn matters(name: &str) -> bool {
    const ENDINGS: [&str; 11] = [
        ".json",
        ".safetensors",
        ".model",
        ".txt",
        ".jinja",
        ".npz",
        ".gguf",
        ".bin",
        ".tiktoken",
        ".npy",
        ".pt",
    ];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn partial_files(model: &Model<'_>, findings: &mut Findings) {
    for entry in &model.listing.entries {
        let whole = PARTIAL.iter().find_map(|ending| entry.name.strip_suffix(ending));
        let Some(whole) = whole else { continue };
        match model.listing.get(whole).is_some_and(Entry::is_file) {
            true => findings.add(
                &codes::PARTIAL_LEFTOVER,
                format!("{}: left over from the download of {whole}", entry.name),
            ),
            false => findings.add(
                &codes::PARTIAL_FILE,
                format!("{}: the download of {whole} did not finish", entry.name),
            ),
        }
    }
}

/// Lists unfinished downloads in the places where hub clients keep them.
pub(super) fn unfinished_downloads(dir: &Path) -> Vec<String> {
    let in_cache = blobs_of(dir);
    let in_directory = Some(dir.join(".cache/huggingface/download"));
    let places = [in_cache, in_directory].into_iter().flatten();
    let names = places.filter_map(|place| place.read_dir().ok()).flatten().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".incomplete"))
        .collect();
    names.sort_unstable();
    names
}

/// Returns where the hub's cache has the content of a snapshot's files.
pub(super) fn blobs_of(dir: &Path) -> Option<std::path::PathBuf> {
    let snapshots = dir.parent().filter(|parent| parent.ends_with("snapshots"))?;
    Some(snapshots.parent()?.join("blobs")).filter(|blobs| blobs.is_dir())
}

fn sentinel(model: &Model<'_>, findings: &mut Findings) {
    const NAME: &str = ".mlxk_workspace.json";
    let path = model.dir.join(NAME);
    let Ok(text) = std::fs::read(&path) else { return };
    let managed = serde_json::from_slice::<serde_json::Value>(&text)
        .map(|value| value["managed"] == true)
        .unwrap_or(false);
    if !managed {
        let text = format!("{NAME}: not JSON with `managed: true`; the workspace is unmanaged");
        findings.add(&codes::SENTINEL_INVALID, text);
    }
}
