//! The npy format: a header that is the text of a Python dict, then the elements of one array.
//!
//! ```text
//! \x93NUMPY | version: 2 bytes | N: u16, or u32 from version 2 on | header: N bytes | elements
//! {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
//! ```
//!
//! `header` reads that dict by its grammar, evaluates nothing, and checks it against the size of
//! the file; `file` is one opened file. Object arrays are pickles, programs in other words, and
//! are refused. bfloat16, which NumPy has not, is stored as two untyped bytes, `<V2`: so do MLX
//! and the packages that add the type to NumPy.

mod file;
mod header;

pub use file::{NpyFile, write_npy};
pub(super) use header::{Header, MAX_PREFIX, header_bytes};
