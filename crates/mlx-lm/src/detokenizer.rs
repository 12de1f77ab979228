//! Tokens to text while they are being generated.
//!
//! A [`Detokenizer`] returns, for each token, the text that no later token can change. The
//! segments together are what decoding all tokens at once yields, special tokens included: the
//! caller keeps those away that end the generation, as mlx-lm does.
//!
//! Three kinds, chosen from the `decoder` of `tokenizer.json`:
//!
//! - byte-level BPE and SentencePiece with byte fallback turn each token into bytes on its own
//!   and hold back only an incomplete UTF-8 character: constant work per token;
//! - every other decoder is asked to decode a short window of tokens, and the window's growth is
//!   the new text.
//!
//! DIFFERENCE: mlx-lm drops a space at the beginning of a byte-level text, drops every leading
//! space token of a SentencePiece text instead of one, decodes each line on its own in the
//! general case (losing the space after a line break), and writes `!` for an id outside the
//! vocabulary. Here decoding the whole is the measure, so none of these happens.
//!
//! One difference to decoding the whole remains: SentencePiece's byte tokens that do not form
//! UTF-8 become one U+FFFD per damaged character, where the `tokenizers` crate replaces the
//! entire run of byte tokens, which would change text already returned.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::sentence_piece::SentencePiece;

/// What encoding and decoding need: the `tokenizers` tokenizer and what follows from its decoder.
pub(crate) struct Vocabulary {
    inner: tokenizers::Tokenizer,
    kind: Kind,
    /// Encodes instead of `inner`.
    encoder: Option<SentencePiece>,
    /// The ids before and after a text, besides those that `inner` adds.
    around: [Vec<u32>; 2],
    clean_up: bool,
    /// Whether line breaks are spelled `<n>`.
    spelled_newline: bool,
    /// The byte behind each of the 256 characters that a byte-level vocabulary is written in.
    /// They lie below U+0144; other characters stand for themselves.
    byte_of_char: Vec<Option<u8>>,
}

/// How the tokenizers of mlx-lm's `NewlineTokenizer` class spell a line break.
const NEWLINE: &str = "<n>";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ByteLevel,
    SentencePiece { trim_first_space: bool },
    Window,
}

impl Vocabulary {
    pub(crate) fn new(inner: tokenizers::Tokenizer, clean_up: bool, spelled_newline: bool) -> Self {
        let decoder = inner.get_decoder().and_then(|decoder| serde_json::to_value(decoder).ok());
        let kind = match clean_up || spelled_newline {
            true => Kind::Window,
            false => Kind::of(&decoder.unwrap_or(Value::Null)),
        };
        let byte_of_char = byte_level_alphabet();
        let (encoder, around) = (None, [Vec::new(), Vec::new()]);
        Vocabulary { inner, kind, encoder, around, clean_up, spelled_newline, byte_of_char }
    }

    /// Lets an encoder of our own do the work, and puts ids around what it yields.
    pub(crate) fn with_encoder(
        self,
        encoder: Option<SentencePiece>,
        around: [Vec<u32>; 2],
    ) -> Self {
        Vocabulary { encoder, around, ..self }
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    pub(crate) fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let text = self.decode_raw(ids, skip_special_tokens)?;
        Ok(if self.clean_up { clean_up(&text) } else { text })
    }

    fn decode_raw(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let text = guarded("decode", || self.inner.decode(ids, skip_special_tokens))?;
        Ok(if self.spelled_newline { text.replace(NEWLINE, "\n") } else { text })
    }

    pub(crate) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let spelled = self.spelled_newline.then(|| text.replace('\n', NEWLINE));
        let text = spelled.as_deref().unwrap_or(text);
        let mut ids = guarded("encode", || match &self.encoder {
            Some(encoder) => encoder.encode(&self.inner, text),
            None => {
                let encoding = self.inner.encode_fast(text, add_special_tokens)?;
                Ok(encoding.get_ids().to_vec())
            }
        })?;
        if add_special_tokens {
            let [before, after] = &self.around;
            ids.splice(0..0, before.iter().copied());
            ids.extend_from_slice(after);
        }
        Ok(ids)
    }

    /// Returns the text that the decoder sees for a token.
    fn token(&self, id: u32) -> Option<String> {
        let added = self.inner.get_added_vocabulary().simple_id_to_token(id);
        added.or_else(|| self.inner.id_to_token(id))
    }

    /// Writes the bytes of a byte-level token; a token with any other character is plain text.
    fn byte_level(&self, token: &str, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        for c in token.chars() {
            match self.byte_of_char.get(c as usize).copied().flatten() {
                Some(byte) => bytes.push(byte),
                None => {
                    bytes.truncate(start);
                    bytes.extend_from_slice(token.as_bytes());
                    return;
                }
            }
        }
    }
}

/// Calls into the `tokenizers` crate, which panics where a file contradicts itself.
pub(crate) fn guarded<T>(
    what: &str,
    call: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, Error> {
    // What a panic may leave half changed is not used again, or not changed at all by `call`.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| Error::new(ErrorKind::Tokenizer, format!("{what}: {e}"))),
        Err(_) => Err(Error::new(
            ErrorKind::Tokenizer,
            format!("{what}: the tokenizer's files contradict each other"),
        )),
    }
}

impl Kind {
    fn of(decoder: &Value) -> Self {
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if decoder["type"] == "ByteLevel" {
            return Kind::ByteLevel;
        }
        if *decoder == json!({"type": "Sequence", "decoders": steps}) {
            return Kind::SentencePiece { trim_first_space: false };
        }
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        if *decoder == json!({"type": "Sequence", "decoders": steps}) {
            return Kind::SentencePiece { trim_first_space: true };
        }
        Kind::Window
    }
}

/// Returns the characters in which a byte-level vocabulary is written, by byte: printable Latin-1
/// stands for itself, and the rest follow from U+0100 on in their order.
pub(crate) fn byte_level_spelling() -> [char; 256] {
    let mut next = '\u{100}'..;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => next.next().unwrap_or_default(),
        }
    })
}

/// Inverts the spelling.
fn byte_level_alphabet() -> Vec<Option<u8>> {
    let mut table = vec![None; 0x144];
    for (byte, c) in (0..=255).zip(byte_level_spelling()) {
        table[c as usize] = Some(byte);
    }
    debug_assert_eq!(table.iter().flatten().count(), ByteLevel::alphabet().len());
    table
}

/// Turns the tokens of one generation into text, piece by piece.
#[derive(Clone)]
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    text: String,
    state: State,
}

#[derive(Clone)]
enum State {
    /// Bytes of an incomplete character, and whether a first space is still to be dropped.
    Bytes {
        pending: Vec<u8>,
        trim: bool,
    },
    Window(Window),
}

impl Detokenizer {
    pub(crate) fn new(vocabulary: Arc<Vocabulary>) -> Self {
        let state = match vocabulary.kind {
            Kind::ByteLevel => State::Bytes { pending: Vec::new(), trim: false },
            Kind::SentencePiece { trim_first_space } => {
                State::Bytes { pending: Vec::new(), trim: trim_first_space }
            }
            Kind::Window => State::Window(Window::default()),
        };
        Detokenizer { vocabulary, text: String::new(), state }
    }

    /// Takes the next token and returns the text that became certain with it, often none.
    /// An id outside the vocabulary adds nothing.
    pub fn add(&mut self, token: u32) -> &str {
        let start = self.text.len();
        let vocabulary = &*self.vocabulary;
        match &mut self.state {
            State::Bytes { pending, trim } => {
                if let Some(token) = vocabulary.token(token) {
                    match vocabulary.kind {
                        Kind::ByteLevel => vocabulary.byte_level(&token, pending),
                        _ => sentence_piece(&token, pending),
                    }
                }
                drain_complete(pending, &mut self.text);
                drop_first_space(&mut self.text, trim);
            }
            State::Window(window) => window.add(vocabulary, token, &mut self.text),
        }
        &self.text[start..]
    }

    /// Returns what was held back until the end; bytes that never became a character are
    /// U+FFFD. Tokens added later begin a new text behind it.
    pub fn finish(&mut self) -> &str {
        let start = self.text.len();
        match &mut self.state {
            State::Bytes { pending, trim } => {
                self.text.push_str(&String::from_utf8_lossy(pending));
                pending.clear();
                drop_first_space(&mut self.text, trim);
            }
            State::Window(window) => window.finish(&self.vocabulary, &mut self.text),
        }
        &self.text[start..]
    }

    /// Returns all text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detokenizer({:?}, {:?})", self.vocabulary.kind, self.text)
    }
}

/// Writes the bytes of a SentencePiece token: `<0x0A>` is a byte, U+2581 a space.
fn sentence_piece(token: &str, bytes: &mut Vec<u8>) {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => bytes.push(byte),
        None => bytes.extend_from_slice(token.replace('\u{2581}', " ").as_bytes()),
    }
}

/// Drops the space a SentencePiece text begins with, once its first character is known.
fn drop_first_space(text: &mut String, trim: &mut bool) {
    if *trim && !text.is_empty() {
        *trim = false;
        if text.starts_with(' ') {
            text.remove(0);
        }
    }
}

/// Moves everything but an incomplete last character from `bytes` to `text`; bytes that cannot
/// begin or continue a character become U+FFFD, as in a lossy conversion of the whole.
fn drain_complete(bytes: &mut Vec<u8>, text: &mut String) {
    let mut start = 0;
    loop {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(valid) => {
                text.push_str(valid);
                bytes.clear();
                return;
            }
            Err(e) => {
                let end = start + e.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[start..end]));
                start = end;
                match e.error_len() {
                    Some(len) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        start += len;
                    }
                    None => {
                        bytes.drain(..start);
                        return;
                    }
                }
            }
        }
    }
}

/// Decodes the last few tokens again with each new one.
///
/// The tokens before `settled` have been returned. Some stay as context, because decoders treat
/// the first token of a list differently; whole batches do, because a batch never begins inside
/// a character.
#[derive(Clone, Default)]
struct Window {
    tokens: Vec<u32>,
    settled: usize,
    /// How many tokens each part of the context settled with.
    batches: VecDeque<usize>,
    /// Decoded text that clean-up may still change.
    unclean: String,
}

/// At least so many settled tokens stay in the window.
const CONTEXT_TOKENS: usize = 4;

/// A character has at most four bytes, so more unsettled tokens than this are not an incomplete
/// character but text that itself ends in U+FFFD.
const MAX_UNSETTLED_TOKENS: usize = 16;

impl Window {
    fn add(&mut self, vocabulary: &Vocabulary, token: u32, text: &mut String) {
        if vocabulary.token(token).is_none() {
            return;
        }
        self.tokens.push(token);
        let new = self.new_text(vocabulary);
        let incomplete = new.is_empty() || new.ends_with(char::REPLACEMENT_CHARACTER);
        if !incomplete || self.tokens.len() - self.settled >= MAX_UNSETTLED_TOKENS {
            self.settle(vocabulary, &new, text);
        }
    }

    fn finish(&mut self, vocabulary: &Vocabulary, text: &mut String) {
        let new = self.new_text(vocabulary);
        self.settle(vocabulary, &new, text);
        text.push_str(&clean_up(&self.unclean));
        *self = Window::default();
    }

    /// Returns the text of the tokens that are not settled.
    fn new_text(&self, vocabulary: &Vocabulary) -> String {
        let decode = |ids: &[u32]| vocabulary.decode_raw(ids, false).unwrap_or_default();
        let settled = decode(&self.tokens[..self.settled]);
        match decode(&self.tokens).strip_prefix(settled.as_str()) {
            Some(new) => new.to_owned(),
            // A run of byte tokens turned out to be damaged, and with it what was returned.
            None => decode(&self.tokens[self.settled..]),
        }
    }

    fn settle(&mut self, vocabulary: &Vocabulary, new: &str, text: &mut String) {
        self.batches.push_back(self.tokens.len() - self.settled);
        self.settled = self.tokens.len();
        while let Some(first) = self.batches.front()
            && self.settled - first >= CONTEXT_TOKENS
        {
            self.tokens.drain(..first);
            self.settled -= first;
            self.batches.pop_front();
        }
        if !vocabulary.clean_up {
            text.push_str(new);
            return;
        }
        let known = self.unclean.len();
        self.unclean.push_str(new);
        let certain = clean_up_boundary(&self.unclean, known);
        text.push_str(&clean_up(&self.unclean[..certain]));
        self.unclean.drain(..certain);
    }
}

/// Joins punctuation and English contractions to the word before them, as older tokenizers of
/// transformers ask for.
fn clean_up(text: &str) -> String {
    const RULES: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    RULES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Returns how much of a text [`clean_up`] treats independently of what follows, of which `known`
/// bytes were looked at before.
///
/// No rule goes across a character that none contains, nor across a word's end before a space,
/// since every rule begins with a space and none has a second one behind a letter.
fn clean_up_boundary(text: &str, known: usize) -> usize {
    let mut end = text.len();
    while end >= known {
        let Some(last) = text[..end].chars().next_back() else { break };
        let ends_word = last.is_alphanumeric() && text[end..].starts_with(' ');
        if ends_word || !" .?!,'nmsvetr".contains(last) {
            return end;
        }
        end -= last.len_utf8();
    }
    0
}

#[cfg(test)]
mod tests;
