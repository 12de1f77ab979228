//! Linear algebra, under the names of Python's `mx.linalg`.
//!
//! Decompositions, inverses and solvers run on LAPACK, hence on the CPU only: on a machine with a
//! GPU, call them within `with_device(Device::Cpu, || …)`. They take float32 and float64, some of
//! them complex64, and stacks of matrices along any leading axes. Vectors that a decomposition
//! does not determine, up to their sign or phase, may differ between LAPACKs. MLX has derivatives
//! only of what it composes of other ops: most norms, [`cross`], and [`det`] up to 3 × 3.
//!
//! ```
//! use mlx_core::{Array, Device, linalg, with_device};
//!
//! # fn main() -> mlx_core::Result<()> {
//! with_device(Device::Cpu, || {
//!     let a = Array::from_slice(&[3.0f32, 1.0, 1.0, 2.0], &[2, 2])?;
//!     let b = Array::from_slice(&[9.0f32, 8.0], &[2])?;
//!     let x = linalg::solve(&a, &b)?;
//!     assert!((x.to_vec::<f32>()?[1] - 3.0).abs() < 1e-5);
//!     Ok(())
//! })
//! # }
//! ```

mod finite;
mod norm;

pub use norm::{NormOrd, norm};

use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{array_op, pair_op, vec_op};
use crate::ops;
use crate::stream::current_device;
use finite::finite;

/// Which triangle of a symmetric matrix is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplo {
    /// The lower one, Python's `"L"`.
    #[default]
    Lower,
    /// The upper one, Python's `"U"`.
    Upper,
}

impl Uplo {
    fn name(self) -> &'static std::ffi::CStr {
        match self {
            Uplo::Lower => c"L",
            Uplo::Upper => c"U",
        }
    }
}

/// Returns `(q, r)`: orthonormal columns and an upper triangle whose product is `a`.
///
/// # Shape
/// `a: […, M, N] → […, M, K], […, K, N]` with `K = min(M, N)`; float32 or float64.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let (q, r) = linalg::qr(&a)?;
/// assert!(q.matmul(&r)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn qr(a: &Array) -> Result<(Array, Array)> {
    let a = &input("qr", a)?;
    pair_op!(mlx_linalg_qr, a)
}

/// Returns `(u, s, vt)`: singular values in descending order and the vectors to both sides.
///
/// # Shape
/// `a: […, M, N] → […, M, M], […, K], […, N, N]` with `K = min(M, N)`; float32, float64 or
/// complex64, `s` real.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit; when evaluated, also when `a`
/// has NaN or infinity or the iteration does not converge.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let (u, s, vt) = linalg::svd(&a)?;
/// assert!((u * s)?.matmul(&vt)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn svd(a: &Array) -> Result<(Array, Array, Array)> {
    let a = &iterated("svd", a)?;
    let compute_uv = true;
    three("svd", vec_op!(mlx_linalg_svd, a, compute_uv)?)
}

/// Returns the singular values in descending order; Python's `svd` with `compute_uv=False`.
///
/// # Shape
/// `a: […, M, N] → […, min(M, N)]`; float32, float64 or complex64, the result real.
///
/// # Errors
/// Those of [`svd`].
pub fn svdvals(a: &Array) -> Result<Array> {
    let a = &iterated("svdvals", a)?;
    let compute_uv = false;
    let values = vec_op!(mlx_linalg_svd, a, compute_uv)?;
    values.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Runtime, "svdvals: no result"))
}

/// Returns `(values, vectors)` of square matrices: eigenvalues in no set order, and vectors of
/// length one as columns.
///
/// # Shape
/// `a: […, N, N] → […, N], […, N, N]`; float32, float64 or complex64, the results complex64.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit; when evaluated, also when `a`
/// has NaN or infinity or the iteration does not converge.
pub fn eig(a: &Array) -> Result<(Array, Array)> {
    let a = &input("eig", a)?;
    let a = &finite(a)?;
    pair_op!(mlx_linalg_eig, a)
}

/// Returns the eigenvalues of square matrices, in no set order.
///
/// # Shape
/// `a: […, N, N] → […, N]`; float32, float64 or complex64, the result complex64.
///
/// # Errors
/// Those of [`eig`].
pub fn eigvals(a: &Array) -> Result<Array> {
    let a = &input("eigvals", a)?;
    let a = &finite(a)?;
    array_op!(mlx_linalg_eigvals, a)
}

/// Returns `(values, vectors)` of symmetric or Hermitian matrices: eigenvalues in ascending order,
/// and orthonormal vectors as columns. Only one triangle is read.
///
/// # Shape
/// `a: […, N, N] → […, N], […, N, N]`; float32, float64 or complex64, the values real.
///
/// # Errors
/// Those of [`eig`].
///
/// ```
/// use mlx_core::{Array, linalg::{self, Uplo}};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let (w, v) = linalg::eigh(&a, Uplo::Lower)?;
/// assert!((&v * w)?.matmul(&v.t()?)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn eigh(a: &Array, uplo: Uplo) -> Result<(Array, Array)> {
    let (a, uplo) = (&iterated("eigh", a)?, uplo.name());
    pair_op!(mlx_linalg_eigh, a, uplo)
}

/// Returns the eigenvalues of symmetric or Hermitian matrices in ascending order; only one
/// triangle is read.
///
/// # Shape
/// `a: […, N, N] → […, N]`; float32, float64 or complex64, the result real.
///
/// # Errors
/// Those of [`eig`].
pub fn eigvalsh(a: &Array, uplo: Uplo) -> Result<Array> {
    let a = &input("eigvalsh", a)?;
    let (a, uplo) = (&finite(a)?, uplo.name());
    array_op!(mlx_linalg_eigvalsh, a, uplo)
}

/// Returns the inverse.
///
/// # Shape
/// `a: […, N, N] → […, N, N]`; float32 or float64.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit; when evaluated, also when a
/// matrix is singular.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// assert!(linalg::inv(&linalg::inv(&a)?)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn inv(a: &Array) -> Result<Array> {
    let a = &input("inv", a)?;
    array_op!(mlx_linalg_inv, a).and_then(|out| computed(a, out))
}

/// Returns the inverse of triangular matrices; the other triangle is taken for zero.
///
/// # Shape
/// `a: […, N, N] → […, N, N]`; float32 or float64.
///
/// # Errors
/// Those of [`inv`].
pub fn tri_inv(a: &Array, upper: bool) -> Result<Array> {
    let a = &input("tri_inv", a)?;
    array_op!(mlx_linalg_tri_inv, a, upper).and_then(|out| computed(a, out))
}

/// Returns the Moore–Penrose inverse; singular values below `10 * max(M, N) * ε` of the largest
/// count as zero.
///
/// # Shape
/// `a: […, M, N] → […, N, M]`; float32 or float64.
///
/// # Errors
/// Those of [`svd`].
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// assert!(linalg::pinv(&linalg::pinv(&a)?)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn pinv(a: &Array) -> Result<Array> {
    let a = &iterated("pinv", a)?;
    array_op!(mlx_linalg_pinv, a)
}

/// Returns the Cholesky factor of positive definite matrices: the lower triangle `l` of `l × lᵀ`,
/// or the upper one of `uᵀ × u`. Only that triangle is read.
///
/// MLX does not tell that a matrix is not positive definite: the factor is then meaningless.
///
/// # Shape
/// `a: […, N, N] → […, N, N]`; float32 or float64.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let l = linalg::cholesky(&a, false)?;
/// assert!(l.matmul(&l.t()?)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn cholesky(a: &Array, upper: bool) -> Result<Array> {
    let a = &input("cholesky", a)?;
    array_op!(mlx_linalg_cholesky, a, upper)
}

/// Returns the inverse of the matrices whose Cholesky factors are given.
///
/// # Shape
/// `a: […, N, N] → […, N, N]`; float32 or float64.
///
/// # Errors
/// Those of [`inv`].
pub fn cholesky_inv(a: &Array, upper: bool) -> Result<Array> {
    let a = &input("cholesky_inv", a)?;
    array_op!(mlx_linalg_cholesky_inv, a, upper).and_then(|out| computed(a, out))
}

/// Returns `(p, l, u)`: row positions, a lower triangle with ones on its diagonal, and an upper
/// triangle, such that row `p[i]` of `l × u`, or `(l × u)[p]`, is row `i` of `a`.
///
/// # Shape
/// `a: […, M, N] → […, M], […, M, K], […, K, N]` with `K = min(M, N)`; float32 or float64, `p`
/// uint32.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let (p, l, u) = linalg::lu(&a)?;
/// assert!(l.matmul(&u)?.take(&p, 0)?.allclose(&a, mlx_core::ops::Closeness { atol: 1e-5, ..Default::default() })?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn lu(a: &Array) -> Result<(Array, Array, Array)> {
    let a = &input("lu", a)?;
    let (p, l, u) = three("lu", vec_op!(mlx_linalg_lu, a)?)?;
    if a.size() > 0 {
        return Ok((p, l, u));
    }
    // Nothing is permuted, and either factor has an empty axis.
    let rows = p.shape().last().copied().unwrap_or(0);
    let rows = ops::arange(0.0, f64::from(rows), 1.0, Dtype::Uint32)?;
    Ok((rows.broadcast_to(p.shape())?, computed(a, l)?, computed(a, u)?))
}

/// Returns `(lu, pivots)`: both factors in one matrix, the ones on the diagonal left out, and for
/// each row the one that it was exchanged with.
///
/// # Shape
/// `a: […, M, N] → […, M, N], […, K]` with `K = min(M, N)`; float32 or float64, pivots uint32.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit.
pub fn lu_factor(a: &Array) -> Result<(Array, Array)> {
    let a = &input("lu_factor", a)?;
    let (lu, pivots) = pair_op!(mlx_linalg_lu_factor, a)?;
    Ok((computed(a, lu)?, computed(a, pivots)?))
}

/// Returns `x` such that `a × x = b`.
///
/// # Shape
/// `a: […, N, N]`, `b: […, N, K]` or `[N]` → that of `b`; float32 or float64 after promotion.
///
/// # Errors
/// Those of [`inv`].
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let b = Array::from_slice(&[8.0f32, 8.0], &[2])?;
/// let x = linalg::solve(&a, &b)?;
/// assert!(a.matmul(&x)?.allclose(&b, Default::default())?.item::<bool>()?);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn solve(a: &Array, b: &Array) -> Result<Array> {
    let a = &input("solve", a)?;
    array_op!(mlx_linalg_solve, a, b).and_then(|out| computed(a, out))
}

/// Returns `x` such that `a × x = b` for triangular `a`; the other triangle is taken for zero.
///
/// # Shape
/// `a: […, N, N]`, `b: […, N, K]` or `[N]` → that of `b`; float32 or float64 after promotion.
///
/// # Errors
/// Those of [`inv`].
pub fn solve_triangular(a: &Array, b: &Array, upper: bool) -> Result<Array> {
    let a = &input("solve_triangular", a)?;
    array_op!(mlx_linalg_solve_triangular, a, b, upper).and_then(|out| computed(a, out))
}

/// Returns the cross product of vectors along an axis of size 3, or 2 where the third element is
/// zero. Runs on any device.
///
/// # Shape
/// `a` and `b` broadcast but for the axis → the same with 3 along the axis.
///
/// # Errors
/// When there is no such axis, its size is another, or the shapes do not broadcast.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 0.0, 0.0], &[3])?;
/// let y = Array::from_slice(&[0.0f32, 1.0, 0.0], &[3])?;
/// assert_eq!(linalg::cross(&x, &y, -1)?.to_vec::<f32>()?, [0.0, 0.0, 1.0]);
/// # Ok(())
/// # }
/// ```
pub fn cross(a: &Array, b: &Array, axis: i32) -> Result<Array> {
    array_op!(mlx_linalg_cross, a, b, axis)
}

/// Returns the determinant.
///
/// # Shape
/// `a: […, N, N] → […]`; integers become float32.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// assert!((linalg::det(&a)?.item::<f32>()? - 8.0).abs() < 1e-5);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn det(a: &Array) -> Result<Array> {
    let a = &input("det", a)?;
    array_op!(mlx_linalg_det, a)
}

/// Returns `(sign, logabsdet)`: the determinant is `sign * exp(logabsdet)`; of a singular matrix
/// they are 0 and minus infinity.
///
/// # Shape
/// `a: […, N, N] → […], […]`; integers become float32.
///
/// # Errors
/// When the device is not the CPU, or shape or dtype do not fit.
///
/// ```
/// use mlx_core::{Array, linalg};
///
/// # fn main() -> mlx_core::Result<()> {
/// # mlx_core::with_device(mlx_core::Device::Cpu, || {
/// let a = Array::from_slice(&[4.0f32, 2.0, 2.0, 3.0], &[2, 2])?;
/// let (sign, log) = linalg::slogdet(&a)?;
/// assert_eq!(sign.item::<f32>()?, 1.0);
/// assert!((log.item::<f32>()?.exp() - 8.0).abs() < 1e-4);
/// # Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub fn slogdet(a: &Array) -> Result<(Array, Array)> {
    let a = &input("slogdet", a)?;
    pair_op!(mlx_linalg_slogdet, a)
}

/// Prepares a matrix for a decomposition by an iteration.
pub(crate) fn iterated(op: &str, a: &Array) -> Result<Array> {
    let a = input(op, a)?;
    check_workspace(op, &a)?;
    if a.size() == 0 { Ok(a) } else { finite(&a) }
}

/// Checks device and size, and lays an empty array out anew.
fn input(op: &str, a: &Array) -> Result<Array> {
    require_cpu(op)?;
    if let &[.., rows, columns] = a.shape() {
        check_size(op, a, i64::from(rows.max(1)) * i64::from(columns.max(1)))?;
    }
    a.laid_out_if_empty()
}

/// Checks that the vectors and the working space of a decomposition are small enough too.
fn check_workspace(op: &str, a: &Array) -> Result<()> {
    let &[.., rows, columns] = a.shape() else { return Ok(()) };
    let (most, least) = (i64::from(rows.max(columns)), i64::from(rows.min(columns)));
    check_size(op, a, most * most)?;
    if 5 * least * (least + 1) > i64::from(i32::MAX) { Err(too_large(op, a)) } else { Ok(()) }
}

/// LAPACK and MLX count the elements of a matrix, and of all matrices, with 32 bits.
fn check_size(op: &str, a: &Array, elements_of_each: i64) -> Result<()> {
    let (leading, _) = a.shape().split_at(a.ndim().saturating_sub(2));
    let mut sizes = leading.iter().map(|&dim| i64::from(dim.max(1)));
    match sizes.try_fold(elements_of_each, i64::checked_mul) {
        Some(n) if n <= i64::from(i32::MAX) => Ok(()),
        _ => Err(too_large(op, a)),
    }
}

fn too_large(op: &str, a: &Array) -> Error {
    let shape = a.shape();
    Error::new(ErrorKind::InvalidArgument, format!("{op}: shape {shape:?} is too large for LAPACK"))
}

fn require_cpu(op: &str) -> Result<()> {
    match current_device()? {
        Device::Cpu => Ok(()),
        device => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{op}: runs on the cpu and not on the {device}, so call it within with_device"),
        )),
    }
}

fn three(op: &str, results: Vec<Array>) -> Result<(Array, Array, Array)> {
    match <[Array; 3]>::try_from(results) {
        Ok([a, b, c]) => Ok((a, b, c)),
        Err(_) => Err(Error::new(ErrorKind::Runtime, format!("{op}: expected three results"))),
    }
}

/// Returns the result of an op on `a`, which MLX checked but must not compute where `a` is empty:
/// it divides by the size of a matrix.
fn computed(a: &Array, out: Array) -> Result<Array> {
    if a.size() > 0 { Ok(out) } else { ops::zeros(out.shape(), out.dtype()) }
}
