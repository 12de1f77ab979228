//! The layers of `mlx.nn` against Python's: keys, first numbers, outputs, gradients, state.

mod build;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use build::{Case, Input, build};
use fixtures::Tolerance;
use mlx_core::fast::AttentionMask;
use mlx_core::nn::{
    self, Activation, BatchNorm, BatchNormOptions, ConvOptions, LayerNormOptions, Linear, Module,
    Parameters, PoolOptions, Sequential, SinusoidalOptions, TransformerLayerOptions, UpsampleMode,
    UpsampleOptions,
};
use mlx_core::transforms::grad_once;
use mlx_core::{
    Array, Device, Dtype, ErrorKind, Quantization, Result, load_safetensors, ops, random,
    with_device,
};
use proptest::prelude::*;
use serde_json::Value;

struct Fixture {
    cases: Vec<Value>,
    arrays: BTreeMap<String, Array>,
}

impl Fixture {
    fn load() -> Result<Fixture> {
        let cases = fixtures::json("mlx-core/nn_layers/cases.json");
        let arrays = load_safetensors(fixtures::path("mlx-core/nn_layers/arrays.safetensors"))?;
        Ok(Fixture { cases: cases.as_array().expect("a list").clone(), arrays })
    }

    /// The arrays of a case under `kind`, by what follows it.
    fn of(&self, case: &Value, kind: &str) -> Parameters {
        let prefix = format!("{}/{kind}/", text(case, "name"));
        let own = self.arrays.range(prefix.clone()..).take_while(|(n, _)| n.starts_with(&prefix));
        own.map(|(name, array)| (name[prefix.len()..].to_owned(), array.clone())).collect()
    }
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().expect(key)
}

fn names(case: &Value, key: &str) -> Vec<String> {
    let list = case[key].as_array().expect(key).iter();
    list.map(|name| name.as_str().expect(key).to_owned()).collect()
}

fn wave(shape: &[i32]) -> Result<Array> {
    let size: i32 = shape.iter().product();
    let values: Vec<f32> = (0..size).map(|i| (0.7 * f64::from(i) + 0.3).cos() as f32).collect();
    Array::from_slice(&values, shape)
}

fn new_layer(case: &Value) -> Result<Box<dyn Case>> {
    random::seed(case["seed"].as_u64().expect("a seed"))?;
    build(text(case, "layer"), &case["args"], &case["call"])
}

/// The layer as the fixture called it: parameters moved, dtype and mode set, seed at its start.
fn moved_layer(case: &Value) -> Result<Box<dyn Case>> {
    let mut layer = new_layer(case)?;
    let moved = layer.parameters().map(|_, array| array + (wave(array.shape())? * 0.1))?;
    layer.update(&moved)?;
    layer.cast(Dtype::from_name(text(case, "dtype")).expect("a dtype"))?;
    layer.train(case["train"].as_bool().expect("a mode"));
    random::seed(case["seed"].as_u64().expect("a seed"))?;
    Ok(layer)
}

fn inputs(fixture: &Fixture, case: &Value) -> Vec<Input> {
    let arrays = fixture.of(case, "in");
    let kinds = names_or_none(&case["inputs"]);
    let input = |(i, kind): (usize, Option<&str>)| match kind {
        None => Input::None,
        Some("causal") => Input::Causal,
        Some(_) => Input::Array(arrays[&i.to_string()].clone()),
    };
    kinds.into_iter().enumerate().map(input).collect()
}

fn names_or_none(list: &Value) -> Vec<Option<&str>> {
    list.as_array().expect("a list").iter().map(Value::as_str).collect()
}

fn check_equal(actual: &Array, expected: &Array, tolerance: Tolerance) -> Result<(), String> {
    if actual.shape() != expected.shape() || actual.dtype() != expected.dtype() {
        return Err(format!("{actual:?}, expected {expected:?}"));
    }
    let values = |array: &Array| array.to_vec_as::<f32>().map_err(|e| e.to_string());
    tolerance.check(&values(actual)?, &values(expected)?)
}

fn check_all(actual: &Parameters, expected: &Parameters, tolerance: Tolerance) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, expected) in expected {
        let result = match actual.get(name) {
            Some(actual) => check_equal(actual, expected, tolerance),
            None => Err("not there".to_owned()),
        };
        failures.extend(result.err().map(|e| format!("{name}: {e}")));
    }
    failures
}

/// Runs `check` on every case and fails with all that it found.
fn check_cases(check: impl Fn(&Fixture, &Value) -> Result<Vec<String>>) {
    let failures = with_device(Device::Cpu, || {
        let fixture = Fixture::load()?;
        assert!(fixture.cases.len() > 150);
        let mut failures = Vec::new();
        for case in &fixture.cases {
            let found = check(&fixture, case).unwrap_or_else(|e| vec![e.to_string()]);
            let name = text(case, "name");
            failures.extend(found.into_iter().map(|failure| format!("{name}: {failure}")));
        }
        Ok(failures)
    });
    let failures = failures.unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_seed_gives_the_parameters_of_python() {
    check_cases(|fixture, case| {
        let mut layer = new_layer(case)?;
        let parameters = layer.parameters();
        let shape = |array: &Array| Value::from(array.shape().to_vec());
        let shapes: serde_json::Map<String, Value> =
            parameters.iter().map(|(name, array)| (name.clone(), shape(array))).collect();
        let mut failures = Vec::new();
        if Value::from(shapes.clone()) != case["parameters"] {
            failures.push(format!("{shapes:?}, expected {}", case["parameters"]));
        }
        let trainable: Vec<String> =
            layer.trainable_parameters().into_iter().map(|(name, _)| name).collect();
        if trainable != names(case, "trainable") {
            failures.push(format!("trainable: {trainable:?}, expected {}", case["trainable"]));
        }
        let asked = std::cell::RefCell::new(Vec::new());
        layer.quantize(&|path, _| {
            asked.borrow_mut().push(path.to_owned());
            None
        })?;
        let mut asked = asked.into_inner();
        asked.sort();
        if asked != names(case, "quantizable") {
            failures.push(format!("quantizable: {asked:?}, expected {}", case["quantizable"]));
        }
        // Processors differ in the last place of `erfinv`, which only an embedding is made with.
        let tolerance = match text(case, "layer") {
            "Embedding" => Tolerance::op("random", "float32"),
            _ => Tolerance::EXACT,
        };
        failures.extend(check_all(&parameters, &fixture.of(case, "init"), tolerance));
        Ok(failures)
    });
}

#[test]
fn layers_compute_what_those_of_python_do() {
    check_cases(|fixture, case| {
        let tolerance = Tolerance::op("nn", text(case, "dtype"));
        let layer = moved_layer(case)?;
        let outputs = layer.call(&inputs(fixture, case))?;
        let outputs: Parameters =
            outputs.into_iter().enumerate().map(|(i, y)| (i.to_string(), y)).collect();
        let mut failures = check_all(&outputs, &fixture.of(case, "out"), tolerance);
        failures.extend(check_all(&layer.parameters(), &fixture.of(case, "after"), tolerance));
        Ok(failures)
    });
}

/// The sum over all outputs, weighted so that no two elements count the same.
fn loss(layer: &dyn Case, case: &Value, inputs: &[Input]) -> Result<Array> {
    random::seed(case["seed"].as_u64().expect("a seed"))?;
    let mut loss = Array::from(0.0f32);
    for y in layer.call(inputs)? {
        loss = (loss + (&y * wave(y.shape())?)?.sum(.., false)?)?;
    }
    Ok(loss)
}

#[test]
fn gradients_are_those_of_python() {
    check_cases(|fixture, case| {
        if case["has_gradients"] == false {
            return Ok(Vec::new());
        }
        let tolerance = Tolerance::op("nn", "float32");
        let mut layer = moved_layer(case)?;
        let inputs = inputs(fixture, case);
        let expected = fixture.of(case, "grad_in");
        let by_inputs = expected.keys().map(|i| {
            let position: usize = i.parse().expect("a position");
            let Input::Array(x) = &inputs[position] else { panic!("input {i} is no array") };
            let with_input = |x: &[Array]| {
                let mut inputs = inputs.clone();
                inputs[position] = Input::Array(x[0].clone());
                Ok(vec![loss(&*layer, case, &inputs)?])
            };
            let gradients = grad_once(with_input, std::slice::from_ref(x), 0)?;
            Ok((i.clone(), gradients[0].clone()))
        });
        let mut failures = check_all(&by_inputs.collect::<Result<_>>()?, &expected, tolerance);
        let expected = fixture.of(case, "grad");
        if !expected.is_empty() {
            let (_, by_parameters) =
                nn::value_and_grad(&mut *layer, |layer| loss(layer, case, &inputs))?;
            failures.extend(check_all(&by_parameters, &expected, tolerance));
        }
        Ok(failures)
    });
}

#[test]
fn every_layer_comes_back_from_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    check_cases(|_, case| {
        let layer = moved_layer(case)?;
        let path = dir.path().join(text(case, "name"));
        layer.save_weights(&path)?;
        let mut other = new_layer(case)?;
        other.cast(Dtype::from_name(text(case, "dtype")).expect("a dtype"))?;
        other.load_weights(&path)?;
        Ok(check_all(&other.parameters(), &layer.parameters(), Tolerance::EXACT))
    });
}

#[test]
fn state_is_never_trained() {
    check_cases(|_, case| {
        let mut layer = new_layer(case)?;
        layer.freeze(&|_| true);
        let mut failures = Vec::new();
        if !layer.trainable_parameters().is_empty() {
            failures.push("not frozen".to_owned());
        }
        layer.unfreeze(&|_| true);
        let trainable: Vec<String> =
            layer.trainable_parameters().into_iter().map(|(name, _)| name).collect();
        if trainable != names(case, "trainable") {
            failures.push(format!("{trainable:?} after unfreezing"));
        }
        Ok(failures)
    });
}

#[test]
fn running_statistics_outlive_a_gradient() {
    let checked = with_device(Device::Cpu, || {
        let options = BatchNormOptions { momentum: 0.5, ..BatchNormOptions::default() };
        let mut model = Sequential::new()
            .push(Linear::new(2, 3, true)?)
            .push(BatchNorm::new(3, options)?)
            .push(Linear::new(3, 1, true)?);
        let x = wave(&[8, 2])?;
        for step in 1..4 {
            let before = model.get("layers.1.running_mean").expect("a mean");
            let (_, gradients) = nn::value_and_grad(&mut model, |model| {
                model.forward(&x)?.square()?.sum(.., false)
            })?;
            assert!(gradients.keys().all(|path| !path.contains("running")), "{gradients:?}");
            let after = model.get("layers.1.running_mean").expect("a mean");
            let hidden = x.matmul(&model.get("layers.0.weight").expect("a weight").t()?)?;
            let mean = (hidden + model.get("layers.0.bias").expect("a bias"))?.mean(0, false)?;
            let expected = ((before * 0.5)? + (mean * 0.5)?)?;
            let tolerance = Tolerance::op("nn", "float32");
            assert_eq!(check_equal(&after, &expected, tolerance), Ok(()), "step {step}");
        }
        model.train(false);
        let before = model.parameters();
        let rows = model.forward(&x)?;
        // Outside of training a row does not depend on those beside it.
        let row = model.forward(&x.at(0..1)?)?;
        let tolerance = Tolerance::op("nn", "float32");
        assert_eq!(check_equal(&row, &rows.at(0..1)?, tolerance), Ok(()));
        assert!(check_all(&model.parameters(), &before, Tolerance::EXACT).is_empty());
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn a_checkpoint_computes_a_layer_again() {
    let checked = with_device(Device::Cpu, || {
        let calls = Rc::new(Cell::new(0));
        let counted = calls.clone();
        let activation = Activation::new(move |x| {
            counted.set(counted.get() + 1);
            nn::relu(x)
        });
        let options = TransformerLayerOptions { activation, ..TransformerLayerOptions::default() };
        let mut model = nn::TransformerEncoder::new(3, 4, 2, options)?;
        let x = wave(&[1, 3, 4])?;
        let mut gradients = Vec::new();
        for (checkpoint, expected) in [(false, 3), (true, 6)] {
            model.checkpoint = checkpoint;
            calls.set(0);
            gradients.push(nn::value_and_grad(&mut model, |model| {
                model.forward(&x, AttentionMask::Causal)?.square()?.sum(.., false)
            })?);
            assert_eq!(calls.get(), expected);
        }
        let tolerance = Tolerance::op("nn", "float32");
        assert_eq!(check_all(&gradients[1].1, &gradients[0].1, tolerance), Vec::<String>::new());
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn packing_leaves_convolutions() {
    let checked = with_device(Device::Cpu, || {
        let mut model = Sequential::new()
            .push(nn::Conv1d::new(64, 64, [1], ConvOptions::default())?)
            .push(nn::LayerNorm::new(64, LayerNormOptions::default())?)
            .push(Linear::new(64, 64, true)?);
        let x = wave(&[1, 5, 64])?;
        let dense = model.forward(&x)?;
        let eight_bits = Quantization { bits: 8, ..Quantization::default() };
        model.quantize(&|_, _| Some(eight_bits))?;
        assert!(model.get("layers.2.scales").is_some());
        assert_eq!(model.get("layers.0.weight").map(|w| w.dtype()), Some(Dtype::Float32));
        let tolerance = Tolerance { rtol: 0.0, atol: 0.0, of_max: 0.02 };
        assert_eq!(check_equal(&model.forward(&x)?, &dense, tolerance), Ok(()));
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn a_causal_mask_hides_what_is_later() {
    let checked = with_device(Device::Cpu, || {
        use nn::MultiHeadAttention as Attention;
        for (dtype, least) in [
            (Dtype::Float32, f32::MIN),
            (Dtype::Float16, -65504.0),
            (Dtype::Bfloat16, -3.389_531_4e38),
        ] {
            let mask = Attention::create_additive_causal_mask(3, dtype)?;
            assert_eq!((mask.shape(), mask.dtype()), (&[3, 3][..], dtype));
            let expected = [0.0, least, least, 0.0, 0.0, least, 0.0, 0.0, 0.0];
            assert_eq!(mask.to_vec_as::<f32>()?, expected);
        }
        assert_eq!(Attention::create_additive_causal_mask(0, Dtype::Float32)?.shape(), [0, 0]);
        assert!(Attention::create_additive_causal_mask(-1, Dtype::Float32).is_err());
        assert!(Attention::create_additive_causal_mask(2, Dtype::Int32).is_err());
        Ok(())
    });
    checked.unwrap();
}

/// Pools one axis of `[outer, size, inner]`; `None` is padding.
fn pool_axis(
    values: &[f32],
    size: usize,
    inner: usize,
    (kernel, stride, padding): (usize, usize, usize),
    pool: fn(&[Option<f32>]) -> f32,
) -> (Vec<f32>, usize) {
    let n_windows = (size + 2 * padding - kernel) / stride + 1;
    let mut pooled = Vec::new();
    for block in values.chunks(size * inner) {
        for window in 0..n_windows {
            for i in 0..inner {
                let at =
                    |k: usize| (window * stride + k).checked_sub(padding).filter(|&p| p < size);
                let elements: Vec<Option<f32>> =
                    (0..kernel).map(|k| at(k).map(|p| block[p * inner + i])).collect();
                pooled.push(pool(&elements));
            }
        }
    }
    (pooled, n_windows)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn pooling_sees_its_window_only(
        (height, width) in (1..8usize, 1..8usize),
        (kernel, stride, padding) in (1..5usize, 1..5usize, 0..3usize),
        is_transposed in any::<bool>(),
    ) {
        prop_assume!(height.min(width) + 2 * padding >= kernel);
        let (batch, channels) = (2, 3);
        let values: Vec<f32> =
            (0..batch * height * width * channels).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let window = (kernel, stride, padding);
        // A maximum of padding alone is minus infinity.
        let max = |w: &[Option<f32>]| w.iter().flatten().copied().fold(f32::NEG_INFINITY, f32::max);
        let mean = |w: &[Option<f32>]| w.iter().map(|x| x.unwrap_or(0.0)).sum::<f32>() / w.len() as f32;
        let naive = |pool: fn(&[Option<f32>]) -> f32| {
            let (rows, n_rows) = pool_axis(&values, height, width * channels, window, pool);
            let (both, n_columns) = pool_axis(&rows, width, channels, window, pool);
            (both, [batch as i32, n_rows as i32, n_columns as i32, channels as i32])
        };
        let actual = with_device(Device::Cpu, || {
            let shape = [batch, height, width, channels].map(|size| size as i32);
            let x = Array::from_slice(&values, &shape)?;
            // The same elements, but not in the order of memory.
            let x = if is_transposed { x.t()?.contiguous()?.t()? } else { x };
            let options = PoolOptions { stride: Some([stride as i32; 2]), padding: [padding as i32; 2] };
            let max = nn::MaxPool2d::new([kernel as i32; 2], options)?.forward(&x)?;
            let mean = nn::AvgPool2d::new([kernel as i32; 2], options)?.forward(&x)?;
            let read = |y: Array| Ok((y.to_vec::<f32>()?, y.shape().to_vec()));
            Ok([read(max)?, read(mean)?])
        });
        for ((values, shape), (expected, expected_shape)) in
            actual.unwrap().into_iter().zip([naive(max), naive(mean)])
        {
            prop_assert_eq!(shape, expected_shape);
            prop_assert_eq!(Tolerance::op("nn", "float32").check(&values, &expected), Ok(()));
        }
    }
}

/// Lists constructors that have to fail, with the values that made them.
macro_rules! refused {
    ($($e:expr;)*) => { [$((stringify!($e), $e.map(drop).err())),*] };
}

#[test]
fn constructors_refuse_what_cannot_be() {
    let conv = ConvOptions::<1>::default();
    let conv3 = ConvOptions { groups: 2, ..ConvOptions::<3>::default() };
    let transposed = nn::ConvTransposeOptions::<1>::default();
    let group = nn::GroupNormOptions::default();
    let batch = BatchNormOptions::default();
    let attention = nn::MultiHeadAttentionOptions::default();
    let layer = TransformerLayerOptions::default;
    let sines = SinusoidalOptions::default();
    let upsample = UpsampleOptions::default();
    let pool = PoolOptions::<2>::default();
    for (call, error) in refused! {
        Linear::new(0, 4, true);
        Linear::new(-1, 4, true);
        Linear::new(4, -4, false);
        Linear::new(i32::MAX, i32::MAX, true);
        nn::Embedding::new(-1, 4);
        nn::Embedding::new(4, 0);
        nn::Bilinear::new(2, 0, 2, true);
        nn::Conv1d::new(0, 4, [3], conv);
        nn::Conv1d::new(4, -4, [3], conv);
        nn::Conv1d::new(4, 4, [0], conv);
        nn::Conv1d::new(4, 4, [-3], conv);
        nn::Conv1d::new(4, 4, [3], ConvOptions { stride: [0], ..conv });
        nn::Conv1d::new(4, 4, [3], ConvOptions { padding: [-1], ..conv });
        nn::Conv1d::new(4, 4, [3], ConvOptions { dilation: [0], ..conv });
        nn::Conv1d::new(4, 4, [3], ConvOptions { groups: 0, ..conv });
        nn::Conv1d::new(4, 4, [3], ConvOptions { groups: -2, ..conv });
        nn::Conv1d::new(4, 4, [3], ConvOptions { groups: 3, ..conv });
        nn::Conv1d::new(4, 6, [3], ConvOptions { groups: 4, ..conv });
        nn::Conv3d::new(4, 4, [1, 1, 1], conv3);
        nn::Conv2d::new(i32::MAX, i32::MAX, [i32::MAX, 1], ConvOptions::default());
        nn::ConvTranspose1d::new(4, 4, [0], transposed);
        nn::ConvTranspose1d::new(4, 4, [2], nn::ConvTransposeOptions { output_padding: [-1], ..transposed });
        nn::RmsNorm::new(0, 1e-5);
        nn::RmsNorm::new(4, 0.0);
        nn::RmsNorm::new(4, f32::NAN);
        nn::LayerNorm::new(-4, LayerNormOptions::default());
        nn::LayerNorm::new(4, LayerNormOptions { eps: -1.0, ..Default::default() });
        nn::GroupNorm::new(0, 4, group);
        nn::GroupNorm::new(-2, 4, group);
        nn::GroupNorm::new(3, 4, group);
        nn::GroupNorm::new(2, 0, group);
        nn::InstanceNorm::new(0, 1e-5, true);
        nn::InstanceNorm::new(4, -1e-5, true);
        BatchNorm::new(0, batch);
        BatchNorm::new(4, BatchNormOptions { eps: 0.0, ..batch });
        nn::Dropout::new(1.0);
        nn::Dropout::new(-0.1);
        nn::Dropout2d::new(f32::NAN);
        nn::Dropout3d::new(2.0);
        nn::SinusoidalPositionalEncoding::new(0, sines);
        nn::SinusoidalPositionalEncoding::new(-2, sines);
        nn::SinusoidalPositionalEncoding::new(3, sines);
        nn::SinusoidalPositionalEncoding::new(4, SinusoidalOptions { min_freq: 0.0, ..sines });
        nn::Alibi::create_alibi_slope(0, Dtype::Float32);
        nn::Alibi::create_alibi_slope(i32::MIN, Dtype::Float32);
        nn::Alibi::create_alibi_slope(4, Dtype::Int32);
        nn::MultiHeadAttention::new(4, 0, attention);
        nn::MultiHeadAttention::new(4, -1, attention);
        nn::MultiHeadAttention::new(4, 3, attention);
        nn::MultiHeadAttention::new(4, 2, nn::MultiHeadAttentionOptions { value_dims: Some(5), ..attention });
        nn::MultiHeadAttention::new(4, 2, nn::MultiHeadAttentionOptions { key_input_dims: Some(0), ..attention });
        nn::TransformerEncoderLayer::new(4, 2, TransformerLayerOptions { dropout: 1.5, ..layer() });
        nn::TransformerEncoderLayer::new(4, 2, TransformerLayerOptions { mlp_dims: Some(0), ..layer() });
        nn::TransformerEncoder::new(-1, 4, 2, layer());
        nn::TransformerEncoder::new(i32::MAX, 4, 2, layer());
        nn::TransformerDecoder::new(1, 4, 3, layer());
        nn::Transformer::new(nn::TransformerOptions { num_heads: 7, ..Default::default() });
        nn::Rnn::new(0, 4, true);
        nn::Rnn::new(4, 0, true);
        nn::Gru::new(4, i32::MAX, true);
        nn::Lstm::new(-1, 4, true);
        nn::MaxPool2d::new([2, 0], pool);
        nn::MaxPool2d::new([2, 2], PoolOptions { stride: Some([1, -1]), ..pool });
        nn::AvgPool2d::new([2, 2], PoolOptions { padding: [0, -1], ..pool });
        nn::Upsample::new(0.0, upsample);
        nn::Upsample::new(-1.0, upsample);
        nn::Upsample::new(f64::NAN, upsample);
        nn::Upsample::new([2.0, f64::INFINITY], upsample);
        nn::Upsample::new(2.0, UpsampleOptions { antialias: true, ..upsample });
        nn::Upsample::new(2.0, UpsampleOptions { mode: UpsampleMode::Cubic, align_corners: true, antialias: true });
        nn::PRelu::new(0, 0.25);
    } {
        let error = error.unwrap_or_else(|| panic!("{call} is no error"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{call}: {error}");
    }
}

#[test]
fn errors_name_the_layer_and_its_values() {
    let conv = ConvOptions { groups: 2, ..ConvOptions::<2>::default() };
    let error = nn::Conv2d::new(5, 4, [3, 3], conv).map(drop).expect_err("groups");
    assert_eq!(error.to_string(), "conv2d: in_channels 5 does not divide by groups 2");
    let error = nn::Dropout::new(1.5).map(drop).expect_err("probability");
    assert_eq!(error.to_string(), "dropout: probability 1.5 is not in 0..1");
    let chain = || {
        let model =
            Sequential::new().push(nn::Identity).push(nn::InstanceNorm::new(4, 1e-5, true)?);
        model.forward(&ops::zeros(&[2, 4], Dtype::Float32)?)
    };
    let error = chain().expect_err("axes");
    let expected = "layers.1: instance_norm: expected 3 or more axes, got [2, 4]";
    assert_eq!(error.to_string(), expected);
}
