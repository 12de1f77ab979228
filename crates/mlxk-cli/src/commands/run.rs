//! `mlxk run`.
//!
//! Here are the arguments and the single answer. [`chat`] is the conversation; both make their
//! prompts in [`conversation`], set their sampling in [`sampling`], and get and show an answer
//! through [`answer`].

use std::io::Read as _;
use std::path::PathBuf;

use mlx_lm::core::kernels::Arithmetic;
use mlx_lm::generate::{FinishReason, GenerateOptions, Session, Summary};
use mlx_lm::load::{LoadOptions, Loaded};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::KvArgs;
use crate::error::{CommandError, Kind};
use crate::interrupt::Interrupt;
use crate::model;
use crate::output::{Bytes, Output};

mod answer;
mod chat;
mod conversation;
mod input;
mod sampling;

use answer::{Page, Sink};
use conversation::{Conversation, Templating};
use sampling::SamplingArgs;

/// Tokens of an answer, where neither a flag nor the context window sets fewer.
const DEFAULT_MAX_TOKENS: usize = 32_768;

const INTERRUPTED: &str = "[interrupted]";

/// Ask a model, or talk with it
///
/// With a prompt it answers once. Without one it reads turns from the terminal, or one turn per
/// line from stdin, until the input ends; `/help` lists the commands of such a chat.
///
/// Sampling follows the model's generation_config.json where that file says anything, and is
/// otherwise --temperature 0.7 --top-p 0.9 --repetition-penalty 1.1. Flags come before both.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mlxk run demo What is the capital of France?
  git diff | mlxk run ./model - --prompt \"Review this change\"
  mlxk run demo --json --max-tokens 20 \"Count to ten\"")]
pub(crate) struct Args {
    /// The model: a name in the cache or a part of one, a directory, or `demo`
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    model: PathBuf,

    /// The prompt, joined by spaces; `-` reads stdin
    #[arg(value_name = "PROMPT", allow_negative_numbers = true)]
    words: Vec<String>,

    /// The prompt as one argument; it beats the words, and follows stdin when they are `-`
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "no_chat_template")]
    system: Option<String>,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// Tokens of an answer at most [default: 32768, or what the context window leaves]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,

    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,

    /// Whether a model that can think first does
    #[arg(long, value_enum, value_name = "WHEN", conflicts_with = "no_chat_template")]
    thinking: Option<Thinking>,

    /// Leave the reasoning out of what is shown
    #[arg(long)]
    no_reasoning: bool,

    /// Give the prompt to the model as it is
    #[arg(long)]
    no_chat_template: bool,

    /// Write the answer when it is complete, not as it comes
    #[arg(long)]
    no_stream: bool,

    #[command(flatten)]
    kv: KvArgs,

    /// Sum products with quantized weights in float32 on a CPU, not of activations in 8 bits
    #[arg(long)]
    exact: bool,

    /// Report times, speeds and memory on stderr
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Thinking {
    On,
    Off,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "run")]
pub(crate) struct Data {
    model: String,
    prompt: String,
    response: String,
    reasoning: Option<String>,
    #[schemars(extend("enum" = ["stop", "length"]))]
    finish_reason: &'static str,
    token_ids: Vec<u32>,
    usage: Usage,
    timings: Timings,
    peak_memory_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    cached_tokens: usize,
}

#[derive(Serialize, JsonSchema)]
struct Timings {
    load_seconds: f64,
    time_to_first_token_seconds: f64,
    prompt_tokens_per_second: Option<f64>,
    generation_tokens_per_second: Option<f64>,
}

pub(super) fn run(args: Args, output: &Output) -> Result<(), CommandError> {
    let prompt = args.prompt()?;
    if prompt.is_none() && output.is_json() {
        return Err(CommandError::usage("a chat has no JSON output")
            .hint("give a prompt, or `-` to read it from stdin"));
    }
    let (files, loaded, load_seconds) =
        model::load("run", &args.model, &LoadOptions::default(), output)?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens.map_or(DEFAULT_MAX_TOKENS, |n| n as usize)),
        sampling: args.sampling.resolve(&files)?,
        stop: args.stop.clone(),
        seed: args.sampling.seed,
        kv_quantization: args.kv.into(),
        arithmetic: if args.exact { Arithmetic::Exact } else { Arithmetic::Fast },
        ..GenerateOptions::default()
    };
    if args.verbose {
        output.note(&format!("loaded in {load_seconds:.2} s"));
    }
    match prompt {
        Some(prompt) => run_once(&args, prompt, &loaded, &options, load_seconds, output),
        None => chat::run(&args, &loaded, options, output),
    }
}

impl Args {
    /// Returns the prompt; none is a chat.
    fn prompt(&self) -> Result<Option<String>, CommandError> {
        let prompt = if self.words == ["-"] {
            let stdin = read_stdin()?;
            match &self.prompt {
                Some(text) => format!("{stdin}\n\n{text}"),
                None => stdin,
            }
        } else if let Some(text) = &self.prompt {
            text.clone()
        } else if self.words.is_empty() {
            return Ok(None);
        } else {
            self.words.join(" ")
        };
        match prompt.trim().is_empty() {
            true => Err(CommandError::usage("the prompt is empty")),
            false => Ok(Some(prompt)),
        }
    }

    fn conversation(&self) -> Conversation {
        let templating = match self.no_chat_template {
            true => Templating::Off,
            false => Templating::On { thinking: self.thinking.map(|when| when == Thinking::On) },
        };
        Conversation::new(templating, self.system.clone())
    }

    /// Says which bound cut an answer short, or nothing if none did.
    fn cut_notice(&self, reason: FinishReason, loaded: &Loaded) -> Option<String> {
        match (reason, self.max_tokens) {
            (FinishReason::Stop, _) => None,
            (FinishReason::Cancelled, _) => Some(INTERRUPTED.to_owned()),
            (FinishReason::Length, Some(n)) => Some(format!("[cut at --max-tokens {n}]")),
            (FinishReason::Length, None) => Some(format!(
                "[cut at the default of {DEFAULT_MAX_TOKENS} tokens, see --max-tokens]"
            )),
            (FinishReason::Context, _) => {
                let context = loaded.model.config().context_length.unwrap_or(0);
                Some(format!("[cut at the context window of {context} tokens]"))
            }
        }
    }

    /// Says on stderr what an answer cost, if that was asked for.
    fn report(&self, summary: &Summary, output: &Output) {
        if !self.verbose {
            return;
        }
        let speed =
            |speed: Option<f64>| speed.map_or(String::new(), |s| format!(", {s:.1} tokens/s"));
        let cached = match summary.cached_tokens {
            0 => String::new(),
            n => format!(" ({n} cached)"),
        };
        output.note(&format!(
            "prompt: {} tokens{cached}{}",
            summary.prompt_tokens,
            speed(prompt_speed(summary))
        ));
        output.note(&format!(
            "answer: {} tokens{}",
            summary.generation_tokens,
            speed(generation_speed(summary))
        ));
        output.note(&format!("first token after {:.3} s", summary.time_to_first_token_seconds));
        output.note(&format!("peak memory: {}", Bytes(summary.peak_memory_bytes)));
    }
}

/// Answers one prompt.
fn run_once(
    args: &Args,
    prompt: String,
    loaded: &Loaded,
    options: &GenerateOptions,
    load_seconds: f64,
    output: &Output,
) -> Result<(), CommandError> {
    let mut conversation = args.conversation();
    conversation.ask(prompt.as_str());
    let request = conversation.request_once(&loaded.tokenizer)?;
    let interrupt = Interrupt::catch()?;
    let sink = match (output.is_json(), args.no_stream) {
        (true, _) => Sink::Nowhere,
        (false, true) => Sink::AtEnd,
        (false, false) => Sink::AtOnce,
    };
    let page = Page::new(output, sink, !args.no_reasoning);
    let mut session = Session::new(loaded);
    let answer = answer::generate(&mut session, &request, options, page, &interrupt)?;
    let summary = &answer.summary;
    let cancelled = summary.finish_reason == FinishReason::Cancelled;
    let data = Data {
        model: args.model.display().to_string(),
        prompt,
        response: answer.text,
        reasoning: answer.reasoning.filter(|_| !args.no_reasoning),
        finish_reason: summary.finish_reason.as_str(),
        token_ids: summary.token_ids.clone(),
        usage: Usage {
            prompt_tokens: summary.prompt_tokens,
            completion_tokens: summary.generation_tokens,
            total_tokens: summary.prompt_tokens + summary.generation_tokens,
            cached_tokens: summary.cached_tokens,
        },
        timings: Timings {
            load_seconds,
            time_to_first_token_seconds: summary.time_to_first_token_seconds,
            prompt_tokens_per_second: prompt_speed(summary),
            generation_tokens_per_second: generation_speed(summary),
        },
        peak_memory_bytes: summary.peak_memory_bytes,
    };
    if !cancelled && !output.is_json() {
        args.cut_notice(summary.finish_reason, loaded).inspect(|notice| output.note(notice));
    }
    args.report(summary, output);
    match (output.is_json(), cancelled) {
        (_, true) => {
            let data = serde_json::to_value(&data);
            Err(CommandError::new(Kind::Interrupted, "interrupted")
                .data(data.map_err(|e| CommandError::new(Kind::General, e))?))
        }
        (true, false) => output.success("run", &data),
        (false, false) => Ok(()),
    }
}

/// Returns a speed, where there was anything to measure.
fn prompt_speed(summary: &Summary) -> Option<f64> {
    Some(summary.prompt_tokens_per_second()).filter(|speed| *speed > 0.0)
}

fn generation_speed(summary: &Summary) -> Option<f64> {
    Some(summary.generation_tokens_per_second()).filter(|speed| *speed > 0.0)
}

fn read_stdin() -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| CommandError::new(Kind::General, format!("cannot read stdin: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        CommandError::new(Kind::General, format!("stdin is not UTF-8 text, byte {at} is wrong"))
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
