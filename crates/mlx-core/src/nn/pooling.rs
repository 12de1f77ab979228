//! Pooling over windows of one, two or three spatial axes.
//!
//! Windows are a view of the padded input with one more axis for each spatial axis, over which
//! MLX's reduction runs. Channels are last.

use super::make;
use crate::array::Array;
use crate::error::Result;

/// Options of [`MaxPool`] and [`AvgPool`] over `N` spatial axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions<const N: usize> {
    /// Steps of the window; `None` is its size.
    pub stride: Option<[i32; N]>,
    /// What is added at either end of an axis: minus infinity for a maximum, zero for a mean.
    pub padding: [i32; N],
}

impl<const N: usize> Default for PoolOptions<N> {
    fn default() -> Self {
        PoolOptions { stride: None, padding: [0; N] }
    }
}

/// The greatest element of each window over `N` spatial axes.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::MaxPool1d;
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 4.0, 2.0, 3.0, 5.0], &[1, 5, 1])?;
/// let pool = MaxPool1d::new([2], Default::default())?;
/// assert_eq!(pool.forward(&x)?.to_vec::<f32>()?, [4.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool<const N: usize> {
    /// Size of the window.
    pub kernel_size: [i32; N],
    /// Steps of the window.
    pub stride: [i32; N],
    /// What is added at either end of an axis.
    pub padding: [i32; N],
}

/// [`MaxPool`] over a sequence.
pub type MaxPool1d = MaxPool<1>;
/// [`MaxPool`] over an image.
pub type MaxPool2d = MaxPool<2>;
/// [`MaxPool`] over a volume or a video.
pub type MaxPool3d = MaxPool<3>;

/// The mean of each window over `N` spatial axes, zeros of the padding included.
///
/// ```
/// use mlx_core::nn::AvgPool2d;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = AvgPool2d::new([2, 2], Default::default())?;
/// assert_eq!(layer.forward(&ops::ones(&[1, 4, 4, 3], Dtype::Float32)?)?.shape(), [1, 2, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool<const N: usize> {
    /// Size of the window.
    pub kernel_size: [i32; N],
    /// Steps of the window.
    pub stride: [i32; N],
    /// What is added at either end of an axis.
    pub padding: [i32; N],
}

/// [`AvgPool`] over a sequence.
pub type AvgPool1d = AvgPool<1>;
/// [`AvgPool`] over an image.
pub type AvgPool2d = AvgPool<2>;
/// [`AvgPool`] over a volume or a video.
pub type AvgPool3d = AvgPool<3>;

crate::module! {
    MaxPool1d {}
    MaxPool2d {}
    MaxPool3d {}
    AvgPool1d {}
    AvgPool2d {}
    AvgPool3d {}
}

/// Writes `new` and `forward`: `type, name, padding, reduction;`.
macro_rules! pools {
    ($($type:ident, $name:literal, $value:expr, $reduce:ident;)*) => {
        $(impl<const N: usize> $type<N> {
            /// Makes a layer.
            ///
            /// # Errors
            /// When a size or stride is not positive or a padding is negative.
            pub fn new(kernel_size: [i32; N], options: PoolOptions<N>) -> Result<$type<N>> {
                let PoolOptions { stride, padding } = options;
                let stride = stride.unwrap_or(kernel_size);
                Windows { kernel_size, stride, padding }.check(&format!("{}{N}d", $name))?;
                Ok($type { kernel_size, stride, padding })
            }

            /// Applies the layer.
            ///
            /// # Shape
            /// `x: [B, …, C] → [B, …, C]` with `N` axes between, each of which becomes
            /// `(size + 2 * padding - kernel_size) / stride + 1`
            ///
            /// # Errors
            /// When there are not `N + 2` axes or a window is larger than the padded input.
            pub fn forward(&self, x: &Array) -> Result<Array> {
                let $type { kernel_size, stride, padding } = *self;
                let windows = Windows { kernel_size, stride, padding };
                let view = windows.view(&format!("{}{N}d", $name), x, $value)?;
                let axes: Vec<i32> = (0..N as i32).map(|axis| axis - 1 - N as i32).collect();
                view.$reduce(axes.as_slice(), false)
            }
        })*
    };
}

pools! {
    MaxPool, "max_pool", f32::NEG_INFINITY, max;
    AvgPool, "avg_pool", 0.0, mean;
}

struct Windows<const N: usize> {
    kernel_size: [i32; N],
    stride: [i32; N],
    padding: [i32; N],
}

impl<const N: usize> Windows<N> {
    fn check(&self, layer: &str) -> Result<()> {
        make::check_all_positive(layer, "kernel_size", &self.kernel_size)?;
        make::check_all_positive(layer, "stride", &self.stride)?;
        make::check_none_negative(layer, "padding", &self.padding)
    }

    /// Returns the windows of `x`: `[B, windows…, C]` with the axes of a window before the last.
    fn view(&self, layer: &str, x: &Array, value: f32) -> Result<Array> {
        self.check(layer)?;
        let misfit = || {
            let (window, padding, x) = (self.kernel_size, self.padding, x.shape());
            make::invalid(layer, format!("window {window:?}, padding {padding:?}, input {x:?}"))
        };
        let [batch, spatial @ .., channels] = x.shape() else { return Err(misfit()) };
        if spatial.len() != N {
            return Err(misfit());
        }
        let mut padded = Vec::with_capacity(N);
        let mut windows = Vec::with_capacity(N);
        let geometry = self.kernel_size.iter().zip(&self.stride).zip(&self.padding);
        for (&size, ((&kernel, &stride), &padding)) in spatial.iter().zip(geometry) {
            let size = i64::from(size) + 2 * i64::from(padding);
            let size = i32::try_from(size).map_err(|_| misfit())?;
            if size < kernel {
                return Err(misfit());
            }
            padded.push(size);
            windows.push((size - kernel) / stride + 1);
        }

        let mut strides = vec![i64::from(*channels)];
        for &size in padded.iter().rev() {
            let outer = strides.last().and_then(|s| s.checked_mul(size.into()));
            strides.push(outer.ok_or_else(misfit)?);
        }
        strides.reverse();
        let Some((batch_stride, spatial_strides)) = strides.split_first() else {
            return Err(misfit());
        };
        let steps = spatial_strides.iter().zip(&self.stride);
        let mut view_strides = vec![*batch_stride];
        view_strides.extend(steps.map(|(&inner, &stride)| inner.saturating_mul(stride.into())));
        view_strides.extend(spatial_strides);
        view_strides.push(1);
        let mut shape = vec![*batch];
        shape.extend(windows);
        shape.extend(self.kernel_size);
        shape.push(*channels);

        self.padded(x, value)?.as_strided(&shape, &view_strides, 0)
    }

    fn padded(&self, x: &Array, value: f32) -> Result<Array> {
        if self.padding.iter().all(|&padding| padding == 0) {
            return Ok(x.clone());
        }
        let mut widths = vec![(0, 0)];
        widths.extend(self.padding.iter().map(|&padding| (padding, padding)));
        widths.push((0, 0));
        x.pad(&widths, value)
    }
}
