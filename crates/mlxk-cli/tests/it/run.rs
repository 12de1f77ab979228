//! `mlxk run` with a prompt.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Ran, TinyModel, mlxk, run, run_with_stdin};

#[test]
fn demo_answers() {
    let text =
        run(["run", "demo", "--thinking", "off", "What", "is the capital of", "France?"]).ok();
    assert!(text.contains("Paris"), "{text}");
    assert!(text.ends_with('\n') && text.trim() == text.trim_end_matches('\n'), "{text:?}");
}

#[test]
fn keys_and_values_are_packed_on_request() {
    let question = "What is the capital of France?";
    let ask =
        |flags: &[&str]| run([&["run", "demo", question, "--thinking", "off"], flags].concat());
    for bits in ["4", "8"] {
        let text = ask(&["--kv-bits", bits, "--quantized-kv-start", "0"]).ok();
        assert!(text.contains("Paris"), "{bits} bits: {text}");
    }
    // A head of 64 has no group of 128; nor is it asked for before there are so many tokens.
    let flags = ["--kv-bits", "8", "--kv-group-size", "128", "--quantized-kv-start", "0"];
    let ran = ask(&flags);
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1);
    assert!(ran.code == Some(2) && ran.stderr.contains("128"), "{}", ran.stderr);
    assert!(ask(&flags[..4]).ok().contains("Paris"));
    let bench = ["bench", "demo", "-p", "8", "-n", "2", "-r", "1"];
    let ran = run([&bench[..], &flags].concat());
    assert!(ran.code == Some(2) && ran.stderr.contains("128"), "{}", ran.stderr);
    run([&bench[..], &flags[..2], &flags[4..]].concat()).ok();
}

#[test]
fn text_and_json_are_equal() {
    let prompts =
        ["What is the capital of France?", "What is the opposite of hot?", "What is 2 plus 3?"];
    for prompt in prompts {
        for thinking in ["on", "off"] {
            let args = ["run", "demo", "--thinking", thinking, prompt];
            let data = run(args.iter().copied().chain(["--json"])).data();
            let response = data["response"].as_str().expect("text");
            let expected = match data["reasoning"].as_str() {
                Some(reasoning) => {
                    format!("**Reasoning**\n\n{reasoning}\n\n---\n\n**Answer**\n\n{response}\n")
                }
                None => format!("{response}\n"),
            };
            assert_eq!(data["reasoning"].is_string(), thinking == "on", "{data:#}");
            assert_eq!(run(args).ok(), expected);
            assert_eq!(run(args.iter().copied().chain(["--no-stream"])).ok(), expected);
            let answer = run(args.iter().copied().chain(["--no-reasoning"])).ok();
            assert_eq!(answer, format!("{response}\n"));
            for marker in ["<think>", "</think>", "<|im_end|>"] {
                assert!(!expected.contains(marker), "{expected}");
            }
        }
    }
}

#[test]
fn json_has_what_was_asked_and_what_it_cost() {
    let model = TinyModel::new();
    let prompt = "Grüße 😀";
    let data =
        run(["--json", "run", model.arg(), prompt, "--max-tokens", "9", "--seed", "3"]).data();
    assert_eq!(data["model"], model.arg());
    assert_eq!(data["prompt"], prompt);
    assert_eq!(data["finish_reason"], "length");
    assert_eq!(data["reasoning"], Value::Null);
    assert_eq!(data["token_ids"].as_array().map(Vec::len), Some(9));
    let usage = &data["usage"];
    assert_eq!(usage["completion_tokens"], 9);
    assert_eq!(usage["cached_tokens"], 0);
    let total = usage["prompt_tokens"].as_u64().map(|n| n + 9);
    assert_eq!(usage["total_tokens"].as_u64(), total);
    for speed in ["prompt_tokens_per_second", "generation_tokens_per_second"] {
        assert!(data["timings"][speed].as_f64() > Some(0.0), "{data:#}");
    }
    assert!(data["peak_memory_bytes"].as_u64() > Some(0));
}

#[test]
fn a_seed_makes_draws_repeatable() {
    let model = TinyModel::new();
    let draw = |seed: &str| {
        let args = ["run", model.arg(), "hi", "--temperature", "1", "--top-p", "1"];
        let rest = ["--top-k", "50", "--min-p", "0.01", "--max-tokens", "30", "--seed", seed];
        run(args.into_iter().chain(rest)).ok()
    };
    assert_eq!(draw("7"), draw("7"));
    assert_ne!(draw("7"), draw("8"));
}

#[test]
fn generation_config_is_followed() {
    let model = TinyModel::new();
    let greedy = |args: &[&str]| {
        let data =
            run(["run", model.arg(), "hi", "--json", "--max-tokens", "20"].iter().chain(args))
                .data();
        data["token_ids"].clone()
    };
    let expected = greedy(&["--temperature", "0", "--repetition-penalty", "1"]);
    model.write("generation_config.json", r#"{"do_sample": false}"#);
    assert_eq!(greedy(&[]), expected);
    model.write("generation_config.json", r#"{"temperature": 0.0}"#);
    assert_eq!(greedy(&[]), expected);
    model.write("generation_config.json", r#"{"temperature": 5.0}"#);
    assert_ne!(greedy(&["--seed", "1"]), expected);
    assert_eq!(greedy(&["--seed", "1", "--top-k", "1"]), expected);
}

#[test]
fn prompts_come_from_words_flag_and_stdin() {
    let model = TinyModel::new();
    let prompt = |args: &[&str], stdin: &str| {
        let fixed = ["run", model.arg(), "--json", "--max-tokens", "1"];
        let args: Vec<&str> = fixed.into_iter().chain(args.iter().copied()).collect();
        run_with_stdin(&args, stdin.as_bytes()).data()["prompt"].clone()
    };
    for (args, stdin, expected) in [
        (&["a", "b  c"][..], "", "a b  c"),
        (&["a", "--prompt", "b"], "", "b"),
        (&["-"], "x\ny\n", "x\ny"),
        (&["-", "--prompt", "sum up"], "x\n", "x\n\nsum up"),
        (&["-5", "and", "3"], "", "-5 and 3"),
        (&["--", "--json"], "", "--json"),
    ] {
        assert_eq!(prompt(args, stdin), expected, "{args:?}");
    }
}

#[test]
fn the_system_prompt_and_the_template_are_used() {
    let model = TinyModel::new();
    let tokens = |args: &[&str]| {
        let fixed = ["run", model.arg(), "hi", "--json", "--max-tokens", "1"];
        let data = run(fixed.iter().chain(args)).data();
        data["usage"]["prompt_tokens"].as_u64().expect("a number")
    };
    let rendered = "user: hi\nassistant: ".len() as u64;
    assert_eq!(tokens(&[]), rendered);
    assert_eq!(tokens(&["--system", "go"]), rendered + "system: go\n".len() as u64);
    assert_eq!(tokens(&["--no-chat-template"]), 2);
}

#[test]
fn an_answer_ends_before_a_stop_text() {
    let model = TinyModel::new();
    let args = ["run", model.arg(), "hi", "--json", "--temperature", "0", "--max-tokens", "60"];
    let whole = run(args).data()["response"].as_str().expect("text").to_owned();
    let stop: String = whole.chars().skip(5).take(2).collect();
    let data = run(args.into_iter().chain(["--stop", "\u{1}", "--stop", &stop])).data();
    let at = whole.find(&stop).expect("there");
    assert_eq!(data["response"], whole[..at], "{whole} until {stop}");
    assert_eq!(data["finish_reason"], "stop");
}

#[test]
fn a_cut_answer_says_so_once() {
    let model = TinyModel::new();
    let ran = run(["run", model.arg(), "hi", "--max-tokens", "3"]);
    assert_eq!(ran.stderr, "[cut at --max-tokens 3]\n");
    let ran = run(["run", model.arg(), "hi"]);
    assert_eq!(ran.stderr, "[cut at the context window of 512 tokens]\n");
    assert_eq!(ran.code, Some(0));
}

#[test]
fn verbose_figures_go_to_stderr() {
    let model = TinyModel::new();
    let args = ["run", model.arg(), "hi", "--max-tokens", "3", "--temperature", "0"];
    let plain = run(args);
    let verbose = run(args.into_iter().chain(["--verbose"]));
    assert_eq!(verbose.stdout, plain.stdout);
    for text in [
        "loaded in",
        "prompt: 20 tokens",
        "answer: 3 tokens",
        "tokens/s",
        "first token after",
        "peak memory: ",
    ] {
        assert!(verbose.stderr.contains(text), "{}", verbose.stderr);
    }
}

#[test]
fn ctrl_c_ends_a_single_answer() {
    let model = endless();
    for json in [false, true] {
        let mut command = mlxk();
        command.args(["run", model.arg(), "hi", "--temperature", "1"]).args(LONG);
        command.args(json.then_some("--json"));
        let mut child = command.spawn().expect("mlxk starts");
        let mut stdout = child.stdout.take().expect("piped");
        let mut text = vec![0; 5];
        if json {
            // Nothing is printed before the end; loading takes far less than this.
            std::thread::sleep(Duration::from_secs(2));
            text.clear();
        } else {
            stdout.read_exact(&mut text).expect("an answer");
        }
        interrupt(&child);
        stdout.read_to_end(&mut text).expect("an answer");
        let mut ran: Ran = child.wait_with_output().expect("mlxk ends").into();
        assert_eq!(ran.code, Some(130), "{}", ran.stderr);
        ran.stdout = String::from_utf8(text).expect("UTF-8");
        if json {
            let envelope = ran.envelope();
            assert_eq!(envelope["error"]["type"], "interrupted");
            assert!(envelope["data"]["token_ids"].as_array().is_some_and(|ids| !ids.is_empty()));
        } else {
            assert!(ran.stdout.ends_with('\n'));
            assert_eq!(ran.stderr, "error: interrupted\n");
        }
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let model = endless();
    let mut command = mlxk();
    command.args(["run", model.arg(), "hi", "--temperature", "1"]).args(LONG);
    let mut child = command.spawn().expect("mlxk starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 5]).expect("an answer");
    drop(stdout);
    let start = Instant::now();
    let output = child.wait_with_output().expect("mlxk ends");
    assert_eq!(output.status.code(), None, "ended by the signal");
    assert!(output.stderr.is_empty());
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// What keeps an answer that nobody ends from going on for hours.
pub(crate) const LONG: [&str; 2] = ["--max-tokens", "100000"];

/// A model whose answers, of [`LONG`] tokens, do not end within the test.
pub(crate) fn endless() -> TinyModel {
    let model = TinyModel::new();
    model.edit("config.json", |config| config["max_position_embeddings"] = 1_000_000.into());
    model
}

/// Sends what the terminal sends on Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .stdin(Stdio::null())
        .status()
        .expect("kill starts");
    assert!(status.success());
}
