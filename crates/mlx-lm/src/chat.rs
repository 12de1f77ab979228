//! Chat templates: a conversation to the one text that a model reads.
//!
//! A model brings its template along, as a program in the Jinja language of transformers. It runs
//! here in minijinja, with what transformers adds to Jinja (the `dialect` module) and what
//! templates take from Python (the `python` module). A template is a stranger's program: it can
//! reach nothing but the conversation, and its steps, its depth and its output are limited.

use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::Environment;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;

mod dialect;
mod python;

pub use dialect::LocalTime;

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The names under which callers give a message's reasoning; templates read the first.
const REASONING_FIELDS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Marks where a message that is to be continued ends. The space shows whether the template
/// trims it.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

const WAY_OUT: &str = "--no-chat-template sends the prompt as it is";

/// One message of a conversation.
///
/// Fields beyond role and content (`tool_calls`, `reasoning_content`, `name`) are kept and handed
/// to the template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what the template knows beyond.
    pub role: String,
    /// A text, or a list of parts for models that see images; null where there is only a call.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub content: Value,
    /// All other fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// Makes a message of one text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: Value::String(content.into()), extra: Map::new() }
    }

    /// Makes a `system` message.
    pub fn system(content: impl Into<String>) -> Self {
        Message::new("system", content)
    }

    /// Makes a `user` message.
    pub fn user(content: impl Into<String>) -> Self {
        Message::new("user", content)
    }

    /// Makes an `assistant` message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Message::new("assistant", content)
    }
}

/// How a conversation is rendered.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// Ends the text with the head of the answer, so that the model writes it.
    pub add_generation_prompt: bool,
    /// Leaves the last message open, so that the model continues it. Excludes
    /// [`RenderOptions::add_generation_prompt`].
    pub continue_final_message: bool,
    /// Whether a model that can think does. When absent, it does (see
    /// [`ChatTemplate::with_thinking`]).
    pub enable_thinking: Option<bool>,
    /// The time that templates with a date in them see; UTC now when absent.
    pub now: Option<LocalTime>,
    /// Further variables. They hide special tokens and `enable_thinking`, not the conversation.
    pub extra: Map<String, Value>,
}

/// A model's chat template, or several under names.
///
/// Templates are compiled when first used, so that a broken one does not keep a model from
/// completing plain text.
#[derive(Clone)]
pub struct ChatTemplate {
    templates: Vec<Named>,
    special_tokens: Map<String, Value>,
    thinks: Option<bool>,
    /// The name of the code that the model's files ask for instead of a template.
    code: Option<String>,
}

#[derive(Clone)]
struct Named {
    name: String,
    source: String,
    compiled: Arc<OnceLock<Result<Environment<'static>, minijinja::Error>>>,
}

impl Named {
    fn new(name: impl Into<String>, source: impl Into<String>) -> Self {
        Named { name: name.into(), source: source.into(), compiled: Arc::default() }
    }
}

impl ChatTemplate {
    /// Takes the source of one template.
    pub fn new(source: impl Into<String>) -> Self {
        ChatTemplate::named([(DEFAULT, source)])
    }

    /// Takes templates by name. Where there is one called `tool_use` it serves conversations with
    /// tools; `default` serves the others.
    pub fn named<N: Into<String>, S: Into<String>>(
        templates: impl IntoIterator<Item = (N, S)>,
    ) -> Self {
        ChatTemplate {
            templates: templates
                .into_iter()
                .map(|(name, source)| Named::new(name, source))
                .collect(),
            special_tokens: Map::new(),
            thinks: None,
            code: None,
        }
    }

    /// Finds a model's template: in `chat_template.jinja` and `chat_templates/`, else in its
    /// `tokenizer_config.json`, which the caller has read, else in `chat_template.json`.
    ///
    /// DIFFERENCE: where mlx-lm has a program in place of the template (`chat_template_type`), a
    /// template beside it is used, and without one rendering is [`ErrorKind::Unsupported`].
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when a template is neither text nor a list of named texts, and those
    /// of [`ModelFiles::read`].
    pub fn from_files(files: &ModelFiles, config: &Map<String, Value>) -> Result<Option<Self>> {
        let mut separate = Vec::new();
        if let Some(source) = files.read_text("chat_template.jinja")? {
            separate.push((DEFAULT.to_owned(), source));
        }
        for file in files.list() {
            let name = file.strip_prefix("chat_templates/").and_then(|n| n.strip_suffix(".jinja"));
            if let Some(name) = name.filter(|name| !name.contains('/'))
                && let Some(source) = files.read_text(&file)?
            {
                separate.push((name.to_owned(), source));
            }
        }
        if !separate.is_empty() {
            return Ok(Some(ChatTemplate::named(separate)));
        }
        if let Some(value) = config.get("chat_template").filter(|value| !value.is_null()) {
            return from_json(value, &files.describe("tokenizer_config.json")).map(Some);
        }
        match files.read_json("chat_template.json")? {
            Some(value) => {
                let value = value.get("chat_template").unwrap_or(&value);
                from_json(value, &files.describe("chat_template.json")).map(Some)
            }
            None => Ok(config.get("chat_template_type").and_then(Value::as_str).map(|code| {
                let none: [(&str, &str); 0] = [];
                ChatTemplate { code: Some(code.to_owned()), ..ChatTemplate::named(none) }
            })),
        }
    }

    /// Sets the tokenizer's special tokens by name, which templates use as variables.
    #[must_use]
    pub fn with_special_tokens(mut self, special_tokens: Map<String, Value>) -> Self {
        self.special_tokens = special_tokens;
        self
    }

    /// Sets what `enable_thinking` is where [`RenderOptions`] leave it open.
    #[must_use]
    pub fn with_thinking(mut self, thinks: bool) -> Self {
        self.thinks = Some(thinks);
        self
    }

    /// Returns the source of the template for a conversation with or without tools; empty when
    /// there is none.
    pub fn source(&self, with_tools: bool) -> &str {
        self.choose(with_tools).map_or("", |template| &template.source)
    }

    /// Checks that the template compiles.
    ///
    /// # Errors
    /// [`ErrorKind::Template`] with the line at fault.
    pub fn check(&self) -> Result<()> {
        self.templates.iter().try_for_each(|template| compiled(template).map(|_| ()))
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`ErrorKind::Template`] when the template does not compile, refuses the conversation, or
    /// exceeds its limits; [`ErrorKind::InvalidArgument`] for an empty conversation or options
    /// that exclude each other.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        options: &RenderOptions,
    ) -> Result<String> {
        let messages = serde_json::to_value(messages)
            .map_err(|e| Error::new(ErrorKind::InvalidArgument, format!("messages: {e}")))?;
        self.render_json(&messages, tools, options)
    }

    /// Renders a conversation given as JSON: a list of objects.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_json(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        options: &RenderOptions,
    ) -> Result<String> {
        let mut messages = prepare(messages)?;
        let tools = tools.filter(|tools| !tools.is_null());
        let template = self.choose(tools.is_some()).ok_or_else(|| {
            let names: Vec<_> = self.templates.iter().map(|t| t.name.as_str()).collect();
            let error = match &self.code {
                Some(code) => Error::new(
                    ErrorKind::Unsupported,
                    format!("chat template: the model's is the program {code:?}, not a template"),
                ),
                None => Error::new(
                    ErrorKind::Template,
                    format!("chat template: none is called \"default\", only {names:?}"),
                ),
            };
            error.with_hint(WAY_OUT)
        })?;
        let continued = match options.continue_final_message {
            true => Some(open_final_message(&mut messages, options)?),
            false => None,
        };
        let environment = compiled(template)?;
        let steps = dialect::max_steps(messages.len());
        let context = self.context(messages, tools, options);
        let text = dialect::render(environment, context, steps).map_err(|e| template_error(&e))?;
        match continued {
            Some(content) => cut_at_tag(text, &content),
            None => Ok(text),
        }
    }

    fn choose(&self, with_tools: bool) -> Option<&Named> {
        let find = |name| self.templates.iter().find(|template| template.name == name);
        with_tools.then(|| find(TOOL_USE)).flatten().or_else(|| find(DEFAULT))
    }

    fn context(
        &self,
        messages: Vec<Value>,
        tools: Option<&Value>,
        options: &RenderOptions,
    ) -> minijinja::Value {
        let mut variables = self.special_tokens.clone();
        if let Some(thinking) = options.enable_thinking.or(self.thinks) {
            variables.insert("enable_thinking".into(), thinking.into());
        }
        variables.entry("documents").or_insert(Value::Null);
        variables.extend(options.extra.clone());
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), tools.cloned().unwrap_or(Value::Null));
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        dialect::context(&variables, options.now.unwrap_or_else(LocalTime::utc_now))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.templates.iter().map(|template| &template.name).collect();
        write!(f, "ChatTemplate({names:?})")
    }
}

fn from_json(value: &Value, file: &str) -> Result<ChatTemplate> {
    let wrong = || Error::format(file, "\"chat_template\" is neither text nor a list of templates");
    match value {
        Value::String(source) => Ok(ChatTemplate::new(source.as_str())),
        Value::Array(list) => list
            .iter()
            .map(|entry| Some((entry["name"].as_str()?, entry["template"].as_str()?)))
            .collect::<Option<Vec<_>>>()
            .map(ChatTemplate::named)
            .ok_or_else(wrong),
        Value::Object(map) => map
            .iter()
            .map(|(name, source)| Some((name.as_str(), source.as_str()?)))
            .collect::<Option<Vec<_>>>()
            .map(ChatTemplate::named)
            .ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// Copies the messages as transformers hands them to a template: without fields that are null,
/// and with the reasoning under every name that templates read it by.
fn prepare(messages: &Value) -> Result<Vec<Value>> {
    let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, "chat template: there are no messages")
    })?;
    list.iter()
        .map(|message| {
            let Value::Object(fields) = message else {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("chat template: a message is not an object: {message}"),
                ));
            };
            let mut fields = fields.clone();
            fields.retain(|_, value| !value.is_null());
            let reasoning = REASONING_FIELDS.iter().find_map(|name| fields.get(*name)).cloned();
            if let Some(reasoning) = reasoning {
                fields.entry("thinking").or_insert(reasoning.clone());
                fields.insert("reasoning_content".into(), reasoning);
            }
            Ok(Value::Object(fields))
        })
        .collect()
}

/// Puts the tag at the end of the last message's text and returns that text.
fn open_final_message(messages: &mut [Value], options: &RenderOptions) -> Result<String> {
    let invalid =
        |text: &str| Err(Error::new(ErrorKind::InvalidArgument, format!("chat template: {text}")));
    if options.add_generation_prompt {
        return invalid("continuing a message excludes beginning a new one");
    }
    let last = messages.last_mut().and_then(|message| message.get_mut("content"));
    let text = match last {
        Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
        other => other,
    };
    let Some(Value::String(text)) = text else {
        return invalid("the last message has no text to continue");
    };
    let content = text.clone();
    text.push_str(CONTINUE_TAG);
    Ok(content)
}

/// Cuts a rendered conversation where its last message ends.
fn cut_at_tag(mut text: String, content: &str) -> Result<String> {
    let at = text.rfind(CONTINUE_TAG.trim_end()).filter(|_| text.contains(content.trim()));
    let Some(at) = at else {
        return Err(Error::new(
            ErrorKind::Template,
            "chat template: the last message cannot be continued, the template changes it",
        ));
    };
    let kept = text[at..].starts_with(CONTINUE_TAG);
    text.truncate(at);
    if !kept {
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

fn compiled(template: &Named) -> Result<&Environment<'static>> {
    template
        .compiled
        .get_or_init(|| dialect::environment(&template.source))
        .as_ref()
        .map_err(template_error)
}

fn template_error(error: &minijinja::Error) -> Error {
    if let Some(message) = dialect::raised(error) {
        let text = format!("chat template: refuses the conversation: {message}");
        return Error::new(ErrorKind::Template, text).with_hint(WAY_OUT);
    }
    let what = match (error.kind(), error.detail()) {
        (minijinja::ErrorKind::OutOfFuel, _) => {
            "takes too many steps for such a conversation".to_owned()
        }
        (minijinja::ErrorKind::WriteFailure, _) => {
            format!("writes more than {} bytes", dialect::MAX_OUTPUT_BYTES)
        }
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let place = error.line().map_or(String::new(), |line| format!(", line {line}"));
    Error::new(ErrorKind::Template, format!("chat template{place}: {what}")).with_hint(WAY_OUT)
}
