//! Weights of a checkpoint that another program quantized, on their way to a model.
//!
//! Layers are made one after the other and leave the host's memory as arrays, under the names that
//! MLX's own checkpoints have: `.weight`, `.scales`, `.biases`. Tensors that are no layer's stay
//! mapped.

use mlx_core::io::Checkpoint;
use mlx_core::{Array, Dtype, Tensor};

use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Floats, ForeignFormat, Inventory, Layer, RepackOptions, Report};

/// The tensors of a checkpoint as MLX has them.
pub(super) struct Foreign {
    pub(super) tensors: Vec<(String, Tensor)>,
    /// What the model computes in.
    pub(super) dtype: Dtype,
    /// What the user should know.
    pub(super) messages: Vec<String>,
}

/// Returns the tensors but for those that `drops` names; `None` where nothing is as the format has
/// it, which MLX's own checkpoints under a foreign name are.
pub(super) fn tensors(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    format: &ForeignFormat,
    dtype: Option<Dtype>,
    drops: impl Fn(&str) -> bool,
) -> Result<Option<Foreign>> {
    let inventory = format.inventory(checkpoint.tensors().map(|(name, ..)| name));
    if inventory.layers.is_empty() {
        return Ok(None);
    }
    let dtype = dtype.unwrap_or_else(|| dtype_of(checkpoint, config, &inventory));
    let mut tensors = Vec::new();
    for name in inventory.kept.iter().filter(|name| !drops(name)) {
        tensors.extend(kept(checkpoint, name)?.map(|tensor| (name.clone(), tensor)));
    }
    // `nn::Linear` scales no outputs and reorders no inputs.
    let options = RepackOptions { dtype, output_scale: false, input_order: false };
    let mut report = Report::new(format, dtype);
    for path in inventory.layers.iter().filter(|path| !drops(&format!("{path}.weight"))) {
        let recipe = format.recipe(path, &checkpoint, options)?;
        report.add(&recipe);
        for (part, array) in layer_arrays(&recipe.repack()?, recipe.shape())? {
            tensors.push((format!("{path}.{part}"), array.into()));
        }
    }
    Ok(Some(Foreign { tensors, dtype, messages: report.messages() }))
}

/// Chooses the type to compute in: that of the scales, which are then exact, else the
/// configuration's.
fn dtype_of(checkpoint: &Checkpoint, config: &ModelConfig, inventory: &Inventory) -> Dtype {
    let of_scales = inventory.layers.iter().find_map(|path| {
        [".scales", ".weight_scale"].iter().find_map(|part| {
            let (_, info) = checkpoint.get(&format!("{path}{part}"))?;
            match info.stored_dtype {
                "F16" => Some(Dtype::Float16),
                "BF16" => Some(Dtype::Bfloat16),
                _ => None,
            }
        })
    });
    let declared = || config.dtype().filter(|dtype| *dtype != Dtype::Float64);
    of_scales.or_else(declared).unwrap_or(Dtype::Bfloat16)
}

fn kept(checkpoint: &Checkpoint, name: &str) -> Result<Option<Tensor>> {
    let Some((_, info)) = checkpoint.get(name) else { return Ok(None) };
    if info.stored_dtype.starts_with("F8_") {
        let text = format!("{name}: {} without a scale cannot be loaded", info.stored_dtype);
        return Err(Error::new(ErrorKind::Unsupported, text)
            .with_hint("config.json names another format than the weights have"));
    }
    Ok(Tensor::stored(checkpoint, name))
}

/// Makes the arrays of a layer, by the names that MLX's checkpoints give them.
fn layer_arrays(layer: &Layer, shape: &[i32]) -> Result<Vec<(&'static str, Array)>> {
    let packed = match layer {
        Layer::Dense(floats) => {
            return Ok(vec![("weight", Array::from_bytes(&floats.bytes, shape, floats.dtype)?)]);
        }
        Layer::Packed(packed) => packed,
    };
    let (columns, leading) = shape.split_last().expect("a weight has two axes or more");
    let sized = |last: i32| leading.iter().copied().chain([last]).collect::<Vec<i32>>();
    let groups = sized(columns / packed.quantization.group_size);
    let words = (i64::from(*columns) * i64::from(packed.quantization.bits) / 32) as i32;
    let array = |floats: &Floats| Array::from_bytes(&floats.bytes, &groups, floats.dtype);
    let mut arrays = vec![
        ("weight", Array::from_slice(&packed.weight, &sized(words))?),
        ("scales", array(&packed.scales)?),
    ];
    if let Some(biases) = &packed.biases {
        arrays.push(("biases", array(biases)?));
    }
    Ok(arrays)
}
