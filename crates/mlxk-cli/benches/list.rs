//! How long `mlxk list --health` takes over many cached models, and the program to start.
//!
//! `cargo bench -p mlxk-cli --bench list`. Each model has files of its own, which are those of a
//! small one among the fixtures. It is measured without and with the results that an earlier list
//! kept. The cold figures are with the system's cache of files dropped, which on Linux root alone may
//! do; the others are medians of several times.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MODELS: usize = 500;
const TIMES: usize = 9;
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    for n in 0..MODELS {
        let model = dir.path().join(format!("hub/models--mlx-community--Model-{n:03}-4bit"));
        make(&model, n).expect("a model");
    }
    println!("start (--version): {:.1?}", median(dir.path(), &["--version"], false));
    let list = ["list", "--health", "--all"];
    for (what, keeps) in [("nothing kept", false), ("results kept", true)] {
        if keeps {
            // Nothing is kept of files that were written just now.
            std::thread::sleep(Duration::from_secs(2));
            time(dir.path(), &list, true);
        }
        // Nothing that was just written is left to be written when caches are dropped.
        let synced = Command::new("sync").status().is_ok_and(|status| status.success());
        if synced && fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
            let cold = time(dir.path(), &list, keeps);
            println!("list of {MODELS}, {what}, cold: {cold:.2?}");
        } else {
            println!("list of {MODELS}, {what}, cold: not measured, caches cannot be dropped");
        }
        println!("list of {MODELS}, {what}, warm: {:.1?}", median(dir.path(), &list, keeps));
    }
}

/// Makes a cached model as a hub's client does.
fn make(model: &Path, n: usize) -> std::io::Result<()> {
    let snapshot = model.join("snapshots").join(COMMIT);
    let blobs = model.join("blobs");
    for dir in [&snapshot, &blobs, &model.join("refs")] {
        fs::create_dir_all(dir)?;
    }
    fs::write(model.join("refs/main"), COMMIT)?;
    let source = fixtures::path("mlx-lm/checkpoints/llama-affine4");
    let tokenizer = fixtures::path("../models/demo");
    for entry in source.read_dir()?.chain(tokenizer.read_dir()?) {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_other = path.parent() == Some(&tokenizer) && !name.starts_with("tokenizer");
        if name.starts_with("expected") || is_other {
            continue;
        }
        let blob = format!("{n:08x}-{name}");
        fs::copy(&path, blobs.join(&blob))?;
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(name))?;
        #[cfg(not(unix))]
        fs::copy(blobs.join(&blob), snapshot.join(name))?;
    }
    Ok(())
}

fn median(home: &Path, args: &[&str], keeps: bool) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES).map(|_| time(home, args, keeps)).collect();
    times.sort();
    times[TIMES / 2]
}

/// Runs the program, which may keep its results from one run to the next.
fn time(home: &Path, args: &[&str], keeps: bool) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlxk"));
    command.args(args).env("HF_HOME", home).env_remove("HF_HUB_CACHE");
    command.env("MLXK_CACHE_DIR", home.join("kept"));
    command.env("MLXK_NO_CACHE", if keeps { "0" } else { "1" });
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("mlxk starts");
    let took = start.elapsed();
    assert!(status.success(), "{status}");
    took
}
