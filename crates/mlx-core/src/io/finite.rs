//! Numbers that are none, counted in raw bytes.

use half::{bf16, f16};

use crate::dtype::Dtype;

/// How many elements are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Elements that are NaN.
    pub nan: u64,
    /// Elements that are an infinity.
    pub infinite: u64,
}

/// Counts NaN and infinities among the elements that `bytes` hold, little endian, without an
/// array.
///
/// Types other than `Float16`, `Bfloat16`, `Float32` and `Float64` have neither here: the 8-bit
/// floats are stored as [`Dtype::Uint8`]. Bytes behind the last whole element are passed over.
///
/// ```
/// use mlx_core::Dtype;
/// use mlx_core::io::non_finite;
///
/// let bytes: Vec<u8> = [1.0f32, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
/// assert_eq!(non_finite(Dtype::Float32, &bytes).nan, 1);
/// ```
pub fn non_finite(dtype: Dtype, bytes: &[u8]) -> NonFinite {
    match dtype {
        Dtype::Float16 => count(bytes, |b| f64::from(f16::from_le_bytes(b))),
        Dtype::Bfloat16 => count(bytes, |b| f64::from(bf16::from_le_bytes(b))),
        Dtype::Float32 => count(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::Float64 => count(bytes, f64::from_le_bytes),
        _ => NonFinite::default(),
    }
}

fn count<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> NonFinite {
    let mut counts = NonFinite::default();
    for element in bytes.as_chunks::<N>().0 {
        let value = value(*element);
        counts.nan += u64::from(value.is_nan());
        counts.infinite += u64::from(value.is_infinite());
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floating_type_is_counted() {
        let values = [1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
        let expected = NonFinite { nan: 1, infinite: 2 };
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(non_finite(Dtype::Float32, &bytes), expected);
        let bytes: Vec<u8> = values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
        assert_eq!(non_finite(Dtype::Float64, &bytes), expected);
        let bytes: Vec<u8> =
            values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).chain([9]).collect();
        assert_eq!(non_finite(Dtype::Float16, &bytes), expected);
        let bytes: Vec<u8> = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        assert_eq!(non_finite(Dtype::Bfloat16, &bytes), expected);
        assert_eq!(non_finite(Dtype::Uint32, &[255; 16]), NonFinite::default());
    }
}
