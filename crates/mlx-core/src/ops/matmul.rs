//! Matrix products.

use std::ffi::CString;

use super::binary_functions;
use crate::array::Array;
use crate::array::index::Bounds;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op};
use crate::kernels::{self, GatherLinear};

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
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let a = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
    /// let v = Array::from_slice(&[1.0f32, 10.0], &[2])?;
    /// assert_eq!(a.matmul(&v)?.to_vec::<f32>()?, [21.0, 43.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn matmul(&self, other: &Array) -> Result<Array> {
        array_op!(mlx_matmul, self, other)
    }

    /// Sums products over pairs of axes.
    ///
    /// # Shape
    /// The axes of this array that are left, then those of `other`
    ///
    /// # Errors
    /// When the paired sizes differ.
    pub fn tensordot(&self, other: &Array, axes_a: &[i32], axes_b: &[i32]) -> Result<Array> {
        array_op!(mlx_tensordot, self, other, [axes_a], [axes_b])
    }

    /// Sums products over the last `n` axes of this array and the first `n` of the other.
    ///
    /// # Shape
    /// `[A…, n axes]`, `[n axes, B…]` → `[A…, B…]`
    ///
    /// # Errors
    /// When `n` is negative, there are fewer axes, or the paired sizes differ.
    pub fn tensordot_axis(&self, other: &Array, n: i32) -> Result<Array> {
        array_op!(mlx_tensordot_axis, self, other, n)
    }

    /// Sums products along one axis; this array is conjugated.
    ///
    /// # Shape
    /// Both have the axis with one size; the other axes broadcast.
    ///
    /// # Errors
    /// When an operand lacks the axis or the sizes differ.
    pub fn vecdot(&self, other: &Array, axis: i32) -> Result<Array> {
        let (a, b) = (&self.laid_out_if_empty()?, &other.laid_out_if_empty()?);
        array_op!(mlx_vecdot, a, b, axis)
    }

    /// Returns the Walsh-Hadamard transform along the last axis; `None` scales so that the
    /// transform keeps lengths.
    ///
    /// The last size is a power of two, or that times 12, 20 or 28. An array that is not floating
    /// becomes `float32`.
    ///
    /// # Shape
    /// `[…, D] → […, D]`
    ///
    /// # Errors
    /// When the array is empty or its last size has no transform.
    pub fn hadamard_transform(&self, scale: impl Into<Option<f32>>) -> Result<Array> {
        check_counted(self.shape(), "hadamard_transform")?;
        let n = self.shape().last().copied().unwrap_or(1);
        let is_power = |m: i32| n % m == 0 && (n / m).max(0).count_ones() == 1;
        if ![1, 12, 20, 28].into_iter().any(is_power) {
            // MLX asks only whether `n` divides by one of the factors, and writes out of bounds.
            let text =
                format!("hadamard_transform: no transform of {n} in shape {:?}", self.shape());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let scale = scale.into();
        array_op!(mlx_hadamard_transform, self, scale)
    }
}

/// Returns `alpha * (a × b) + beta * c`.
///
/// # Shape
/// `a: [L, S]`, `b: [S, D]`, `c` that broadcasts to `[L, D]` → `[L, D]`; axes before them broadcast
///
/// # Errors
/// When the shapes do not fit.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let eye = ops::eye(2, 2, 0, mlx_core::Dtype::Float32)?;
/// let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// assert_eq!(ops::addmm(&eye, &x, &eye, 10.0, 1.0)?.to_vec::<f32>()?, [11.0, 20.0, 30.0, 41.0]);
/// # Ok(())
/// # }
/// ```
pub fn addmm(c: &Array, a: &Array, b: &Array, alpha: f32, beta: f32) -> Result<Array> {
    array_op!(mlx_addmm, c, a, b, alpha, beta)
}

/// Multiplies the matrices that the indices choose from stacks of them; without indices of a side,
/// all of it.
///
/// An index is not negative. On a CPU it is a kernel of ours, which takes `b` as it lies: the transpose of
/// `[B…, N, K]` is the fastest.
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
    let has_indices = lhs_indices.is_some() || rhs_indices.is_some();
    if has_indices && a.ndim() > 1 && b.ndim() > 1 {
        let b = b.swapaxes(-1, -2)?;
        if kernels::has_gather_linear(a, &b)? {
            let gather = GatherLinear { lhs_indices, rhs_indices, sorted_indices };
            return kernels::gather_linear(a, &b, None, gather);
        }
    }
    gather_mm_by_mlx(a, b, lhs_indices, rhs_indices, sorted_indices)
}

/// Does as [`gather_mm`] by MLX's own kernel.
pub(crate) fn gather_mm_by_mlx(
    a: &Array,
    b: &Array,
    lhs_indices: Option<&Array>,
    rhs_indices: Option<&Array>,
    sorted_indices: bool,
) -> Result<Array> {
    let lhs = matrix_indices("gather_mm", a, lhs_indices)?;
    let rhs = matrix_indices("gather_mm", b, rhs_indices)?;
    let (lhs, rhs) = (lhs.as_ref(), rhs.as_ref());
    let result = array_op!(mlx_gather_mm, a, b, lhs, rhs, sorted_indices)?;
    if (a.size() == 0 || b.size() == 0) && (lhs.is_some() || rhs.is_some()) {
        // MLX's kernel divides by the sizes.
        return super::zeros(result.shape(), result.dtype());
    }
    Ok(result)
}

/// Brings indices into the matrices that are stacked in an array in range.
pub(crate) fn matrix_indices(
    op: &str,
    stack: &Array,
    indices: Option<&Array>,
) -> Result<Option<Array>> {
    let (batch, _) = stack.shape().split_at(stack.ndim().saturating_sub(2));
    let n: i64 = batch.iter().map(|&size| i64::from(size)).product();
    let size = i32::try_from(n).unwrap_or(i32::MAX);
    // MLX reads them as unsigned.
    let bounds = Bounds { op, size, slice: 1, from_end: false };
    indices.map(|indices| bounds.apply(indices)).transpose()
}

/// Masks of [`block_masked_mm`], each with one element for every block of its matrix: a bool keeps
/// or drops the block, a number multiplies it.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockMasks<'a> {
    /// `[…, ⌈M / block⌉, ⌈N / block⌉]`, of the result.
    pub out: Option<&'a Array>,
    /// `[…, ⌈M / block⌉, ⌈K / block⌉]`, of the left matrix.
    pub lhs: Option<&'a Array>,
    /// `[…, ⌈K / block⌉, ⌈N / block⌉]`, of the right matrix.
    pub rhs: Option<&'a Array>,
}

/// Multiplies matrices without the blocks that masks drop.
///
/// MLX's CPU backend takes `float32` only.
///
/// # Shape
/// `[…, M, K] × […, K, N] → […, M, N]`; leading axes broadcast.
///
/// # Errors
/// When `block_size` is neither 32 nor 64 though there are masks, or the shapes do not fit.
pub fn block_masked_mm(
    a: &Array,
    b: &Array,
    block_size: i32,
    masks: BlockMasks<'_>,
) -> Result<Array> {
    let BlockMasks { out, lhs, rhs } = masks;
    let has_operand_mask = lhs.is_some() || rhs.is_some();
    if !has_operand_mask || crate::stream::current_device()? != Device::Cpu {
        return array_op!(mlx_block_masked_mm, a, b, block_size, out, lhs, rhs);
    }
    // MLX's CPU backend masks its copies of the operands in place: one that is broadcast would be
    // masked again and again, and of one with other strides it copies too little.
    let batch = |x: &Array| x.shape().split_at(x.ndim().saturating_sub(2)).0.to_vec();
    let shape = super::broadcast_shapes([batch(a), batch(b)])?;
    let laid_out = |x: &Array| {
        let matrix = x.shape().iter().skip(x.ndim().saturating_sub(2));
        match x.ndim() {
            0 | 1 => x.contiguous(),
            _ => x
                .broadcast_to([&shape[..], &matrix.copied().collect::<Vec<_>>()].concat())?
                .contiguous(),
        }
    };
    let (a, b) = (&laid_out(a)?, &laid_out(b)?);
    array_op!(mlx_block_masked_mm, a, b, block_size, out, lhs, rhs)
}

/// Multiplies ranges of the inner axis separately.
///
/// # Shape
/// `a: [M, K]`, `b: [K, N]`, `segments: S + [2]` → `S + [M, N]`. A segment is where its range
/// starts and where it ends, exclusive; both are bounded by `K`, and an empty range gives zeros.
///
/// # Errors
/// When the shapes do not fit or the segments are not integers.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let a = Array::from_slice(&[1.0f32, 2.0, 3.0], &[1, 3])?;
/// let b = Array::from_slice(&[1.0f32, 10.0, 100.0], &[3, 1])?;
/// let segments = Array::from_slice(&[0u32, 2, 2, 3], &[2, 2])?;
/// assert_eq!(ops::segmented_mm(&a, &b, &segments)?.to_vec::<f32>()?, [21.0, 300.0]);
/// # Ok(())
/// # }
/// ```
pub fn segmented_mm(a: &Array, b: &Array, segments: &Array) -> Result<Array> {
    if let ([_, k], [other, _]) = (a.shape(), b.shape())
        && k != other
    {
        let text = format!("segmented_mm: inner sizes differ, {a:?} and {b:?}");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let inner = a.shape().last().copied().unwrap_or(0);
    let bounded = if segments.dtype().is_integer() {
        // Neither size nor segments are checked by MLX.
        &segments.astype(Dtype::Uint32)?.minimum(Array::from(inner as u32))?
    } else {
        segments
    };
    let result = array_op!(mlx_segmented_mm, a, b, bounded)?;
    check_counted(result.shape(), "segmented_mm")?;
    if result.size() == 0 || inner == 0 {
        return super::zeros(result.shape(), result.dtype());
    }
    Ok(result)
}

/// Refuses what MLX's CPU kernels count in 32 bits and would lose count of.
fn check_counted(shape: &[i32], op: &str) -> Result<()> {
    let count = shape.iter().try_fold(1i32, |n, &size| n.checked_mul(size));
    if count.is_some() || crate::stream::current_device()? != Device::Cpu {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{op}: shape {shape:?} on the CPU")))
}

/// Sums products as Einstein's notation says, such as `"ij,jk->ik"`.
///
/// # Shape
/// What stands behind the arrow
///
/// # Errors
/// When the subscripts do not fit the operands.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let a = Array::from_slice(&[0.0f32, 1.0, 2.0, 3.0], &[2, 2])?;
/// assert_eq!(ops::einsum("ij->ji", [&a])?.to_vec::<f32>()?, [0.0, 2.0, 1.0, 3.0]);
/// assert_eq!(ops::einsum("ij,ij->i", [&a, &a])?.to_vec::<f32>()?, [1.0, 13.0]);
/// # Ok(())
/// # }
/// ```
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
