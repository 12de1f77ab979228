//! Convolutions over one, two or three spatial axes.
//!
//! Inputs are `[N, …, C]` and weights `[O, …, C / groups]`: channels come last, as everywhere in
//! MLX. The named functions cover what layers need; [`conv_general`] adds dilated inputs, other
//! padding before than after, and flipped kernels. Every call is checked by [`Geometry`] first: MLX
//! divides by the number of groups, and its CPU kernels count in 32 bits.

use crate::array::Array;
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

/// Options of [`conv1d`], [`conv2d`] and [`conv3d`], with one number for each of `N` spatial axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv<const N: usize> {
    /// Steps of the kernel.
    pub stride: [i32; N],
    /// Zeros added at either end of an axis.
    pub padding: [i32; N],
    /// Distance between elements of the kernel.
    pub dilation: [i32; N],
    /// Parts into which the channels are divided.
    pub groups: i32,
}

impl<const N: usize> Default for Conv<N> {
    fn default() -> Self {
        Conv { stride: [1; N], padding: [0; N], dilation: [1; N], groups: 1 }
    }
}

/// Options of [`conv_transpose1d`], [`conv_transpose2d`] and [`conv_transpose3d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose<const N: usize> {
    /// Steps of the kernel over the output.
    pub stride: [i32; N],
    /// Elements taken away from either end of an axis of the output.
    pub padding: [i32; N],
    /// Distance between elements of the kernel.
    pub dilation: [i32; N],
    /// Elements added at the end of an axis of the output.
    pub output_padding: [i32; N],
    /// Parts into which the channels are divided.
    pub groups: i32,
}

impl<const N: usize> Default for ConvTranspose<N> {
    fn default() -> Self {
        ConvTranspose {
            stride: [1; N],
            padding: [0; N],
            dilation: [1; N],
            output_padding: [0; N],
            groups: 1,
        }
    }
}

/// Options of [`conv_general`]; each list has one number for every spatial axis, or one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeneral<'a> {
    /// Steps of the kernel.
    pub stride: &'a [i32],
    /// Zeros added before an axis; a negative number takes elements away.
    pub padding_lo: &'a [i32],
    /// Zeros added after an axis; a negative number takes elements away.
    pub padding_hi: &'a [i32],
    /// Distance between elements of the kernel.
    pub kernel_dilation: &'a [i32],
    /// Distance between elements of the input.
    pub input_dilation: &'a [i32],
    /// Parts into which the channels are divided.
    pub groups: i32,
    /// Reverses the kernel, as convolution in signal processing does.
    pub flip: bool,
}

impl Default for ConvGeneral<'_> {
    fn default() -> Self {
        ConvGeneral {
            stride: &[1],
            padding_lo: &[0],
            padding_hi: &[0],
            kernel_dilation: &[1],
            input_dilation: &[1],
            groups: 1,
            flip: false,
        }
    }
}

/// How much of a convolution's border [`convolve`] keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvolveMode {
    /// Wherever the two overlap: `A + V - 1` elements.
    #[default]
    Full,
    /// The middle, as long as the longer of the two.
    Same,
    /// Where they overlap fully: `A - V + 1` elements.
    Valid,
}

/// Convolves over one spatial axis.
///
/// # Shape
/// `input: [N, L, C]`, `weight: [O, K, C / groups]` → `[N, L', O]` with
/// `L' = (L + 2 * padding - dilation * (K - 1) - 1) / stride + 1`
///
/// # Errors
/// When the channels or groups do not fit, a stride or dilation is not positive, or the kernel is
/// longer than the padded input.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[1, 4, 1])?;
/// let w = Array::from_slice(&[1.0f32, -1.0], &[1, 2, 1])?;
/// let y = ops::conv1d(&x, &w, ops::Conv { padding: [1], ..Default::default() })?;
/// assert_eq!(y.to_vec::<f32>()?, [-1.0, -1.0, -1.0, -1.0, 4.0]);
/// # Ok(())
/// # }
/// ```
pub fn conv1d(input: &Array, weight: &Array, options: Conv<1>) -> Result<Array> {
    let geometry = Geometry::of("conv1d", input, weight, &options)?;
    let Conv { stride: [stride], padding: [padding], dilation: [dilation], groups } = options;
    geometry.finish(array_op!(mlx_conv1d, input, weight, stride, padding, dilation, groups)?)
}

/// Convolves over two spatial axes.
///
/// # Shape
/// `input: [N, H, W, C]`, `weight: [O, KH, KW, C / groups]` → `[N, H', W', O]`
///
/// # Errors
/// As [`conv1d`].
pub fn conv2d(input: &Array, weight: &Array, options: Conv<2>) -> Result<Array> {
    let geometry = Geometry::of("conv2d", input, weight, &options)?;
    let Conv { stride: [s0, s1], padding: [p0, p1], dilation: [d0, d1], groups } = options;
    geometry.finish(array_op!(mlx_conv2d, input, weight, s0, s1, p0, p1, d0, d1, groups)?)
}

/// Convolves over three spatial axes; MLX has no groups here.
///
/// # Shape
/// `input: [N, D, H, W, C]`, `weight: [O, KD, KH, KW, C]` → `[N, D', H', W', O]`
///
/// # Errors
/// As [`conv1d`], and when there are several groups.
pub fn conv3d(input: &Array, weight: &Array, options: Conv<3>) -> Result<Array> {
    let geometry = Geometry::of("conv3d", input, weight, &options)?;
    let Conv { stride: [s0, s1, s2], padding: [p0, p1, p2], dilation: [d0, d1, d2], groups } =
        options;
    let output = array_op!(mlx_conv3d, input, weight, s0, s1, s2, p0, p1, p2, d0, d1, d2, groups)?;
    geometry.finish(output)
}

/// Convolves transposed over one spatial axis, as the gradient of [`conv1d`] does.
///
/// # Shape
/// `input: [N, L, C]`, `weight: [O, K, C / groups]` → `[N, L', O]` with
/// `L' = (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1`
///
/// # Errors
/// As [`conv1d`].
pub fn conv_transpose1d(input: &Array, weight: &Array, options: ConvTranspose<1>) -> Result<Array> {
    let geometry = Geometry::transposed("conv_transpose1d", input, weight, &options)?;
    let ConvTranspose { stride: [s], padding: [p], dilation: [d], output_padding: [o], groups } =
        options;
    geometry.finish(array_op!(mlx_conv_transpose1d, input, weight, s, p, d, o, groups)?)
}

/// Convolves transposed over two spatial axes.
///
/// # Shape
/// `input: [N, H, W, C]`, `weight: [O, KH, KW, C / groups]` → `[N, H', W', O]`
///
/// # Errors
/// As [`conv1d`].
pub fn conv_transpose2d(input: &Array, weight: &Array, options: ConvTranspose<2>) -> Result<Array> {
    let geometry = Geometry::transposed("conv_transpose2d", input, weight, &options)?;
    let ConvTranspose { stride, padding, dilation, output_padding, groups } = options;
    let ([s0, s1], [p0, p1], [d0, d1], [o0, o1]) = (stride, padding, dilation, output_padding);
    let output =
        array_op!(mlx_conv_transpose2d, input, weight, s0, s1, p0, p1, d0, d1, o0, o1, groups)?;
    geometry.finish(output)
}

/// Convolves transposed over three spatial axes; MLX has no groups here.
///
/// # Shape
/// `input: [N, D, H, W, C]`, `weight: [O, KD, KH, KW, C]` → `[N, D', H', W', O]`
///
/// # Errors
/// As [`conv1d`], and when there are several groups.
pub fn conv_transpose3d(input: &Array, weight: &Array, options: ConvTranspose<3>) -> Result<Array> {
    let geometry = Geometry::transposed("conv_transpose3d", input, weight, &options)?;
    let ConvTranspose { stride, padding, dilation, output_padding, groups } = options;
    let ([s0, s1, s2], [p0, p1, p2]) = (stride, padding);
    let ([d0, d1, d2], [o0, o1, o2]) = (dilation, output_padding);
    let output = array_op!(
        mlx_conv_transpose3d,
        input,
        weight,
        s0,
        s1,
        s2,
        p0,
        p1,
        p2,
        d0,
        d1,
        d2,
        o0,
        o1,
        o2,
        groups
    )?;
    geometry.finish(output)
}

/// Convolves over one to three spatial axes with every option that MLX has.
///
/// # Shape
/// `input: [N, …, C]`, `weight: [O, …, C / groups]` → `[N, …, O]`
///
/// # Errors
/// As [`conv1d`], and when a list is neither empty, nor of one number, nor of one for each axis.
pub fn conv_general(input: &Array, weight: &Array, options: ConvGeneral<'_>) -> Result<Array> {
    let geometry = Geometry::general("conv_general", input, weight, options)?;
    let ConvGeneral { stride, padding_lo, padding_hi, kernel_dilation, input_dilation, .. } =
        options;
    let ConvGeneral { groups, flip, .. } = options;
    let output = array_op!(
        mlx_conv_general,
        input,
        weight,
        [stride],
        [padding_lo],
        [padding_hi],
        [kernel_dilation],
        [input_dilation],
        groups,
        flip
    )?;
    geometry.finish(output)
}

/// Returns the discrete convolution of two vectors; the shorter one is the kernel and is flipped.
///
/// # Shape
/// `a: [A]`, `v: [V]` → as many as [`ConvolveMode`] says
///
/// # Errors
/// When an operand is not 1-D, is empty, or is not floating.
pub fn convolve(a: &Array, v: &Array, mode: ConvolveMode) -> Result<Array> {
    if a.ndim() != 1 || v.ndim() != 1 || a.size() == 0 || v.size() == 0 {
        let (a, v) = (a.shape(), v.shape());
        return Err(invalid("convolve", format!("no vectors, {a:?} and {v:?}")));
    }
    let (long, short) = if a.size() < v.size() { (v, a) } else { (a, v) };
    let k = short.dim(0)?;
    let (lo, hi) = match mode {
        ConvolveMode::Full => (k - 1, k - 1),
        ConvolveMode::Valid => (0, 0),
        ConvolveMode::Same => (k / 2, (k - 1) / 2),
    };
    let (input, weight) = (long.reshape([1, -1, 1])?, short.flip(0)?.reshape([1, -1, 1])?);
    let options = ConvGeneral { padding_lo: &[lo], padding_hi: &[hi], ..ConvGeneral::default() };
    conv_general(&input, &weight, options)?.reshape([-1])
}

fn invalid(op: &str, what: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{op}: {what}"))
}

/// One spatial axis of a convolution.
struct SpatialAxis {
    input: i64,
    kernel: i64,
    stride: i64,
    padding: [i64; 2],
    dilation: i64,
    input_dilation: i64,
}

impl SpatialAxis {
    /// The input's size without what negative padding takes away.
    fn cropped(&self) -> i64 {
        self.input + self.padding[0].min(0) + self.padding[1].min(0)
    }

    /// The sizes of padded input, kernel and output, where all three exist.
    fn sizes(&self) -> Option<[i64; 3]> {
        let dilated = |size: i64, dilation: i64| dilation * (size - 1).max(0) + size.min(1);
        let cropped = self.cropped();
        let positive = self.stride > 0 && self.dilation > 0 && self.input_dilation > 0;
        if !positive || cropped < 0 {
            return None;
        }
        let padding: i64 = self.padding.iter().map(|&padding| padding.max(0)).sum();
        let input = dilated(cropped, self.input_dilation) + padding;
        let kernel = dilated(self.kernel, self.dilation);
        let limit = i64::from(i32::MAX);
        (kernel <= input && input <= limit)
            .then(|| [input, kernel, (input - kernel) / self.stride + 1])
    }
}

/// What the checks found out about a convolution.
struct Geometry {
    is_empty: bool,
}

impl Geometry {
    fn of<const N: usize>(
        op: &str,
        input: &Array,
        weight: &Array,
        options: &Conv<N>,
    ) -> Result<Geometry> {
        let general = ConvGeneral {
            stride: &options.stride,
            padding_lo: &options.padding,
            padding_hi: &options.padding,
            kernel_dilation: &options.dilation,
            groups: options.groups,
            ..ConvGeneral::default()
        };
        check_ndim(op, input, weight, N + 2)?;
        Geometry::general(op, input, weight, general)
    }

    fn transposed<const N: usize>(
        op: &str,
        input: &Array,
        weight: &Array,
        options: &ConvTranspose<N>,
    ) -> Result<Geometry> {
        check_ndim(op, input, weight, N + 2)?;
        let (mut padding_lo, mut padding_hi) = ([0; N], [0; N]);
        let axes = padding_lo.iter_mut().zip(&mut padding_hi).zip(weight.shape().iter().skip(1));
        let given = options.padding.iter().zip(&options.output_padding).zip(&options.dilation);
        for (((lo, hi), &kernel), ((&padding, &output_padding), &dilation)) in axes.zip(given) {
            let before = i64::from(dilation) * (i64::from(kernel) - 1) - i64::from(padding);
            let after = before + i64::from(output_padding);
            let (Ok(before), Ok(after)) = (i32::try_from(before), i32::try_from(after)) else {
                return Err(invalid(op, format!("padding {:?}", options.padding)));
            };
            (*lo, *hi) = (before, after);
        }
        let general = ConvGeneral {
            padding_lo: &padding_lo,
            padding_hi: &padding_hi,
            kernel_dilation: &options.dilation,
            input_dilation: &options.stride,
            groups: options.groups,
            ..ConvGeneral::default()
        };
        Geometry::general(op, input, weight, general)
    }

    fn general(
        op: &str,
        input: &Array,
        weight: &Array,
        options: ConvGeneral<'_>,
    ) -> Result<Geometry> {
        let (x, w) = (input.shape(), weight.shape());
        let n_axes = x.len().saturating_sub(2);
        if !(1..=3).contains(&n_axes) || w.len() != x.len() {
            return Err(invalid(op, format!("input {x:?} with weight {w:?}")));
        }
        if options.groups < 1 {
            return Err(invalid(op, format!("{} groups", options.groups)));
        }
        let mut axes = Vec::with_capacity(n_axes);
        for axis in 0..n_axes {
            let number = |list: &[i32], default: i64| match list {
                [] => Some(default),
                [one] => Some(i64::from(*one)),
                _ if list.len() == n_axes => list.get(axis).map(|&number| i64::from(number)),
                _ => None,
            };
            let size = |shape: &[i32]| shape.get(axis + 1).copied().unwrap_or(0).into();
            let spatial = (|| {
                Some(SpatialAxis {
                    input: size(x),
                    kernel: size(w),
                    stride: number(options.stride, 1)?,
                    padding: [number(options.padding_lo, 0)?, number(options.padding_hi, 0)?],
                    dilation: number(options.kernel_dilation, 1)?,
                    input_dilation: number(options.input_dilation, 1)?,
                })
            })();
            let spatial =
                spatial.ok_or_else(|| invalid(op, format!("{options:?} for {n_axes} axes")))?;
            axes.push(spatial);
        }
        let sizes: Option<Vec<_>> = axes.iter().map(SpatialAxis::sizes).collect();
        let Some(sizes) = sizes else {
            return Err(invalid(op, format!("input {x:?} with weight {w:?}, {options:?}")));
        };
        check_memory(op, x, w, &sizes)?;
        let is_empty =
            input.size() == 0 || weight.size() == 0 || axes.iter().any(|axis| axis.cropped() == 0);
        Ok(Geometry { is_empty })
    }

    /// A sum over nothing is zero; MLX's kernels divide by what is empty here.
    fn finish(&self, output: Array) -> Result<Array> {
        if !self.is_empty {
            return Ok(output);
        }
        super::zeros(output.shape(), output.dtype())
    }
}

fn check_ndim(op: &str, input: &Array, weight: &Array, ndim: usize) -> Result<()> {
    if input.ndim() == ndim && weight.ndim() == ndim {
        return Ok(());
    }
    let (x, w) = (input.shape(), weight.shape());
    Err(invalid(op, format!("expected {ndim} axes, got input {x:?} and weight {w:?}")))
}

/// Refuses what MLX's CPU kernels count wrongly: they lay the padded input out, and then every
/// patch that the kernel sees, with rows and columns in 32 bits.
fn check_memory(op: &str, x: &[i32], w: &[i32], sizes: &[[i64; 3]]) -> Result<()> {
    const MAX_ELEMENTS: i64 = 1 << 44;
    if crate::stream::current_device()? != Device::Cpu {
        return Ok(());
    }
    let (Some(&batch), Some(&channels)) = (x.first(), x.last()) else { return Ok(()) };
    let (batch, channels) = (i64::from(batch), i64::from(channels));
    let kernel = w.iter().skip(1).take(sizes.len()).map(|&size| i64::from(size));
    let elements = product([batch, channels], sizes.iter().map(|&[input, ..]| input));
    let rows = product([batch, 1], sizes.iter().map(|&[.., output]| output));
    let columns = product([channels, 1], kernel);
    let fits = |n: Option<i64>, limit: i64| n.is_some_and(|n| n <= limit);
    if fits(elements, MAX_ELEMENTS)
        && fits(rows, i32::MAX.into())
        && fits(columns, i32::MAX.into())
        && fits(rows.zip(columns).and_then(|(n, m)| n.checked_mul(m)), MAX_ELEMENTS)
    {
        return Ok(());
    }
    Err(invalid(op, format!("input {x:?} with weight {w:?} is too large for the CPU")))
}

fn product(first: [i64; 2], rest: impl Iterator<Item = i64>) -> Option<i64> {
    first.into_iter().chain(rest).try_fold(1, i64::checked_mul)
}
