//! A conversation over several turns.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};

use mlx_lm::generate::{GenerateOptions, Session};
use mlx_lm::load::Loaded;

use super::answer::{self, Page, Sink};
use super::conversation::{Conversation, PLAIN_STOPS};
use super::input::{Input, Reader};
use super::{Args, INTERRUPTED};
use crate::error::{CommandError, Kind};
use crate::interrupt::Interrupt;
use crate::output::{Count, Output, to_json};

const HELP: &str = "\
/help         this list
/clear        forget the conversation, keep the system prompt
/system TEXT  set the system prompt; without TEXT, remove it
/save FILE    write the conversation to a new file, as JSON
/quit         end the chat; so does the end of input (Ctrl-D)
A line that ends in \\ goes on in the next, and so does text between \"\"\" and \"\"\".
Ctrl-C ends an answer, and at the prompt, given twice, the chat.";

pub(super) fn run(
    args: &Args,
    loaded: &Loaded,
    options: GenerateOptions,
    output: &Output,
) -> Result<(), CommandError> {
    let in_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let reader =
        if in_terminal { Reader::terminal(output.is_stderr_styled())? } else { Reader::lines() };
    let mut chat = Chat::new(args, loaded, options, output)?;
    if in_terminal {
        chat.greet();
    }
    chat.run(reader)
}

struct Chat<'a> {
    args: &'a Args,
    loaded: &'a Loaded,
    options: GenerateOptions,
    output: &'a Output,
    interrupt: Interrupt,
    conversation: Conversation,
    session: Session<'a>,
    /// The files that this chat wrote, which it may write again.
    saved: BTreeSet<String>,
}

/// What a turn asks for.
#[derive(Debug, PartialEq)]
enum Request<'t> {
    Nothing,
    Say(&'t str),
    Help,
    Clear,
    System(Option<&'t str>),
    Save(&'t str),
    Quit,
    Unknown(&'t str),
}

impl<'t> Request<'t> {
    /// A turn is a command when its first word is a slash and letters; `/etc/hosts` is not.
    fn parse(text: &'t str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match word {
            "" => Request::Nothing,
            "/help" => Request::Help,
            "/clear" => Request::Clear,
            "/system" => Request::System(Some(rest).filter(|text| !text.is_empty())),
            "/save" => Request::Save(rest),
            "/quit" | "/exit" => Request::Quit,
            "quit" | "exit" if rest.is_empty() => Request::Quit,
            _ => match word.strip_prefix('/') {
                Some(name) if !name.is_empty() && name.chars().all(char::is_alphabetic) => {
                    Request::Unknown(word)
                }
                _ => Request::Say(text),
            },
        }
    }
}

impl<'a> Chat<'a> {
    fn new(
        args: &'a Args,
        loaded: &'a Loaded,
        mut options: GenerateOptions,
        output: &'a Output,
    ) -> Result<Self, CommandError> {
        let conversation = args.conversation();
        if conversation.template(&loaded.tokenizer).is_none() {
            options.stop.extend(PLAIN_STOPS.map(str::to_owned));
        }
        Ok(Chat {
            args,
            loaded,
            options,
            output,
            interrupt: Interrupt::catch()?,
            conversation,
            session: Session::new(loaded),
            saved: BTreeSet::new(),
        })
    }

    fn greet(&self) {
        let model = &self.loaded.model;
        self.output.note(&format!(
            "{}: {}, {} parameters. /help lists the commands, Ctrl-D ends.",
            self.args.model.display(),
            model.config().model_type,
            Count(model.n_parameters())
        ));
    }

    fn run(&mut self, mut reader: Reader) -> Result<(), CommandError> {
        let mut interrupted = false;
        loop {
            let text = match reader.read()? {
                Input::End => return Ok(()),
                Input::Interrupted if interrupted => return Ok(()),
                Input::Interrupted => {
                    interrupted = true;
                    self.output.note("Ctrl-C again ends the chat");
                    continue;
                }
                Input::Turn(text) => text,
            };
            interrupted = false;
            let request = Request::parse(&text);
            if request == Request::Quit {
                return Ok(());
            }
            if let Err(error) = self.answer(&request) {
                self.output.report(&error);
            }
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Result<(), CommandError> {
        match *request {
            Request::Nothing | Request::Quit => Ok(()),
            Request::Say(text) => self.say(text),
            Request::Help => {
                self.output.note(HELP);
                Ok(())
            }
            Request::Clear => {
                self.conversation.clear();
                self.session = Session::new(self.loaded);
                self.output.note("the conversation is forgotten");
                Ok(())
            }
            Request::System(text) => {
                self.conversation.set_system(text.map(str::to_owned));
                let state = if text.is_some() { "set" } else { "removed" };
                self.output.note(&format!("the system prompt is {state}"));
                Ok(())
            }
            Request::Save(path) => self.save(path),
            Request::Unknown(word) => Err(CommandError::usage(format!("unknown command {word}"))
                .hint("/help lists the commands")),
        }
    }

    /// Answers a turn. One that fails leaves the conversation as it was before.
    fn say(&mut self, text: &str) -> Result<(), CommandError> {
        self.conversation.ask(text);
        let sink = if self.args.no_stream { Sink::AtEnd } else { Sink::AtOnce };
        let page = Page::new(self.output, sink, !self.args.no_reasoning);
        let answer = self.conversation.request(&self.loaded.tokenizer).and_then(|request| {
            answer::generate(&mut self.session, &request, &self.options, page, &self.interrupt)
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.conversation.take_back();
                return match error.kind {
                    Kind::Interrupted => {
                        self.output.note(INTERRUPTED);
                        Ok(())
                    }
                    Kind::ContextLength => Err(error.hint("/clear starts a new conversation")),
                    _ => Err(error),
                };
            }
        };
        let reason = answer.summary.finish_reason;
        if let Some(notice) = self.args.cut_notice(reason, self.loaded) {
            self.output.note(&notice);
        }
        self.args.report(&answer.summary, self.output);
        match answer.summary.token_ids.is_empty() {
            true => self.conversation.take_back(),
            false => self.conversation.answered(answer.text, answer.reasoning),
        }
        Ok(())
    }

    fn save(&mut self, path: &str) -> Result<(), CommandError> {
        if path.is_empty() {
            return Err(CommandError::usage("/save needs the name of a file"));
        }
        let text = to_json(&serde_json::json!({
            "model": self.args.model.display().to_string(),
            "messages": self.conversation.messages(),
        }))?;
        let again = self.saved.contains(path);
        let opened = OpenOptions::new().write(true).truncate(true).create_new(!again).open(path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| CommandError::new(Kind::General, format!("{path}: {e}")))?;
        self.saved.insert(path.to_owned());
        self.output.note(&format!("saved to {path}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_what_is_said() {
        for (text, expected) in [
            ("  ", Request::Nothing),
            (" hi there ", Request::Say("hi there")),
            ("/help", Request::Help),
            ("/system  Be brief. \n", Request::System(Some("Be brief."))),
            ("/system", Request::System(None)),
            ("/save a b.json", Request::Save("a b.json")),
            ("/quit", Request::Quit),
            ("exit", Request::Quit),
            ("exit the vim", Request::Say("exit the vim")),
            ("/helpme please", Request::Unknown("/helpme")),
            ("/etc/hosts has what?", Request::Say("/etc/hosts has what?")),
            ("/", Request::Say("/")),
        ] {
            assert_eq!(Request::parse(text), expected, "{text:?}");
        }
    }
}
