//! A file system that counts its calls and lets one fail, be the last of the process, or be the
//! last before the power goes.

use std::cell::RefCell;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlx_lm::save::{FileSystem, Lock, OutputFile, RealFileSystem};

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails with this error number, once; a write has then written half.
    Once(i32),
    /// It and all that follow fail.
    Dead,
    /// The process ends by SIGKILL; a write has then written half.
    Kill,
}

/// One call, for saying what failed.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
}

/// Counts calls and passes them on to the real file system, but for syncs, which it only notes
/// down: the disk is slow, and only [`TestFs::cut_power`] tells the difference.
pub(super) struct TestFs(Rc<RefCell<State>>);

struct State {
    fault: Option<(usize, Fault)>,
    space: Option<u64>,
    calls: Vec<Call>,
    /// Changes of directories that no sync has made durable, oldest first.
    pending: Vec<Change>,
    /// Files with content that no sync has made durable.
    unsynced: Vec<PathBuf>,
}

enum Change {
    Create(PathBuf),
    Rename { from: PathBuf, to: PathBuf, replaced: Option<Vec<u8>> },
}

/// What a power cut takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    /// Entries of directories.
    pub(super) entries: bool,
    /// Content of files.
    pub(super) content: bool,
}

impl TestFs {
    pub(super) fn new(fault: Option<(usize, Fault)>) -> TestFs {
        let state = State { fault, space: None, calls: vec![], pending: vec![], unsynced: vec![] };
        TestFs(Rc::new(RefCell::new(state)))
    }

    /// Says that the disk has so many bytes left.
    pub(super) fn with_space(self, n_bytes: u64) -> TestFs {
        self.0.borrow_mut().space = Some(n_bytes);
        self
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.0.borrow().calls.clone()
    }

    /// Takes from the real file system all that no sync has made durable.
    pub(super) fn cut_power(&self, loss: Loss) {
        let mut state = self.0.borrow_mut();
        if loss.content {
            for path in std::mem::take(&mut state.unsynced) {
                // Half is there, and the rest is what was on the disk before.
                if let Ok(bytes) = fs::read(&path) {
                    let half = bytes.len() / 2;
                    let lost: Vec<u8> =
                        bytes[..half].iter().copied().chain(vec![0; half]).collect();
                    fs::write(&path, lost).unwrap();
                }
            }
        }
        if loss.entries {
            for change in std::mem::take(&mut state.pending).into_iter().rev() {
                change.undo();
            }
        }
    }
}

impl Change {
    fn undo(self) {
        match self {
            Change::Create(path) if path.is_dir() => fs::remove_dir_all(path).unwrap(),
            // It may have been removed since.
            Change::Create(path) => drop(fs::remove_file(path)),
            Change::Rename { from, to, replaced } => {
                // Where it came from may be gone for good.
                if to.symlink_metadata().is_ok() && fs::rename(&to, from).is_err() {
                    fs::remove_dir_all(&to).unwrap();
                }
                if let Some(bytes) = replaced {
                    fs::write(to, bytes).unwrap();
                }
            }
        }
    }

    /// The directory whose sync makes it durable.
    fn directory(&self) -> Option<&Path> {
        match self {
            Change::Create(path) | Change::Rename { to: path, .. } => path.parent(),
        }
    }
}

impl State {
    /// Counts a call; `Err` when it is to fail. `half` is done first by a write that fails.
    fn enter(&mut self, name: &'static str, path: &Path, half: impl FnOnce()) -> io::Result<()> {
        let number = self.calls.len();
        self.calls.push(Call { name, path: path.to_owned() });
        match self.fault {
            Some((at, Fault::Once(errno))) if at == number => {
                half();
                Err(io::Error::from_raw_os_error(errno))
            }
            Some((at, Fault::Dead)) if number >= at => {
                if at == number {
                    half();
                }
                Err(io::Error::from_raw_os_error(5))
            }
            Some((at, Fault::Kill)) if at == number => {
                half();
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                )?;
                unreachable!("the process is killed")
            }
            _ => Ok(()),
        }
    }

    fn synced(&mut self, path: &Path) {
        self.unsynced.retain(|file| file != path);
        let is_durable = |change: &mut Change| change.directory() == Some(path);
        let durable: Vec<Change> = self.pending.extract_if(.., is_durable).collect();
        for change in durable {
            // What was created under the old name is lost, if at all, under the new one.
            if let Change::Rename { from, to, .. } = change {
                for change in &mut self.pending {
                    if let Change::Create(path) = change {
                        move_path(path, &from, &to);
                    }
                }
            }
        }
    }

    fn renamed(&mut self, from: &Path, to: &Path) {
        self.unsynced.iter_mut().for_each(|path| move_path(path, from, to));
    }
}

fn move_path(path: &mut PathBuf, from: &Path, to: &Path) {
    if let Ok(rest) = path.strip_prefix(from) {
        *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
    }
}

impl TestFs {
    fn enter(&self, name: &'static str, path: &Path) -> io::Result<()> {
        self.0.borrow_mut().enter(name, path, || ())
    }

    fn rename_by(
        &self,
        from: &Path,
        to: &Path,
        rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let replaced = fs::read(to).ok();
        rename(from, to)?;
        let mut state = self.0.borrow_mut();
        state.renamed(from, to);
        state.pending.push(Change::Rename { from: from.into(), to: to.into(), replaced });
        Ok(())
    }
}

struct TestFile {
    state: Rc<RefCell<State>>,
    path: PathBuf,
    file: Box<dyn OutputFile>,
}

impl Write for TestFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (file, half) = (&mut self.file, bytes.len() / 2);
        self.state.borrow_mut().enter("write", &self.path, || {
            file.write_all(&bytes[..half]).unwrap();
        })?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl OutputFile for TestFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.enter("sync", &self.path, || ())?;
        state.synced(&self.path);
        Ok(())
    }
}

impl FileSystem for TestFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        self.enter("create_new", path)?;
        let file = RealFileSystem.create_new(path)?;
        let mut state = self.0.borrow_mut();
        state.pending.push(Change::Create(path.to_owned()));
        state.unsynced.push(path.to_owned());
        Ok(Box::new(TestFile { state: self.0.clone(), path: path.to_owned(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        self.enter("open", path)?;
        RealFileSystem.open(path)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<u64> {
        self.0.borrow_mut().enter("copy", to, || fs::write(to, "half").unwrap())?;
        let count = RealFileSystem.copy(from, to)?;
        let mut state = self.0.borrow_mut();
        state.pending.push(Change::Create(to.to_owned()));
        state.unsynced.push(to.to_owned());
        Ok(count)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.enter("sync", path)?;
        self.0.borrow_mut().synced(path);
        RealFileSystem.metadata(path).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter("rename", to)?;
        self.rename_by(from, to, |from, to| RealFileSystem.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter("rename_new", to)?;
        self.rename_by(from, to, |from, to| RealFileSystem.rename_new(from, to))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.enter("create_dir", path)?;
        RealFileSystem.create_dir(path)?;
        self.0.borrow_mut().pending.push(Change::Create(path.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.enter("remove_file", path)?;
        RealFileSystem.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.enter("remove_dir", path)?;
        RealFileSystem.remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.enter("read_dir", path)?;
        RealFileSystem.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.enter("metadata", path)?;
        RealFileSystem.metadata(path)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.enter("symlink_metadata", path)?;
        RealFileSystem.symlink_metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.enter("canonicalize", path)?;
        RealFileSystem.canonicalize(path)
    }

    fn available_space(&self, path: &Path) -> io::Result<Option<u64>> {
        self.enter("available_space", path)?;
        match self.0.borrow().space {
            None => RealFileSystem.available_space(path),
            space => Ok(space),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.enter("lock", path)?;
        RealFileSystem.lock(path)
    }
}
