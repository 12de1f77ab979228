//! From MLX's packed weights back to ggml's blocks, where nothing is lost.

use half::f16;

use super::pack::{GgufPacked, GgufScales};
use super::types::GgmlType;
use crate::quantization::{QuantMode, Quantization};

impl GgufPacked {
    /// Finds the ggml type that holds this weight without loss; looks at scales and shape only.
    ///
    /// Affine weights of 4, 5 and 8 bits and any group size become `Q4_0`, `Q5_0` or `Q8_0` when
    /// every bias is the negative middle of its group's range, else `Q4_1` or `Q5_1`; their scales
    /// must be half-precision numbers. mxfp4 and nvfp4 become `MXFP4` and `NVFP4`, with zero for
    /// minus zero. `None` for everything else.
    pub fn ggml_type(&self) -> Option<GgmlType> {
        let Quantization { group_size, bits, mode } = self.quantization;
        if mode != QuantMode::Affine && self.quantization != Quantization::of(mode) {
            return None;
        }
        let ty = match (&self.scales, mode) {
            (GgufScales::Affine { scales, biases }, QuantMode::Affine) => {
                if group_size < 32
                    || group_size % 32 != 0
                    || !scales.iter().all(|scale| is_half(*scale))
                {
                    return None;
                }
                let middle = -f32::from(1u8.checked_shl(bits.cast_unsigned().wrapping_sub(1))?);
                let pairs = scales.iter().zip(biases);
                let centred = pairs.clone().all(|(scale, bias)| middle * scale == *bias);
                match bits {
                    4 if centred => GgmlType::Q4_0,
                    5 if centred => GgmlType::Q5_0,
                    8 if centred => GgmlType::Q8_0,
                    4 if biases.iter().all(|bias| is_half(*bias)) => GgmlType::Q4_1,
                    5 if biases.iter().all(|bias| is_half(*bias)) => GgmlType::Q5_1,
                    _ => return None,
                }
            }
            (GgufScales::Micro(scales), QuantMode::Mxfp4) => {
                scales.iter().all(|scale| *scale < 255).then_some(GgmlType::MXFP4)?
            }
            (GgufScales::Micro(scales), QuantMode::Nvfp4) => {
                scales.iter().all(|scale| *scale < 0x7f).then_some(GgmlType::NVFP4)?
            }
            _ => return None,
        };
        ty.byte_size(&self.shape).is_some().then_some(ty)
    }

    /// Rearranges the weight into blocks of the type that [`ggml_type`](Self::ggml_type) finds;
    /// `None` also when the parts have not the sizes that shape and form ask for.
    pub fn to_blocks(&self) -> Option<(GgmlType, Vec<u8>)> {
        let ty = self.ggml_type().filter(|_| self.is_whole())?;
        let mut out = Vec::with_capacity(usize::try_from(ty.byte_size(&self.shape)?).ok()?);
        let n_bytes = ty.block_size() / 8 * self.quantization.bits as usize;
        let per_group = self.quantization.group_size as usize;
        for (block, bytes) in self.weight.chunks_exact(n_bytes).enumerate() {
            let group = block * ty.block_size() / per_group;
            match &self.scales {
                GgufScales::Affine { scales, biases } => {
                    put_affine(ty, *scales.get(group)?, *biases.get(group)?, bytes, &mut out);
                }
                GgufScales::Micro(scales) => {
                    let scales = scales.get(group..group + ty.block_size() / per_group)?;
                    put_micro(scales, bytes, &mut out);
                }
            }
        }
        Some((ty, out))
    }

    fn is_whole(&self) -> bool {
        let GgufPacked { quantization: Quantization { group_size, bits, .. }, shape, .. } = self;
        let sizes = shape.iter().map(|&dim| usize::try_from(dim).ok());
        let count = sizes.reduce(|a, b| a?.checked_mul(b?)).flatten();
        let Some((count, row)) = count.zip(shape.last()) else { return false };
        let groups = match &self.scales {
            GgufScales::Affine { scales, biases } if scales.len() == biases.len() => scales.len(),
            GgufScales::Affine { .. } => return false,
            GgufScales::Micro(scales) => scales.len(),
        };
        row % group_size == 0
            && groups.checked_mul(*group_size as usize) == Some(count)
            && (count / 8).checked_mul(*bits as usize) == Some(self.weight.len())
    }
}

fn is_half(x: f32) -> bool {
    x.is_finite() && f16::from_f32(x).to_f32() == x
}

/// Returns an element of `bits` bits, the lowest first.
fn element(bytes: &[u8], bits: usize, j: usize) -> u8 {
    let at = j * bits;
    let byte = |k: usize| u16::from(bytes.get(k).copied().unwrap_or(0));
    let both = byte(at / 8) | byte(at / 8 + 1) << 8;
    (both >> (at % 8) & ((1 << bits) - 1)) as u8
}

/// Adds a block of 32.
fn put_affine(ty: GgmlType, scale: f32, bias: f32, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(f16::from_f32(scale).to_le_bytes());
    if matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1) {
        out.extend(f16::from_f32(bias).to_le_bytes());
    }
    if ty == GgmlType::Q8_0 {
        out.extend(bytes.iter().map(|q| q ^ 0x80));
        return;
    }
    let bits = bytes.len() / 4;
    let q: [u8; 32] = std::array::from_fn(|j| element(bytes, bits, j));
    if bits == 5 {
        let fifths = q.iter().rev().fold(0u32, |bits, q| bits << 1 | u32::from(q >> 4));
        out.extend(fifths.to_le_bytes());
    }
    out.extend((0..16).map(|j| q[j] & 15 | q[j + 16] << 4));
}

/// Adds a block of floats: all scales, then for each its elements.
fn put_micro(scales: &[u8], bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(scales);
    for bytes in bytes.chunks_exact((bytes.len() / scales.len().max(1)).max(1)) {
        let q = |j: usize| match element(bytes, 4, j) {
            8 => 0,
            q => q,
        };
        out.extend((0..bytes.len()).map(|j| q(j) | q(j + bytes.len()) << 4));
    }
}
