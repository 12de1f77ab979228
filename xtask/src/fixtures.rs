//! `cargo xtask fixtures`: runs the generators of the reference data.
//!
//! A generator is a script directly in `fixtures/gen/<crate>`; it writes into `fixtures/data`
//! beside its own tree. To check, the tree is copied, the copies run, and their data compared with
//! what is committed. [`check_committed`] is the part of it that needs no Python.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{flags, native, shell};

/// The trained model is exported and measured again, never trained again.
const DEMO: &str = "demo/export.py";

/// The directories of a crate's data that hold one checkpoint per case, named by an index.
const CHECKPOINTS: &[&str] = &["checkpoints", "families"];

pub fn run(flags: &flags::Fixtures) -> Result<ExitCode> {
    let fixtures = shell::root().join("fixtures");
    let filter = flags.filter.as_deref().unwrap_or_default();
    let generators: Vec<PathBuf> = generators(&fixtures)?
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(filter))
        .collect();
    ensure!(!generators.is_empty(), "no generator has `{filter}` in its path");
    let python = match &flags.python {
        Some(program) => program.clone(),
        None => environment(&fixtures.join("gen/requirements.txt"))?,
    };
    if !flags.check {
        generate(&python, &fixtures, &generators)?;
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = tempfile::tempdir()?;
    for part in ["gen", "data", "models"] {
        copy_tree(&fixtures.join(part), &scratch.path().join(part))?;
    }
    generate(&python, scratch.path(), &generators)?;
    let differences = differences(&fixtures.join("data"), &scratch.path().join("data"))?;
    for difference in &differences {
        eprintln!("fixtures/data/{difference}");
    }
    if differences.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {} files are not what the generators write", differences.len());
    eprintln!("hint: cargo xtask fixtures, then read the difference");
    Ok(ExitCode::FAILURE)
}

/// Lists all scripts as paths relative to `fixtures/gen`, those that need other packages too.
pub fn scripts(fixtures: &Path) -> Result<Vec<PathBuf>> {
    let files = shell::files_below(&fixtures.join("gen"))?;
    Ok(files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "py")).collect())
}

/// Lists the scripts that run with the pinned packages.
pub fn generators(fixtures: &Path) -> Result<Vec<PathBuf>> {
    let crates = shell::root().join("crates");
    Ok(scripts(fixtures)?
        .into_iter()
        .filter(|path| {
            let dir = path.parent().unwrap_or(Path::new(""));
            let of_crate = dir.components().count() == 1 && crates.join(dir).is_dir();
            of_crate || path == Path::new(DEMO)
        })
        .collect())
}

fn generate(python: &Path, fixtures: &Path, generators: &[PathBuf]) -> Result<()> {
    for path in generators {
        shell::step(&path.display().to_string());
        let start = Instant::now();
        shell::run(Command::new(python).arg(fixtures.join("gen").join(path)))?;
        eprintln!("    {}", shell::seconds(start.elapsed()));
    }
    Ok(())
}

/// Makes the scratch environment with the pinned packages, once per list of packages.
fn environment(requirements: &Path) -> Result<PathBuf> {
    let wanted =
        fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
    let dir = shell::target_dir()?.join("fixtures-python");
    let python = dir.join("bin/python");
    let stamp = dir.join("requirements.txt");
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    shell::step("making a Python environment with the pinned packages");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let system = if native::has_program("python3.11") { "python3.11" } else { "python3" };
    shell::run(Command::new(system).args(["-m", "venv"]).arg(&dir))
        .context("hint: apt-get install python3-venv, or name a Python with --python")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    shell::run(pip.arg(requirements).stdout(std::io::stderr()))?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}

/// Names each file that is on one side only or has other bytes.
fn differences(committed: &Path, fresh: &Path) -> Result<Vec<String>> {
    let (old, new) = (shell::files_below(committed)?, shell::files_below(fresh)?);
    let all: BTreeSet<&PathBuf> = old.iter().chain(&new).collect();
    let mut differences = Vec::new();
    for path in all {
        let what = match (fs::read(committed.join(path)), fs::read(fresh.join(path))) {
            (Ok(a), Ok(b)) if a == b => continue,
            (Ok(_), Ok(_)) => "differs",
            (Ok(_), Err(_)) => "is no longer written",
            _ => "is not committed",
        };
        differences.push(format!("{}: {what}", path.display()));
    }
    Ok(differences)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for path in shell::files_below(from)? {
        let target = to.join(&path);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(from.join(&path), target)?;
    }
    Ok(())
}

/// Checks without Python that the committed files are whole and fit together.
pub fn check_committed() -> Result<()> {
    let fixtures = shell::root().join("fixtures");
    let mut problems = Vec::new();
    let mut files = 0;
    for part in ["data", "models"] {
        let dir = fixtures.join(part);
        if !dir.is_dir() {
            continue;
        }
        for path in shell::files_below(&dir)? {
            files += 1;
            let at = dir.join(&path);
            if let Err(e) = check_file(&at) {
                problems.push(format!("fixtures/{part}/{}: {e:#}", path.display()));
            }
        }
    }
    for crate_dir in directories(&fixtures.join("data"))? {
        for checkpoints in CHECKPOINTS.iter().map(|name| crate_dir.join(name)) {
            if checkpoints.is_dir()
                && let Err(e) = check_checkpoints(&checkpoints)
            {
                problems.push(format!("{}: {e:#}", checkpoints.display()));
            }
        }
    }
    let requirements = fixtures.join("gen/requirements.txt");
    let pins =
        fs::read_to_string(&requirements).with_context(|| requirements.display().to_string())?;
    if let Err(e) = check_pins(&pins) {
        problems.push(format!("fixtures/gen/requirements.txt: {e}"));
    }
    for problem in &problems {
        println!("{problem}");
    }
    ensure!(problems.is_empty(), "{} of {files} fixture files are wrong", problems.len());
    ensure!(files > 0, "there are no fixtures");
    println!("{files} fixture files are whole");
    Ok(())
}

fn check_file(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = fs::read(path)?;
    if name.ends_with(".safetensors") {
        check_safetensors(&bytes)?;
    } else if name.ends_with(".json") {
        let value: Value = serde_json::from_slice(&bytes)?;
        if name.ends_with(".safetensors.index.json") {
            check_index(&value, path.parent().unwrap_or(path))?;
        }
    }
    ensure!(!bytes.is_empty(), "empty");
    Ok(())
}

/// The header must be JSON and its tensors must fill the rest of the file without gap or overlap.
fn check_safetensors(bytes: &[u8]) -> Result<()> {
    let (length, rest) = bytes.split_first_chunk::<8>().context("shorter than its header")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let (header, data) = rest.split_at_checked(length).context("shorter than its header")?;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header)?;
    let mut spans = Vec::new();
    for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let end = |i: usize| tensor["data_offsets"][i].as_u64();
        match (end(0), end(1)) {
            (Some(from), Some(to)) if from <= to => spans.push((from, to)),
            _ => bail!("tensor `{name}` has no offsets"),
        }
    }
    spans.sort_unstable();
    let mut filled = 0;
    for (from, to) in spans {
        ensure!(from == filled, "a gap or overlap at byte {filled}");
        filled = to;
    }
    ensure!(filled == data.len() as u64, "holds {} bytes, its tensors {filled}", data.len());
    Ok(())
}

fn check_index(index: &Value, dir: &Path) -> Result<()> {
    let map = index["weight_map"].as_object().context("no weight_map")?;
    for shard in map.values().filter_map(Value::as_str) {
        ensure!(dir.join(shard).is_file(), "names the absent shard {shard}");
    }
    Ok(())
}

/// The index of the checkpoints and their directories must name the same cases.
fn check_checkpoints(dir: &Path) -> Result<()> {
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json"))?)?;
    let cases = index["cases"].as_array().context("index.json has no cases")?;
    let named: BTreeSet<String> =
        cases.iter().filter_map(|case| case["name"].as_str()).map(str::to_owned).collect();
    let directories = directories(dir)?;
    let found: BTreeSet<String> = directories
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if let Some(case) = named.symmetric_difference(&found).next() {
        bail!("`{case}` is in the index or a directory, not both");
    }
    for case in &directories {
        for file in ["config.json", "expected.json", "expected.safetensors"] {
            ensure!(case.join(file).is_file(), "{}: no {file}", case.display());
        }
    }
    Ok(())
}

/// The reference must be the MLX that the workspace builds.
fn check_pins(requirements: &str) -> Result<()> {
    let mlx = format!("mlx=={}", native::MLX_VERSION);
    let lines: Vec<&str> = requirements
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    ensure!(lines.contains(&mlx.as_str()), "does not pin {mlx}");
    for line in lines {
        ensure!(line.contains("=="), "`{line}` names no exact version");
    }
    Ok(())
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in dir.read_dir().with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    directories.sort();
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn safetensors_must_be_filled_exactly() {
        let two = r#"{"__metadata__":{},"b":{"data_offsets":[4,6]},"a":{"data_offsets":[0,4]}}"#;
        let gap = r#"{"a":{"data_offsets":[0,4]},"b":{"data_offsets":[5,6]}}"#;
        let overlap = r#"{"a":{"data_offsets":[0,4]},"b":{"data_offsets":[3,6]}}"#;
        for (header, data, passes) in [
            (two, 6, true),
            ("{}", 0, true),
            (two, 5, false),
            (two, 7, false),
            (gap, 6, false),
            (overlap, 6, false),
            (r#"{"a":{}}"#, 0, false),
            ("nonsense", 0, false),
        ] {
            let result = check_safetensors(&safetensors(header, data));
            assert_eq!(result.is_ok(), passes, "{header} with {data} bytes: {result:?}");
        }
        assert!(check_safetensors(b"short").is_err());
        assert!(check_safetensors(&u64::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn pins_are_exact_and_of_the_same_mlx() {
        let mlx = format!("mlx=={}\n", native::MLX_VERSION);
        assert!(check_pins(&format!("# pinned\n{mlx}numpy==2.4.6\n")).is_ok());
        assert!(check_pins(&format!("{mlx}numpy>=2\n")).is_err());
        assert!(check_pins("mlx==0.1.0\n").is_err());
    }

    #[test]
    fn differences_are_found_on_both_sides() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, file, text) in [
            (&old, "same", "1"),
            (&new, "same", "1"),
            (&old, "other", "1"),
            (&new, "other", "2"),
            (&old, "gone", "1"),
            (&new, "fresh", "1"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        assert_eq!(
            differences(old.path(), new.path()).unwrap(),
            ["fresh: is not committed", "gone: is no longer written", "other: differs"]
        );
    }

    #[test]
    fn checkpoints_are_whole_and_in_the_index() {
        let files = ["config.json", "expected.json", "expected.safetensors"];
        for (named, found, files, passes) in [
            (vec!["a", "b"], vec!["a", "b"], &files[..], true),
            (vec!["a", "b"], vec!["a"], &files[..], false),
            (vec!["a"], vec!["a", "b"], &files[..], false),
            (vec!["a"], vec!["a"], &files[1..], false),
            (vec!["a"], vec!["a"], &files[..2], false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let cases: Vec<Value> =
                named.iter().map(|name| serde_json::json!({"name": name})).collect();
            let index = serde_json::json!({ "cases": cases }).to_string();
            fs::write(dir.path().join("index.json"), index).unwrap();
            for case in &found {
                let case = dir.path().join(case);
                fs::create_dir(&case).unwrap();
                for file in files {
                    fs::write(case.join(file), "x").unwrap();
                }
            }
            let result = check_checkpoints(dir.path());
            assert_eq!(result.is_ok(), passes, "{named:?}, {found:?}, {files:?}: {result:?}");
        }
        assert!(check_checkpoints(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn an_index_names_present_shards_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.safetensors"), "x").unwrap();
        let index = |shard: &str| serde_json::json!({"weight_map": {"w": shard}});
        assert!(check_index(&index("a.safetensors"), dir.path()).is_ok());
        assert!(check_index(&index("b.safetensors"), dir.path()).is_err());
        assert!(check_index(&serde_json::json!({}), dir.path()).is_err());
    }
}
