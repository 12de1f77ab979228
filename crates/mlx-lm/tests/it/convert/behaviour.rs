//! What conversion promises beyond mlx-lm's numbers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_core::io::{Checkpoint, TensorData, write_safetensors};
use mlx_core::{Array, Dtype, QuantMode, Quantization, ops};
use mlx_lm::ErrorKind;
use mlx_lm::convert::{
    ConvertArgs, ConvertError, Converted, Decision, LayerInfo, QuantPredicate, Recipe, convert,
};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::json as read_json;

/// A checkpoint of the fixtures, and a directory for what becomes of it.
fn place(checkpoint: &str) -> (TempDir, PathBuf, PathBuf) {
    let root = tempfile::tempdir().expect("a directory");
    let to = root.path().join("to");
    (root, fixtures::path(&format!("mlx-lm/{checkpoint}")), to)
}

fn args<'a>(source: &Path, destination: &Path) -> ConvertArgs<'a> {
    ConvertArgs {
        source: source.to_owned(),
        destination: destination.to_owned(),
        ..ConvertArgs::default()
    }
}

/// Converts what has to go well.
fn converted(args: ConvertArgs<'_>) -> Converted {
    convert(args).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(args: ConvertArgs<'_>) -> (ErrorKind, String) {
    let to = args.destination.clone();
    let existed = to.symlink_metadata().is_ok();
    let error = match convert(args).expect_err("refused") {
        ConvertError::NotStarted(error) => error,
        ConvertError::Save(error) => error.into(),
    };
    assert_eq!(to.symlink_metadata().is_ok(), existed, "{}", to.display());
    (error.kind(), error.to_string())
}

/// Copies the files of a checkpoint, so that they can be changed.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in from.read_dir().expect("a checkpoint") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn edit_config(directory: &Path, edit: impl FnOnce(&mut Value)) {
    let path = directory.join("config.json");
    let mut config = read_json(&path);
    edit(&mut config);
    std::fs::write(path, config.to_string()).expect("a file");
}

fn logits(directory: &Path, dtype: Option<Dtype>) -> Vec<f32> {
    let files = ModelFiles::directory(directory).expect("a model");
    let (model, _) = Model::load(&files, &LoadOptions { dtype }).expect("it loads");
    let tokens = Array::from_slice(&[1i32, 5, 2, 7], &[1, 4]).expect("tokens");
    let logits = model.forward(&tokens, &mut model.make_cache());
    let logits = logits.and_then(|hidden| model.head(&hidden));
    logits.and_then(|logits| logits.to_vec_as()).expect("logits")
}

fn checkpoint(directory: &Path) -> Checkpoint {
    Checkpoint::open_dir(directory).expect("a checkpoint")
}

#[test]
fn a_converted_model_computes_what_its_source_does() {
    let cases = fixtures::path("mlx-lm/families");
    let cases = cases.read_dir().expect("a directory").map(|entry| entry.expect("a case").path());
    for source in cases.filter(|path| path.is_dir()) {
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let root = tempfile::tempdir().expect("a directory");
        let to = root.path().join("to");
        converted(args(&source, &to));
        assert!(logits(&source, None) == logits(&to, None), "{name}");
        let config = read_json(&to.join("config.json"));
        let packed: Vec<String> = checkpoint(&to)
            .tensors()
            .filter_map(|(name, ..)| Some(name.strip_suffix(".scales")?.to_owned()))
            .collect();
        assert_eq!(packed.is_empty(), config.get("quantization").is_none(), "{name}");
        for path in packed {
            let entry = config["quantization"][&path].as_object();
            assert_eq!(entry.map(|entry| entry.len()), Some(3), "{name}: {path}");
        }
        assert!(config["quantization_config"].get("quant_method").is_none(), "{name}");
    }
}

#[test]
fn what_others_quantized_is_unpacked_or_stays() {
    for (name, n_kept) in
        [("minimax-fp8", 0), ("ministral3-fp8", 0), ("kimi_k2-int4", 1), ("gpt_oss-hf", 1)]
    {
        let (root, source, to) = place(&format!("families/{name}"));
        let kept = converted(args(&source, &to));
        assert_eq!(kept.n_kept > 0, n_kept > 0, "{name}: {kept:?}");
        assert!(!kept.notes.is_empty(), "{name}");
        let dense = root.path().join("dense");
        let unpacked = converted(ConvertArgs { dequantize: true, ..args(&source, &dense) });
        assert_eq!((unpacked.n_kept, unpacked.n_dequantized), (0, kept.n_kept), "{name}");
        let config = read_json(&dense.join("config.json"));
        assert!(config.get("quantization").or(config.get("quantization_config")).is_none());
        assert!(checkpoint(&dense).tensors().all(|(name, ..)| !name.ends_with(".scales")));
        // Unpacked weights are the packed ones but for a rounding.
        let (a, b) = (logits(&to, None), logits(&dense, None));
        let far = a.iter().zip(&b).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(far < 0.15, "{name}: {far}");
    }
}

/// Leaves out one layer, gives another 8 bits, and notes whom it was asked about.
struct Chooser(Vec<String>);

impl QuantPredicate for Chooser {
    fn decide(&mut self, layer: &LayerInfo<'_>) -> mlx_lm::Result<Decision> {
        self.0.push(layer.path.to_owned());
        Ok(match layer.path {
            "lm_head" => Decision::Dense,
            "model.layers.0.mlp.up_proj" => {
                Decision::Packed(Quantization { bits: 8, group_size: 32, ..layer.default })
            }
            _ => Decision::Default,
        })
    }
}

#[test]
fn each_layer_is_decided_on_once_for_weights_and_configuration() {
    let (root, source, to) = place("checkpoints/llama-f32");
    let mut chooser = Chooser(Vec::new());
    let predicate: Option<&mut dyn QuantPredicate> = Some(&mut chooser);
    let options = ConvertArgs { quantize: true, q_group_size: 32, predicate, ..args(&source, &to) };
    let first = converted(options);
    let asked = chooser.0.len();
    let mut names = chooser.0.clone();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), asked), (asked, first.n_quantized + first.n_dense));
    let quantization = &read_json(&to.join("config.json"))["quantization"];
    let up_proj = json!({"group_size": 32, "bits": 8, "mode": "affine"});
    assert_eq!(quantization["model.layers.0.mlp.up_proj"], up_proj);
    assert!(
        quantization.get("lm_head").is_none()
            && quantization.as_object().is_some_and(|q| q.len() == 4)
    );
    let weights = checkpoint(&to);
    assert!(weights.get("lm_head.scales").is_none());
    let words = |name: &str| weights.get(name).expect("there").1.shape[1];
    let [eight, four] =
        ["up_proj", "gate_proj"].map(|n| words(&format!("model.layers.0.mlp.{n}.weight")));
    assert_eq!(eight, 2 * four);

    // Quantized once more, only what is dense changes; each layer has its entry, be it packed or not.
    let again = root.path().join("again");
    let mut chooser = Chooser(Vec::new());
    let predicate: Option<&mut dyn QuantPredicate> = Some(&mut chooser);
    let options = ConvertArgs { quantize: true, predicate, ..args(&to, &again) };
    let second = converted(options);
    assert_eq!((second.n_quantized, second.n_kept), (0, first.n_quantized));
    assert!(
        second.notes.iter().any(|note| note.contains("stay as they are")),
        "{:?}",
        second.notes
    );
    let quantization = &read_json(&again.join("config.json"))["quantization"];
    assert_eq!(quantization["lm_head"], json!(false));
    assert_eq!(
        quantization["model.layers.1.mlp.up_proj"],
        json!({"group_size": 32, "bits": 4, "mode": "affine"})
    );
    assert!(logits(&to, None) == logits(&again, None));
}

#[test]
fn errors_come_in_their_order_and_leave_nothing() {
    let (root, source, to) = place("checkpoints/llama-f32");
    let nowhere = root.path().join("nowhere");
    // The destination before options, options before the source.
    let both = |to: &Path| ConvertArgs { quantize: true, dequantize: true, ..args(&nowhere, to) };
    std::fs::write(root.path().join("file"), b"").expect("a file");
    assert!(refused(both(&root.path().join("file"))).1.contains("exists already"));
    #[cfg(unix)]
    {
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path().join("absent"), &link).expect("a link");
        assert!(refused(both(&link)).1.contains("exists already"));
    }
    let (kind, text) = refused(both(&to));
    assert!(kind == ErrorKind::InvalidArgument && text.contains("not both"), "{text}");
    assert_eq!(refused(args(&nowhere, &to)).0, ErrorKind::NotFound);
    let quantize = |to: &Path| ConvertArgs { quantize: true, ..args(&source, to) };
    for (options, text) in [
        (ConvertArgs { q_bits: 7, ..quantize(&to) }, "2, 3, 4, 5, 6 or 8 bits"),
        (ConvertArgs { q_group_size: 16, ..quantize(&to) }, "groups of 32, 64 or 128"),
        (
            ConvertArgs { q_bits: 8, q_mode: QuantMode::Nvfp4, ..quantize(&to) },
            "4 bits in groups of 16",
        ),
        (ConvertArgs { dtype: Some(Dtype::Float64), ..quantize(&to) }, "float64"),
        (
            ConvertArgs {
                recipe: Some(Recipe::Mixed2_6),
                q_mode: QuantMode::Mxfp4,
                ..quantize(&to)
            },
            "affine",
        ),
        (
            ConvertArgs { recipe: Some(Recipe::Mixed2_6), ..args(&source, &to) },
            "nothing is to be quantized",
        ),
    ] {
        let (kind, found) = refused(options);
        assert!(kind == ErrorKind::InvalidArgument && found.contains(text), "{found}");
    }
    let lfm2 = fixtures::path("mlx-lm/families/lfm2-f32");
    let options =
        ConvertArgs { quantize: true, recipe: Some(Recipe::Mixed4_6), ..args(&lfm2, &to) };
    assert!(refused(options).1.contains("down_proj"));
}

#[test]
fn zeros_and_less_mean_the_default() {
    let (_root, source, to) = place("checkpoints/llama-f32");
    let options =
        ConvertArgs { quantize: true, q_bits: -3, q_mode: QuantMode::Mxfp8, ..args(&source, &to) };
    converted(options);
    let expected = json!({"group_size": 32, "bits": 8, "mode": "mxfp8"});
    assert_eq!(read_json(&to.join("config.json"))["quantization"], expected);
}

/// Writes a model of a type that nobody knows.
fn write_unknown(directory: &Path, tensors: Vec<(&str, &Array)>, quantization: &Value) {
    std::fs::create_dir(directory).expect("a directory");
    let tensors = tensors.into_iter().map(|(name, array)| {
        let bytes = array.with_bytes(<[u8]>::to_vec).expect("bytes").into();
        let (dtype, shape) = (array.dtype(), array.shape().to_vec());
        (name.to_owned(), TensorData { dtype, shape, bytes })
    });
    write_safetensors(directory.join("model.safetensors"), tensors, &[]).expect("a file");
    let config = json!({"model_type": "mystery", "vocab_size": 8, "quantization": quantization});
    std::fs::write(directory.join("config.json"), config.to_string()).expect("a file");
}

#[test]
fn models_of_an_unknown_type_are_told_by_names() -> mlx_core::Result<()> {
    let root = tempfile::tempdir().expect("a directory");
    let [source, other, to] = ["source", "other", "to"].map(|name| root.path().join(name));
    let w = ops::full(&[4, 64], 0.5, Dtype::Bfloat16)?;
    let tensors =
        vec![("h.0.q_proj.weight", &w), ("h.0.router.weight", &w), ("h.0.norm.weight", &w)];
    write_unknown(&source, tensors, &Value::Null);
    let done = converted(ConvertArgs { quantize: true, ..args(&source, &to) });
    assert_eq!((done.n_quantized, done.n_dense), (1, 0));
    assert!(done.notes[0].contains("\"mystery\" is unknown"), "{:?}", done.notes);
    let weights = checkpoint(&to);
    assert!(
        weights.get("h.0.q_proj.scales").is_some() && weights.get("h.0.router.scales").is_none()
    );

    write_unknown(&other, vec![("h.0.a.weight", &w)], &Value::Null);
    let (kind, text) = refused(args(&other, &root.path().join("more")));
    assert!(kind == ErrorKind::Unsupported && text.contains("mystery"), "{text}");
    Ok(())
}

#[test]
fn experts_with_a_scale_each_are_unpacked() -> mlx_core::Result<()> {
    let root = tempfile::tempdir().expect("a directory");
    let [source, to] = ["source", "to"].map(|name| root.path().join(name));
    let experts: Vec<Array> = (1..4)
        .map(|i| Array::range(128)?.astype(Dtype::Float32)?.reshape([2, 64])? * (0.1 * i as f32))
        .collect::<mlx_core::Result<_>>()?;
    let (mut parts, mut expected) = ([const { Vec::new() }; 3], Vec::new());
    for expert in &experts {
        let global = expert.abs()?.max(.., false)?;
        let packed = ops::quantize_with_global_scale(expert, &global)?;
        expected.push(packed.dequantize_with_global_scale(&global, Dtype::Float32)?);
        for (part, array) in parts.iter_mut().zip([packed.weight, packed.scales, global]) {
            part.push(array);
        }
    }
    let [weight, scales, global] = parts.map(|part| ops::stack(&part, 0));
    let (weight, scales, global) = (weight?, scales?, global?);
    let name = |part: &str| format!("h.0.experts.up_proj.{part}");
    let [w, s, g] = ["weight", "scales", "global_scale"].map(name);
    let quantization = json!({"group_size": 16, "bits": 4, "mode": "nvfp4"});
    write_unknown(&source, vec![(&w, &weight), (&s, &scales), (&g, &global)], &quantization);
    let dense = ConvertArgs { dequantize: true, dtype: Some(Dtype::Float32), ..args(&source, &to) };
    assert_eq!(converted(dense).n_dequantized, 1);
    let found = mlx_core::load_safetensors(to.join("model.safetensors"))?;
    assert_eq!(found.len(), 1);
    let (found, expected) =
        (found[&w].to_vec::<f32>()?, ops::stack(&expected, 0)?.to_vec::<f32>()?);
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= 1e-6 * b.abs(), "{a} {b}");
    }
    // What stays packed says that it has such scales.
    let kept = root.path().join("kept");
    converted(args(&source, &kept));
    let entry = &read_json(&kept.join("config.json"))["quantization"]["h.0.experts.up_proj"];
    assert_eq!(entry["global_scale"], json!(true));
    Ok(())
}

#[test]
fn weights_that_are_no_numbers_are_named() -> mlx_core::Result<()> {
    let root = tempfile::tempdir().expect("a directory");
    let [source, to] = ["source", "to"].map(|name| root.path().join(name));
    let w = ops::full(&[4, 64], f32::NAN, Dtype::Bfloat16)?;
    write_unknown(&source, vec![("h.0.q_proj.weight", &w)], &Value::Null);
    let (kind, text) = refused(ConvertArgs { quantize: true, ..args(&source, &to) });
    assert!(kind == ErrorKind::Format && text.contains("h.0.q_proj.weight"), "{text}");
    Ok(())
}

#[test]
fn parts_that_do_not_fit_are_refused() -> mlx_core::Result<()> {
    let root = tempfile::tempdir().expect("a directory");
    let words = ops::zeros(&[4, 8], Dtype::Uint32)?;
    let quantization = json!({"group_size": 64, "bits": 4});
    let scales = |shape: &[i32]| ops::zeros(shape, Dtype::Float16);
    for (i, (s, b)) in [
        (scales(&[4, 2])?, Some(scales(&[4, 2])?)),
        (scales(&[3, 1])?, Some(scales(&[3, 1])?)),
        (scales(&[4, 1])?, None),
        (scales(&[4, 1])?, Some(scales(&[4, 2])?)),
        (ops::zeros(&[4, 1], Dtype::Uint8)?, Some(scales(&[4, 1])?)),
    ]
    .into_iter()
    .enumerate()
    {
        let [source, to] = ["source", "to"].map(|name| root.path().join(format!("{name}{i}")));
        let mut tensors = vec![("a.q_proj.weight", &words), ("a.q_proj.scales", &s)];
        tensors.extend(b.as_ref().map(|b| ("a.q_proj.biases", b)));
        write_unknown(&source, tensors, &quantization);
        let (kind, text) = refused(ConvertArgs { dequantize: true, ..args(&source, &to) });
        assert!(kind == ErrorKind::Format && text.contains("a.q_proj"), "{i}: {text}");
    }
    Ok(())
}

#[test]
fn the_type_is_what_is_asked_for_or_declared() {
    let dtypes = |change: &dyn Fn(&mut Value), dtype: Option<Dtype>| {
        let (root, fixture, to) = place("checkpoints/llama-f32");
        let source = root.path().join("source");
        copy(&fixture, &source);
        edit_config(&source, |config| change(config));
        converted(ConvertArgs { dtype, ..args(&source, &to) });
        let weights = checkpoint(&to);
        let dtype = weights.get("model.norm.weight").expect("there").1.dtype;
        dtype.name()
    };
    let set = |torch: Value, plain: Value, text: Value| {
        move |config: &mut Value| {
            config["torch_dtype"] = torch.clone();
            config["dtype"] = plain.clone();
            config["text_config"] = json!({ "dtype": text });
        }
    };
    let no = Value::Null;
    assert_eq!(dtypes(&set("float16".into(), "bfloat16".into(), no.clone()), None), "float16");
    assert_eq!(dtypes(&set(no.clone(), "bfloat16".into(), "float16".into()), None), "bfloat16");
    assert_eq!(dtypes(&set(no.clone(), no.clone(), "float16".into()), None), "float16");
    assert_eq!(dtypes(&set("float8".into(), "bfloat16".into(), no.clone()), None), "float32");
    assert_eq!(dtypes(&set("float16".into(), no.clone(), no), Some(Dtype::Bfloat16)), "bfloat16");
}

#[test]
fn a_run_that_was_ended_goes_on() {
    let (root, source, to) = place("families/qwen3_moe-f32");
    let at_once = root.path().join("at-once");
    fn options<'a>(source: &Path, to: &Path) -> ConvertArgs<'a> {
        ConvertArgs {
            quantize: true,
            q_group_size: 32,
            dtype: Some(Dtype::Float16),
            max_shard_bytes: 6_000,
            ..args(source, to)
        }
    }
    let whole = converted(options(&source, &at_once));
    assert!(whole.saved.n_shards > 3, "{whole:?}");
    // Each try is ended a little later than the one before, so that layers are cut at every part.
    let mut limit = 0;
    loop {
        let mut stop = |progress: mlx_lm::save::Progress| match progress.n_bytes > limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        match convert(ConvertArgs {
            resume: true,
            progress: Some(&mut stop),
            ..options(&source, &to)
        }) {
            Ok(_) => break,
            Err(ConvertError::Save(error)) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            Err(error) => panic!("{error}"),
        }
        assert!(!to.exists());
        limit += 2_500;
        assert!(limit < 10_000_000, "it never ends");
    }
    for entry in at_once.read_dir().expect("a directory") {
        let entry = entry.expect("a file");
        let (a, b) = (std::fs::read(entry.path()), std::fs::read(to.join(entry.file_name())));
        assert!(a.expect("a file") == b.expect("a file"), "{:?}", entry.file_name());
    }
}

/// Who reads the configuration alone is told by it where an answer ends.
#[test]
fn tokens_that_end_answers_come_from_the_generation_settings() {
    for (settings, expected) in [
        (Some(r#"{"eos_token_id": [5, 6]}"#), json!([5, 6])),
        (Some(r#"{"eos_token_id": 7}"#), json!(7)),
        (Some(r#"{"eos_token_id": null}"#), json!(2)),
        (Some(r#"{"eos_token_id": []}"#), json!(2)),
        (Some(r#"{"eos_token_id": "#), json!(2)),
        (None, json!(2)),
    ] {
        let (root, fixture, to) = place("checkpoints/qwen3-f32");
        let source = root.path().join("source");
        copy(&fixture, &source);
        edit_config(&source, |config| config["eos_token_id"] = 2.into());
        if let Some(settings) = settings {
            std::fs::write(source.join("generation_config.json"), settings).expect("a file");
        }
        converted(ConvertArgs { quantize: true, q_group_size: 32, ..args(&source, &to) });
        assert_eq!(read_json(&to.join("config.json"))["eos_token_id"], expected, "{settings:?}");
    }
}
