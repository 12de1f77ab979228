//! 8-bit floats (E4M3) with a scale for each tile of the weight.

use mlx_core::{Dtype, QuantMode, Quantization};
use rayon::prelude::*;

use super::nibbles::e4m3;
use super::tensor::{Floats, Tensor, exponent_of, write_floats};
use super::{Form, Layer, RepackOptions, Source};
use crate::error::Result;

/// The byte of E8M0 for 1.
const ONE: u8 = 127;

/// A checked layer.
pub(super) struct Bytes<'a> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// `[rows, columns]`
    pub(super) codes: &'a [u8],
    pub(super) tile: (usize, usize),
    /// `[rows / tile.0, columns / tile.1]`, both rounded up.
    pub(super) scales: Vec<f32>,
    /// Bytes of the scales in the checkpoint.
    pub(super) extra_bytes: usize,
}

/// Finds out which tile the scales of `[rows, columns]` are for; `block` decides where shapes
/// alone do not.
fn tile(
    scales: &Tensor<'_>,
    (rows, columns): (usize, usize),
    block: Option<(usize, usize)>,
) -> Result<(usize, usize)> {
    let shape = scales.squeezed();
    if let Some((height, width)) = block {
        let grid = [rows.div_ceil(height), columns.div_ceil(width)];
        let grid: Vec<usize> = grid.into_iter().filter(|&n| n != 1).collect();
        if shape == grid {
            return Ok((height, width));
        }
    }
    match shape[..] {
        [] => Ok((rows, columns)),
        [n] if n == rows => Ok((1, columns)),
        [n, groups] if n == rows && columns.is_multiple_of(groups) => Ok((1, columns / groups)),
        _ => Err(match block {
            Some((height, width)) => scales.unexpected(format_args!(
                "scales of [{rows}, {columns}] in blocks of {height}×{width}, for rows or one for all"
            )),
            None => scales.unexpected(format_args!(
                "scales for the rows of [{rows}, {columns}], for groups in them, or one for all"
            )),
        }),
    }
}

impl<'a> Bytes<'a> {
    /// Checks a layer whose scales are for one of `blocks`, of rows, or one for all.
    pub(super) fn source(
        weight: &Tensor<'a>,
        scales: &Tensor<'a>,
        blocks: &[Option<(usize, usize)>],
    ) -> Result<(Vec<i32>, Source<'a>)> {
        let (rows, columns) = weight.matrix()?;
        let of_block = |block: &Option<_>| tile(scales, (rows, columns), *block);
        let found = blocks.iter().find_map(|block| of_block(block).ok());
        let tile = match (found, blocks) {
            (Some(tile), _) => tile,
            (None, [block]) => of_block(block)?,
            (None, _) => of_block(&None)?,
        };
        let bytes = Bytes {
            rows,
            columns,
            codes: weight.bytes,
            tile,
            scales: scales.floats()?,
            extra_bytes: scales.bytes.len(),
        };
        Ok((weight.shape_of(Some(rows), Some(columns))?, Source::Bytes(bytes)))
    }
}

impl Bytes<'_> {
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.codes.len() + self.extra_bytes) as u64
    }

    fn tiles_in_row(&self) -> usize {
        self.columns.div_ceil(self.tile.1)
    }

    fn scale(&self, row: usize, column: usize) -> f32 {
        self.scales[row / self.tile.0 * self.tiles_in_row() + column / self.tile.1]
    }

    pub(super) fn form(&self, options: RepackOptions) -> Form {
        let dense = |reason| Form::Dense { reason };
        if !self.columns.is_multiple_of(32) {
            return dense("its rows are no multiple of 32");
        }
        if self.codes.iter().any(|code| code & 0x7f == 0x7f) {
            return dense("its weights are not all numbers");
        }
        let whole_rows = self.tile.1 >= self.columns;
        let in_groups = whole_rows || self.tile.1.is_multiple_of(32);
        let output_scale = if in_groups && self.scales.iter().all(|&s| exponent_of(s).is_some()) {
            0
        } else if !whole_rows {
            return dense("the scales of its blocks are not all powers of two");
        } else if !options.output_scale {
            return dense("its scales are not all powers of two");
        } else {
            self.scales_of_rows()
        };
        let quantization = Quantization::of(QuantMode::Mxfp8);
        Form::Packed { quantization, output_scale, input_order: false }
    }

    /// One for all, or one for each row.
    fn scales_of_rows(&self) -> usize {
        if self.scales.len() == 1 { 1 } else { self.rows }
    }

    pub(super) fn repack(&self, form: Form, dtype: Dtype) -> Layer {
        let Form::Packed { quantization, output_scale, .. } = form else {
            return Layer::Dense(self.dequantize(dtype));
        };
        let groups = self.columns / 32;
        let (scales, output_scale) = if output_scale > 0 {
            let scales = (0..output_scale).map(|row| self.scale(row, 0)).collect();
            (vec![ONE; self.rows * groups], scales)
        } else {
            let exponent = |row: usize, group: usize| {
                exponent_of(self.scale(row, group * 32)).unwrap_or_default()
            };
            let scales = (0..self.rows).flat_map(|row| (0..groups).map(move |g| exponent(row, g)));
            (scales.collect(), Vec::new())
        };
        Layer::of_floats(quantization, self.codes, scales, output_scale)
    }

    fn dequantize(&self, dtype: Dtype) -> Floats {
        let row_bytes = self.columns * dtype.size();
        let numbers: [f32; 256] = std::array::from_fn(|code| e4m3(code as u8));
        let mut bytes = vec![0; self.rows * row_bytes];
        bytes.par_chunks_mut(row_bytes).enumerate().for_each(|(row, out)| {
            let codes = &self.codes[row * self.columns..][..self.columns];
            let value = |(column, &code): (usize, &u8)| {
                numbers[usize::from(code)] * self.scale(row, column)
            };
            let values: Vec<f32> = codes.iter().enumerate().map(value).collect();
            write_floats(dtype, &values, out);
        });
        Floats { dtype, bytes }
    }
}
