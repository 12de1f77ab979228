//! Indexing: reading and writing with Python's indices.
//!
//! [`at`](crate::Array::at) reads. It takes what stands between Python's brackets, as one index or a
//! tuple of up to eight; more go into a `Vec` of [`IndexItem`](crate::IndexItem).
//!
//! | Python | here |
//! | --- | --- |
//! | `x[1]`, `x[-1]` | `x.at(1)`, `x.at(-1)` |
//! | `x[:, 0]` | `x.at((.., 0))` |
//! | `x[1:3]`, `x[1:]`, `x[:3]` | `x.at(1..3)`, `x.at(1..)`, `x.at(..3)` |
//! | `x[:-1]` | `x.at(..-1)` |
//! | `x[::2]`, `x[::-1]` | `x.at(Slice::step(2))`, `x.at(Slice::step(-1))` |
//! | `x[4:1:-1]` | `x.at(Slice { start: Some(4), stop: Some(1), step: -1 })` |
//! | `x[..., 0]` | `x.at((Ellipsis, 0))` |
//! | `x[None]` | `x.at(NewAxis)` |
//! | `x[rows]`, `x[rows, 0]` | `x.at(&rows)`, `x.at((&rows, 0))` |
//! | `x[mask]` | `x.at(&mask)` |
//!
//! ```python
//! x = mx.arange(12).reshape(3, 4)
//! x[1]  # array([4, 5, 6, 7], dtype=int32)
//! x[:, -1]  # array([3, 7, 11], dtype=int32)
//! x[0, ::-2]  # array([3, 1], dtype=int32)
//! x[..., None].shape  # (3, 4, 1)
//! x[mx.array([2, 0]), 1]  # array([9, 1], dtype=int32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Ellipsis, NewAxis, Slice};
//!
//! let x = Array::range(12)?.reshape([3, 4])?;
//! assert_eq!(x.at(1)?.to_vec::<i32>()?, [4, 5, 6, 7]);
//! assert_eq!(x.at((.., -1))?.to_vec::<i32>()?, [3, 7, 11]);
//! assert_eq!(x.at((0, Slice::step(-2)))?.to_vec::<i32>()?, [3, 1]);
//! assert_eq!(x.at((Ellipsis, NewAxis))?.shape(), [3, 4, 1]);
//! let rows = Array::from_slice(&[2, 0], &[2])?;
//! assert_eq!(x.at((&rows, 1))?.to_vec::<i32>()?, [9, 1]);
//! # Ok(())
//! # }
//! ```
//!
//! Arrays do not change: writing returns the changed copy. Give the old handle up, as `x = x.put(…)?`
//! does, and MLX writes into the old buffer.
//!
//! ```python
//! x = mx.zeros((2, 3))
//! x[0] = 1.0
//! x[:, 1:] += 5.0
//! x[mx.array([1, 1]), 0] = mx.array([2.0, 3.0])
//! x  # array([[1, 6, 6], [3, 5, 5]], dtype=float32)
//! y = mx.zeros(3).at[mx.array([0, 0, 2])].add(1.0)
//! y  # array([2, 0, 1], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Dtype, ops};
//!
//! let mut x = ops::zeros(&[2, 3], Dtype::Float32)?;
//! x = x.put(0, 1.0)?;
//! x = x.put_add((.., 1..), 5.0)?;
//! x = x.put((Array::from_slice(&[1, 1], &[2])?, 0), Array::from_slice(&[2.0f32, 3.0], &[2])?)?;
//! assert_eq!(x.to_vec::<f32>()?, [1.0, 6.0, 6.0, 3.0, 5.0, 5.0]);
//!
//! let indices = Array::from_slice(&[0, 0, 2], &[3])?;
//! let y = ops::zeros(&[3], Dtype::Float32)?.put_add(&indices, 1.0)?;
//! assert_eq!(y.to_vec::<f32>()?, [2.0, 0.0, 1.0]);
//! # Ok(())
//! # }
//! ```
//!
//! `x.at[i].add`, `subtract`, `multiply`, `divide`, `maximum` and `minimum` are `put_add` and so on. An
//! element that is chosen twice is counted twice, as in Python.
//!
//! Masks read too, which Python's MLX does not have: the result's shape depends on values, so the mask
//! is computed first. Writing through a mask computes nothing.
//!
//! ```python
//! x = mx.array([1.0, -2.0, 3.0])
//! x[x < 0] = 0.0
//! x  # array([1, 0, 3], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, ops};
//!
//! let x = Array::from_slice(&[1.0f32, -2.0, 3.0], &[3])?;
//! assert_eq!(x.put(x.less(0)?, 0.0)?.to_vec::<f32>()?, [1.0, 0.0, 3.0]);
//! assert_eq!(x.at(x.greater(0)?)?.to_vec::<f32>()?, [1.0, 3.0]);
//! assert_eq!(ops::flatnonzero(&x.greater(0)?)?.to_vec_as::<i32>()?, [0, 2]);
//! # Ok(())
//! # }
//! ```
//!
//! No index reaches outside of its array. Python's MLX reads whatever is there; here a value that the
//! host knows is refused, and one that is still to be computed is clipped to the axis.
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, ErrorKind};
//!
//! let x = Array::range(3)?;
//! assert_eq!(x.at(3).unwrap_err().kind(), ErrorKind::OutOfRange);
//! let far = Array::from_slice(&[0, 7], &[2])?;
//! assert_eq!(x.at(&far).unwrap_err().kind(), ErrorKind::OutOfRange);
//! # Ok(())
//! # }
//! ```
//!
//! `take`, `take_along_axis`, `put_along_axis`, `slice`, `gather` and the scatters are methods as well.
