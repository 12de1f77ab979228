//! `mlxk convert`.

use std::path::Path;

use serde_json::Value;

use crate::support::{TinyModel, run};

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
    assert!(printed.starts_with(&packed) && printed.contains("quantized layers: "), "{printed}");
    let found = config(Path::new(&packed));
    assert_eq!(found["quantization"]["bits"], 8);
    assert_eq!(found["quantization"], found["quantization_config"]);
    run(["run", &packed, "a", "--max-tokens", "2"]).ok();

    let data =
        run(["convert", &packed, &dense, "--dequantize", "--dtype", "float32", "--json"]).data();
    assert!(data["dequantized_layers"].as_u64() > Some(0), "{data}");
    assert_eq!(data["bits_per_weight"], 32.0);
    assert!(config(Path::new(&dense)).get("quantization").is_none());
    run(["run", &dense, "a", "--max-tokens", "2"]).ok();
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let model = TinyModel::new();
    let to = beside(&model, "to");
    let nowhere = beside(&model, "nowhere");
    for (args, code, text) in [
        (vec![model.arg(), model.arg()], 2, "exists already"),
        (vec![&nowhere, &to], 3, "nowhere"),
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
