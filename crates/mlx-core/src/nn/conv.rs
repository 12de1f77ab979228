//! Convolutions and transposed convolutions over one, two or three spatial axes.
//!
//! Channels are last. One type serves all numbers of axes; the names of Python's classes are its
//! aliases.

use super::{Param, make};
use crate::array::Array;
use crate::error::Result;
use crate::ops;

/// Options of [`Conv`] over `N` spatial axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions<const N: usize> {
    /// Steps of the kernel.
    pub stride: [i32; N],
    /// Zeros added at either end of an axis.
    pub padding: [i32; N],
    /// Distance between elements of the kernel.
    pub dilation: [i32; N],
    /// Parts into which the channels are divided; one for three axes.
    pub groups: i32,
    /// Adds a bias to each channel.
    pub bias: bool,
}

impl<const N: usize> Default for ConvOptions<N> {
    fn default() -> Self {
        ConvOptions { stride: [1; N], padding: [0; N], dilation: [1; N], groups: 1, bias: true }
    }
}

/// Options of [`ConvTranspose`] over `N` spatial axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeOptions<const N: usize> {
    /// Steps of the kernel over the output.
    pub stride: [i32; N],
    /// Elements taken away from either end of an axis of the output.
    pub padding: [i32; N],
    /// Distance between elements of the kernel.
    pub dilation: [i32; N],
    /// Elements added at the end of an axis of the output.
    pub output_padding: [i32; N],
    /// Adds a bias to each channel.
    pub bias: bool,
}

impl<const N: usize> Default for ConvTransposeOptions<N> {
    fn default() -> Self {
        let (stride, dilation) = ([1; N], [1; N]);
        ConvTransposeOptions {
            stride,
            padding: [0; N],
            dilation,
            output_padding: [0; N],
            bias: true,
        }
    }
}

/// A convolution over `N` spatial axes.
///
/// ```
/// use mlx_core::nn::{Conv2d, ConvOptions};
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let options = ConvOptions { padding: [1, 1], ..Default::default() };
/// let conv = Conv2d::new(3, 8, [3, 3], options)?;
/// let image = ops::zeros(&[1, 16, 16, 3], Dtype::Float32)?;
/// assert_eq!(conv.forward(&image)?.shape(), [1, 16, 16, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Conv<const N: usize> {
    /// `[O, K…, C / groups]`
    pub weight: Param,
    /// `[O]`
    pub bias: Option<Param>,
    /// Steps of the kernel.
    pub stride: [i32; N],
    /// Zeros added at either end of an axis.
    pub padding: [i32; N],
    /// Distance between elements of the kernel.
    pub dilation: [i32; N],
    /// Parts into which the channels are divided.
    pub groups: i32,
}

/// A convolution over a sequence.
pub type Conv1d = Conv<1>;
/// A convolution over an image.
pub type Conv2d = Conv<2>;
/// A convolution over a volume or a video.
pub type Conv3d = Conv<3>;

/// A transposed convolution over `N` spatial axes: what the gradient of [`Conv`] computes.
///
/// ```
/// use mlx_core::nn::ConvTranspose2d;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = ConvTranspose2d::new(3, 8, [2, 2], Default::default())?;
/// assert_eq!(layer.forward(&ops::ones(&[1, 4, 4, 3], Dtype::Float32)?)?.shape(), [1, 5, 5, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConvTranspose<const N: usize> {
    /// `[O, K…, C]`
    pub weight: Param,
    /// `[O]`
    pub bias: Option<Param>,
    /// Steps of the kernel over the output.
    pub stride: [i32; N],
    /// Elements taken away from either end of an axis of the output.
    pub padding: [i32; N],
    /// Distance between elements of the kernel.
    pub dilation: [i32; N],
    /// Elements added at the end of an axis of the output.
    pub output_padding: [i32; N],
}

/// A transposed convolution over a sequence.
pub type ConvTranspose1d = ConvTranspose<1>;
/// A transposed convolution over an image.
pub type ConvTranspose2d = ConvTranspose<2>;
/// A transposed convolution over a volume or a video.
pub type ConvTranspose3d = ConvTranspose<3>;

crate::module! {
    Conv1d { weight, bias }
    Conv2d { weight, bias }
    Conv3d { weight, bias }
    ConvTranspose1d { weight, bias }
    ConvTranspose2d { weight, bias }
    ConvTranspose3d { weight, bias }
}

impl<const N: usize> Conv<N> {
    /// Makes a layer with weights spread evenly over `±1 / √(in_channels * kernel)`, out of this
    /// thread's key sequence, and biases of zero, in float32.
    ///
    /// # Errors
    /// When a size, a stride, a dilation or the number of groups is not positive, a padding is
    /// negative, or the channels do not divide by the groups.
    pub fn new(
        in_channels: i32,
        out_channels: i32,
        kernel_size: [i32; N],
        options: ConvOptions<N>,
    ) -> Result<Conv<N>> {
        let layer = &format!("conv{N}d");
        let ConvOptions { stride, padding, dilation, groups, bias } = options;
        check_geometry(layer, (in_channels, out_channels), &kernel_size, &[stride, dilation])?;
        make::check_none_negative(layer, "padding", &padding)?;
        make::check_positive(layer, &[("groups", groups)])?;
        make::check_divides(layer, ("in_channels", in_channels), ("groups", groups))?;
        make::check_divides(layer, ("out_channels", out_channels), ("groups", groups))?;
        if N > 2 && groups > 1 {
            return Err(make::invalid(layer, format!("{groups} groups, expected 1")));
        }
        let (weight, bias) = parameters((in_channels, out_channels), &kernel_size, groups, bias)?;
        Ok(Conv { weight, bias, stride, padding, dilation, groups })
    }

    fn options(&self) -> ops::Conv<N> {
        let Conv { stride, padding, dilation, groups, .. } = *self;
        ops::Conv { stride, padding, dilation, groups }
    }
}

impl<const N: usize> ConvTranspose<N> {
    /// Makes a layer with weights spread evenly over `±1 / √(in_channels * kernel)`, out of this
    /// thread's key sequence, and biases of zero, in float32.
    ///
    /// # Errors
    /// When a size, a stride or a dilation is not positive, or a padding is negative.
    pub fn new(
        in_channels: i32,
        out_channels: i32,
        kernel_size: [i32; N],
        options: ConvTransposeOptions<N>,
    ) -> Result<ConvTranspose<N>> {
        let layer = &format!("conv_transpose{N}d");
        let ConvTransposeOptions { stride, padding, dilation, output_padding, bias } = options;
        check_geometry(layer, (in_channels, out_channels), &kernel_size, &[stride, dilation])?;
        make::check_none_negative(layer, "padding", &padding)?;
        make::check_none_negative(layer, "output_padding", &output_padding)?;
        let (weight, bias) = parameters((in_channels, out_channels), &kernel_size, 1, bias)?;
        Ok(ConvTranspose { weight, bias, stride, padding, dilation, output_padding })
    }

    fn options(&self) -> ops::ConvTranspose<N> {
        let ConvTranspose { stride, padding, dilation, output_padding, .. } = *self;
        ops::ConvTranspose { stride, padding, dilation, output_padding, groups: 1 }
    }
}

fn check_geometry<const N: usize>(
    layer: &str,
    (in_channels, out_channels): (i32, i32),
    kernel_size: &[i32; N],
    [stride, dilation]: &[[i32; N]; 2],
) -> Result<()> {
    let channels = [("in_channels", in_channels), ("out_channels", out_channels)];
    make::check_positive(layer, &channels)?;
    make::check_all_positive(layer, "kernel_size", kernel_size)?;
    make::check_all_positive(layer, "stride", stride)?;
    make::check_all_positive(layer, "dilation", dilation)
}

fn parameters(
    (in_channels, out_channels): (i32, i32),
    kernel_size: &[i32],
    groups: i32,
    bias: bool,
) -> Result<(Param, Option<Param>)> {
    let mut shape = vec![out_channels];
    shape.extend(kernel_size);
    shape.push(in_channels.checked_div(groups).unwrap_or(0));
    let kernel: f64 = kernel_size.iter().map(|&size| f64::from(size)).product();
    let weight = make::uniform(f64::from(in_channels) * kernel, &shape)?;
    Ok((weight, if bias { Some(make::full(0.0, &[out_channels])?) } else { None }))
}

/// Writes `forward`: `type, function of ops, "shape";`.
macro_rules! forward {
    ($($type:ident, $op:ident, $shape:literal;)*) => {
        $(impl $type {
            /// Applies the layer.
            ///
            /// # Shape
            #[doc = $shape]
            ///
            /// # Errors
            /// When the channels do not fit or the kernel is longer than the padded input.
            pub fn forward(&self, x: &Array) -> Result<Array> {
                let y = ops::$op(x, &self.weight, self.options())?;
                match &self.bias {
                    Some(bias) => y + &**bias,
                    None => Ok(y),
                }
            }
        })*
    };
}

forward! {
    Conv1d, conv1d, "`x: [N, L, C] → [N, L', O]`";
    Conv2d, conv2d, "`x: [N, H, W, C] → [N, H', W', O]`";
    Conv3d, conv3d, "`x: [N, D, H, W, C] → [N, D', H', W', O]`";
    ConvTranspose1d, conv_transpose1d, "`x: [N, L, C] → [N, L', O]`";
    ConvTranspose2d, conv_transpose2d, "`x: [N, H, W, C] → [N, H', W', O]`";
    ConvTranspose3d, conv_transpose3d, "`x: [N, D, H, W, C] → [N, D', H', W', O]`";
}
