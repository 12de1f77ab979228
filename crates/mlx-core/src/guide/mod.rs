//! For those who know MLX in Python: the same things, side by side.
//!
//! Ops, layers and files carry Python's names and give Python's numbers. What differs comes from the
//! language: everything that can fail returns a [`Result`](crate::Result), streams are a scope, and
//! arrays do not change. Each chapter shows Python first and then the same here; every Rust example
//! is run as a test, and what it asserts is what Python prints. `mx` is `mlx.core`, `nn` is `mlx.nn`,
//! `optim` is `mlx.optimizers`.
//!
//! ```python
//! x = mx.array([[1.0, 2.0], [3.0, 4.0]])
//! y = mx.softmax(x @ x.T * 0.1, axis=-1)
//! print(y[0])  # array([0.354344, 0.645656], dtype=float32)
//! ```
//!
//! ```
//! use mlx_core::Array;
//!
//! # fn main() -> mlx_core::Result<()> {
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
//! let y = (x.matmul(&x.t()?)? * 0.1)?.softmax(-1, false)?;
//! assert_eq!(y.at(0)?.to_string(), "array([0.354344, 0.645656], dtype=float32)");
//! # Ok(())
//! # }
//! ```
//!
//! 1. [`arrays`]: making, asking, reading; dtypes
//! 2. [`operators`]: `?`, weak scalars, what has no sign
//! 3. [`indexing`]: reading and writing, masks
//! 4. [`ops`]: where an op is, options
//! 5. [`shape`]: reductions, reshaping
//! 6. [`random`]: seeds and keys
//! 7. [`streams`]: streams and devices by scope
//! 8. [`lazy`]: `eval`, `async_eval`, failed evaluation
//! 9. [`transforms`]: `grad`, `vjp`, `jvp`, `vmap`, `compile`, functions in files, graphs
//! 10. [`nn`]: modules, parameters, freezing, quantizing, saving
//! 11. [`training`]: losses, optimizers, schedules, a loop
//! 12. [`files`]: safetensors, npy, npz, GGUF
//! 13. [`memory`]: counters and limits
//! 14. [`distributed`]: collectives between processes
//! 15. [`kernels`]: Metal and CUDA from source
//! 16. [`errors`]: kinds and texts
//! 17. [`threads`]: arrays and threads
//! 18. [`names`]: the names that differ

pub mod arrays;
pub mod distributed;
pub mod errors;
pub mod files;
pub mod indexing;
pub mod kernels;
pub mod lazy;
pub mod memory;
pub mod names;
pub mod nn;
pub mod operators;
pub mod ops;
pub mod random;
pub mod shape;
pub mod streams;
pub mod threads;
pub mod training;
pub mod transforms;
