//! Building blocks that model families share, with options for how they differ.
//!
//! A model file reads its configuration, says which options it wants, and stays short. What one
//! family alone does stays in that family's file until a second one does it too.

pub mod attention;
pub mod conv;
pub mod decoder;
pub mod gated_delta;
pub mod latent;
pub mod mamba2;
pub mod mask;
pub mod mixer;
pub mod mlp;
pub mod moe;
pub mod rope;

use crate::error::{Error, Result};

/// Refuses a size that no model has, before an array is made of it.
pub(crate) fn check_size(name: &str, size: i32) -> Result<()> {
    match size {
        1..=0x100_0000 => Ok(()),
        _ => Err(Error::format("config.json", format!("\"{name}\" is {size}"))),
    }
}
