//! `mlxk convert`.

use std::path::Path;
#[cfg(unix)]
use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{TinyModel, run};
#[cfg(unix)]
use crate::{
    run::interrupt,
    support::{Ran, mlxk},
};

fn config(directory: &Path) -> Value {
    let text = std::fs::read(directory.join("config.json")).expect("a configuration");
    serde_json::from_slice(&text).expect("JSON")
}

/// A place beside a model, as text.
fn beside(model: &TinyModel, name: &str) -> String {
    model.path().with_file_name(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_model_is_quantized_runs_and_is_unpacked() {
    let model = TinyModel::of("qwen3-f32", "tiny");
    let (packed, dense) = (beside(&model, "packed"), beside(&model, "dense"));
    let args = ["convert", model.arg(), &packed, "--quantize", "8", "--q-group-size", "32"];
    let printed = run(args).ok();
    let head = format!("convert: {} → {packed}: ", model.arg());
    assert!(printed.starts_with(&head) && printed.contains("quantized layers: "), "{printed}");
    assert!(printed.contains("bits per weight (healthy)"), "{printed}");
    let found = config(Path::new(&packed));
    assert_eq!(found["quantization"]["bits"], 8);
    assert_eq!(found["quantization"], found["quantization_config"]);
    run(["run", &packed, "a", "--max-tokens", "2"]).ok();
    let shown = run(["show", &packed, "--json"]).data();
    assert_eq!(shown["model"]["clean"], true, "{shown}");
    let sentinel = &shown["workspace_metadata"];
    assert_eq!((&sentinel["managed"], &sentinel["mode"]), (&true.into(), &"quantize".into()));

    let data =
        run(["convert", &packed, &dense, "--dequantize", "--dtype", "float32", "--json"]).data();
    assert_eq!(data["mode"], "dequantize");
    assert_eq!((&data["health_status"], &data["bits"]), (&"healthy".into(), &Value::Null));
    assert!(data["weights"]["dequantized_layers"].as_u64() > Some(0), "{data}");
    assert_eq!(data["weights"]["bits_per_weight"], 32.0);
    assert!(config(Path::new(&dense)).get("quantization").is_none());
    run(["run", &dense, "a", "--max-tokens", "2"]).ok();
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let model = TinyModel::new();
    let to = beside(&model, "to");
    let nowhere = beside(&model, "nowhere");
    let file = beside(&model, "tiny/config.json");
    let taken = beside(&model, "taken");
    std::fs::create_dir(&taken).expect("a directory");
    for (args, code, text) in [
        (vec![model.arg(), &to], 1, "no mode is given"),
        (vec![model.arg(), model.arg(), "--quantize", "4"], 1, "is the source or lies in it"),
        (vec![model.arg(), &taken, "--quantize", "4"], 2, "exists already"),
        (vec![model.arg(), &taken, "--target-bpw", "1"], 2, "exists already"),
        (
            vec![model.arg(), &to, "--target-bpw", "1", "--q-group-size", "32"],
            2,
            "are the fewest for this model",
        ),
        (vec![model.arg(), &to, "--target-bpw", "4", "--q-group-size", "48"], 2, "groups of 32"),
        (vec![model.arg(), &to, "--target-bpw", "4", "--q-mode", "mxfp4"], 2, "affine"),
        (vec![model.arg(), &to, "--target-bpw", "4", "--quantize", "4"], 2, "cannot be used with"),
        (vec![model.arg(), &to, "--requantize", "--dequantize"], 2, "cannot be used with"),
        (vec![&nowhere, &to, "--quantize", "4"], 1, "nowhere: there is no such directory"),
        (vec![&file, &to, "--quantize", "4"], 1, "config.json: not a directory"),
        (vec![&nowhere, &to, "--quantize", "4", "--strict-exit"], 3, "nowhere"),
        (vec![model.arg(), &to, "--quantize", "4", "--repair-index"], 2, "cannot be used with"),
        (vec![model.arg(), &to, "--quantize", "4", "--dry-run"], 2, "--repair-index"),
        (vec![model.arg(), &to, "--quantize", "7"], 2, "2, 3, 4, 5, 6 or 8 bits"),
        (
            vec![model.arg(), &to, "--q-bits", "4", "--q-group-size", "48"],
            2,
            "groups of 32, 64 or 128",
        ),
        (vec![model.arg(), &to, "--quantize", "8", "--q-mode", "mxfp4"], 2, "mxfp4 has 4 bits"),
        (vec![model.arg(), &to, "--quantize", "4", "--dequantize"], 2, "cannot be used with"),
        (vec![model.arg(), &to, "--mixed-recipe", "mixed_4_6", "--q-mode", "mxfp8"], 2, "affine"),
        (vec![model.arg(), &to, "--dtype", "int8"], 2, "invalid value"),
    ] {
        let ran = run(["convert"].into_iter().chain(args.clone()));
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{args:?}: {}", ran.stderr);
        assert!(!Path::new(&to).exists(), "{args:?}");
        let json = run(["convert", "--json"].into_iter().chain(args.clone()));
        assert_eq!((json.code, json.envelope()["status"].as_str()), (Some(code), Some("error")));
    }
}

#[test]
fn recipes_and_zeros_are_the_defaults() {
    let model = TinyModel::new();
    let (mixed, zero) = (beside(&model, "mixed"), beside(&model, "zero"));
    let args =
        ["convert", model.arg(), &mixed, "--mixed-recipe", "mixed_3_6", "--q-group-size", "32"];
    run(args).ok();
    let found = config(Path::new(&mixed));
    assert_eq!(found["quantization"]["bits"], 3);
    assert_eq!(found["quantization"]["lm_head"]["bits"].as_i64().unwrap_or(6), 6);
    run([
        "convert",
        model.arg(),
        &zero,
        "--quantize",
        "0",
        "--q-group-size",
        "-1",
        "--q-mode",
        "mxfp4",
    ])
    .ok();
    let expected = serde_json::json!({"group_size": 32, "bits": 4, "mode": "mxfp4"});
    assert_eq!(config(Path::new(&zero))["quantization"], expected);
}

/// A model that `health` finds fault with is not put in its place, and nothing of it stays.
#[test]
fn an_unhealthy_result_is_refused() {
    let model = TinyModel::new();
    model.remove("tokenizer.json");
    let to = beside(&model, "to");
    let ran = run(["convert", model.arg(), &to, "--quantize", "4", "--strict-exit"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("the result would be unhealthy"), "{}", ran.stderr);
    let root = model.path().parent().expect("a parent");
    let names = || root.read_dir().expect("a directory").flatten().map(|entry| entry.file_name());
    assert_eq!(names().filter(|name| name != "tiny").collect::<Vec<_>>(), [".to.mlxk-partial"]);
    assert!(ran.stderr.contains("continue with --resume"), "{}", ran.stderr);
    run(["convert", model.arg(), &to, "--quantize", "4", "--skip-health", "--resume"]).ok();
    assert!(names().all(|name| name == "tiny" || name == "to"));
}

/// Writes weights that take a while to convert, and no disk space: all zeros.
#[cfg(unix)]
fn make_large(model: &TinyModel) {
    const ROWS: usize = 1 << 12;
    const N: usize = 24;
    let size = ROWS * ROWS * 4;
    let mut header = serde_json::Map::new();
    for i in 0..N {
        let tensor = json!({
            "dtype": "F32",
            "shape": [ROWS, ROWS],
            "data_offsets": [i * size, (i + 1) * size],
        });
        header.insert(format!("model.layers.{i}.mlp.down_proj.weight"), tensor);
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    model.write("model.safetensors", &bytes);
    let path = model.path().join("model.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.set_len((bytes.len() + N * size) as u64).expect("a sparse file");
    model.edit("config.json", |config| config["model_type"] = "of_no_family".into());
}

#[test]
#[cfg(unix)]
fn ctrl_c_leaves_nothing_half_done() {
    let model = TinyModel::new();
    make_large(&model);
    let to = beside(&model, "to");
    let partial = beside(&model, ".to.mlxk-partial");
    let args = ["convert", model.arg(), &to, "--quantize", "4", "--skip-health"];
    let child = mlxk().args(args).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.expect("mlxk starts");
    let is_at_work = || Path::new(&partial).join("model/model.safetensors").exists();
    let begin = Instant::now();
    while !is_at_work() && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    let ran: Ran = child.wait_with_output().expect("it ends").into();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(130), ""), "{}", ran.stderr);
    assert!(!Path::new(&to).exists() && !Path::new(&partial).exists(), "{}", ran.stderr);
}

/// A report is of the source and of what is in its place by then; `compare` says the same.
#[test]
fn what_it_cost_is_reported() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (demo, to, text) = (at("demo"), at("to"), at("text.txt"));
    run(["clone", "demo", &demo]).ok();
    std::fs::write(&text, "The capital of France is Paris. List files with `ls`.").expect("a file");
    let text = text.as_str();
    let args = ["--quantize", "3", "--requantize", "--report", "--calibration", text, "--json"];
    let data = run(["convert", &demo, &to].into_iter().chain(args)).data();
    let quality = &data["quality"];
    assert!(quality["mean_kl"].as_f64() > Some(0.1), "{quality}");
    assert_eq!(quality["worst_layers"].as_array().map(Vec::len), Some(5), "{quality}");
    let compared = run(["compare", &demo, &to, "--file", text, "--json"]).data();
    for key in ["mean_kl", "kl_99", "same_top", "perplexity", "tokens", "n_differing_layers"] {
        assert_eq!(compared[key], quality[key], "{key}");
    }
    assert_eq!(compared["worst_layers"].as_array().map(Vec::len), Some(10));
    let printed = run(["compare", &demo, &to, "--file", text, "--layers", "1"]).ok();
    for text in ["bits per weight", "same top token", "farthest of 29 layers", "affine 3-bit"] {
        assert!(printed.contains(text), "{text:?} is not in {printed}");
    }
    let same = run(["compare", &demo, &demo]).ok();
    assert!(same.contains("no layer differs") && same.contains("100.00 %"), "{same}");
}
