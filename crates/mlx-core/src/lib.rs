//! Safe arrays on Apple's MLX: ops, layers, weights, files and CPU kernels.
//!
//! An [`Array`] is a lazy node of MLX's graph: an op makes a node, [`eval`] or a host read
//! computes it. Every op returns a [`Result`]; nothing panics on input. Arrays belong to the
//! thread that made them (`!Send`): MLX's streams and caches are per thread.
//!
//! ```
//! use mlx_core::Array;
//!
//! # fn main() -> mlx_core::Result<()> {
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
//! let y = (x.matmul(&x)? * 0.5)?.sum(0, false)?;
//! assert_eq!(y.to_vec::<f32>()?, [11.0, 16.0]);
//! # Ok(())
//! # }
//! ```
//!
//! Who knows MLX in Python starts at the [`guide`], which shows both side by side; else [`Array`] and
//! [`ops`]. [`transforms`] differentiate, map and compile, [`nn`] and [`optim`] build and train,
//! [`Weights`] are a checkpoint on its way into layers, [`io`] reads and writes files. Unsafe code lives in `ffi/`, in `kernels/` and in one
//! helper of `io/`.

mod array;
pub mod cuda;
mod device;
pub mod distributed;
mod dtype;
mod error;
pub mod fast;
mod ffi;
pub mod fft;
pub mod guide;
pub mod io;
pub mod kernels;
pub mod linalg;
pub mod memory;
pub mod metal;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod quantization;
pub mod random;
pub mod stream;
pub mod transforms;
mod weights;

pub use array::index::{Ellipsis, Index, IndexItem, NewAxis, Slice};
pub use array::{Array, Axes, Complex32, Element, Operand, Scalar};
pub use array::{GgufArrays, GgufLoad, GgufSource, load_gguf, save_gguf};
pub use array::{
    Loaded, load, load_npy, load_npz, load_safetensors, load_safetensors_with_metadata, save_npy,
    save_npz, save_npz_compressed, save_safetensors,
};
pub use device::{Device, DeviceValue, mlx_version};
pub use dtype::{Dtype, DtypeCategory, Finfo, Iinfo};
pub use error::{Error, ErrorKind, Result};
pub use quantization::{QuantMode, Quantization, QuantizationConfig};
pub use stream::{Stream, with_device, with_stream};
pub use transforms::{async_eval, eval};
pub use weights::{Mismatch, TakenMatrix, Tensor, Weights, WeightsReport};

/// Returns the number of C handles that this thread holds, where they are counted; for tests.
#[doc(hidden)]
pub fn live_handles() -> Option<isize> {
    ffi::live_handles()
}

/// The version of MLX that this crate is built for.
pub const MLX_VERSION: &str = "0.32.2";
