//! A conversation, and what of it the model gets to read.

use mlx_lm::chat::{ChatTemplate, Message, RenderOptions};
use mlx_lm::tokenizer::Tokenizer;
use serde_json::Value;

use crate::error::CommandError;

/// Where the speakers begin when there is no template to say so.
pub(super) const PLAIN_STOPS: [&str; 3] = ["\nHuman:", "\nAssistant:", "\nYou:"];

/// Whether the model's chat template is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Templating {
    Off,
    On { thinking: Option<bool> },
}

/// The turns so far.
pub(super) struct Conversation {
    templating: Templating,
    system: Option<String>,
    turns: Vec<Message>,
}

/// What the model is given.
pub(super) struct Request {
    pub(super) token_ids: Vec<u32>,
    pub(super) starts_in_reasoning: bool,
}

impl Conversation {
    pub(super) fn new(templating: Templating, system: Option<String>) -> Self {
        Conversation { templating, system, turns: Vec::new() }
    }

    /// Adds a turn of the user.
    pub(super) fn ask(&mut self, text: impl Into<String>) {
        self.turns.push(Message::user(text));
    }

    /// Takes the last turn back, as one that could not be answered.
    pub(super) fn take_back(&mut self) {
        self.turns.pop();
    }

    /// Adds an answer.
    pub(super) fn answered(&mut self, text: String, reasoning: Option<String>) {
        let mut message = Message::assistant(text);
        if let Some(reasoning) = reasoning {
            message.extra.insert("reasoning_content".into(), Value::String(reasoning));
        }
        self.turns.push(message);
    }

    /// Forgets all turns.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
    }

    pub(super) fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// Returns the system prompt and all turns.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.system.iter().map(Message::system).chain(self.turns.iter().cloned()).collect()
    }

    /// Returns the template that the conversation goes through.
    pub(super) fn template<'t>(&self, tokenizer: &'t Tokenizer) -> Option<&'t ChatTemplate> {
        tokenizer.chat_template().filter(|_| self.templating != Templating::Off)
    }

    /// Renders the one prompt of a conversation without answers. Without a template it stands
    /// alone, as a text to be continued.
    pub(super) fn request_once(&self, tokenizer: &Tokenizer) -> Result<Request, CommandError> {
        match self.template(tokenizer) {
            Some(template) => self.templated(template, tokenizer),
            None => plain(&texts(&self.messages()).join("\n\n"), tokenizer),
        }
    }

    /// Renders the conversation up to where the model answers.
    pub(super) fn request(&self, tokenizer: &Tokenizer) -> Result<Request, CommandError> {
        match self.template(tokenizer) {
            Some(template) => self.templated(template, tokenizer),
            None => plain(&self.transcript(), tokenizer),
        }
    }

    fn templated(
        &self,
        template: &ChatTemplate,
        tokenizer: &Tokenizer,
    ) -> Result<Request, CommandError> {
        let enable_thinking = match self.templating {
            Templating::On { thinking } => thinking,
            Templating::Off => None,
        };
        let options = RenderOptions {
            add_generation_prompt: true,
            enable_thinking,
            ..RenderOptions::default()
        };
        let text = template.render(&self.messages(), None, &options)?;
        Ok(Request {
            token_ids: tokenizer.encode(&text, false)?,
            starts_in_reasoning: tokenizer.thinking().is_some_and(|t| t.is_open(&text)),
        })
    }

    /// Writes the conversation down as speakers and what they say.
    fn transcript(&self) -> String {
        let mut text = String::new();
        let messages = self.messages();
        for (message, content) in messages.iter().zip(texts(&messages)) {
            let speaker = match message.role.as_str() {
                "user" => "Human: ",
                "assistant" => "Assistant: ",
                _ => "",
            };
            text += &format!("{speaker}{content}\n\n");
        }
        text + "Assistant:"
    }
}

fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.content.as_str().unwrap_or_default()).collect()
}

/// Encodes a text that no template has put special tokens around.
fn plain(text: &str, tokenizer: &Tokenizer) -> Result<Request, CommandError> {
    let begins = tokenizer.bos_token().is_some_and(|token| text.starts_with(token));
    Ok(Request { token_ids: tokenizer.encode(text, !begins)?, starts_in_reasoning: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_name_the_speakers() {
        let mut conversation = Conversation::new(Templating::Off, Some("Be brief.".into()));
        conversation.ask("Hi");
        conversation.answered("Hello.".into(), Some("greet".into()));
        conversation.ask("again");
        conversation.take_back();
        conversation.ask("Bye");
        assert_eq!(
            conversation.transcript(),
            "Be brief.\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant:"
        );
        assert_eq!(conversation.messages().len(), 4);
        conversation.clear();
        conversation.set_system(None);
        assert_eq!(conversation.transcript(), "Assistant:");
    }
}
