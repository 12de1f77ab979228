//! The values of metadata.

use std::fmt;

/// A value of a file's metadata; [`GgufFile`](super::GgufFile) shows it in use.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Unsigned 8-bit integer.
    U8(u8),
    /// Signed 8-bit integer.
    I8(i8),
    /// Unsigned 16-bit integer.
    U16(u16),
    /// Signed 16-bit integer.
    I16(i16),
    /// Unsigned 32-bit integer.
    U32(u32),
    /// Signed 32-bit integer.
    I32(i32),
    /// Single precision.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// Text.
    String(String),
    /// Values of one type.
    Array(GgufArray),
    /// Unsigned 64-bit integer.
    U64(u64),
    /// Signed 64-bit integer.
    I64(i64),
    /// Double precision.
    F64(f64),
}

/// An array in a file's metadata: values of one type, which may be arrays again.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufArray {
    /// Unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Signed 8-bit integers.
    I8(Vec<i8>),
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Signed 16-bit integers.
    I16(Vec<i16>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
    /// Single precision.
    F32(Vec<f32>),
    /// True or false.
    Bool(Vec<bool>),
    /// Texts.
    String(Vec<String>),
    /// Arrays, each with a type of its own.
    Array(Vec<GgufArray>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// Double precision.
    F64(Vec<f64>),
}

/// The type of a value, by its number in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// In the order of their numbers, which are positions.
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    pub(super) fn from_id(id: u32) -> Option<ValueType> {
        ValueType::ALL.get(usize::try_from(id).ok()?).copied()
    }

    pub(super) fn id(self) -> u32 {
        self as u32
    }
}

/// Does the same for every variant of [`GgufArray`], with the vector bound to a name.
macro_rules! each_array {
    ($array:expr, $values:ident => $result:expr) => {
        match $array {
            GgufArray::U8($values) => $result,
            GgufArray::I8($values) => $result,
            GgufArray::U16($values) => $result,
            GgufArray::I16($values) => $result,
            GgufArray::U32($values) => $result,
            GgufArray::I32($values) => $result,
            GgufArray::F32($values) => $result,
            GgufArray::Bool($values) => $result,
            GgufArray::String($values) => $result,
            GgufArray::Array($values) => $result,
            GgufArray::U64($values) => $result,
            GgufArray::I64($values) => $result,
            GgufArray::F64($values) => $result,
        }
    };
}

impl GgufArray {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        each_array!(self, values => values.len())
    }

    /// Tells whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn value_type(&self) -> ValueType {
        match self {
            GgufArray::U8(_) => ValueType::U8,
            GgufArray::I8(_) => ValueType::I8,
            GgufArray::U16(_) => ValueType::U16,
            GgufArray::I16(_) => ValueType::I16,
            GgufArray::U32(_) => ValueType::U32,
            GgufArray::I32(_) => ValueType::I32,
            GgufArray::F32(_) => ValueType::F32,
            GgufArray::Bool(_) => ValueType::Bool,
            GgufArray::String(_) => ValueType::String,
            GgufArray::Array(_) => ValueType::Array,
            GgufArray::U64(_) => ValueType::U64,
            GgufArray::I64(_) => ValueType::I64,
            GgufArray::F64(_) => ValueType::F64,
        }
    }
}

impl GgufValue {
    /// Returns an integer of any width, if it is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            GgufValue::U8(value) => Some(value.into()),
            GgufValue::U16(value) => Some(value.into()),
            GgufValue::U32(value) => Some(value.into()),
            GgufValue::U64(value) => Some(value),
            _ => u64::try_from(self.as_i64()?).ok(),
        }
    }

    /// Returns an integer of any width, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            GgufValue::U8(value) => Some(value.into()),
            GgufValue::I8(value) => Some(value.into()),
            GgufValue::U16(value) => Some(value.into()),
            GgufValue::I16(value) => Some(value.into()),
            GgufValue::U32(value) => Some(value.into()),
            GgufValue::I32(value) => Some(value.into()),
            GgufValue::U64(value) => i64::try_from(value).ok(),
            GgufValue::I64(value) => Some(value),
            _ => None,
        }
    }

    /// Returns a float of either width, or an integer as one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            GgufValue::F32(value) => Some(value.into()),
            GgufValue::F64(value) => Some(value),
            GgufValue::U64(value) => Some(value as f64),
            _ => self.as_i64().map(|value| value as f64),
        }
    }

    /// Returns a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            GgufValue::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// Returns a text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            GgufValue::String(value) => Some(value),
            _ => None,
        }
    }

    /// Returns an array.
    pub fn as_array(&self) -> Option<&GgufArray> {
        match self {
            GgufValue::Array(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn value_type(&self) -> ValueType {
        match self {
            GgufValue::U8(_) => ValueType::U8,
            GgufValue::I8(_) => ValueType::I8,
            GgufValue::U16(_) => ValueType::U16,
            GgufValue::I16(_) => ValueType::I16,
            GgufValue::U32(_) => ValueType::U32,
            GgufValue::I32(_) => ValueType::I32,
            GgufValue::F32(_) => ValueType::F32,
            GgufValue::Bool(_) => ValueType::Bool,
            GgufValue::String(_) => ValueType::String,
            GgufValue::Array(_) => ValueType::Array,
            GgufValue::U64(_) => ValueType::U64,
            GgufValue::I64(_) => ValueType::I64,
            GgufValue::F64(_) => ValueType::F64,
        }
    }
}

impl From<&str> for GgufValue {
    fn from(value: &str) -> Self {
        GgufValue::String(value.to_owned())
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),* $(,)?) => {$(
        impl From<$t> for GgufValue {
            fn from(value: $t) -> Self {
                GgufValue::$variant(value)
            }
        }

        impl From<Vec<$t>> for GgufValue {
            fn from(values: Vec<$t>) -> Self {
                GgufValue::Array(GgufArray::$variant(values))
            }
        }
    )*};
}

from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, String => String, GgufArray => Array,
}

impl fmt::Display for GgufValue {
    /// Prints a scalar; of an array only its length, for vocabularies are long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GgufValue::U8(value) => value.fmt(f),
            GgufValue::I8(value) => value.fmt(f),
            GgufValue::U16(value) => value.fmt(f),
            GgufValue::I16(value) => value.fmt(f),
            GgufValue::U32(value) => value.fmt(f),
            GgufValue::I32(value) => value.fmt(f),
            GgufValue::U64(value) => value.fmt(f),
            GgufValue::I64(value) => value.fmt(f),
            GgufValue::F32(value) => value.fmt(f),
            GgufValue::F64(value) => value.fmt(f),
            GgufValue::Bool(value) => value.fmt(f),
            GgufValue::String(value) => value.fmt(f),
            GgufValue::Array(values) => write!(f, "[{} values]", values.len()),
        }
    }
}
