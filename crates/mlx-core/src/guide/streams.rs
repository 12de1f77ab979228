//! Streams and devices, by scope.
//!
//! In Python every op takes `stream=`. Here a scope says where ops run, and nothing else does; what
//! comes back from the scope may be used anywhere.
//!
//! ```python
//! with mx.stream(mx.cpu):
//!     y = mx.ones((2, 2)) @ mx.ones((2, 2))
//! s = mx.new_stream(mx.cpu)
//! z = mx.add(y, 1.0, stream=s)
//! z  # array([[3, 3], [3, 3]], dtype=float32)
//! mx.synchronize(s)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Device, Dtype, Stream, ops, with_device, with_stream};
//!
//! let y = with_device(Device::Cpu, || {
//!     let ones = ops::ones(&[2, 2], Dtype::Float32)?;
//!     ones.matmul(&ones)
//! })?;
//! let s = Stream::new(Device::Cpu)?;
//! let z = with_stream(s, || &y + 1.0)?;
//! assert_eq!(z.to_vec::<f32>()?, [3.0; 4]);
//! s.synchronize()?;
//! # Ok(())
//! # }
//! ```
//!
//! The scope is left also when its function fails. There is no `set_default_device`: a program that
//! wants another device puts its `main` into [`with_device`](crate::with_device).
//!
//! ```python
//! mx.default_device()
//! mx.default_stream(mx.default_device())
//! mx.is_available(mx.gpu)
//! mx.device_info()
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Device, Stream};
//!
//! let device = Device::default_device();
//! assert!(device.is_available());
//! assert_eq!(Stream::current()?.device(), device);
//! assert!(!device.info()?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! MLX orders work between streams by itself, by what depends on what.
