//! Files for a workspace, copied without copying where the file system can share them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::patterns::{self, excludes_directory, excludes_file};

/// How many directories deep files are copied.
const MAX_DEPTH: usize = 16;

/// The files of a model by their names from its directory on.
pub(crate) type Files = BTreeMap<String, PathBuf>;

/// Lists what belongs to a model in a directory: what its content hash counts, without caches of
/// downloads. Links are followed; one to nowhere is no file, as it is none in the source.
///
/// # Errors
/// When a directory cannot be read, or a file has a name that is not UTF-8.
pub(crate) fn files(source: &Path) -> io::Result<Files> {
    let mut excluded: Vec<String> = patterns::DEFAULT.map(String::from).to_vec();
    excluded.push(".cache/".to_owned());
    let mut files = Files::new();
    list(source, "", MAX_DEPTH, &excluded, &mut files)?;
    Ok(files)
}

fn list(
    dir: &Path,
    prefix: &str,
    depth: usize,
    excluded: &[String],
    files: &mut Files,
) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            let text = format!("{}: its name is not UTF-8", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let Ok(metadata) = path.metadata() else { continue };
        if metadata.is_dir() && depth > 1 && !excludes_directory(excluded, name) {
            list(&path, &format!("{prefix}{name}/"), depth - 1, excluded, files)?;
        } else if metadata.is_file() && !excludes_file(excluded, name) {
            files.insert(format!("{prefix}{name}"), path);
        }
    }
    Ok(())
}

/// Copies one file to `dir/name`; where the file system can, both share their blocks until one is
/// changed.
///
/// # Errors
/// When the file system fails; the error names the file.
pub(crate) fn copy(from: &Path, dir: &Path, name: &str) -> io::Result<()> {
    let to = dir.join(name);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(named)?;
    }
    // Of a link it would copy the link on some systems.
    let from = from.canonicalize().map_err(named)?;
    reflink_copy::reflink_or_copy(&from, &to).map_err(named)?;
    make_writable(&to).map_err(named)
}

/// Lets the owner change a file, whose source in a cache may be read-only.
fn make_writable(path: &Path) -> io::Result<()> {
    let mut permissions = path.metadata()?.permissions();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        permissions.set_mode(permissions.mode() | 0o200);
    }
    #[cfg(not(unix))]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions)
}
