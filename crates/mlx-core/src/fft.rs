//! Discrete Fourier transforms, under the names of Python's `mx.fft`.
//!
//! They compute in complex64, from and to float32 where a side is real, whatever the input's
//! dtype. An axis is cut or padded with zeros to the size asked for.
//!
//! ```
//! use mlx_core::{Array, fft};
//!
//! # fn main() -> mlx_core::Result<()> {
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[4])?;
//! let spectrum = fft::rfft(&x, fft::Fft::default())?;
//! assert_eq!(spectrum.shape(), [3]);
//! let y = fft::irfft(&spectrum, fft::Fft { n: Some(4), ..Default::default() })?;
//! assert!(y.allclose(&x, Default::default())?.item::<bool>()?);
//! # Ok(())
//! # }
//! ```

use crate::array::{Array, Axes};
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

/// Where the factor `1 / n` goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FftNorm {
    /// To the inverse transform.
    #[default]
    Backward,
    /// Its root to both.
    Ortho,
    /// To the forward transform.
    Forward,
}

/// Size, axis and scale of a transform along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fft {
    /// Size of the transformed axis, for [`irfft`] that of the result; by default the input's, for
    /// [`irfft`] `2 * (size - 1)`.
    pub n: Option<i32>,
    /// The axis; by default the last.
    pub axis: i32,
    /// The scale.
    pub norm: FftNorm,
}

impl Default for Fft {
    fn default() -> Self {
        Fft { n: None, axis: -1, norm: FftNorm::Backward }
    }
}

/// Sizes, axes and scale of a transform along several axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FftN<'a> {
    /// Size along each of the axes, as [`Fft::n`]; the last axis is the one that is halved where a
    /// side is real.
    pub s: Option<&'a [i32]>,
    /// The axes; by default the last two for the 2-D transforms, else all.
    pub axes: Option<&'a [i32]>,
    /// The scale.
    pub norm: FftNorm,
}

/// What a transform does to the size of its last axis.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Complex,
    FromReal,
    ToReal,
}
use Kind::{Complex, FromReal, ToReal};

/// Writes transforms along one axis: `name, mlx_function, kind, "doc";`.
macro_rules! along_one {
    ($($name:ident, $f:ident, $kind:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            ///
            /// # Errors
            /// When there is no such axis or a size is not positive.
            pub fn $name(a: &Array, options: Fft) -> Result<Array> {
                let Fft { n, axis, norm } = options;
                let n = match n {
                    Some(n) => n,
                    None => default_size($kind, a.dim(axis)?),
                };
                let a = &input(stringify!($name), a, &[n])?;
                array_op!($f, a, n, axis, norm)
            }
        )*
    };
}

along_one! {
    fft, mlx_fft_fft, Complex, "Returns the discrete Fourier transform along an axis.";
    ifft, mlx_fft_ifft, Complex, "Returns the inverse of [`fft`].";
    rfft, mlx_fft_rfft, FromReal,
        "Returns the transform of real numbers along an axis: of `n` numbers the first `n / 2 + 1`, which determine the others.";
    irfft, mlx_fft_irfft, ToReal,
        "Returns the inverse of [`rfft`]; where the result has an odd size, `n` has to say so.";
}

/// Writes transforms along several axes: `name, mlx_function, kind, axes by default, "doc";`.
macro_rules! along_several {
    ($($name:ident, $f:ident, $kind:ident, $last:expr, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            ///
            /// # Errors
            /// When there is no such axis, an axis is repeated, a size is not positive, or there
            /// are not as many sizes as axes.
            pub fn $name(a: &Array, options: FftN<'_>) -> Result<Array> {
                let (s, axes) = sizes(stringify!($name), a, options, $kind, $last)?;
                let (norm, a) = (options.norm, &input(stringify!($name), a, &s)?);
                array_op!($f, a, [s], [axes], norm)
            }
        )*
    };
}

along_several! {
    fft2, mlx_fft_fft2, Complex, Some(2), "Returns the transform along two axes.";
    ifft2, mlx_fft_ifft2, Complex, Some(2), "Returns the inverse of [`fft2`].";
    rfft2, mlx_fft_rfft2, FromReal, Some(2),
        "Returns the transform of real numbers along two axes, the last one halved as by [`rfft`].";
    irfft2, mlx_fft_irfft2, ToReal, Some(2), "Returns the inverse of [`rfft2`].";
    fftn, mlx_fft_fftn, Complex, None, "Returns the transform along several axes.";
    ifftn, mlx_fft_ifftn, Complex, None, "Returns the inverse of [`fftn`].";
    rfftn, mlx_fft_rfftn, FromReal, None,
        "Returns the transform of real numbers along several axes, the last one halved as by [`rfft`].";
    irfftn, mlx_fft_irfftn, ToReal, None, "Returns the inverse of [`rfftn`].";
}

/// Moves frequency zero from the front to the middle of the axes.
///
/// # Errors
/// When there is no such axis.
///
/// ```
/// use mlx_core::{Array, fft};
///
/// # fn main() -> mlx_core::Result<()> {
/// assert_eq!(fft::fftshift(&Array::range(5)?, ..)?.to_vec::<i32>()?, [3, 4, 0, 1, 2]);
/// # Ok(())
/// # }
/// ```
pub fn fftshift<'a>(a: &Array, axes: impl Into<Axes<'a>>) -> Result<Array> {
    let (a, axes) = (&a.laid_out_if_empty()?, axis_list(a, axes.into()));
    array_op!(mlx_fft_fftshift, a, [axes])
}

/// Undoes [`fftshift`].
///
/// # Errors
/// When there is no such axis.
pub fn ifftshift<'a>(a: &Array, axes: impl Into<Axes<'a>>) -> Result<Array> {
    let (a, axes) = (&a.laid_out_if_empty()?, axis_list(a, axes.into()));
    array_op!(mlx_fft_ifftshift, a, [axes])
}

/// Returns the frequencies of what [`fft`] gives for `n` samples `d` apart, as float32.
///
/// # Shape
/// `[n]`
///
/// # Errors
/// When `n` is not positive or `d` is zero.
///
/// ```
/// use mlx_core::fft;
///
/// # fn main() -> mlx_core::Result<()> {
/// assert_eq!(fft::fftfreq(4, 0.5)?.to_vec::<f32>()?, [0.0, 0.5, -1.0, -0.5]);
/// # Ok(())
/// # }
/// ```
pub fn fftfreq(n: i32, d: f64) -> Result<Array> {
    check_samples("fftfreq", n)?;
    array_op!(mlx_fft_fftfreq, n, d)
}

/// Returns the frequencies of what [`rfft`] gives for `n` samples `d` apart, as float32.
///
/// # Shape
/// `[n / 2 + 1]`
///
/// # Errors
/// When `n` is not positive or `d` is zero.
pub fn rfftfreq(n: i32, d: f64) -> Result<Array> {
    check_samples("rfftfreq", n)?;
    array_op!(mlx_fft_rfftfreq, n, d)
}

fn default_size(kind: Kind, dim: i32) -> i32 {
    if kind == ToReal { (dim - 1).saturating_mul(2) } else { dim }
}

/// The sizes and axes that Python's defaults stand for.
fn sizes(
    op: &str,
    a: &Array,
    options: FftN<'_>,
    kind: Kind,
    last: Option<i32>,
) -> Result<(Vec<i32>, Vec<i32>)> {
    let axes: Vec<i32> = match (options.axes, last) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(last)) => (-last..0).collect(),
        (None, None) if options.s.is_some() => {
            return Err(invalid(format!("{op}: sizes without axes")));
        }
        (None, None) => axis_list(a, Axes::All),
    };
    if let Some(s) = options.s {
        return Ok((s.to_vec(), axes));
    }
    let mut s = axes.iter().map(|&axis| a.dim(axis)).collect::<Result<Vec<i32>>>()?;
    if let Some(last) = s.last_mut() {
        *last = default_size(kind, *last);
    }
    Ok((s, axes))
}

/// Lays an empty array out anew, and refuses transforms of more points than MLX counts.
fn input(op: &str, a: &Array, sizes: &[i32]) -> Result<Array> {
    let points = sizes.iter().try_fold(1i32, |n, &size| n.checked_mul(size.max(1)));
    match points {
        Some(points) if points < i32::MAX => a.laid_out_if_empty(),
        _ => Err(invalid(format!("{op}: a transform of size {sizes:?} is too large"))),
    }
}

fn axis_list(a: &Array, axes: Axes<'_>) -> Vec<i32> {
    match axes {
        Axes::All => (0..a.ndim() as i32).collect(),
        Axes::One(axis) => vec![axis],
        Axes::Some(axes) => axes.to_vec(),
    }
}

/// MLX adds one to the number.
fn check_samples(op: &str, n: i32) -> Result<()> {
    if n < i32::MAX {
        return Ok(());
    }
    Err(invalid(format!("{op}: {n} samples")))
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}
