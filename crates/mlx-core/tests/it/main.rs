//! The integration tests of mlx-core, one module per subject.

mod alone;
mod array;
mod distributed;
mod exit;
mod fuzz;
mod gguf;
mod gguf_arrays;
mod gpu;
mod hostile;
mod index;
mod leaks;
mod malformed;
mod memory;
mod nn_layers;
mod npz;
mod numerics;
mod ops;
mod optim;
mod quantized;
mod random;
mod runtime;
mod safetensors;
mod streams;
mod transforms;
