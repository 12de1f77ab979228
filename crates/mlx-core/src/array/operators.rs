//! Operands and operators.
//!
//! A Rust number beside an array is weak, as a Python number is: it takes the array's dtype where
//! it can (`bfloat16 * 2.0` stays `bfloat16`), and promotes only from bool to a number and from
//! integer to float. Operators return a `Result`, and also take one as right operand, so that
//! `(a + (b * 2.0))?` reads as in Python. Of the floats only `f32` stands beside an operator: with
//! two candidates a plain `2.0` would have no type.

use std::borrow::Borrow;
use std::cell::RefCell;
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
        let (float, int, dtype) = match self {
            Scalar::Bool(x) => {
                (f64::from(u8::from(x)), i64::from(x), beside.unwrap_or(Dtype::Bool))
            }
            Scalar::Int(x) => {
                let alone = if i32::try_from(x).is_ok() { Dtype::Int32 } else { Dtype::Int64 };
                let dtype = beside.filter(|&dtype| dtype != Dtype::Bool).unwrap_or(alone);
                (x as f64, x, dtype)
            }
            Scalar::Float(x) => {
                let keeps = |dtype: &Dtype| dtype.is_floating() || *dtype == Dtype::Complex64;
                (x, x as i64, beside.filter(keeps).unwrap_or(Dtype::Float32))
            }
        };
        Ok(constant(float, int, dtype))
    }
}

/// Number of constants that a thread keeps.
const N_CONSTANTS: usize = 32;

/// The bits of both forms of a number, and the array's dtype.
type ConstantKey = (u64, i64, Dtype);

thread_local! {
    /// The 0-d arrays of the numbers that were used last, each in the place that its bits give:
    /// a model's numbers are few, and making such an array costs more than the op beside it.
    static CONSTANTS: RefCell<[Option<(ConstantKey, Array)>; N_CONSTANTS]> =
        const { RefCell::new([const { None }; N_CONSTANTS]) };
}

/// Gives up the arrays of numbers that this thread keeps.
pub(crate) fn clear_constants() {
    // Dropped outside of the borrow; a thread that is ending has dropped them already.
    let _ = CONSTANTS.try_with(|constants| constants.replace([const { None }; N_CONSTANTS]));
}

/// Makes a 0-d array, or takes the one made before: arrays do not change.
fn constant(float: f64, int: i64, dtype: Dtype) -> Array {
    let key = (float.to_bits(), int, dtype);
    let mixed = (key.0 ^ (int as u64) ^ dtype as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = (mixed >> 59) as usize % N_CONSTANTS;
    let kept = CONSTANTS.try_with(|constants| {
        let slot = &mut constants.borrow_mut()[place];
        match slot {
            Some((found, array)) if *found == key => array.clone(),
            _ => slot.insert((key, cast(float, int, dtype))).1.clone(),
        }
    });
    // Only a thread that is ending has no table.
    kept.unwrap_or_else(|_| cast(float, int, dtype))
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
///
/// ```
/// use mlx_core::{Array, Dtype};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1, 4], &[2])?;
/// assert_eq!(x.maximum(2)?.to_vec::<i32>()?, [2, 4]); // a number
/// assert_eq!(x.maximum(&x * 2)?.to_vec::<i32>()?, [2, 8]); // a result
/// assert_eq!(x.maximum(2.5)?.dtype(), Dtype::Float32);
/// # Ok(())
/// # }
/// ```
pub trait Operand: Sized {
    /// The operand while an op runs: an array, or the borrow of one.
    #[doc(hidden)]
    type Held: Held;

    /// Returns the dtype of an array, `None` for a number.
    #[doc(hidden)]
    fn known_dtype(&self) -> Option<Dtype>;

    /// Turns the operand into an array beside one of dtype `beside`; a borrowed array stays so.
    #[doc(hidden)]
    fn hold(self, beside: Option<Dtype>) -> Result<Self::Held>;

    /// Turns the operand into an array beside one of dtype `beside`.
    #[doc(hidden)]
    fn into_array(self, beside: Option<Dtype>) -> Result<Array> {
        self.hold(beside).map(Held::into_owned)
    }
}

/// An array or the borrow of one.
#[doc(hidden)]
pub trait Held: Borrow<Array> {
    fn into_owned(self) -> Array;
}

impl Held for Array {
    fn into_owned(self) -> Array {
        self
    }
}

impl Held for &Array {
    fn into_owned(self) -> Array {
        self.clone()
    }
}

impl<'a> Operand for &'a Array {
    type Held = &'a Array;
    fn known_dtype(&self) -> Option<Dtype> {
        Some(self.dtype())
    }
    fn hold(self, _: Option<Dtype>) -> Result<&'a Array> {
        Ok(self)
    }
}

impl Operand for Array {
    type Held = Array;
    fn known_dtype(&self) -> Option<Dtype> {
        Some(self.dtype())
    }
    fn hold(self, _: Option<Dtype>) -> Result<Array> {
        Ok(self)
    }
}

impl Operand for Result<Array> {
    type Held = Array;
    fn known_dtype(&self) -> Option<Dtype> {
        self.as_ref().ok().map(Array::dtype)
    }
    fn hold(self, _: Option<Dtype>) -> Result<Array> {
        self
    }
}

impl Operand for Scalar {
    type Held = Array;
    fn known_dtype(&self) -> Option<Dtype> {
        None
    }
    fn hold(self, beside: Option<Dtype>) -> Result<Array> {
        self.to_array(beside)
    }
}

macro_rules! number {
    ($($t:ty => |$x:ident| $scalar:expr),* $(,)?) => {
        $(impl Operand for $t {
            type Held = Array;
            fn known_dtype(&self) -> Option<Dtype> {
                None
            }
            fn hold(self, beside: Option<Dtype>) -> Result<Array> {
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

/// Turns two operands into arrays, each number beside the other's dtype, and calls `f` with them;
/// a borrowed array gets no second handle.
pub(crate) fn with_pair<A: Operand, B: Operand, T>(
    a: A,
    b: B,
    f: impl FnOnce(&Array, &Array) -> Result<T>,
) -> Result<T> {
    let (dtype_a, dtype_b) = (a.known_dtype(), b.known_dtype());
    let (a, b) = (a.hold(dtype_b)?, b.hold(dtype_a)?);
    f(a.borrow(), b.borrow())
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
