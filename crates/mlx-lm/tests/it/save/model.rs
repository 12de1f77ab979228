//! A model to save: a source directory, tensors in several files, and what the result should be.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_core::Dtype;
use mlx_core::io::{TensorLayout, TensorSink};
use mlx_lm::Result;
use mlx_lm::files::ModelFiles;
use mlx_lm::save::{
    FileSystem, ModelCard, Progress, SaveArgs, SaveError, Saved, TensorSource, save,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::test_fs::TestFs;

/// The bytes of every file below a directory, by name.
pub(super) type Tree = BTreeMap<String, Vec<u8>>;

pub(super) const N_SHARDS: usize = 17;

const FILES: [(&str, &str); 10] = [
    ("README.md", "---\nlicense: mit\n---\n# Source\n"),
    ("config.json", r#"{"model_type": "llama"}"#),
    ("model.safetensors", "old weights"),
    ("tokenizer.json", r#"{"model": {}}"#),
    ("tokenizer_config.json", "{}"),
    ("chat_template.jinja", "{{ messages }}"),
    ("chat_templates/tool_use.jinja", "{{ tools }}"),
    ("generation_config.json", r#"{"eos_token_id": 2}"#),
    ("modeling.py", "pass"),
    ("notes.txt", "nothing that is copied"),
];

/// Files of [`FILES`] without which a model is still one.
pub(super) const EXTRA: [&str; 3] = ["README.md", "generation_config.json", "modeling.py"];

/// A directory with a source in it and room for a destination.
pub(super) struct Workspace {
    pub(super) dir: PathBuf,
    pub(super) tensors: Vec<TensorLayout>,
    pub(super) config: Value,
    _owner: Option<TempDir>,
}

/// What a test changes of a save.
pub(super) struct Options<'a> {
    pub(super) resume: bool,
    pub(super) fingerprint: &'a str,
    pub(super) file_system: &'a dyn FileSystem,
    pub(super) progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

pub(super) fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl Workspace {
    /// Makes a source in a new directory, in memory where the system has such: the tests make tens
    /// of thousands of files.
    pub(super) fn new() -> Workspace {
        let in_memory = tempfile::tempdir_in("/dev/shm");
        Workspace::within(in_memory.or_else(|_| tempfile::tempdir()).unwrap())
    }

    /// Makes a source in a new directory on the disk.
    pub(super) fn on_disk() -> Workspace {
        Workspace::within(tempfile::tempdir().unwrap())
    }

    fn within(owner: TempDir) -> Workspace {
        let source = owner.path().join("source");
        for (name, text) in FILES {
            let path = source.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let dir = owner.path().to_owned();
        Workspace { _owner: Some(owner), ..Workspace::at(dir) }
    }

    /// Takes a directory that another process made.
    pub(super) fn at(dir: PathBuf) -> Workspace {
        let tensor = |position: usize| TensorLayout {
            name: format!("layers.{position}.weight"),
            dtype: if position.is_multiple_of(2) { Dtype::Uint16 } else { Dtype::Float32 },
            shape: vec![5, 4 + (position % 3) as i32],
        };
        let config = json!({"model_type": "llama", "rms_norm_eps": 1e-5, "_name_or_path": "x"});
        Workspace { dir, tensors: (0..33).map(tensor).collect(), config, _owner: None }
    }

    pub(super) fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    pub(super) fn destination(&self) -> PathBuf {
        self.dir.join("result")
    }

    pub(super) fn partial(&self) -> PathBuf {
        self.dir.join(".result.mlxk-partial")
    }

    /// Saves to [`Workspace::destination`].
    pub(super) fn save(&self, options: Options<'_>) -> Result<Saved, SaveError> {
        self.save_to(&self.destination(), options)
    }

    pub(super) fn save_to(
        &self,
        destination: &Path,
        options: Options<'_>,
    ) -> Result<Saved, SaveError> {
        let source = ModelFiles::directory(self.source()).unwrap();
        let args = SaveArgs {
            destination,
            tensors: &self.tensors,
            n_parameters: 330,
            config: &self.config,
            source: Some(&source),
            model_card: ModelCard { base_model: Some("a/b".into()), body: String::new() },
            max_shard_bytes: 170,
            resume: options.resume,
            fingerprint: options.fingerprint,
            file_system: options.file_system,
            progress: options.progress,
            finish: None,
        };
        save(args, &mut Counting { tensors: &self.tensors, next: 0 })
    }

    /// Saves without anything special.
    pub(super) fn save_plainly(&self, resume: bool) -> Result<Saved, SaveError> {
        self.save_on(&TestFs::new(None), resume)
    }

    pub(super) fn save_on(
        &self,
        file_system: &dyn FileSystem,
        resume: bool,
    ) -> Result<Saved, SaveError> {
        self.save(Options { resume, fingerprint: "same", file_system, progress: &mut go_on })
    }

    /// Stops a save when so many bytes are written.
    pub(super) fn interrupt(&self, n_bytes: u64) -> SaveError {
        let mut progress = |p: Progress| match p.n_bytes >= n_bytes {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let result = self.save(Options {
            resume: false,
            fingerprint: "same",
            file_system: &TestFs::new(None),
            progress: &mut progress,
        });
        result.unwrap_err()
    }

    /// Returns what an undisturbed save writes.
    pub(super) fn reference() -> Tree {
        let workspace = Workspace::new();
        let saved = workspace.save_plainly(false).unwrap();
        assert_eq!((saved.n_shards, saved.n_resumed_shards), (N_SHARDS, 0));
        tree(&workspace.destination())
    }
}

/// Gives each tensor bytes of its own, and checks the order in which they are asked for.
struct Counting<'a> {
    tensors: &'a [TensorLayout],
    next: usize,
}

impl TensorSource for Counting<'_> {
    fn write(&mut self, index: usize, sink: &mut TensorSink<'_>) -> Result<()> {
        assert!(index >= self.next, "tensor {index} again");
        self.next = index + 1;
        let size = self.tensors[index].byte_size().unwrap() as usize;
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + index * 31) as u8).collect();
        let (first, second) = bytes.split_at(size / 3);
        sink.write(first)?;
        Ok(sink.write(second)?)
    }
}

/// Reads every file below `root`, and where links lead.
pub(super) fn tree(root: &Path) -> Tree {
    let mut files = Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(dir) = directories.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_symlink() {
                files.insert(
                    name,
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                );
            } else {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
