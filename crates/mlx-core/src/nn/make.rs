//! What the constructors of layers share: checks of their arguments, and first parameters.

use std::fmt;

use super::Param;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::{ops, random};

pub(super) fn invalid(layer: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{layer}: {what}"))
}

/// Fails unless every named size is at least one.
pub(super) fn check_positive(layer: &str, sizes: &[(&str, i32)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size < 1) {
        Some((name, size)) => Err(invalid(layer, format!("{name} is {size}, not positive"))),
        None => Ok(()),
    }
}

/// Fails unless every size of a list is at least one.
pub(super) fn check_all_positive(layer: &str, name: &str, sizes: &[i32]) -> Result<()> {
    if sizes.iter().all(|&size| size > 0) {
        return Ok(());
    }
    Err(invalid(layer, format!("{name} is {sizes:?}, not positive")))
}

/// Fails where a size of a list is negative.
pub(super) fn check_none_negative(layer: &str, name: &str, sizes: &[i32]) -> Result<()> {
    if sizes.iter().all(|&size| size >= 0) {
        return Ok(());
    }
    Err(invalid(layer, format!("{name} is {sizes:?}, negative")))
}

/// Fails unless `divisor`, which is positive, divides `size`.
pub(super) fn check_divides(
    layer: &str,
    (name, size): (&str, i32),
    (divisor_name, divisor): (&str, i32),
) -> Result<()> {
    if size.checked_rem(divisor) == Some(0) {
        return Ok(());
    }
    Err(invalid(layer, format!("{name} {size} does not divide by {divisor_name} {divisor}")))
}

/// Fails unless what is added to a variance keeps it positive.
pub(super) fn check_eps(layer: &str, eps: f32) -> Result<()> {
    if eps > 0.0 { Ok(()) } else { Err(invalid(layer, format!("eps is {eps}, not positive"))) }
}

/// Makes a parameter spread evenly over `±1 / √fan_in`, in float32, out of this thread's key
/// sequence.
pub(super) fn uniform(fan_in: f64, shape: &[i32]) -> Result<Param> {
    let bound = fan_in.recip().sqrt();
    random::uniform(-bound, bound, shape, Dtype::Float32, None).map(Param::from)
}

/// Makes a parameter of one value, in float32.
pub(super) fn full(value: f32, shape: &[i32]) -> Result<Param> {
    ops::full(shape, value, Dtype::Float32).map(Param::from)
}
