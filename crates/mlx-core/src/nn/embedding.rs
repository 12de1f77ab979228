//! Embedding.

use super::{Param, WeightMatrix, make};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::random;

/// A table of vectors, one for each token.
///
/// ```
/// use mlx_core::nn::Embedding;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = Embedding::new(100, 8)?;
/// let x = layer.forward(&ops::zeros(&[2, 5], Dtype::Uint32)?)?;
/// assert_eq!(x.shape(), [2, 5, 8]);
/// assert_eq!(layer.as_linear(&x)?.shape(), [2, 5, 100]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[V, E]`
    pub weight: WeightMatrix,
}

crate::module! { Embedding { weight } }

impl Embedding {
    /// Makes a table of normally distributed numbers with standard deviation `1 / √dims`, in
    /// float32, out of this thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(num_embeddings: i32, dims: i32) -> Result<Embedding> {
        make::check_positive("embedding", &[("num_embeddings", num_embeddings), ("dims", dims)])?;
        let scale = f64::from(dims).recip().sqrt();
        let weight = random::normal(&[num_embeddings, dims], Dtype::Float32, 0.0, scale, None)?;
        Ok(Embedding { weight: WeightMatrix::Dense(Param::from(weight)) })
    }

    /// Looks vectors up; of a packed table only those rows are unpacked.
    ///
    /// A token beyond the table, where the host does not know it yet, means the last one.
    ///
    /// # Shape
    /// `tokens: I → I + [E]`
    ///
    /// # Errors
    /// When the tokens are not integers, or the host has one at hand that is not in the table.
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
