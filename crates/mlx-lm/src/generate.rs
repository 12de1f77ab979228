//! From a prompt to text.
//!
//! A [`Session`] owns the caches of one conversation ([`TokenSession`] without text): each turn computes only what the prompt has
//! beyond the tokens that the caches hold. The prompt goes through in chunks that never compute
//! the output head; then each step is scheduled one token ahead, so that the host's work on a
//! token runs beside the device's on the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mlx_core::kernels::{self, Arithmetic, KernelOptions};
use mlx_core::{Array, Quantization, async_eval, eval, memory};

use crate::cache::Cache;
use crate::detokenizer::Detokenizer;
use crate::error::{Error, ErrorKind, Result};
use crate::load::{Loaded, Model};
use crate::sample::{Sampler, Sampling};
use crate::stop::StopStrings;
use crate::thinking::{Segment, SegmentKind, ThinkingSplitter};
use crate::tokenizer::Tokenizer;

/// Tokens between two returns of unused memory to the system.
const CLEAR_CACHE_EVERY: usize = 256;

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Tokens of the answer at most; `None` is the rest of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// Makes the draws repeatable.
    pub seed: Option<u64>,
    /// Prompt tokens that go through the model at once.
    pub prefill_step: usize,
    /// How caches pack keys and values; not at all where it is absent.
    pub kv_quantization: Option<KvQuantization>,
    /// What products with packed weights round, on a CPU.
    pub arithmetic: Arithmetic,
    /// Ends the generation when it becomes true; looked at between chunks of the prompt and
    /// between tokens.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// How caches pack keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvQuantization {
    /// The format, in affine mode.
    pub format: Quantization,
    /// Tokens of a cache up to which it stays as it is.
    pub start: usize,
}

impl KvQuantization {
    /// Tokens up to which caches stay as they are, where nothing else is said.
    pub const START: usize = 5000;

    /// Packs what caches have, if that is enough.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when keys or values are not of whole groups.
    pub fn apply(&self, caches: &mut [Cache]) -> Result<()> {
        for cache in caches {
            if cache.offset() as usize >= self.start {
                cache.quantize(self.format).map_err(|e| match e.kind() {
                    mlx_core::ErrorKind::InvalidArgument => {
                        Error::new(ErrorKind::InvalidArgument, e.to_string())
                            .with_hint("choose groups that divide the size of a head")
                    }
                    _ => e.into(),
                })?;
            }
        }
        Ok(())
    }
}

impl GenerateOptions {
    fn is_cancelled(&self) -> bool {
        is_set(self.cancel.as_ref())
    }
}

fn is_set(flag: Option<&Arc<AtomicBool>>) -> bool {
    flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            seed: None,
            prefill_step: 2048,
            kv_quantization: None,
            arithmetic: Arithmetic::Fast,
            cancel: None,
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended it, or a stop text came.
    Stop,
    /// As many tokens came as were asked for.
    Length,
    /// The context window is full.
    Context,
    /// The caller ended it.
    Cancelled,
}

impl FinishReason {
    /// Returns the name that OpenAI's interface gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop | FinishReason::Cancelled => "stop",
            FinishReason::Length | FinishReason::Context => "length",
        }
    }
}

/// A model's memory of one sequence of tokens, reused from prompt to prompt.
pub struct TokenSession<'m> {
    model: &'m Model,
    caches: Vec<Cache>,
    /// The tokens that the caches hold.
    tokens: Vec<u32>,
}

impl<'m> TokenSession<'m> {
    /// Starts with an empty memory.
    pub fn new(model: &'m Model) -> TokenSession<'m> {
        TokenSession { model, caches: model.make_cache(), tokens: Vec::new() }
    }

    /// Generates the tokens that follow `prompt`; stop texts play no part.
    ///
    /// # Errors
    /// When the prompt is empty, does not fit the context, or holds a token that the model does
    /// not have; when a setting makes no sense; when the model fails;
    /// [`ErrorKind::Cancelled`] when the caller ends it before the first token.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Result<TokenStream<'_>> {
        let limits = Limits::new(self.model, prompt, options)?;
        memory::reset_peak()?;
        let start = Instant::now();
        let cached_tokens = self.reuse(prompt);
        let sampler = Sampler::new(options.sampling.clone(), prompt, options.seed)?;
        let TokenSession { model, caches, tokens } = self;
        let mut stream = TokenStream {
            model,
            caches,
            fed: tokens,
            sampler,
            kernels: KernelOptions { arithmetic: options.arithmetic, ..kernels::options() },
            kv_quantization: options.kv_quantization,
            next: None,
            limits,
            n: 0,
            cached_tokens,
            start,
        };
        match stream.prefill(&prompt[cached_tokens..], options) {
            Ok(()) => {}
            // What went through before is sound.
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => {
                stream.reset();
                return Err(e);
            }
        }
        Ok(stream)
    }

    /// Cuts the caches down to what they have in common with `prompt`, and returns how much that
    /// is. At least one token is left to compute.
    fn reuse(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let common = common.min(prompt.len() - 1);
        let excess = (self.tokens.len() - common) as i32;
        if excess == 0 || self.caches.iter_mut().all(|cache| cache.trim(excess)) {
            self.tokens.truncate(common);
        } else {
            self.caches = self.model.make_cache();
            self.tokens.clear();
        }
        self.tokens.len()
    }
}

/// A model's memory of one conversation, reused from turn to turn.
pub struct Session<'m> {
    tokens: TokenSession<'m>,
    tokenizer: &'m Tokenizer,
}

impl<'m> Session<'m> {
    /// Starts with an empty memory.
    pub fn new(loaded: &'m Loaded) -> Session<'m> {
        Session { tokens: TokenSession::new(&loaded.model), tokenizer: &loaded.tokenizer }
    }

    /// Generates what follows `prompt`, the whole of the conversation so far.
    ///
    /// `starts_in_reasoning` says that the prompt ends inside a block of reasoning.
    ///
    /// # Errors
    /// As [`TokenSession::generate`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        starts_in_reasoning: bool,
        options: &GenerateOptions,
    ) -> Result<TextStream<'_>> {
        let tokenizer = self.tokenizer;
        Ok(TextStream {
            tokens: self.tokens.generate(prompt, options)?,
            text: TextPipeline {
                detokenizer: tokenizer.detokenizer(),
                stop: StopStrings::new(options.stop.iter().cloned()),
                thinking: tokenizer
                    .thinking()
                    .map(|t| ThinkingPipeline::new(t.splitter(starts_in_reasoning))),
                ready: VecDeque::new(),
            },
            eos_token_ids: tokenizer.eos_token_ids().iter().copied().collect(),
            cancel: options.cancel.clone(),
            finish_reason: None,
            failed: false,
            token_ids: Vec::new(),
            prompt_tokens: prompt.len(),
            first: None,
            last: None,
        })
    }
}

/// How long an answer may get.
struct Limits {
    max_tokens: usize,
    /// Whether the context window sets it, not the caller.
    by_context: bool,
}

impl Limits {
    fn new(model: &Model, prompt: &[u32], options: &GenerateOptions) -> Result<Limits> {
        let config = model.config();
        options.sampling.check(config.vocab_size)?;
        let Some(&largest) = prompt.iter().max() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "the prompt is empty"));
        };
        if largest as usize >= config.vocab_size {
            return Err(Error::format(
                "tokenizer.json",
                format!(
                    "makes token {largest}, but the model has only {} tokens",
                    config.vocab_size
                ),
            ));
        }
        let (n, wanted) = (prompt.len(), options.max_tokens);
        let Some(context) = config.context_length else {
            return Ok(Limits { max_tokens: wanted.unwrap_or(usize::MAX), by_context: false });
        };
        if n >= context {
            return Err(Error::new(
                ErrorKind::ContextLength,
                format!("the prompt has {n} tokens, the context window {context}"),
            )
            .with_hint("shorten the prompt, or start a new conversation"));
        }
        let room = context - n;
        Ok(match wanted {
            Some(max_tokens) if max_tokens <= room => Limits { max_tokens, by_context: false },
            _ => Limits { max_tokens: room, by_context: true },
        })
    }
}

/// Generated tokens as they come, computed one ahead of the reader.
///
/// Every token that was returned is in the session's memory, but for the last of `max_tokens`.
pub struct TokenStream<'s> {
    model: &'s Model,
    caches: &'s mut Vec<Cache>,
    fed: &'s mut Vec<u32>,
    sampler: Sampler,
    kernels: KernelOptions,
    kv_quantization: Option<KvQuantization>,
    /// The next token, on its way.
    next: Option<Array>,
    limits: Limits,
    /// How many tokens were returned.
    n: usize,
    cached_tokens: usize,
    start: Instant,
}

impl TokenStream<'_> {
    /// Feeds the prompt and starts the first token.
    fn prefill(&mut self, prompt: &[u32], options: &GenerateOptions) -> Result<()> {
        let (body, last) = prompt.split_at(prompt.len() - 1);
        for chunk in body.chunks(options.prefill_step.max(1)) {
            if options.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "cancelled while reading the prompt"));
            }
            let tokens = Array::from_slice(chunk, &[1, chunk.len() as i32])?;
            // Without the hidden states, which nobody wants, the last layer only fills its cache.
            self.fused(|stream| stream.model.forward(&tokens, stream.caches).map(drop))?;
            self.pack_caches()?;
            eval(self.caches.iter().flat_map(|cache| cache.state()))?;
            memory::clear_cache()?;
            self.fed.extend(chunk);
        }
        self.schedule(&Array::from_slice(last, &[1, 1])?)?;
        self.fed.extend(last);
        Ok(())
    }

    /// Runs a step, whose kernels become as few nodes as can be.
    fn fused<R>(&mut self, step: impl FnOnce(&mut Self) -> R) -> R {
        kernels::with_options(self.kernels, || kernels::fused(|| step(self)))
    }

    /// Feeds `[1, 1]` tokens and starts the one that follows.
    fn schedule(&mut self, tokens: &Array) -> Result<()> {
        let next = self.fused(|stream| -> Result<Array> {
            let hidden = stream.model.forward(tokens, stream.caches)?;
            Ok(stream.sampler.sample(&stream.model.head(&hidden)?.squeeze(1)?)?)
        })?;
        self.pack_caches()?;
        async_eval([&next])?;
        self.next = Some(next);
        Ok(())
    }

    fn pack_caches(&mut self) -> Result<()> {
        match self.kv_quantization {
            Some(quantization) => quantization.apply(self.caches),
            None => Ok(()),
        }
    }

    /// Returns the token on its way, after starting the one behind it unless this is the last.
    fn step(&mut self) -> Result<Option<u32>> {
        let Some(token) = self.next.take() else { return Ok(None) };
        let is_last = self.n + 1 >= self.limits.max_tokens;
        if !is_last {
            self.schedule(&token.reshape([1, 1])?)?;
        }
        let id = token.item::<u32>()?;
        if !is_last {
            self.fed.push(id);
        }
        self.n += 1;
        if self.n.is_multiple_of(CLEAR_CACHE_EVERY) {
            memory::clear_cache()?;
        }
        Ok(Some(id))
    }

    /// Forgets everything, after an error left the caches in an unknown state.
    fn reset(&mut self) {
        *self.caches = self.model.make_cache();
        self.fed.clear();
        self.next = None;
    }
}

impl Iterator for TokenStream<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.n >= self.limits.max_tokens {
            return None;
        }
        self.step().inspect_err(|_| self.reset()).transpose()
    }
}

/// What happens to tokens on their way to the reader.
struct TextPipeline {
    detokenizer: Detokenizer,
    stop: StopStrings,
    thinking: Option<ThinkingPipeline>,
    ready: VecDeque<Chunk>,
}

impl TextPipeline {
    fn add(&mut self, token: u32) {
        let text = self.stop.push(self.detokenizer.add(token));
        self.split(&text);
    }

    fn finish(&mut self) {
        let mut text = self.stop.push(self.detokenizer.finish());
        text.push_str(&self.stop.finish());
        self.split(&text);
        if let Some(thinking) = &mut self.thinking {
            let segments = thinking.splitter.finish();
            thinking.pass_on(segments, &mut self.ready);
        }
    }

    fn split(&mut self, text: &str) {
        match &mut self.thinking {
            Some(thinking) => {
                let segments = thinking.splitter.push(text);
                thinking.pass_on(segments, &mut self.ready);
            }
            None if text.is_empty() => {}
            None => {
                self.ready.push_back(Chunk { kind: SegmentKind::Answer, text: text.to_owned() });
            }
        }
    }
}

/// Tells reasoning from answer, and drops the line breaks that models write between a marker and
/// the text behind it.
struct ThinkingPipeline {
    splitter: ThinkingSplitter,
    /// The kind of what came last.
    kind: SegmentKind,
    /// Whether only line breaks came since the last marker.
    after_marker: bool,
}

impl ThinkingPipeline {
    fn new(splitter: ThinkingSplitter) -> Self {
        // Without reasoning the answer is passed on as it is.
        let (kind, after_marker) = match splitter.is_open() {
            true => (SegmentKind::Reasoning, true),
            false => (SegmentKind::Answer, false),
        };
        ThinkingPipeline { splitter, kind, after_marker }
    }

    fn pass_on(&mut self, segments: Vec<Segment>, ready: &mut VecDeque<Chunk>) {
        for Segment { kind, text } in segments {
            if kind != self.kind {
                (self.kind, self.after_marker) = (kind, true);
            }
            let text = if self.after_marker { text.trim_start_matches('\n') } else { &text };
            if !text.is_empty() {
                self.after_marker = false;
                ready.push_back(Chunk { kind, text: text.to_owned() });
            }
        }
    }
}

/// A piece of generated text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whether it is reasoning or answer.
    pub kind: ChunkKind,
    /// The text, never empty.
    pub text: String,
}

/// What a [`Chunk`] is part of.
pub type ChunkKind = SegmentKind;

/// Figures of a generation.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Why it ended; `Cancelled` while it has not.
    pub finish_reason: FinishReason,
    /// The generated tokens, with the end-of-sequence token where there was one.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of these were still in the caches.
    pub cached_tokens: usize,
    /// Generated tokens, without the end-of-sequence token.
    pub generation_tokens: usize,
    /// Seconds that the prompt took, up to the first token.
    pub prompt_seconds: f64,
    /// Seconds from the first token to the last.
    pub generation_seconds: f64,
    /// Seconds from the call to the first token.
    pub time_to_first_token_seconds: f64,
    /// The most memory that arrays took, in bytes.
    pub peak_memory_bytes: u64,
}

impl Summary {
    /// Returns the speed of the prompt, in computed tokens per second.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        rate(self.prompt_tokens - self.cached_tokens, self.prompt_seconds)
    }

    /// Returns the speed of the answer: tokens after the first, over the time they took.
    pub fn generation_tokens_per_second(&self) -> f64 {
        rate(self.token_ids.len().saturating_sub(1), self.generation_seconds)
    }
}

fn rate(n: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { n as f64 / seconds } else { 0.0 }
}

/// Generated text as it comes.
///
/// Dropping it ends the generation; the session stays usable.
pub struct TextStream<'s> {
    tokens: TokenStream<'s>,
    text: TextPipeline,
    eos_token_ids: Vec<u32>,
    cancel: Option<Arc<AtomicBool>>,
    finish_reason: Option<FinishReason>,
    failed: bool,
    token_ids: Vec<u32>,
    prompt_tokens: usize,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl TextStream<'_> {
    /// Ends the generation; text that was held back still comes.
    pub fn cancel(&mut self) {
        self.finish(FinishReason::Cancelled);
    }

    /// Returns the figures so far.
    pub fn summary(&self) -> Summary {
        let ended_by_token =
            self.token_ids.last().is_some_and(|id| self.eos_token_ids.contains(id));
        let first = self.first.unwrap_or_else(Instant::now);
        let last = self.last.unwrap_or(first);
        Summary {
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
            token_ids: self.token_ids.clone(),
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.tokens.cached_tokens,
            generation_tokens: self.token_ids.len() - usize::from(ended_by_token),
            prompt_seconds: (first - self.tokens.start).as_secs_f64(),
            generation_seconds: (last - first).as_secs_f64(),
            time_to_first_token_seconds: (first - self.tokens.start).as_secs_f64(),
            peak_memory_bytes: memory::peak().unwrap_or(0) as u64,
        }
    }

    fn finish(&mut self, reason: FinishReason) {
        if self.finish_reason.is_none() {
            self.finish_reason = Some(reason);
            self.text.finish();
        }
    }

    /// Takes one token, or notes why there is none.
    fn advance(&mut self) -> Result<()> {
        if is_set(self.cancel.as_ref()) {
            self.finish(FinishReason::Cancelled);
            return Ok(());
        }
        let Some(id) = self.tokens.next().transpose()? else {
            self.finish(match self.tokens.limits.by_context {
                true => FinishReason::Context,
                false => FinishReason::Length,
            });
            return Ok(());
        };
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.token_ids.push(id);
        if self.eos_token_ids.contains(&id) {
            self.finish(FinishReason::Stop);
            return Ok(());
        }
        self.text.add(id);
        if self.text.stop.stopped().is_some() {
            self.finish(FinishReason::Stop);
        }
        Ok(())
    }
}

impl Iterator for TextStream<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.text.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if self.finish_reason.is_some() || self.failed {
                return None;
            }
            if let Err(e) = self.advance() {
                self.failed = true;
                return Some(Err(e));
            }
        }
    }
}
