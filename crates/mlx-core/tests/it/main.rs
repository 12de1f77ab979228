//! The integration tests of mlx-core, one module per subject.

mod alone;
mod array;
mod exit;
mod fuzz;
mod gpu;
mod gguf;
mod gguf_arrays;
mod hostile;
mod index;
mod numerics;
mod malformed;
mod npz;
mod ops;
mod optim;
mod quantized;
mod random;
mod runtime;
mod safetensors;
mod transforms;
