//! The files below a directory, with the sizes of what links lead to.

use std::fs;
use std::path::{Path, PathBuf};

/// How many directories deep a model's files may lie.
const MAX_DEPTH: usize = 8;
/// How many files are listed; a model has some tens.
const MAX_FILES: usize = 100_000;

/// A file, or a link that leads nowhere.
#[derive(Clone, Debug)]
pub(crate) struct FileEntry {
    /// Its path below the directory, with `/`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The size of its content; `None` where a link is broken.
    pub(crate) size: Option<u64>,
    pub(crate) is_link: bool,
}

/// Lists the files below a directory by name. Links to files are followed, those to directories
/// are not; what cannot be read is left out.
pub(crate) fn files(dir: &Path) -> Vec<FileEntry> {
    let mut files = Vec::new();
    collect(dir, "", MAX_DEPTH, &mut files);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn collect(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<FileEntry>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if files.len() >= MAX_FILES {
            return;
        }
        let Ok(kind) = entry.file_type() else { continue };
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if kind.is_dir() {
            if depth > 1 {
                collect(&path, &format!("{name}/"), depth - 1, files);
            }
            continue;
        }
        let target = fs::metadata(&path).ok();
        if target.as_ref().is_some_and(fs::Metadata::is_dir) {
            continue;
        }
        let size = target.map(|metadata| metadata.len());
        files.push(FileEntry { name, path, size, is_link: kind.is_symlink() });
    }
}
