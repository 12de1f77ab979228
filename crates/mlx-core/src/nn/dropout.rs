//! Dropout of elements and of whole channels, in training only.

use super::{Training, make};
use crate::array::Array;
use crate::error::Result;
use crate::{ops, random};

/// Zeroes each element with probability `p` and divides the others by `1 - p` (JMLR 15, 2014).
///
/// ```
/// use mlx_core::nn::{Dropout, Module};
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut layer = Dropout::new(0.5)?;
/// layer.train(false);
/// assert_eq!(layer.forward(&ops::ones(&[4], Dtype::Float32)?)?.to_vec::<f32>()?, [1.0; 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Probability of zero.
    pub p: f32,
    /// Whether anything is dropped.
    pub training: Training,
}

/// Zeroes each channel of an image with probability `p` (arXiv 1411.4280).
#[derive(Clone, Debug)]
pub struct Dropout2d {
    /// Probability of zero.
    pub p: f32,
    /// Whether anything is dropped.
    pub training: Training,
}

/// Zeroes each channel of a volume or a video with probability `p`.
#[derive(Clone, Debug)]
pub struct Dropout3d {
    /// Probability of zero.
    pub p: f32,
    /// Whether anything is dropped.
    pub training: Training,
}

crate::module! {
    Dropout { training }
    Dropout2d { training }
    Dropout3d { training }
}

/// Writes `new` and `forward`: `type, name, spatial axes, "shape", "error";`.
macro_rules! dropouts {
    ($($type:ident, $name:literal, $n_spatial:literal, $shape:literal, $error:literal;)*) => {
        $(impl $type {
            /// Makes a layer; Python's default is 0.5.
            ///
            /// # Errors
            /// When `p` is not in `0..1`.
            pub fn new(p: f32) -> Result<$type> {
                check($name, p)?;
                Ok($type { p, training: Training::default() })
            }

            /// Applies the layer, with a key of this thread's sequence.
            ///
            /// # Shape
            #[doc = $shape]
            ///
            /// # Errors
            #[doc = $error]
            pub fn forward(&self, x: &Array) -> Result<Array> {
                drop_channels($name, x, self.p, self.training, $n_spatial)
            }
        })*
    };
}

dropouts! {
    Dropout, "dropout", 0, "`x: […] → […]`", "When `p` is not in `0..1`.";
    Dropout2d, "dropout2d", 2, "`x: [N, H, W, C]` or `[H, W, C]`",
        "When `x` has neither 3 nor 4 axes.";
    Dropout3d, "dropout3d", 3, "`x: [N, D, H, W, C]` or `[D, H, W, C]`",
        "When `x` has neither 4 nor 5 axes.";
}

fn check(layer: &str, p: f32) -> Result<()> {
    if (0.0..1.0).contains(&p) {
        return Ok(());
    }
    Err(make::invalid(layer, format!("probability {p} is not in 0..1")))
}

/// Drops along the mask's axes; the `n_spatial` axes before the channels share their mask.
fn drop_channels(
    layer: &str,
    x: &Array,
    p: f32,
    training: Training,
    n_spatial: usize,
) -> Result<Array> {
    let ndim = x.ndim();
    if n_spatial > 0 && !(n_spatial + 1..=n_spatial + 2).contains(&ndim) {
        let text = format!("{} or {} axes, got {:?}", n_spatial + 1, n_spatial + 2, x.shape());
        return Err(make::invalid(layer, format!("expected {text}")));
    }
    check(layer, p)?;
    if p == 0.0 || !training.0 {
        return Ok(x.clone());
    }
    let mut shape = x.shape().to_vec();
    for size in shape.iter_mut().rev().skip(1).take(n_spatial) {
        *size = 1;
    }
    let keep = 1.0 - f64::from(p);
    let mask = random::bernoulli(keep, &shape, None)?;
    ops::multiply(mask.multiply(x)?, keep.recip())
}
