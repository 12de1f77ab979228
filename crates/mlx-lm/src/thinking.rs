//! Separates a model's reasoning from its answer.
//!
//! Models write their reasoning between two markers. [`Thinking`] says which ones a model uses,
//! found in its vocabulary or chat template, and whether a rendered prompt already opens such a
//! block; [`ThinkingSplitter`] cuts the generated text along them. The markers themselves are
//! left out, and with them the markers that some formats put around the answer. The outcome does
//! not depend on how the text was cut into pieces.

use crate::chat::ChatTemplate;
use crate::scan::{Scan, scan};
use crate::tokenizer::Tokenizer;

/// How a model marks its reasoning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinking {
    start: String,
    end: String,
    start_ids: Vec<u32>,
    end_ids: Vec<u32>,
    markers: Vec<String>,
    boundaries: Vec<String>,
}

/// One way of marking reasoning, and the tokens by which a vocabulary is known to use it.
struct Format {
    tokens: &'static [&'static str],
    start: &'static str,
    end: &'static str,
    markers: &'static [&'static str],
    /// Whether a template that writes both markers is proof enough without such tokens.
    in_template: bool,
}

const FORMATS: [Format; 7] = [
    Format::tags(&["<think>", "</think>"]),
    Format::tags(&["<longcat_think>", "</longcat_think>"]),
    Format::tags(&["<|think:start|>", "<|think:end|>"]),
    // Gemma 4.
    Format {
        tokens: &["<|channel>", "<channel|>"],
        start: "<|channel>thought",
        end: "<channel|>",
        markers: &[],
        in_template: false,
    },
    // Kimi K3.
    Format {
        tokens: &["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"],
        start: "<|open|>think<|sep|>",
        end: "<|close|>think<|sep|>",
        markers: &[
            "<|open|>response<|sep|>",
            "<|close|>response<|sep|>",
            "<|close|>message<|sep|>",
        ],
        in_template: false,
    },
    // gpt-oss. DIFFERENCE: mlx-lm leaves its channels in the text.
    Format {
        tokens: &["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"],
        start: "<|channel|>analysis<|message|>",
        end: "<|end|>",
        markers: &["<|start|>assistant", "<|channel|>final<|message|>", "<|return|>"],
        in_template: false,
    },
    // Muse Spark.
    Format {
        tokens: &["<|start|>", "<|message|>", "<|eom|>", "<|eot|>"],
        start: "to=self<|message|>",
        end: "<|eom|>",
        markers: &[
            "<|start|>assistant ",
            "to=user<|message|>",
            "to=commentary<|message|>",
            "<|eot|>",
        ],
        in_template: false,
    },
];

impl Format {
    const fn tags(tokens: &'static [&'static str; 2]) -> Self {
        Format { tokens, start: tokens[0], end: tokens[1], markers: &[], in_template: true }
    }
}

impl Thinking {
    /// Takes a pair of markers as given.
    pub fn new(start: impl Into<String>, end: impl Into<String>) -> Self {
        Thinking {
            start: start.into(),
            end: end.into(),
            start_ids: Vec::new(),
            end_ids: Vec::new(),
            markers: Vec::new(),
            boundaries: Vec::new(),
        }
    }

    /// Finds the markers of a model: by its vocabulary, else by its template.
    pub(crate) fn detect(tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Option<Self> {
        let known = |format: &&Format| {
            format.tokens.iter().all(|token| tokenizer.token_to_id(token).is_some())
        };
        let written = |format: &&Format| {
            let source = template.map_or("", |template| template.source(false));
            format.in_template && source.contains(format.start) && source.contains(format.end)
        };
        let format = FORMATS.iter().find(known).or_else(|| FORMATS.iter().find(written))?;
        let ids = |text| tokenizer.encode(text, false).unwrap_or_default();
        let special = tokenizer.special_ids().iter().filter_map(|id| tokenizer.id_to_token(*id));
        Some(Thinking {
            start_ids: ids(format.start),
            end_ids: ids(format.end),
            markers: format.markers.iter().map(|marker| marker.to_string()).collect(),
            boundaries: special.filter(|token| !format.tokens.contains(&token.as_str())).collect(),
            ..Thinking::new(format.start, format.end)
        })
    }

    /// Returns the marker that opens the reasoning.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// Returns the marker that closes the reasoning.
    pub fn end(&self) -> &str {
        &self.end
    }

    /// Returns the tokens of the opening marker.
    pub fn start_ids(&self) -> &[u32] {
        &self.start_ids
    }

    /// Returns the tokens of the closing marker.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// Returns the markers around the answer, which belong to neither part.
    pub fn markers(&self) -> &[String] {
        &self.markers
    }

    /// Whether a rendered prompt ends inside a block of reasoning, so that generation begins
    /// there.
    ///
    /// A marker that somebody quotes in a message does not count: behind it comes the special
    /// token that ends the message.
    pub fn is_open(&self, prompt: &str) -> bool {
        let Some((_, block)) = prompt.rsplit_once(&self.start) else { return false };
        !block.contains(&self.end) && !self.boundaries.iter().any(|token| block.contains(token))
    }

    /// Returns a splitter for a text that begins inside a block of reasoning or outside.
    pub fn splitter(&self, open: bool) -> ThinkingSplitter {
        ThinkingSplitter {
            // The start marker is dropped inside a block too: models repeat it.
            inside: vec![self.end.clone(), self.start.clone()],
            outside: [&self.start, &self.end].into_iter().chain(&self.markers).cloned().collect(),
            open,
            pending: String::new(),
        }
    }
}

/// A piece of generated text and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the text is.
    pub kind: SegmentKind,
    /// The text, never empty.
    pub text: String,
}

/// What a [`Segment`] is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// The model's reasoning.
    Reasoning,
    /// What the model says.
    Answer,
}

/// Cuts a text that arrives in pieces into reasoning and answer.
#[derive(Clone, Debug)]
pub struct ThinkingSplitter {
    /// What matters inside a block: first the marker that closes it.
    inside: Vec<String>,
    /// What matters outside: first the marker that opens a block.
    outside: Vec<String>,
    open: bool,
    pending: String,
}

impl ThinkingSplitter {
    /// Takes the next piece and returns what is certain, in order. What may become a marker is
    /// held back.
    pub fn push(&mut self, text: &str) -> Vec<Segment> {
        self.pending.push_str(text);
        self.advance(false)
    }

    /// Returns what was held back.
    pub fn finish(&mut self) -> Vec<Segment> {
        self.advance(true)
    }

    /// Whether the text so far ends inside a block of reasoning.
    pub fn is_open(&self) -> bool {
        self.open
    }

    fn advance(&mut self, last: bool) -> Vec<Segment> {
        let mut segments = Vec::new();
        loop {
            let patterns = if self.open { &self.inside } else { &self.outside };
            match scan(&self.pending, patterns, last) {
                Scan::Found { at, pattern } => {
                    let rest = self.pending.split_off(at + patterns[pattern].len());
                    let mut text = std::mem::replace(&mut self.pending, rest);
                    text.truncate(at);
                    self.emit(text, &mut segments);
                    self.open ^= pattern == 0;
                }
                Scan::Partial { at } => {
                    let held = self.pending.split_off(at);
                    let text = std::mem::replace(&mut self.pending, held);
                    self.emit(text, &mut segments);
                    return segments;
                }
                Scan::Clear => {
                    let text = std::mem::take(&mut self.pending);
                    self.emit(text, &mut segments);
                    return segments;
                }
            }
        }
    }

    fn emit(&self, text: String, segments: &mut Vec<Segment>) {
        let kind = if self.open { SegmentKind::Reasoning } else { SegmentKind::Answer };
        match segments.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.kind == kind => last.text.push_str(&text),
            _ => segments.push(Segment { kind, text }),
        }
    }
}
