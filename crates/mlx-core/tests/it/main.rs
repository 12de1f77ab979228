//! The integration tests of mlx-core, one module per subject.

mod hostile;
mod index;
mod ops;
mod safetensors;
