//! Element types of an array.

use std::fmt;

/// The element type of an array; names and numbering are MLX's.
///
/// ```
/// use mlx_core::{Dtype, DtypeCategory};
///
/// # fn main() -> mlx_core::Result<()> {
/// assert_eq!(Dtype::from_name("bfloat16"), Some(Dtype::Bfloat16));
/// assert_eq!((Dtype::Bfloat16.size(), Dtype::Bfloat16.name()), (2, "bfloat16"));
/// assert!(Dtype::Bfloat16.is_subtype(DtypeCategory::Floating));
/// assert_eq!(Dtype::Int8.iinfo().map(|info| info.max), Some(127));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    Uint8,
    /// Unsigned 16-bit integer.
    Uint16,
    /// Unsigned 32-bit integer.
    Uint32,
    /// Unsigned 64-bit integer.
    Uint64,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// IEEE half precision.
    Float16,
    /// IEEE single precision.
    Float32,
    /// IEEE double precision; MLX computes with it on the CPU only.
    Float64,
    /// The upper half of a `Float32`.
    Bfloat16,
    /// Two `Float32`: real, imaginary.
    Complex64,
}

impl Dtype {
    /// Every element type, in MLX's numbering.
    pub const ALL: [Dtype; 14] = [
        Dtype::Bool,
        Dtype::Uint8,
        Dtype::Uint16,
        Dtype::Uint32,
        Dtype::Uint64,
        Dtype::Int8,
        Dtype::Int16,
        Dtype::Int32,
        Dtype::Int64,
        Dtype::Float16,
        Dtype::Float32,
        Dtype::Float64,
        Dtype::Bfloat16,
        Dtype::Complex64,
    ];

    /// Returns the size of one element in bytes.
    pub const fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => 1,
            Dtype::Uint16 | Dtype::Int16 | Dtype::Float16 | Dtype::Bfloat16 => 2,
            Dtype::Uint32 | Dtype::Int32 | Dtype::Float32 => 4,
            Dtype::Uint64 | Dtype::Int64 | Dtype::Float64 | Dtype::Complex64 => 8,
        }
    }

    /// Returns Python MLX's name, such as `bfloat16`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "bool",
            Dtype::Uint8 => "uint8",
            Dtype::Uint16 => "uint16",
            Dtype::Uint32 => "uint32",
            Dtype::Uint64 => "uint64",
            Dtype::Int8 => "int8",
            Dtype::Int16 => "int16",
            Dtype::Int32 => "int32",
            Dtype::Int64 => "int64",
            Dtype::Float16 => "float16",
            Dtype::Float32 => "float32",
            Dtype::Float64 => "float64",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Complex64 => "complex64",
        }
    }

    /// Finds an element type by Python MLX's name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Tells whether this is in a category. Python: `issubdtype`.
    ///
    /// ```
    /// use mlx_core::{Dtype, DtypeCategory};
    ///
    /// assert!(Dtype::Uint8.is_subtype(DtypeCategory::Integer));
    /// assert!(!Dtype::Uint8.is_subtype(DtypeCategory::Inexact));
    /// ```
    pub const fn is_subtype(self, category: DtypeCategory) -> bool {
        match category {
            DtypeCategory::Generic => true,
            DtypeCategory::Number => !matches!(self, Dtype::Bool),
            DtypeCategory::Integer => self.is_integer(),
            DtypeCategory::Signedinteger => {
                matches!(self, Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64)
            }
            DtypeCategory::Unsignedinteger => {
                matches!(self, Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64)
            }
            DtypeCategory::Inexact => self.is_floating() || matches!(self, Dtype::Complex64),
            DtypeCategory::Floating => self.is_floating(),
            DtypeCategory::Complexfloating => matches!(self, Dtype::Complex64),
        }
    }

    /// Tells whether promotion of this dtype with `to` gives `to`.
    pub fn can_cast(self, to: Dtype) -> bool {
        crate::ops::promote_types(self, to) == to
    }

    /// Returns the limits of a floating type, and for a complex one those of its parts.
    pub fn finfo(self) -> Option<Finfo> {
        let (bits, mantissa, max, exponent) = match self {
            Dtype::Float16 => (16, 10, 65504.0, -14),
            Dtype::Bfloat16 => (16, 7, f64::from(half::bf16::MAX), -126),
            Dtype::Float32 | Dtype::Complex64 => (32, 23, f64::from(f32::MAX), -126),
            Dtype::Float64 => (64, 52, f64::MAX, -1022),
            _ => return None,
        };
        let (eps, smallest_normal) = (2.0f64.powi(-mantissa), 2.0f64.powi(exponent));
        Some(Finfo { bits, min: -max, max, eps, smallest_normal })
    }

    /// Returns the limits of an integer type.
    pub fn iinfo(self) -> Option<Iinfo> {
        let bits = 8 * self.size() as u32;
        if !self.is_integer() {
            return None;
        }
        Some(if self.is_subtype(DtypeCategory::Signedinteger) {
            Iinfo { min: -(1i128 << (bits - 1)), max: (1i128 << (bits - 1)) - 1 }
        } else {
            Iinfo { min: 0, max: (1i128 << bits) - 1 }
        })
    }

    /// Tells whether this is one of the four real floating types.
    pub const fn is_floating(self) -> bool {
        matches!(self, Dtype::Float16 | Dtype::Float32 | Dtype::Float64 | Dtype::Bfloat16)
    }

    /// Tells whether this is a signed or unsigned integer type; `Bool` is not.
    pub const fn is_integer(self) -> bool {
        !self.is_floating() && !matches!(self, Dtype::Bool | Dtype::Complex64)
    }
}

/// A set of element types; names are Python MLX's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DtypeCategory {
    /// Every one.
    Generic,
    /// All but `bool`.
    Number,
    /// Integers, signed or not.
    Integer,
    /// Signed integers.
    Signedinteger,
    /// Unsigned integers.
    Unsignedinteger,
    /// Floating and complex types.
    Inexact,
    /// Real floating types.
    Floating,
    /// Complex types.
    Complexfloating,
}

/// The limits of a floating type, as [`Dtype::finfo`] returns them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finfo {
    /// Size of a number in bits.
    pub bits: u32,
    /// The least finite number.
    pub min: f64,
    /// The greatest finite number.
    pub max: f64,
    /// The difference between one and the next greater number.
    pub eps: f64,
    /// The least positive number of full precision.
    pub smallest_normal: f64,
}

/// The limits of an integer type, as [`Dtype::iinfo`] returns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iinfo {
    /// The least number.
    pub min: i128,
    /// The greatest number.
    pub max: i128,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
