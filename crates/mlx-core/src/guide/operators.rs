//! Operators, weak scalars and the question mark.
//!
//! Shapes are input, so an operator returns a `Result`. The right operand may be one, which saves
//! question marks; the left one may not. Arrays are borrowed, unless they are not needed any more.
//!
//! ```python
//! a, b = mx.array([1.0, 2.0]), mx.array([10.0, 20.0])
//! a + b * 2.0  # array([21, 42], dtype=float32)
//! (a + b) * 2.0  # array([22, 44], dtype=float32)
//! 1.0 - a  # array([0, -1], dtype=float32)
//! -a % 3  # array([2, 1], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//!
//! let a = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! let b = Array::from_slice(&[10.0f32, 20.0], &[2])?;
//! assert_eq!((&a + &b * 2.0)?.to_vec::<f32>()?, [21.0, 42.0]);
//! assert_eq!(((&a + &b)? * 2.0)?.to_vec::<f32>()?, [22.0, 44.0]);
//! assert_eq!((1.0 - &a)?.to_vec::<f32>()?, [0.0, -1.0]);
//! assert_eq!(((-&a)? % 3)?.to_vec::<f32>()?, [2.0, 1.0]);
//! # Ok(())
//! # }
//! ```
//!
//! Operators that Rust has no sign for, or whose sign has to return a `bool`, are methods.
//!
//! ```python
//! a ** 2  # array([1, 4], dtype=float32)
//! b // 3  # array([3, 6], dtype=float32)
//! a < b  # array([True, True], dtype=bool)
//! (a > 1) & (b > 1)  # array([False, True], dtype=bool)
//! ~(a == 1)  # array([False, True], dtype=bool)
//! a @ b  # array(50, dtype=float32)
//! mx.where(a > 1, a, 0)  # array([0, 2], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, ops};
//!
//! let a = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! let b = Array::from_slice(&[10.0f32, 20.0], &[2])?;
//! assert_eq!(a.power(2)?.to_vec::<f32>()?, [1.0, 4.0]);
//! assert_eq!(b.floor_divide(3)?.to_vec::<f32>()?, [3.0, 6.0]);
//! assert_eq!(a.less(&b)?.to_vec::<bool>()?, [true, true]);
//! assert_eq!(a.greater(1)?.bitwise_and(b.greater(1)?)?.to_vec::<bool>()?, [false, true]);
//! assert_eq!(a.equal(1)?.logical_not()?.to_vec::<bool>()?, [false, true]);
//! assert_eq!(a.matmul(&b)?.item::<f32>()?, 50.0);
//! assert_eq!(ops::where_(&a.greater(1)?, &a, 0)?.to_vec::<f32>()?, [0.0, 2.0]);
//! # Ok(())
//! # }
//! ```
//!
//! A number beside an array is weak, as in Python: it takes the array's dtype where it can.
//!
//! ```python
//! h = mx.array([1.0], mx.bfloat16)
//! n = mx.array([1, 2])
//! (h * 2.0).dtype  # mlx.core.bfloat16
//! (n * 2).dtype, (n * 2.0).dtype  # (mlx.core.int32, mlx.core.float32)
//! (mx.array([True]) + 1).dtype  # mlx.core.int32
//! (h * mx.array(2.0)).dtype  # mlx.core.float32
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Dtype};
//!
//! let h = Array::from_slice(&[1.0f32], &[1])?.astype(Dtype::Bfloat16)?;
//! let n = Array::from_slice(&[1, 2], &[2])?;
//! assert_eq!((&h * 2.0)?.dtype(), Dtype::Bfloat16);
//! assert_eq!(((&n * 2)?.dtype(), (&n * 2.0)?.dtype()), (Dtype::Int32, Dtype::Float32));
//! assert_eq!((Array::from(true) + 1)?.dtype(), Dtype::Int32);
//! // An array is not weak, even without axes.
//! assert_eq!((&h * Array::from(2.0f32))?.dtype(), Dtype::Float32);
//! # Ok(())
//! # }
//! ```
//!
//! Functions and methods take what Python calls `scalar or array` as an
//! [`Operand`](crate::Operand): an array, its borrow, a `Result` of one, or a number.
//!
//! A wrong shape is an error with a text that names both:
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, ErrorKind};
//!
//! let sum = Array::range(2)? + Array::range(3)?;
//! assert_eq!(sum.unwrap_err().kind(), ErrorKind::InvalidArgument);
//! # Ok(())
//! # }
//! ```
