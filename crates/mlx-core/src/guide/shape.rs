//! Reductions and shapes.
//!
//! A reduction takes axes and `keepdims`. Axes are `..` for all, a number, or a borrowed array of
//! numbers; negative ones count from the end.
//!
//! ```python
//! x = mx.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
//! x.sum()  # array(21, dtype=float32)
//! x.mean(axis=0)  # array([2.5, 3.5, 4.5], dtype=float32)
//! x.max(axis=(0, 1), keepdims=True).shape  # (1, 1)
//! x.var(axis=-1, ddof=1)  # array([1, 1], dtype=float32)
//! x.argmax(axis=1)  # array([2, 2], dtype=uint32)
//! mx.softmax(x, axis=-1).sum()  # array(2, dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//!
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
//! assert_eq!(x.sum(.., false)?.item::<f32>()?, 21.0);
//! assert_eq!(x.mean(0, false)?.to_vec::<f32>()?, [2.5, 3.5, 4.5]);
//! assert_eq!(x.max(&[0, 1], true)?.shape(), [1, 1]);
//! assert_eq!(x.var(-1, false, 1)?.to_vec::<f32>()?, [1.0, 1.0]);
//! assert_eq!(x.argmax(1, false)?.to_vec::<u32>()?, [2, 2]);
//! assert_eq!(x.softmax(-1, false)?.sum(.., false)?.item::<f32>()?, 2.0);
//! # Ok(())
//! # }
//! ```
//!
//! Shapes are `i32`, as in MLX, and `-1` is what is left. [`dims`](crate::Array::dims) takes a shape
//! apart and fails when there are not as many axes.
//!
//! ```python
//! x = mx.arange(24)
//! y = x.reshape(2, 3, -1)
//! B, L, D = y.shape
//! (B, L, D)  # (2, 3, 4)
//! y.transpose(0, 2, 1).shape, y.T.shape  # ((2, 4, 3), (4, 3, 2))
//! mx.expand_dims(y, 0).squeeze(0).flatten(1, 2).shape  # (2, 12)
//! [part.shape for part in mx.split(y, 2, axis=-1)]  # [(2, 3, 2), (2, 3, 2)]
//! mx.pad(y, [(0, 0), (1, 0), (0, 0)]).shape  # (2, 4, 4)
//! mx.stack([x, x]).shape  # (2, 24)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, ops};
//!
//! let x = Array::range(24)?;
//! let y = x.reshape([2, 3, -1])?;
//! let [b, l, d] = y.dims()?;
//! assert_eq!((b, l, d), (2, 3, 4));
//! assert_eq!(y.transpose([0, 2, 1])?.shape(), [2, 4, 3]);
//! assert_eq!(y.t()?.shape(), [4, 3, 2]);
//! assert_eq!(y.expand_dims(0)?.squeeze(0)?.flatten(1, 2)?.shape(), [2, 12]);
//! for part in y.split(2, -1)? {
//!     assert_eq!(part.shape(), [2, 3, 2]);
//! }
//! assert_eq!(y.pad(&[(0, 0), (1, 0), (0, 0)], 0)?.shape(), [2, 4, 4]);
//! assert_eq!(ops::stack([&x, &x], 0)?.shape(), [2, 24]);
//! # Ok(())
//! # }
//! ```
//!
//! `split` cuts into equal parts and `split_at` at positions; Python has one name for both.
