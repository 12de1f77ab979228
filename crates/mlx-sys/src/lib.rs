//! Raw bindings to MLX.
//!
//! `generated.rs` is made by bindgen from mlx-c's headers and from `shim/shim.h`, which adds what
//! mlx-c lacks; it is committed, so that no user needs libclang. Nothing here is safe or
//! convenient: mlx-core is. The native library comes from `build/`.

#![allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case)]

mod generated;

pub use generated::*;
