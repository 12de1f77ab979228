//! One answer: how it is got, taken apart into reasoning and answer, and shown.
//!
//! What is printed and what `--json` reports come out of the same [`Sections`], so they are equal
//! however the text arrived.

use anstyle::Style;
use mlx_lm::generate::{Chunk, ChunkKind, GenerateOptions, Session, Summary};

use super::conversation::Request;
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::output::{Output, printable};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// A complete answer.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) reasoning: Option<String>,
    pub(super) summary: Summary,
}

/// Gets an answer and shows it. Ctrl-C ends it early.
pub(super) fn generate(
    session: &mut Session<'_>,
    request: &Request,
    options: &GenerateOptions,
    mut page: Page<'_>,
    interrupt: &Interrupt,
) -> Result<Answer, CommandError> {
    interrupt.reset();
    let options = GenerateOptions { cancel: Some(interrupt.flag()), ..options.clone() };
    let mut stream = session.generate(&request.token_ids, request.starts_in_reasoning, &options)?;
    let mut sections = Sections::new(request.starts_in_reasoning);
    for chunk in &mut stream {
        match chunk {
            Ok(chunk) => {
                for piece in sections.push(chunk) {
                    page.show(&piece)?;
                }
            }
            Err(error) => {
                page.break_off()?;
                return Err(error.into());
            }
        }
    }
    page.finish()?;
    let summary = stream.summary();
    let reasoning = Some(sections.reasoning).filter(|text| !text.is_empty());
    Ok(Answer { text: sections.answer, reasoning, summary })
}

/// What comes out of [`Sections`].
#[derive(Debug, PartialEq)]
enum Piece {
    /// A section begins.
    Begin(ChunkKind),
    /// Text of the section.
    Text(String),
}

/// Takes the blank lines away that formats put around reasoning, and collects both parts.
#[derive(Default)]
struct Sections {
    /// The section that the text is in.
    kind: Option<ChunkKind>,
    /// Whether that section had any text.
    begun: bool,
    /// Blanks at the end of reasoning, which only count if more comes.
    held: String,
    reasoned: bool,
    reasoning: String,
    answer: String,
}

impl Sections {
    fn new(starts_in_reasoning: bool) -> Self {
        Sections { reasoned: starts_in_reasoning, ..Sections::default() }
    }

    fn push(&mut self, Chunk { kind, text }: Chunk) -> Vec<Piece> {
        if self.kind != Some(kind) {
            (self.kind, self.begun) = (Some(kind), false);
            self.held.clear();
        }
        let is_reasoning = kind == ChunkKind::Reasoning;
        self.reasoned |= is_reasoning;
        let mut text = text;
        if !self.begun && self.reasoned {
            text = text.trim_start().to_owned();
        }
        if is_reasoning {
            text = std::mem::take(&mut self.held) + &text;
            self.held = text.split_off(text.trim_end().len());
        }
        if text.is_empty() {
            return Vec::new();
        }
        let collected = if is_reasoning { &mut self.reasoning } else { &mut self.answer };
        let mut pieces = Vec::new();
        if !self.begun {
            self.begun = true;
            if !collected.is_empty() {
                collected.push_str("\n\n");
            }
            pieces.push(Piece::Begin(kind));
        }
        collected.push_str(&text);
        pieces.push(Piece::Text(text));
        pieces
    }
}

/// When what is shown is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sink {
    AtOnce,
    AtEnd,
    Nowhere,
}

/// Shows an answer on stdout.
pub(super) struct Page<'o> {
    output: &'o Output,
    sink: Sink,
    with_reasoning: bool,
    /// Whether headings tell reasoning and answer apart.
    headed: bool,
    section: Option<ChunkKind>,
    waiting: String,
    written: bool,
}

impl<'o> Page<'o> {
    pub(super) fn new(output: &'o Output, sink: Sink, with_reasoning: bool) -> Self {
        Page {
            output,
            sink,
            with_reasoning,
            headed: false,
            section: None,
            waiting: String::new(),
            written: false,
        }
    }

    fn show(&mut self, piece: &Piece) -> Result<(), CommandError> {
        match piece {
            Piece::Begin(kind) => {
                self.section = Some(*kind);
                if !self.is_shown() {
                    return Ok(());
                }
                let heading = self.heading(*kind);
                self.write(&heading)
            }
            Piece::Text(_) if !self.is_shown() => Ok(()),
            Piece::Text(text) => {
                let text = self.styled(text);
                self.write(&text)
            }
        }
    }

    fn is_shown(&self) -> bool {
        self.with_reasoning || self.section == Some(ChunkKind::Answer)
    }

    /// Returns what stands before a section, and notes that there was one.
    fn heading(&mut self, kind: ChunkKind) -> String {
        let first = !std::mem::replace(&mut self.written, true);
        let heading = |text: &str| match self.output.is_styled() {
            true => format!("{BOLD}{text}{BOLD:#}\n\n"),
            false => format!("**{text}**\n\n"),
        };
        let headed = self.headed;
        self.headed |= kind == ChunkKind::Reasoning;
        match (kind, first) {
            (ChunkKind::Reasoning, true) => heading("Reasoning"),
            (ChunkKind::Reasoning, false) => format!("\n\n---\n\n{}", heading("Reasoning")),
            (ChunkKind::Answer, _) if headed => format!("\n\n---\n\n{}", heading("Answer")),
            (ChunkKind::Answer, true) => String::new(),
            (ChunkKind::Answer, false) => "\n\n".to_owned(),
        }
    }

    fn styled(&self, text: &str) -> String {
        let text = if self.output.is_terminal() { printable(text) } else { text.to_owned() };
        match self.output.is_styled() && self.section == Some(ChunkKind::Reasoning) {
            true => format!("{DIM}{text}{DIM:#}"),
            false => text,
        }
    }

    /// Ends the text with a line of its own.
    fn finish(mut self) -> Result<(), CommandError> {
        self.write("\n")?;
        match self.sink {
            Sink::AtEnd => self.output.write(&self.waiting),
            Sink::AtOnce | Sink::Nowhere => Ok(()),
        }
    }

    /// Ends a text that cannot be completed, so that the error stands on a line of its own.
    fn break_off(self) -> Result<(), CommandError> {
        match self.written && self.sink == Sink::AtOnce {
            true => self.output.write("\n"),
            false => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), CommandError> {
        match self.sink {
            Sink::AtOnce => self.output.write(text)?,
            Sink::AtEnd => self.waiting += text,
            Sink::Nowhere => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes the text in pieces of `size` characters.
    fn collect(parts: &[(ChunkKind, &str)], open: bool, size: usize) -> [String; 3] {
        let mut sections = Sections::new(open);
        let mut shown = String::new();
        for (kind, text) in parts {
            let chars: Vec<char> = text.chars().collect();
            for text in chars.chunks(size) {
                for piece in sections.push(Chunk { kind: *kind, text: text.iter().collect() }) {
                    match piece {
                        Piece::Begin(ChunkKind::Reasoning) => shown.push('<'),
                        Piece::Begin(ChunkKind::Answer) => shown.push('>'),
                        Piece::Text(text) => shown += &text,
                    }
                }
            }
        }
        [sections.reasoning, sections.answer, shown]
    }

    #[test]
    fn sections_do_not_depend_on_how_the_text_is_cut() {
        use mlx_lm::thinking::SegmentKind::{Answer, Reasoning};
        type Case = (&'static [(ChunkKind, &'static str)], bool, [&'static str; 3]);
        let cases: [Case; 6] = [
            (&[(Answer, " a b \n")], false, ["", " a b \n", "> a b \n"]),
            (
                &[(Reasoning, "\nx \n y\n\n"), (Answer, "\n\nz\n")],
                true,
                ["x \n y", "z\n", "<x \n y>z\n"],
            ),
            (&[(Reasoning, "\n\n"), (Answer, "\n\nz")], false, ["", "z", ">z"]),
            (&[(Answer, "\n\nz")], true, ["", "z", ">z"]),
            (
                &[(Answer, "a"), (Reasoning, "r"), (Answer, "\nb"), (Reasoning, " s ")],
                false,
                ["r\n\ns", "a\n\nb", ">a<r>b<s"],
            ),
            (&[], true, ["", "", ""]),
        ];
        for (parts, open, expected) in cases {
            for size in 1..6 {
                assert_eq!(
                    collect(parts, open, size),
                    expected.map(str::to_owned),
                    "{parts:?} by {size}"
                );
            }
        }
    }
}
