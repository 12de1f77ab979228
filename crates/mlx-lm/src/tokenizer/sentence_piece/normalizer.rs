//! What SentencePiece does to a text before it looks for pieces.
//!
//! Follows `normalizer.cc` of github.com/google/sentencepiece: characters are replaced by the
//! model's own map, the longest match first; spaces are made single where the model asks for it;
//! then a space becomes U+2581, and one is put before the text.
//!
//! DIFFERENCE: transformers runs the map through the `tokenizers` crate, which applies it to
//! grapheme clusters by their shortest match and so loses accents. The model was trained with
//! what is done here.

use super::proto::NormalizerSpec;
use super::table::PrefixTable;

/// How a space is written in pieces.
pub(super) const SPACE: char = '\u{2581}';

#[derive(Debug)]
pub(super) struct Normalizer {
    charsmap: Option<Charsmap>,
    /// Texts that are left as they are.
    kept: PrefixTable,
    prefix: bool,
    single_spaces: bool,
    escape_spaces: bool,
}

/// Which ends of the whole text a part of it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: bool,
    pub(super) last: bool,
}

impl Normalizer {
    pub(super) fn new(
        spec: &NormalizerSpec,
        kept: PrefixTable,
        prefix: bool,
    ) -> Result<Self, String> {
        let charsmap = match spec.charsmap {
            [] => None,
            bytes => Some(Charsmap::parse(bytes)?),
        };
        Ok(Normalizer {
            charsmap,
            kept,
            prefix,
            single_spaces: spec.remove_extra_whitespaces,
            escape_spaces: spec.escape_whitespaces,
        })
    }

    pub(super) fn normalize(&self, text: &str, part: Part) -> String {
        let space = if self.escape_spaces { SPACE } else { ' ' };
        let mut out = String::with_capacity(text.len() + space.len_utf8());
        let mut rest = text;
        // Nothing but spaces yet, where those are to go.
        let mut empty = self.single_spaces && part.first;
        let mut after_space = empty;
        if !empty && !text.is_empty() {
            self.begin(&mut out, part, space);
        }
        while !rest.is_empty() {
            let (replaced, len) = self.next(rest);
            rest = &rest[len..];
            if empty {
                if replaced == " " {
                    continue;
                }
                empty = false;
                self.begin(&mut out, part, space);
            }
            let replaced = if after_space { replaced.trim_start_matches(' ') } else { replaced };
            out.extend(replaced.chars().map(|c| if c == ' ' { space } else { c }));
            // A character that was replaced by nothing leaves a space before it the last.
            if self.single_spaces && !replaced.is_empty() {
                after_space = replaced.ends_with(' ');
            }
        }
        if self.single_spaces && part.last {
            out.truncate(out.trim_end_matches(space).len());
        }
        out
    }

    fn begin(&self, out: &mut String, part: Part, space: char) {
        if self.prefix && part.first {
            out.push(space);
        }
    }

    /// Returns what the beginning of `text`, which is not empty, becomes, and that beginning's
    /// length.
    fn next<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some((len, _)) = self.kept.longest(text) {
            return (&text[..len], len);
        }
        if let Some(found) = self.charsmap.as_ref().and_then(|map| map.longest(text)) {
            return found;
        }
        let len = text.chars().next().map_or(0, char::len_utf8);
        (&text[..len], len)
    }
}

/// Texts and what replaces them: a double array (S. Yata's darts-clone) whose values are offsets
/// into a list of texts, each with a zero behind it.
#[derive(Debug)]
struct Charsmap {
    units: Vec<u32>,
    texts: String,
}

impl Charsmap {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = || "the character map is damaged".to_owned();
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| damaged())?;
        let (units, texts) = rest.split_at_checked(len).ok_or_else(damaged)?;
        let (units, []) = units.as_chunks::<4>() else { return Err(damaged()) };
        let texts = std::str::from_utf8(texts).map_err(|_| damaged())?;
        if units.is_empty() || !texts.ends_with('\0') {
            return Err(damaged());
        }
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(Charsmap { units, texts: texts.to_owned() })
    }

    /// Returns what replaces the longest key that `text` begins with, and the key's length. In a
    /// damaged map, keys that end inside a character or have no text are skipped.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut found = None;
        let mut at = offset(*self.units.first()?);
        for (i, byte) in text.bytes().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { break };
            // Beside the label there is the mark of a value, which is no node.
            if unit & (1 << 31 | 0xFF) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            let has_value = unit & (1 << 8) != 0;
            if let Some(value) = self.units.get(at).filter(|_| has_value)
                && text.is_char_boundary(i + 1)
                && let Some(from) = self.texts.get((value & !(1 << 31)) as usize..)
            {
                found = Some((from.split('\0').next().unwrap_or_default(), i + 1));
            }
        }
        found
    }
}
