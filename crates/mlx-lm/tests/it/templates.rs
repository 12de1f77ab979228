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
        let result = template.render_json(
            &case["messages"],
            Some(&case["tools"]),
            &options(&case["options"]),
        );
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

fn render(source: &str, messages: &[Message]) -> mlx_lm::Result<String> {
    ChatTemplate::new(source).render(messages, None, &RenderOptions::default())
}

#[test]
fn errors_name_the_line_and_a_way_out() {
    let messages = [Message::user("hi")];
    for (source, expected) in [
        (
            "a\n{% if x %}",
            "chat template, line 2: syntax error: unexpected end of input, expected end of block",
        ),
        ("a\nb\n{{ nothing.at.all }}", "chat template, line 3: undefined value"),
        (
            "{{ 'a'.nope() }}",
            "chat template, line 1: unknown method: string has no method named nope",
        ),
        (
            "\n{{ raise_exception('No tools, please') }}",
            "chat template: refuses the conversation: No tools, please",
        ),
        (
            "{% macro f() %}{{ raise_exception('deep') }}{% endmacro %}{{ f() }}",
            "chat template: refuses the conversation: deep",
        ),
        ("{{ messages | nope }}", "chat template, line 1: unknown filter: filter nope is unknown"),
    ] {
        let error = render(source, &messages).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Template);
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.hints(), ["--no-chat-template sends the prompt as it is"]);
    }
    assert_eq!(ChatTemplate::new("{% if %}").check().unwrap_err().kind(), ErrorKind::Template);
    assert!(ChatTemplate::new("{{ 1 }}").check().is_ok());
}

#[test]
fn a_template_cannot_run_away() {
    let messages = [Message::user("hi")];
    let check = |source: &str, expected: &str| {
        let error = render(source, &messages).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Template, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    check(nested, "takes too many steps");
    check("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion limit");
    let grow = "{% set ns = namespace(x='0123456789' * 1000000) %}\
                {% for i in range(100) %}{{ ns.x }}{% endfor %}";
    check(grow, "writes more than 268435456 bytes");
    check("{{ range(1000000000) | list }}", "range has too many elements");
}

#[test]
fn a_template_cannot_exhaust_the_stack() {
    let messages = [Message::user("hi")];
    for (first, repeated, last) in [
        ("{{ 1", "+1", " }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ 'a'", "|e", " }}"),
        ("{{ a", ".b", " }}"),
        ("{{ 1", " if 1 else 1", " }}"),
        ("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
        ("{{ ", "(", "1 }}"),
        ("", "{% if 1 %}", ""),
    ] {
        let count = 60_000 / repeated.len();
        let _ = render(&format!("{first}{}{last}", repeated.repeat(count)), &messages);
    }
    for end in ["{{ ns.x }}", "{{ ns.x ~ '' }}", "{{ ns.x == ns.y }}", "{{ ns.x | tojson }}"] {
        let source = format!(
            "{{% set ns = namespace(x=[], y=[]) %}}{{% for i in range(20000) %}}\
             {{% set ns.x = [ns.x] %}}{{% set ns.y = [ns.y] %}}{{% endfor %}}{end}"
        );
        let _ = render(&source, &messages);
    }
    let error = render(&" ".repeat(300_000), &messages).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn long_conversations_have_more_steps() {
    let source = "{% for a in messages %}{% for b in messages[loop.index:] %}\
                  {% if b.role == 'assistant' and a.content %}{% endif %}{% endfor %}{% endfor %}";
    let messages = vec![Message::user("hi"); 500];
    assert_eq!(render(source, &messages).unwrap(), "");
}

#[test]
fn a_value_that_holds_itself_is_written_with_an_end() {
    let source =
        "{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns }}{{ ns | string | length > 0 }}";
    assert!(render(source, &[Message::user("hi")]).unwrap().contains("..."));
    let source = "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns | tojson }}";
    assert!(render(source, &[Message::user("hi")]).is_err());
}

#[test]
fn conversations_that_make_no_sense_are_refused() {
    let template = ChatTemplate::new("{{ messages }}");
    let check = |messages: Value, options: RenderOptions| {
        let error = template.render_json(&messages, None, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    };
    check(json!([]), RenderOptions::default());
    check(json!({}), RenderOptions::default());
    check(json!(["text"]), RenderOptions::default());
    let both = RenderOptions {
        add_generation_prompt: true,
        continue_final_message: true,
        ..RenderOptions::default()
    };
    check(json!([{"role": "user", "content": "x"}]), both);
    let files = ModelFiles::embedded("m", &[]);
    let config = json!({"chat_template_type": "deepseek_v32"});
    let code = ChatTemplate::from_files(&files, config.as_object().unwrap()).unwrap().unwrap();
    let error = code.render(&[Message::user("x")], None, &RenderOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("deepseek_v32"), "{error}");
    let named = ChatTemplate::named([("rag", "x")]);
    let error = named.render(&[Message::user("x")], None, &RenderOptions::default()).unwrap_err();
    assert!(error.to_string().contains("[\"rag\"]"), "{error}");
}

#[test]
fn messages_keep_fields_beyond_role_and_content() {
    let json = json!({"role": "assistant", "tool_calls": [{"id": "1"}], "reasoning": "r"});
    let message: Message = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&message).unwrap(), json);
    let source = "{{ messages[0].tool_calls[0].id }}{{ messages[0].reasoning_content }}\
                  {{ messages[0].thinking }}{{ messages[0].content is defined }}";
    assert_eq!(render(source, &[message]).unwrap(), "1rrFalse");
    let list = [Message::system("s"), Message::user("u"), Message::assistant("a")];
    let source = "{% for m in messages %}{{ m.role }}={{ m.content }} {% endfor %}";
    assert_eq!(render(source, &list).unwrap(), "system=s user=u assistant=a ");
}

#[test]
fn a_models_files_are_searched_in_the_order_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let find = |config: Value| {
        let files = ModelFiles::directory(dir.path()).unwrap();
        let template = ChatTemplate::from_files(&files, config.as_object().unwrap());
        template.map(|template| {
            template.map(|t| (t.source(false).to_owned(), t.source(true).to_owned()))
        })
    };
    let both = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    write("config.json", "{}");
    assert_eq!(find(json!({})).unwrap(), None);
    assert_eq!(find(json!({"chat_template": null})).unwrap(), None);
    write("chat_template.json", r#"{"chat_template": "separate json"}"#);
    assert_eq!(find(json!({})).unwrap(), both("separate json", "separate json"));
    assert_eq!(find(json!({"chat_template": "config"})).unwrap(), both("config", "config"));
    let named = json!({"chat_template": [
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"},
    ]});
    assert_eq!(find(named).unwrap(), both("plain", "tools"));
    for wrong in [json!(1), json!([{"name": "default"}]), json!({"default": 1})] {
        let error = find(json!({"chat_template": wrong})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format);
    }
    write("chat_template.jinja", "jinja");
    assert_eq!(find(json!({"chat_template": "config"})).unwrap(), both("jinja", "jinja"));
    fs::create_dir(dir.path().join("chat_templates")).unwrap();
    write("chat_templates/tool_use.jinja", "tool file");
    assert_eq!(find(json!({"chat_template": "config"})).unwrap(), both("jinja", "tool file"));
}

#[test]
fn the_tokenizer_gives_its_template_special_tokens_and_thinking() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixtures::path("mlx-lm/tokenizers/qwen").join(name), dir.path().join(name))
            .unwrap();
    }
    fs::write(dir.path().join("chat_template.jinja"), "{{ eos_token }} {{ enable_thinking }}")
        .unwrap();
    let files = ModelFiles::directory(dir.path()).unwrap();
    let render = |tokenizer: &Tokenizer, enable_thinking| {
        let options = RenderOptions { enable_thinking, ..RenderOptions::default() };
        tokenizer.chat_template().unwrap().render(&[Message::user("x")], None, &options).unwrap()
    };
    let tokenizer = Tokenizer::load(&files).unwrap();
    assert_eq!(render(&tokenizer, None), "<|im_end|> True");
    assert_eq!(render(&tokenizer, Some(false)), "<|im_end|> False");
    let chat_template = Some("own {{ pad_token }}".to_owned());
    let options = TokenizerOptions { chat_template, ..TokenizerOptions::default() };
    let tokenizer = Tokenizer::load_with(&files, options).unwrap();
    assert_eq!(render(&tokenizer, None), "own <|endoftext|>");
}

#[test]
fn a_prompt_that_opens_its_reasoning_is_recognized() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixtures::path("mlx-lm/tokenizers/qwen").join(name), dir.path().join(name))
            .unwrap();
    }
    let tokenizer = Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap()).unwrap();
    let thinking = tokenizer.thinking().unwrap();
    for (prompt, open) in [
        ("<|im_start|>assistant\n<think>\n", true),
        ("<|im_start|>assistant\n<think>\nsome thoughts", true),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", false),
        ("<|im_start|>assistant\n", false),
        ("<|im_start|>user\nwhat is <think>?<|im_end|>\n<|im_start|>assistant\n", false),
        ("<|im_start|>user\n</think><|im_end|>\n<|im_start|>assistant\n<think>\n", true),
    ] {
        assert_eq!(thinking.is_open(prompt), open, "{prompt}");
    }
}

#[test]
fn a_time_is_written_as_it_is_given() {
    assert!(LocalTime::new((2026, 2, 30), (0, 0, 0)).is_none());
    let epoch = LocalTime::from_system_time(std::time::UNIX_EPOCH, 90).unwrap();
    assert_eq!(epoch, LocalTime::new((1970, 1, 1), (1, 30, 0)).unwrap());
    let template = ChatTemplate::new("{{ strftime_now('%H:%M') }}");
    let options = RenderOptions { now: Some(epoch), ..RenderOptions::default() };
    assert_eq!(template.render(&[Message::user("x")], None, &options).unwrap(), "01:30");
    let today = render("{{ strftime_now('%Y') | int > 2024 }}", &[Message::user("x")]).unwrap();
    assert_eq!(today, "True");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Short enough that serde_json reads the nearest number.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 1000.0)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((".{0,4}", inner), 0..5)
                .prop_map(|entries| Value::Object(Map::from_iter(entries))),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_as_a_template_does_not_panic(source in ".{0,60}") {
        let _ = render(&source, &[Message::user("x")]);
    }

    #[test]
    fn any_template_tokens_do_not_panic(
        source in "(\\{%|%\\}|\\{\\{|\\}\\}|\\{#|#\\}|-|\\+| |if|for|in|set|endif|endfor|x|messages|generation|endgeneration|'|\\[|\\]|::|-1|\\||tojson|\\(|\\)|~|==|1){0,30}",
    ) {
        let _ = render(&source, &[Message::user("x")]);
    }

    #[test]
    fn tojson_writes_what_json_reads(value in any_json()) {
        for filter in ["tojson", "tojson(indent=2)", "tojson(ensure_ascii=true)"] {
            let template = ChatTemplate::new(format!("{{{{ value | {filter} }}}}"));
            let extra = Map::from_iter([("value".to_owned(), value.clone())]);
            let options = RenderOptions { extra, ..RenderOptions::default() };
            let text = template.render(&[Message::user("x")], None, &options).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value.clone());
        }
    }
}
