//! Files: safetensors, npy, npz, GGUF.
//!
//! Python's `mx.load` looks at the file's name and so does [`load`](crate::load); each format has
//! functions of its own as well. Files are checked before MLX sees an address, safetensors and GGUF are
//! mapped instead of read, and what is written is there whole or not at all.
//!
//! ```python
//! w, b = mx.array([1.0, 2.0]), mx.array([3])
//! mx.save_safetensors("m.safetensors", {"w": w, "b": b}, {"format": "mlx"})
//! arrays, metadata = mx.load("m.safetensors", return_metadata=True)
//! metadata  # {'format': 'mlx'}
//! mx.save("w.npy", w)
//! mx.load("w.npy")  # array([1, 2], dtype=float32)
//! mx.savez("m.npz", w=w, b=b)
//! sorted(mx.load("m.npz"))  # ['b', 'w']
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::{Array, load, load_npy, load_npz, load_safetensors_with_metadata};
//! use mlx_core::{save_npy, save_npz, save_safetensors};
//!
//! # let tempdir = tempfile::tempdir().unwrap();
//! # let dir = tempdir.path();
//! let (w, b) = (Array::from_slice(&[1.0f32, 2.0], &[2])?, Array::from_slice(&[3], &[1])?);
//! save_safetensors(dir.join("m.safetensors"), [("w", &w), ("b", &b)], &[("format", "mlx")])?;
//! let (arrays, metadata) = load_safetensors_with_metadata(dir.join("m.safetensors"))?;
//! assert_eq!((arrays.len(), metadata["format"].as_str()), (2, "mlx"));
//!
//! save_npy(dir.join("w.npy"), &w)?;
//! assert_eq!(load_npy(dir.join("w.npy"))?.to_vec::<f32>()?, [1.0, 2.0]);
//! save_npz(dir.join("m.npz"), [("w", &w), ("b", &b)])?;
//! assert!(load_npz(dir.join("m.npz"))?.keys().eq(["b", "w"]));
//! assert_eq!(load(dir.join("m.npz"))?.into_arrays()?.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! GGUF has quantized tensors of its own. [`load_gguf`](crate::load_gguf) turns them into numbers, or
//! into MLX's packed form where that holds the same numbers.
//!
//! ```python
//! mx.save_gguf("m.gguf", {"w": mx.ones((2, 32))}, {"general.name": "tiny"})
//! arrays, metadata = mx.load("m.gguf", return_metadata=True)
//! metadata["general.name"]  # tiny
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::io::{GgmlType, GgufValue};
//! use mlx_core::{Dtype, GgufLoad, GgufSource, load_gguf, ops, save_gguf};
//!
//! # let tempdir = tempfile::tempdir().unwrap();
//! # let path = tempdir.path().join("m.gguf");
//! let w = ops::full(&[2, 32], 127.0, Dtype::Float32)?;
//! let tensors = [("w", GgufSource::from(&w)), ("q", GgufSource::Quantized(&w, GgmlType::Q8_0))];
//! save_gguf(&path, tensors, &[("general.name", GgufValue::from("tiny"))])?;
//! let file = load_gguf(&path, GgufLoad::Dequantize(Dtype::Float32))?;
//! assert_eq!(file.metadata["general.name"].as_str(), Some("tiny"));
//! assert_eq!(file.arrays["q"].to_vec::<f32>()?, [127.0; 64]);
//! # Ok(())
//! # }
//! ```
//!
//! The readers and writers themselves, which never touch MLX, are in [`io`](crate::io).
