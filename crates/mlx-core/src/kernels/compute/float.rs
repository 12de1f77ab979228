//! Floating element types that kernels read and write, computing in `f32`.

use half::{bf16, f16};

/// A floating element type.
pub(crate) trait Float: Copy + Default + Send + Sync + 'static {
    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Float for f16 {
    // Through integers and a multiplication instead of `half`'s calls, so that loops over
    // elements become vector instructions.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let sign = (bits & 0x8000) << 16;
        let magnitude = (bits & 0x7fff) << 13;
        // 2^112 moves the exponent from its bias of 15 to that of 127, subnormals included.
        let x = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
        let is_special = magnitude >= 0x0f80_0000;
        let bits = if is_special { magnitude | 0x7f80_0000 } else { x.to_bits() };
        f32::from_bits(bits | sign)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let (sign, bits) = ((x.to_bits() >> 16) & 0x8000, x.to_bits() & 0x7fff_ffff);
        // To nearest, ties to even: by the addition to 0.5, whose last bit is that of a subnormal,
        // or by integers, the exponent moving from its bias of 127 to that of 15.
        let subnormal = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
        let normal = bits.wrapping_add(0xc800_0fff + ((bits >> 13) & 1)) >> 13;
        let finite = if bits < 0x3880_0000 { subnormal } else { normal };
        let special = if bits > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        let magnitude = if bits < 0x4780_0000 { finite } else { special };
        f16::from_bits((sign | magnitude) as u16)
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        // To nearest, ties to even; a NaN stays one.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let nan = (bits >> 16) | 0x40;
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        bf16::from_bits(if is_nan { nan } else { rounded } as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_what_the_library_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) =
                (Float::to_f32(f16::from_bits(bits)), f16::from_bits(bits).to_f32());
            assert!(
                ours == theirs || (ours.is_nan() && theirs.is_nan()),
                "{bits:#x}: {ours} {theirs}"
            );
            assert_eq!(ours.is_sign_negative(), theirs.is_sign_negative(), "{bits:#x}");
        }
    }

    #[test]
    fn rounding_is_the_library_s() {
        for i in 0..u32::MAX / 9973 {
            let x = f32::from_bits(i * 9973);
            let (ours, theirs) = (<bf16 as Float>::from_f32(x), bf16::from_f32(x));
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{x}: {ours} {theirs}");
            let (ours, theirs) = (<f16 as Float>::from_f32(x), f16::from_f32(x));
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{x}: {ours} {theirs}");
            assert_eq!(ours.is_sign_negative(), theirs.is_sign_negative(), "{x}");
        }
    }
}
