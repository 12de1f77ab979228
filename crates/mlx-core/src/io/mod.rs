//! Weight and array files, read and written in Rust.
//!
//! Everything here is host code: it deals in bytes, shapes and [`Dtype`](crate::Dtype)s and never
//! calls MLX, so a file is known to be sound before MLX sees an address inside it. A format has
//! its own module; the parts they share are [`Mapping`], the read-only bytes of a file, and
//! [`atomic`], which replaces a file whole or leaves it alone.
//!
//! Start at [`Checkpoint::open_dir`] to read a model, at [`SafetensorsFile::open`],
//! [`GgufFile::open`], [`NpyFile::open`] or [`NpzFile::open`] to read one file, and at
//! [`write_safetensors`], [`write_gguf_streamed`], [`write_npy`] or [`write_npz`] to write one.

pub mod atomic;
mod finite;
mod format;
mod gguf;
mod mapping;
mod npy;
mod npz;
mod safetensors;
mod sink;

pub use finite::{NonFinite, non_finite};
pub use format::FileFormat;
pub use gguf::{
    GgmlType, GgufArray, GgufFile, GgufLayout, GgufPacked, GgufScales, GgufTensor, GgufValue,
    write_gguf_streamed,
};
pub use mapping::{Mapping, TensorBytes};
pub use npy::{NpyFile, write_npy};
pub use npz::{NpzFile, NpzMethod, write_npz, write_npz_streamed};
pub use safetensors::{
    Checkpoint, IndexDisagreement, SafetensorsFile, SafetensorsPlan, TensorData, TensorInfo,
    TensorLayout, write_safetensors, write_safetensors_streamed,
};
pub use sink::TensorSink;
