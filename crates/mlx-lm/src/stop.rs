//! Stop strings over a text that arrives in pieces.
//!
//! A stop string ends the text before it and is itself left out. Where several occur the earliest
//! wins, and of those that begin at the same place the shortest. Text that may yet turn out to be
//! the beginning of a stop string is held back, so nothing is ever taken back; the outcome does
//! not depend on how the text was cut into pieces.

use crate::scan::{Scan, scan};

/// Watches a text for stop strings.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    pending: String,
    stopped: Option<usize>,
}

impl StopStrings {
    /// Watches for `stops`; empty strings are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        StopStrings {
            stops: stops.into_iter().map(Into::into).collect(),
            pending: String::new(),
            stopped: None,
        }
    }

    /// Takes the next piece of text and returns what of it is certain. After a stop string
    /// nothing more comes.
    pub fn push(&mut self, text: &str) -> String {
        self.pending.push_str(text);
        self.advance(false)
    }

    /// Returns what was held back, when the text ended for another reason. A stop string can
    /// still show up here, if a longer one might have begun before it.
    pub fn finish(&mut self) -> String {
        self.advance(true)
    }

    /// Returns the stop string that ended the text.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|index| self.stops[index].as_str())
    }

    fn advance(&mut self, last: bool) -> String {
        if self.stopped.is_some() {
            self.pending.clear();
            return String::new();
        }
        match scan(&self.pending, &self.stops, last) {
            Scan::Found { at, pattern } => {
                self.stopped = Some(pattern);
                let mut text = std::mem::take(&mut self.pending);
                text.truncate(at);
                text
            }
            Scan::Partial { at } => {
                let held = self.pending.split_off(at);
                std::mem::replace(&mut self.pending, held)
            }
            Scan::Clear => std::mem::take(&mut self.pending),
        }
    }
}
