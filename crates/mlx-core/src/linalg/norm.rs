//! Norms of vectors and matrices.

use super::iterated;
use crate::array::{Array, Axes};
use crate::error::Result;
use crate::ffi::{OptionalSlice, array_op};

/// Which norm: Python's argument `ord`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NormOrd {
    /// The 2-norm of vectors, the Frobenius norm of matrices; Python's `None`.
    #[default]
    Euclidean,
    /// By number: of vectors `sum(|x|ᵖ)^(1/p)`, its limits at ±infinity, and the count of elements
    /// that are not zero at 0; of matrices ±1, ±2 and ±infinity.
    P(f64),
    /// The Frobenius norm, of matrices only; Python's `"fro"`.
    Frobenius,
    /// The sum of the singular values, of matrices only; Python's `"nuc"`.
    Nuclear,
}

impl From<f64> for NormOrd {
    fn from(p: f64) -> NormOrd {
        NormOrd::P(p)
    }
}

impl From<i32> for NormOrd {
    fn from(p: i32) -> NormOrd {
        NormOrd::P(f64::from(p))
    }
}

/// Returns the norm of vectors, along one axis, or of matrices, along two.
///
/// Over all axes (`..`) the array has to have one or two, except for [`NormOrd::Euclidean`], which
/// flattens. With `keepdims` the axes stay with size one. The matrix norms ±2 and
/// [`NormOrd::Nuclear`] are taken from singular values and bound to the CPU.
///
/// ```
/// use mlx_core::linalg::{NormOrd, norm};
/// use mlx_core::{Array, Device, with_device};
///
/// # fn main() -> mlx_core::Result<()> {
/// with_device(Device::Cpu, || {
///     let a = Array::from_slice(&[3.0f32, 0.0, 0.0, 4.0], &[2, 2])?;
///     assert_eq!(norm(&a, NormOrd::Euclidean, .., false)?.item::<f32>()?, 5.0);
///     assert_eq!(norm(&a, 1, 0, false)?.to_vec::<f32>()?, [3.0, 4.0]);
///     assert_eq!(norm(&a, NormOrd::Nuclear, .., true)?.shape(), [1, 1]);
///     Ok(())
/// })
/// # }
/// ```
///
/// # Shape
/// `[…]` → `[…]` without the axes, or with size one in their place
///
/// # Errors
/// When there is no such axis, a matrix norm of that order does not exist, or the dtype does not
/// allow it.
pub fn norm<'a>(
    a: &Array,
    ord: impl Into<NormOrd>,
    axes: impl Into<Axes<'a>>,
    keepdims: bool,
) -> Result<Array> {
    let (ord, axes) = (ord.into(), axes.into());
    let one;
    let axes = match axes {
        Axes::All => None,
        Axes::One(axis) => {
            one = [axis];
            Some(&one[..])
        }
        Axes::Some(axes) => Some(axes),
    };
    // MLX counts a negative axis of a matrix from the end twice.
    for &axis in axes.unwrap_or_default() {
        a.dim(axis)?;
    }
    let is_matrix = axes.map_or(a.ndim(), <[i32]>::len) == 2;
    let by_singular_values = match ord {
        NormOrd::P(p) => is_matrix && p.abs() == 2.0,
        NormOrd::Nuclear => is_matrix,
        NormOrd::Euclidean | NormOrd::Frobenius => false,
    };
    let a = &if by_singular_values { iterated("norm", a)? } else { a.laid_out_if_empty()? };
    let axes = OptionalSlice(axes);
    match ord {
        NormOrd::Euclidean => array_op!(mlx_linalg_norm_l2, a, [axes], keepdims),
        NormOrd::P(p) => array_op!(mlx_linalg_norm, a, p, [axes], keepdims),
        NormOrd::Frobenius => matrix_norm(a, c"fro", axes, keepdims),
        NormOrd::Nuclear => matrix_norm(a, c"nuc", axes, keepdims),
    }
}

fn matrix_norm(
    a: &Array,
    ord: &std::ffi::CStr,
    axes: OptionalSlice<'_>,
    keepdims: bool,
) -> Result<Array> {
    array_op!(mlx_linalg_norm_matrix, a, ord, [axes], keepdims)
}
