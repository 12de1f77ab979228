//! `cargo xtask bench list`: how long a list of 500 cached models takes, with the health of each.
//!
//! The models are copies of the program's own under other names, so that no two share a file; their
//! tokenizer and weights are small, which is why a first list over larger ones takes longer by what
//! their tokenizers take to read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::median;
use crate::shell;

const MODELS: usize = 500;
/// Files have to be left alone for so long before what was found of them is kept.
const SETTLING: std::time::Duration = std::time::Duration::from_millis(2500);
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Prints medians over `rounds`.
pub fn run(mlxk: &Path, rounds: u32) -> Result<()> {
    let home = tempfile::Builder::new().prefix("mlxk-bench").tempdir()?;
    shell::step(&format!("making {MODELS} models"));
    make(home.path())?;
    std::thread::sleep(SETTLING);
    let list = |keep: bool| {
        let mut command = Command::new(mlxk);
        command.args(["list", "--health"]).env("HF_HOME", home.path()).env("HOME", home.path());
        command.env("MLXK_NO_CACHE", if keep { "0" } else { "1" });
        command
    };
    let shown = shell::output(&mut list(true))?;
    let healthy = shown.lines().filter(|line| line.contains("healthy")).count();
    if healthy != MODELS {
        bail!("{healthy} of {MODELS} models are healthy");
    }
    println!("| `mlxk list --health`, {MODELS} models | cold | warm |");
    println!("|---|---|---|");
    for (name, keep) in [("for the first time", false), ("again", true)] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let cold = forget_files();
            for (times, is_known) in times.iter_mut().zip([cold, true]) {
                let begin = Instant::now();
                shell::output(&mut list(keep))?;
                if is_known {
                    times.push(begin.elapsed().as_secs_f64());
                }
            }
        }
        let [cold, warm] = times.map(|times| match times.is_empty() {
            true => "–".to_owned(),
            false => format!("{:.2} s", median(times)),
        });
        println!("| {name} | {cold} | {warm} |");
    }
    let starts = (0..10 * rounds).map(|_| {
        let begin = Instant::now();
        shell::output(Command::new(mlxk).arg("--version"))?;
        Ok(begin.elapsed().as_secs_f64())
    });
    let start = median(starts.collect::<Result<_>>()?);
    println!("\n`mlxk --version`: {:.0} ms", 1e3 * start);
    Ok(())
}

/// Lets the system drop what it has read, which the user may not be allowed to.
fn forget_files() -> bool {
    shell::succeeds(&mut Command::new("sync")) && fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// Lays the models out as a hub's client does.
fn make(home: &Path) -> Result<()> {
    let source = shell::root().join("fixtures/models/demo");
    for index in 0..MODELS {
        let model = home.join(format!("hub/models--org--model-{index:03}"));
        let snapshot = model.join("snapshots").join(COMMIT);
        for dir in [&model.join("blobs"), &model.join("refs"), &snapshot] {
            fs::create_dir_all(dir)?;
        }
        fs::write(model.join("refs/main"), COMMIT)?;
        for entry in source.read_dir().context("the model of the program")? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?;
            let mut content = fs::read(&path)?;
            if path.ends_with("config.json") {
                // No two are the same.
                content.extend(" ".repeat(index).bytes());
            }
            let hash = Sha256::digest(&content);
            let blob: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(model.join("blobs").join(&blob), content)?;
            symlink(format!("../../blobs/{blob}"), snapshot.join(name))?;
        }
    }
    Ok(())
}
