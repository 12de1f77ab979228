//! SentencePiece models and rank files of tiktoken against the libraries that they are for.

use std::fs;
use std::path::Path;

use mlx_lm::files::ModelFiles;
use mlx_lm::tokenizer::Tokenizer;
use mlx_lm::{ErrorKind, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::tokenizers::{ids, stream};

/// Each kind with its file.
const KINDS: [(&str, &str); 9] = [
    ("llama", "tokenizer.model"),
    ("llama_legacy", "tokenizer.model"),
    ("gemma", "tokenizer.model"),
    ("placeholders", "tokenizer.model"),
    ("t5", "spiece.model"),
    ("unigram_bytes", "tokenizer.model"),
    ("kimi", "tiktoken.model"),
    ("qwen", "qwen.tiktoken"),
    ("glm", "tokenizer.model"),
];

fn load(kind: &str) -> Tokenizer {
    let files = ModelFiles::directory(fixtures::path(&format!("mlx-lm/tokenizer_models/{kind}")));
    Tokenizer::load(&files.unwrap()).unwrap()
}

fn for_each_case(check: impl Fn(&str, &Tokenizer, &str, &Value)) {
    for (kind, _) in KINDS {
        let tokenizer = load(kind);
        let cases = fixtures::json(&format!("mlx-lm/tokenizer_models/{kind}/cases.json"));
        for case in cases.as_array().unwrap() {
            check(kind, &tokenizer, case["text"].as_str().unwrap(), case);
        }
    }
}

#[test]
fn text_becomes_the_same_tokens() {
    for_each_case(|kind, tokenizer, text, case| {
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["plain"]), "{kind} {text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{kind} {text:?}");
    });
}

#[test]
fn tokens_become_the_same_text_at_once_and_streamed() {
    for_each_case(|kind, tokenizer, text, case| {
        let ids = ids(&case["plain"]);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"], "{kind} {text:?}");
        assert_eq!(stream(tokenizer, &ids), case["decoded"], "{kind} {text:?}");
    });
}

#[test]
fn special_tokens_come_from_the_model_and_the_files_beside_it() {
    let check = |kind: &str, special: Value, ends: &[&str]| {
        let tokenizer = load(kind);
        for (name, token) in special.as_object().unwrap() {
            assert_eq!(tokenizer.special_token(name), token.as_str(), "{kind} {name}");
        }
        let ends: Vec<_> = ends.iter().map(|token| tokenizer.token_to_id(token).unwrap()).collect();
        assert_eq!(json!(tokenizer.eos_token_ids()), json!(ends), "{kind}");
    };
    let llama = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    check("llama", llama.clone(), &["</s>"]);
    check("llama_legacy", llama, &["</s>"]);
    check(
        "gemma",
        json!({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
        &["<eos>"],
    );
    check("t5", json!({"bos_token": null, "eos_token": "</s>", "pad_token": "<pad>"}), &["</s>"]);
    check("unigram_bytes", json!({"bos_token": "<s>", "pad_token": null}), &["</s>"]);
    check("kimi", json!({"bos_token": "[BOS]", "eos_token": "[EOS]"}), &["[EOS]"]);
    check("qwen", json!({"bos_token": null, "eos_token": "<|endoftext|>"}), &["<|endoftext|>"]);

    let legacy = load("llama_legacy");
    let first = legacy.token_to_id("<|first|>").unwrap();
    assert!(legacy.special_ids().contains(&first));
    assert!(!legacy.special_ids().contains(&legacy.token_to_id("<sep>").unwrap()));
    assert_eq!(legacy.token_to_id("<|second|>"), Some(first + 3));
    assert_eq!(legacy.vocab_size(), first as usize + 4);
    assert_eq!(load("placeholders").token_to_id("[UNUSED_1]"), None);
    let kimi = load("kimi");
    let first = kimi.token_to_id("[BOS]").unwrap();
    assert_eq!(kimi.id_to_token(first + 255), Some(format!("<|reserved_token_{}|>", first + 255)));
}

fn load_files(files: &[(&str, &[u8])]) -> Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap())
}

fn read(kind: &str, name: &str) -> Vec<u8> {
    let dir = fixtures::path(&format!("mlx-lm/tokenizer_models/{kind}"));
    fs::read(Path::new(&dir).join(name)).unwrap()
}

#[test]
fn files_are_tried_in_their_order() {
    let json = fs::read(fixtures::path("mlx-lm/tokenizers/qwen/tokenizer.json")).unwrap();
    let (spm, t5) = (read("llama", "tokenizer.model"), read("t5", "spiece.model"));
    let (kimi, config) = (read("kimi", "tiktoken.model"), read("kimi", "tokenizer_config.json"));
    let all: [(&str, &[u8]); 4] = [
        ("tokenizer.json", &json),
        ("tokenizer.model", &spm),
        ("spiece.model", &t5),
        ("tiktoken.model", &kimi),
    ];
    let size = |files: &[(&str, &[u8])]| load_files(files).unwrap().vocab_size();
    assert_eq!(size(&all), size(&all[..1]));
    assert_eq!(size(&all[1..]), size(&all[1..2]));
    assert_eq!(size(&all[2..]), size(&all[2..3]));
    let other = ("a.tiktoken", &b"damaged"[..]);
    assert_eq!(
        size(&[all[3], other, ("tokenizer_config.json", &config)]),
        load("kimi").vocab_size()
    );
}

#[test]
fn what_no_file_says_is_an_error_with_a_hint() {
    let qwen = read("qwen", "qwen.tiktoken");
    let spm = read("llama", "tokenizer.model");
    let check = |files: &[(&str, &[u8])], kind: ErrorKind, part: &str| {
        let error = load_files(files).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.hints().is_empty(), "{error}");
    };
    check(
        &[("config.json", b"{}")],
        ErrorKind::NotFound,
        "spiece.model, tiktoken.model and *.tiktoken",
    );
    check(&[("x.tiktoken", &qwen)], ErrorKind::Unsupported, "Python code");
    let other = br#"{"tokenizer_class": "NewTokenizer"}"#;
    check(
        &[("x.tiktoken", &qwen), ("tokenizer_config.json", other)],
        ErrorKind::Unsupported,
        "NewTokenizer",
    );
    for bytes in
        [&b""[..], b"\n", b"x", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", &spm[..spm.len() - 1]]
    {
        check(&[("tokenizer.model", bytes)], ErrorKind::Format, "tokenizer.model");
    }
    let qwen_config: (&str, &[u8]) = ("config.json", br#"{"model_type": "qwen"}"#);
    let text = String::from_utf8(qwen).unwrap();
    for (damaged, part) in [
        (text.replacen("AA== 0\n", "", 1), "rank 0"),
        (text.replacen(" 300\n", " 301\n", 1), "rank 300"),
        (text.replacen(" 300\n", " x\n", 1), "line 301"),
        (text.replacen(" 300\n", " 300 1\n", 1), "line 301"),
        (text.replacen("AA== 0\n", "AAA= 0\n", 1), "byte 0x00"),
        (text.replacen("AQ== 1\n", "AA== 1\n", 1), "twice"),
        (String::new(), "byte 0x00"),
    ] {
        assert_ne!(damaged, text);
        check(&[("x.tiktoken", damaged.as_bytes()), qwen_config], ErrorKind::Format, part);
    }
    // A number far from all others would make as many tokens.
    let far = json!({"added_tokens_decoder": {"4000000000": {"content": "<far>"}}}).to_string();
    check(
        &[("tokenizer.model", &spm), ("tokenizer_config.json", far.as_bytes())],
        ErrorKind::Format,
        "<far>",
    );
}

#[test]
fn vocabularies_that_take_too_long_are_refused() {
    let varint = |mut n: usize| {
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    };
    let message = |field: u8, content: &[u8]| {
        [&[field << 3 | 2][..], &varint(content.len()), content].concat()
    };
    let piece = |text: &str, kind: u8| {
        message(1, &[&message(1, text.as_bytes())[..], &[0x18, kind]].concat())
    };
    let bpe = message(2, &[0x18, 2]);
    let model = |texts: &[String]| {
        let pieces = texts.iter().map(|text| piece(text, 1));
        [bpe.clone(), piece("<unk>", 2)].into_iter().chain(pieces).flatten().collect::<Vec<u8>>()
    };
    let nested: Vec<String> = (1..600).map(|n| "a".repeat(n)).collect();
    for (texts, part) in [(&["a".repeat(5000)][..], "5000 bytes"), (&nested[..], "too many ways")] {
        let error = load_files(&[("tokenizer.model", &model(texts))]).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(load_files(&[("tokenizer.model", &model(&nested[..50]))]).is_ok());
}

/// Loads a kind with one of its files replaced.
fn load_changed(kind: &str, name: &str, bytes: &[u8]) -> Result<Tokenizer> {
    let dir = fixtures::path(&format!("mlx-lm/tokenizer_models/{kind}"));
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    fs::write(to.path().join(name), bytes).unwrap();
    Tokenizer::load(&ModelFiles::directory(to.path()).unwrap())
}

proptest! {
    #[test]
    fn damaged_files_are_an_error_or_work(
        (kind, name) in proptest::sample::select(&KINDS[..]),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = read(kind, name);
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match load_changed(kind, name, &bytes) {
            Ok(tokenizer) => {
                for text in ["", "Hello é ½ <sep> \0 世界", "  a  "] {
                    if let Ok(ids) = tokenizer.encode(text, true) {
                        stream(&tokenizer, &ids);
                        let _ = tokenizer.decode(&ids, false);
                    }
                }
            }
            Err(e) => {
                let kinds = [ErrorKind::Format, ErrorKind::Unsupported];
                prop_assert!(kinds.contains(&e.kind()), "{}", e);
            }
        }
    }

    #[test]
    fn any_bytes_as_a_model_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(load_files(&[("tokenizer.model", &bytes)]).is_err());
        let config = br#"{"tokenizer_class": "TikTokenTokenizer"}"#;
        let files: [(&str, &[u8]); 2] = [("tiktoken.model", &bytes), ("tokenizer_config.json", config)];
        prop_assert!(load_files(&files).is_err());
    }

    #[test]
    fn any_text_comes_back(
        kind in proptest::sample::select(&["llama", "gemma", "unigram_bytes", "kimi", "glm"][..]),
        text in "(\\PC|[ \\n\\t\u{2581}é]){0,40}",
    ) {
        // The one character that SentencePiece takes for itself.
        let expected = match kind {
            "kimi" | "glm" => text.clone(),
            _ => text.replace('\u{2581}', " "),
        };
        let tokenizer = load(kind);
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected.clone(), "{}", kind);
        prop_assert_eq!(stream(&tokenizer, &ids), expected, "{}", kind);
    }
}
