//! The program, and tiny models for it to run.

mod characters;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::schema;
pub(crate) use characters::tokenizer;

/// A home and a cache with nothing in them, so that none of the user's is ever seen.
static NOWHERE: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::Builder::new().prefix("mlxk2_test_").tempdir();
    dir.expect("a temporary directory")
});

/// Makes a cache, or makes sure that one is a test's own, before anything is written to it: no wrong path
/// costs anybody a model.
pub(crate) fn claim_cache(cache: &Path) {
    assert!(try_claim(cache), "{} is no test's cache", cache.display());
}

fn try_claim(cache: &Path) -> bool {
    let sentinel = cache.join(".mlxk-test-sentinel");
    if cache.exists() {
        return sentinel.is_file();
    }
    std::fs::create_dir_all(cache).expect("a directory");
    std::fs::write(sentinel, "made for a test of mlxk\n").expect("a file");
    true
}

#[test]
fn nothing_is_written_to_a_cache_of_somebody_else() {
    let somebodys = tempfile::tempdir().expect("a directory");
    assert!(!try_claim(somebodys.path()));
    assert_eq!(somebodys.path().read_dir().expect("a directory").count(), 0);
    let own = somebodys.path().join("own");
    assert!(try_claim(&own) && try_claim(&own), "made, and known again");
}

/// Returns the program, away from the settings and the models of whoever runs the tests.
pub(crate) fn mlxk() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlxk"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let prefixes = ["MLXK", "HF_", "HUGGINGFACE", "XDG_", "CLICOLOR"];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    for name in ["RUST_BACKTRACE", "COLUMNS", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.env("HOME", NOWHERE.path()).env("HF_HOME", NOWHERE.path());
    // Nothing is deleted in a cache that is not marked as a test's.
    command.env("MLXK2_STRICT_TEST_DELETE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What came out of the program.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let ran = Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        for sign in ["panicked", "RUST_BACKTRACE", "terminate called"] {
            assert!(!ran.stderr.contains(sign) && !ran.stdout.contains(sign), "{}", ran.stderr);
        }
        ran
    }
}

impl Ran {
    /// Returns stdout of a run that went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Returns the envelope, which has to be the only thing on stdout and to follow the schema.
    #[track_caller]
    pub(crate) fn envelope(&self) -> Value {
        let envelope: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr));
        assert!(self.stdout.is_ascii() && self.stdout.starts_with("{\n  \"status\""));
        schema::check(&envelope);
        envelope
    }

    /// Returns `data` of a run that went well.
    #[track_caller]
    pub(crate) fn data(&self) -> Value {
        let mut envelope = self.envelope();
        assert_eq!(self.code, Some(0), "{envelope:#}");
        assert_eq!(self.stderr, "");
        envelope["data"].take()
    }
}

pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    mlxk().args(args).output().expect("mlxk starts").into()
}

pub(crate) fn run_with_stdin(args: &[&str], stdin: &[u8]) -> Ran {
    let mut child = mlxk().args(args).stdin(Stdio::piped()).spawn().expect("mlxk starts");
    // It need not read all that there is.
    let _ = child.stdin.take().expect("piped").write_all(stdin);
    child.wait_with_output().expect("mlxk ends").into()
}

/// A tiny model with random weights, in a directory of its own. It answers nonsense, without end.
pub(crate) struct TinyModel {
    _keep: TempDir,
    path: PathBuf,
}

/// Its window, in tokens.
pub(crate) const CONTEXT: usize = 512;

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
    {% if add_generation_prompt %}assistant: {% endif %}";

impl TinyModel {
    pub(crate) fn new() -> Self {
        Self::of("qwen3-f32", "tiny")
    }

    /// Copies a checkpoint of the fixtures into a directory called `name`.
    pub(crate) fn of(checkpoint: &str, name: &str) -> Self {
        TinyModel::at(&format!("mlx-lm/checkpoints/{checkpoint}"), name)
    }

    /// Copies the checkpoint of a directory among the fixtures.
    pub(crate) fn at(checkpoint: &str, name: &str) -> Self {
        let keep = tempfile::tempdir().expect("a temporary directory");
        let path = keep.path().join(name);
        std::fs::create_dir(&path).expect("a directory");
        let source = fixtures::path(checkpoint);
        for entry in source.read_dir().expect("a checkpoint") {
            let entry = entry.expect("a checkpoint");
            if !entry.file_name().to_string_lossy().starts_with("expected") {
                std::fs::copy(entry.path(), path.join(entry.file_name())).expect("a copy");
            }
        }
        let model = TinyModel { _keep: keep, path };
        model.edit("config.json", |config| {
            config["max_position_embeddings"] = CONTEXT.into();
            // One that is in no vocabulary, so never made.
            config["eos_token_id"] = 1_000_000.into();
        });
        model.write("tokenizer.json", tokenizer().to_string());
        model.write("tokenizer_config.json", json!({"chat_template": TEMPLATE}).to_string());
        model
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn arg(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path.join(name), content).expect("a file");
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path.join(name)).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path.join(name)).expect("a file")
    }

    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.read(name)).expect("JSON");
        edit(&mut value);
        self.write(name, value.to_string());
    }
}
