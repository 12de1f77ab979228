//! Every kind of tokenizer against transformers and mlx-lm.

use std::fs;

use mlx_lm::files::ModelFiles;
use mlx_lm::tokenizer::{Tokenizer, TokenizerOptions};
use mlx_lm::{ErrorKind, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

const KINDS: [&str; 7] = ["qwen", "llama3", "gpt2", "llama2", "gemma", "unigram", "wordpiece"];

fn load(kind: &str) -> Tokenizer {
    let files = ModelFiles::directory(fixtures::path(&format!("mlx-lm/tokenizers/{kind}")));
    Tokenizer::load(&files.unwrap()).unwrap()
}

fn reference(kind: &str) -> Value {
    fixtures::json(&format!("mlx-lm/tokenizers/{kind}/cases.json"))
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Runs `check` on every reference case of every tokenizer.
fn for_each_case(check: impl Fn(&str, &Tokenizer, &Value)) {
    for kind in KINDS {
        let tokenizer = load(kind);
        for case in reference(kind)["cases"].as_array().unwrap() {
            check(kind, &tokenizer, case);
        }
    }
}

pub(crate) fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut detokenizer = tokenizer.detokenizer();
    let mut text = String::new();
    for id in ids {
        text.push_str(detokenizer.add(*id));
    }
    text.push_str(detokenizer.finish());
    assert_eq!(text, detokenizer.text());
    text
}

#[test]
fn text_becomes_the_same_tokens() {
    for_each_case(|kind, tokenizer, case| {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{kind} {text:?}");
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["plain"]), "{kind} {text:?}");
    });
}

#[test]
fn tokens_become_the_same_text() {
    for_each_case(|kind, tokenizer, case| {
        let ids = ids(&case["ids"]);
        let text = &case["text"];
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"], "{kind} {text}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["skipped"], "{kind} {text}");
    });
}

#[test]
fn streamed_text_is_the_decoded_text_wherever_it_is_cut() {
    for_each_case(|kind, tokenizer, case| {
        let ids = ids(&case["plain"]);
        for (len, expected) in case["streamed"].as_array().unwrap().iter().enumerate() {
            let text = stream(tokenizer, &ids[..len]);
            assert_eq!(text, *expected, "{kind} {} {:?}", case["text"], &ids[..len]);
        }
    });
}

#[test]
fn the_files_beside_the_tokenizer_say_what_is_special() {
    for kind in KINDS {
        let tokenizer = load(kind);
        let facts = &reference(kind)["facts"];
        assert_eq!(
            tokenizer.vocab_size(),
            facts["vocab_size"].as_u64().unwrap() as usize,
            "{kind}"
        );
        assert_eq!(json!(tokenizer.special_ids()), facts["special_ids"], "{kind}");
        assert_eq!(json!(tokenizer.eos_token_ids()), facts["eos_token_ids"], "{kind}");
        for (name, token) in facts["special"].as_object().unwrap() {
            assert_eq!(tokenizer.special_token(name), token.as_str(), "{kind} {name}");
        }
        assert_eq!(tokenizer.bos_token().is_some(), facts["special"]["bos_token"].is_string());
        let thinking = tokenizer.thinking();
        assert_eq!(json!(thinking.map(|t| t.start())), facts["think_start"], "{kind}");
        assert_eq!(json!(thinking.map(|t| t.start_ids())), facts["think_start_tokens"], "{kind}");
    }
}

#[test]
fn tokens_and_ids_name_each_other() {
    let tokenizer = load("qwen");
    let id = tokenizer.token_to_id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.id_to_token(id).as_deref(), Some("<|im_end|>"));
    assert_eq!(tokenizer.token_to_id("<|no such token|>"), None);
    assert_eq!(tokenizer.id_to_token(u32::MAX), None);
}

#[test]
fn ids_outside_the_vocabulary_have_no_text() {
    for kind in KINDS {
        let tokenizer = load(kind);
        let mut ids = tokenizer.encode("a b", false).unwrap();
        let text = tokenizer.decode(&ids, false).unwrap();
        ids.insert(1, 1_000_000);
        ids.push(u32::MAX);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{kind}");
        assert_eq!(stream(&tokenizer, &ids), text, "{kind}");
    }
}

#[test]
fn text_that_is_certain_is_not_held_back() {
    for kind in ["qwen", "llama2", "gemma", "unigram"] {
        let tokenizer = load(kind);
        let ids = tokenizer.encode("The dog and the fox", false).unwrap();
        let mut detokenizer = tokenizer.detokenizer();
        let segments: Vec<_> = ids.iter().map(|id| detokenizer.add(*id).to_owned()).collect();
        let silent = segments.iter().filter(|text| text.is_empty()).count();
        // Clean-up of spaces waits for the end of a word.
        assert!(silent <= if kind == "unigram" { ids.len() - 3 } else { 1 }, "{kind} {segments:?}");
    }
}

#[test]
fn a_detokenizer_can_be_used_again_after_it_finished() {
    for kind in KINDS {
        let tokenizer = load(kind);
        let ids = tokenizer.encode("今天 a", false).unwrap();
        let mut detokenizer = tokenizer.detokenizer();
        for id in &ids[..1] {
            detokenizer.add(*id);
        }
        detokenizer.finish();
        assert_eq!(detokenizer.finish(), "", "{kind}");
    }
}

#[test]
fn end_tokens_come_from_the_caller_and_from_both_configurations() {
    let read = |config: Value, generation: Value, options: TokenizerOptions| {
        let dir = tempfile::tempdir().unwrap();
        copy("llama2", dir.path());
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        fs::write(dir.path().join("generation_config.json"), generation.to_string()).unwrap();
        let files = ModelFiles::directory(dir.path()).unwrap();
        let tokenizer = Tokenizer::load_with(&files, options).unwrap();
        tokenizer.eos_token_ids().iter().copied().collect::<Vec<_>>()
    };
    let none = TokenizerOptions::default;
    assert_eq!(read(json!({"eos_token_id": 7}), json!({}), none()), [2, 7]);
    assert_eq!(
        read(json!({"eos_token_id": 7}), json!({"eos_token_id": [8, 9]}), none()),
        [2, 8, 9]
    );
    assert_eq!(read(json!({"text_config": {"eos_token_id": 5}}), json!([]), none()), [2, 5]);
    assert_eq!(read(json!({"eos_token_id": null}), json!({"eos_token_id": "x"}), none()), [2]);
    let given = TokenizerOptions { eos_token_ids: Some([4].into()), ..none() };
    assert_eq!(read(json!({"eos_token_id": 7}), json!({"eos_token_id": 8}), given), [2, 4]);
}

#[test]
fn end_tokens_that_no_file_names_are_worked_out() {
    let read = |kind: &str, config: Value, model: Value, options: TokenizerOptions| {
        let dir = tempfile::tempdir().unwrap();
        copy(kind, dir.path());
        fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        fs::write(dir.path().join("config.json"), model.to_string()).unwrap();
        let files = ModelFiles::directory(dir.path()).unwrap();
        let tokenizer = Tokenizer::load_with(&files, options).unwrap();
        let ends = tokenizer.eos_token_ids().iter().map(|id| tokenizer.id_to_token(*id).unwrap());
        (ends.collect::<Vec<_>>(), tokenizer.notes().join("; "))
    };
    let none = TokenizerOptions::default;
    let turns = |end: &str| {
        format!(
            "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}{end}\n\
             {{% endfor %}}"
        )
    };
    let chat = json!({"chat_template": turns("<|im_end|>"), "eos_token": "<|endoftext|>"});

    // What the template writes behind an answer, beside the tokenizer's own.
    let null = json!({"eos_token_id": null});
    let (ends, note) = read("qwen", chat.clone(), null.clone(), none());
    assert_eq!(ends, ["<|endoftext|>", "<|im_end|>"]);
    assert!(note.contains("<|im_end|>") && note.contains("chat template"), "{note}");
    let empty = TokenizerOptions { eos_token_ids: Some([].into()), ..none() };
    assert_eq!(read("qwen", chat.clone(), json!({}), empty).0, ends);

    // Nothing is added to what the configuration says, or to what is already there.
    let said = read("qwen", chat.clone(), json!({"eos_token_id": 420}), none());
    assert_eq!(said, (vec!["<|endoftext|>".to_owned()], String::new()));
    let own = json!({"chat_template": turns("<|im_end|>"), "eos_token": "<|im_end|>"});
    assert_eq!(
        read("qwen", own, json!({}), none()),
        (vec!["<|im_end|>".to_owned()], String::new())
    );

    // A template that fails or writes no token there leaves it to the tokens by their names.
    for template in [turns(""), "{{ raise_exception('no') }}".to_owned(), "{% broken".to_owned()] {
        let (ends, note) = read("qwen", json!({"chat_template": template}), null.clone(), none());
        assert_eq!(ends, ["<|im_end|>"]);
        assert!(note.contains("known as such"), "{note}");
    }
    let (ends, note) = read("wordpiece", json!({}), null, none());
    assert_eq!(ends, [""; 0]);
    assert!(note.contains("limit of tokens"), "{note}");
}

#[test]
fn end_tokens_can_be_added_by_number_and_by_text() {
    let mut tokenizer = load("qwen");
    let end = tokenizer.token_to_id("<|endoftext|>").unwrap();
    assert_eq!(tokenizer.add_eos_token("<|endoftext|>").unwrap(), end);
    assert_eq!(tokenizer.add_eos_token("17").unwrap(), 17);
    assert!(tokenizer.eos_token_ids().is_superset(&[end, 17].into()));
    let error = tokenizer.add_eos_token("no such token").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!error.hints().is_empty());
}

#[test]
fn tokens_that_only_older_files_name_are_added() {
    let dir = tempfile::tempdir().unwrap();
    copy("gemma", dir.path());
    let write =
        |name: &str, value: Value| fs::write(dir.path().join(name), value.to_string()).unwrap();
    write("added_tokens.json", json!({"<second>": 501, "<first>": 500}));
    write("special_tokens_map.json", json!({"eos_token": {"content": "<first>", "lstrip": false}}));
    let tokenizer = Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap()).unwrap();
    assert_eq!(tokenizer.token_to_id("<first>"), Some(500));
    assert_eq!(tokenizer.token_to_id("<second>"), Some(501));
    assert_eq!(tokenizer.eos_token(), Some("<first>"));
    assert_eq!(json!(tokenizer.eos_token_ids()), json!([500]));
    assert_eq!(json!(tokenizer.special_ids()), json!([0, 1, 2, 500]));
}

#[test]
fn missing_and_broken_files_say_what_to_do() {
    let check = |files: &[(&str, &str)], kind: ErrorKind, part: &str| {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let error = Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.hints().is_empty(), "{error}");
    };
    check(&[("config.json", "{}")], ErrorKind::NotFound, "tokenizer.json");
    check(&[("tokenizer.model", "x")], ErrorKind::Format, "tokenizer.model");
    check(&[("vocab.json", "{}")], ErrorKind::Unsupported, "vocab.json");
    check(&[("qwen.tiktoken", "x")], ErrorKind::Unsupported, "qwen.tiktoken");
    check(&[("tekken.json", "{}")], ErrorKind::Unsupported, "tekken.json");
    check(&[("tokenizer.json", "{\n \"version\": ]")], ErrorKind::Format, "line 2, column 13");
    check(&[("tokenizer.json", "{}")], ErrorKind::Format, "tokenizer.json");
    check(&[("tokenizer.json", "")], ErrorKind::Format, "tokenizer.json");
}

#[test]
fn embedded_files_make_the_same_tokenizer() {
    let read = |name: &str| {
        let path = fixtures::path("mlx-lm/tokenizers/qwen").join(name);
        &*Box::leak(fs::read(path).unwrap().into_boxed_slice())
    };
    let list: &'static [(&'static str, &'static [u8])] = Box::leak(Box::new([
        ("tokenizer.json", read("tokenizer.json")),
        ("tokenizer_config.json", read("tokenizer_config.json")),
    ]));
    let tokenizer = Tokenizer::load(&ModelFiles::embedded("demo", list)).unwrap();
    let other = load("qwen");
    assert_eq!(tokenizer.vocab_size(), other.vocab_size());
    assert_eq!(tokenizer.eos_token_ids(), other.eos_token_ids());
}

#[test]
fn truncation_and_padding_of_the_file_do_not_apply() {
    let dir = tempfile::tempdir().unwrap();
    copy("qwen", dir.path());
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap()).unwrap();
    let text = "one two three four";
    assert_eq!(tokenizer.encode(text, true).unwrap(), load("qwen").encode(text, true).unwrap());
}

/// Loads a tokenizer of the fixtures with a part of its tokenizer.json replaced.
fn load_with(kind: &str, key: &str, value: Value) -> Result<Tokenizer> {
    let mut json = fixtures::json(&format!("mlx-lm/tokenizers/{kind}/tokenizer.json"));
    json[key] = value;
    load_bytes(json.to_string().as_bytes(), b"{}")
}

#[test]
fn decoders_without_a_way_of_their_own_stream_the_same() {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": false, "use_regex": true});
    let sequence = json!({"type": "Sequence", "decoders": [byte_level]});
    let tokenizer = load_with("qwen", "decoder", sequence).unwrap();
    for case in reference("qwen")["cases"].as_array().unwrap() {
        let ids = ids(&case["plain"]);
        for (len, expected) in case["streamed"].as_array().unwrap().iter().enumerate() {
            assert_eq!(stream(&tokenizer, &ids[..len]), *expected, "{}", case["text"]);
        }
    }
    // Byte tokens in a row, each character complete before the next begins.
    let fallback = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"},
        {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true}]});
    let tokenizer = load_with("llama2", "decoder", fallback).unwrap();
    for text in ["街街京都 family 🇫🇷❤️", "Åäéa街b"] {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(stream(&tokenizer, &ids), tokenizer.decode(&ids, false).unwrap());
        assert_eq!(stream(&tokenizer, &ids), text);
    }
}

#[test]
fn a_post_processor_that_names_a_missing_token_fails_at_once() {
    let template = json!({"type": "TemplateProcessing", "special_tokens": {},
        "single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}], "pair": []});
    let error = load_with("qwen", "post_processor", template).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn a_tokenizer_can_spell_line_breaks() {
    let dir = tempfile::tempdir().unwrap();
    copy("gpt2", dir.path());
    let config = json!({"tokenizer_class": "NewlineTokenizer"}).to_string();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap()).unwrap();
    let ids = tokenizer.encode("a\nb", false).unwrap();
    assert_eq!(ids, load("gpt2").encode("a<n>b", false).unwrap());
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), " a\nb");
}

fn copy(kind: &str, to: &std::path::Path) {
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let from = fixtures::path(&format!("mlx-lm/tokenizers/{kind}")).join(name);
        fs::copy(from, to.join(name)).unwrap();
    }
}

fn load_bytes(bytes: &[u8], config: &[u8]) -> Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), bytes).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap())
}

proptest! {
    #[test]
    fn any_tokens_stream_to_what_they_decode_to(
        kind in proptest::sample::select(&KINDS[..]),
        ids in proptest::collection::vec(0_u32..520, 0..60),
    ) {
        let tokenizer = load(kind);
        let whole = tokenizer.decode(&ids, false).unwrap();
        let text = stream(&tokenizer, &ids);
        // Byte tokens that are no text are replaced differently; see the module.
        let damaged = matches!(kind, "llama2" | "gemma") && whole.contains('\u{fffd}');
        if damaged {
            prop_assert!(text.contains(char::REPLACEMENT_CHARACTER), "{}", text);
        } else {
            prop_assert_eq!(text, whole, "{}", kind);
        }
    }

    #[test]
    fn any_bytes_as_a_tokenizer_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let result = load_bytes(&bytes, b"{}");
        prop_assert!(result.is_err());
    }

    #[test]
    fn a_damaged_tokenizer_is_an_error_or_works(
        kind in proptest::sample::select(&KINDS[..]),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        config in "[ -~]{0,20}",
    ) {
        let mut bytes = fs::read(fixtures::path(&format!("mlx-lm/tokenizers/{kind}/tokenizer.json"))).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = load_bytes(&bytes, config.as_bytes());
        if let Ok(tokenizer) = load_bytes(&bytes, b"{}") {
            let ids = tokenizer.encode("The dog, 今天", true).unwrap_or_default();
            stream(&tokenizer, &ids);
        }
    }
}
