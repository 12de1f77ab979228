//! Ops: where to find one, and how arguments are written.
//!
//! What is a method of `mx.array`, or takes one array first, is a method of [`Array`](crate::Array);
//! the rest are functions of [`ops`](crate::ops). Ops of two arrays, such as `maximum`, are both.
//! [`linalg`](crate::linalg), [`fft`](crate::fft), [`fast`](crate::fast) and
//! [`random`](crate::random) are modules as in Python.
//!
//! ```python
//! x = mx.array([[3.0, 1.0], [2.0, 4.0]])
//! mx.exp(x)
//! mx.concatenate([x, x], axis=1).shape  # (2, 4)
//! mx.sort(x, axis=-1)  # array([[1, 3], [2, 4]], dtype=float32)
//! mx.einsum("ij,ij->i", x, x)  # array([10, 20], dtype=float32)
//! mx.linalg.det(x, stream=mx.cpu)  # array(10, dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Device, linalg, ops, with_device};
//!
//! let x = Array::from_slice(&[3.0f32, 1.0, 2.0, 4.0], &[2, 2])?;
//! let _ = x.exp()?;
//! assert_eq!(ops::concatenate([&x, &x], 1)?.shape(), [2, 4]);
//! assert_eq!(x.sort(-1)?.to_vec::<f32>()?, [1.0, 3.0, 2.0, 4.0]);
//! assert_eq!(ops::einsum("ij,ij->i", [&x, &x])?.to_vec::<f32>()?, [10.0, 20.0]);
//! // MLX's linear algebra has no kernels for the GPU.
//! assert_eq!(with_device(Device::Cpu, || linalg::det(&x))?.item::<f32>()?, 10.0);
//! # Ok(())
//! # }
//! ```
//!
//! Keywords become arguments when there are one or two, in Python's order and without defaults. Where
//! `None` stands for "all, flattened", write `None`. Three or more keywords are a struct with Python's
//! defaults.
//!
//! ```python
//! x = mx.array([1.0, 2.0, 3.0])
//! mx.cumsum(x, reverse=True)  # array([6, 5, 3], dtype=float32)
//! mx.allclose(x, x + 1e-7)  # array(True, dtype=bool)
//! image, kernel = mx.ones((1, 4, 4, 2)), mx.ones((3, 3, 3, 2))
//! mx.conv2d(image, kernel, stride=2, padding=1).shape  # (1, 2, 2, 3)
//! mx.fft.rfft(x, n=4).shape  # (3,)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::fft::{Fft, rfft};
//! use mlx_core::ops::{self, Closeness, Conv, Scan};
//! use mlx_core::{Array, Dtype};
//!
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3])?;
//! let sums = x.cumsum(None, Scan { reverse: true, ..Scan::default() })?;
//! assert_eq!(sums.to_vec::<f32>()?, [6.0, 5.0, 3.0]);
//! assert!(x.allclose(&(&x + 1e-7)?, Closeness::default())?.item::<bool>()?);
//!
//! let image = ops::ones(&[1, 4, 4, 2], Dtype::Float32)?;
//! let kernel = ops::ones(&[3, 3, 3, 2], Dtype::Float32)?;
//! let options = Conv { stride: [2, 2], padding: [1, 1], ..Conv::default() };
//! assert_eq!(ops::conv2d(&image, &kernel, options)?.shape(), [1, 2, 2, 3]);
//! assert_eq!(rfft(&x, Fft { n: Some(4), ..Fft::default() })?.shape(), [3]);
//! # Ok(())
//! # }
//! ```
//!
//! Quantized weights are one value, [`Packed`](crate::ops::Packed), instead of three arrays and three
//! keywords that have to match.
//!
//! ```python
//! w = mx.arange(128).reshape(2, 64).astype(mx.float32)
//! wq, scales, biases = mx.quantize(w, group_size=64, bits=4)
//! mx.quantized_matmul(mx.ones((1, 64)), wq, scales, biases, group_size=64, bits=4).shape  # (1, 2)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, Dtype, Quantization, ops};
//!
//! let w = Array::range(128)?.reshape([2, 64])?.astype(Dtype::Float32)?;
//! let packed = ops::quantize(&w, Quantization::default())?;
//! let ones = ops::ones(&[1, 64], Dtype::Float32)?;
//! assert_eq!(packed.matmul(&ones, true)?.shape(), [1, 2]);
//! assert_eq!(packed.dequantize(None)?.shape(), [2, 64]);
//! # Ok(())
//! # }
//! ```
