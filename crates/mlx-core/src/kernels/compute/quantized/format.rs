//! How weights are packed, and reading them one by one.

use std::ops::Range;

use half::{bf16, f16};

use super::CHUNK;
use crate::kernels::compute::Float;

/// What a weight's bits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// Integers of 2, 3, 4, 5, 6 or 8 bits with scale and bias.
    Affine(u8),
    /// 4-bit floats (E2M1) with a scale: mxfp4 and nvfp4.
    Fp4,
    /// 8-bit floats (E4M3) with a scale: mxfp8. Not integers, so only [`exact`](super::exact) has them.
    Fp8,
}

/// Twice the values of 4-bit floats, plus [`FP4_OFFSET`].
pub(super) const FP4_BYTES: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
const FP4_OFFSET: f32 = 12.0;

/// 2 bits, as a type for code that is compiled for each format.
pub(super) struct Bits2;
/// 4 bits.
pub(super) struct Bits4;
/// 4-bit floats.
pub(super) struct Fp4;
/// 8 bits.
pub(super) struct Bits8;
/// 3, 5 and 6 bits.
pub(super) struct Odd<const BITS: usize>;

/// Evaluates an expression with a name standing for the type of a format of integers, or another where
/// it is of none.
macro_rules! with_unpack {
    ($format:expr, $U:ident => $body:expr, else => $other:expr) => {{
        use $crate::kernels::compute::quantized::format::{Bits2, Bits4, Bits8, Format, Fp4, Odd};
        macro_rules! with {
            ($T:ty) => {{
                type $U = $T;
                $body
            }};
        }
        match $format {
            Format::Affine(2) => with!(Bits2),
            Format::Affine(3) => with!(Odd<3>),
            Format::Affine(4) => with!(Bits4),
            Format::Affine(5) => with!(Odd<5>),
            Format::Affine(6) => with!(Odd<6>),
            Format::Affine(8) => with!(Bits8),
            Format::Fp4 => with!(Fp4),
            Format::Affine(_) | Format::Fp8 => $other,
        }
    }};
}
pub(super) use with_unpack;

impl Format {
    pub(crate) fn bits(self) -> usize {
        match self {
            Format::Affine(bits) => bits.into(),
            Format::Fp4 => 4,
            Format::Fp8 => 8,
        }
    }

    /// What a weight's byte is more than the integer that it stands for, with bytes as
    /// [`Format::unpack`] gives them, but for those of 8 bits, which kernels take as signed.
    pub(super) fn offset(self) -> f32 {
        match self {
            Format::Affine(8) => 128.0,
            Format::Fp4 => -FP4_OFFSET,
            _ => 0.0,
        }
    }

    /// The place in the chunk's order of its `i`th weight.
    pub(super) fn place(self, i: usize) -> usize {
        match self.bits() {
            4 => i % 2 * 32 + i / 2,
            2 => i % 4 * 16 + i / 4,
            _ => i & 0b00_1111 | (i & 0b01_0000) << 1 | (i & 0b10_0000) >> 1,
        }
    }

    /// The group within the chunk that each 32-bit lane of a dot product belongs to.
    pub(super) fn lane_groups(self, group_size: usize) -> [i32; 8] {
        let mut groups = [0; 8];
        for i in 0..CHUNK {
            groups[self.place(i) % 32 / 4] = (i / group_size) as i32;
        }
        groups
    }

    /// Unpacks a chunk into integers that are not negative, in the weights' own order.
    pub(super) fn unpack(self, packed: &[u8], out: &mut [u8; CHUNK]) {
        let bits = self.bits();
        for (i, out) in out.iter_mut().enumerate() {
            let (byte, shift) = (i * bits / 8, i * bits % 8);
            let low = packed.get(byte).copied().unwrap_or(0);
            let high = packed.get(byte + 1).copied().unwrap_or(0);
            let q = u16::from_le_bytes([low, high]) >> shift & ((1u16 << bits) - 1);
            *out = match self {
                Format::Affine(_) | Format::Fp8 => q as u8,
                Format::Fp4 => FP4_BYTES[usize::from(q)],
            };
        }
    }
}

/// A type of scales.
pub(crate) trait Scale: Copy + Send + Sync + 'static {
    fn to_f32(self) -> f32;
}

macro_rules! float_scale {
    ($($T:ty),*) => {$(
        impl Scale for $T {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                Float::to_f32(self)
            }
        }
    )*};
}
float_scale!(f32, f16, bf16);

/// A power of two (E8M0), halved because [`FP4_BYTES`] are doubled.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct E8m0(pub(crate) u8);

impl E8m0 {
    pub(crate) fn slice(bytes: &[u8]) -> &[E8m0] {
        // SAFETY: a transparent byte.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

impl Scale for E8m0 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((u32::from(self.0) << 23).max(0x0040_0000)) * 0.5
    }
}

/// An 8-bit float (E4M3), halved as [`E8m0`]s are.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct E4m3(pub(crate) u8);

impl E4m3 {
    pub(crate) fn slice(bytes: &[u8]) -> &[E4m3] {
        // SAFETY: a transparent byte.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

impl Scale for E4m3 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        // Sign, exponent and mantissa where those of a `f32` are; 2^119 moves the exponent, subnormals
        // included, and halves.
        let bits = (i32::from(self.0 as i8) << 20) as u32 & 0x87f0_0000;
        f32::from_bits(bits) * f32::from_bits(246 << 23)
    }
}

/// Packed rows of weights, `[N, K]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, S> {
    pub(super) packed: &'a [u8],
    pub(super) scales: &'a [S],
    /// Empty where the format has none.
    pub(super) biases: &'a [S],
    pub(super) n_rows: usize,
    pub(super) k: usize,
    pub(super) row_bytes: usize,
    pub(super) group_size: usize,
    pub(super) format: Format,
    /// [`Format::lane_groups`]
    pub(super) lanes: [i32; 8],
}

impl<'a, S: Scale> Rows<'a, S> {
    /// Takes the parts of a weight.
    ///
    /// # Errors
    /// When sizes do not fit.
    pub(crate) fn new(
        format: Format,
        group_size: usize,
        k: usize,
        packed: &'a [u8],
        scales: &'a [S],
        biases: &'a [S],
    ) -> Result<Self, String> {
        let row_bytes = k * format.bits() / 8;
        let fail = || Err(format!("{} bytes of {format:?} for rows of {k}", packed.len()));
        if row_bytes == 0
            || !matches!(group_size, 16 | 32 | 64 | 128)
            || !k.is_multiple_of(group_size)
        {
            return fail();
        }
        let n_rows = packed.len() / row_bytes;
        let n_groups = n_rows * (k / group_size);
        let has_biases = matches!(format, Format::Affine(_));
        if n_rows * row_bytes != packed.len()
            || scales.len() != n_groups
            || biases.len() != if has_biases { n_groups } else { 0 }
        {
            return fail();
        }
        let lanes = format.lane_groups(group_size.min(CHUNK));
        Ok(Rows { packed, scales, biases, n_rows, k, row_bytes, group_size, format, lanes })
    }

    /// Writes scales and biases of a row's `groups`, the biases for weights that have `offset` taken
    /// off; what is behind them becomes zero.
    #[inline(always)]
    pub(super) fn factors(
        &self,
        n: usize,
        groups: Range<usize>,
        offset: f32,
        scales: &mut [f32],
        biases: &mut [f32],
    ) {
        let row = n * (self.k / self.group_size);
        let (n_groups, range) = (groups.len(), row + groups.start..row + groups.end);
        scales[n_groups..].fill(0.0);
        biases[n_groups..].fill(0.0);
        let (scales, biases) = (&mut scales[..n_groups], &mut biases[..n_groups]);
        for (out, scale) in scales.iter_mut().zip(&self.scales[range.clone()]) {
            *out = scale.to_f32();
        }
        if self.biases.is_empty() {
            biases.iter_mut().zip(&*scales).for_each(|(out, scale)| *out = offset * scale);
            return;
        }
        for ((out, bias), scale) in biases.iter_mut().zip(&self.biases[range]).zip(&*scales) {
            *out = bias.to_f32() + offset * scale;
        }
    }

    /// The weight without its scales, for what need not be compiled for each type of them.
    pub(super) fn bare(&self) -> Rows<'a, ()> {
        let Rows { packed, n_rows, k, row_bytes, group_size, format, lanes, .. } = *self;
        let (scales, biases) = (&[][..], &[][..]);
        Rows { packed, scales, biases, n_rows, k, row_bytes, group_size, format, lanes }
    }
}

impl<'a, S> Rows<'a, S> {
    pub(super) fn row(&self, n: usize) -> &'a [u8] {
        &self.packed[n * self.row_bytes..][..self.row_bytes]
    }

    pub(super) fn n_groups(&self) -> usize {
        self.k / self.group_size
    }
}
