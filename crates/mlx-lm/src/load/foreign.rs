//! Weights of a checkpoint that another program quantized, on their way to a model.
//!
//! Layers are made when they are wanted, under the names that MLX's own checkpoints have: `.weight`,
//! `.scales`, `.biases`. Tensors that are no layer's stay mapped.

use std::cell::RefCell;
use std::rc::Rc;

use mlx_core::io::Checkpoint;
use mlx_core::{Array, Dtype, QuantMode, Tensor};

use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{
    Floats, ForeignFormat, Form, Inventory, Layer, Recipe, RepackOptions, Report,
};

/// The tensors of a checkpoint as MLX has them.
pub(crate) struct Foreign {
    pub(crate) tensors: Vec<(String, Tensor)>,
    /// What the model computes in.
    pub(crate) dtype: Dtype,
    /// What the user should know.
    pub(crate) messages: Vec<String>,
}

/// Returns the tensors but for those that `drops` names; `None` where nothing is as the format has
/// it, which MLX's own checkpoints under a foreign name are.
pub(crate) fn tensors(
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
        tensors.extend(layer_tensors(checkpoint, format, path, options, &recipe));
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

/// A layer that is made when the first of its parts is wanted, and holds the others until they are.
struct LazyLayer {
    checkpoint: Checkpoint,
    format: ForeignFormat,
    path: String,
    options: RepackOptions,
    made: RefCell<Vec<(&'static str, Array)>>,
}

impl LazyLayer {
    fn take(&self, part: &str) -> Result<Array> {
        let mut made = self.made.borrow_mut();
        let held = |made: &[(&str, Array)]| made.iter().position(|(name, _)| *name == part);
        let index = match held(&made) {
            Some(index) => index,
            None => {
                let recipe = self.format.recipe(&self.path, &&self.checkpoint, self.options)?;
                *made = layer_arrays(&recipe.repack()?, recipe.shape())?;
                held(&made).ok_or_else(|| Error::format(&self.path, format!("no {part}")))?
            }
        };
        Ok(made.swap_remove(index).1)
    }
}

/// Returns the tensors of a layer, by the names that MLX's checkpoints give them.
fn layer_tensors(
    checkpoint: &Checkpoint,
    format: &ForeignFormat,
    path: &str,
    options: RepackOptions,
    recipe: &Recipe<'_>,
) -> Vec<(String, Tensor)> {
    let layer = Rc::new(LazyLayer {
        checkpoint: checkpoint.clone(),
        format: format.clone(),
        path: path.to_owned(),
        options,
        made: RefCell::default(),
    });
    let tensor = |(part, shape, dtype): (&'static str, Vec<i32>, Dtype)| {
        let layer = Rc::clone(&layer);
        let make = move || {
            let failed =
                |e: Error| mlx_core::Error::new(mlx_core::ErrorKind::Format, e.to_string());
            layer.take(part).map_err(failed)
        };
        (format!("{path}.{part}"), Tensor::made_by(&shape, dtype, make))
    };
    let shape = recipe.shape();
    let parts = match recipe.form() {
        Form::Dense { .. } => vec![("weight", shape.to_vec(), options.dtype)],
        Form::Packed { quantization, .. } => {
            let [words, groups] = packed_shapes(shape, quantization.bits, quantization.group_size);
            let mut parts = vec![("weight", words, Dtype::Uint32)];
            match quantization.mode {
                QuantMode::Affine => {
                    parts.push(("scales", groups.clone(), options.dtype));
                    parts.push(("biases", groups, options.dtype));
                }
                _ => parts.push(("scales", groups, Dtype::Uint8)),
            }
            parts
        }
    };
    parts.into_iter().map(tensor).collect()
}

/// Returns the shapes of packed words and of scales for a weight of this shape.
fn packed_shapes(shape: &[i32], bits: i32, group_size: i32) -> [Vec<i32>; 2] {
    let (columns, leading) = shape.split_last().expect("a weight has two axes or more");
    let sized = |last: i32| leading.iter().copied().chain([last]).collect::<Vec<i32>>();
    let words = (i64::from(*columns) * i64::from(bits) / 32) as i32;
    [sized(words), sized(columns / group_size)]
}

/// Makes the arrays of a layer, by the names that MLX's checkpoints give them.
fn layer_arrays(layer: &Layer, shape: &[i32]) -> Result<Vec<(&'static str, Array)>> {
    let packed = match layer {
        Layer::Dense(floats) => {
            return Ok(vec![("weight", Array::from_bytes(&floats.bytes, shape, floats.dtype)?)]);
        }
        Layer::Packed(packed) => packed,
    };
    let quantization = packed.quantization;
    let [words, groups] = packed_shapes(shape, quantization.bits, quantization.group_size);
    let array = |floats: &Floats| Array::from_bytes(&floats.bytes, &groups, floats.dtype);
    let mut arrays = vec![
        ("weight", Array::from_slice(&packed.weight, &words)?),
        ("scales", array(&packed.scales)?),
    ];
    if let Some(biases) = &packed.biases {
        arrays.push(("biases", array(biases)?));
    }
    Ok(arrays)
}
