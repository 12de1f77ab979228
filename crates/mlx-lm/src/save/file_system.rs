//! The file system as saving sees it: the calls it makes, so that a test can let each one fail.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file that is being written.
pub trait OutputFile: Write {
    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// When the disk or the file system says that it is not.
    fn sync(&mut self) -> io::Result<()>;
}

impl OutputFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The right to work in a directory; ends when it is dropped, and with the process.
#[derive(Debug)]
pub struct Lock {
    /// `None` where the file system knows no locks.
    file: Option<File>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a child of this process, just forked, has the file open too.
        if let Some(file) = &self.file {
            let _ = file.unlock();
        }
    }
}

/// What saving asks of a file system. [`RealFileSystem`] is the one of the operating system.
///
/// Paths mean what they mean in `std::fs`, and so do errors.
#[allow(clippy::missing_errors_doc)] // All fail as the file system does.
pub trait FileSystem {
    /// Creates a file that must not exist and opens it for writing.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OutputFile>>;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;

    /// Copies a file and returns its size, sharing its blocks where the file system can.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<u64>;

    /// Waits until a file's content, or a directory's entries, are on the disk.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing one that is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file or directory; fails with `AlreadyExists` when anything is there.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Creates a directory that must not exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a file or a symbolic link.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists what is in a directory, in order of names.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Describes what is at `path`, or what the link there leads to.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Describes what is at `path`, be it a link.
    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Returns the path without links and dots.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Returns how many bytes this process may still write to the disk that holds `path`; `None`
    /// where that cannot be known.
    fn available_space(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Takes the lock file at `path`, which is made if there is none; `None` when another process
    /// has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFileSystem;

impl FileSystem for RealFileSystem {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        Ok(Box::new(File::create_new(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(path)?))
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<u64> {
        // Clones on APFS; asks for copy_file_range on Linux, which shares blocks on Btrfs and XFS.
        fs::copy(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        use io::ErrorKind::{InvalidInput, Unsupported};
        let is_dir = fs::metadata(path)?.is_dir();
        if is_dir && !cfg!(unix) {
            return Ok(());
        }
        match File::open(path)?.sync_all() {
            // Some network and FUSE file systems know no such call for directories.
            Err(error) if is_dir && matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
            result => result,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                // Older kernels and some file systems have no such rename.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                result => return Ok(result?),
            }
        }
        match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path)?;
        let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort_unstable();
        Ok(paths)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::symlink_metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn available_space(&self, path: &Path) -> io::Result<Option<u64>> {
        #[cfg(unix)]
        {
            let disk = rustix::fs::statvfs(path)?;
            Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            Ok(None)
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Lock { file: None }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
