//! Which tensor goes into which file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use mlx_core::io::{SafetensorsPlan, TensorLayout};
use serde::Serialize;

use super::json::python_json;
use crate::error::{Error, ErrorKind, Result};

/// The index of a model's weight files.
pub(super) const INDEX_NAME: &str = "model.safetensors.index.json";

/// What every weight file says of itself, by which programs know MLX's layout.
const METADATA: [(&str, &str); 1] = [("format", "mlx")];

/// One weight file.
pub(super) struct Shard<'a> {
    pub(super) name: String,
    /// The positions of its tensors among all.
    pub(super) tensors: Range<usize>,
    pub(super) plan: SafetensorsPlan<'a>,
}

/// Distributes tensors over files in their order: a file is closed when the next tensor would take
/// it above `max_bytes`, so that a tensor larger than that sits alone.
///
/// # Errors
/// When there are no tensors, a name is empty, reserved or given twice, or a shape has no size.
pub(super) fn split(tensors: &[TensorLayout], max_bytes: u64) -> Result<Vec<Shard<'_>>> {
    let ranges = ranges(&sizes(tensors)?, max_bytes);
    let n_shards = ranges.len();
    let shard = |(position, range): (usize, Range<usize>)| {
        let name = shard_name(position, n_shards);
        let plan = SafetensorsPlan::new(&tensors[range.clone()], &METADATA)
            .map_err(|e| invalid(format!("{name}: {e}")))?;
        Ok(Shard { name, tensors: range, plan })
    };
    ranges.into_iter().enumerate().map(shard).collect()
}

fn sizes(tensors: &[TensorLayout]) -> Result<Vec<u64>> {
    if tensors.is_empty() {
        return Err(invalid("there are no tensors to save".to_owned()));
    }
    let mut names = BTreeSet::new();
    let mut total = 0u64;
    let mut sizes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let TensorLayout { name, dtype, shape } = tensor;
        if !names.insert(name) {
            return Err(invalid(format!("tensor {name:?} is given twice")));
        }
        let size = tensor.byte_size().filter(|&size| {
            total = total.saturating_add(size);
            total < u64::MAX
        });
        let no_size = || invalid(format!("tensor {name:?}: {dtype} {shape:?} has no valid size"));
        sizes.push(size.ok_or_else(no_size)?);
    }
    Ok(sizes)
}

fn ranges(sizes: &[u64], max_bytes: u64) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut n_bytes = 0u64;
    for (position, &size) in sizes.iter().enumerate() {
        match ranges.last_mut() {
            Some(last) if n_bytes.saturating_add(size) <= max_bytes => {
                last.end = position + 1;
                n_bytes += size;
            }
            _ => {
                ranges.push(position..position + 1);
                n_bytes = size;
            }
        }
    }
    ranges
}

fn shard_name(position: usize, n_shards: usize) -> String {
    match n_shards {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", position + 1),
    }
}

#[derive(Serialize)]
struct Index<'a> {
    metadata: IndexMetadata,
    weight_map: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct IndexMetadata {
    total_size: u64,
    total_parameters: u64,
}

/// Writes the index, as text.
pub(super) fn index(
    shards: &[Shard<'_>],
    tensors: &[TensorLayout],
    total_parameters: u64,
) -> Result<Vec<u8>> {
    let in_shard = |shard| {
        let Shard { name, tensors: range, .. }: &Shard<'_> = shard;
        tensors[range.clone()].iter().map(|tensor| (tensor.name.as_str(), name.as_str()))
    };
    let total_size = tensors.iter().filter_map(TensorLayout::byte_size).sum();
    python_json(&Index {
        metadata: IndexMetadata { total_size, total_parameters },
        weight_map: shards.iter().flat_map(in_shard).collect(),
    })
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

#[cfg(test)]
mod tests;
