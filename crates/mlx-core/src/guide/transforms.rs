//! Function transforms: derivatives, `vmap`, `compile`, custom rules, functions in files.
//!
//! A transform takes a closure from arrays to arrays, `Fn(&[Array]) -> Result<Vec<Array>>`, where
//! Python takes any function. Arguments are numbered, `argnums` as in Python; `..` is all of them. To
//! differentiate by a model's parameters, see [`nn`](super::nn).
//!
//! ```python
//! def loss(w, x):
//!     return (w * x).sum()
//!
//! w, x = mx.array([3.0, 4.0]), mx.array([1.0, 2.0])
//! value, gradient = mx.value_and_grad(loss)(w, x)
//! value  # array(11, dtype=float32)
//! gradient  # array([1, 2], dtype=float32)
//! mx.grad(mx.grad(lambda x: x ** 3))(mx.array(2.0))  # array(12, dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::transforms::{grad, value_and_grad};
//!
//! let loss = |inputs: &[Array]| Ok(vec![(&inputs[0] * &inputs[1])?.sum(.., false)?]);
//! let w = Array::from_slice(&[3.0f32, 4.0], &[2])?;
//! let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! let (values, gradients) = value_and_grad(loss, 0)?.call(&[w, x])?;
//! assert_eq!(values[0].item::<f32>()?, 11.0);
//! assert_eq!(gradients[0].to_vec::<f32>()?, [1.0, 2.0]);
//!
//! let slope = grad(|x| Ok(vec![x[0].power(3)?]), 0)?;
//! let curvature = grad(move |x| slope.call(x), 0)?;
//! assert_eq!(curvature.call(&[2.0f32.into()])?[0].item::<f32>()?, 12.0);
//! # Ok(())
//! # }
//! ```
//!
//! A transformed function lives on, so its closure owns what it uses. `value_and_grad_once`,
//! `grad_once` and `vmap_once` call at once and may borrow.
//!
//! ```python
//! mx.vjp(mx.square, [x], [mx.array([1.0, 10.0])])[1]  # [array([2, 40], dtype=float32)]
//! mx.jvp(mx.square, [x], [mx.array([1.0, 10.0])])[1]  # [array([2, 40], dtype=float32)]
//! rows = mx.array([[1.0, 2.0], [3.0, 4.0]])
//! mx.vmap(lambda a, b: (a * b).sum(), in_axes=(0, None))(rows, x)  # array([5, 11], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::transforms::{jvp, vjp, vmap};
//!
//! let square = |x: &[Array]| Ok(vec![x[0].square()?]);
//! let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! let along = Array::from_slice(&[1.0f32, 10.0], &[2])?;
//! let (_, gradients) = vjp(square, &[x.clone()], &[along.clone()])?;
//! assert_eq!(gradients[0].to_vec::<f32>()?, [2.0, 40.0]);
//! let (_, changes) = jvp(square, &[x.clone()], &[along])?;
//! assert_eq!(changes[0].to_vec::<f32>()?, [2.0, 40.0]);
//!
//! let rows = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
//! let dot = |x: &[Array]| Ok(vec![(&x[0] * &x[1])?.sum(.., false)?]);
//! let dots = vmap(dot, &[Some(0), None], 0)?.call(&[rows, x])?;
//! assert_eq!(dots[0].to_vec::<f32>()?, [5.0, 11.0]);
//! # Ok(())
//! # }
//! ```
//!
//! [`compile`](crate::transforms::compile) traces once for each set of shapes and dtypes. A trace cannot
//! read values, and what a closure does besides arrays happens while it is traced only. Python's
//! `inputs=` and `outputs=` are arguments and results here.
//!
//! ```python
//! @mx.compile
//! def gelu(x):
//!     return x * (1 + mx.erf(x / 1.4142135)) / 2
//!
//! gelu(mx.array(1.0))  # array(0.841345, dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::transforms::compile;
//!
//! let gelu = compile(
//!     |x| {
//!         let (x, half) = (&x[0], (&x[0] / 1.4142135)?.erf()?);
//!         Ok(vec![((x * (half + 1.0))? / 2.0)?])
//!     },
//!     false,
//! )?;
//! let y = gelu.call(&[Array::from(1.0f32)])?[0].item::<f32>()?;
//! assert!((y - 0.841345).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```
//!
//! [`checkpoint`](crate::transforms::checkpoint) forgets what is in between and computes it again for
//! the gradient. A function with rules of its own is built, where Python has decorators.
//!
//! ```python
//! @mx.custom_function
//! def round_through(x):
//!     return mx.round(x)
//!
//! @round_through.vjp
//! def _(primals, cotangents, outputs):
//!     return cotangents
//!
//! mx.grad(round_through)(mx.array(2.7))  # array(1, dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::transforms::{custom_function, grad};
//!
//! let round_through = custom_function(|x| Ok(vec![x[0].round(0)?]))
//!     .vjp(|_primals, cotangents, _outputs| Ok(cotangents.to_vec()))
//!     .build()?;
//! let slope = grad(move |x| round_through.call(x), 0)?;
//! assert_eq!(slope.call(&[Array::from(2.7f32)])?[0].item::<f32>()?, 1.0);
//! # Ok(())
//! # }
//! ```
//!
//! Functions go to files and back, in MLX's format: Python imports what is exported here, and the other
//! way round for the ops that [`import_function`](crate::transforms::export::import_function) lists.
//!
//! ```python
//! mx.export_function("double.mlxfn", lambda x: x * 2.0, mx.array([1.0, 2.0]))
//! double = mx.import_function("double.mlxfn")
//! double(mx.array([1.0, 2.0]))  # (array([2, 4], dtype=float32),)
//! mx.export_to_dot("graph.dot", mx.exp(mx.array(2.0)))
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::transforms::export::{Kwargs, export_function, import_function};
//! use mlx_core::transforms::graph::{Names, export_to_dot, print_graph};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("double.mlxfn");
//! let double = |x: &[Array], _: &Kwargs| Ok(vec![(&x[0] * 2.0)?]);
//! let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! export_function(&path, double, &[x.clone()], &Kwargs::new(), false)?;
//! assert_eq!(import_function(&path)?.call(&[x.clone()])?[0].to_vec::<f32>()?, [2.0, 4.0]);
//!
//! let y = x.exp()?;
//! let names = Names::new().with(&x, "x").with(&y, "y");
//! assert!(print_graph(&names, &[y.clone()])?.contains("Exp x [(2), float32] -> y [(2), float32]"));
//! assert!(export_to_dot(&names, &[y])?.starts_with("digraph {"));
//! # Ok(())
//! # }
//! ```
