//! Matrix products.

use std::ffi::CString;

use super::binary_functions;
use crate::array::Array;
use crate::array::index::Bounds;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op};

binary_functions! {
    inner, mlx_inner, "Returns the inner product over the last axes.";
    kron, mlx_kron, "Returns the Kronecker product.";
    outer, mlx_outer, "Returns the outer product of the flattened operands.";
}

impl Array {
    /// Returns the matrix product over the last two axes; leading axes broadcast.
    ///
    /// # Shape
    /// `[…, M, K] × […, K, N] → […, M, N]`; a 1-D operand gets an axis that is removed again.
    ///
    /// # Errors
    /// When the inner sizes differ.
    pub fn matmul(&self, other: &Array) -> Result<Array> {
        array_op!(mlx_matmul, self, other)
    }

    /// Sums products over pairs of axes.
    ///
    /// # Errors
    /// When the paired sizes differ.
    pub fn tensordot(&self, other: &Array, axes_a: &[i32], axes_b: &[i32]) -> Result<Array> {
        array_op!(mlx_tensordot, self, other, [axes_a], [axes_b])
    }
}

/// Returns `alpha * (a × b) + beta * c`.
///
/// # Errors
/// When the shapes do not fit.
pub fn addmm(c: &Array, a: &Array, b: &Array, alpha: f32, beta: f32) -> Result<Array> {
    array_op!(mlx_addmm, c, a, b, alpha, beta)
}

/// Multiplies the matrices that the indices choose from stacks of them; without indices of a side,
/// all of it.
///
/// # Shape
/// `a: [A…, M, K]`, `b: [B…, K, N]`, indices into the flattened `A…` and `B…` that broadcast to
/// `I` → `I + [M, N]`.
///
/// # Errors
/// When the shapes do not fit, the indices are not integers, or one that the host has at hand is out
/// of range.
pub fn gather_mm(
    a: &Array,
    b: &Array,
    lhs_indices: Option<&Array>,
    rhs_indices: Option<&Array>,
    sorted_indices: bool,
) -> Result<Array> {
    if a.size() == 0 || b.size() == 0 {
        // MLX's kernel divides by the sizes.
        let text = format!("gather_mm: empty operand {a:?} or {b:?}");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let lhs_indices = matrix_indices("gather_mm", a, lhs_indices)?;
    let rhs_indices = matrix_indices("gather_mm", b, rhs_indices)?;
    let (lhs_indices, rhs_indices) = (lhs_indices.as_ref(), rhs_indices.as_ref());
    array_op!(mlx_gather_mm, a, b, lhs_indices, rhs_indices, sorted_indices)
}

/// Brings indices into the matrices that are stacked in an array in range.
pub(super) fn matrix_indices(
    op: &str,
    stack: &Array,
    indices: Option<&Array>,
) -> Result<Option<Array>> {
    let n_axes = stack.ndim().saturating_sub(2);
    let n: i64 = stack.shape()[..n_axes].iter().map(|&size| i64::from(size)).product();
    let size = i32::try_from(n).unwrap_or(i32::MAX);
    // MLX reads them as unsigned.
    let bounds = Bounds { op, size, slice: 1, from_end: false };
    indices.map(|indices| bounds.apply(indices)).transpose()
}

/// Sums products as Einstein's notation says, such as `"ij,jk->ik"`.
///
/// # Errors
/// When the subscripts do not fit the operands.
pub fn einsum<'a>(
    subscripts: &str,
    operands: impl IntoIterator<Item = &'a Array>,
) -> Result<Array> {
    let subscripts = CString::new(subscripts)
        .map_err(|_| Error::new(ErrorKind::InvalidArgument, "einsum: NUL in subscripts"))?;
    let subscripts = subscripts.as_c_str();
    let operands = &ArrayVec::new(operands)?;
    array_op!(mlx_einsum, subscripts, operands)
}
