//! Paths with every link followed, whether or not what they name exists.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// How many links one path may lead through.
const MAX_LINKS: usize = 64;

/// Follows every link of `path`; what does not exist is taken as it is written.
///
/// # Errors
/// When links lead in a circle, or the current directory is not known.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut rest: VecDeque<OsString> = parts(&std::path::absolute(path)?);
    let mut resolved = PathBuf::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    let text = format!("{}: links lead in a circle", path.display());
                    return Err(io::Error::other(text));
                }
                // Joined, an absolute target replaces all before it.
                let target = parts(&target);
                if target.front().is_some_and(|first| Path::new(first).has_root()) {
                    resolved = PathBuf::new();
                }
                for part in target.into_iter().rev() {
                    rest.push_front(part);
                }
            }
            Err(_) => resolved = next,
        }
    }
    Ok(resolved)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether `path` is `root` or lies below it, with every link of both followed.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn is_inside(path: &Path, root: &Path) -> io::Result<bool> {
    Ok(resolve(path)?.starts_with(resolve(root)?))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_on_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/hub")).unwrap();
        symlink("real", dir.join("link")).unwrap();
        symlink(dir.join("link/hub"), dir.join("absolute")).unwrap();
        symlink("../outside", dir.join("real/out")).unwrap();
        symlink("circle", dir.join("circle")).unwrap();
        for (path, expected) in [
            ("link/hub/x/y", "real/hub/x/y"),
            ("absolute/./x", "real/hub/x"),
            ("link/../real/hub", "real/hub"),
            ("absolute/../new", "real/new"),
            ("real/out/x", "outside/x"),
            ("absent/../x", "x"),
        ] {
            assert_eq!(resolve(&dir.join(path)).unwrap(), dir.join(expected), "{path}");
        }
        assert!(resolve(&dir.join("circle/x")).is_err());
        assert!(is_inside(&dir.join("absolute/models--a"), &dir.join("link/hub")).unwrap());
        assert!(!is_inside(&dir.join("real/hub2"), &dir.join("link/hub")).unwrap());
    }
}
