//! Optimizers against the trajectories of Python's `mlx.optimizers`.

use fixtures::Tolerance;
use mlx_core::nn::{Linear, Module, Parameters, value_and_grad};
use mlx_core::optim::{
    AdaDelta, Adafactor, Adagrad, Adam, AdamW, Adamax, LearningRate, Lion, MultiOptimizer, Muon,
    Optimizer, RmsProp, Rule, Schedule, Sgd, clip_grad_norm, cosine_decay, exponential_decay,
    join_schedules, linear_schedule, step_decay,
};
use mlx_core::{
    Array, Device, Dtype, ErrorKind, Result, eval, load_safetensors, ops, random, with_device,
};
use serde_json::Value;

/// The numbers of a case's options, by Python's names.
struct Options<'a>(&'a Value);

impl Options<'_> {
    fn number(&self, name: &str, default: f64) -> f64 {
        self.0.get(name).map_or(default, |value| value.as_f64().unwrap())
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).map_or(default, |value| value.as_bool().unwrap())
    }

    fn betas(&self, default: [f64; 2]) -> [f64; 2] {
        let Some(betas) = self.0.get("betas") else { return default };
        [betas[0].as_f64().unwrap(), betas[1].as_f64().unwrap()]
    }
}

fn rule(case: &Value) -> Box<dyn Rule> {
    let o = Options(&case["options"]);
    match case["rule"].as_str().unwrap() {
        "sgd" => Box::new(Sgd {
            momentum: o.number("momentum", 0.0),
            weight_decay: o.number("weight_decay", 0.0),
            dampening: o.number("dampening", 0.0),
            nesterov: o.flag("nesterov", false),
        }),
        "adam" => {
            let d = Adam::default();
            let bias_correction = o.flag("bias_correction", d.bias_correction);
            Box::new(Adam { betas: o.betas(d.betas), eps: o.number("eps", d.eps), bias_correction })
        }
        "adamw" => {
            let d = AdamW::default();
            Box::new(AdamW {
                betas: o.betas(d.betas),
                eps: o.number("eps", d.eps),
                weight_decay: o.number("weight_decay", d.weight_decay),
                bias_correction: o.flag("bias_correction", d.bias_correction),
            })
        }
        "adamax" => Box::new(Adamax::default()),
        "adagrad" => Box::new(Adagrad { eps: o.number("eps", Adagrad::default().eps) }),
        "adadelta" => {
            let d = AdaDelta::default();
            Box::new(AdaDelta { rho: o.number("rho", d.rho), eps: o.number("eps", d.eps) })
        }
        "rmsprop" => {
            let d = RmsProp::default();
            Box::new(RmsProp { alpha: o.number("alpha", d.alpha), eps: o.number("eps", d.eps) })
        }
        "lion" => {
            let d = Lion::default();
            let weight_decay = o.number("weight_decay", d.weight_decay);
            Box::new(Lion { betas: o.betas(d.betas), weight_decay })
        }
        "adafactor" => {
            let d = Adafactor::default();
            Box::new(Adafactor {
                clip_threshold: o.number("clip_threshold", d.clip_threshold),
                decay_rate: o.number("decay_rate", d.decay_rate),
                beta_1: o.0.get("beta_1").map(|value| value.as_f64().unwrap()),
                weight_decay: o.number("weight_decay", d.weight_decay),
                scale_parameter: o.flag("scale_parameter", d.scale_parameter),
                relative_step: o.flag("relative_step", d.relative_step),
                warmup_init: o.flag("warmup_init", d.warmup_init),
                ..d
            })
        }
        "muon" => {
            let d = Muon::default();
            Box::new(Muon {
                momentum: o.number("momentum", d.momentum),
                weight_decay: o.number("weight_decay", d.weight_decay),
                nesterov: o.flag("nesterov", d.nesterov),
                ns_steps: o.number("ns_steps", d.ns_steps as f64) as usize,
            })
        }
        name => panic!("no rule {name}"),
    }
}

fn schedule(spec: &Value) -> Schedule {
    let number = |i: usize| spec[i].as_f64().unwrap();
    let steps = |i: usize| spec[i].as_u64().unwrap() as u32;
    match spec[0].as_str().unwrap() {
        "exponential_decay" => exponential_decay(number(1), number(2)),
        "step_decay" => step_decay(number(1), number(2), steps(3)).unwrap(),
        "cosine_decay" => cosine_decay(number(1), steps(2), number(3)).unwrap(),
        "linear_schedule" => linear_schedule(number(1), number(2), steps(3)).unwrap(),
        name => panic!("no schedule {name}"),
    }
}

fn rate(spec: &Value) -> LearningRate {
    match spec {
        Value::Null => LearningRate::None,
        Value::Array(_) => schedule(spec).into(),
        rate => (rate.as_f64().unwrap() as f32).into(),
    }
}

/// The arrays of the fixture; one that is not there is empty.
struct Arrays(std::collections::BTreeMap<String, Array>);

impl Arrays {
    fn load() -> Arrays {
        Arrays(load_safetensors(fixtures::path("mlx-core/optimizers/arrays.safetensors")).unwrap())
    }

    fn get(&self, name: &str) -> Array {
        let found = self.0.get(name).cloned();
        found.unwrap_or_else(|| ops::zeros(&[0], Dtype::Float32).unwrap())
    }

    fn tree(&self, prefix: &str, paths: &Value, dtype: Dtype) -> Parameters {
        let array = |path: &Value| {
            let path = path.as_str().unwrap();
            (path.to_owned(), self.get(&format!("{prefix}.{path}")).astype(dtype).unwrap())
        };
        paths.as_array().unwrap().iter().map(array).collect()
    }
}

fn check_equal(what: &str, actual: &Array, expected: &Array) {
    if expected.size() == 0 && actual.size() == 0 {
        return;
    }
    assert_eq!((actual.dtype(), actual.shape()), (expected.dtype(), expected.shape()), "{what}");
    // The order of the operations is the reference's, so that only sums may round otherwise.
    let tolerance = match actual.dtype() {
        Dtype::Float32 => Tolerance { rtol: 2e-6, atol: 1e-7, of_max: 1e-6 },
        Dtype::Bfloat16 => Tolerance { rtol: 1e-2, atol: 1e-4, of_max: 1e-2 },
        _ => Tolerance::EXACT,
    };
    let [actual, expected] = [actual, expected].map(|array| array.to_vec_as::<f32>().unwrap());
    tolerance.check(&actual, &expected).unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test]
fn twenty_steps_are_pythons() {
    let index = fixtures::json("mlx-core/optimizers/index.json");
    let arrays = Arrays::load();
    with_device(Device::Cpu, || {
        for (i, case) in index["cases"].as_array().unwrap().iter().enumerate() {
            let dtype = Dtype::from_name(case["dtype"].as_str().unwrap()).unwrap();
            let mut optimizer = Optimizer::new(rule(case), rate(&case["rate"]))?;
            let mut own = arrays.tree("parameter", &index["parameters"], dtype);
            for step in 1..=20 {
                let gradients =
                    arrays.tree(&format!("gradient.{step}"), &index["parameters"], dtype);
                own = optimizer.apply_gradients(&gradients, &own)?;
                eval(own.values().chain(optimizer.state().values()))?;
                if !index["steps"].as_array().unwrap().contains(&step.into()) {
                    continue;
                }
                for (path, array) in &own {
                    let expected = arrays.get(&format!("{i}.{step}.parameter.{path}"));
                    check_equal(&format!("{case} step {step}: {path}"), array, &expected);
                }
                let prefix = format!("{i}.{step}.state.");
                let names: Vec<&str> =
                    arrays.0.keys().filter_map(|name| name.strip_prefix(&prefix)).collect();
                let filled = optimizer.state().iter().filter(|(_, array)| array.size() > 0);
                assert_eq!(filled.map(|(name, _)| name).collect::<Vec<_>>(), names, "{case}");
                for name in names {
                    let expected = arrays.get(&format!("{prefix}{name}"));
                    let what = format!("{case} step {step}: state {name}");
                    check_equal(&what, &optimizer.state()[name], &expected);
                }
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn schedules_are_pythons() {
    let index = fixtures::json("mlx-core/optimizers/index.json");
    for case in index["schedules"].as_array().unwrap() {
        let schedule = match case.get("join") {
            Some(specs) => {
                let schedules = specs.as_array().unwrap().iter().map(schedule).collect();
                let boundaries = case["boundaries"].as_array().unwrap().iter();
                let boundaries: Vec<u32> = boundaries.map(|b| b.as_u64().unwrap() as u32).collect();
                join_schedules(schedules, &boundaries).unwrap()
            }
            None => schedule(&case["schedule"]),
        };
        for (step, value) in
            case["steps"].as_array().unwrap().iter().zip(case["values"].as_array().unwrap())
        {
            let actual = schedule.at(&Array::from(step.as_u64().unwrap())).unwrap();
            let actual = [actual.item::<f32>().unwrap()];
            let expected = [value.as_f64().unwrap() as f32];
            let tolerance = Tolerance { rtol: 1e-6, atol: 1e-9, of_max: 0.0 };
            tolerance.check(&actual, &expected).unwrap_or_else(|e| panic!("{case} {step}: {e}"));
        }
    }
    assert!(step_decay(1.0, 0.5, 0).is_err());
    assert!(cosine_decay(1.0, 0, 0.0).is_err());
    assert!(linear_schedule(1.0, 0.5, 0).is_err());
    assert!(join_schedules(vec![], &[]).is_err());
    assert!(join_schedules(vec![exponential_decay(1.0, 0.5)], &[3]).is_err());
}

#[test]
fn clipping_is_pythons() {
    let index = fixtures::json("mlx-core/optimizers/index.json");
    let arrays = Arrays::load();
    let gradients = arrays.tree("gradient.1", &index["parameters"], Dtype::Float32);
    for (i, clip) in index["clips"].as_array().unwrap().iter().enumerate() {
        let (clipped, norm) =
            clip_grad_norm(&gradients, clip["max_norm"].as_f64().unwrap()).unwrap();
        check_equal("norm", &norm, &arrays.get(&format!("clip.{i}.norm")));
        for (path, array) in &clipped {
            check_equal(path, array, &arrays.get(&format!("clip.{i}.{path}")));
        }
    }
    assert!(clip_grad_norm(&gradients, -1.0).is_err());
    assert!(clip_grad_norm(&gradients, f64::NAN).is_err());
    let (none, norm) = clip_grad_norm(&Parameters::default(), 1.0).unwrap();
    assert!(none.is_empty() && norm.item::<f32>().unwrap() == 0.0);
}

fn train(model: &mut Linear, optimizer: &mut Optimizer, steps: std::ops::Range<u64>) {
    for step in steps {
        let key = random::key(step).unwrap();
        let x = random::normal(&[8, 6], Dtype::Float32, 0.0, 1.0, Some(&key)).unwrap();
        let loss = |model: &Linear| (model.forward(&x)? - 1.0)?.square()?.mean(.., false);
        let (_, gradients) = value_and_grad(model, loss).unwrap();
        optimizer.update(model, &gradients).unwrap();
        eval(model.parameters().values().chain(optimizer.state().values())).unwrap();
    }
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, state) = (dir.path().join("model"), dir.path().join("state"));
    let rules: [fn() -> Box<dyn Rule>; 4] = [
        || Box::new(AdamW { bias_correction: true, ..AdamW::default() }),
        || Box::new(Sgd { momentum: 0.9, ..Sgd::default() }),
        || Box::new(Adafactor { beta_1: Some(0.9), relative_step: false, ..Adafactor::default() }),
        || Box::new(Muon::default()),
    ];
    for rule in rules {
        let optimizer = || Optimizer::new(rule(), cosine_decay(0.1, 20, 0.0).unwrap()).unwrap();
        random::seed(3).unwrap();
        let start = Linear::new(6, 3, true).unwrap();

        let (mut straight, mut whole) = (start.clone(), optimizer());
        train(&mut straight, &mut whole, 0..20);

        let (mut half, mut first) = (start.clone(), optimizer());
        train(&mut half, &mut first, 0..10);
        half.save_weights(&weights).unwrap();
        first.save_state(&state).unwrap();
        let (mut resumed, mut second) = (Linear::new(6, 3, true).unwrap(), optimizer());
        resumed.load_weights(&weights).unwrap();
        second.load_state(&state).unwrap();
        train(&mut resumed, &mut second, 10..20);

        let bytes = |arrays: &Parameters| -> Vec<(String, Vec<u8>)> {
            let bytes = |array: &Array| array.with_bytes(<[u8]>::to_vec).unwrap();
            arrays.iter().map(|(path, array)| (path.clone(), bytes(array))).collect()
        };
        assert_eq!(bytes(&resumed.parameters()), bytes(&straight.parameters()));
        assert_eq!(bytes(second.state()), bytes(whole.state()));
    }
}

#[test]
fn several_optimizers_share_a_model() -> Result<()> {
    let mut model = Linear::new(4, 4, true)?;
    let before = model.parameters();
    let is_bias = |path: &str, _: &Array| path.ends_with("bias");
    let make = || -> Result<MultiOptimizer> {
        let sgd = Optimizer::new(Sgd::default(), 0.5)?;
        Ok(MultiOptimizer::new(
            vec![(Box::new(is_bias), sgd)],
            Optimizer::new(Lion::default(), 0.25)?,
        ))
    };
    let mut optimizer = make()?;
    let ones = |_: &str, array: &Array| array.ones_like();
    optimizer.update(&mut model, &before.map(ones)?)?;
    let step = |path: &str| -> Result<f32> {
        (&before[path] - model.parameters()[path].clone())?.mean(.., false)?.item()
    };
    assert!((step("bias")? - 0.5).abs() < 1e-6 && (step("weight")? - 0.25).abs() < 1e-6);
    let state = optimizer.state();
    assert!(state.contains_key("states.0.bias.v") && state.contains_key("states.1.weight.m"));
    assert!(!state.contains_key("states.1.bias.m"));
    make()?.set_state(state.clone())?;
    for (name, what) in [("states.2.step", "none of 2"), ("step", "none of 2")] {
        let mut state = state.clone();
        state.insert(name.to_owned(), Array::from(1u64));
        assert!(make()?.set_state(state).unwrap_err().to_string().contains(what));
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let invalid = |result: Result<()>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    fn new(rule: impl Rule + 'static) -> Result<()> {
        Optimizer::new(rule, 0.1).map(|_| ())
    }
    invalid(new(Adam { betas: [1.0, 0.9], ..Adam::default() }), "beta is 1");
    invalid(new(AdamW { eps: -1.0, ..AdamW::default() }), "eps is -1");
    invalid(new(Adamax { betas: [0.9, f64::NAN], ..Adamax::default() }), "beta is NaN");
    invalid(new(Adagrad { eps: 0.0 }), "eps is 0");
    invalid(new(AdaDelta { rho: -0.1, ..AdaDelta::default() }), "rho is -0.1");
    invalid(new(RmsProp { eps: 0.0, ..RmsProp::default() }), "eps is 0");
    invalid(new(Lion { betas: [0.9, 1.5], ..Lion::default() }), "beta is 1.5");
    invalid(new(Sgd { nesterov: true, ..Sgd::default() }), "nesterov");
    invalid(new(Adafactor { clip_threshold: 0.0, ..Adafactor::default() }), "clip_threshold");

    let mut model = Linear::new(2, 2, false)?;
    let mut optimizer = Optimizer::new(Adam::default(), 0.1)?;
    let gradients = |path: &str, shape: &[i32]| -> Result<Parameters> {
        Ok([(path.to_owned(), ops::ones(shape, Dtype::Float32)?)].into_iter().collect())
    };
    invalid(optimizer.update(&mut model, &gradients("bias", &[2])?), "no parameter");
    invalid(optimizer.update(&mut model, &gradients("weight", &[2])?), "weight");
    assert_eq!(optimizer.state()["step"].item::<u64>()?, 0, "a refused step is no step");
    let mut none = Optimizer::new(Adam::default(), LearningRate::None)?;
    invalid(none.update(&mut model, &gradients("weight", &[2, 2])?), "no learning rate");
    invalid(optimizer.set_state(Parameters::default()), "step");
    Ok(())
}
