//! SentencePiece models (`tokenizer.model`), BPE and Unigram.
//!
//! The vocabulary goes into a tokenizer of the `tokenizers` crate, which decodes and, for BPE,
//! merges; the text is prepared as SentencePiece does, which that crate can only approximate.
//! Which tokens are special and what stands around a text follows transformers' converters
//! (`convert_slow_tokenizer.py`, `LlamaTokenizer`): control and user-defined pieces are added
//! tokens, cut out of the text before it is prepared, and what lies between them is
//!
//! - one sentence with gaps, whose beginning alone gets the space in front, or,
//! - with `"legacy": true` in `tokenizer_config.json`, a sentence each.
//!
//! DIFFERENCE: transformers 5 merges a space that a text begins with and the one put before it, and
//! leaves out the beginning-of-sequence token where `tokenizer_config.json` has no `add_bos_token`.
//! Here both are as the models were trained, and as they were in transformers 4.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram;
use tokenizers::{
    AddedToken, Model as _, NormalizerWrapper, OffsetReferential, OffsetType, Tokenizer,
};

use self::normalizer::{Normalizer, Part, SPACE};
use self::proto::{ModelProto, Piece, PieceKind, TrainerSpec};
use self::table::PrefixTable;
use self::unigram_model::Unigram;
use super::merges::merges;

mod normalizer;
mod proto;
mod table;
#[path = "sentence_piece/unigram.rs"]
mod unigram_model;

/// Turns text into pieces, with the vocabulary of a [`Tokenizer`] made by [`load`].
#[derive(Debug)]
pub(crate) struct SentencePiece {
    normalizer: Normalizer,
    /// Whether each part between added tokens is a sentence of its own.
    legacy: bool,
    model: Model,
}

#[derive(Debug)]
enum Model {
    /// Pieces that are found before any are merged; the rest is the tokenizer's.
    Bpe(PrefixTable),
    Unigram {
        model: Unigram,
        unknown: u32,
        /// The pieces of all bytes, where unknown characters have those.
        bytes: Option<Box<[u32; 256]>>,
    },
}

/// What a `tokenizer.model` makes.
pub(super) struct Loaded {
    pub(super) inner: Tokenizer,
    pub(super) encoder: SentencePiece,
    /// The texts of the special tokens that the model names, by their names in transformers.
    pub(super) named: Vec<(&'static str, String)>,
    /// Whether texts begin with the beginning-of-sequence token unless the configuration differs.
    pub(super) begins: bool,
    /// Whether they end with the end-of-sequence token.
    pub(super) ends: bool,
}

/// Reads a model. `renamed` are the texts that `tokenizer_config.json` has for ids; a placeholder
/// piece becomes such a token.
pub(super) fn load(
    bytes: &[u8],
    config: &Map<String, Value>,
    renamed: &[(u32, AddedToken)],
) -> Result<Loaded, String> {
    let mut proto = ModelProto::parse(bytes)?;
    rename(&mut proto.pieces, renamed);
    let ids = ids(&proto.pieces)?;
    let unknown = unknown(&proto.pieces)?;
    let TrainerSpec { model_type, space_as_suffix, byte_fallback, bos_id, .. } = proto.trainer;
    if space_as_suffix {
        return Err("spaces as suffixes are not supported".to_owned());
    }
    let bytes = match byte_fallback {
        true => Some(byte_pieces(&proto.pieces)?),
        false => None,
    };
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    let prefix = flag("add_prefix_space").unwrap_or(proto.normalizer.add_dummy_prefix);

    let mut inner = match model_type {
        1 => unigram_vocabulary(&proto.pieces, unknown, byte_fallback)?,
        2 => bpe_vocabulary(&proto.pieces, &ids, unknown, byte_fallback)?,
        kind => return Err(format!("models of type {kind} are neither Unigram nor BPE")),
    };
    inner.with_decoder(Some(decoder(prefix)?));
    let added = proto.pieces.iter().filter_map(|piece| {
        let token = AddedToken::from(piece.text, piece.kind == PieceKind::Control);
        let added = match piece.kind {
            PieceKind::Control => true,
            // One with spaces in it is only in the prepared text.
            PieceKind::UserDefined => !piece.text.contains(SPACE),
            _ => false,
        };
        added.then(|| token.normalized(false))
    });
    inner.add_tokens(added).map_err(|e| e.to_string())?;

    let user_defined = || {
        let pieces = (0..).zip(&proto.pieces);
        let user_defined = pieces.filter(|(_, piece)| piece.kind == PieceKind::UserDefined);
        PrefixTable::new(user_defined.map(|(id, piece)| (piece.text, id)))
    };
    let model = match model_type {
        1 => Model::Unigram { model: Unigram::new(&proto.pieces), unknown, bytes },
        _ => Model::Bpe(user_defined()),
    };
    let normalizer = Normalizer::new(&proto.normalizer, user_defined(), prefix)?;
    let legacy = flag("legacy").unwrap_or(false);
    let named = named(&proto, unknown);
    let begins = named.iter().any(|(name, _)| *name == "bos_token");
    Ok(Loaded {
        inner,
        encoder: SentencePiece { normalizer, legacy, model },
        named,
        begins,
        // T5 and its kin have no beginning and are trained with an end.
        ends: model_type == 1 && bos_id < 0,
    })
}

impl SentencePiece {
    /// Encodes a text, added tokens in it included.
    pub(crate) fn encode(&self, inner: &Tokenizer, text: &str) -> tokenizers::Result<Vec<u32>> {
        let added = inner.get_added_vocabulary();
        let parts = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        let parts = parts.get_splits(OffsetReferential::Original, OffsetType::None);
        let mut ids = Vec::new();
        for (i, (text, _, tokens)) in parts.iter().enumerate() {
            if let Some(tokens) = tokens {
                ids.extend(tokens.iter().map(|token| token.id));
                continue;
            }
            let first = self.legacy || i == 0;
            let last = self.legacy || i + 1 == parts.len();
            let text = self.normalizer.normalize(text, Part { first, last });
            match &self.model {
                Model::Bpe(whole) => merge(inner, whole, &text, &mut ids)?,
                Model::Unigram { model, unknown, bytes } => {
                    cut(model, *unknown, bytes.as_deref(), &text, &mut ids);
                }
            }
        }
        Ok(ids)
    }
}

/// Encodes a prepared text by merging; pieces that are found as a whole are left out of it.
fn merge(
    inner: &Tokenizer,
    whole: &PrefixTable,
    text: &str,
    ids: &mut Vec<u32>,
) -> tokenizers::Result<()> {
    let mut start = 0;
    let merge = |text: &str, ids: &mut Vec<u32>| -> tokenizers::Result<()> {
        if !text.is_empty() {
            ids.extend(inner.get_model().tokenize(text)?.iter().map(|token| token.id));
        }
        Ok(())
    };
    let mut behind = 0;
    for (at, _) in text.char_indices() {
        if at < behind {
            continue;
        }
        if let Some((len, id)) = whole.longest(&text[at..]) {
            merge(&text[start..at], ids)?;
            ids.push(id);
            behind = at + len;
            start = behind;
        }
    }
    merge(&text[start..], ids)
}

/// Encodes a prepared text by the most probable cuts.
fn cut(model: &Unigram, unknown: u32, bytes: Option<&[u32; 256]>, text: &str, ids: &mut Vec<u32>) {
    let mut at = 0;
    let mut after_unknown = false;
    for (len, piece) in model.encode(text) {
        match (piece, bytes) {
            (Some(id), _) => ids.push(id),
            (None, Some(bytes)) => {
                ids.extend(text[at..at + len].bytes().map(|byte| bytes[usize::from(byte)]));
            }
            // Unknown characters in a row are one token.
            (None, None) if !after_unknown => ids.push(unknown),
            (None, None) => {}
        }
        after_unknown = piece.is_none();
        at += len;
    }
}

/// Gives placeholder pieces the texts that the configuration has for their ids.
fn rename<'a>(pieces: &mut [Piece<'a>], renamed: &'a [(u32, AddedToken)]) {
    let mut known: HashSet<&str> = pieces.iter().map(|piece| piece.text).collect();
    for (id, token) in renamed {
        if let Some(piece) = pieces.get_mut(*id as usize)
            && !token.content.is_empty()
            && known.insert(&token.content)
        {
            let kind = if token.special { PieceKind::Control } else { PieceKind::UserDefined };
            *piece = Piece { text: &token.content, score: 0.0, kind };
        }
    }
}

fn ids<'a>(pieces: &[Piece<'a>]) -> Result<HashMap<&'a str, u32>, String> {
    let mut ids = HashMap::with_capacity(pieces.len());
    for (id, piece) in (0..).zip(pieces) {
        if ids.insert(piece.text, id).is_some() {
            return Err(format!("the piece {:?} is there twice", piece.text));
        }
    }
    Ok(ids)
}

fn unknown(pieces: &[Piece]) -> Result<u32, String> {
    let mut unknown = (0..).zip(pieces).filter(|(_, piece)| piece.kind == PieceKind::Unknown);
    match (unknown.next(), unknown.next()) {
        (Some((id, _)), None) => Ok(id),
        _ => Err("not exactly one piece for the unknown".to_owned()),
    }
}

fn byte_pieces(pieces: &[Piece]) -> Result<Box<[u32; 256]>, String> {
    let mut ids = Box::new([u32::MAX; 256]);
    for (id, piece) in (0..).zip(pieces).filter(|(_, piece)| piece.kind == PieceKind::Byte) {
        let hex = piece.text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        let byte =
            hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let byte = byte.ok_or_else(|| format!("{:?} is no byte's piece", piece.text))?;
        ids[usize::from(byte)] = id;
    }
    match ids.iter().position(|id| *id == u32::MAX) {
        Some(byte) => Err(format!("no piece for the byte 0x{byte:02X}")),
        None => Ok(ids),
    }
}

fn unigram_vocabulary(
    pieces: &[Piece],
    unknown: u32,
    byte_fallback: bool,
) -> Result<Tokenizer, String> {
    let vocab = pieces.iter().map(|piece| (piece.text.to_owned(), f64::from(piece.score)));
    let model = unigram::Unigram::from(vocab.collect(), Some(unknown as usize), byte_fallback);
    Ok(Tokenizer::new(model.map_err(|e| e.to_string())?))
}

fn bpe_vocabulary(
    pieces: &[Piece],
    ids: &HashMap<&str, u32>,
    unknown: u32,
    byte_fallback: bool,
) -> Result<Tokenizer, String> {
    // What no text has is never merged to.
    let merged = |piece: &&Piece| matches!(piece.kind, PieceKind::Normal | PieceKind::UserDefined);
    let mut tokens: Vec<&Piece> = pieces.iter().filter(merged).collect();
    tokens.sort_by(|a, b| b.score.total_cmp(&a.score));
    let texts: Vec<&str> = tokens.iter().map(|piece| piece.text).collect();
    let mut parts = ids.clone();
    parts.retain(|_, id| merged(&&pieces[*id as usize]));
    let vocab = ids.iter().map(|(text, id)| ((*text).to_owned(), *id));
    let model = BPE::builder()
        .vocab_and_merges(vocab.collect::<Vocab>(), merges(&texts, &parts)?)
        .unk_token(pieces[unknown as usize].text.to_owned())
        .fuse_unk(true)
        .byte_fallback(byte_fallback)
        .build();
    Ok(Tokenizer::new(model.map_err(|e| e.to_string())?))
}

fn decoder(prefix: bool) -> Result<tokenizers::DecoderWrapper, String> {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    serde_json::from_value(json!({"type": "Sequence", "decoders": steps}))
        .map_err(|e| e.to_string())
}

fn named(proto: &ModelProto, unknown: u32) -> Vec<(&'static str, String)> {
    let TrainerSpec { bos_id, eos_id, pad_id, .. } = proto.trainer;
    let ids = [
        ("bos_token", bos_id, PieceKind::Control),
        ("eos_token", eos_id, PieceKind::Control),
        ("unk_token", i64::from(unknown), PieceKind::Unknown),
        ("pad_token", pad_id, PieceKind::Control),
    ];
    let piece = |id: i64| proto.pieces.get(usize::try_from(id).ok()?);
    ids.into_iter()
        .filter_map(|(name, id, kind)| {
            let piece = piece(id).filter(|piece| piece.kind == kind)?;
            Some((name, piece.text.to_owned()))
        })
        .collect()
}
