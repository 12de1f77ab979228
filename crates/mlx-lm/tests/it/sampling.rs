//! Filters and processors against mlx-lm's, and the draws against their distribution.

use fixtures::Tolerance;
use mlx_lm::core::Array;
use mlx_lm::sample::{Sampler, Sampling, filter, process};
use serde_json::Value;

fn floats(value: &Value) -> Vec<f32> {
    let float = |x: &Value| match x.as_str() {
        Some("-inf") => f32::NEG_INFINITY,
        Some("inf") => f32::INFINITY,
        Some(other) => panic!("{other}"),
        None => x.as_f64().expect("a number") as f32,
    };
    value.as_array().expect("a list").iter().map(float).collect()
}

fn row(values: &[f32]) -> Array {
    Array::from_slice(values, &[1, values.len() as i32]).expect("a row")
}

fn sampling(params: &Value) -> Sampling {
    let number = |name: &str, default: f64| {
        params.get(name).and_then(Value::as_f64).unwrap_or(default) as f32
    };
    let count = |name: &str, default: u64| {
        params.get(name).and_then(Value::as_u64).unwrap_or(default) as usize
    };
    let tokens = |name: &str| -> Vec<u32> {
        let list = params.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32).collect()
    };
    Sampling {
        temperature: 1.0,
        top_p: number("top_p", 0.0),
        top_k: count("top_k", 0),
        min_p: number("min_p", 0.0),
        min_tokens_to_keep: count("min_tokens_to_keep", 1),
        xtc_probability: number("xtc_probability", 0.0),
        xtc_threshold: number("xtc_threshold", 0.1),
        xtc_special_tokens: tokens("xtc_special_tokens"),
        ..Sampling::default()
    }
}

fn check(failures: &mut Vec<String>, row: &Value, actual: &[f32]) {
    let expected = floats(&row["out"]);
    let kept = |values: &[f32]| values.iter().filter(|x| x.is_finite()).count();
    let result = if row["ties"] == Value::Bool(true) {
        let (a, e) = (kept(actual), kept(&expected));
        if a == e { Ok(()) } else { Err(format!("{a} kept, expected {e}")) }
    } else {
        Tolerance { rtol: 1e-5, atol: 1e-5, of_max: 0.0 }.check(actual, &expected)
    };
    if let Err(e) = result {
        failures.push(format!("{} {}: {e}", row["filter"], row["params"]));
    }
}

#[test]
fn filters_keep_what_the_reference_keeps() {
    let data = fixtures::json("mlx-lm/sampling.json");
    let draw = Array::from_slice(&[0.0f32], &[1, 1]).expect("a number");
    let mut failures = Vec::new();
    let mut n = 0;
    for table in ["filters", "chains"] {
        for row_ in data[table].as_array().expect("rows") {
            let mut params = row_["params"].clone();
            // A filter's own parameters carry its name only in a chain.
            for (filter, name, full) in [
                ("top_p", "p", "top_p"),
                ("top_k", "k", "top_k"),
                ("xtc", "probability", "xtc_probability"),
                ("xtc", "threshold", "xtc_threshold"),
                ("xtc", "special_tokens", "xtc_special_tokens"),
            ] {
                if row_["filter"] == filter {
                    params[full] = params[name].take();
                }
            }
            let sampling = sampling(&params);
            let logprobs = row(&floats(&row_["input"]));
            if row_["error"] == Value::Bool(true) {
                // DIFFERENCE: `top_k` of all tokens or of none switches the filter off; the type
                // allows no negative one.
                let is_off = row_["filter"] == "top_k";
                assert!(is_off || sampling.check(32).is_err(), "{row_}");
                continue;
            }
            let actual = filter(&logprobs, &sampling, &draw).expect("filter");
            check(&mut failures, row_, &actual.to_vec::<f32>().expect("floats"));
            n += 1;
        }
    }
    assert!(n > 250, "{n} rows");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn processors_agree_with_the_reference() {
    let data = fixtures::json("mlx-lm/sampling.json");
    let mut failures = Vec::new();
    for row_ in data["processors"].as_array().expect("rows") {
        let params = &row_["params"];
        let number = |name: &str| params.get(name).and_then(Value::as_f64).unwrap_or(0.0) as f32;
        let context = |name: &str| {
            params.get(format!("{name}_context_size")).and_then(Value::as_u64).unwrap_or(20)
                as usize
        };
        let bias = params.get("logit_bias").and_then(Value::as_object);
        let sampling = Sampling {
            repetition_penalty: number("repetition_penalty"),
            presence_penalty: number("presence_penalty"),
            frequency_penalty: number("frequency_penalty"),
            repetition_context_size: context("repetition"),
            presence_context_size: context("presence"),
            frequency_context_size: context("frequency"),
            logit_bias: bias
                .into_iter()
                .flatten()
                .map(|(token, x)| {
                    (token.parse().expect("an id"), x.as_f64().expect("a bias") as f32)
                })
                .collect(),
            ..Sampling::default()
        };
        if row_["error"] == Value::Bool(true) {
            assert!(sampling.check(64).is_err(), "{row_}");
            continue;
        }
        let tokens: Vec<u32> = row_["tokens"]
            .as_array()
            .expect("tokens")
            .iter()
            .map(|id| id.as_u64().expect("an id") as u32)
            .collect();
        let recent = Array::from_slice(&tokens, &[1, tokens.len() as i32]).expect("tokens");
        let actual = process(&row(&floats(&row_["input"])), Some(&recent), &sampling)
            .expect("process")
            .to_vec::<f32>()
            .expect("floats");
        check(&mut failures, row_, &actual);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Draws follow the filtered distribution: χ² over the kept tokens, and nothing else is drawn.
#[test]
fn draws_follow_the_distribution() {
    let logits = [2.0f32, 1.5, 1.0, 0.5, 0.0, -1.0, -2.0, -3.0];
    let cases = [
        Sampling { temperature: 1.0, ..Sampling::default() },
        Sampling { temperature: 0.5, ..Sampling::default() },
        Sampling { temperature: 1.0, top_k: 3, ..Sampling::default() },
        Sampling { temperature: 2.0, top_p: 0.8, ..Sampling::default() },
        Sampling { temperature: 1.0, min_p: 0.2, ..Sampling::default() },
    ];
    const N: usize = 2000;
    for sampling in cases {
        let temperature = sampling.temperature;
        let draw = Array::from_slice(&[0.0f32], &[1, 1]).expect("a number");
        let total: f32 = logits.iter().map(|x| x.exp()).sum();
        let logprobs: Vec<f32> = logits.iter().map(|x| x - total.ln()).collect();
        let kept = filter(&row(&logprobs), &sampling, &draw).expect("filter");
        let weights: Vec<f32> =
            kept.to_vec::<f32>().expect("floats").iter().map(|x| (x / temperature).exp()).collect();
        let total: f32 = weights.iter().sum();

        let mut sampler = Sampler::new(sampling.clone(), &[0], Some(42)).expect("a sampler");
        let mut counts = [0usize; 8];
        let draws: Vec<Array> =
            (0..N).map(|_| sampler.sample(&row(&logits)).expect("a draw")).collect();
        for draw in draws {
            counts[draw.item::<u32>().expect("a token") as usize] += 1;
        }
        let mut chi_square = 0.0;
        for (count, weight) in counts.iter().zip(&weights) {
            let expected = N as f32 * weight / total;
            if *weight == 0.0 {
                assert_eq!(*count, 0, "{sampling:?}: drew a dropped token");
            } else {
                chi_square += (*count as f32 - expected).powi(2) / expected;
            }
        }
        // The 0.1 % quantile of χ² with 7 degrees of freedom is 24.3.
        assert!(chi_square < 24.3, "{sampling:?}: χ² = {chi_square}, {counts:?}");
    }
}

#[test]
fn a_seed_repeats_the_draws() {
    let logits = row(&[0.0; 16]);
    let draws = |seed| -> Vec<u32> {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, &[0], seed).expect("a sampler");
        (0..20).map(|_| sampler.sample(&logits).and_then(|t| t.item()).expect("a draw")).collect()
    };
    assert_eq!(draws(Some(1)), draws(Some(1)));
    assert_ne!(draws(Some(1)), draws(Some(2)));
    assert_ne!(draws(None), draws(None));
}
