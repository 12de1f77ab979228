//! Matrix products.

use std::ffi::CString;

use super::binary_functions;
use crate::array::Array;
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
/// When the shapes do not fit or the indices are not integers.
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
    array_op!(mlx_gather_mm, a, b, lhs_indices, rhs_indices, sorted_indices)
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
