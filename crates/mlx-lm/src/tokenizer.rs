//! Text to tokens and back, as the model's own files say.
//!
//! The work is done by the `tokenizers` crate from `tokenizer.json`, or from a SentencePiece model
//! or a rank file of tiktoken, which are turned into such a tokenizer in memory. This module adds
//! what the files beside it decide: which tokens end a generation, which are special, which chat
//! template and thinking markers belong to the model, and which streaming [`Detokenizer`] fits.
//! Follows mlx-lm over transformers: special tokens are added to a prompt only by the
//! post-processor of `tokenizer.json` (`add_bos_token` beside it is ignored), and decoding keeps
//! special tokens unless asked to skip them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, ModelWrapper};

use crate::chat::ChatTemplate;
use crate::detokenizer::{Detokenizer, Vocabulary, guarded};
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;
use crate::thinking::Thinking;

mod ending;
mod merges;
mod repair;
pub(crate) mod sentence_piece;
mod source;
mod tiktoken;

use self::source::{Around, Source};

/// The named special tokens of transformers, in its order.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A model's tokenizer. Clones share the vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    special_tokens: Map<String, Value>,
    special_ids: BTreeSet<u32>,
    eos_token_ids: BTreeSet<u32>,
    chat_template: Option<ChatTemplate>,
    thinking: Option<Thinking>,
    config: Map<String, Value>,
    repaired: bool,
    notes: Vec<String>,
}

/// What the caller of [`Tokenizer::load_with`] decides instead of the model's files.
#[derive(Clone, Debug, Default)]
pub struct TokenizerOptions {
    /// The end-of-sequence ids, instead of those in `generation_config.json` or `config.json`; an
    /// empty set is as good as none. The tokenizer's own end token is always among them.
    pub eos_token_ids: Option<BTreeSet<u32>>,
    /// The source of a chat template that replaces the model's.
    pub chat_template: Option<String>,
    /// Leaves a pre-tokenizer alone that is known to split wrongly (see [`Tokenizer::repaired`]).
    pub keep_pre_tokenizer: bool,
}

impl Tokenizer {
    /// Loads the tokenizer of a model.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without any tokenizer file, [`ErrorKind::Unsupported`] when there
    /// are only files of another tokenizer format, or one of tiktoken's whose family is unknown,
    /// [`ErrorKind::Format`] for broken files.
    pub fn load(files: &ModelFiles) -> Result<Self> {
        Self::load_with(files, TokenizerOptions::default())
    }

    /// Loads the tokenizer of a model with some of its settings replaced.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn load_with(files: &ModelFiles, options: TokenizerOptions) -> Result<Self> {
        let config = read_object(files, "tokenizer_config.json")?;
        let mut special = SpecialTokens::collect(files, &config)?;
        let numbered = numbered_tokens(files, &config, &special);
        let Source { mut inner, encoder, named, around } = source::read(files, &config, &numbered)?;
        special.complete(named, &config);
        guarded("added tokens", || add_tokens(&mut inner, numbered, &special))
            .map_err(|e| Error::format(files.describe("tokenizer_config.json"), e))?;
        let repaired = !options.keep_pre_tokenizer
            && repair::pre_tokenizer(&mut inner, files.read_json("config.json").ok().flatten());
        // Neither is for text that a model is to read whole.
        inner.with_truncation(None).map_err(|e| Error::new(ErrorKind::Tokenizer, e.to_string()))?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(flag(&config, "split_special_tokens"));

        let special_ids = inner
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .collect();
        let clean_up = flag(&config, "clean_up_tokenization_spaces")
            && (!matches!(inner.get_model(), ModelWrapper::BPE(_)) || forces_clean_up(&config));
        let declared = options.eos_token_ids.filter(|ids| !ids.is_empty());
        let declared = declared.unwrap_or_else(|| config_eos_token_ids(files));
        let ends_declared = !declared.is_empty();
        let mut eos_token_ids = declared;
        let eos = special.named.get("eos_token").and_then(Value::as_str);
        eos_token_ids.extend(eos.and_then(|token| inner.token_to_id(token)));
        let around = around_ids(&inner, &around, &special, &config);

        let spelled_newline =
            config.get("tokenizer_class").is_some_and(|class| class == "NewlineTokenizer");
        let vocabulary = Vocabulary::new(inner, clean_up, spelled_newline);
        let vocabulary = Arc::new(vocabulary.with_encoder(encoder, around));
        let chat_template = match options.chat_template {
            Some(source) => Some(ChatTemplate::new(source)),
            None => ChatTemplate::from_files(files, &config)?,
        };
        let mut tokenizer = Tokenizer {
            vocabulary,
            special_tokens: special.named,
            special_ids,
            eos_token_ids,
            chat_template: None,
            thinking: None,
            config,
            repaired,
            notes: Vec::new(),
        };
        tokenizer.thinking = Thinking::detect(&tokenizer, chat_template.as_ref());
        tokenizer.chat_template = chat_template.map(|template| {
            let thinks = tokenizer.thinking.is_some();
            template.with_special_tokens(tokenizer.special_tokens.clone()).with_thinking(thinks)
        });
        if repaired {
            tokenizer.notes.push(repair::NOTE.to_owned());
        }
        if !ends_declared {
            ending::complete(&mut tokenizer);
        }
        Ok(tokenizer)
    }

    /// Encodes text. With `add_special_tokens` the post-processor adds what the model expects
    /// around a text (often a beginning-of-sequence token); a rendered chat template already has
    /// it. Special tokens written out in the text become their ids.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] when the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        self.vocabulary.encode(text, add_special_tokens)
    }

    /// Decodes tokens. Ids outside the vocabulary yield nothing; bytes that are not UTF-8 yield
    /// U+FFFD.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.vocabulary.decode(ids, skip_special_tokens)
    }

    /// Returns a new streaming detokenizer, one per generation.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(self.vocabulary.clone())
    }

    /// Returns the id of a token given as it stands in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.inner().token_to_id(token)
    }

    /// Returns the token as it stands in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.inner().id_to_token(id)
    }

    /// Returns the number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.inner().get_vocab_size(true)
    }

    /// Returns the beginning-of-sequence token's text.
    pub fn bos_token(&self) -> Option<&str> {
        self.special_token("bos_token")
    }

    /// Returns the end-of-sequence token's text.
    pub fn eos_token(&self) -> Option<&str> {
        self.special_token("eos_token")
    }

    /// Returns the text of a named special token, such as `pad_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).and_then(Value::as_str)
    }

    /// Returns the ids of all special tokens.
    pub fn special_ids(&self) -> &BTreeSet<u32> {
        &self.special_ids
    }

    /// Returns the ids that end a generation.
    pub fn eos_token_ids(&self) -> &BTreeSet<u32> {
        &self.eos_token_ids
    }

    /// Adds an id that ends a generation: a number, or the text of one token.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when `token` is neither a number nor a token.
    pub fn add_eos_token(&mut self, token: &str) -> Result<u32> {
        let id = match (token.parse(), self.token_to_id(token)) {
            (Ok(id), _) | (Err(_), Some(id)) => id,
            (Err(_), None) => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("{token:?}: not a token of this tokenizer"),
                )
                .with_hint("give one whole token of the vocabulary, or its id as a number"));
            }
        };
        self.eos_token_ids.insert(id);
        Ok(id)
    }

    /// Returns the model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// Returns how the model marks its reasoning, if it does.
    pub fn thinking(&self) -> Option<&Thinking> {
        self.thinking.as_ref()
    }

    /// Returns the content of `tokenizer_config.json`; empty without that file.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Whether a pre-tokenizer that is known to split wrongly was replaced by the corrected one.
    ///
    /// Mistral's tokenizers were for a time converted with another model's splitting rule.
    pub fn repaired(&self) -> bool {
        self.repaired
    }

    /// Returns the pre-tokenizer that is in use, as `tokenizer.json` would hold it; a repaired one
    /// is the corrected.
    pub fn pre_tokenizer(&self) -> Option<Value> {
        let rule = self.vocabulary.inner().get_pre_tokenizer()?;
        serde_json::to_value(rule).ok()
    }

    /// Returns what the user should know: what was mended, and what the files left open.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

/// Reads a JSON object; a missing file is an empty one.
fn read_object(files: &ModelFiles, name: &str) -> Result<Map<String, Value>> {
    match files.read_json(name)? {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Error::format(files.describe(name), "not a JSON object")),
    }
}

fn flag(config: &Map<String, Value>, name: &str) -> bool {
    config.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn forces_clean_up(config: &Map<String, Value>) -> bool {
    flag(config, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
}

/// Returns the end-of-sequence ids of `config.json`, or of `generation_config.json` where that
/// file names any; either may be broken without hurting the tokenizer.
fn config_eos_token_ids(files: &ModelFiles) -> BTreeSet<u32> {
    let read = |name| files.read_json(name).ok().flatten().unwrap_or(Value::Null);
    let generation = eos_ids(&read("generation_config.json"));
    if !generation.is_empty() {
        return generation;
    }
    let config = read("config.json");
    let ids = eos_ids(&config);
    if ids.is_empty() { eos_ids(&config["text_config"]) } else { ids }
}

fn eos_ids(config: &Value) -> BTreeSet<u32> {
    let ids = &config["eos_token_id"];
    let ids = ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice);
    ids.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

/// The special tokens that the files beside `tokenizer.json` name.
struct SpecialTokens {
    /// By name, the text of each.
    named: Map<String, Value>,
    /// Those and the unnamed, ready to be added.
    all: Vec<AddedToken>,
}

impl SpecialTokens {
    fn collect(files: &ModelFiles, config: &Map<String, Value>) -> Result<Self> {
        // An older file; transformers reads it only where the newer key is absent.
        let map = match config.contains_key("added_tokens_decoder") {
            true => Map::new(),
            false => read_object(files, "special_tokens_map.json")?,
        };
        let get = |name: &str| map.get(name).or_else(|| config.get(name));
        let mut tokens = SpecialTokens { named: Map::new(), all: Vec::new() };
        for name in SPECIAL_NAMES {
            if let Some(token) = get(name).and_then(special_token) {
                tokens.named.insert(name.to_owned(), Value::String(token.content.clone()));
                tokens.all.push(token);
            }
        }
        for name in ["additional_special_tokens", "extra_special_tokens"] {
            match get(name) {
                Some(Value::Array(list)) => {
                    tokens.all.extend(list.iter().filter_map(special_token));
                }
                Some(Value::Object(map)) => {
                    tokens.all.extend(map.values().filter_map(special_token));
                }
                _ => {}
            }
        }
        Ok(tokens)
    }

    /// Takes those of the tokenizer's file that no other file speaks of; a null speaks.
    fn complete(&mut self, named: Vec<(&'static str, String)>, config: &Map<String, Value>) {
        for (name, token) in named {
            if !config.contains_key(name) && !self.named.contains_key(name) {
                self.all.push(AddedToken::from(token.as_str(), true));
                self.named.insert(name.to_owned(), Value::String(token));
            }
        }
    }
}

/// Reads a token given as its text, or as an object with `content` and flags.
fn special_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.as_str(), true)),
        Value::Object(_) => added_token(value).map(|token| token.special(true)),
        _ => None,
    }
}

fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str| value[name].as_bool();
    let special = flag("special").unwrap_or(false);
    let token = AddedToken::from(value["content"].as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}

/// Returns the ids that stand before and after a text.
fn around_ids(
    inner: &tokenizers::Tokenizer,
    around: &Around,
    special: &SpecialTokens,
    config: &Map<String, Value>,
) -> [Vec<u32>; 2] {
    let named = |name: &str, flag: &str, default: bool| {
        let wanted = config.get(flag).and_then(Value::as_bool).unwrap_or(default);
        let token = special.named.get(name).filter(|_| wanted);
        token.and_then(|token| inner.token_to_id(token.as_str()?)).into_iter().collect()
    };
    match around {
        Around::Processed => [Vec::new(), Vec::new()],
        Around::Before(tokens) => {
            [tokens.iter().filter_map(|token| inner.token_to_id(token)).collect(), Vec::new()]
        }
        Around::BosEos { bos, eos } => {
            [named("bos_token", "add_bos_token", *bos), named("eos_token", "add_eos_token", *eos)]
        }
    }
}

/// Returns the tokens that the files beside the tokenizer have ids for, in the ids' order.
fn numbered_tokens(
    files: &ModelFiles,
    config: &Map<String, Value>,
    special: &SpecialTokens,
) -> Vec<(u32, AddedToken)> {
    let mut numbered = Vec::new();
    if let Some(Value::Object(decoder)) = config.get("added_tokens_decoder") {
        for (id, token) in decoder {
            numbered.extend(id.parse::<u32>().ok().zip(added_token(token)));
        }
    } else if let Some(Value::Object(tokens)) = files.read_json("added_tokens.json").ok().flatten()
    {
        for (text, id) in &tokens {
            let is_special = special.all.iter().any(|token| token.content == *text);
            let token = AddedToken::from(text.as_str(), is_special);
            numbered.extend(id.as_u64().and_then(|id| u32::try_from(id).ok()).zip(Some(token)));
        }
    }
    numbered.sort_by_key(|(id, _)| *id);
    numbered
}

/// Adds the tokens that the tokenizer lacks, each with the next free id, as transformers does.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    numbered: Vec<(u32, AddedToken)>,
    special: &SpecialTokens,
) -> tokenizers::Result<()> {
    let known: BTreeSet<String> =
        inner.get_added_tokens_decoder().into_iter().map(|(_, token)| token.content).collect();
    let mut seen = known;
    let missing: Vec<AddedToken> = numbered
        .into_iter()
        .map(|(_, token)| token)
        .chain(special.all.iter().cloned())
        .filter(|token| seen.insert(token.content.clone()))
        .collect();
    if !missing.is_empty() {
        inner.add_tokens(missing)?;
    }
    Ok(())
}
