//! Errors: kinds for programs, texts for people.
//!
//! Where Python raises `ValueError`, `IndexError` or `RuntimeError`, a function returns
//! [`Error`](crate::Error). [`kind`](crate::Error::kind) says what to do about it; the text names the
//! operation, file or tensor first. Nothing panics on what it is given.
//!
//! ```python
//! try:
//!     mx.zeros((2, 3)) @ mx.zeros((4, 5))
//! except ValueError as e:
//!     print(e)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Dtype, ErrorKind, load_safetensors, ops};
//!
//! let (a, b) = (ops::zeros(&[2, 3], Dtype::Float32)?, ops::zeros(&[4, 5], Dtype::Float32)?);
//! let error = a.matmul(&b).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::InvalidArgument);
//! assert!(error.to_string().contains("(2,3)") && error.to_string().contains("(4,5)"), "{error}");
//!
//! let error = load_safetensors("nowhere.safetensors").unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::NotFound);
//! assert!(error.to_string().starts_with("nowhere.safetensors: "));
//! # Ok(())
//! # }
//! ```
//!
//! Closures that MLX calls back return the same `Result`. Your own error travels through C++ in
//! [`Error::other`](crate::Error::other) and comes out as it went in; a panic goes on as a panic.
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::transforms::grad;
//! use mlx_core::{Array, Error, ErrorKind};
//!
//! let number = |text: &str| text.parse::<f32>().map_err(Error::other);
//! let slope = grad(move |x| Ok(vec![(&x[0] * number("17x")?)?]), 0)?;
//! let error = slope.call(&[Array::from(1.0f32)]).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Other);
//! assert!(error.downcast_ref::<std::num::ParseFloatError>().is_some());
//! # Ok(())
//! # }
//! ```
