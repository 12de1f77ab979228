//! Files replaced whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Writes `path` so that a reader, or a power cut, sees either its old content or all of the new.
///
/// `write` fills a temporary file `.write-….tmp` in the same directory, which is synced to disk
/// and then renamed over `path`; a symbolic link at `path` is itself replaced. When anything
/// fails, or `write` panics, the temporary file is removed and `path` is as it was.
///
/// # Errors
/// What `write` returns, or an error of the file system that names `path`.
///
/// ```
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("config.json");
/// use mlx_core::io::atomic::write_file;
/// write_file(&path, |file| {
///     file.write_all(b"{}").map_err(|source| mlx_core::Error::io(&path, source))
/// })?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"{}");
/// # Ok(())
/// # }
/// ```
pub fn write_file(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    write_seekable_file(path, |file| write(file))
}

/// Writes a file as [`write_file`] does, for a format whose parts are not written in their order.
pub(crate) fn write_seekable_file(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let io = |source| Error::io(path, source);
    if path.file_name().is_none() {
        let text = format!("{}: path has no file name", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };

    let mut builder = tempfile::Builder::new();
    builder.prefix(".write-").suffix(".tmp");
    // A temporary file is private by default; this one becomes an ordinary file (minus umask).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(dir).map_err(io)?;

    let mut buffer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut buffer)?;
    buffer.flush().map_err(io)?;
    drop(buffer);
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|error| io(error.error))?;
    sync_dir(dir).map_err(io)
}

/// Makes a rename inside `dir` durable, where directories can be synced.
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir)?.sync_all() {
        // Some network and FUSE file systems know no such call.
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn put(bytes: &'static [u8]) -> impl FnOnce(&mut dyn Write) -> Result<()> {
        move |file| file.write_all(bytes).map_err(|source| Error::io(Path::new("x"), source))
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_file(&path, put(b"old")).unwrap();
        write_file(&path, put(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["x"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let plain = dir.path().join("plain");
            File::create(&plain).unwrap();
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&plain));
        }
    }

    #[test]
    fn error_or_panic_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_file(&path, put(b"old")).unwrap();
        let error = write_file(&path, |file| {
            put(b"half of the n")(file)?;
            Err(Error::new(ErrorKind::Runtime, "source failed"))
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Runtime);
        let panicked = std::panic::catch_unwind(|| write_file(&path, |_| panic!("source")));
        assert!(panicked.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn says_why_it_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent/x");
        assert_eq!(write_file(&absent, put(b"")).unwrap_err().kind(), ErrorKind::NotFound);
        // The new content is complete, but the rename cannot happen.
        let occupied = dir.path().join("occupied");
        std::fs::create_dir(&occupied).unwrap();
        assert_eq!(write_file(&occupied, put(b"")).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(names(dir.path()), ["occupied"]);
        assert_eq!(write_file("/", put(b"")).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[cfg(unix)]
    #[test]
    fn read_only_directory() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_file(&path, put(b"old")).unwrap();
        let set = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o555);
        let result = write_file(&path, put(b"new"));
        set(0o755);
        // The superuser may write anywhere, and then there is nothing to see here.
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Io);
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
        }
        assert_eq!(names(dir.path()), ["x"]);
    }
}
