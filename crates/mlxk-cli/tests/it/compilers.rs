//! Generation on a CPU starts no compiler: no part of a model is a fused graph that MLX would have
//! one make.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{Ran, TinyModel, mlxk};

/// What MLX, or a build of it, might call.
const PROGRAMS: [&str; 8] = ["g++", "c++", "clang++", "gcc", "cc", "clang", "ld", "xcrun"];

/// Runs with no program but those in `dir`, and no kernels that an earlier run compiled.
fn run_in(dir: &Path, model: &str) -> Ran {
    let mut command = mlxk();
    command.args(["run", model, "Hello", "--max-tokens", "6", "--json"]);
    command.args(["--temperature", "0.7", "--top-p", "0.9", "--min-p", "0.01", "--seed", "1"]);
    command.args(["--repetition-penalty", "1.1"]);
    command.env_clear().env("PATH", dir).env("TMPDIR", dir).current_dir(dir);
    command.output().expect("mlxk starts").into()
}

#[test]
fn generation_works_without_a_compiler() {
    let dense = ["qwen3-f32", "llama-f32", "mistral-bf16"];
    let packed = ["llama-affine4", "qwen3-mxfp4", "llama-nvfp4"];
    let models: Vec<TinyModel> =
        dense.iter().chain(&packed).map(|name| TinyModel::of(name, name)).collect();
    for model in models.iter().map(TinyModel::arg).chain(["demo"]) {
        let empty = tempfile::tempdir().expect("a directory");
        let data = run_in(empty.path(), model).data();
        let n = data["token_ids"].as_array().map_or(0, Vec::len);
        assert!(n == 6 || model == "demo" && n > 0, "{model}: {n} tokens");

        // Programs that would leave a mark.
        let marked = tempfile::tempdir().expect("a directory");
        let mark = marked.path().join("started");
        for name in PROGRAMS {
            let program = marked.path().join(name);
            fs::write(&program, format!("#!/bin/sh\n: > '{}'\n", mark.display())).expect("a file");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        }
        let again = run_in(marked.path(), model).data();
        assert_eq!(again["token_ids"], data["token_ids"], "{model}");
        assert!(!mark.exists(), "{model}: a compiler was started");
    }
}
