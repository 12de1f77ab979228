//! What is to be written: each tensor with its type and shape, and how it is made, before any is.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use mlx_core::io::TensorLayout;
use mlx_core::kernels::ScaleSearch;
use mlx_core::{Dtype, QuantMode, Quantization, Tensor};

use super::predicate::{Decision, LayerInfo, QuantPredicate, ROUTER};
use super::source::Source;
use super::{check_quantization, is_float};
use crate::error::{Error, Result};
use crate::rules;

/// What happens to the layers of a model.
pub(crate) enum Action<'a> {
    /// They stay as they are.
    Keep,
    /// Dense ones are quantized.
    Quantize {
        /// What is meant by [`Decision::Default`].
        default: Quantization,
        predicate: &'a mut dyn QuantPredicate,
        /// Whether packed ones are packed anew.
        anew: bool,
    },
    /// Packed ones become dense.
    Dequantize,
}

/// How a tensor is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// It is the source's of that name, in another floating type perhaps.
    Keep,
    /// It is a part of a layer that is packed.
    Pack { path: String, part: Part, quantization: Quantization },
    /// It is the weight of a layer that is unpacked.
    Unpack { path: String },
}

/// The parts of a packed layer, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Weight,
    Scales,
    Biases,
}

/// What is to be written.
pub(crate) struct Plan {
    /// How scales are found.
    pub(super) search: ScaleSearch,
    pub(crate) outputs: Vec<(TensorLayout, Make)>,
    /// What became of each layer, by its path: how it is packed, if it is.
    pub(super) layers: BTreeMap<String, Option<Quantization>>,
    /// How many layers were packed, unpacked, and left dense though they were to be packed.
    pub(super) n_packed: usize,
    pub(super) n_unpacked: usize,
    pub(super) n_unfit: usize,
    /// Weights, counted before packing.
    pub(crate) n_parameters: u64,
}

impl Plan {
    /// Decides on every layer, in the order of the model, and lists what becomes of each tensor.
    ///
    /// # Errors
    /// Those of the predicate, and when it asks for a format that there is not.
    pub(crate) fn new(
        source: &Source,
        mut action: Action<'_>,
        search: ScaleSearch,
    ) -> Result<Plan> {
        let mut plan = Plan {
            search,
            outputs: Vec::new(),
            layers: BTreeMap::new(),
            n_packed: 0,
            n_unpacked: 0,
            n_unfit: 0,
            n_parameters: 0,
        };
        let mut names: Vec<&String> = source.tensors.keys().collect();
        names.sort_by(|a, b| order(a, b));
        for name in names {
            let tensor = &source.tensors[name];
            let layer = name.rsplit_once('.').filter(|(path, _)| source.layers.contains(*path));
            match layer {
                Some((path, "weight")) => plan.add_layer(source, path, tensor, &mut action)?,
                // These come with the weight.
                Some((path, "scales" | "biases" | "global_scale"))
                    if source.packed.contains_key(path) => {}
                _ => plan.keep(source, name, tensor),
            }
        }
        Ok(plan)
    }

    fn add_layer(
        &mut self,
        source: &Source,
        path: &str,
        weight: &Tensor,
        action: &mut Action<'_>,
    ) -> Result<()> {
        if let Some(&quantization) = source.packed.get(path) {
            return self.add_packed_layer(source, path, quantization, action);
        }
        let name = format!("{path}.weight");
        let dtype = kept_dtype(source, &name, weight);
        let quantization = match action {
            Action::Quantize { default, predicate, .. } if is_float(weight.dtype()) => {
                self.decide(source, path, weight.shape(), dtype, *default, *predicate)?
            }
            _ => None,
        };
        self.layers.insert(path.to_owned(), quantization);
        match quantization {
            Some(quantization) => self.pack(path, weight.shape(), dtype, quantization),
            None => self.keep(source, &name, weight),
        }
        Ok(())
    }

    fn add_packed_layer(
        &mut self,
        source: &Source,
        path: &str,
        quantization: Quantization,
        action: &mut Action<'_>,
    ) -> Result<()> {
        let shape = source.unpacked_shape(path, quantization).unwrap_or_default();
        let dtype = source.dtype.unwrap_or_else(|| source.layer_dtype(path));
        match action {
            Action::Dequantize => {
                self.unpack(path, dtype, &shape);
                return Ok(());
            }
            Action::Quantize { default, predicate, anew: true } => {
                let other = self.decide(source, path, &shape, dtype, *default, *predicate)?;
                if let Some(other) = other.filter(|&other| other != quantization) {
                    self.layers.insert(path.to_owned(), Some(other));
                    self.pack(path, &shape, dtype, other);
                    return Ok(());
                }
            }
            _ => {}
        }
        self.layers.insert(path.to_owned(), Some(quantization));
        self.n_parameters += n_elements(&shape);
        for part in ["weight", "scales", "biases", "global_scale"] {
            let name = format!("{path}.{part}");
            if let Some(tensor) = source.tensors.get(&name) {
                let dtype = kept_dtype(source, &name, tensor);
                self.push(&name, dtype, tensor.shape(), Make::Keep);
            }
        }
        Ok(())
    }

    fn decide(
        &mut self,
        source: &Source,
        path: &str,
        shape: &[i32],
        dtype: Dtype,
        default: Quantization,
        predicate: &mut dyn QuantPredicate,
    ) -> Result<Option<Quantization>> {
        let family = match rules::is_one_of(source.protected.routers, path) {
            true => Decision::Packed(ROUTER),
            false => Decision::Default,
        };
        let decision = predicate.decide(&LayerInfo { path, shape, dtype, default, family })?;
        let quantization = match decision {
            Decision::Dense => return Ok(None),
            Decision::Default => default,
            Decision::Packed(quantization) => {
                check_quantization(quantization).map_err(|e: Error| e.context(path))?;
                quantization
            }
        };
        let columns = shape.last().copied().unwrap_or(0);
        let is_whole = columns > 0 && columns % quantization.group_size == 0;
        self.n_unfit += usize::from(!is_whole);
        Ok(is_whole.then_some(quantization))
    }

    fn pack(&mut self, path: &str, shape: &[i32], dtype: Dtype, quantization: Quantization) {
        let Quantization { group_size, bits, mode } = quantization;
        let Some((columns, leading)) = shape.split_last() else { return };
        let sized = |last: i32| leading.iter().copied().chain([last]).collect::<Vec<i32>>();
        let words = sized((i64::from(*columns) * i64::from(bits) / 32) as i32);
        let groups = sized(columns / group_size);
        let make = |part| Make::Pack { path: path.to_owned(), part, quantization };
        self.push(&format!("{path}.weight"), Dtype::Uint32, &words, make(Part::Weight));
        let is_affine = mode == QuantMode::Affine;
        let of_scales = if is_affine { dtype } else { Dtype::Uint8 };
        self.push(&format!("{path}.scales"), of_scales, &groups, make(Part::Scales));
        if is_affine {
            self.push(&format!("{path}.biases"), dtype, &groups, make(Part::Biases));
        }
        self.n_packed += 1;
        self.n_parameters += n_elements(shape);
    }

    fn unpack(&mut self, path: &str, dtype: Dtype, shape: &[i32]) {
        let make = Make::Unpack { path: path.to_owned() };
        self.push(&format!("{path}.weight"), dtype, shape, make);
        self.layers.insert(path.to_owned(), None);
        self.n_unpacked += 1;
        self.n_parameters += n_elements(shape);
    }

    fn keep(&mut self, source: &Source, name: &str, tensor: &Tensor) {
        self.n_parameters += n_elements(tensor.shape());
        self.push(name, kept_dtype(source, name, tensor), tensor.shape(), Make::Keep);
    }

    fn push(&mut self, name: &str, dtype: Dtype, shape: &[i32], make: Make) {
        let layout = TensorLayout { name: name.to_owned(), dtype, shape: shape.to_vec() };
        self.outputs.push((layout, make));
    }

    /// Returns the size of what is written in bytes, without headers.
    pub(super) fn n_bytes(&self) -> u64 {
        self.outputs.iter().map(|(tensor, _)| n_bytes(tensor)).sum()
    }
}

/// Returns the size of a tensor in bytes.
pub(crate) fn n_bytes(tensor: &TensorLayout) -> u64 {
    n_elements(&tensor.shape) * tensor.dtype.size() as u64
}

/// The type in which a tensor that stays is written: only floating ones change, and not those that the
/// family protects.
fn kept_dtype(source: &Source, name: &str, tensor: &Tensor) -> Dtype {
    let is_protected = rules::is_one_of(source.protected.types, name);
    match source.dtype {
        Some(dtype) if tensor.dtype().is_floating() && !is_protected => dtype,
        _ => tensor.dtype(),
    }
}

fn n_elements(shape: &[i32]) -> u64 {
    shape.iter().map(|&n| u64::from(n.unsigned_abs())).product()
}

/// Orders names so that layers follow one another by their numbers, as files have them.
fn order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let ordering = match (a.next(), b.next()) {
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(m), Ok(n)) => m.cmp(&n).then_with(|| a.cmp(b)),
                _ => a.cmp(b),
            },
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_layers() {
        let expected = ["a.2.w", "a.9", "a.9.b", "a.10.a", "a.b.1", "b"];
        let mut names = expected;
        names.reverse();
        names.sort_by(|a, b| order(a, b));
        assert_eq!(names, expected);
    }
}
