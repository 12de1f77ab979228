//! The memory of a recurrence.

use mlx_core::{Array, Result};

use super::Padding;

/// What a recurrent layer keeps of all tokens so far: arrays whose size does not grow with them.
///
/// mlx-lm: `ArraysCache`.
#[derive(Debug, Default)]
pub struct RecurrentCache {
    states: Vec<Option<Array>>,
    offset: i32,
    padding: Option<Padding>,
}

impl RecurrentCache {
    /// Makes an empty memory of so many arrays.
    pub fn new(n_states: usize) -> RecurrentCache {
        RecurrentCache { states: vec![None; n_states], ..RecurrentCache::default() }
    }

    /// Gives an array up; nothing before the first token.
    pub fn take(&mut self, i: usize) -> Option<Array> {
        self.states.get_mut(i).and_then(Option::take)
    }

    /// Keeps an array.
    pub fn set(&mut self, i: usize, state: Array) {
        if let Some(slot) = self.states.get_mut(i) {
            *slot = Some(state);
        }
    }

    /// Counts `n` new tokens, once all arrays have them.
    pub fn advance(&mut self, n: i32) {
        self.offset += n;
    }

    /// Returns which of the next `n` places hold tokens, `[B, n]` of bool; nothing where all do.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn tokens(&self, n: i32) -> Result<Option<Array>> {
        match &self.padding {
            Some(padding) => padding.tokens(self.offset, n),
            None => Ok(None),
        }
    }

    /// Returns how many tokens it has seen.
    pub fn offset(&self) -> i32 {
        self.offset
    }

    pub(super) fn pad(&mut self, padding: &Padding) {
        self.padding = Some(padding.clone());
    }

    pub(super) fn state(&self) -> Vec<&Array> {
        self.states.iter().flatten().collect()
    }
}
