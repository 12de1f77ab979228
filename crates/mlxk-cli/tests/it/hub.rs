//! Caches and workspaces made for a test, and transcripts of what the program says about them.

mod names;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use self::names::blob_name;
use crate::support::{Ran, TinyModel, claim_cache, mlxk};

/// Set to write the transcripts anew.
const REGENERATE: &str = "MLXK_REGENERATE";

pub(crate) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A file of a model.
pub(crate) type File = (String, Vec<u8>);

/// A directory with a cache and a workspace home, and nothing of whoever runs the tests.
pub(crate) struct Hub {
    dir: TempDir,
}

impl Hub {
    pub(crate) fn new() -> Self {
        // The program deletes nothing in caches whose path has not this mark.
        let dir = tempfile::Builder::new().prefix("mlxk2_test_").tempdir().expect("a directory");
        claim_cache(&dir.path().join("hub"));
        fs::create_dir_all(dir.path().join("workspaces")).expect("made");
        Hub { dir }
    }

    /// A cache with one model of each kind that commands tell apart.
    pub(crate) fn with_models() -> Self {
        let hub = Hub::new();
        hub.put("mlx-community/Tiny-Chat", A, &chat_model());
        hub.put("mlx-community/Tiny-Base", A, &base_model());
        hub.put("org/other-chat", A, &chat_model());
        hub.put("org/novel", A, &edited(chat_model(), |c| c["model_type"] = json!("novel")));
        hub.put("org/unsound", A, &without(chat_model(), "model.safetensors"));
        hub.put("org/a--b", A, &chat_model());
        hub
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn model_dir(&self, id: &str) -> PathBuf {
        self.path().join("hub").join(format!("models--{}", id.replace('/', "--")))
    }

    /// Puts a revision of a model into the cache, as a hub's client does, and lets `main` mean it.
    pub(crate) fn put(&self, id: &str, commit: &str, files: &[File]) {
        claim_cache(&self.path().join("hub"));
        let dir = self.model_dir(id);
        fs::create_dir_all(dir.join("blobs")).expect("made");
        for (name, content) in files {
            let blob = blob_name(name, content);
            fs::write(dir.join("blobs").join(&blob), content).expect("written");
            let link = dir.join("snapshots").join(commit).join(name);
            let parent = link.parent().expect("a directory");
            fs::create_dir_all(parent).expect("made");
            let up = "../".repeat(2 + name.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), &link).expect("linked");
        }
        self.point(id, "main", commit);
    }

    pub(crate) fn point(&self, id: &str, name: &str, commit: &str) {
        let path = self.model_dir(id).join("refs").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, commit).expect("written");
    }

    pub(crate) fn workspace(&self, name: &str, files: &[File]) -> PathBuf {
        let dir = self.path().join("workspaces").join(name);
        for (name, content) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, content).expect("written");
        }
        dir
    }

    /// Returns the program, which sees this cache and these workspaces only.
    pub(crate) fn mlxk(&self) -> Command {
        let mut command = mlxk();
        command.env("HOME", self.path()).env("HF_HOME", self.path());
        command.env("MLXK_WORKSPACE_HOME", self.path().join("workspaces"));
        command.current_dir(self.path());
        command
    }

    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.mlxk().args(args).output().expect("mlxk starts").into()
    }

    /// Runs commands one after the other, as a person and as a program would read them, and returns
    /// all that came out of it.
    pub(crate) fn transcript(&self, commands: &[&str]) -> String {
        self.transcript_with(commands, &[])
    }

    /// [`Hub::transcript`], with variables of the environment.
    pub(crate) fn transcript_with(&self, commands: &[&str], vars: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for command in commands {
            let mut program = self.mlxk();
            program.args(command.split_whitespace()).envs(vars.iter().copied());
            let ran = Ran::from(program.output().expect("mlxk starts"));
            let code = ran.code.expect("an exit code");
            if command.contains("--json") {
                assert_eq!(ran.stderr, "", "{command}");
                ran.envelope();
            }
            let _ = write!(text, "$ mlxk {command}\n{}", ran.stdout);
            for line in ran.stderr.lines() {
                let _ = writeln!(text, "! {line}");
            }
            if code != 0 {
                let _ = writeln!(text, "exit code {code}");
            }
            text.push('\n');
        }
        self.without_accidents(&text)
    }

    /// Replaces what differs from run to run: directories and times.
    fn without_accidents(&self, text: &str) -> String {
        let mut lines = Vec::new();
        let text = text.replace(&self.path().display().to_string(), "DIR");
        // Where macOS has caches.
        for line in text.replace("DIR/Library/Caches/", "DIR/.cache/").lines() {
            let is_variable = |key: &str| line.trim_start().starts_with(&format!("\"{key}\": "));
            let keys = ["last_modified", "memory_total_bytes"];
            lines.push(match keys.into_iter().find(|key| is_variable(key)) {
                Some(key) => {
                    let comma = if line.ends_with(',') { "," } else { "" };
                    let (indent, _) = line.split_once('"').expect("a key");
                    format!("{indent}\"{key}\": …{comma}")
                }
                None => line.to_owned(),
            });
        }
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        lines.join("\n").trim_end().to_owned() + "\n"
    }
}

/// Compares a transcript with the committed one.
#[track_caller]
pub(crate) fn check_transcript(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts").join(name);
    if std::env::var_os(REGENERATE).is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, text).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if committed == text {
        return;
    }
    let lines = committed.lines().zip(text.lines()).enumerate();
    let differing = lines.into_iter().find(|(_, (a, b))| a != b);
    let (at, (a, b)) = differing.unwrap_or((0, ("the one is longer", "than the other")));
    panic!("{name}:{}: {a:?} is {b:?} now; set {REGENERATE}=1 if that is right\n{text}", at + 1);
}

/// Returns the files of a model that answers, if only nonsense.
pub(crate) fn chat_model() -> Vec<File> {
    let model = TinyModel::new();
    let entries = fs::read_dir(model.path()).expect("a directory");
    let mut files: Vec<File> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("read"))
        })
        .collect();
    files.sort();
    files
}

pub(crate) fn base_model() -> Vec<File> {
    let mut files = without(chat_model(), "tokenizer_config.json");
    files.push(("tokenizer_config.json".to_owned(), b"{}".to_vec()));
    files
}

/// Changes the configuration.
pub(crate) fn edited(mut files: Vec<File>, edit: impl FnOnce(&mut Value)) -> Vec<File> {
    let (_, content) = files.iter_mut().find(|(name, _)| name == "config.json").expect("there");
    let mut config = serde_json::from_slice(content).expect("JSON");
    edit(&mut config);
    *content = config.to_string().into_bytes();
    files
}

pub(crate) fn without(mut files: Vec<File>, name: &str) -> Vec<File> {
    files.retain(|(other, _)| other != name);
    files
}
