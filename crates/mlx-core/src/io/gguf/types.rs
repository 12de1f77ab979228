//! The element types of ggml: number in a file, name, and size of a block.

use std::fmt;

use crate::dtype::Dtype;

/// An element type of ggml; a block of [`block_size`](GgmlType::block_size) elements takes
/// [`block_bytes`](GgmlType::block_bytes) bytes.
///
/// ```
/// use mlx_core::io::GgmlType;
///
/// assert_eq!(GgmlType::Q4_K.block_size(), 256);
/// assert_eq!(GgmlType::Q4_K.block_bytes(), 144);
/// assert_eq!(GgmlType::from_name("Q4_K"), Some(GgmlType::Q4_K));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum GgmlType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// 4 bits, a scale per 32.
    Q4_0,
    /// 4 bits, scale and least value per 32.
    Q4_1,
    /// 5 bits, a scale per 32.
    Q5_0,
    /// 5 bits, scale and least value per 32.
    Q5_1,
    /// 8 bits, a scale per 32.
    Q8_0,
    /// 8 bits, scale and sum per 32; ggml's own intermediate, not found in files.
    Q8_1,
    /// 2 bits, 4-bit scale and least value per 16, in blocks of 256.
    Q2_K,
    /// 3 bits, 6-bit scale per 16, in blocks of 256.
    Q3_K,
    /// 4 bits, 6-bit scale and least value per 32, in blocks of 256.
    Q4_K,
    /// 5 bits, 6-bit scale and least value per 32, in blocks of 256.
    Q5_K,
    /// 6 bits, 8-bit scale per 16, in blocks of 256.
    Q6_K,
    /// 8 bits, a single-precision scale per 256; ggml's own intermediate, not found in files.
    Q8_K,
    /// 2.06 bits: code book of 256 vectors of 8.
    IQ2_XXS,
    /// 2.31 bits: code book of 512 vectors of 8.
    IQ2_XS,
    /// 3.06 bits: code book of 256 vectors of 4.
    IQ3_XXS,
    /// 1.56 bits: code book of 2048 ternary vectors of 8.
    IQ1_S,
    /// 4 bits of a code book of 16 values, a scale per 32.
    IQ4_NL,
    /// 3.44 bits: code book of 512 vectors of 4.
    IQ3_S,
    /// 2.56 bits: code book of 1024 vectors of 8.
    IQ2_S,
    /// 4 bits of a code book of 16 values, 6-bit scale per 32, in blocks of 256.
    IQ4_XS,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Double precision.
    F64,
    /// 1.75 bits: code book of 2048 ternary vectors of 8.
    IQ1_M,
    /// The upper half of single precision.
    BF16,
    /// Ternary, five to a byte.
    TQ1_0,
    /// Ternary, four to a byte.
    TQ2_0,
    /// OCP microscaling: 4-bit floats, a power of two per 32.
    MXFP4,
    /// 4-bit floats, an unsigned E4M3 scale per 16, in blocks of 64.
    NVFP4,
    /// One bit: plus or minus the scale of 128.
    Q1_0,
    /// 2 bits with the values -1, 0, 1 and 2, a scale per 64; a fork's type of this number has 128.
    Q2_0,
}

/// What a file and the rest of this module know of one type.
struct Row {
    ty: GgmlType,
    id: u32,
    name: &'static str,
    block_size: usize,
    block_bytes: usize,
    dtype: Option<Dtype>,
}

macro_rules! rows {
    ($($ty:ident $id:literal: $size:literal, $bytes:expr $(, $dtype:ident)?;)*) => {
        /// In the order of the variants, so that a variant is its own position.
        const ROWS: [Row; GgmlType::ALL.len()] = [$(Row {
            ty: GgmlType::$ty,
            id: $id,
            name: stringify!($ty),
            block_size: $size,
            block_bytes: $bytes,
            dtype: rows!(@dtype $($dtype)?),
        }),*];

        impl GgmlType {
            /// Every element type, in the order of their numbers.
            pub const ALL: [GgmlType; 35] = [$(GgmlType::$ty),*];
        }
    };
    (@dtype) => { None };
    (@dtype $dtype:ident) => { Some(Dtype::$dtype) };
}

// Bytes are written as the fields of a block: scales first, then what remains, in ggml's order.
rows! {
    F32 0: 1, 4, Float32;
    F16 1: 1, 2, Float16;
    Q4_0 2: 32, 2 + 16;
    Q4_1 3: 32, 2 + 2 + 16;
    Q5_0 6: 32, 2 + 4 + 16;
    Q5_1 7: 32, 2 + 2 + 4 + 16;
    Q8_0 8: 32, 2 + 32;
    Q8_1 9: 32, 2 + 2 + 32;
    Q2_K 10: 256, 16 + 64 + 2 + 2;
    Q3_K 11: 256, 32 + 64 + 12 + 2;
    Q4_K 12: 256, 2 + 2 + 12 + 128;
    Q5_K 13: 256, 2 + 2 + 12 + 32 + 128;
    Q6_K 14: 256, 128 + 64 + 16 + 2;
    Q8_K 15: 256, 4 + 256 + 32;
    IQ2_XXS 16: 256, 2 + 64;
    IQ2_XS 17: 256, 2 + 64 + 8;
    IQ3_XXS 18: 256, 2 + 64 + 32;
    IQ1_S 19: 256, 2 + 32 + 16;
    IQ4_NL 20: 32, 2 + 16;
    IQ3_S 21: 256, 2 + 64 + 8 + 32 + 4;
    IQ2_S 22: 256, 2 + 64 + 8 + 8;
    IQ4_XS 23: 256, 2 + 2 + 4 + 128;
    I8 24: 1, 1, Int8;
    I16 25: 1, 2, Int16;
    I32 26: 1, 4, Int32;
    I64 27: 1, 8, Int64;
    F64 28: 1, 8, Float64;
    IQ1_M 29: 256, 32 + 16 + 8;
    BF16 30: 1, 2, Bfloat16;
    TQ1_0 34: 256, 48 + 4 + 2;
    TQ2_0 35: 256, 64 + 2;
    MXFP4 39: 32, 1 + 16;
    NVFP4 40: 64, 4 + 32;
    Q1_0 41: 128, 2 + 16;
    Q2_0 42: 64, 2 + 16;
}

/// Numbers that older versions of ggml gave to types it has no longer.
const REMOVED: [(u32, &str); 8] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

impl GgmlType {
    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Returns the number that stands for the type in a file.
    pub const fn id(self) -> u32 {
        self.row().id
    }

    /// Finds a type by its number in a file.
    pub fn from_id(id: u32) -> Option<GgmlType> {
        ROWS.iter().find(|row| row.id == id).map(|row| row.ty)
    }

    /// Returns ggml's name, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Finds a type by ggml's name.
    pub fn from_name(name: &str) -> Option<GgmlType> {
        ROWS.iter().find(|row| row.name == name).map(|row| row.ty)
    }

    /// Returns the number of consecutive elements that are stored together; rows hold whole blocks.
    pub const fn block_size(self) -> usize {
        self.row().block_size
    }

    /// Returns the size of a block in bytes.
    pub const fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Returns MLX's element type, if this is not a quantized type.
    pub const fn dtype(self) -> Option<Dtype> {
        self.row().dtype
    }

    /// Returns the type under which arrays of `dtype` are stored, where ggml has one.
    pub fn of_dtype(dtype: Dtype) -> Option<GgmlType> {
        ROWS.iter().find(|row| row.dtype == Some(dtype)).map(|row| row.ty)
    }

    /// Computes the size in bytes of a tensor of this type, row-major, last axis innermost.
    ///
    /// `None` when a dimension is negative, the last one holds no whole number of blocks, or the
    /// size overflows.
    pub fn byte_size(self, shape: &[i32]) -> Option<u64> {
        let (row, outer) = shape.split_last().unwrap_or((&1, &[]));
        let block_size = self.block_size() as i64;
        if *row < 0 || i64::from(*row) % block_size != 0 {
            return None;
        }
        let blocks = i64::from(*row) / block_size;
        let mut size = blocks.max(1).checked_mul(self.block_bytes() as i64)?;
        // Strides of the unpacked elements have to fit as well, in empty tensors too.
        let mut unpacked = i64::from(*row).max(1).checked_mul(8)?;
        for &dim in outer {
            if dim < 0 {
                return None;
            }
            size = size.checked_mul(i64::from(dim.max(1)))?;
            unpacked = unpacked.checked_mul(i64::from(dim.max(1)))?;
        }
        Some(if shape.contains(&0) { 0 } else { size.cast_unsigned() })
    }

    /// Says what is known of a number that is no type.
    pub(super) fn describe_unknown(id: u32) -> String {
        match REMOVED.iter().find(|(removed, _)| *removed == id) {
            Some((_, name)) => format!("type {id} ({name}) was removed from ggml"),
            None => format!("unknown type {id}"),
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_its_position() {
        for (position, ty) in GgmlType::ALL.into_iter().enumerate() {
            assert_eq!(ty as usize, position);
            assert_eq!(ROWS[position].ty, ty);
            assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
            assert_eq!(GgmlType::from_name(ty.name()), Some(ty));
        }
        assert!(ROWS.is_sorted_by_key(|row| row.id));
        assert_eq!(GgmlType::describe_unknown(31), "type 31 (Q4_0_4_4) was removed from ggml");
    }

    #[test]
    fn sizes_are_checked() {
        for (ty, shape, size) in [
            (GgmlType::Q4_0, &[3, 64][..], Some(108)),
            (GgmlType::Q4_0, &[64, 3], None),
            (GgmlType::F32, &[], Some(4)),
            (GgmlType::Q8_0, &[], None),
            (GgmlType::Q6_K, &[0, 256], Some(0)),
            (GgmlType::Q6_K, &[7, 0], Some(0)),
            (GgmlType::F32, &[-1], None),
            (GgmlType::F32, &[i32::MAX, i32::MAX, i32::MAX], None),
            (GgmlType::F32, &[0, i32::MAX, i32::MAX, i32::MAX], None),
            // The blocks' bytes could be counted, the elements' could not.
            (GgmlType::Q1_0, &[4, i32::MAX, 1 << 30], None),
        ] {
            assert_eq!(ty.byte_size(shape), size, "{ty} {shape:?}");
        }
    }
}
