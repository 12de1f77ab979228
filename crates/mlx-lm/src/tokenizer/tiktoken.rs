//! Rank files of tiktoken (`tiktoken.model`, `*.tiktoken`): a token in base64 and its rank, a line
//! each.
//!
//! The rule that splits a text before tokens are merged, and often the special tokens too, are only
//! in Python code beside such a file. That code is not run; [`FAMILIES`] has what it says.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::merges::merges;

/// What the code of a family of tokenizers says.
#[derive(Debug)]
pub(super) struct Family {
    /// Its names in `tokenizer_class` or `auto_map`.
    classes: &'static [&'static str],
    /// The names in `model_type` of models that have no other tokenizer in such a file.
    model_types: &'static [&'static str],
    pattern: &'static str,
    /// Whether text is composed first (Unicode's form C).
    composes: bool,
    special: Special,
    /// The tokens that stand before each text.
    pub(super) before: &'static [&'static str],
    /// The end-of-sequence token where no file names one.
    pub(super) eos: Option<&'static str>,
}

/// Which special tokens follow the ranked ones, where the configuration does not say.
#[derive(Debug)]
enum Special {
    None,
    /// So many, named after their ids.
    Reserved(u32),
    Qwen,
}

/// The rule of OpenAI's cl100k and of Llama 3, with digits in threes.
pub(super) const CL100K: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const FAMILIES: [Family; 4] = [
    // tokenization_kimi.py of Kimi K2, tokenization_moonshot.py of Moonlight: Chinese apart, words
    // split where the case rises.
    Family {
        classes: &["TikTokenTokenizer"],
        model_types: &["kimi", "kimi_k2", "kimi_k25", "kimi_linear", "kimi_vl"],
        pattern: concat!(
            r"[\p{Han}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composes: false,
        special: Special::Reserved(256),
        before: &[],
        eos: None,
    },
    // tokenization_qwen.py of Qwen 1: digits one by one.
    Family {
        classes: &["QWenTokenizer"],
        model_types: &["qwen"],
        pattern: concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composes: true,
        special: Special::Qwen,
        before: &[],
        eos: Some("<|endoftext|>"),
    },
    // tokenization_chatglm.py of GLM-4.
    Family {
        classes: &["ChatGLM4Tokenizer"],
        model_types: &["chatglm"],
        pattern: CL100K,
        composes: false,
        special: Special::None,
        before: &["[gMASK]", "<sop>"],
        eos: Some("<|endoftext|>"),
    },
    // tokenizer.py of Llama 3.
    Family {
        classes: &[],
        model_types: &["llama"],
        pattern: CL100K,
        composes: false,
        special: Special::None,
        before: &[],
        eos: None,
    },
];

/// Finds the family that the configuration names.
pub(super) fn family(
    tokenizer_config: &Map<String, Value>,
    model_type: &str,
) -> Option<&'static Family> {
    // `auto_map` has "file.Class", or one such for each kind of tokenizer.
    let auto = &tokenizer_config.get("auto_map").unwrap_or(&Value::Null)["AutoTokenizer"];
    let class = tokenizer_config.get("tokenizer_class").into_iter().chain([auto, &auto[0]]);
    let classes: Vec<&str> = class
        .filter_map(Value::as_str)
        .map(|class| class.rsplit('.').next().unwrap_or(class))
        .collect();
    let by_class =
        FAMILIES.iter().find(|family| family.classes.iter().any(|class| classes.contains(class)));
    by_class.or_else(|| FAMILIES.iter().find(|family| family.model_types.contains(&model_type)))
}

/// Whether a file begins as a rank file does.
pub(super) fn is_rank_file(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'\n').next();
    first.and_then(|line| rank_line(line).ok().flatten()).is_some()
}

/// Reads a rank file. `numbered` are the tokens that the configuration has ids for.
pub(super) fn load(
    bytes: &[u8],
    family: &Family,
    numbered: &[(u32, AddedToken)],
) -> Result<(Tokenizer, Vec<(u32, AddedToken)>), String> {
    let tokens = ranked_tokens(bytes)?;
    let n_tokens = tokens.len() as u32;
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let ids: HashMap<&str, u32> = texts.iter().copied().zip(0..).collect();
    let merged: Vec<&str> = texts.iter().copied().filter(|t| t.chars().nth(1).is_some()).collect();
    let merges = merges(&merged, &ids)?;
    let vocab: Vocab = tokens.iter().cloned().zip(0..).collect();
    let model = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(true).build();
    let mut inner = Tokenizer::new(model.map_err(|e| e.to_string())?);
    let steps = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": family.pattern}, "behavior": "Isolated",
            "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": false},
    ]});
    inner.with_pre_tokenizer(Some(from_json::<PreTokenizerWrapper>(steps)?));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    inner.with_decoder(Some(from_json::<DecoderWrapper>(decoder)?));
    if family.composes {
        let composed = from_json::<NormalizerWrapper>(json!({"type": "NFC"}))?;
        inner.with_normalizer(Some(composed)).map_err(|e| e.to_string())?;
    }
    Ok((inner, special_tokens(n_tokens, &family.special, numbered)))
}

fn from_json<T: serde::de::DeserializeOwned>(json: Value) -> Result<T, String> {
    serde_json::from_value(json).map_err(|e| e.to_string())
}

/// Joins the special tokens of the configuration with those that the family has by itself.
fn special_tokens(
    n_tokens: u32,
    special: &Special,
    numbered: &[(u32, AddedToken)],
) -> Vec<(u32, AddedToken)> {
    let own: Vec<String> = match special {
        Special::None => Vec::new(),
        Special::Reserved(n) => (n_tokens..n_tokens + n).map(reserved).collect(),
        Special::Qwen => {
            let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
            named.into_iter().chain((0..205).map(|i| format!("<|extra_{i}|>"))).collect()
        }
    };
    let taken: HashSet<u32> = numbered.iter().map(|(id, _)| *id).collect();
    let own = (n_tokens..).zip(own).filter(|(id, _)| !taken.contains(id));
    let own = own.map(|(id, text)| (id, AddedToken::from(text, true)));
    let mut all: Vec<_> = own.chain(numbered.iter().cloned()).collect();
    all.sort_by_key(|(id, _)| *id);
    all
}

/// Returns the name of a token that nobody uses, as Moonshot's code and transformers have it.
pub(super) fn reserved(id: u32) -> String {
    format!("<|reserved_token_{id}|>")
}

/// Reads the tokens in the order of their ranks, spelled as byte-level tokenizers spell them.
fn ranked_tokens(bytes: &[u8]) -> Result<Vec<String>, String> {
    let spelling = crate::detokenizer::byte_level_spelling();
    let mut ranked = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let parsed = rank_line(line).map_err(|e| format!("line {number}: {e}"))?;
        if let Some((token, rank)) = parsed {
            let text: String = token.iter().map(|byte| spelling[usize::from(*byte)]).collect();
            ranked.push((rank, text));
        }
    }
    ranked.sort_unstable();
    let gap = ranked.iter().zip(0..).find(|((rank, _), expected)| rank != expected);
    if let Some((_, rank)) = gap {
        return Err(format!("the rank {rank} is not there exactly once"));
    }
    let tokens: Vec<String> = ranked.into_iter().map(|(_, token)| token).collect();
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    if known.len() < tokens.len() {
        return Err("a token is there twice".to_owned());
    }
    let missing = spelling.iter().position(|c| !known.contains(c.encode_utf8(&mut [0; 4]) as &str));
    match missing {
        Some(byte) => Err(format!("no token for the byte 0x{byte:02X}")),
        None => Ok(tokens),
    }
}

/// Reads one line; an empty one holds nothing.
fn rank_line(line: &[u8]) -> Result<Option<(Vec<u8>, u32)>, &'static str> {
    const EXPECTED: &str = "not a token in base64 and its rank";
    let line = std::str::from_utf8(line).map_err(|_| EXPECTED)?;
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Ok(None),
        (Some(token), Some(rank), None) => {
            let token = base64(token.as_bytes()).ok_or(EXPECTED)?;
            Ok(Some((token, rank.parse().map_err(|_| EXPECTED)?)))
        }
        _ => Err(EXPECTED),
    }
}

/// Decodes base64 with its padding; `None` for anything else and for nothing.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut n_bits) = (0_u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
            bits &= (1 << n_bits) - 1;
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}
