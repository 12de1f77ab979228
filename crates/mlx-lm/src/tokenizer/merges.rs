//! From a vocabulary with ranks to the list of merges that the `tokenizers` crate wants.
//!
//! SentencePiece and tiktoken merge whatever two neighbours make up the token of the best rank. A
//! merge of the `tokenizers` crate names both halves. So each token becomes all pairs of tokens
//! that make it up, in the order in which transformers puts them.
//!
//! DIFFERENCE: where one token can be made of two overlapping pairs, as `aa` `a` `aa` has two for
//! `aaa`, the reference takes the left one and the `tokenizers` crate the one listed first.

use std::collections::HashMap;

/// A token longer than this is in no known vocabulary; looking for its halves takes the square of
/// its length.
const MAX_TOKEN_BYTES: usize = 1024;

/// How many bytes of merges there may be for each byte of the vocabulary. Known vocabularies have
/// less than 10.
const MAX_GROWTH: usize = 64;

/// Finds the pairs that make up each of `tokens`, which are in the order in which they are merged.
pub(super) fn merges(
    tokens: &[&str],
    ids: &HashMap<&str, u32>,
) -> Result<Vec<(String, String)>, String> {
    let mut budget = 1024 + MAX_GROWTH * tokens.iter().map(|token| token.len()).sum::<usize>();
    let mut merges = Vec::new();
    for token in tokens {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(format!("a token of {} bytes, more than {MAX_TOKEN_BYTES}", token.len()));
        }
        let halves = token.char_indices().skip(1).filter_map(|(at, _)| {
            let (left, right) = token.split_at(at);
            Some(((*ids.get(left)?, *ids.get(right)?), (left, right)))
        });
        let mut halves: Vec<_> = halves.collect();
        halves.sort_unstable_by_key(|(ids, _)| *ids);
        budget = budget
            .checked_sub(halves.len() * token.len())
            .ok_or_else(|| "the tokens make each other up in too many ways".to_owned())?;
        merges.extend(halves.iter().map(|(_, (l, r))| (l.to_string(), r.to_string())));
    }
    Ok(merges)
}
