//! Layers, under the names and checkpoint keys of Python's `mlx.nn`.
//!
//! A layer is built by [`Weights`](crate::Weights), which knows the path, checks the shape and
//! sees whether the tensor is quantized, or by `new`, with random weights to be trained. `forward`
//! takes `&self`. [`Linear`] is the one type for dense and packed weights, so no model has a
//! quantized copy. [`Module`] is the tree of parameters: counting, freezing, saving, quantizing.

mod activation;
mod attention;
mod embedding;
mod linear;
mod module;
mod norm;
mod rope;
mod train;

pub use activation::{gelu, gelu_approx, relu, silu};
pub use attention::attention;
pub use embedding::Embedding;
pub use linear::{Linear, WeightMatrix};
pub use module::{Leaf, LeafMut, Module, Param, Parameters, Training, Visitor, VisitorMut};
pub use norm::{LayerNorm, RmsNorm};
pub use rope::Rope;
pub use train::{value_and_grad, value_and_grad_with};
