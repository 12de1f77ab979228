//! Building blocks that model families share, with options for how they differ.
//!
//! A model file reads its configuration, says which options it wants, and stays short. What one
//! family alone does stays in that family's file until a second one does it too.

pub mod attention;
pub mod decoder;
pub mod mask;
pub mod mlp;
pub mod rope;
