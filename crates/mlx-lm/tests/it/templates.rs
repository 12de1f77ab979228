//! Chat templates against transformers.

use std::fs;

use mlx_lm::ErrorKind;
use mlx_lm::chat::{ChatTemplate, LocalTime, Message, RenderOptions};
use mlx_lm::files::ModelFiles;
use mlx_lm::tokenizer::{Tokenizer, TokenizerOptions};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn template(value: &Value) -> ChatTemplate {
    match value {
        Value::String(source) => ChatTemplate::new(source.as_str()),
        Value::Object(map) => {
            ChatTemplate::named(map.iter().map(|(name, source)| (name, source.as_str().unwrap())))
        }
        _ => panic!("not a template: {value}"),
    }
}

fn options(variables: &Value) -> RenderOptions {
    let mut extra = variables.as_object().unwrap().clone();
    let mut take = |name: &str| extra.shift_remove(name).and_then(|value| value.as_bool());
    RenderOptions {
        add_generation_prompt: take("add_generation_prompt").unwrap_or(false),
        continue_final_message: take("continue_final_message").unwrap_or(false),
        enable_thinking: take("enable_thinking"),
        now: LocalTime::new((2026, 3, 5), (7, 8, 9)),
        extra,
    }
}

/// Checks one file of reference renderings; `None` stands for what only has to fail.
fn check_template(file: &Value, name: &str, problems: &mut Vec<String>) {
    let special_tokens = file["special_tokens"].as_object().unwrap().clone();
    let mut template = template(&file["template"]);
    template = template.with_special_tokens(special_tokens);
    for (at, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let result =
            template.render_json(&case["messages"], Some(&case["tools"]), &options(&case["options"]));
        let problem = match (result, &case["text"]) {
            (Ok(text), Value::String(expected)) if text == *expected => continue,
            (Ok(text), Value::String(expected)) => first_difference(&text, expected),
            (Ok(text), _) => format!("should fail with {}, but is {text:?}", case["error"]),
            (Err(error), Value::String(_)) => format!("failed: {error}"),
            (Err(error), _) => match case["error"].as_str() {
                Some(message) if !error.to_string().ends_with(message) => {
                    format!("failed with {error:?}, not {message:?}")
                }
                _ => continue,
            },
        };
        problems.push(format!("{name} {at}: {problem}"));
    }
}

fn first_difference(text: &str, expected: &str) -> String {
    let (mut ours, mut theirs) = (text.split_inclusive('\n'), expected.split_inclusive('\n'));
    loop {
        match (ours.next(), theirs.next()) {
            (a, b) if a == b => {}
            (a, b) => return format!("\n  ours   {a:?}\n  theirs {b:?}"),
        }
    }
}

#[test]
fn templates_render_as_in_transformers() {
    let mut problems = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(fixtures::path("mlx-lm/templates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        check_template(&fixtures::json(&format!("mlx-lm/templates/{name}")), &name, &mut problems);
        files += 1;
    }
    assert!(files > 20);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
