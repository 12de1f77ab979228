//! The program under test, away from the settings of whoever runs the suite.

#[path = "../../../../crates/mlxk-cli/tests/it/schema/validator.rs"]
mod validator;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::shell;

/// Variables that change what `mlxk` does or where it looks.
const SETTINGS: &[&str] = &["MLXK", "HF_", "HUGGINGFACE", "XDG_", "CLICOLOR"];
const MORE_SETTINGS: &[&str] = &["NO_COLOR", "COLUMNS", "RUST_BACKTRACE"];

/// Where models are, as the user's settings or a suite's own say.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    pub cache: PathBuf,
    pub workspaces: Option<PathBuf>,
}

pub struct Program {
    path: PathBuf,
    /// Where shared libraries of a native MLX are that was installed.
    libraries: Vec<PathBuf>,
    schema: Value,
    /// A home with no settings in it.
    home: PathBuf,
    places: Places,
}

/// What came out of a run.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Returns stdout of a run that went well.
    pub fn ok(self) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => bail!("exit code {}: {}", code.unwrap_or(-1), self.stderr.trim()),
        }
    }
}

impl Program {
    /// Takes a program that is there, or builds it.
    pub fn new(path: Option<&Path>, profile: Profile, home: PathBuf) -> Result<Program> {
        let (path, libraries) = match path {
            Some(path) => (std::path::absolute(path)?, Vec::new()),
            None => build(profile)?,
        };
        let schema = shell::root().join("docs/mlxk.schema.json");
        let schema = serde_json::from_slice(&std::fs::read(schema)?)?;
        let places = Places { cache: home.join("no-cache"), workspaces: None };
        Ok(Program { path, libraries, schema, home, places })
    }

    /// Returns the program as it is from now on: its models are there and nowhere else.
    pub fn at(self, places: Places) -> Program {
        Program { places, ..self }
    }

    pub fn cache(&self) -> &Path {
        &self.places.cache
    }

    /// Asks where models are by the settings of whoever runs this.
    pub fn places_of_user(&self) -> Result<Places> {
        let mut command = Command::new(&self.path);
        self.add_libraries(&mut command);
        command.args(["config", "show", "--json"]);
        let data = self.data(&command.output().context("mlxk does not start")?.into())?;
        let entries = data["settings"].as_array().context("there are no settings")?;
        let value = |name: &str| {
            let entry = entries.iter().find(|entry| entry["name"] == name)?;
            entry["value"].as_str().map(PathBuf::from)
        };
        let cache = value("hub_cache").context("the settings have no hub_cache")?;
        Ok(Places { cache, workspaces: value("workspace_home") })
    }

    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let is_setting = SETTINGS.iter().any(|prefix| text.starts_with(prefix));
            if is_setting || MORE_SETTINGS.contains(&text.as_ref()) {
                command.env_remove(&name);
            }
        }
        self.add_libraries(&mut command);
        command.env("HOME", &self.home).env("HF_HUB_CACHE", &self.places.cache);
        if let Some(dir) = &self.places.workspaces {
            command.env("MLXK_WORKSPACE_HOME", dir);
        }
        // Deleting in a cache that is not a test's is refused.
        command.env("MLXK2_STRICT_TEST_DELETE", "1");
        command.current_dir(&self.home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(args);
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Ran> {
        Ok(self.command(args).output().context("mlxk does not start")?.into())
    }

    pub fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Result<Ran> {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn()?;
        // It need not read all that there is.
        let _ = child.stdin.take().context("piped")?.write_all(stdin.as_bytes());
        Ok(child.wait_with_output()?.into())
    }

    /// Runs a command with `--json` and returns `data` of its envelope.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let ran = self.run(args.iter().chain(&["--json"]))?;
        self.data(&ran).with_context(|| format!("mlxk {}", args.join(" ")))
    }

    /// Returns the envelope: the only thing on stdout, as the published schema has it, while stderr
    /// has nothing but warnings.
    pub fn envelope(&self, ran: &Ran) -> Result<Value> {
        let mut lines = ran.stderr.lines();
        ensure!(lines.all(is_warning), "stderr has: {}", ran.stderr.trim());
        let envelope: Value = serde_json::from_str(&ran.stdout)
            .with_context(|| format!("stdout is not JSON: {}", ran.stdout))?;
        let checked = validator::validate(&self.schema, &envelope);
        checked.map_err(|error| anyhow!("not what the schema says: {error}"))?;
        Ok(envelope)
    }

    fn data(&self, ran: &Ran) -> Result<Value> {
        let mut envelope = self.envelope(ran)?;
        let error = &envelope["error"];
        ensure!(error.is_null(), "{}", error["message"].as_str().unwrap_or_default());
        ensure!(ran.code == Some(0), "exit code {:?} without an error", ran.code);
        Ok(envelope["data"].take())
    }

    /// Does what cargo does for a program that it runs.
    fn add_libraries(&self, command: &mut Command) {
        let name = match cfg!(target_os = "macos") {
            true => "DYLD_FALLBACK_LIBRARY_PATH",
            false => "LD_LIBRARY_PATH",
        };
        let present = std::env::var_os(name).unwrap_or_default();
        let paths = self.libraries.iter().cloned().chain(std::env::split_paths(&present));
        if let Ok(paths) = std::env::join_paths(paths) {
            command.env(name, paths);
        }
    }
}

/// Whether a line of stderr tells of something odd that was no hindrance.
pub fn is_warning(line: &str) -> bool {
    line.starts_with("warning: ")
}

/// How the program is built, where none is given.
#[derive(Clone, Copy, PartialEq)]
pub enum Profile {
    /// As the other suites have built it already.
    Dev,
    /// As users have it, so that speeds mean something.
    Release,
}

/// Builds the program and returns its path and those of the libraries that it was linked with.
fn build(profile: Profile) -> Result<(PathBuf, Vec<PathBuf>)> {
    let mut cargo = shell::cargo();
    match profile {
        // Alone it would be built anew, with all beneath it: tests ask for more of what they share.
        Profile::Dev => cargo.args(["test", "--workspace", "--test", "cli", "--no-run"]),
        Profile::Release => cargo.args(["build", "--workspace", "--bin", "mlxk", "--release"]),
    };
    cargo.args(["--message-format", "json-render-diagnostics"]);
    built(&shell::output(&mut cargo)?)
}

fn built(messages: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
    let mut program = None;
    let mut libraries = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo's messages are JSON")?;
        if message["target"]["name"] == "mlxk" {
            program = message["executable"].as_str().map(PathBuf::from).or(program);
        }
        for path in message["linked_paths"].as_array().into_iter().flatten() {
            let path = path.as_str().unwrap_or_default();
            libraries.push(path.rsplit_once('=').map_or(path, |(_, path)| path).into());
        }
    }
    Ok((program.context("cargo names no program mlxk")?, libraries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_tells_where_the_program_is() {
        let messages = r#"{"reason":"build-script-executed","linked_paths":["native=/mlx/lib"]}
{"reason":"compiler-artifact","target":{"name":"mlx-lm"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"mlxk"},"executable":"/target/mlxk"}
{"reason":"build-finished","success":true}
"#;
        let (program, libraries) = built(messages).unwrap();
        assert_eq!(program, Path::new("/target/mlxk"));
        assert_eq!(libraries, [Path::new("/mlx/lib")]);
        assert!(built("{}").is_err());
    }

    #[test]
    fn an_envelope_is_alone_and_as_the_schema_says() {
        let path = Path::new("/none");
        let program = Program::new(Some(path), Profile::Dev, PathBuf::new()).unwrap();
        let ran = |stdout: &str, stderr: &str| Ran {
            code: Some(0),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        let sound = r#"{"status": "success", "command": "config", "error": null,
            "data": {"file": null, "file_exists": false, "settings": []}}"#;
        for stderr in ["", "warning: odd\nwarning: odder\n"] {
            assert_eq!(program.data(&ran(sound, stderr)).unwrap()["file_exists"], false);
        }
        for (stdout, stderr, says) in [
            (sound, "note", "stderr has: note"),
            ("text", "", "stdout is not JSON: text"),
            (&sound.replace("false", "0"), "", "not what the schema says: $"),
            (&sound.replace("success", "done"), "", "not what the schema says: $"),
        ] {
            let error = program.data(&ran(stdout, stderr)).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
