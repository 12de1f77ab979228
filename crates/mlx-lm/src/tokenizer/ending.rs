//! Which token ends a generation, where neither `generation_config.json` nor `config.json` says.
//!
//! The chat template is asked first: what it writes behind an answer is what the model was taught
//! to write there. Then come the tokens that are known to end a text.

use super::Tokenizer;
use crate::chat::{ChatTemplate, Message, RenderOptions};

/// An answer that no template has in it.
const ANSWER: &str = "7Qanswer7Q";

/// Tokens that end a turn, then those that end a text.
const KNOWN: [&str; 16] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|eot|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "[EOS]",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eos|>",
    "<eos>",
    "</s>",
    "<|EOT|>",
];

/// Adds the ends that the files beside the tokenizer left open, with a note for each.
pub(super) fn complete(tokenizer: &mut Tokenizer) {
    const OPEN: &str = "config.json and generation_config.json name no end-of-sequence token";
    let template =
        tokenizer.chat_template().and_then(|template| behind_answer(tokenizer, template));
    if let Some((id, token)) = template
        && tokenizer.eos_token_ids.insert(id)
    {
        tokenizer.notes.push(format!(
            "{OPEN}; {token} (id {id}) is taken for one, because the chat template writes it \
             behind an answer"
        ));
    }
    if !tokenizer.eos_token_ids.is_empty() {
        return;
    }
    let added = |token: &str| {
        let id = tokenizer.token_to_id(token)?;
        tokenizer.special_ids.contains(&id).then_some(id)
    };
    let known = KNOWN.iter().find_map(|token| Some((added(token)?, *token)));
    tokenizer.notes.push(match known {
        Some((id, token)) => {
            tokenizer.eos_token_ids.insert(id);
            format!(
                "{OPEN}; {token} (id {id}) is taken for one, because the tokenizer has it and it \
                 is known as such"
            )
        }
        None => format!(
            "{OPEN}, and none was found in the tokenizer or the chat template; generation ends at \
             its limit of tokens only"
        ),
    });
}

/// Returns the added token that the template writes directly behind an answer.
fn behind_answer(tokenizer: &Tokenizer, template: &ChatTemplate) -> Option<(u32, String)> {
    let conversation = [Message::user("Hello"), Message::assistant(ANSWER)];
    let text = template.render(&conversation, None, &RenderOptions::default()).ok()?;
    let (_, behind) = text.rsplit_once(ANSWER)?;
    let behind = behind.trim_start();
    let added = tokenizer.vocabulary.inner().get_added_vocabulary();
    let tokens = added.get_added_tokens_decoder().iter();
    tokens
        .filter(|(_, token)| !token.content.is_empty() && behind.starts_with(&token.content))
        .max_by_key(|(_, token)| token.content.len())
        .map(|(id, token)| (*id, token.content.clone()))
}
