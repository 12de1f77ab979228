//! Activations, losses and initializers against Python's `mlx.nn`, values and gradients.
//!
//! Every row of `fixtures/data/mlx-core/functions` goes through [`run`] or [`draw`], the two tables
//! from a name to a function; a keyword that a row leaves out has the default of our options.

use std::collections::BTreeMap;

use fixtures::Tolerance;
use mlx_core::io::SafetensorsFile;
use mlx_core::nn::init::{self, Fan, HeOptions, NormalOptions, UniformOptions};
use mlx_core::nn::losses::{
    self, BinaryCrossEntropyOptions, CosineSimilarityOptions, CrossEntropyOptions,
    GaussianNllOptions, Reduction, TripletOptions,
};
use mlx_core::nn::{self, HardTanhOptions};
use mlx_core::transforms::vjp;
use mlx_core::{
    Array, Device, Dtype, ErrorKind, IndexItem, Result, Slice, eval, ops, random, with_device,
};
use serde_json::Value;

struct Arrays(BTreeMap<String, Array>);

impl Arrays {
    fn load() -> Arrays {
        let path = fixtures::path("mlx-core/functions/arrays.safetensors");
        let file = SafetensorsFile::open(path).unwrap();
        let arrays = file.tensors().map(|(name, info)| {
            let bytes = file.bytes(name).unwrap();
            (name.to_owned(), Array::from_bytes(bytes, &info.shape, info.dtype).unwrap())
        });
        Arrays(arrays.collect())
    }

    fn get(&self, key: &Value) -> &Array {
        &self.0[key.as_str().unwrap()]
    }

    /// An argument: an array, a view of one, or nothing.
    fn read(&self, arg: &Value) -> Result<Option<Array>> {
        if arg.is_null() {
            return Ok(None);
        }
        if arg.get("array").is_some() {
            return Ok(Some(self.get(&arg["array"]).clone()));
        }
        let base = self.get(&arg["base"]);
        if let Some(axes) = arg.get("transpose") {
            return base.transpose(ints(axes)).map(Some);
        }
        if let Some(shape) = arg.get("broadcast") {
            return base.broadcast_to(ints(shape)).map(Some);
        }
        let item = |slice: &Value| {
            assert!(slice[0].is_null() && slice[1].is_null());
            IndexItem::from(Slice::step(slice[2].as_i64().map_or(1, |step| step as i32)))
        };
        base.at(arg["slice"].as_array().unwrap().iter().map(item).collect::<Vec<_>>()).map(Some)
    }
}

fn ints(list: &Value) -> Vec<i32> {
    list.as_array().unwrap().iter().map(|n| n.as_i64().unwrap() as i32).collect()
}

/// Keywords of a row.
struct Keywords<'a>(&'a Value);

impl Keywords<'_> {
    fn number(&self, name: &str, default: f64) -> f64 {
        self.0.get(name).map_or(default, |value| value.as_f64().unwrap())
    }

    fn int(&self, name: &str, default: i32) -> i32 {
        self.number(name, default.into()) as i32
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).map_or(default, |value| value.as_bool().unwrap())
    }

    fn reduction(&self, default: Reduction) -> Reduction {
        match self.0.get("reduction").and_then(Value::as_str) {
            None => default,
            Some("none") => Reduction::None,
            Some("mean") => Reduction::Mean,
            Some("sum") => Reduction::Sum,
            Some(name) => panic!("no reduction {name}"),
        }
    }
}

/// From the name of an activation or a loss to the function.
fn run(name: &str, args: &[Option<Array>], kw: &Keywords<'_>) -> Result<Array> {
    let array = |i: usize| args[i].as_ref().unwrap();
    let (x, y, z) = (array(0), || array(1), || array(2));
    let weights = args.get(2).and_then(Option::as_ref);
    let (none, mean) = (kw.reduction(Reduction::None), kw.reduction(Reduction::Mean));
    match name {
        "relu" => nn::relu(x),
        "relu2" => nn::relu2(x),
        "relu6" => nn::relu6(x),
        "leaky_relu" => nn::leaky_relu(x, kw.number("negative_slope", 0.01)),
        "prelu" => nn::prelu(x, y()),
        "elu" => nn::elu(x, kw.number("alpha", 1.0)),
        "celu" => nn::celu(x, kw.number("alpha", 1.0)),
        "selu" => nn::selu(x),
        "silu" => nn::silu(x),
        "gelu" => nn::gelu(x),
        "gelu_approx" => nn::gelu_approx(x),
        "gelu_fast_approx" => nn::gelu_fast_approx(x),
        "softplus" => nn::softplus(x),
        "softsign" => nn::softsign(x),
        "softshrink" => nn::softshrink(x, kw.number("lambd", 0.5)),
        "hard_shrink" => nn::hard_shrink(x, kw.number("lambd", 0.5)),
        "hard_tanh" => {
            let HardTanhOptions { min_val, max_val } = HardTanhOptions::default();
            let min_val = kw.number("min_val", min_val);
            nn::hard_tanh(x, HardTanhOptions { min_val, max_val: kw.number("max_val", max_val) })
        }
        "hardswish" => nn::hardswish(x),
        "sigmoid" => nn::sigmoid(x),
        "log_sigmoid" => nn::log_sigmoid(x),
        "mish" => nn::mish(x),
        "step" => nn::step(x, kw.number("threshold", 0.0)),
        "tanh" => nn::tanh(x),
        "softmax" => nn::softmax(x, kw.int("axis", -1)),
        "softmin" => nn::softmin(x, kw.int("axis", -1)),
        "log_softmax" => nn::log_softmax(x, kw.int("axis", -1)),
        "glu" => nn::glu(x, kw.int("axis", -1)),

        "l1_loss" => losses::l1_loss(x, y(), mean),
        "mse_loss" => losses::mse_loss(x, y(), mean),
        "smooth_l1_loss" => losses::smooth_l1_loss(x, y(), kw.number("beta", 1.0), mean),
        "hinge_loss" => losses::hinge_loss(x, y(), none),
        "huber_loss" => losses::huber_loss(x, y(), kw.number("delta", 1.0), none),
        "log_cosh_loss" => losses::log_cosh_loss(x, y(), none),
        "nll_loss" => losses::nll_loss(x, y(), kw.int("axis", -1), none),
        "kl_div_loss" => losses::kl_div_loss(x, y(), kw.int("axis", -1), none),
        "margin_ranking_loss" => {
            losses::margin_ranking_loss(x, y(), z(), kw.number("margin", 0.0), none)
        }
        "cosine_similarity_loss" => {
            let d = CosineSimilarityOptions::default();
            let options = CosineSimilarityOptions {
                axis: kw.int("axis", d.axis),
                eps: kw.number("eps", d.eps),
                reduction: kw.reduction(d.reduction),
            };
            losses::cosine_similarity_loss(x, y(), options)
        }
        "triplet_loss" => {
            let d = TripletOptions::default();
            let options = TripletOptions {
                axis: kw.int("axis", d.axis),
                p: kw.int("p", d.p),
                margin: kw.number("margin", d.margin),
                eps: kw.number("eps", d.eps),
                reduction: kw.reduction(d.reduction),
            };
            losses::triplet_loss(x, y(), z(), options)
        }
        "gaussian_nll_loss" => {
            let d = GaussianNllOptions::default();
            let options = GaussianNllOptions {
                full: kw.flag("full", d.full),
                eps: kw.number("eps", d.eps),
                reduction: kw.reduction(d.reduction),
            };
            losses::gaussian_nll_loss(x, y(), z(), options)
        }
        "cross_entropy" => {
            let d = CrossEntropyOptions::default();
            let options = CrossEntropyOptions {
                weights,
                axis: kw.int("axis", d.axis),
                label_smoothing: kw.number("label_smoothing", d.label_smoothing),
                reduction: kw.reduction(d.reduction),
            };
            losses::cross_entropy(x, y(), options)
        }
        "binary_cross_entropy" => {
            let d = BinaryCrossEntropyOptions::default();
            let options = BinaryCrossEntropyOptions {
                weights,
                with_logits: kw.flag("with_logits", d.with_logits),
                reduction: kw.reduction(d.reduction),
            };
            losses::binary_cross_entropy(x, y(), options)
        }
        name => panic!("no function {name}"),
    }
}

/// From the name of an initializer to the function.
fn draw(name: &str, shape: &[i32], dtype: Dtype, kw: &Keywords<'_>) -> Result<Array> {
    let gain = kw.number("gain", 1.0);
    let normal = NormalOptions::default();
    let normal =
        NormalOptions { mean: kw.number("mean", normal.mean), std: kw.number("std", normal.std) };
    let uniform = UniformOptions::default();
    let uniform = UniformOptions {
        low: kw.number("low", uniform.low),
        high: kw.number("high", uniform.high),
    };
    let he = match kw.0.get("mode").and_then(Value::as_str) {
        None => HeOptions { gain, ..HeOptions::default() },
        Some("fan_out") => HeOptions { gain, mode: Fan::Out },
        Some(mode) => panic!("no mode {mode}"),
    };
    match name {
        "constant" => match &kw.0["value"] {
            value if value.is_i64() => init::constant(shape, dtype, kw.int("value", 0)),
            value => init::constant(shape, dtype, value.as_f64().unwrap()),
        },
        "normal" => init::normal(shape, dtype, normal),
        "uniform" => init::uniform(shape, dtype, uniform),
        "identity" => init::identity(shape, dtype),
        "glorot_normal" => init::glorot_normal(shape, dtype, gain),
        "glorot_uniform" => init::glorot_uniform(shape, dtype, gain),
        "he_normal" => init::he_normal(shape, dtype, he),
        "he_uniform" => init::he_uniform(shape, dtype, he),
        "sparse" => init::sparse(shape, dtype, kw.number("sparsity", 0.0), normal),
        "orthogonal" => init::orthogonal(shape, dtype, gain),
        name => panic!("no initializer {name}"),
    }
}

fn check_array(family: &str, actual: &Array, expected: &Array) -> Result<(), String> {
    if (actual.dtype(), actual.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!("{actual:?}, expected {expected:?}"));
    }
    let tolerance = Tolerance::op(family, expected.dtype().name());
    if expected.dtype() == Dtype::Float64 {
        let [actual, expected] = [actual, expected].map(|array| array.to_vec::<f64>().unwrap());
        return tolerance.check_f64(&actual, &expected);
    }
    let [actual, expected] = [actual, expected].map(|array| array.to_vec_as::<f32>().unwrap());
    tolerance.check(&actual, &expected)
}

/// What a row gives, against what it should: the value, and the gradients by floating arguments.
fn check_row(row: &Value, arrays: &Arrays) -> Result<(), String> {
    let text = |e: mlx_core::Error| format!("failed: {e}");
    let (name, kw) = (row["f"].as_str().unwrap(), Keywords(&row["kw"]));
    let args = row["args"].as_array().unwrap().iter().map(|arg| arrays.read(arg));
    let args = args.collect::<Result<Vec<_>>>().map_err(text)?;
    let out = run(name, &args, &kw).and_then(|out| out.eval().map(|()| out));
    if row.get("error").is_some() {
        return out.map_or(Ok(()), |out| Err(format!("gave {out:?}, expected an error")));
    }
    check_array("arithmetic", &out.map_err(text)?, arrays.get(&row["out"]))?;
    let Some(cotangent) = row.get("cotangent") else { return Ok(()) };

    let expected = row["gradients"].as_array().unwrap();
    let by: Vec<usize> = (0..args.len()).filter(|&i| !expected[i].is_null()).collect();
    let primals: Vec<Array> = by.iter().map(|&i| args[i].clone().unwrap()).collect();
    let of_floats = |floats: &[Array]| {
        let mut args = args.clone();
        for (&i, x) in by.iter().zip(floats) {
            args[i] = Some(x.clone());
        }
        Ok(vec![run(name, &args, &kw)?])
    };
    let cotangents = [arrays.get(cotangent).clone()];
    let (_, gradients) = vjp(of_floats, &primals, &cotangents).map_err(text)?;
    eval(&gradients).map_err(text)?;
    by.iter().zip(&gradients).try_for_each(|(&i, gradient)| {
        check_array("arithmetic", gradient, arrays.get(&expected[i]))
            .map_err(|e| format!("gradient {i}: {e}"))
    })
}

#[test]
fn values_and_gradients_are_pythons() {
    let index = fixtures::json("mlx-core/functions/index.json");
    let arrays = Arrays::load();
    let mut failures = Vec::new();
    with_device(Device::Cpu, || {
        for row in index["rows"].as_array().unwrap() {
            if let Err(e) = check_row(row, &arrays) {
                failures.push(format!("{row}: {e}"));
            }
        }
        Ok(())
    })
    .unwrap();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn initial_values_are_pythons() {
    let index = fixtures::json("mlx-core/functions/index.json");
    let arrays = Arrays::load();
    let mut failures = Vec::new();
    with_device(Device::Cpu, || {
        for row in index["draws"].as_array().unwrap() {
            let dtype = Dtype::from_name(row["dtype"].as_str().unwrap()).unwrap();
            let (name, shape) = (row["f"].as_str().unwrap(), ints(&row["shape"]));
            random::seed(row["seed"].as_u64().unwrap())?;
            let out = draw(name, &shape, dtype, &Keywords(&row["kw"]));
            let outcome = match (out.and_then(|out| out.eval().map(|()| out)), row.get("out")) {
                (Err(_), None) => Ok(()),
                (Err(e), Some(_)) => Err(format!("failed: {e}")),
                (Ok(out), None) => Err(format!("gave {out:?}, expected an error")),
                (Ok(out), Some(key)) => {
                    let family = if name == "orthogonal" { "linalg" } else { "random" };
                    let then = random::uniform(0.0, 1.0, &[], Dtype::Float32, None)?;
                    check_array(family, &out, arrays.get(key)).and_then(|()| {
                        check_array("random", &then, arrays.get(&row["then"]))
                            .map_err(|e| format!("then: {e}"))
                    })
                }
            };
            if let Err(e) = outcome {
                failures.push(format!("{row}: {e}"));
            }
        }
        Ok(())
    })
    .unwrap();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_constant_has_the_dtype_that_was_asked_for() -> Result<()> {
    // Python's takes the value's where the value does not fit.
    let ones = init::constant(&[2], Dtype::Bool, 1)?;
    assert_eq!(ones.to_vec::<bool>()?, [true, true]);
    assert_eq!(init::constant(&[1], Dtype::Int32, 1.5)?.to_vec::<i32>()?, [1]);
    Ok(())
}

#[test]
fn gelu_does_not_overflow_below_the_greatest_number() -> Result<()> {
    let x = ops::full(&[], 6e4f32, Dtype::Float16)?;
    for f in [nn::gelu, nn::gelu_approx, nn::gelu_fast_approx] {
        assert_eq!(f(&x)?.to_vec_as::<f32>()?, x.to_vec_as::<f32>()?);
    }
    Ok(())
}

#[test]
fn no_class_is_read_beyond_the_last() -> Result<()> {
    let logits = Array::from_slice(&[0.0f32, 1.0, 2.0, 0.5, 0.25, 0.0], &[2, 3])?;
    let default = CrossEntropyOptions::default();
    for classes in [[3, 0], [0, -4], [i32::MAX, 0], [i32::MIN, 0]] {
        let targets = Array::from_slice(&classes, &[2])?;
        let loss = |x: &[Array]| losses::cross_entropy(&x[0], &targets, default);
        check_refused(loss(std::slice::from_ref(&logits)), "out of range");
        let gradients = vjp(
            |x| Ok(vec![loss(x)?]),
            std::slice::from_ref(&logits),
            &[ops::ones(&[2], Dtype::Float32)?],
        );
        assert_eq!(gradients.unwrap_err().kind(), ErrorKind::OutOfRange);
        check_refused(losses::nll_loss(&logits, &targets, -1, Reduction::Mean), "out of range");
    }
    // Classes that are still to be computed are moved to the nearest there is.
    let targets = (Array::from_slice(&[1, -1], &[2])? * 1000)?;
    let nearest = Array::from_slice(&[2, 0], &[2])?;
    for axis in [-1, 1] {
        let [moved, expected] = [&targets, &nearest]
            .map(|targets| losses::nll_loss(&logits, targets, axis, Reduction::None));
        assert_eq!(moved?.to_vec::<f32>()?, expected?.to_vec::<f32>()?);
    }
    Ok(())
}

fn check_refused(result: Result<Array>, part: &str) {
    match result.and_then(|out| out.eval().map(|()| out)) {
        Ok(out) => panic!("{out:?}, expected an error about {part}"),
        Err(e) => {
            assert_ne!(e.kind(), ErrorKind::Panic, "{e}");
            assert!(e.to_string().contains(part), "{e}: nothing about {part}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let float = Dtype::Float32;
    let x = ops::ones(&[2, 3], float)?;
    let classes = |n: i32| ops::full(&[2], n, Dtype::Int32);
    let smoothing = |label_smoothing: f64| {
        let options = CrossEntropyOptions { label_smoothing, ..Default::default() };
        losses::cross_entropy(&x, &classes(0)?, options)
    };
    check_refused(smoothing(f64::NAN), "label_smoothing of NaN");
    check_refused(smoothing(f64::INFINITY), "label_smoothing of inf");
    let along = |axis: i32| {
        losses::cross_entropy(&x, &x, CrossEntropyOptions { axis, ..Default::default() })
    };
    check_refused(along(i32::MAX), "no axis 2147483647");
    check_refused(along(i32::MIN), "no axis -2147483648");
    check_refused(losses::nll_loss(&x, &classes(0)?, i32::MIN, Reduction::Sum), "no axis");
    let probabilities = ops::ones(&[2], float)?;
    check_refused(losses::nll_loss(&x, &probabilities, -1, Reduction::None), "integers");
    let default = CrossEntropyOptions::default();
    check_refused(losses::cross_entropy(&x, &probabilities, default), "integers");
    check_refused(losses::mse_loss(&x, &probabilities, Reduction::Sum), "[2, 3] and targets [2]");
    let triplet = TripletOptions { p: -3, ..Default::default() };
    check_refused(losses::triplet_loss(&x, &x, &x, triplet), "p of -3");

    check_refused(nn::glu(&x, i32::MIN), "");
    check_refused(nn::softmax(&x, &[0, 0]), "");
    check_refused(nn::log_softmax(&x, i32::MAX), "");

    let normal = NormalOptions::default();
    check_refused(init::normal(&[-1, 2], float, normal), "normal: shape [-1, 2]");
    check_refused(init::constant(&[i32::MAX; 3], float, 0.5), "constant: shape");
    check_refused(init::he_normal(&[i32::MAX; 4], float, HeOptions::default()), "he_normal: shape");
    check_refused(init::he_uniform(&[2, -3], float, HeOptions::default()), "he_uniform: shape");
    check_refused(init::glorot_uniform(&[-2, -3], float, 1.0), "glorot_uniform: ");
    check_refused(init::identity(&[-1, -1], float), "not square");
    check_refused(init::orthogonal(&[-1, 4], float, 1.0), "orthogonal: shape");
    check_refused(init::orthogonal(&[i32::MAX, 1], float, 1.0), "");
    for sparsity in [f64::NAN, -0.1, 1.1] {
        check_refused(init::sparse(&[2, 3], float, sparsity, normal), "sparsity of");
    }
    check_refused(init::sparse(&[-2, 3], float, 0.5, normal), "sparse: shape");
    check_refused(init::normal(&[2], Dtype::Int32, normal), "");
    Ok(())
}
