//! Mends a pre-tokenizer that was converted with another model's splitting rule.
//!
//! Some releases of transformers wrote Mistral's tokenizers with the rule of Llama 3, which joins
//! digits in threes and ignores case boundaries; the model then reads tokens it never saw in
//! training. A tokenizer counts as affected when its vocabulary is Mistral's large one, and its
//! configuration names a Mistral model and one of those releases, or an older or no release beside
//! that very rule.

use serde_json::Value;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::tiktoken::CL100K;

/// Mistral's own rule: letters split where the case rises, digits one by one.
const PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// What the user is told.
pub(super) const NOTE: &str = "tokenizer.json: splits text by the rule of another model, as some \
                               releases of transformers wrote it for Mistral's; mended in memory";

/// The releases of transformers that wrote the wrong rule, both included.
const AFFECTED: ((u32, u32, u32), (u32, u32, u32)) = ((4, 39, 0), (4, 57, 2));

/// Below this size a vocabulary is one of Mistral's older ones, which have no such rule.
const MIN_VOCAB_SIZE: usize = 100_000;

/// Replaces the rule if the tokenizer is affected; returns whether it did.
pub(super) fn pre_tokenizer(tokenizer: &mut Tokenizer, config: Option<Value>) -> bool {
    let Some(config) = config else { return false };
    let wrong = tokenizer.get_pre_tokenizer().and_then(first_rule).is_some_and(|r| r == CL100K);
    if !is_affected(&config, wrong)
        || tokenizer.get_vocab_size(true) <= MIN_VOCAB_SIZE
        || tokenizer.token_to_id("[INST]").is_none()
    {
        return false;
    }
    let Some(current) = tokenizer.get_pre_tokenizer().cloned() else { return false };
    let pattern = SplitPattern::Regex(PATTERN.to_owned());
    let Ok(split) = Split::new(pattern, SplitDelimiterBehavior::Isolated, false) else {
        return false;
    };
    let mended = mend(current.clone(), split.into());
    let changed = serde_json::to_value(&mended).ok() != serde_json::to_value(&current).ok();
    if changed {
        tokenizer.with_pre_tokenizer(Some(mended));
    }
    changed
}

fn mend(current: PreTokenizerWrapper, split: PreTokenizerWrapper) -> PreTokenizerWrapper {
    let rest = match current {
        PreTokenizerWrapper::Sequence(sequence) => {
            let mut all: Vec<PreTokenizerWrapper> = sequence.as_ref().to_vec();
            match all.first_mut() {
                Some(first) => *first = split,
                None => all.push(split),
            }
            return Sequence::new(all).into();
        }
        // Metaspace after a split loses the spaces.
        PreTokenizerWrapper::Metaspace(_) => ByteLevel::new(false, true, false).into(),
        other => other,
    };
    Sequence::new(vec![split, rest]).into()
}

/// Returns the rule that splits first.
fn first_rule(pre_tokenizer: &PreTokenizerWrapper) -> Option<&str> {
    let first = match pre_tokenizer {
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().first()?,
        other => other,
    };
    match first {
        PreTokenizerWrapper::Split(Split { pattern: SplitPattern::Regex(rule), .. }) => Some(rule),
        _ => None,
    }
}

/// `model_type` also allows llama, as which Mistral models are often converted: the vocabulary
/// tells them from Llama 3, whose rule the wrong one is.
fn is_affected(config: &Value, wrong_rule: bool) -> bool {
    const MODEL_TYPES: [&str; 5] = ["mistral", "mistral3", "ministral", "pixtral", "voxtral"];
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let mistral = MODEL_TYPES.contains(&model_type);
    if !mistral && model_type != "llama" {
        return false;
    }
    match config["transformers_version"].as_str().and_then(release) {
        Some(version) if AFFECTED.0 <= version && version <= AFFECTED.1 => true,
        // Newer ones wrote the rule right, or kept it on purpose.
        Some(version) if version > AFFECTED.1 => false,
        _ => mistral && wrong_rule,
    }
}

/// Reads the first three numbers of a version such as `4.51.0.dev0`.
fn release(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer with a vocabulary as large as Mistral's, whose tokens do not matter here.
    fn tokenizer(pre_tokenizer: Value, control: &str) -> Tokenizer {
        let vocab: serde_json::Map<String, Value> =
            (0..=MIN_VOCAB_SIZE).map(|id| (format!("t{id}"), id.into())).collect();
        let json = serde_json::json!({
            "version": "1.0",
            "pre_tokenizer": pre_tokenizer,
            "added_tokens": [{
                "id": 200_000, "content": control, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            }],
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};
        let mut text = PreTokenizedString::from(text);
        tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        splits.into_iter().map(|(piece, ..)| piece.to_owned()).collect()
    }

    #[test]
    fn the_wrong_rule_is_replaced_and_nothing_else() {
        let wrong = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CL100K}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": false},
        ]});
        let config = |kind: &str| {
            Some(serde_json::json!({"model_type": kind, "transformers_version": "4.50.0"}))
        };
        let text = "fooBar 1234";
        let mended = ["foo", "Bar", "\u{120}", "1", "2", "3", "4"];

        let mut mistral = tokenizer(wrong.clone(), "[INST]");
        assert_eq!(pieces(&mistral, text), ["fooBar", "\u{120}", "123", "4"]);
        assert!(pre_tokenizer(&mut mistral, config("mistral3")));
        assert_eq!(pieces(&mistral, text), mended);
        assert!(!pre_tokenizer(&mut mistral, config("mistral3")), "a second time");

        let mut unversioned = tokenizer(wrong.clone(), "[INST]");
        let config_of = |kind: &str| Some(serde_json::json!({"model_type": kind}));
        assert!(!pre_tokenizer(&mut unversioned, config_of("llama")));
        assert!(pre_tokenizer(&mut unversioned, config_of("mistral")));
        assert_eq!(pieces(&unversioned, text), mended);
        assert!(!pre_tokenizer(&mut unversioned, config_of("mistral")), "a second time");

        let mut llama = tokenizer(wrong, "<|begin_of_text|>");
        assert!(!pre_tokenizer(&mut llama, config("llama")));
        assert!(!pre_tokenizer(&mut llama, None));

        let metaspace = serde_json::json!({"type": "Metaspace", "replacement": "\u{2581}",
            "prepend_scheme": "never", "split": false});
        let mut mistral = tokenizer(metaspace, "[INST]");
        assert!(pre_tokenizer(&mut mistral, config("llama")));
        assert_eq!(pieces(&mistral, text), mended);
    }

    #[test]
    fn only_the_releases_that_wrote_the_wrong_rule_are_affected() {
        for (model_type, version, affected) in [
            ("mistral", "4.39.0", true),
            ("mistral3", "4.57.2", true),
            ("llama", "4.50.0.dev0", true),
            ("mistral", "4.38.9", false),
            ("mistral", "4.57.3", false),
            ("mistral", "5.0.0", false),
            ("qwen3", "4.51.0", false),
            ("mistral", "new", false),
        ] {
            let config =
                serde_json::json!({"model_type": model_type, "transformers_version": version});
            assert_eq!(is_affected(&config, false), affected, "{model_type} {version}");
        }
        for (version, affected) in [("4.38.9", true), ("4.57.3", false), ("5.0.0", false)] {
            let config =
                serde_json::json!({"model_type": "mistral", "transformers_version": version});
            assert_eq!(is_affected(&config, true), affected, "{version}");
        }
    }
}
