//! From numbers to ggml's blocks.

use half::{bf16, f16};

use super::types::GgmlType;
use crate::error::{Error, ErrorKind, Result};

impl GgmlType {
    /// Tells whether [`quantize`](Self::quantize) has this type.
    pub fn can_quantize(self) -> bool {
        use GgmlType::{BF16, F16, F32, Q4_0, Q4_1, Q8_0};
        matches!(self, F32 | F16 | BF16 | Q8_0 | Q4_0 | Q4_1)
    }

    /// Computes the blocks of consecutive numbers: `F32`, `F16`, `BF16`, `Q8_0`, `Q4_0` or `Q4_1`,
    /// with the very bytes that ggml's reference functions give.
    ///
    /// # Errors
    /// When there is no way to this type, the numbers fill no whole blocks, or a quantized block
    /// would have a scale that is not finite, because a number is not, or is too large.
    ///
    /// ```
    /// use mlx_core::io::GgmlType;
    ///
    /// let values: Vec<f32> = (0..32).map(|j| j as f32).collect();
    /// let bytes = GgmlType::Q8_0.quantize(&values)?;
    /// let mut back = [0.0; 32];
    /// GgmlType::Q8_0.dequantize(&bytes, &mut back)?;
    /// assert!((back[31] - 31.0).abs() < 0.02);
    /// # Ok::<(), mlx_core::Error>(())
    /// ```
    pub fn quantize(self, values: &[f32]) -> Result<Vec<u8>> {
        let error = |text: String| Error::new(ErrorKind::InvalidArgument, text);
        let (count, block_size) = (values.len(), self.block_size());
        if !count.is_multiple_of(block_size) {
            return Err(error(format!(
                "quantize: {count} elements fill no blocks of {block_size}"
            )));
        }
        let mut out = Vec::with_capacity(count / block_size * self.block_bytes());
        let finite = match self {
            GgmlType::F32 => {
                values.iter().for_each(|x| out.extend(x.to_le_bytes()));
                true
            }
            GgmlType::F16 => {
                values.iter().for_each(|x| out.extend(f16::from_f32(*x).to_le_bytes()));
                true
            }
            GgmlType::BF16 => {
                values.iter().for_each(|x| out.extend(bf16::from_f32(*x).to_le_bytes()));
                true
            }
            GgmlType::Q8_0 => values.as_chunks().0.iter().all(|block| q8_0(block, &mut out)),
            GgmlType::Q4_0 => values.as_chunks().0.iter().all(|block| q4_0(block, &mut out)),
            GgmlType::Q4_1 => values.as_chunks().0.iter().all(|block| q4_1(block, &mut out)),
            _ => {
                let text = format!("quantize: there is no way from numbers to {self}");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        };
        if finite { Ok(out) } else { Err(error(format!("quantize: {self} scale is not finite"))) }
    }
}

/// Adds a scale; false when it is not finite as half precision.
fn put_half(out: &mut Vec<u8>, scale: f32) -> bool {
    let scale = f16::from_f32(scale);
    out.extend(scale.to_le_bytes());
    scale.is_finite()
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The number of greatest magnitude becomes 127 or -127.
fn q8_0(block: &[f32; 32], out: &mut Vec<u8>) -> bool {
    let largest = block.iter().fold(0.0f32, |m, x| if x.is_nan() { *x } else { m.max(x.abs()) });
    let d = largest / 127.0;
    let by = inverse(d);
    let finite = put_half(out, d) && !block.iter().any(|x| x.is_nan());
    out.extend(block.iter().map(|x| ((x * by).round() as i8).cast_unsigned()));
    finite
}

/// The number of greatest magnitude, the first of them, becomes 0, which stands for -8.
fn q4_0(block: &[f32; 32], out: &mut Vec<u8>) -> bool {
    let mut largest = 0.0f32;
    for x in block {
        if x.abs() > largest.abs() {
            largest = *x;
        }
    }
    let d = largest / -8.0;
    let by = inverse(d);
    let finite = put_half(out, d) && !block.iter().any(|x| x.is_nan());
    put_nibbles(out, block, |x| x * by + 8.5);
    finite
}

/// The least number becomes 0, the greatest 15.
fn q4_1(block: &[f32; 32], out: &mut Vec<u8>) -> bool {
    let least = block.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (greatest - least) / 15.0;
    let by = inverse(d);
    let finite = put_half(out, d) & put_half(out, least) && !block.iter().any(|x| x.is_nan());
    put_nibbles(out, block, |x| (x - least) * by + 0.5);
    finite
}

fn put_nibbles(out: &mut Vec<u8>, block: &[f32; 32], to: impl Fn(f32) -> f32) {
    let nibble = |x: f32| (to(x) as u8).min(15);
    let (low, high) = block.split_at(16);
    out.extend(low.iter().zip(high).map(|(low, high)| nibble(*low) | nibble(*high) << 4));
}
