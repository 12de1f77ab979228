//! Integer codes with a scale and a zero for each group: `w = (code - zero) * scale`.
//!
//! AWQ, GPTQ and compressed-tensors differ in where a code lies ([`Order`]); the numbers are the
//! same. MLX's rows are streams of bits, so codes of a width that MLX has are never taken apart
//! where a word of the checkpoint is a word of MLX.

use std::borrow::Cow;

use mlx_core::{Dtype, QuantMode, Quantization};
use rayon::prelude::*;

use super::settings::GroupSize;
use super::tensor::{Floats, word, write_floats};
use super::{Form, Layer, PackedLayer, RepackOptions};
use crate::error::{Error, Result};

/// Rows that one task makes: of a transposed matrix they share cache lines.
const BLOCK: usize = 16;

/// MLX's group sizes, the best first.
const GROUP_SIZES: [usize; 3] = [128, 64, 32];

/// Where the checkpoint has the code of a row and column of `w: [rows, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Words `[rows, words]`: a stream of bits for each row, as MLX has it.
    Rows,
    /// Words `[words, rows]`: the same, transposed.
    Columns,
    /// Words `[rows, words]`, each with as many codes as fit whole, from the lowest bit; of a width
    /// that does not divide 32.
    Whole,
    /// Words `[columns, rows / 8]` of eight 4-bit codes in AWQ's order.
    Awq,
    /// Bytes `[rows, columns]`, signed.
    Signed,
}

/// Which group a column belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Groups {
    /// As many consecutive columns each.
    Even(GroupSize),
    /// As listed, for each column.
    Listed(Vec<u32>),
}

/// A checked layer.
pub(super) struct Integers<'a> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// 1 to 8.
    pub(super) bits: usize,
    pub(super) order: Order,
    /// As many words or bytes as `order` needs.
    pub(super) codes: &'a [u8],
    pub(super) groups: Groups,
    /// `[rows, n_groups]`
    pub(super) scales: Vec<f32>,
    /// `[rows, n_groups]`, or one for all.
    pub(super) zeros: Vec<i16>,
    /// Names the tensor of scales in errors.
    pub(super) name: String,
    /// Bytes of scales and zeros in the checkpoint.
    pub(super) extra_bytes: usize,
}

/// How columns go into MLX's groups.
struct Plan<'s> {
    group_size: usize,
    order: Option<Cow<'s, [u32]>>,
}

impl Integers<'_> {
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.codes.len() + self.extra_bytes) as u64
    }

    pub(super) fn form(&self, options: RepackOptions) -> Form {
        let Some(plan) = self.plan() else {
            let reason = match (&self.groups, self.columns % 32) {
                (Groups::Listed(_), 0) => "its groups are in no order that MLX has",
                (_, 0) => "its groups are of no size that MLX has",
                _ => "its rows are no multiple of 32",
            };
            return Form::Dense { reason };
        };
        if plan.order.is_some() && !options.input_order {
            return Form::Dense { reason: "its inputs are sorted by activation (desc_act)" };
        }
        let quantization = Quantization {
            group_size: plan.group_size as i32,
            bits: self.mlx_bits() as i32,
            mode: QuantMode::Affine,
        };
        Form::Packed { quantization, output_scale: 0, input_order: plan.order.is_some() }
    }

    /// MLX has no 1 and 7 bits; a code takes the next width then.
    fn mlx_bits(&self) -> usize {
        match self.bits {
            1 => 2,
            7 => 8,
            bits => bits,
        }
    }

    fn n_groups(&self) -> usize {
        self.scales.len() / self.rows
    }

    fn group_of(&self, column: usize) -> usize {
        match &self.groups {
            Groups::Even(GroupSize::Row) => 0,
            Groups::Even(GroupSize::Inputs(size)) => column / size,
            Groups::Listed(groups) => groups[column] as usize,
        }
    }

    /// Finds the largest of MLX's groups that mixes none of the checkpoint's.
    fn plan(&self) -> Option<Plan<'_>> {
        let fits = |size: &usize| self.columns.is_multiple_of(*size);
        let even = |order: Option<&[u32]>, size: usize| {
            let column = |at: usize| order.map_or(at, |order| order[at] as usize);
            (0..self.columns)
                .all(|at| self.group_of(column(at)) == self.group_of(column(at / size * size)))
        };
        match &self.groups {
            Groups::Even(GroupSize::Row) => {
                let group_size = GROUP_SIZES.into_iter().find(fits)?;
                Some(Plan { group_size, order: None })
            }
            Groups::Even(GroupSize::Inputs(of)) => {
                let divides = |size: &usize| fits(size) && of.is_multiple_of(*size);
                Some(Plan { group_size: GROUP_SIZES.into_iter().find(divides)?, order: None })
            }
            Groups::Listed(groups) => {
                if let Some(group_size) =
                    GROUP_SIZES.into_iter().find(|size| fits(size) && even(None, *size))
                {
                    return Some(Plan { group_size, order: None });
                }
                let mut order: Vec<u32> = (0..self.columns as u32).collect();
                order.sort_by_key(|&column| groups[column as usize]);
                let group_size =
                    GROUP_SIZES.into_iter().find(|size| fits(size) && even(Some(&order), *size))?;
                Some(Plan { group_size, order: Some(Cow::Owned(order)) })
            }
        }
    }

    pub(super) fn repack(&self, form: Form, dtype: Dtype) -> Result<Layer> {
        match (form, self.plan()) {
            (Form::Packed { quantization, .. }, Some(plan)) => {
                self.pack(quantization, plan, dtype).map(Layer::Packed)
            }
            _ => Ok(Layer::Dense(self.dequantize(dtype))),
        }
    }

    fn pack(
        &self,
        quantization: Quantization,
        plan: Plan<'_>,
        dtype: Dtype,
    ) -> Result<PackedLayer> {
        let order = plan.order.as_deref();
        let (scales, biases) = self.affine(order, plan.group_size);
        let bits = self.mlx_bits();
        let words = self.columns * bits / 32;
        let mut weight = vec![0; self.rows * words];
        weight.par_chunks_mut(BLOCK * words).enumerate().for_each(|(block, out)| {
            let first = block * BLOCK;
            if bits == self.bits && order.is_none() && self.copy_words(first, words, out) {
                return;
            }
            let mut codes = vec![0; self.columns];
            let mut ordered = vec![0; self.columns];
            for (row, out) in out.chunks_mut(words).enumerate() {
                self.row(first + row, &mut codes);
                let codes = match order {
                    None => &codes,
                    Some(order) => {
                        let columns = ordered.iter_mut().zip(order);
                        columns.for_each(|(out, &column)| *out = codes[column as usize]);
                        &ordered
                    }
                };
                pack_row(codes, bits, out);
            }
        });
        Ok(PackedLayer {
            quantization,
            weight,
            scales: self.rounded(dtype, &scales)?,
            biases: Some(self.rounded(dtype, &biases)?),
            output_scale: Vec::new(),
            input_order: plan.order.map(Cow::into_owned),
        })
    }

    /// Computes scales and biases of MLX's groups, exactly unless scales are `float32`.
    fn affine(&self, order: Option<&[u32]>, group_size: usize) -> (Vec<f32>, Vec<f32>) {
        let column = |at: usize| order.map_or(at, |order| order[at] as usize);
        let groups: Vec<usize> =
            (0..self.columns / group_size).map(|j| self.group_of(column(j * group_size))).collect();
        let n_groups = self.n_groups();
        let each = (0..self.rows).flat_map(|row| {
            groups.iter().map(move |group| {
                let at = row * n_groups + group;
                (self.scales[at], -(self.scales[at] * self.zero(at)))
            })
        });
        each.unzip()
    }

    fn zero(&self, at: usize) -> f32 {
        f32::from(if self.zeros.len() == 1 { self.zeros[0] } else { self.zeros[at] })
    }

    fn rounded(&self, dtype: Dtype, values: &[f32]) -> Result<Floats> {
        let largest = dtype.finfo().map_or(f64::INFINITY, |info| info.max);
        match values.iter().find(|value| f64::from(value.abs()) > largest) {
            None => Ok(Floats::round(dtype, values)),
            Some(value) => {
                let text = format!("{value} is too large for {dtype}");
                Err(Error::format(&self.name, text).with_hint("load with dtype bfloat16"))
            }
        }
    }

    fn dequantize(&self, dtype: Dtype) -> Floats {
        let n_groups = self.n_groups();
        let row_bytes = self.columns * dtype.size();
        let mut bytes = vec![0; self.rows * row_bytes];
        bytes.par_chunks_mut(row_bytes).enumerate().for_each(|(row, out)| {
            let mut codes = vec![0; self.columns];
            self.row(row, &mut codes);
            let value = |(column, &code): (usize, &u8)| {
                let at = row * n_groups + self.group_of(column);
                (f32::from(code) - self.zero(at)) * self.scales[at]
            };
            let values: Vec<f32> = codes.iter().enumerate().map(value).collect();
            write_floats(dtype, &values, out);
        });
        Floats { dtype, bytes }
    }

    /// Copies rows whose words are MLX's already.
    fn copy_words(&self, first: usize, words: usize, out: &mut [u32]) -> bool {
        let rows = out.len() / words;
        match self.order {
            Order::Rows => {
                let from = first * words;
                out.iter_mut().enumerate().for_each(|(at, out)| *out = word(self.codes, from + at));
            }
            Order::Columns => {
                for at in 0..words {
                    for row in 0..rows {
                        out[row * words + at] = word(self.codes, at * self.rows + first + row);
                    }
                }
            }
            Order::Awq => {
                for column in 0..self.columns {
                    let shift = column % 8 * 4;
                    for row in 0..rows {
                        let code = self.awq_code(first + row, column);
                        out[row * words + column / 8] |= code << shift;
                    }
                }
            }
            Order::Signed => {
                let bytes = &self.codes[first * self.columns..];
                for (out, four) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = u32::from_le_bytes(*four) ^ 0x8080_8080;
                }
            }
            Order::Whole => return false,
        }
        true
    }

    /// Unpacks a row.
    fn row(&self, row: usize, out: &mut [u8]) {
        let bits = self.bits;
        let words = (self.columns * bits).div_ceil(32);
        let whole = 32 / bits;
        let whole_words = self.columns.div_ceil(whole);
        for (column, out) in out.iter_mut().enumerate() {
            *out = match self.order {
                Order::Rows => stream_code(column, bits, |at| word(self.codes, row * words + at)),
                Order::Columns => {
                    stream_code(column, bits, |at| word(self.codes, at * self.rows + row))
                }
                Order::Whole => {
                    let word = word(self.codes, row * whole_words + column / whole);
                    (word >> (column % whole * bits)) as u8 & mask(bits)
                }
                Order::Awq => self.awq_code(row, column) as u8,
                Order::Signed => self.codes[row * self.columns + column] ^ 0x80,
            };
        }
    }

    #[inline(always)]
    fn awq_code(&self, row: usize, column: usize) -> u32 {
        let word = word(self.codes, column * (self.rows / 8) + row / 8);
        word >> awq_shift(row % 8) & 15
    }
}

/// Returns where AWQ has one of eight codes in a word: 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits.
#[inline(always)]
pub(super) fn awq_shift(at: usize) -> usize {
    (at / 2 + at % 2 * 4) * 4
}

fn mask(bits: usize) -> u8 {
    (0xff_u16 >> (8 - bits)) as u8
}

/// Writes codes as a stream of bits.
fn pack_row(codes: &[u8], bits: usize, out: &mut [u32]) {
    let (mut held, mut n_held) = (0u64, 0);
    let mut out = out.iter_mut();
    for &code in codes {
        held |= u64::from(code) << n_held;
        n_held += bits;
        if n_held >= 32 {
            if let Some(out) = out.next() {
                *out = held as u32;
            }
            held >>= 32;
            n_held -= 32;
        }
    }
}

/// Unpacks streams of `len` codes each into `[streams, len]`; `place` is where a word of one lies.
pub(super) fn unpack_streams(
    bytes: &[u8],
    (streams, len): (usize, usize),
    bits: usize,
    place: impl Fn(usize, usize) -> usize,
) -> Vec<i16> {
    let code =
        |stream: usize, at: usize| stream_code(at, bits, |at| word(bytes, place(stream, at)));
    let code = &code;
    (0..streams).flat_map(|s| (0..len).map(move |at| i16::from(code(s, at)))).collect()
}

/// Returns a code out of a stream of bits.
#[inline(always)]
fn stream_code(at: usize, bits: usize, word_at: impl Fn(usize) -> u32) -> u8 {
    let (first, shift) = (at * bits / 32, at * bits % 32);
    let next = if shift + bits > 32 { word_at(first + 1) } else { 0 };
    let two = u64::from(word_at(first)) | u64::from(next) << 32;
    (two >> shift) as u8 & mask(bits)
}

/// Turns `[a, b]` into `[b, a]`.
pub(super) fn transposed<T: Copy>(values: &[T], a: usize, b: usize) -> Vec<T> {
    (0..b).flat_map(|j| (0..a).map(move |i| values[i * b + j])).collect()
}
