//! The splitting rule of Mistral's tokenizers.

use mlx_lm::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Plan;
use crate::error::{CommandError, Kind};

const NAME: &str = "tokenizer.json";

pub(super) fn plan(plan: &mut Plan) -> Result<(), CommandError> {
    if !plan.has("tokenizer_regex") {
        return Ok(());
    }
    let tokenizer = Tokenizer::load(&plan.model)?;
    let Some(text) = plan.read(NAME) else { return Ok(()) };
    let text =
        String::from_utf8(text).map_err(|error| CommandError::new(Kind::InvalidModel, error))?;
    let Some(rule) = tokenizer.pre_tokenizer() else { return Ok(()) };
    let rule =
        serde_json::to_string_pretty(&rule).map_err(|e| CommandError::new(Kind::General, e))?;
    // As the tokenizers crate indents it, at the depth where it stands.
    let rule = rule.replace('\n', "\n  ");
    let text = replace(&text, &rule)
        .map_err(|e| CommandError::new(Kind::InvalidModel, format!("{NAME}: {e}")))?;
    plan.write(NAME, text.into_bytes());
    Ok(())
}

/// Replaces the pre-tokenizer in the text and leaves every other byte of it.
fn replace(text: &str, rule: &str) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    struct Outline<'t> {
        #[serde(borrow)]
        pre_tokenizer: &'t RawValue,
    }
    let Outline { pre_tokenizer } = serde_json::from_str(text)?;
    let old = pre_tokenizer.get();
    // The value is a part of the text.
    let start = old.as_ptr().addr() - text.as_ptr().addr();
    Ok(format!("{}{rule}{}", &text[..start], &text[start + old.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pre_tokenizer_is_replaced() {
        let text = r#"{"a": [1e-06, "\u00e9"], "pre_tokenizer": {"old": [1]} , "b": 1}"#;
        let expected = r#"{"a": [1e-06, "\u00e9"], "pre_tokenizer": "new" , "b": 1}"#;
        assert_eq!(replace(text, "\"new\"").unwrap(), expected);
        assert!(replace("{}", "1").is_err());
    }
}
