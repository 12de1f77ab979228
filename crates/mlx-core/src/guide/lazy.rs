//! Lazy evaluation: what computes, and what becomes of an error.
//!
//! An op makes a node and returns at once. [`eval`](crate::eval) computes, and so does everything that
//! needs a value on the host: `item`, `to_vec`, `with_bytes`, printing, saving, reading with a mask.
//!
//! ```python
//! x = mx.arange(3) + 1
//! mx.eval(x)
//! y, z = x * 2, x * 3
//! mx.async_eval(y, z)
//! y  # array([2, 4, 6], dtype=int32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, async_eval, eval};
//!
//! let x = (Array::range(3)? + 1)?;
//! assert!(!x.is_available());
//! eval([&x])?;
//! assert!(x.is_available());
//!
//! let (y, z) = ((&x * 2)?, (&x * 3)?);
//! async_eval([&y, &z])?; // returns at once
//! assert_eq!(y.to_vec::<i32>()?, [2, 4, 6]); // waits
//! # Ok(())
//! # }
//! ```
//!
//! `mx.eval` takes trees; here it takes anything that gives `&Array`, so a model and its optimizer are
//! `eval(model.parameters().values().chain(optimizer.state().values()))`.
//!
//! Shapes and dtypes are checked when the node is made, so most errors come from the op itself. What
//! can only fail while computing, such as memory, comes from the evaluation or the read that waits for
//! it. Python's MLX tells such an error once and then takes the array for computed; here each read of
//! it, and of what depends on it, tells the error again.
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Device, Dtype, linalg, ops, with_device};
//!
//! let singular = ops::zeros(&[2, 2], Dtype::Float32)?;
//! let inverse = with_device(Device::Cpu, || linalg::inv(&singular))?; // made, not computed
//! let after = (&inverse + 1.0)?;
//! assert!(inverse.eval().is_err());
//! assert!(inverse.to_vec::<f32>().is_err());
//! assert!(after.to_vec::<f32>().is_err());
//! # Ok(())
//! # }
//! ```
