//! The integration tests of mlx-core, one module per subject.

mod ops;
mod safetensors;
