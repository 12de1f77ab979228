//! Arrays and dtypes: making them, asking them, reading them.
//!
//! An array is made of a slice of Rust numbers and a shape; its dtype is that of the slice. A literal
//! says its type (`1.0f32`), where Python turns every float into `float32`.
//!
//! ```python
//! x = mx.array([[1.0, 2.0], [3.0, 4.0]])
//! x.shape, x.dtype, x.ndim, x.size, x.nbytes  # ((2, 2), mlx.core.float32, 2, 4, 16)
//! x.tolist()  # [[1.0, 2.0], [3.0, 4.0]]
//! mx.array(2.5).item()  # 2.5
//! x.astype(mx.int32)
//! print(x.sum(axis=0))
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Dtype};
//!
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
//! assert_eq!(x.shape(), [2, 2]);
//! assert_eq!((x.dtype(), x.ndim(), x.size(), x.nbytes()), (Dtype::Float32, 2, 4, 16));
//! assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
//! assert_eq!(Array::from(2.5f32).item::<f32>()?, 2.5);
//! assert_eq!(x.astype(Dtype::Int32)?.to_vec::<i32>()?, [1, 2, 3, 4]);
//! assert_eq!(x.sum(0, false)?.to_string(), "array([4, 6], dtype=float32)");
//! # Ok(())
//! # }
//! ```
//!
//! [`to_vec`](crate::Array::to_vec) gives the elements in row-major order and wants the dtype that the
//! array has; [`to_vec_as`](crate::Array::to_vec_as) converts. `Display` prints what Python prints and
//! computes the array for it; `Debug` prints shape and dtype and computes nothing.
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, ErrorKind};
//!
//! let x = Array::range(3)?;
//! assert_eq!(x.to_vec::<f32>().unwrap_err().kind(), ErrorKind::InvalidArgument);
//! assert_eq!(x.to_vec_as::<f32>()?, [0.0, 1.0, 2.0]);
//! assert_eq!(format!("{x:?}"), "Array([3], int32)");
//! # Ok(())
//! # }
//! ```
//!
//! What Python fills in by default is written out: dtype, start and step.
//!
//! ```python
//! mx.zeros((2, 3))
//! mx.arange(0, 1, 0.25)  # array([0, 0.25, 0.5, 0.75], dtype=float32)
//! mx.full((2,), 7)  # array([7, 7], dtype=int32)
//! mx.eye(2)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Dtype, ops};
//!
//! let zeros = ops::zeros(&[2, 3], Dtype::Float32)?;
//! let steps = ops::arange(0.0, 1.0, 0.25, Dtype::Float32)?;
//! let sevens = ops::full(&[2], 7, None)?;
//! let eye = ops::eye(2, 2, 0, Dtype::Float32)?;
//! assert_eq!(steps.to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75]);
//! assert_eq!((zeros.size(), sevens.dtype(), eye.shape()), (6, Dtype::Int32, &[2, 2][..]));
//! # Ok(())
//! # }
//! ```
//!
//! All fourteen dtypes are in [`Dtype`](crate::Dtype), with Python's
//! `finfo`, `iinfo`, `issubdtype` and `can_cast` as methods. Half precision on the host is
//! `half::f16` and `half::bf16`; `complex64` is [`Complex32`](crate::Complex32).
//!
//! ```python
//! mx.finfo(mx.bfloat16).eps  # 0.0078125
//! mx.issubdtype(mx.uint8, mx.integer)  # True
//! mx.result_type(mx.array(1, mx.int8), mx.array(1, mx.float16))  # mlx.core.float16
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Dtype, DtypeCategory, ops};
//!
//! assert_eq!(Dtype::Bfloat16.finfo().map(|info| info.eps), Some(0.0078125));
//! assert!(Dtype::Uint8.is_subtype(DtypeCategory::Integer));
//! assert_eq!(ops::promote_types(Dtype::Int8, Dtype::Float16), Dtype::Float16);
//! # Ok(())
//! # }
//! ```
//!
//! A clone is a second handle to the same array, which never changes.
