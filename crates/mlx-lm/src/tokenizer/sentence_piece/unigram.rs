//! The most probable way to cut a text into pieces.
//!
//! Follows `EncodeOptimized` of SentencePiece's `unigram_model.cc`, sums in float32 included: where
//! two ways are equally probable, as in a run of one letter, rounding decides.

use super::proto::{Piece, PieceKind};
use super::table::PrefixTable;

/// How much less probable a character without a piece is than the rarest piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// What each byte but the first of a user-defined piece is worth; measured on sentencepiece 0.2.3.
const USER_DEFINED_SCORE: f32 = 0.1;

#[derive(Debug)]
pub(super) struct Unigram {
    table: PrefixTable,
    /// By id; those of pieces that no text has are not used.
    scores: Vec<f32>,
    unknown_score: f32,
}

/// A stretch of a text: its length in bytes, and its piece.
pub(super) type Stretch = (usize, Option<u32>);

#[derive(Clone, Copy)]
struct Best {
    score: f32,
    /// The stretch that ends here; none where nothing does.
    stretch: Option<Stretch>,
}

impl Unigram {
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let normal = || pieces.iter().filter(|piece| piece.kind == PieceKind::Normal);
        let min = normal().map(|piece| piece.score).fold(f32::MAX, f32::min);
        let matched =
            |piece: &Piece| matches!(piece.kind, PieceKind::Normal | PieceKind::UserDefined);
        let table = PrefixTable::new(
            (0..).zip(pieces).filter(|(_, p)| matched(p)).map(|(id, p)| (p.text, id)),
        );
        let score = |piece: &Piece| match piece.kind {
            // Better than most ways to have the same text in several pieces.
            PieceKind::UserDefined => (piece.text.len() as f32 - 1.0) * USER_DEFINED_SCORE,
            _ => piece.score,
        };
        let scores = pieces.iter().map(score).collect();
        Unigram { table, scores, unknown_score: min - UNKNOWN_PENALTY }
    }

    /// Cuts a text into stretches; one without a piece is one character.
    pub(super) fn encode(&self, text: &str) -> Vec<Stretch> {
        let mut best = vec![Best { score: 0.0, stretch: None }; text.len() + 1];
        for (at, c) in text.char_indices() {
            let before = best[at].score;
            let mut single = false;
            for (len, id) in self.table.prefixes(&text[at..]) {
                improve(&mut best[at + len], before + self.scores[id as usize], (len, Some(id)));
                single |= len == c.len_utf8();
            }
            if !single {
                let len = c.len_utf8();
                improve(&mut best[at + len], before + self.unknown_score, (len, None));
            }
        }
        let mut stretches = Vec::new();
        let mut end = text.len();
        while let Some(stretch) = best[end].stretch {
            stretches.push(stretch);
            end -= stretch.0;
        }
        stretches.reverse();
        stretches
    }
}

fn improve(best: &mut Best, score: f32, stretch: Stretch) {
    if best.stretch.is_none() || score > best.score {
        *best = Best { score, stretch: Some(stretch) };
    }
}
