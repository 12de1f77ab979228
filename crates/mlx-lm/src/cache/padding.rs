//! Rows of a batch that are not of one length.

use mlx_core::{Array, Error, ErrorKind, NewAxis, Result, ops};

use crate::layers::mask::{Mask, causal_mask};

/// How many places in front of each sequence of a batch hold no token.
///
/// Sequences of several lengths go through a model together with padding in front, so that all end at
/// one place and their next tokens lie side by side. No token sees a place that holds none, the
/// positions of a sequence count from its first token, and a recurrence starts there.
#[derive(Clone, Debug)]
pub struct Padding {
    /// `[B]` of int32.
    places: Array,
    max: i32,
}

impl Padding {
    /// Takes the number of places for each sequence.
    ///
    /// # Errors
    /// When one is negative.
    pub fn new(places: &[i32]) -> Result<Padding> {
        if let Some(negative) = places.iter().find(|&&n| n < 0) {
            let text = format!("a padding of {negative} places");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let max = places.iter().copied().max().unwrap_or(0);
        Ok(Padding { places: Array::from_slice(places, &[places.len() as i32])?, max })
    }

    /// Returns the position of what is at a place, `[B]`: negative where it is no token.
    pub(crate) fn positions(&self, place: i32) -> Result<Array> {
        ops::subtract(place, &self.places)
    }

    /// Returns which of `n` places from `start` on hold tokens, `[B, n]`; nothing where all do.
    pub(crate) fn tokens(&self, start: i32, n: i32) -> Result<Option<Array>> {
        if start >= self.max {
            return Ok(None);
        }
        let places = (Array::range(n)? + start)?;
        places.greater_equal(self.places.at((.., NewAxis))?).map(Some)
    }

    /// Returns the mask of `n` tokens at the end of `s` places, of which the first is `first`.
    ///
    /// # Shape
    /// `[B, 1, n, s]`
    pub(super) fn mask(&self, n: i32, s: i32, first: i32, window: Option<i32>) -> Result<Mask> {
        let causal = causal_mask(n, s - n, window)?;
        let places = (Array::range(s)? + first)?;
        let tokens = places.greater_equal(self.places.at((.., NewAxis, NewAxis, NewAxis))?)?;
        // A place that sees nothing would be an average over nothing: it sees itself.
        let keys = Array::range(s)?;
        let itself = keys.at(((s - n).., NewAxis))?.equal(&keys)?;
        causal.logical_and(tokens)?.logical_or(itself).map(Mask::Array)
    }
}
