//! Threads: each has its own arrays and streams.
//!
//! MLX's streams, compiled functions and caches belong to a thread, so an [`Array`](crate::Array) does
//! too: it is not `Send`, and the compiler refuses what in Python works or not, depending on the stream.
//! Numbers go from thread to thread, arrays do not.
//!
//! ```python
//! from concurrent.futures import ThreadPoolExecutor
//!
//! def total(data):
//!     return mx.array(data).sum().item()
//!
//! with ThreadPoolExecutor() as pool:
//!     totals = list(pool.map(total, [[1.0, 2.0], [3.0]]))
//! totals  # [3.0, 3.0]
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use std::thread;
//!
//! use mlx_core::{Array, Result};
//!
//! fn total(data: &[f32]) -> Result<f32> {
//!     Array::from_slice(data, &[data.len() as i32])?.sum(.., false)?.item()
//! }
//!
//! let totals: Result<Vec<f32>> = thread::scope(|scope| {
//!     let threads = [vec![1.0, 2.0], vec![3.0]].map(|data| scope.spawn(move || total(&data)));
//!     threads.into_iter().map(|thread| thread.join().unwrap()).collect()
//! });
//! assert_eq!(totals?, [3.0, 3.0]);
//! # Ok(())
//! # }
//! ```
//!
//! ```compile_fail,E0277
//! let x = mlx_core::Array::from(1.0f32);
//! std::thread::spawn(move || x.item::<f32>());
//! ```
//!
//! One array is already computed by several threads: MLX's, one for each stream. A server gives one
//! thread the model and sends it requests. A thread of a pool that may not compute again gives up what
//! it holds with [`stream::clear`](crate::stream::clear).
