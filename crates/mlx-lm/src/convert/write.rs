//! Making the bytes of each tensor, some rows at a time.

use std::borrow::Cow;

use mlx_core::io::TensorSink;
use mlx_core::kernels::{PackedBytes, convert_floats, pack_rows, unpack_rows};
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
            Make::Unpack { path, quantization } => {
                self.unpack(path, layout.dtype, *quantization, sink)
            }
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
            Part::Weight => Ok(()),
            Part::Scales => Ok(sink.write(&packed.scales)?),
            Part::Biases => Ok(sink.write(&packed.biases)?),
        }
    }

    /// Returns the type to which weights are rounded: that of the scales, where these are no bytes.
    fn scales_dtype(&self, path: &str, dtype: Dtype, quantization: Quantization) -> Dtype {
        if quantization.mode == QuantMode::Affine && dtype.is_floating() {
            return dtype;
        }
        let own = self.source.tensors.get(&format!("{path}.weight")).map(Tensor::dtype);
        self.source.dtype.or(own).unwrap_or(Dtype::Float32)
    }

    fn pack_weight(
        &mut self,
        path: &str,
        to: Dtype,
        quantization: Quantization,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<PackedBytes> {
        let weight = self.take(&format!("{path}.weight"))?;
        let (from, columns) = (weight.dtype(), last_axis(&weight));
        let mut rest = PackedBytes::default();
        each_part(weight, &mut |rows| {
            let packed = pack_rows(rows, columns, [from, to], quantization)?;
            rest.scales.extend_from_slice(&packed.scales);
            rest.biases.extend_from_slice(&packed.biases);
            write(&packed.weight)
        })?;
        Ok(rest)
    }

    fn unpack(
        &mut self,
        path: &str,
        dtype: Dtype,
        quantization: Quantization,
        sink: &mut TensorSink<'_>,
    ) -> Result<()> {
        let [weight, scales, biases, global] = ["weight", "scales", "biases", "global_scale"]
            .map(|part| self.source.tensors.remove(&format!("{path}.{part}")));
        let weight = weight.ok_or_else(|| Error::format(path, "has no weight"))?;
        let is_affine = quantization.mode == QuantMode::Affine;
        // Scales of integers are brought to the type first, as mlx-lm does.
        let factors = |tensor: Option<Tensor>| match tensor {
            Some(tensor) if is_affine => Ok(bytes_of(tensor, Some(dtype))?),
            Some(tensor) => bytes_of(tensor, None),
            None => Ok(Vec::new()),
        };
        let (scales, biases) = (factors(scales)?, factors(biases)?);
        let global = match global {
            Some(global) => global_factors(global, &weight)?,
            None => Vec::new(),
        };
        let words = last_axis(&weight);
        let columns = words * 32 / quantization.bits as usize;
        let of_row =
            columns / quantization.group_size as usize * if is_affine { dtype.size() } else { 1 };
        let mut row = 0;
        each_part(weight, &mut |rows| {
            let n = rows.len() / (words * 4);
            let part = |bytes: &[u8]| match bytes.get(row * of_row..(row + n) * of_row) {
                Some(bytes) => bytes.to_vec(),
                None => Vec::new(),
            };
            let packed =
                PackedBytes { weight: rows.to_vec(), scales: part(&scales), biases: part(&biases) };
            let unpacked = match global.is_empty() {
                true => unpack_rows(&packed, columns, dtype, quantization)?,
                false => {
                    let mut wide = unpack_rows(&packed, columns, Dtype::Float32, quantization)?;
                    for (i, numbers) in wide.chunks_exact_mut(4 * columns).enumerate() {
                        let factor = global.get(row + i).copied().unwrap_or(1.0);
                        for number in numbers.as_chunks_mut::<4>().0 {
                            *number = (f32::from_le_bytes(*number) * factor).to_le_bytes();
                        }
                    }
                    convert_floats(&wide, [Dtype::Float32, dtype])?
                }
            };
            row += n;
            Ok(sink.write(&unpacked)?)
        })
    }
}

/// Returns what the rows of a weight are to be multiplied with, of experts that have a scale each: its
/// part of the greatest number that nvfp4 has with a scale of 1.
fn global_factors(global: Tensor, weight: &Tensor) -> Result<Vec<f32>> {
    const GREATEST: f32 = 6.0 * 448.0;
    let of_experts = global.into_array()?.to_vec_as::<f32>()?;
    let rows: usize = weight.shape().iter().rev().skip(1).map(|&n| n as usize).product();
    let n = of_experts.len();
    if n == 0 || !rows.is_multiple_of(n) {
        return Err(Error::format("global_scale", format!("{n} numbers for {rows} rows")));
    }
    Ok(of_experts
        .iter()
        .flat_map(|scale| std::iter::repeat_n(scale / GREATEST, rows / n))
        .collect())
}

fn last_axis(tensor: &Tensor) -> usize {
    tensor.shape().last().map_or(1, |&n| n.max(1) as usize)
}

fn bytes_of(tensor: Tensor, dtype: Option<Dtype>) -> Result<Vec<u8>> {
    let from = tensor.dtype();
    let mut all = Vec::new();
    each_part(tensor, &mut |bytes| {
        match dtype {
            Some(to) if to != from => all.extend(convert_floats(bytes, [from, to])?),
            _ => all.extend_from_slice(bytes),
        }
        Ok(())
    })?;
    Ok(all)
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
