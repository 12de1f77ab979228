//! GGUF, the format of ggml and llama.cpp: metadata, tensor infos, then the tensors' bytes.
//!
//! ```text
//! "GGUF" | version u32 | tensors u64 | values u64 | values | tensor infos | padding | data
//! value: key | type u32 | value        tensor info: name | axes u32 | sizes u64… | type u32 | offset u64
//! string: length u64 | UTF-8           array: type u32 | length u64 | values
//! ```
//!
//! All is little endian. Sizes stand innermost first, the reverse of a shape here, so that a row
//! of a weight `[out, in]` lies in one piece in both. Offsets count from the start of the data and
//! are multiples of `general.alignment`, 32 if the file does not say.
//!
//! `header` reads and checks all but the data, once; `file` is one opened file, whose tensors are
//! looked at by name; `types` are ggml's element types and `value` the metadata's; `write` is the
//! way back.
//!
//! # What becomes of the types
//!
//! `dequantize` computes the elements of every type, in `f32` and bit for bit as ggml does. `pack`
//! rearranges those that MLX has too, without loss ([`GgufPacked`]); `unpack` and `encode` are
//! the ways back, from MLX's packed weights and from numbers.
//!
//! | type | bits | block | read | packed in MLX | written |
//! | --- | --- | --- | --- | --- | --- |
//! | `F32` `F16` `BF16` `F64` `I8` `I16` `I32` `I64` | 8 to 64 | 1 | as it is | | as it is |
//! | `Q4_0` `Q4_1` `Q8_0` | 4.5, 5, 8.5 | 32 | yes | affine, 32 | from numbers or packed |
//! | `Q5_0` `Q5_1` | 5.5, 6 | 32 | yes | affine, 32 | from packed |
//! | `Q4_K` `Q5_K` | 4.5, 5.5 | 256 | yes | affine, 32 | |
//! | `Q2_K` `Q3_K` `Q6_K` | 2.63, 3.44, 6.56 | 256 | yes | no: groups of 16 | |
//! | `IQ1_S` `IQ1_M` `IQ2_XXS` `IQ2_XS` `IQ2_S` | 1.56 to 2.56 | 256 | yes | no: code books | |
//! | `IQ3_XXS` `IQ3_S` `IQ4_NL` `IQ4_XS` | 3.06 to 4.5 | 256, `IQ4_NL` 32 | yes | no: code books | |
//! | `TQ1_0` `TQ2_0` | 1.69, 2.06 | 256 | yes | affine, 128 | |
//! | `Q1_0` `Q2_0` | 1.13, 2.25 | 128, 64 | yes | affine, 128, 64 | |
//! | `MXFP4` `NVFP4` | 4.25, 4.5 | 32, 64 | yes | mxfp4, nvfp4 | from packed |
//! | `Q8_1` `Q8_K` | 9, 9.13 | 32, 256 | yes | no: never in files | |
//!
//! Files of version 1 and big-endian ones are refused, as are types that ggml has removed.
//!
//! The layouts are facts of ggml (MIT), whose Python package `gguf` the tests compare with; its
//! code books are in `grids`.

mod dequantize;
mod encode;
mod file;
mod grids;
mod header;
mod pack;
mod types;
mod unpack;
mod value;
mod write;

pub use file::GgufFile;
pub use header::GgufTensor;
pub use pack::{GgufPacked, GgufScales};
pub use types::GgmlType;
pub use value::{GgufArray, GgufValue};
pub use write::{GgufLayout, write_gguf_streamed};
