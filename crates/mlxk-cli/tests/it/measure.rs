//! `mlxk perplexity` and `mlxk bench`.

use serde_json::{Value, json};

use crate::support::{TinyModel, run, run_with_stdin};

#[test]
fn perplexity_is_the_exponential_of_the_mean() {
    let model = TinyModel::new();
    let text = "the quick brown fox\n";
    model.write("text.txt", text);
    let file = model.path().join("text.txt");
    let file = file.to_str().expect("UTF-8");
    let args = ["perplexity", model.arg(), "--file", file, "--token-logprobs", "--json"];
    let data = run(args).data();
    let ids = data["token_ids"].as_array().expect("a list");
    let logprobs = data["token_logprobs"].as_array().expect("a list");
    assert_eq!(data["tokens"], text.len());
    assert_eq!((ids.len(), logprobs.len()), (text.len(), text.len()));
    assert_eq!(logprobs[0], Value::Null);
    let known: Vec<f64> = logprobs[1..].iter().map(|x| x.as_f64().expect("a number")).collect();
    let nll = -known.iter().sum::<f64>() / known.len() as f64;
    assert!((data["nll"].as_f64().expect("a number") - nll).abs() < 1e-6);
    assert!((data["perplexity"].as_f64().expect("a number") - nll.exp()).abs() < 1e-6 * nll.exp());

    // From stdin, in another type, without the list.
    let args = ["perplexity", model.arg(), "--file", "-", "--json", "--dtype", "bfloat16"];
    let narrow = run_with_stdin(&args, text.as_bytes()).data();
    assert_eq!(narrow["dtype"], "bfloat16");
    assert_eq!(narrow["token_logprobs"], Value::Null);
    let difference = narrow["nll"].as_f64().expect("a number") - nll;
    assert!(difference != 0.0 && difference.abs() < 0.1, "{difference}");

    let printed = run(["perplexity", model.arg(), "--file", file, "--token-logprobs"]).ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), text.len() + 3);
    assert_eq!(lines[0], format!("{}\t-\t\"t\"", ids[0]));
    assert_eq!(lines[text.len()], format!("tokens: {}", text.len()));
}

#[test]
fn texts_that_say_nothing_are_refused() {
    let model = TinyModel::new();
    for text in ["", "x"] {
        let ran = run_with_stdin(&["perplexity", model.arg(), "--file", "-"], text.as_bytes());
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains("at least two tokens"), "{}", ran.stderr);
    }
    let ran = run_with_stdin(&["perplexity", model.arg(), "--file", "-"], b"ab\xff");
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "error: -: not UTF-8 text, byte 2 is wrong\n");
}

#[test]
fn bench_reports_each_test() {
    let model = TinyModel::new();
    let args = ["bench", model.arg(), "-p", "16,32", "-n", "4", "-r", "3"];
    let data = run(args.into_iter().chain(["--json"])).data();
    let results = data["results"].as_array().expect("a list");
    let names: Vec<&Value> = results.iter().map(|result| &result["test"]).collect();
    assert_eq!(names, ["pp16", "pp32", "tg4"]);
    for result in results {
        let samples = result["samples"].as_array().expect("a list");
        assert_eq!((samples.len(), &result["repetitions"]), (3, &json!(3)));
        let mean = samples.iter().filter_map(Value::as_f64).sum::<f64>() / 3.0;
        let told = result["tokens_per_second"].as_f64().expect("a number");
        assert!(told > 0.0 && (told - mean).abs() < 1e-6 * mean, "{result}");
    }
    assert_eq!(data["model"]["synthetic"], false);
    assert!(data["peak_memory_bytes"].as_u64() > Some(0));

    let table = run(args).ok();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 5, "{table}");
    let width = rows[0].chars().count();
    assert!(rows.iter().all(|row| row.chars().count() == width), "{table}");
}

#[test]
fn instructions_are_chosen_among_those_there() {
    let model = TinyModel::new();
    let args = ["bench", model.arg(), "-p", "8", "-n", "2", "-r", "1"];
    let isa_of = |isa: &[&str]| {
        run(args.iter().chain(isa).chain(&["--json"])).data()["isa"].as_str().map(str::to_owned)
    };
    let ran = run(args.iter().chain(&["--isa", "sse"]));
    assert_eq!(ran.code, Some(2));
    let there = ran.stderr.split_once("this CPU has ").expect("a list").1;
    let there: Vec<&str> = there.lines().next().unwrap_or_default().split(", ").collect();
    assert_eq!(there.first(), Some(&"scalar"));
    assert_eq!(isa_of(&[]).as_deref(), there.last().copied());
    for isa in there {
        assert_eq!(isa_of(&["--isa", isa]).as_deref(), Some(isa));
    }
}

#[test]
fn synthetic_weights_have_the_shape_of_the_model() {
    for checkpoint in ["llama-f32", "llama-affine4", "qwen3-mxfp4"] {
        let model = TinyModel::of(checkpoint, "tiny");
        let real = run(["bench", model.arg(), "-p", "8", "-n", "2", "-r", "1", "--json"]).data();
        let config = model.path().join("config.json");
        let config = config.to_str().expect("UTF-8");
        let args = ["bench", "--synthetic", config, "-p", "8", "-n", "2", "-r", "1", "--json"];
        let synthetic = run(args).data();
        assert_eq!(synthetic["model"]["synthetic"], true);
        for name in ["model_type", "n_parameters", "quantization"] {
            assert_eq!(synthetic["model"][name], real["model"][name], "{checkpoint}: {name}");
        }
    }
}

#[test]
fn lengths_are_bounded() {
    let model = TinyModel::new();
    let ran = run(["bench", model.arg(), "-p", "513", "-n", "0"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("513 tokens do not fit the context window of 512"));
    let ran = run(["bench", model.arg(), "-p", "0", "-n", "0"]);
    assert_eq!(ran.code, Some(2));
}
