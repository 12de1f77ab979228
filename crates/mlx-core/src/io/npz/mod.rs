//! The npz format: a zip archive of npy files, each named by its array with `.npy` behind.
//!
//! Archives are read and written by the `zip` crate; what is checked here is what it leaves to
//! its callers: that no two arrays share a name or bytes, and that the sizes which an archive
//! declares agree with one another, so that a small file cannot ask for much memory. Names are
//! keys and never paths.

mod read;
mod write;

pub use read::NpzFile;
pub use write::{NpzMethod, write_npz, write_npz_streamed};
