//! The parameter tree on a small model with every kind of leaf.

use super::*;
use crate::nn::{Embedding, Linear, RmsNorm};
use crate::{ErrorKind, QuantMode, ops};

struct Block {
    up_proj: Linear,
    norm: RmsNorm,
    skip: Option<Linear>,
    training: Training,
}

struct Model {
    embedding: Embedding,
    blocks: Vec<Block>,
    head: Box<Linear>,
}

module! {
    Block { up_proj, norm, skip, training }
    Model { "model.embed_tokens" => embedding, "model.layers" => blocks, "lm_head" => head }
}

fn model() -> Result<Model> {
    let block = |skip: bool| {
        Ok(Block {
            up_proj: Linear::new(64, 64, true)?,
            norm: RmsNorm::new(64, 1e-5)?,
            skip: if skip { Some(Linear::new(64, 64, false)?) } else { None },
            training: Training::default(),
        })
    };
    Ok(Model {
        embedding: Embedding::new(10, 64)?,
        blocks: vec![block(false)?, block(true)?],
        head: Box::new(Linear::new(64, 10, false)?),
    })
}

fn names(parameters: &Parameters) -> Vec<&str> {
    parameters.keys().map(String::as_str).collect()
}

#[test]
fn every_array_has_its_path() -> Result<()> {
    let model = model()?;
    let expected = [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.norm.weight",
        "model.layers.0.up_proj.bias",
        "model.layers.0.up_proj.weight",
        "model.layers.1.norm.weight",
        "model.layers.1.skip.weight",
        "model.layers.1.up_proj.bias",
        "model.layers.1.up_proj.weight",
    ];
    assert_eq!(names(&model.parameters()), expected);
    assert_eq!(names(&model.trainable_parameters()), expected);
    assert_eq!(model.n_parameters(), 2 * 640 + 2 * (64 * 64 + 64 + 64) + 64 * 64);
    assert_eq!(model.nbytes(), 4 * model.n_parameters());
    assert_eq!(model.get("lm_head.weight").map(|w| w.shape().to_vec()), Some(vec![10, 64]));
    assert!(model.get("lm_head").is_none());
    // A model behind a trait object is the same tree.
    let boxed: Box<dyn Module> = Box::new(model);
    assert_eq!(names(&boxed.parameters()), expected);
    Ok(())
}

#[test]
fn freezing_is_by_path() -> Result<()> {
    let mut model = model()?;
    model.freeze(&|_| true);
    assert!(model.trainable_parameters().is_empty());
    model.unfreeze(&|path| path.contains("norm"));
    let expected = ["model.layers.0.norm.weight", "model.layers.1.norm.weight"];
    assert_eq!(names(&model.trainable_parameters()), expected);
    Ok(())
}

#[test]
fn an_update_is_whole_or_not_at_all() -> Result<()> {
    let mut model = model()?;
    let old = model.get("lm_head.weight").map(|array| array.id());
    for (path, array) in [
        ("lm_head.weight", ops::zeros(&[10, 63], Dtype::Float32)?),
        ("lm_head.weight", ops::zeros(&[10, 64], Dtype::Uint32)?),
        ("lm_head.weights", ops::zeros(&[10, 64], Dtype::Float32)?),
    ] {
        let good = ("model.layers.0.norm.weight".to_owned(), ops::zeros(&[64], Dtype::Float32)?);
        let update: Parameters = [good, (path.to_owned(), array)].into_iter().collect();
        let error = model.update(&update).expect_err(path);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!(model.blocks[0].norm.weight.to_vec::<f32>()?, [1.0; 64]);
        assert_eq!(model.get("lm_head.weight").map(|array| array.id()), old);
    }
    model.set("model.layers.0.norm.weight", ops::full(&[64], 3.0, Dtype::Float32)?)?;
    assert_eq!(model.blocks[0].norm.weight.to_vec::<f32>()?, [3.0; 64]);
    Ok(())
}

#[test]
fn casting_leaves_packed_weights() -> Result<()> {
    let mut model = model()?;
    model.quantize(&|path, _| (path == "lm_head").then(|| Quantization::of(QuantMode::Mxfp4)))?;
    model.cast(Dtype::Bfloat16)?;
    assert_eq!(model.blocks[0].norm.weight.dtype(), Dtype::Bfloat16);
    assert_eq!(model.get("lm_head.weight").map(|w| w.dtype()), Some(Dtype::Uint32));
    assert!(model.cast(Dtype::Int32).is_err());
    Ok(())
}

#[test]
fn quantizing_asks_once_for_each_matrix() -> Result<()> {
    let mut model = model()?;
    let n = model.n_parameters();
    let asked = std::cell::RefCell::new(Vec::new());
    model.quantize(&|path, weight| {
        asked.borrow_mut().push((path.to_owned(), weight.shape().to_vec()));
        path.ends_with("up_proj").then(Quantization::default)
    })?;
    let asked = asked.into_inner();
    assert_eq!(asked.len(), 5);
    assert!(asked.contains(&("model.embed_tokens".to_owned(), vec![10, 64])));
    assert_eq!(model.n_parameters(), n);
    assert!(model.get("model.layers.0.up_proj.biases").is_some());
    // The bias beside packed weights is frozen with them, as in Python.
    let trainable = model.trainable_parameters();
    assert!(!trainable.keys().any(|path| path.contains("up_proj")), "{trainable:?}");
    model.unfreeze(&|_| true);
    let trainable = model.trainable_parameters();
    assert!(trainable.contains_key("model.layers.0.up_proj.bias"));
    assert!(!trainable.contains_key("model.layers.0.up_proj.weight"));
    // What does not divide into groups is an error that names the layer.
    let mut odd = Linear::new(33, 4, false)?;
    assert!(odd.quantize(&|_, _| Some(Quantization::default())).is_err());
    Ok(())
}

#[test]
fn weights_come_back_from_a_file() -> Result<()> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("weights.safetensors");
    let mut model = model()?;
    model.quantize(&|path, _| (path == "lm_head").then(Quantization::default))?;
    model.save_weights(&path)?;
    let mut other = self::model()?;
    let error = other.load_weights(&path).expect_err("another tree");
    let report = error.weights().expect("a report");
    assert_eq!(report.unexpected, ["lm_head.biases", "lm_head.scales"]);
    assert_eq!(report.mismatched[0].name, "lm_head.weight");
    other.quantize(&|path, _| (path == "lm_head").then(Quantization::default))?;
    other.load_weights(&path)?;
    for (path, array) in model.parameters() {
        let loaded = other.get(&path).expect(&path);
        assert!(loaded.array_equal(&array, false)?.item::<bool>()?, "{path}");
    }
    Ok(())
}

#[test]
fn the_mode_reaches_every_layer() -> Result<()> {
    let mut model = model()?;
    assert!(model.blocks.iter().all(|block| block.training == Training(true)));
    model.train(false);
    assert!(model.blocks.iter().all(|block| block.training == Training(false)));
    Ok(())
}

#[test]
fn gradients_are_by_path_and_the_model_stays() -> Result<()> {
    let mut model = model()?;
    model.freeze(&|path| path.ends_with("bias"));
    let before: Vec<usize> = model.parameters().values().map(Array::id).collect();
    let x = ops::ones(&[3, 64], Dtype::Float32)?;
    let loss = |model: &Model| model.head.forward(&x)?.sum(.., false);
    let (value, gradients) = crate::nn::value_and_grad(&mut model, loss)?;
    assert_eq!(value.ndim(), 0);
    assert_eq!(names(&gradients), names(&model.trainable_parameters()));
    assert_eq!(gradients["lm_head.weight"].to_vec::<f32>()?, [3.0; 640]);
    assert_eq!(gradients["model.layers.0.norm.weight"].to_vec::<f32>()?, [0.0; 64]);
    // Its own arrays are back: after success, an error, a loss that is no scalar, and a panic.
    let fails = |_: &Model| Err(Error::new(ErrorKind::Runtime, "no"));
    assert_eq!(crate::nn::value_and_grad(&mut model, fails).expect_err("fails").to_string(), "no");
    let vector = |model: &Model| model.head.forward(&x);
    assert!(crate::nn::value_and_grad(&mut model, vector).is_err());
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = crate::nn::value_and_grad(&mut model, |_| panic!("oh"));
    }));
    assert!(panics.is_err());
    let after: Vec<usize> = model.parameters().values().map(Array::id).collect();
    assert_eq!(after, before);
    model.freeze(&|_| true);
    let error = crate::nn::value_and_grad(&mut model, loss).expect_err("nothing to train");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    Ok(())
}
