//! The weights of one layer as rows of floats, whether it is packed or not.

use std::ops::Range;

use mlx_core::kernels::{PackedBytes, convert_floats, unpack_rows};
use mlx_core::{Dtype, QuantMode, Quantization, Tensor};

use super::source::Source;
use crate::error::{Error, Result};

/// A layer `[…, D, E]` as rows of `E` numbers; what is made to read them goes with it.
pub(crate) struct Layer {
    weight: Rows,
    packed: Option<Packed>,
}

struct Packed {
    quantization: Quantization,
    scales: Rows,
    biases: Option<Rows>,
    /// What each row is multiplied with, of experts that have a scale each.
    factors: Vec<f32>,
}

/// The parts that a layer may have.
const PARTS: [&str; 4] = ["weight", "scales", "biases", "global_scale"];

impl Source {
    /// Takes a layer out of what is there, so that what is made of it goes with it.
    ///
    /// # Errors
    /// As [`Self::layer`].
    pub(crate) fn take_layer(&mut self, path: &str) -> Result<Layer> {
        let layer = self.layer(path);
        self.drop_layer(path);
        layer
    }

    /// Leaves a layer that nobody needs again.
    pub(crate) fn drop_layer(&mut self, path: &str) {
        for part in PARTS {
            self.tensors.remove(&format!("{path}.{part}"));
        }
    }

    /// Returns a layer, packed if it is.
    ///
    /// # Errors
    /// When a part is missing.
    pub(crate) fn layer(&self, path: &str) -> Result<Layer> {
        let [weight, scales, biases, global] =
            PARTS.map(|part| self.tensors.get(&format!("{path}.{part}")).cloned());
        let missing = |part: &str| Error::format(path, format!("has no {part}"));
        let weight = Rows::new(weight.ok_or_else(|| missing("weight"))?)?;
        let Some(&quantization) = self.packed.get(path) else {
            return Ok(Layer { weight, packed: None });
        };
        let factors = match global {
            Some(global) => global_factors(global, weight.n())?,
            None => Vec::new(),
        };
        let scales = Rows::new(scales.ok_or_else(|| missing("scales"))?)?;
        let biases = biases.map(Rows::new).transpose()?;
        Ok(Layer { weight, packed: Some(Packed { quantization, scales, biases, factors }) })
    }
}

impl Layer {
    /// Returns how many rows there are.
    pub(crate) fn n_rows(&self) -> usize {
        self.weight.n()
    }

    /// Returns how many numbers a row has.
    pub(crate) fn n_columns(&self) -> usize {
        match &self.packed {
            Some(packed) => self.weight.columns * 32 / packed.quantization.bits.max(1) as usize,
            None => self.weight.columns,
        }
    }

    /// Returns how it is packed, if it is.
    pub(crate) fn quantization(&self) -> Option<Quantization> {
        self.packed.as_ref().map(|packed| packed.quantization)
    }

    /// Returns the bytes of some rows as numbers of `dtype`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn floats(&self, rows: Range<usize>, dtype: Dtype) -> Result<Vec<u8>> {
        let weight = self.weight.bytes(rows.clone())?;
        let Some(packed) = &self.packed else {
            return to_dtype(weight, [self.weight.dtype, dtype]);
        };
        let Packed { quantization, scales, biases, factors } = packed;
        let is_affine = quantization.mode == QuantMode::Affine;
        let unpack = |to: Dtype| -> Result<Vec<u8>> {
            // Scales of integers are brought to the type first, as mlx-lm does.
            let part = |part: &Rows| match (part.bytes(rows.clone())?, is_affine) {
                (bytes, true) => to_dtype(bytes, [part.dtype, to]),
                (bytes, false) => Ok(bytes),
            };
            let packed = PackedBytes {
                weight: weight.clone(),
                scales: part(scales)?,
                biases: biases.as_ref().map(part).transpose()?.unwrap_or_default(),
            };
            Ok(unpack_rows(&packed, self.n_columns(), to, *quantization)?)
        };
        if factors.is_empty() {
            return unpack(dtype);
        }
        let mut wide = unpack(Dtype::Float32)?;
        for (numbers, factor) in
            wide.chunks_exact_mut(4 * self.n_columns()).zip(&factors[rows.clone()])
        {
            for number in numbers.as_chunks_mut::<4>().0 {
                *number = (f32::from_le_bytes(*number) * factor).to_le_bytes();
            }
        }
        to_dtype(wide, [Dtype::Float32, dtype])
    }

    /// Hands all rows to `f`, about `n_bytes` of them at a time.
    ///
    /// # Errors
    /// Those of [`Self::floats`] and of `f`.
    pub(crate) fn each(
        &self,
        dtype: Dtype,
        n_bytes: usize,
        f: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        for rows in steps(self.n_rows(), self.n_columns() * dtype.size(), n_bytes) {
            f(&self.floats(rows, dtype)?)?;
        }
        Ok(())
    }
}

/// Returns ranges of rows of about `n_bytes` each, where one has `of_row`.
pub(crate) fn steps(
    n_rows: usize,
    of_row: usize,
    n_bytes: usize,
) -> impl Iterator<Item = Range<usize>> {
    let step = (n_bytes / of_row.max(1)).max(1);
    (0..n_rows).step_by(step).map(move |start| start..(start + step).min(n_rows))
}

/// The rows of a tensor `[…, E]`, which may lie in several tensors.
struct Rows {
    /// Each with the number of rows up to its end.
    parts: Vec<(usize, Tensor)>,
    columns: usize,
    dtype: Dtype,
}

impl Rows {
    fn new(tensor: Tensor) -> Result<Rows> {
        let columns = tensor.shape().last().map_or(1, |&n| n.max(1) as usize);
        let dtype = tensor.dtype();
        let mut rows = Rows { parts: Vec::new(), columns, dtype };
        rows.push(tensor)?;
        Ok(rows)
    }

    /// Adds a tensor, or those that it was stacked of, so that not all need be made.
    fn push(&mut self, tensor: Tensor) -> Result<()> {
        let n = tensor.shape().first().copied().unwrap_or(0);
        if tensor.shape().len() >= 3 && tensor.stored_bytes()?.is_none() {
            return (0..n).try_for_each(|i| self.push(tensor.at(i)?));
        }
        let rows: usize = tensor.shape().iter().rev().skip(1).map(|&n| n.max(0) as usize).product();
        self.parts.push((self.n() + rows, tensor));
        Ok(())
    }

    fn n(&self) -> usize {
        self.parts.last().map_or(0, |(end, _)| *end)
    }

    fn bytes(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        let of_row = self.columns * self.dtype.size();
        let mut all = Vec::with_capacity(rows.len() * of_row);
        let mut begin = 0;
        for (end, tensor) in &self.parts {
            let (from, to) = (rows.start.max(begin), rows.end.min(*end));
            if from < to {
                let range = (from - begin) * of_row..(to - begin) * of_row;
                let mut take = |bytes: &[u8]| match bytes.get(range.clone()) {
                    Some(bytes) => {
                        all.extend_from_slice(bytes);
                        Ok(())
                    }
                    None => Err(Error::format("weights", "a tensor is shorter than its shape")),
                };
                match tensor.stored_bytes()? {
                    Some(bytes) => take(&bytes)?,
                    None => tensor.clone().into_array()?.with_bytes(take)??,
                }
            }
            begin = *end;
        }
        Ok(all)
    }
}

fn to_dtype(bytes: Vec<u8>, [from, to]: [Dtype; 2]) -> Result<Vec<u8>> {
    match from == to {
        true => Ok(bytes),
        false => Ok(convert_floats(&bytes, [from, to])?),
    }
}

/// Returns what the rows of a weight are to be multiplied with, of experts that have a scale each: its
/// part of the greatest number that nvfp4 has with a scale of 1.
fn global_factors(global: Tensor, n_rows: usize) -> Result<Vec<f32>> {
    const GREATEST: f32 = 6.0 * 448.0;
    let of_experts = global.into_array()?.to_vec_as::<f32>()?;
    let n = of_experts.len();
    if n == 0 || !n_rows.is_multiple_of(n) {
        return Err(Error::format("global_scale", format!("{n} numbers for {n_rows} rows")));
    }
    let rows = |scale: &f32| std::iter::repeat_n(scale / GREATEST, n_rows / n);
    Ok(of_experts.iter().flat_map(rows).collect())
}
