//! Tokens that end an answer: which a model has, and whether they ever show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::answers::{QUESTION, QUESTIONS, ask, shown};
use super::portfolio::Model;
use super::report::{Row, StopToken, StopTokenFindings};
use super::{Session, view};

/// What ends turns or texts in one family or another.
const ENDS: &[&str] = &[
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_role|>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// The tokens of a model that end an answer, or would in another model.
#[derive(Debug, PartialEq)]
pub struct StopTokens {
    configured: BTreeMap<u32, Option<String>>,
    unnamed: BTreeSet<String>,
}

impl StopTokens {
    /// Reads a model's files.
    pub fn read(dir: &Path) -> Result<StopTokens> {
        let config = json(dir, "config.json")?;
        let generation = json(dir, "generation_config.json")?;
        let tokenizer = json(dir, "tokenizer.json")?;
        let settings = json(dir, "tokenizer_config.json")?;
        Ok(StopTokens::find(&config, &generation, &tokenizer, &settings))
    }

    fn find(config: &Value, generation: &Value, tokenizer: &Value, settings: &Value) -> Self {
        let texts = special_texts(tokenizer, settings);
        let named = [generation, config, &config["text_config"]];
        let named = named.iter().map(|config| ids(&config["eos_token_id"]));
        let mut ends: BTreeSet<u32> =
            named.into_iter().find(|ids| !ids.is_empty()).into_iter().flatten().collect();
        let eos = &settings["eos_token"];
        if let Some(eos) = eos.as_str().or_else(|| eos["content"].as_str()) {
            ends.extend(texts.iter().filter(|(_, text)| *text == eos).map(|(id, _)| *id));
        }
        let unnamed =
            texts.iter().filter(|(id, text)| !ends.contains(id) && ENDS.contains(&text.as_str()));
        StopTokens {
            unnamed: unnamed.map(|(_, text)| text.clone()).collect(),
            configured: ends.into_iter().map(|id| (id, texts.get(&id).cloned())).collect(),
        }
    }

    /// Returns the texts of such tokens that a text shows.
    fn shown_in(&self, text: &str) -> Vec<String> {
        let named = self.configured.values().flatten();
        named.chain(&self.unnamed).filter(|end| text.contains(*end)).cloned().collect()
    }

    /// Returns a token before the last that should have been the last.
    fn passed_over(&self, token_ids: &[u32]) -> Option<u32> {
        let (_, before) = token_ids.split_last()?;
        before.iter().copied().find(|id| self.configured.contains_key(id))
    }
}

/// Returns what a file holds; nothing, if it is not there.
fn json(dir: &Path, name: &str) -> Result<Value> {
    match fs::read(dir.join(name)) {
        Ok(bytes) => serde_json::from_slice(&bytes).context(name.to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(error).context(name.to_owned()),
    }
}

/// One number or several.
fn ids(value: &Value) -> Vec<u32> {
    let one = std::slice::from_ref(value);
    let ids = value.as_array().map_or(one, Vec::as_slice).iter().filter_map(Value::as_u64);
    ids.filter_map(|id| id.try_into().ok()).collect()
}

/// Returns the tokens that are no pieces of words, in either of the files that may name them.
fn special_texts(tokenizer: &Value, settings: &Value) -> BTreeMap<u32, String> {
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added.map(|token| (token["id"].as_u64(), &token["content"]));
    let decoder = settings["added_tokens_decoder"].as_object().into_iter().flatten();
    let decoder = decoder.map(|(id, token)| (id.parse().ok(), &token["content"]));
    let all = added
        .chain(decoder)
        .filter_map(|(id, text)| Some((u32::try_from(id?).ok()?, text.as_str()?.to_owned())));
    all.collect()
}

pub fn token_ids(data: &Value) -> Result<Vec<u32>> {
    let listed = data["token_ids"].as_array().context("no token_ids")?;
    let id = |value: &Value| value.as_u64().and_then(|id| id.try_into().ok());
    listed.iter().map(id).collect::<Option<_>>().context("a token that is no number")
}

/// Checks that no such token is in an answer: not as text, nor as a token that others follow.
pub fn check_shown(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let tokens = StopTokens::read(&session.dir(model)?)?;
    let mut leaked = BTreeSet::new();
    let mut passed_over = None;
    for question in QUESTIONS {
        let data = ask(session, &model.name, question)?;
        leaked.extend(tokens.shown_in(&shown(&data)?));
        passed_over = passed_over.or(tokens.passed_over(&token_ids(&data)?));
    }
    if tokens.configured.is_empty() {
        row.notes.push("the model's files name no token that ends an answer".to_owned());
    }
    let leaked: Vec<String> = leaked.into_iter().collect();
    let configured = tokens.configured.into_iter();
    row.stop_tokens = Some(StopTokenFindings {
        configured: configured.map(|(id, text)| StopToken { id, text }).collect(),
        unnamed: tokens.unnamed.into_iter().collect(),
        leaked: leaked.clone(),
    });
    ensure!(leaked.is_empty(), "answers show {}", leaked.join(" "));
    ensure!(passed_over.is_none(), "an answer goes on behind the token {passed_over:?}");
    Ok(())
}

/// Checks that of several ends the first in the answer ends it, whatever their order in the files:
/// two tokens of an answer are made ends, the later one named first.
pub fn check_first_end(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let whole = token_ids(&ask(session, &model.name, QUESTION)?)?;
    let Some((first, second)) = two_places(&whole) else {
        row.notes.push("several ends: the answer has too few different tokens".to_owned());
        return Ok(());
    };
    let named = StopTokens::read(&session.dir(model)?)?.configured;
    let ends: Vec<u32> =
        [whole[second], whole[first]].into_iter().chain(named.into_keys()).collect();
    let view = view::with_ends(session, model, &ends)?;
    let data = ask(session, view.to_str().context("the path is not UTF-8")?, QUESTION)?;
    let found = token_ids(&data)?;
    let reason = &data["finish_reason"];
    ensure!(reason == "stop", "with ends {ends:?} in it, the answer finishes by {reason}");
    let expected = [&whole[..first], &whole[..=first]];
    ensure!(
        expected.contains(&found.as_slice()),
        "with ends {ends:?}, {found:?} is not {whole:?} up to its first end"
    );
    Ok(())
}

/// Returns the places of two tokens that did not occur before, neither of them the beginning.
fn two_places(token_ids: &[u32]) -> Option<(usize, usize)> {
    let is_new = |at: &usize| !token_ids[..*at].contains(&token_ids[*at]);
    // The last may be the model's own end.
    let mut places = (1..token_ids.len().saturating_sub(1)).filter(is_new);
    Some((places.next()?, places.next()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens(generation: Value) -> StopTokens {
        let tokenizer = json!({"added_tokens": [
            {"id": 7, "content": "<|im_end|>"},
            {"id": 8, "content": "<think>"},
        ]});
        let settings = json!({
            "added_tokens_decoder": {"9": {"content": "<|endoftext|>"}, "10": {"content": "</s>"}},
            "eos_token": {"content": "<|endoftext|>"},
        });
        StopTokens::find(&json!({"eos_token_id": 3}), &generation, &tokenizer, &settings)
    }

    #[test]
    fn they_are_found_in_all_files() {
        let found = tokens(json!({"eos_token_id": [7, 11]}));
        let text = |text: &str| Some(text.to_owned());
        let expected = [(7, text("<|im_end|>")), (9, text("<|endoftext|>")), (11, None)];
        assert_eq!(found.configured, BTreeMap::from(expected));
        assert_eq!(found.unnamed, BTreeSet::from(["</s>".to_owned()]));
        // What the one file does not say, the other does.
        assert!(tokens(Value::Null).configured.contains_key(&3));
        assert!(tokens(Value::Null).unnamed.contains("<|im_end|>"));
    }

    #[test]
    fn what_shows_is_told() {
        let found = tokens(json!({"eos_token_id": 7}));
        assert_eq!(found.shown_in("It is <think> Paris."), [""; 0]);
        assert_eq!(found.shown_in("Paris.<|im_end|>\n</s>"), ["<|im_end|>", "</s>"]);
        assert_eq!(found.passed_over(&[1, 2, 7]), None);
        assert_eq!(found.passed_over(&[1, 7, 2]), Some(7));
        assert_eq!(found.passed_over(&[]), None);
    }

    #[test]
    fn two_ends_are_put_where_they_are_new() {
        assert_eq!(two_places(&[5, 5, 6, 5, 7, 8]), Some((2, 4)));
        assert_eq!(two_places(&[5, 6, 7]), None);
        assert_eq!(two_places(&[]), None);
    }

    #[test]
    fn numbers_come_alone_or_in_a_list() {
        assert_eq!(ids(&json!(4)), [4]);
        assert_eq!(ids(&json!([4, 5])), [4, 5]);
        assert_eq!(ids(&Value::Null), [0; 0]);
        assert_eq!(token_ids(&json!({"token_ids": [1, 2]})).unwrap(), [1, 2]);
        assert!(token_ids(&json!({"token_ids": [-1]})).is_err());
    }
}
