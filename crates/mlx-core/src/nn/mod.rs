//! Layers for inference, under the names and checkpoint keys of Python's `mlx.nn`.
//!
//! A layer is built by [`Weights`](crate::Weights), which knows the path, checks the shape and
//! sees whether the tensor is quantized; `forward` takes `&self`. [`Linear`] is the one type for
//! dense and packed weights, so no model has a quantized copy.

mod activation;
mod attention;
mod embedding;
mod linear;
mod norm;
mod rope;

pub use activation::{gelu, gelu_approx, relu, silu};
pub use attention::attention;
pub use embedding::Embedding;
pub use linear::{Linear, WeightMatrix};
pub use norm::{LayerNorm, RmsNorm};
pub use rope::Rope;
