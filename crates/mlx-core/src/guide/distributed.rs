//! Collectives between processes.
//!
//! A process joins a [`Group`](crate::distributed::Group); with nobody to join, it is a group alone. The
//! group is the last argument, and `None` is that of all processes. Python's `mlx.launch` starts
//! programs built with this crate too: they read the variables it sets.
//!
//! ```python
//! group = mx.distributed.init()
//! group.rank(), group.size()  # (0, 1)
//! mx.distributed.all_sum(mx.array([1.0, 2.0]))  # array([1, 2], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::distributed::{Group, InitOptions, all_sum};
//!
//! let group = Group::init(InitOptions::default())?;
//! assert_eq!((group.rank(), group.size()), (0, 1));
//! let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! assert_eq!(all_sum(&x, &group)?.to_vec::<f32>()?, [1.0, 2.0]);
//! # Ok(())
//! # }
//! ```
//!
//! Every process makes the same collectives in the same order. [`distributed`](crate::distributed) says
//! what happens when one of them dies.
