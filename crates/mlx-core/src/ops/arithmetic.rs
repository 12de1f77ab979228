//! Elementwise arithmetic.

use super::{binary_functions, unary_methods};
use crate::array::{Array, Operand};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{array_op, vec_op};
use crate::kernels;

unary_methods! {
    abs, mlx_abs, "Returns the absolute value.";
    arccos, mlx_arccos, "Returns the inverse cosine.";
    arccosh, mlx_arccosh, "Returns the inverse hyperbolic cosine.";
    arcsin, mlx_arcsin, "Returns the inverse sine.";
    arcsinh, mlx_arcsinh, "Returns the inverse hyperbolic sine.";
    arctan, mlx_arctan, "Returns the inverse tangent.";
    arctanh, mlx_arctanh, "Returns the inverse hyperbolic tangent.";
    ceil, mlx_ceil, "Returns the least integer that is not less.";
    conjugate, mlx_conjugate, "Returns the complex conjugate.";
    cos, mlx_cos, "Returns the cosine.";
    cosh, mlx_cosh, "Returns the hyperbolic cosine.";
    degrees, mlx_degrees, "Converts radians to degrees.";
    erf, mlx_erf, "Returns the error function.";
    erfinv, mlx_erfinv, "Returns the inverse of the error function.";
    exp, mlx_exp, "Returns the exponential.";
    expm1, mlx_expm1, "Returns the exponential minus one, exact near zero.";
    floor, mlx_floor, "Returns the greatest integer that is not greater.";
    imag, mlx_imag, "Returns the imaginary part.";
    log, mlx_log, "Returns the natural logarithm.";
    log10, mlx_log10, "Returns the base-10 logarithm.";
    log1p, mlx_log1p, "Returns the natural logarithm of one plus the element, exact near zero.";
    log2, mlx_log2, "Returns the base-2 logarithm.";
    negative, mlx_negative, "Returns the negation.";
    positive, mlx_positive, "Returns the array as it is; Python: `+x`.";
    radians, mlx_radians, "Converts degrees to radians.";
    real, mlx_real, "Returns the real part.";
    reciprocal, mlx_reciprocal, "Returns one divided by the element.";
    rsqrt, mlx_rsqrt, "Returns one divided by the square root.";
    sigmoid, mlx_sigmoid, "Returns the logistic sigmoid.";
    sign, mlx_sign, "Returns the sign: -1, 0 or 1.";
    sin, mlx_sin, "Returns the sine.";
    sinh, mlx_sinh, "Returns the hyperbolic sine.";
    sqrt, mlx_sqrt, "Returns the square root.";
    square, mlx_square, "Returns the square.";
    stop_gradient, mlx_stop_gradient, "Returns the array as a constant to gradients.";
    tan, mlx_tan, "Returns the tangent.";
    tanh, mlx_tanh, "Returns the hyperbolic tangent.";
    trunc, mlx_trunc, "Returns the integer next to the element on the way to zero.";
}

binary_functions! {
    add, mlx_shim_add or kernels::add, "Returns the sum.";
    arctan2, mlx_arctan2, "Returns the angle whose tangent is the quotient, by quadrant.";
    divide, mlx_shim_divide, "Returns the quotient, floating also for integers.";
    logaddexp, mlx_logaddexp, "Returns the logarithm of the sum of exponentials.";
    maximum, mlx_shim_maximum, "Returns the greater of the two; NaN wins.";
    minimum, mlx_shim_minimum, "Returns the lesser of the two; NaN wins.";
    multiply, mlx_shim_multiply or kernels::multiply, "Returns the product.";
    power, mlx_power, "Returns the first to the power of the second.";
    subtract, mlx_shim_subtract, "Returns the difference.";
}

/// Returns the quotient rounded towards minus infinity; for integers, zero where the divisor is.
///
/// # Errors
/// When the shapes do not broadcast or the dtype does not allow it.
pub fn floor_divide(a: impl Operand, b: impl Operand) -> Result<Array> {
    crate::array::with_pair(a, b, |a, b| {
        let Some(divisor) = Divisor::of(a, b)? else {
            return array_op!(mlx_floor_divide, a, b);
        };
        let safe = &divisor.safe;
        divisor.quotient(a, array_op!(mlx_floor_divide, a, safe)?)
    })
}

/// Returns the remainder with the sign of the divisor, as Python does; for integers, zero where
/// the divisor is.
///
/// # Errors
/// When the shapes do not broadcast or the dtype does not allow it.
pub fn remainder(a: impl Operand, b: impl Operand) -> Result<Array> {
    crate::array::with_pair(a, b, |a, b| {
        let Some(divisor) = Divisor::of(a, b)? else {
            return array_op!(mlx_remainder, a, b);
        };
        let safe = &divisor.safe;
        divisor.remainder(array_op!(mlx_remainder, a, safe)?)
    })
}

/// Returns [`floor_divide`] and [`remainder`] at once.
///
/// # Errors
/// When the shapes do not broadcast or the dtype does not allow it.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let (quotient, remainder) = ops::divmod(Array::from_slice(&[7, -7], &[2])?, 3)?;
/// assert_eq!(quotient.to_vec::<i32>()?, [2, -3]);
/// assert_eq!(remainder.to_vec::<i32>()?, [1, 2]);
/// # Ok(())
/// # }
/// ```
pub fn divmod(a: impl Operand, b: impl Operand) -> Result<(Array, Array)> {
    crate::array::with_pair(a, b, |a, b| {
        let divisor = Divisor::of(a, b)?;
        let b = divisor.as_ref().map_or(b, |divisor| &divisor.safe);
        let mut both = vec_op!(mlx_divmod, a, b)?.into_iter();
        match (both.next(), both.next(), divisor) {
            (Some(quotient), Some(remainder), None) => Ok((quotient, remainder)),
            (Some(quotient), Some(remainder), Some(divisor)) => {
                Ok((divisor.quotient(a, quotient)?, divisor.remainder(remainder)?))
            }
            _ => Err(super::missing_output("divmod")),
        }
    })
}

/// An integer divisor without the values at which the processor traps: zero, and -1, by which the
/// least integer does not divide. MLX's CPU backend would end the process there.
struct Divisor {
    dtype: Dtype,
    safe: Array,
    is_zero: Array,
    is_minus_one: Option<Array>,
}

impl Divisor {
    fn of(a: &Array, b: &Array) -> Result<Option<Divisor>> {
        let dtype = super::promote_types(a.dtype(), b.dtype());
        if !dtype.is_integer() || crate::stream::current_device()? != Device::Cpu {
            return Ok(None);
        }
        let b = b.astype(dtype)?;
        let is_zero = b.equal(0)?;
        let is_signed = matches!(dtype, Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64);
        let is_minus_one = if is_signed { Some(b.equal(-1)?) } else { None };
        let traps = match &is_minus_one {
            Some(is_minus_one) => is_zero.logical_or(is_minus_one)?,
            None => is_zero.clone(),
        };
        Ok(Some(Divisor { dtype, safe: super::where_(&traps, 1, &b)?, is_zero, is_minus_one }))
    }

    fn quotient(&self, a: &Array, quotient: Array) -> Result<Array> {
        let quotient = match &self.is_minus_one {
            Some(is_minus_one) => {
                super::where_(is_minus_one, a.astype(self.dtype)?.negative()?, quotient)?
            }
            None => quotient,
        };
        super::where_(&self.is_zero, 0, quotient)
    }

    fn remainder(&self, remainder: Array) -> Result<Array> {
        super::where_(&self.is_zero, 0, remainder)
    }
}

impl Array {
    /// Returns [`floor_divide`] by `other`.
    ///
    /// # Errors
    /// When the shapes do not broadcast or the dtype does not allow it.
    pub fn floor_divide(&self, other: impl Operand) -> Result<Array> {
        floor_divide(self, other)
    }

    /// Returns [`remainder`] by `other`.
    ///
    /// # Errors
    /// When the shapes do not broadcast or the dtype does not allow it.
    pub fn remainder(&self, other: impl Operand) -> Result<Array> {
        remainder(self, other)
    }

    /// Rounds to a number of decimals; halves go to the even neighbour.
    ///
    /// # Errors
    /// When the dtype does not allow it.
    pub fn round(&self, decimals: i32) -> Result<Array> {
        array_op!(mlx_round, self, decimals)
    }

    /// Bounds the elements; `None` leaves a side open.
    ///
    /// # Errors
    /// When both sides are open or the shapes do not broadcast.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[-1.0f32, 2.0, 7.0], &[3])?;
    /// let (low, high) = (Array::from(0.0f32), Array::from(5.0f32));
    /// assert_eq!(x.clip(Some(&low), Some(&high))?.to_vec::<f32>()?, [0.0, 2.0, 5.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn clip(&self, min: Option<&Array>, max: Option<&Array>) -> Result<Array> {
        array_op!(mlx_clip, self, min, max)
    }

    /// Replaces NaN and the infinities; `None` is the dtype's greatest and least number.
    ///
    /// # Errors
    /// When the dtype does not allow it.
    pub fn nan_to_num(&self, nan: f32, posinf: Option<f32>, neginf: Option<f32>) -> Result<Array> {
        array_op!(mlx_nan_to_num, self, nan, posinf, neginf)
    }
}
