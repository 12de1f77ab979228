//! Memory: what is used, kept and allowed.
//!
//! Python's `get_…` functions lost their prefix and live in [`memory`](crate::memory); they count for
//! the whole process. Setting a limit returns the old one.
//!
//! ```python
//! x = mx.arange(1 << 20, dtype=mx.float32)
//! mx.eval(x)
//! mx.get_active_memory() >= 4 << 20  # True
//! mx.get_peak_memory() >= 4 << 20  # True
//! old = mx.set_cache_limit(1 << 20)
//! mx.set_cache_limit(old)  # 1048576
//! mx.clear_cache()
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Dtype, memory, ops};
//!
//! let x = ops::arange(0.0, 1048576.0, 1.0, Dtype::Float32)?;
//! x.eval()?;
//! assert!(memory::active()? >= 4 << 20);
//! assert!(memory::peak()? >= 4 << 20);
//! let old = memory::set_cache_limit(1 << 20)?;
//! assert_eq!(memory::set_cache_limit(old)?, 1 << 20);
//! memory::clear_cache()?;
//! # Ok(())
//! # }
//! ```
//!
//! An array's memory is free when its last handle is dropped and no graph needs it. There is no
//! collector to wait for: drop what a loop does not need before its next round is evaluated. Weights
//! mapped from a file are not in these numbers.
