//! What becomes of each tensor of a checkpoint, told without reading any.

use mlx_core::Dtype;
use mlx_core::io::Checkpoint;

use super::{family_rules, names_of};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::models;
use crate::rules;

/// A tensor of a checkpoint, and its way into the model.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// The size along each axis.
    pub shape: Vec<i32>,
    /// The dtype.
    pub dtype: Dtype,
    /// The rules that change or rename it, in their order, in words; those that other programs' packed
    /// weights go through first are not among them.
    pub rules: Vec<String>,
    /// What the model calls it, or its parts; none where it is left out.
    pub becomes: Vec<String>,
}

/// Returns the tensors of a checkpoint and what becomes of them, in the order of their names.
///
/// # Errors
/// When the architecture is unknown.
pub fn tensors(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Vec<StoredTensor>> {
    let rules = family_rules(models::family(config)?, &names_of(checkpoint), config);
    let mut tensors: Vec<StoredTensor> = checkpoint
        .tensors()
        .map(|(name, _, info)| {
            let (steps, becomes) = rules::way(&rules, name);
            StoredTensor {
                name: name.to_owned(),
                shape: info.shape.clone(),
                dtype: info.dtype,
                rules: steps.iter().map(ToString::to_string).collect(),
                becomes,
            }
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
