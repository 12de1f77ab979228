//! Which file a tokenizer is made from.
//!
//! `tokenizer.json` where there is one, else a SentencePiece model, else a rank file of tiktoken;
//! a `tokenizer.model` may be either. The latter two say little of special tokens, so those of
//! `tokenizer_config.json` and `added_tokens.json` get the ids they have there.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::sentence_piece::{self, SentencePiece};
use super::tiktoken;
use crate::detokenizer::guarded;
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;

/// A tokenizer as its file has it.
pub(super) struct Source {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) encoder: Option<SentencePiece>,
    /// The named special tokens that the file or its family knows.
    pub(super) named: Vec<(&'static str, String)>,
    pub(super) around: Around,
}

/// What stands around a text.
pub(super) enum Around {
    /// What the post-processor of `tokenizer.json` adds.
    Processed,
    /// The tokens for beginning and end, where `add_bos_token` and `add_eos_token` ask for them;
    /// here is what holds without those.
    BosEos { bos: bool, eos: bool },
    /// These tokens before it.
    Before(&'static [&'static str]),
}

/// How far behind the vocabulary the configuration may number a token.
const MAX_GAP: usize = 1 << 16;

/// Reads the first tokenizer file there is.
pub(super) fn read(
    files: &ModelFiles,
    config: &Map<String, Value>,
    numbered: &[(u32, AddedToken)],
) -> Result<Source> {
    if let Some(bytes) = files.read("tokenizer.json")? {
        let inner = read_json(files, &bytes)?;
        return Ok(Source { inner, encoder: None, named: Vec::new(), around: Around::Processed });
    }
    let rank_files = files.list().into_iter().filter(|name| is_rank_file(name));
    let names = ["tokenizer.model", "spiece.model", "tiktoken.model"].map(str::to_owned);
    for name in names.into_iter().chain(rank_files) {
        let Some(bytes) = files.read(&name)? else { continue };
        if name == "tiktoken.model" || is_rank_file(&name) || tiktoken::is_rank_file(&bytes) {
            return read_tiktoken(files, &name, &bytes, config, numbered);
        }
        return read_sentence_piece(files, &name, &bytes, config, numbered);
    }
    Err(no_tokenizer(files))
}

fn is_rank_file(name: &str) -> bool {
    name.ends_with(".tiktoken") && !name.contains('/')
}

fn read_json(files: &ModelFiles, bytes: &[u8]) -> Result<tokenizers::Tokenizer> {
    // Parsed twice, because the crate's own reader names no line and panics at some of this.
    serde_json::from_slice::<AnyJson>(bytes)
        .map_err(|e| crate::files::json_error(files.describe("tokenizer.json"), &e))?;
    guarded("load", || tokenizers::Tokenizer::from_bytes(bytes))
        .and_then(|inner| {
            // Some contradictions only show when a text is encoded.
            guarded("encode", || inner.encode_fast("", true)).map(|_| inner)
        })
        .map_err(|e| damaged(files, "tokenizer.json", e))
}

fn read_sentence_piece(
    files: &ModelFiles,
    name: &str,
    bytes: &[u8],
    config: &Map<String, Value>,
    numbered: &[(u32, AddedToken)],
) -> Result<Source> {
    let loaded = guarded("load", || Ok(sentence_piece::load(bytes, config, numbered)))
        .map_err(|e| damaged(files, name, e))?
        .map_err(|e| damaged(files, name, e))?;
    let mut inner = loaded.inner;
    number(&mut inner, numbered).map_err(|e| damaged(files, "tokenizer_config.json", e))?;
    Ok(Source {
        inner,
        encoder: Some(loaded.encoder),
        named: loaded.named,
        around: Around::BosEos { bos: loaded.begins, eos: loaded.ends },
    })
}

fn read_tiktoken(
    files: &ModelFiles,
    name: &str,
    bytes: &[u8],
    config: &Map<String, Value>,
    numbered: &[(u32, AddedToken)],
) -> Result<Source> {
    let model = files.read_json("config.json").ok().flatten().unwrap_or(Value::Null);
    let model_type = model["model_type"].as_str().unwrap_or_default();
    let Some(family) = tiktoken::family(config, model_type) else {
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{}: how text is split is only in the Python code of this model, and neither \
                 tokenizer_class {class:?} nor model_type {model_type:?} is known here",
                files.describe(name)
            ),
        )
        .with_hint(CONVERT));
    };
    let loaded = guarded("load", || Ok(tiktoken::load(bytes, family, numbered)))
        .map_err(|e| damaged(files, name, e))?;
    let (mut inner, numbered) = loaded.map_err(|e| damaged(files, name, e))?;
    number(&mut inner, &numbered).map_err(|e| damaged(files, "tokenizer_config.json", e))?;
    let around = match family.before {
        [] => Around::BosEos { bos: false, eos: false },
        before => Around::Before(before),
    };
    let named = family.eos.map(|eos| ("eos_token", eos.to_owned())).into_iter().collect();
    Ok(Source { inner, encoder: None, named, around })
}

/// Adds tokens at their ids; where ids are left out, placeholders take them, as in transformers.
fn number(inner: &mut tokenizers::Tokenizer, numbered: &[(u32, AddedToken)]) -> Result<(), String> {
    let n_tokens = inner.get_vocab_size(true);
    let mut tokens = Vec::new();
    let mut seen = HashSet::new();
    let mut next = n_tokens;
    for (id, token) in numbered {
        if token.content.is_empty() || !seen.insert(&token.content) {
            continue;
        }
        if inner.token_to_id(&token.content).is_none() {
            let at = *id as usize;
            if at < next {
                return Err(format!("{:?} has the id {id} of another token", token.content));
            }
            if at - n_tokens > MAX_GAP + numbered.len() {
                return Err(format!("{:?} has the id {id}, after {next} tokens", token.content));
            }
            tokens
                .extend((next..at).map(|id| AddedToken::from(tiktoken::reserved(id as u32), true)));
            next = at + 1;
        }
        tokens.push(token.clone());
    }
    inner.add_tokens(tokens).map_err(|e| e.to_string())?;
    Ok(())
}

fn damaged(files: &ModelFiles, name: &str, error: impl fmt::Display) -> Error {
    Error::format(files.describe(name), error)
        .with_hint("the file may be damaged, or newer than this program")
}

const CONVERT: &str = "write tokenizer.json once with transformers: \
                       AutoTokenizer.from_pretrained(dir).save_pretrained(dir)";

fn no_tokenizer(files: &ModelFiles) -> Error {
    const OTHER_FORMATS: [&str; 3] = ["tekken.json", "vocab.json", "vocab.txt"];
    let names = files.list();
    let other = names.iter().find(|name| {
        OTHER_FORMATS.contains(&name.as_str()) || name.starts_with("tokenizer.model.")
    });
    match other {
        Some(name) => Error::new(
            ErrorKind::Unsupported,
            format!("{files}: no tokenizer.json, and {name} is in a format not read here"),
        )
        .with_hint(CONVERT),
        None => Error::new(
            ErrorKind::NotFound,
            format!(
                "{files}: none of tokenizer.json, tokenizer.model, spiece.model, tiktoken.model \
                 and *.tiktoken is there"
            ),
        )
        .with_hint("the download may be incomplete; fetch the model again"),
    }
}

/// Reads any JSON and keeps none of it. Unlike serde's `IgnoredAny` it looks into texts.
struct AnyJson;

impl<'de> Deserialize<'de> for AnyJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

impl<'de> Visitor<'de> for AnyJson {
    type Value = AnyJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<AnyJson, E> {
        Ok(AnyJson)
    }

    fn visit_bool<E>(self, _: bool) -> Result<AnyJson, E> {
        Ok(AnyJson)
    }

    fn visit_i64<E>(self, _: i64) -> Result<AnyJson, E> {
        Ok(AnyJson)
    }

    fn visit_u64<E>(self, _: u64) -> Result<AnyJson, E> {
        Ok(AnyJson)
    }

    fn visit_f64<E>(self, _: f64) -> Result<AnyJson, E> {
        Ok(AnyJson)
    }

    fn visit_str<E>(self, _: &str) -> Result<AnyJson, E> {
        Ok(AnyJson)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<AnyJson, A::Error> {
        while items.next_element::<AnyJson>()?.is_some() {}
        Ok(AnyJson)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<AnyJson, A::Error> {
        while entries.next_entry::<AnyJson, AnyJson>()?.is_some() {}
        Ok(AnyJson)
    }
}
