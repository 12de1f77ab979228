//! What quantization costs, on the trained model.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_lm::ErrorKind;
use mlx_lm::convert::{ConvertArgs, Converted, convert};
use mlx_lm::core::kernels::{Arithmetic, ScaleSearch};
use mlx_lm::core::{Device, Dtype, with_device};
use mlx_lm::files::ModelFiles;
use mlx_lm::quality::{CompareArgs, Comparison, Sensitivities, SensitivityArgs, compare};
use mlx_lm::tokenizer::Tokenizer;
use serde_json::Value;
use tempfile::TempDir;

/// The trained model, dense, in a directory of its own.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().expect("a directory") };
        let source = fixtures::path("../models/demo");
        let args = ConvertArgs {
            source,
            destination: place.at("dense"),
            dequantize: true,
            dtype: Some(Dtype::Bfloat16),
            ..ConvertArgs::default()
        };
        convert(args).expect("the demo model is unpacked");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Converts the dense model.
    fn convert(&self, name: &str, args: ConvertArgs<'_>) -> Converted {
        let (source, destination) = (self.at("dense"), self.at(name));
        convert(ConvertArgs { source, destination, ..args }).expect("it is converted")
    }

    fn compare(&self, name: &str) -> Comparison {
        compared(&self.at("dense"), &self.at(name)).expect("both run")
    }
}

fn compared(reference: &Path, other: &Path) -> mlx_lm::Result<Comparison> {
    let files = |dir: &Path| ModelFiles::directory(dir).expect("a model");
    compare(CompareArgs {
        reference: &files(reference),
        other: &files(other),
        text: &conversations(),
        arithmetic: Arithmetic::Exact,
    })
}

/// What the model was trained on, in its own words.
fn conversations() -> String {
    let data = fixtures::json("mlx-lm/demo_greedy.json");
    let cases = data["cases"].as_array().expect("cases");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    cases
        .iter()
        .take(4)
        .map(|case| text(&case["prompt"]) + &text(&case["output"]) + "<|im_end|>\n")
        .collect()
}

fn quantize<'a>(bits: i32) -> ConvertArgs<'a> {
    let dtype = Some(Dtype::Bfloat16);
    ConvertArgs { quantize: true, q_bits: bits, dtype, ..ConvertArgs::default() }
}

fn on_cpu(test: impl FnOnce()) {
    let test = || {
        test();
        Ok(())
    };
    with_device(Device::Cpu, test).expect("every machine has a CPU");
}

#[test]
fn fewer_bits_cost_more() {
    on_cpu(|| {
        let place = Place::new();
        let mut last: Option<Comparison> = None;
        for bits in [8, 6, 4, 3, 2] {
            place.convert(&bits.to_string(), quantize(bits));
            let found = place.compare(&bits.to_string());
            assert_eq!((found.reference.bits_per_weight(), found.layers.len()), (16.0, 29));
            assert!(found.layers.is_sorted_by(|a, b| a.relative_error >= b.relative_error));
            assert!(found.layers.iter().all(|l| l.quantization.is_some_and(|q| q.bits == bits)));
            let size = found.other.bits_per_weight();
            assert!((f64::from(bits) + 0.49..f64::from(bits) + 0.55).contains(&size), "{size}");
            if let Some(last) = last {
                assert!(last.divergence.mean_kl < found.divergence.mean_kl, "{bits} bits");
                assert!(last.divergence.same_top >= found.divergence.same_top, "{bits} bits");
                assert!(last.layers[0].relative_error < found.layers[28].relative_error);
            }
            last = Some(found);
        }
        let worst = last.expect("compared").divergence;
        assert!(worst.mean_kl > 0.5 && worst.same_top < 0.7, "{worst:?}");
    });
}

/// Bits that are shared out cost less than the same number for each layer.
#[test]
fn bits_go_where_they_matter() {
    on_cpu(|| {
        let place = Place::new();
        place.convert("uniform", quantize(3));
        let uniform = place.compare("uniform");
        let files = ModelFiles::directory(place.at("dense")).expect("a model");
        let tokenizer = Tokenizer::load(&files).expect("a tokenizer");
        let mut token_ids = tokenizer.encode(&conversations(), true).expect("tokens");
        token_ids.truncate(256);
        let mut calls = Vec::new();
        let sensitivities = Sensitivities::measure(SensitivityArgs {
            files: &files,
            token_ids: &token_ids,
            group_size: 64,
            scale_search: ScaleSearch::MinMax,
            dtype: Some(Dtype::Bfloat16),
            progress: &mut |done, total| {
                calls.push((done, total));
                ControlFlow::Continue(())
            },
        });
        let sensitivities = sensitivities.expect("it runs");
        assert_eq!((calls.len(), calls[28], sensitivities.layers.len()), (29, (28, 29), 29));
        let target = uniform.other.bits_per_weight();
        let mut assignment = sensitivities.assign(target).expect("enough bits");
        let args = ConvertArgs { predicate: Some(&mut assignment), ..quantize(0) };
        let converted = place.convert("mixed", args);
        let size = converted.bits_per_weight();
        assert!(size <= target && size > target - 0.1, "{size} of {target}");
        let mixed = place.compare("mixed");
        let [before, after] = [&uniform, &mixed].map(|found| found.divergence.mean_kl);
        assert!(after < 0.9 * before, "{before} to {after}");
    });
}

#[test]
fn measuring_can_be_ended_and_needs_dense_layers() {
    let place = Place::new();
    place.convert("packed", quantize(4));
    let measure = |name: &str, group_size, flow: ControlFlow<()>| {
        let files = ModelFiles::directory(place.at(name)).expect("a model");
        let result = Sensitivities::measure(SensitivityArgs {
            files: &files,
            token_ids: &[1, 2, 3],
            group_size,
            scale_search: ScaleSearch::MinMax,
            dtype: Some(Dtype::Bfloat16),
            progress: &mut |_, _| flow,
        });
        let error = result.expect_err("refused");
        (error.kind(), error.to_string())
    };
    let go_on = ControlFlow::Continue(());
    assert_eq!(measure("dense", 64, ControlFlow::Break(())).0, ErrorKind::Cancelled);
    for (name, group_size, text) in
        [("packed", 64, "none of the layers is dense"), ("dense", 48, "groups of 32, 64 or 128")]
    {
        let (kind, message) = measure(name, group_size, go_on);
        assert_eq!(kind, ErrorKind::InvalidArgument, "{message}");
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn models_of_other_tokens_are_not_compared() {
    let place = Place::new();
    place.convert("other", quantize(4));
    let path = place.at("other").join("tokenizer.json");
    let mut tokenizer: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    tokenizer["model"]["merges"] = Value::Array(Vec::new());
    std::fs::write(&path, tokenizer.to_string()).expect("a file");
    let error = compared(&place.at("dense"), &place.at("other")).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("different tokens"), "{error}");
}

/// Layers that are packed anew are those of what the packed ones stand for.
#[test]
fn layers_are_quantized_anew() {
    let place = Place::new();
    place.convert("8", quantize(8));
    let from = |source: &str, destination: &str, args: ConvertArgs<'_>| {
        let (source, destination) = (place.at(source), place.at(destination));
        convert(ConvertArgs { source, destination, ..args }).expect("it is converted")
    };
    let bytes =
        |name: &str| std::fs::read(place.at(name).join("model.safetensors")).expect("a file");
    let anew = from("8", "anew", ConvertArgs { requantize: true, ..quantize(4) });
    assert_eq!((anew.n_quantized, anew.n_kept), (29, 0));
    let dtype = Some(Dtype::Bfloat16);
    from("8", "unpacked", ConvertArgs { dequantize: true, dtype, ..ConvertArgs::default() });
    from("unpacked", "twice", quantize(4));
    assert!(bytes("anew") == bytes("twice"));
    let config = std::fs::read_to_string(place.at("anew").join("config.json")).expect("a file");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["quantization"]["bits"], 4);
    assert_eq!(config["quantization"]["model.layers.0.mlp.down_proj"]["bits"], 4);
    // Those that have the format already stay as they are; more bits are told to be of no use.
    let same = from("anew", "same", ConvertArgs { requantize: true, ..quantize(4) });
    assert_eq!((same.n_quantized, same.n_kept), (0, 29));
    let more = from("anew", "more", ConvertArgs { requantize: true, ..quantize(6) });
    assert!(more.notes.iter().any(|note| note.contains("no quality")), "{:?}", more.notes);
    let kept = from("8", "kept", quantize(4));
    assert_eq!((kept.n_quantized, kept.n_kept), (0, 29));
}

#[test]
fn searched_scales_bring_weights_nearer() {
    on_cpu(|| {
        let place = Place::new();
        place.convert("plain", quantize(4));
        let scale_search = ScaleSearch::LeastSquares;
        place.convert("searched", ConvertArgs { scale_search, ..quantize(4) });
        let [plain, searched] = ["plain", "searched"].map(|name| place.compare(name).layers);
        let error = |layers: &[mlx_lm::quality::LayerError], path: &str| {
            let layer = layers.iter().find(|layer| layer.path == path).expect("the layer");
            layer.relative_error
        };
        for layer in &plain {
            assert!(error(&searched, &layer.path) < layer.relative_error, "{}", layer.path);
        }
    });
}
