//! 4-bit floats (E2M1), two in a byte, the first in its lower half: mxfp4 and nvfp4.

use mlx_core::{Dtype, QuantMode, Quantization};
use rayon::prelude::*;

use super::tensor::{Floats, power_of_two, write_floats};
use super::{Form, Layer, RepackOptions};

/// A checked layer.
pub(super) struct Nibbles<'a> {
    pub(super) rows: usize,
    /// Even, and a multiple of the group size.
    pub(super) columns: usize,
    pub(super) scaling: Scaling,
    /// `[rows, columns / 2]`
    pub(super) codes: &'a [u8],
    /// `[rows, columns / group_size]`
    pub(super) scales: &'a [u8],
}

/// What a byte of the scales means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scaling {
    /// E8M0, for each 32.
    Mx,
    /// E4M3, for each 16, times this.
    Nv(f32),
}

impl Nibbles<'_> {
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.codes.len() + self.scales.len()) as u64
    }

    fn mode(&self) -> QuantMode {
        match self.scaling {
            Scaling::Mx => QuantMode::Mxfp4,
            Scaling::Nv(_) => QuantMode::Nvfp4,
        }
    }

    fn group_size(&self) -> usize {
        self.mode().defaults().0 as usize
    }

    pub(super) fn form(&self, options: RepackOptions) -> Form {
        let dense = |reason| Form::Dense { reason };
        // NaN, and for E4M3 what is negative, which MLX takes for something else.
        let greatest = if self.scaling == Scaling::Mx { 0xfe } else { 0x7e };
        if self.scales.iter().any(|&scale| scale > greatest) {
            return dense("its scales are not all positive numbers");
        }
        if !self.columns.is_multiple_of(32) {
            return dense("its rows are no multiple of 32");
        }
        let output_scale = match self.scaling {
            Scaling::Mx => 0,
            Scaling::Nv(scale) => usize::from(self.folded(scale).is_none()),
        };
        if output_scale > 0 && !options.output_scale {
            return dense("it has one more scale for the whole tensor");
        }
        let quantization = Quantization::of(self.mode());
        Form::Packed { quantization, output_scale, input_order: false }
    }

    /// Multiplies the scales with a number, if each product is a number of E4M3.
    fn folded(&self, by: f32) -> Option<Vec<u8>> {
        let mut products = [None; 256];
        for (byte, product) in products.iter_mut().enumerate() {
            let wanted = e4m3(byte as u8) * by;
            *product = (0..0x7f).find(|&candidate| e4m3(candidate) == wanted);
        }
        self.scales.iter().map(|&scale| products[usize::from(scale)]).collect()
    }

    pub(super) fn repack(&self, form: Form, dtype: Dtype) -> Layer {
        let Form::Packed { quantization, output_scale, .. } = form else {
            return Layer::Dense(self.dequantize(dtype));
        };
        let (scales, output_scale) = match self.scaling {
            Scaling::Nv(scale) if output_scale > 0 => (self.scales.to_vec(), vec![scale]),
            Scaling::Nv(scale) => (self.folded(scale).unwrap_or_default(), Vec::new()),
            Scaling::Mx => (self.scales.to_vec(), Vec::new()),
        };
        Layer::of_floats(quantization, self.codes, scales, output_scale)
    }

    fn dequantize(&self, dtype: Dtype) -> Floats {
        let group_size = self.group_size();
        let scale = |at: usize| match self.scaling {
            Scaling::Mx => power_of_two(self.scales[at]),
            Scaling::Nv(scale) => e4m3(self.scales[at]) * scale,
        };
        let row_bytes = self.columns * dtype.size();
        let mut bytes = vec![0; self.rows * row_bytes];
        bytes.par_chunks_mut(row_bytes).enumerate().for_each(|(row, out)| {
            let value = |column: usize| {
                let at = row * self.columns + column;
                e2m1(self.codes[at / 2] >> (at % 2 * 4) & 15) * scale(at / group_size)
            };
            let values: Vec<f32> = (0..self.columns).map(value).collect();
            write_floats(dtype, &values, out);
        });
        Floats { dtype, bytes }
    }
}

/// Returns the number that four bits of E2M1 mean (OCP Microscaling Formats 1.0, section 5.3.3).
fn e2m1(code: u8) -> f32 {
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let value = VALUES[usize::from(code & 7)];
    if code & 8 == 0 { value } else { -value }
}

/// Returns the number that a byte of E4M3 means (OCP 8-bit Floating Point 1.0): no infinities,
/// NaN where all lower seven bits are set.
pub(super) fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let value = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2.0f32.powi(-9),
        _ => (8.0 + mantissa) * 2.0f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { value } else { -value }
}
