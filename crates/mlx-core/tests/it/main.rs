//! The integration tests of mlx-core, one module per subject.

mod array;
mod hostile;
mod index;
mod ops;
mod safetensors;
