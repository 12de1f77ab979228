//! The safetensors format: a JSON header that names every tensor, then their bytes.
//!
//! ```text
//! N: u64, little endian | header: N bytes of JSON, may end in spaces | data
//! {"__metadata__": {"format": "mlx"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
//! ```
//!
//! The offsets count from the start of the data, which the tensors fill exactly: in some order
//! each begins where the one before ends, and the last ends with the file. `header` checks all of
//! that once, so that the rest may trust it; `file` is one opened file; `checkpoint` is the files
//! of one model, of which `index` may tell more; `write` is the way back.
//!
//! The `safetensors` crate knows no complex numbers, drops duplicate names, and does not say which
//! tensor is wrong, so the header is read here; the crate is what the tests compare with.

mod checkpoint;
mod file;
mod header;
mod index;
mod write;

pub use checkpoint::Checkpoint;
pub use file::SafetensorsFile;
pub use header::TensorInfo;
pub(super) use header::byte_size;
pub use index::IndexDisagreement;
pub use write::{
    SafetensorsPlan, TensorData, TensorLayout, write_safetensors, write_safetensors_streamed,
};
