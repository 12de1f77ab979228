//! Random numbers and keys.
//!
//! Every function of [`random`](crate::random) takes a key last. Without one it takes the next of this
//! thread's sequence, which starts at [`seed`](crate::random::seed). The numbers are Python's.
//!
//! ```python
//! mx.random.seed(0)
//! mx.random.uniform(shape=(3,))  # array([0.872414, 0.111052, 0.277081], dtype=float32)
//! mx.random.normal((2,))  # array([0.00870731, -0.048885], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Dtype, random};
//!
//! random::seed(0)?;
//! let x = random::uniform(0, 1, &[3], Dtype::Float32, None)?;
//! assert_eq!(x.to_string(), "array([0.872414, 0.111052, 0.277081], dtype=float32)");
//! let y = random::normal(&[2], Dtype::Float32, 0, 1, None)?;
//! assert_eq!(y.to_string(), "array([0.00870731, -0.048885], dtype=float32)");
//! # Ok(())
//! # }
//! ```
//!
//! Keys make a function's randomness its argument, as `compile` and `vmap` need it.
//!
//! ```python
//! a, b = mx.random.split(mx.random.key(1))
//! a  # array([2441914641, 1384938218], dtype=uint32)
//! mx.random.randint(0, 10, (3,), key=b)  # array([6, 9, 5], dtype=int32)
//! mx.random.categorical(mx.array([0.0, 100.0]), key=a)  # array(1, dtype=uint32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Dtype, random};
//!
//! let keys = random::split(&random::key(1)?, 2)?;
//! let (a, b) = (keys.at(0)?, keys.at(1)?);
//! assert_eq!(a.to_vec::<u32>()?, [2441914641, 1384938218]);
//! let dice = random::randint(0, 10, &[3], Dtype::Int32, Some(&b))?;
//! assert_eq!(dice.to_vec::<i32>()?, [6, 9, 5]);
//! let logits = Array::from_slice(&[0.0f32, 100.0], &[2])?;
//! assert_eq!(random::categorical(&logits, -1, Some(&a))?.item::<u32>()?, 1);
//! # Ok(())
//! # }
//! ```
//!
//! `mx.random.state` is [`random::state`](crate::random::state) and
//! [`random::set_state`](crate::random::set_state). A sequence of its own, beside the thread's, is a
//! [`KeySequence`](crate::random::KeySequence):
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::random::{self, KeySequence};
//!
//! let mut keys = KeySequence::new(7)?;
//! let first = random::bits(&[2], 4, Some(&keys.next_key()?))?;
//! let mut again = KeySequence::new(7)?;
//! let same = random::bits(&[2], 4, Some(&again.next_key()?))?;
//! assert_eq!(first.to_vec::<u32>()?, same.to_vec::<u32>()?);
//! # Ok(())
//! # }
//! ```
