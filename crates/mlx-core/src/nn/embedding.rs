//! Embedding.

use super::WeightMatrix;
use crate::array::Array;
use crate::error::Result;

/// A table of vectors, one for each token.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[V, E]`
    pub weight: WeightMatrix,
}

impl Embedding {
    /// Looks vectors up; of a packed table only those rows are unpacked.
    ///
    /// MLX does not check indices: the caller makes sure that they are below `V`.
    ///
    /// # Shape
    /// `tokens: I → I + [E]`
    ///
    /// # Errors
    /// When the tokens are not integers.
    pub fn forward(&self, tokens: &Array) -> Result<Array> {
        match &self.weight {
            WeightMatrix::Dense(weight) => weight.take(tokens, 0),
            WeightMatrix::Packed(packed) => packed.take_rows(tokens),
        }
    }

    /// Multiplies with the table, as an output head that shares it does.
    ///
    /// # Shape
    /// `x: […, E] → […, V]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn as_linear(&self, x: &Array) -> Result<Array> {
        self.weight.matmul_transposed(x)
    }
}
