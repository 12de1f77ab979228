//! From ggml's blocks to single precision.
//!
//! Each type is one function from the bytes of a block to its elements, written from the layout of
//! the block, with products in the order of ggml's reference functions, so that results are equal
//! bit for bit. A block is an array, not a slice: the compiler then knows every bound.

mod codebook;
mod float;
mod integer;
mod super_block;

use half::{bf16, f16};

use super::types::GgmlType;
use crate::error::{Error, ErrorKind, Result};

impl GgmlType {
    /// Computes the elements of consecutive blocks; see
    /// [`GgufFile::dequantize`](super::GgufFile::dequantize).
    ///
    /// # Errors
    /// When `bytes` are not whole blocks, or `out` has not exactly as many elements as they.
    ///
    /// ```
    /// use mlx_core::io::GgmlType;
    ///
    /// let mut out = [0.0; 2];
    /// GgmlType::BF16.dequantize(&[0x80, 0x3f, 0x00, 0xc0], &mut out)?;
    /// assert_eq!(out, [1.0, -2.0]);
    /// # Ok::<(), mlx_core::Error>(())
    /// ```
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        let (size, count) = (bytes.len(), out.len());
        let blocks = size / self.block_bytes();
        if !size.is_multiple_of(self.block_bytes())
            || blocks.checked_mul(self.block_size()) != Some(count)
        {
            let text = format!("dequantize: {size} bytes of {self} for {count} elements");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        match self {
            GgmlType::F32 => each(bytes, out, |b, [x]| *x = f32::from_le_bytes(*b)),
            GgmlType::F16 => each(bytes, out, |b, [x]| *x = f16::from_le_bytes(*b).to_f32()),
            GgmlType::BF16 => each(bytes, out, |b, [x]| *x = bf16::from_le_bytes(*b).to_f32()),
            GgmlType::F64 => each(bytes, out, |b, [x]| *x = f64::from_le_bytes(*b) as f32),
            GgmlType::I8 => each(bytes, out, |b, [x]| *x = f32::from(i8::from_le_bytes(*b))),
            GgmlType::I16 => each(bytes, out, |b, [x]| *x = f32::from(i16::from_le_bytes(*b))),
            GgmlType::I32 => each(bytes, out, |b, [x]| *x = i32::from_le_bytes(*b) as f32),
            GgmlType::I64 => each(bytes, out, |b, [x]| *x = i64::from_le_bytes(*b) as f32),
            GgmlType::Q1_0 => each(bytes, out, integer::q1_0),
            GgmlType::Q2_0 => each(bytes, out, integer::q2_0),
            GgmlType::Q4_0 => each(bytes, out, integer::q4_0),
            GgmlType::Q4_1 => each(bytes, out, integer::q4_1),
            GgmlType::Q5_0 => each(bytes, out, integer::q5_0),
            GgmlType::Q5_1 => each(bytes, out, integer::q5_1),
            GgmlType::Q8_0 => each(bytes, out, integer::q8_0),
            GgmlType::Q8_1 => each(bytes, out, integer::q8_1),
            GgmlType::TQ1_0 => each(bytes, out, integer::tq1_0),
            GgmlType::TQ2_0 => each(bytes, out, integer::tq2_0),
            GgmlType::Q2_K => each(bytes, out, super_block::q2_k),
            GgmlType::Q3_K => each(bytes, out, super_block::q3_k),
            GgmlType::Q4_K => each(bytes, out, super_block::q4_k),
            GgmlType::Q5_K => each(bytes, out, super_block::q5_k),
            GgmlType::Q6_K => each(bytes, out, super_block::q6_k),
            GgmlType::Q8_K => each(bytes, out, super_block::q8_k),
            GgmlType::MXFP4 => each(bytes, out, float::mxfp4),
            GgmlType::NVFP4 => each(bytes, out, float::nvfp4),
            GgmlType::IQ1_S => each(bytes, out, codebook::iq1_s),
            GgmlType::IQ1_M => each(bytes, out, codebook::iq1_m),
            GgmlType::IQ2_XXS => each(bytes, out, codebook::iq2_xxs),
            GgmlType::IQ2_XS => each(bytes, out, codebook::iq2_xs),
            GgmlType::IQ2_S => each(bytes, out, codebook::iq2_s),
            GgmlType::IQ3_XXS => each(bytes, out, codebook::iq3_xxs),
            GgmlType::IQ3_S => each(bytes, out, codebook::iq3_s),
            GgmlType::IQ4_NL => each(bytes, out, codebook::iq4_nl),
            GgmlType::IQ4_XS => each(bytes, out, codebook::iq4_xs),
        }
        Ok(())
    }
}

/// Runs `f` for each block of `N` bytes and its `M` elements.
fn each<const N: usize, const M: usize>(
    bytes: &[u8],
    out: &mut [f32],
    f: impl Fn(&[u8; N], &mut [f32; M]),
) {
    let (blocks, (out, _)) = (bytes.as_chunks().0, out.as_chunks_mut());
    for (block, out) in blocks.iter().zip(out) {
        f(block, out);
    }
}

/// Returns the half-precision number at a place.
#[inline(always)]
fn half<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Returns the 16-bit word at a place.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Returns the 6-bit scales and least values of a [`GgmlType::Q4_K`] or [`GgmlType::Q5_K`] block.
///
/// The first four of each fill six bits of a byte; the upper two bits there belong to the last
/// four, whose lower bits follow, a scale and a least value in a byte.
pub(super) fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for k in 0..4 {
        let (scale, min, both) = (packed[k], packed[k + 4], packed[k + 8]);
        scales[k] = scale & 63;
        mins[k] = min & 63;
        scales[k + 4] = (both & 15) | (scale >> 6 << 4);
        mins[k + 4] = (both >> 4) | (min >> 6 << 4);
    }
    (scales, mins)
}
