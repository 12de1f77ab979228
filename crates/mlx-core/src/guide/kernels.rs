//! Kernels of your own from source, for Metal and CUDA.
//!
//! A kernel is the body of a function; MLX writes the signature around it from the names that you give,
//! and compiles it when it first runs. What are keywords of Python's call is
//! [`LaunchOptions`](crate::fast::LaunchOptions).
//!
//! ```python
//! kernel = mx.fast.metal_kernel(
//!     name="double",
//!     input_names=["x"],
//!     output_names=["out"],
//!     source="uint i = thread_position_in_grid.x; out[i] = T(2) * x[i];",
//! )
//! out = kernel(
//!     inputs=[mx.array([1.0, 2.0, 3.0])],
//!     template=[("T", mx.float32)],
//!     grid=(3, 1, 1),
//!     threadgroup=(3, 1, 1),
//!     output_shapes=[(3,)],
//!     output_dtypes=[mx.float32],
//! )
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::fast::{LaunchOptions, MetalKernel, MetalKernelOptions, TemplateArg};
//! use mlx_core::{Array, Dtype, ErrorKind, metal};
//!
//! let kernel = MetalKernel::new(MetalKernelOptions {
//!     name: "double",
//!     input_names: &["x"],
//!     output_names: &["out"],
//!     source: "uint i = thread_position_in_grid.x; out[i] = T(2) * x[i];",
//!     ..Default::default()
//! });
//! if metal::is_available()? {
//!     let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3])?;
//!     let launch = LaunchOptions {
//!         template: &[("T", TemplateArg::Dtype(Dtype::Float32))],
//!         grid: [3, 1, 1],
//!         threadgroup: [3, 1, 1],
//!         output_shapes: &[&[3]],
//!         output_dtypes: &[Dtype::Float32],
//!         ..Default::default()
//!     };
//!     assert_eq!(kernel?.call(&[&x], launch)?[0].to_vec::<f32>()?, [2.0, 4.0, 6.0]);
//! } else {
//!     assert_eq!(kernel.err().map(|e| e.kind()), Some(ErrorKind::Unsupported));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`CudaKernel`](crate::fast::CudaKernel) takes CUDA C++ in the same way. Source is trusted: nothing
//! keeps it from writing beside its outputs.
