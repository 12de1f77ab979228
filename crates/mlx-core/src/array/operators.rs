//! Operands and operators.
//!
//! A Rust number beside an array is weak, as a Python number is: it takes the array's dtype where
//! it can (`bfloat16 * 2.0` stays `bfloat16`), and promotes only from bool to a number and from
//! integer to float. Operators return a `Result`, and also take one as right operand, so that
//! `(a + (b * 2.0))?` reads as in Python. Of the floats only `f32` stands beside an operator: with
//! two candidates a plain `2.0` would have no type.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use half::{bf16, f16};

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// A number with no dtype of its own.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating number.
    Float(f64),
}

impl Scalar {
    /// Makes a 0-d array whose dtype is what Python's MLX gives the number beside `dtype`.
    fn to_array(self, beside: Option<Dtype>) -> Result<Array> {
        if let (Scalar::Int(x), Some(dtype)) = (self, beside)
            && !fits(x, dtype)
        {
            return Err(Error::new(ErrorKind::OutOfRange, format!("{x} is no {dtype}")));
        }
        Ok(match self {
            Scalar::Bool(x) => match beside {
                None | Some(Dtype::Bool) => Array::from(x),
                Some(dtype) => cast(f64::from(u8::from(x)), i64::from(x), dtype),
            },
            Scalar::Int(x) => {
                let small = i32::try_from(x).is_ok();
                match beside {
                    None | Some(Dtype::Bool) if small => cast(x as f64, x, Dtype::Int32),
                    None | Some(Dtype::Bool) => Array::from(x),
                    Some(dtype) => cast(x as f64, x, dtype),
                }
            }
            Scalar::Float(x) => match beside {
                Some(dtype) if dtype.is_floating() || dtype == Dtype::Complex64 => {
                    cast(x, x as i64, dtype)
                }
                _ => Array::from(x as f32),
            },
        })
    }
}

/// Tells whether Python's MLX takes the integer beside this dtype.
fn fits(x: i64, dtype: Dtype) -> bool {
    match dtype {
        Dtype::Uint8 => u8::try_from(x).is_ok(),
        Dtype::Uint16 => u16::try_from(x).is_ok(),
        Dtype::Uint32 => u32::try_from(x).is_ok(),
        Dtype::Int8 => i8::try_from(x).is_ok(),
        Dtype::Int16 => i16::try_from(x).is_ok(),
        Dtype::Int32 => i32::try_from(x).is_ok(),
        _ => true,
    }
}

fn cast(float: f64, int: i64, dtype: Dtype) -> Array {
    match dtype {
        Dtype::Bool => Array::from(int != 0),
        Dtype::Uint8 => Array::from(int as u8),
        Dtype::Uint16 => Array::from(int as u16),
        Dtype::Uint32 => Array::from(int as u32),
        Dtype::Uint64 => Array::from(int as u64),
        Dtype::Int8 => Array::from(int as i8),
        Dtype::Int16 => Array::from(int as i16),
        Dtype::Int32 => Array::from(int as i32),
        Dtype::Int64 => Array::from(int),
        Dtype::Float16 => Array::from(f16::from_f64(float)),
        Dtype::Float32 => Array::from(float as f32),
        Dtype::Float64 => Array::from(float),
        Dtype::Bfloat16 => Array::from(bf16::from_f64(float)),
        Dtype::Complex64 => Array::from(super::Complex32 { re: float as f32, im: 0.0 }),
    }
}

/// What an elementwise op takes: an array, a result of one, or a weak number.
pub trait Operand {
    /// Returns the dtype of an array, `None` for a number.
    #[doc(hidden)]
    fn known_dtype(&self) -> Option<Dtype>;

    /// Turns the operand into an array beside one of dtype `beside`.
    #[doc(hidden)]
    fn into_array(self, beside: Option<Dtype>) -> Result<Array>;
}

impl Operand for &Array {
    fn known_dtype(&self) -> Option<Dtype> {
        Some(self.dtype())
    }
    fn into_array(self, _: Option<Dtype>) -> Result<Array> {
        Ok(self.clone())
    }
}

impl Operand for Array {
    fn known_dtype(&self) -> Option<Dtype> {
        Some(self.dtype())
    }
    fn into_array(self, _: Option<Dtype>) -> Result<Array> {
        Ok(self)
    }
}

impl Operand for Result<Array> {
    fn known_dtype(&self) -> Option<Dtype> {
        self.as_ref().ok().map(Array::dtype)
    }
    fn into_array(self, _: Option<Dtype>) -> Result<Array> {
        self
    }
}

impl Operand for Scalar {
    fn known_dtype(&self) -> Option<Dtype> {
        None
    }
    fn into_array(self, beside: Option<Dtype>) -> Result<Array> {
        self.to_array(beside)
    }
}

macro_rules! number {
    ($($t:ty => |$x:ident| $scalar:expr),* $(,)?) => {
        $(impl Operand for $t {
            fn known_dtype(&self) -> Option<Dtype> {
                None
            }
            fn into_array(self, beside: Option<Dtype>) -> Result<Array> {
                let $x = self;
                $scalar.to_array(beside)
            }
        }

        impl From<$t> for Scalar {
            fn from($x: $t) -> Scalar {
                $scalar
            }
        })*
    };
}

number! {
    bool => |x| Scalar::Bool(x),
    i32 => |x| Scalar::Int(x.into()),
    i64 => |x| Scalar::Int(x),
    f32 => |x| Scalar::Float(x.into()),
    f64 => |x| Scalar::Float(x),
}

/// Turns two operands into arrays, each number beside the other's dtype.
pub(crate) fn pair(a: impl Operand, b: impl Operand) -> Result<(Array, Array)> {
    let (dtype_a, dtype_b) = (a.known_dtype(), b.known_dtype());
    Ok((a.into_array(dtype_b)?, b.into_array(dtype_a)?))
}

macro_rules! operator {
    ($($trait:ident, $method:ident => $op:ident;)*) => {
        $(
            operator!(@rhs $trait, $method => $op; Array, &Array, Result<Array>, f32, i32);

            impl $trait<&Array> for f32 {
                type Output = Result<Array>;
                fn $method(self, rhs: &Array) -> Result<Array> {
                    crate::ops::$op(self, rhs)
                }
            }

            impl $trait<Array> for f32 {
                type Output = Result<Array>;
                fn $method(self, rhs: Array) -> Result<Array> {
                    crate::ops::$op(self, rhs)
                }
            }
        )*
    };
    (@rhs $trait:ident, $method:ident => $op:ident; $($rhs:ty),*) => {
        $(
            impl $trait<$rhs> for &Array {
                type Output = Result<Array>;
                fn $method(self, rhs: $rhs) -> Result<Array> {
                    crate::ops::$op(self, rhs)
                }
            }

            impl $trait<$rhs> for Array {
                type Output = Result<Array>;
                fn $method(self, rhs: $rhs) -> Result<Array> {
                    crate::ops::$op(self, rhs)
                }
            }
        )*
    };
}

operator! {
    Add, add => add;
    Sub, sub => subtract;
    Mul, mul => multiply;
    Div, div => divide;
    Rem, rem => remainder;
}

impl Neg for &Array {
    type Output = Result<Array>;
    fn neg(self) -> Result<Array> {
        self.negative()
    }
}

impl Neg for Array {
    type Output = Result<Array>;
    fn neg(self) -> Result<Array> {
        self.negative()
    }
}
