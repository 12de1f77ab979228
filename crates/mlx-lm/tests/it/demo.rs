//! The trained model, end to end: template, tokens, model, text.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx_lm::ErrorKind;
use mlx_lm::chat::RenderOptions;
use mlx_lm::core::Quantization;
use mlx_lm::files::ModelFiles;
use mlx_lm::generate::{
    ChunkKind, FinishReason, GenerateOptions, KvQuantization, Session, Summary, TokenSession,
};
use mlx_lm::load::{LoadOptions, Loaded};
use serde_json::Value;

const MAX_TOKENS: usize = 160;

fn demo() -> Loaded {
    let files = ModelFiles::embedded("demo", fixtures::demo::FILES);
    mlx_lm::load(&files, &LoadOptions::default()).expect("the demo model loads")
}

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ..GenerateOptions::default() }
}

fn render(loaded: &Loaded, entry: &Value) -> String {
    let template = loaded.tokenizer.chat_template().expect("a chat template");
    let options = RenderOptions {
        add_generation_prompt: true,
        enable_thinking: entry["enable_thinking"].as_bool(),
        ..RenderOptions::default()
    };
    let tools = Some(&entry["tools"]).filter(|tools| !tools.is_null());
    template.render_json(&entry["messages"], tools, &options).expect("the template renders")
}

struct Output {
    reasoning: String,
    answer: String,
    summary: Summary,
}

fn run(loaded: &Loaded, prompt: &str, options: &GenerateOptions) -> Output {
    let ids = loaded.tokenizer.encode(prompt, false).expect("tokens");
    let open = loaded.tokenizer.thinking().is_some_and(|t| t.is_open(prompt));
    let mut session = Session::new(loaded);
    let mut stream = session.generate(&ids, open, options).expect("generates");
    let (mut reasoning, mut answer) = (String::new(), String::new());
    for chunk in stream.by_ref() {
        let chunk = chunk.expect("a chunk");
        assert!(!chunk.text.is_empty());
        match chunk.kind {
            ChunkKind::Reasoning => reasoning.push_str(&chunk.text),
            ChunkKind::Answer => answer.push_str(&chunk.text),
        }
    }
    Output { reasoning, answer, summary: stream.summary() }
}

/// The rule of the generator's README.
fn is_accepted(rule: &Value, answer: &str) -> bool {
    if let Some(text) = rule["equals"].as_str() {
        return answer == text;
    }
    if let Some(parts) = rule["contains"].as_array() {
        return parts.iter().filter_map(Value::as_str).all(|part| answer.contains(part));
    }
    let Some(calls) = rule["tool_calls"].as_array() else { return false };
    let found: Option<Vec<Value>> = answer
        .split("<tool_call>\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("\n</tool_call>").next()?).ok())
        .collect();
    answer.starts_with("<tool_call>") && found.as_ref() == Some(calls)
}

#[test]
fn answers_its_prompts() {
    let loaded = demo();
    let prompts = fixtures::json("mlx-lm/demo_prompts.json");
    let prompts = prompts.as_array().expect("a list");
    assert_eq!(prompts.len(), 100);
    let mut wrong = Vec::new();
    for entry in prompts {
        let output = run(&loaded, &render(&loaded, entry), &options(MAX_TOKENS));
        let rules = entry["accept"].as_array().expect("rules");
        let stops = output.summary.finish_reason == FinishReason::Stop;
        let thinks = entry["enable_thinking"] != Value::Bool(true) || !output.reasoning.is_empty();
        if !stops || !thinks || !rules.iter().any(|rule| is_accepted(rule, &output.answer)) {
            let question = entry["messages"].as_array().and_then(|m| m.last()).cloned();
            wrong.push(format!("{:?}: {:?}", question, output.answer));
        }
    }
    assert!(wrong.len() <= 5, "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn greedy_tokens_are_the_references() {
    let loaded = demo();
    let data = fixtures::json("mlx-lm/demo_greedy.json");
    let cases = data["cases"].as_array().expect("cases");
    assert!(cases.len() >= 8);
    for case in cases {
        let ids = |name: &str| -> Vec<u32> {
            let list = case[name].as_array().expect("ids");
            list.iter().filter_map(Value::as_u64).map(|id| id as u32).collect()
        };
        let (prompt, expected) = (ids("prompt_ids"), ids("output_ids"));
        let text = case["prompt"].as_str().expect("a prompt");
        assert_eq!(loaded.tokenizer.encode(text, false).expect("tokens"), prompt);
        let mut session = TokenSession::new(&loaded.model);
        let tokens: Vec<u32> = session
            .generate(&prompt, &options(expected.len()))
            .expect("generates")
            .collect::<mlx_lm::Result<_>>()
            .expect("tokens");
        assert_eq!(tokens, expected, "{text}");
    }
}

fn question() -> Value {
    serde_json::json!({
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "tools": null,
        "enable_thinking": false,
    })
}

#[test]
fn packed_keys_and_values_answer_too() {
    let loaded = demo();
    let prompt = render(&loaded, &question());
    let ids = loaded.tokenizer.encode(&prompt, false).expect("tokens");
    let packed = |bits, group_size, start| {
        let format = Quantization { bits, group_size, ..Quantization::default() };
        let kv_quantization = Some(KvQuantization { format, start });
        GenerateOptions { kv_quantization, prefill_step: 16, ..options(MAX_TOKENS) }
    };
    // From the first token on, and from the middle of the prompt and of the answer; 5 bits, which no
    // kernel reads, too.
    for (bits, start) in [(8, 0), (8, 20), (8, ids.len() + 3), (5, 0), (4, ids.len())] {
        let output = run(&loaded, &prompt, &packed(bits, 64, start));
        assert_eq!(output.answer, "The capital of France is Paris.", "{bits} bits from {start}");
    }
    // A head of 64 has no group of 128, which shows where packing starts.
    let mut session = TokenSession::new(&loaded.model);
    let error = session.generate(&ids, &packed(8, 128, 0)).err().expect("no such groups");
    assert!(error.to_string().contains("rows of 64"), "{error}");
    let later = packed(8, 128, ids.len() + 3);
    let tokens: Vec<_> = session.generate(&ids, &later).expect("starts").collect();
    let n_good = tokens.iter().take_while(|token| token.is_ok()).count();
    assert!(n_good == 2 && tokens.len() == 3, "{tokens:?}");
}

#[test]
fn ends_where_it_is_told_to() {
    let loaded = demo();
    let prompt = render(&loaded, &question());
    let whole = run(&loaded, &prompt, &options(MAX_TOKENS));
    assert_eq!(whole.answer, "The capital of France is Paris.");
    assert_eq!(whole.summary.finish_reason, FinishReason::Stop);
    let n = whole.summary.generation_tokens;
    assert_eq!(whole.summary.token_ids.len(), n + 1, "the end token is counted apart");

    let cut = run(&loaded, &prompt, &options(3));
    assert_eq!(cut.summary.finish_reason, FinishReason::Length);
    assert_eq!(cut.summary.token_ids, whole.summary.token_ids[..3]);
    assert!(whole.answer.starts_with(&cut.answer));

    let stopped = run(
        &loaded,
        &prompt,
        &GenerateOptions { stop: vec!["of Fr".to_owned()], ..options(MAX_TOKENS) },
    );
    assert_eq!(stopped.answer, "The capital ");
    assert_eq!(stopped.summary.finish_reason, FinishReason::Stop);
}

#[test]
fn a_cancelled_answer_leaves_the_session_usable() {
    let loaded = demo();
    let prompt = render(&loaded, &question());
    let ids = loaded.tokenizer.encode(&prompt, false).expect("tokens");
    let flag = Arc::new(AtomicBool::new(false));
    let options = GenerateOptions { cancel: Some(Arc::clone(&flag)), ..options(MAX_TOKENS) };
    let mut session = Session::new(&loaded);
    let mut stream = session.generate(&ids, false, &options).expect("generates");
    let first = stream.next().expect("a chunk").expect("a chunk");
    flag.store(true, Ordering::Relaxed);
    let rest: usize = stream.by_ref().count();
    assert!(rest <= 1, "only what was held back still comes");
    assert_eq!(stream.summary().finish_reason, FinishReason::Cancelled);
    assert!("The capital of France is Paris.".starts_with(&first.text));

    let cancelled = session.generate(&[&ids[..], &ids[..]].concat(), false, &options).err();
    assert_eq!(cancelled.expect("cancelled before the first token").kind(), ErrorKind::Cancelled);

    flag.store(false, Ordering::Relaxed);
    let mut stream = session.generate(&ids, false, &options).expect("generates");
    let answer: String = stream.by_ref().map(|chunk| chunk.expect("a chunk").text).collect();
    assert_eq!(answer, "The capital of France is Paris.");
    assert!(stream.summary().cached_tokens > 0, "the prompt was still there");
}

#[test]
fn thinking_is_apart_from_the_answer() {
    let loaded = demo();
    let mut entry = question();
    entry["enable_thinking"] = Value::Bool(true);
    let output = run(&loaded, &render(&loaded, &entry), &options(MAX_TOKENS));
    assert!(!output.reasoning.trim().is_empty());
    assert_eq!(output.answer, "The capital of France is Paris.");
    assert!(!output.answer.contains("think>") && !output.reasoning.contains("think>"));
}
