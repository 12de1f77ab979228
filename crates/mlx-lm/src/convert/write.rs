//! Making the bytes of each tensor, some rows at a time.

use std::borrow::Cow;

use mlx_core::io::TensorSink;
use mlx_core::kernels::{PackedBytes, convert_floats, pack_rows};
use mlx_core::{Array, Dtype, QuantMode, Quantization, Tensor};

use super::is_float;
use super::plan::{Make, Part, Plan};
use super::source::Source;
use crate::error::{Error, Result};
use crate::save::TensorSource;

/// About as many bytes of weights are in memory at a time.
const CHUNK: usize = 8 << 20;

/// Gives the tensors of a plan.
pub(super) struct Writer<'a> {
    pub(super) source: &'a mut Source,
    pub(super) plan: &'a Plan,
    /// Scales and biases of the layer whose weight was written last.
    pub(super) last: Option<(String, PackedBytes)>,
}

impl TensorSource for Writer<'_> {
    fn write(&mut self, index: usize, sink: &mut TensorSink<'_>) -> Result<()> {
        let Some((layout, make)) = self.plan.outputs.get(index) else {
            return Err(Error::format("weights", format!("there is no tensor {index}")));
        };
        let done = match make {
            Make::Keep => self.keep(&layout.name, layout.dtype, sink),
            Make::Pack { path, part, quantization } => {
                self.pack(path, *part, layout.dtype, *quantization, sink)
            }
            Make::Unpack { path } => self.unpack(path, layout.dtype, sink),
        };
        done.map_err(|e| e.context(&layout.name))
    }
}

impl Writer<'_> {
    /// Takes a tensor that nobody needs again, so that what was made of it goes with it.
    fn take(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.source.tensors.get(name);
        tensor.cloned().ok_or_else(|| Error::format(name, "is missing"))
    }

    fn drop_tensor(&mut self, name: &str) {
        self.source.tensors.remove(name);
    }

    fn keep(&mut self, name: &str, dtype: Dtype, sink: &mut TensorSink<'_>) -> Result<()> {
        let tensor = self.take(name)?;
        self.drop_tensor(name);
        let from = tensor.dtype();
        if from == dtype {
            return each_part(tensor, &mut |bytes| Ok(sink.write(bytes)?));
        }
        if is_float(from) && is_float(dtype) {
            return each_part(tensor, &mut |bytes| {
                Ok(sink.write(&convert_floats(bytes, [from, dtype])?)?)
            });
        }
        let array = tensor.into_array()?.astype(dtype)?;
        Ok(array.with_bytes(|bytes| sink.write(bytes))??)
    }

    fn pack(
        &mut self,
        path: &str,
        part: Part,
        dtype: Dtype,
        quantization: Quantization,
        sink: &mut TensorSink<'_>,
    ) -> Result<()> {
        let is_held = self.last.as_ref().is_some_and(|(held, _)| held == path);
        if part == Part::Weight || !is_held {
            // Scales and biases alone are made anew where a run goes on behind the weight.
            let to = self.scales_dtype(path, dtype, quantization);
            let mut weight = (part == Part::Weight).then_some(&mut *sink);
            let packed =
                self.pack_weight(path, to, quantization, &mut |bytes| match &mut weight {
                    Some(sink) => Ok(sink.write(bytes)?),
                    None => Ok(()),
                })?;
            self.last = Some((path.to_owned(), packed));
        }
        let Some((_, packed)) = &self.last else { return Ok(()) };
        match part {
            Part::Weight => {}
            Part::Scales => sink.write(&packed.scales)?,
            Part::Biases => sink.write(&packed.biases)?,
        }
        let is_last = part == Part::Biases || quantization.mode != QuantMode::Affine;
        if is_last && part != Part::Weight {
            self.source.drop_layer(path);
            self.last = None;
        }
        Ok(())
    }

    /// Returns the type to which weights are rounded: that of the scales, where these are no bytes.
    fn scales_dtype(&self, path: &str, dtype: Dtype, quantization: Quantization) -> Dtype {
        if quantization.mode == QuantMode::Affine && dtype.is_floating() {
            return dtype;
        }
        self.source.dtype.unwrap_or_else(|| self.source.layer_dtype(path))
    }

    fn pack_weight(
        &mut self,
        path: &str,
        to: Dtype,
        quantization: Quantization,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<PackedBytes> {
        let mut rest = PackedBytes::default();
        let search = self.plan.search;
        let mut pack = |rows: &[u8], columns: usize, from: Dtype| {
            let packed = pack_rows(rows, columns, [from, to], quantization, search)?;
            rest.scales.extend_from_slice(&packed.scales);
            rest.biases.extend_from_slice(&packed.biases);
            write(&packed.weight)
        };
        if self.source.packed.contains_key(path) {
            let layer = self.source.layer(path)?;
            let columns = layer.n_columns();
            layer.each(to, CHUNK, &mut |rows| pack(rows, columns, to))?;
        } else {
            let weight = self.take(&format!("{path}.weight"))?;
            let (from, columns) = (weight.dtype(), last_axis(&weight));
            each_part(weight, &mut |rows| pack(rows, columns, from))?;
        }
        Ok(rest)
    }

    fn unpack(&mut self, path: &str, dtype: Dtype, sink: &mut TensorSink<'_>) -> Result<()> {
        let layer = self.source.take_layer(path)?;
        layer.each(dtype, CHUNK, &mut |rows| Ok(sink.write(rows)?))
    }
}

fn last_axis(tensor: &Tensor) -> usize {
    tensor.shape().last().map_or(1, |&n| n.max(1) as usize)
}

/// Hands the bytes of a tensor to `f`, whole rows at a time: straight from the file where they lie there,
/// and of a stack, one part after the other.
fn each_part(tensor: Tensor, f: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let row = last_axis(&tensor) * tensor.dtype().size();
    let step = (CHUNK / row).max(1) * row;
    let chunks = |bytes: Cow<'_, [u8]>, f: &mut dyn FnMut(&[u8]) -> Result<()>| {
        bytes.chunks(step).try_for_each(f)
    };
    if let Some(bytes) = tensor.stored_bytes()? {
        return chunks(bytes, f);
    }
    let n = tensor.shape().first().copied().unwrap_or(0);
    if tensor.shape().len() >= 3 && n > 1 {
        return (0..n).try_for_each(|i| each_part(tensor.at(i)?, f));
    }
    let array: Array = tensor.into_array()?;
    array.with_bytes(|bytes| chunks(bytes.into(), f))?
}
