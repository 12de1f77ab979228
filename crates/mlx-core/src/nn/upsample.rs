//! Making images and sequences larger or smaller by interpolation.
//!
//! Each spatial axis is resampled on its own: every output element is a weighted sum of elements
//! of that axis, found by their index. Weights are float32.

use super::make;
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ops;

/// How [`Upsample`] finds an element between elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpsampleMode {
    /// Takes the nearest one.
    #[default]
    Nearest,
    /// Draws a line between its two neighbours.
    Linear,
    /// Draws a cubic curve through its four neighbours.
    Cubic,
}

/// Options of [`Upsample`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpsampleOptions {
    /// How elements between elements are found.
    pub mode: UpsampleMode,
    /// Lays the centres of first and last elements over one another; else the outer edges.
    pub align_corners: bool,
    /// Where an axis shrinks, widens the kernel so that every element counts.
    pub antialias: bool,
}

/// One factor for every spatial axis, or one for each.
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleFactor {
    /// The same for all.
    All(f64),
    /// One for each.
    Each(Vec<f64>),
}

impl From<f64> for ScaleFactor {
    fn from(factor: f64) -> Self {
        ScaleFactor::All(factor)
    }
}

impl<const N: usize> From<[f64; N]> for ScaleFactor {
    fn from(factors: [f64; N]) -> Self {
        ScaleFactor::Each(factors.into())
    }
}

impl From<&[f64]> for ScaleFactor {
    fn from(factors: &[f64]) -> Self {
        ScaleFactor::Each(factors.into())
    }
}

/// Multiplies the sizes of the spatial axes by a factor, rounded down.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::{Upsample, UpsampleMode, UpsampleOptions};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[0.0f32, 1.0], &[1, 2, 1])?;
/// let nearest = Upsample::new(2.0, UpsampleOptions::default())?;
/// assert_eq!(nearest.forward(&x)?.to_vec::<f32>()?, [0.0, 0.0, 1.0, 1.0]);
/// let options = UpsampleOptions { mode: UpsampleMode::Linear, ..Default::default() };
/// let linear = Upsample::new(2.0, options)?;
/// assert_eq!(linear.forward(&x)?.to_vec::<f32>()?, [0.0, 0.25, 0.75, 1.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Upsample {
    /// Factors on the sizes.
    pub scale_factor: ScaleFactor,
    /// How elements between elements are found.
    pub options: UpsampleOptions,
}

crate::module! { Upsample {} }

impl Upsample {
    /// Makes a layer.
    ///
    /// # Errors
    /// When a factor is not positive, or antialiasing is asked for with the nearest element or
    /// aligned corners.
    pub fn new(scale_factor: impl Into<ScaleFactor>, options: UpsampleOptions) -> Result<Upsample> {
        let scale_factor = scale_factor.into();
        let factors = match &scale_factor {
            ScaleFactor::All(factor) => std::slice::from_ref(factor),
            ScaleFactor::Each(factors) => factors,
        };
        if factors.iter().any(|factor| !(*factor > 0.0 && factor.is_finite())) {
            return Err(make::invalid("upsample", format!("scale {factors:?} is not positive")));
        }
        let UpsampleOptions { mode, align_corners, antialias } = options;
        if antialias && (align_corners || mode == UpsampleMode::Nearest) {
            let text = format!("antialias with {mode:?} and align_corners {align_corners}");
            return Err(make::invalid("upsample", text));
        }
        Ok(Upsample { scale_factor, options })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: [B, …, C] → [B, …, C]`; not nearest: at least float32
    ///
    /// # Errors
    /// When `x` has no spatial axis, not one for each factor, or the result would be empty.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let n_spatial = x.ndim().saturating_sub(2);
        let scales = match &self.scale_factor {
            ScaleFactor::All(factor) => vec![*factor; n_spatial],
            ScaleFactor::Each(factors) => factors.clone(),
        };
        if n_spatial == 0 || scales.len() != n_spatial {
            let text = format!("{} factors for shape {:?}", scales.len(), x.shape());
            return Err(make::invalid("upsample", text));
        }
        let is_whole = scales.iter().all(|scale| scale.fract() == 0.0);
        let mut y = x.clone();
        for (axis, scale) in (1..).zip(scales) {
            let resample = Axis::new(x.dim(axis)?, scale)?;
            y = match self.options.mode {
                UpsampleMode::Nearest if is_whole => y.repeat(scale as i32, axis)?,
                UpsampleMode::Nearest => y.take(&resample.nearest()?, axis)?,
                mode => {
                    let taps = match (mode, self.options.antialias) {
                        (UpsampleMode::Cubic, true) => resample.antialiased(Kernel::Cubic)?,
                        (_, true) => resample.antialiased(Kernel::Triangle)?,
                        (UpsampleMode::Cubic, false) => resample.cubic(self.options)?,
                        (_, false) => resample.linear(self.options)?,
                    };
                    weighted_sum(&y, axis, taps)?
                }
            };
        }
        Ok(y)
    }
}

/// Elements of an axis by index, and what each counts.
type Tap = (Array, Array);

/// Adds up what each tap takes along an axis.
fn weighted_sum(x: &Array, axis: i32, taps: Vec<Tap>) -> Result<Array> {
    // The weights' axis, and one of size one for each axis behind it.
    let mut shape = vec![-1];
    shape.resize(x.ndim().saturating_sub(axis as usize), 1);
    let mut sum: Option<Array> = None;
    for (indices, weights) in taps {
        let part = x.take(&indices, axis)?.multiply(weights.reshape(&shape)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    sum.ok_or_else(|| make::invalid("upsample", "no elements"))
}

#[derive(Clone, Copy)]
enum Kernel {
    Triangle,
    Cubic,
}

impl Kernel {
    /// How far the kernel reaches.
    fn radius(self) -> f64 {
        match self {
            Kernel::Triangle => 1.0,
            Kernel::Cubic => 2.0,
        }
    }

    fn weight(self, distance: &Array) -> Result<Array> {
        match self {
            Kernel::Triangle => ops::subtract(1, distance)?.maximum(0),
            Kernel::Cubic => {
                let far = ops::where_(&distance.less_equal(2)?, cubic_far(distance, -0.5), 0.0)?;
                ops::where_(&distance.less_equal(1)?, cubic_near(distance, -0.5), far)
            }
        }
    }
}

/// The cubic convolution kernel with parameter `a` for distances up to one (Keys, 1981).
fn cubic_near(x: &Array, a: f32) -> Result<Array> {
    ((((x * (a + 2.0))? - (a + 3.0))? * x)? * x)? + 1.0
}

/// The same kernel for distances from one to two.
fn cubic_far(x: &Array, a: f32) -> Result<Array> {
    ((((((x - 5.0)? * x)? + 8.0)? * x)? - 4.0)?) * a
}

/// One spatial axis on its way from `n` to `m` elements.
struct Axis {
    n: i32,
    m: i32,
    scale: f64,
}

impl Axis {
    fn new(n: i32, scale: f64) -> Result<Axis> {
        let m = (scale * f64::from(n)).floor();
        if !(1.0..=f64::from(i32::MAX)).contains(&m) {
            return Err(make::invalid("upsample", format!("axis of {n} with scale {scale}")));
        }
        Ok(Axis { n, m: m as i32, scale })
    }

    fn positions(&self) -> Result<Array> {
        ops::arange(0.0, self.m.into(), 1.0, Dtype::Float32)
    }

    /// Returns indices within the axis.
    fn indices(&self, positions: &Array) -> Result<Array> {
        let (low, high) = (Array::from(0.0f32), Array::from((self.n - 1) as f32));
        positions.clip(Some(&low), Some(&high))?.astype(Dtype::Uint32)
    }

    fn nearest(&self) -> Result<Array> {
        let (positions, step) = (self.positions()?, f64::from(self.n) / f64::from(self.m));
        let positions = if self.m > self.n {
            let centres = ops::multiply(ops::add(positions, 0.5)?, step)?;
            ops::subtract(centres, 0.5)?.round(0)?
        } else {
            ops::multiply(positions, step)?
        };
        self.indices(&positions)
    }

    /// Returns where each output element lies among the input's.
    fn sources(&self, align_corners: bool) -> Result<Array> {
        let (n, m) = (f64::from(self.n), f64::from(self.m));
        if align_corners {
            return self.positions()?.multiply((n - 1.0) / (m - 1.0).max(1.0));
        }
        let step = self.scale.recip();
        let start = ((m - 1.0) * step - n + 1.0) / 2.0;
        ops::subtract(self.positions()?.multiply(step)?, start)
    }

    fn linear(&self, options: UpsampleOptions) -> Result<Vec<Tap>> {
        let (low, high) = (Array::from(0.0f32), Array::from((self.n - 1) as f32));
        let sources = self.sources(options.align_corners)?.clip(Some(&low), Some(&high))?;
        let left = sources.floor()?;
        let weight = (&sources - &left)?;
        Ok(vec![
            (self.indices(&left)?, ops::subtract(1, &weight)?),
            (self.indices(&sources.ceil()?)?, weight),
        ])
    }

    fn cubic(&self, options: UpsampleOptions) -> Result<Vec<Tap>> {
        const A: f32 = -0.75;
        let sources = self.sources(options.align_corners)?;
        let first = sources.floor()?;
        let tap = |step: f32, weight: fn(&Array, f32) -> Result<Array>| {
            let element = (&first + step)?;
            Ok((self.indices(&element)?, weight(&(&sources - &element)?.abs()?, A)?))
        };
        [tap(-1.0, cubic_far), tap(0.0, cubic_near), tap(1.0, cubic_near), tap(2.0, cubic_far)]
            .into_iter()
            .collect()
    }

    /// Returns the taps of a kernel as wide as the distance between output elements, their
    /// weights adding up to one.
    fn antialiased(&self, kernel: Kernel) -> Result<Vec<Tap>> {
        const MAX_TAPS: f64 = 4096.0;
        let width = self.scale.recip().max(1.0);
        let reach = (kernel.radius() * width).ceil();
        if reach > MAX_TAPS {
            let text = format!("scale {} is too small to antialias", self.scale);
            return Err(make::invalid("upsample", text));
        }
        let sources = self.sources(false)?;
        let first = sources.floor()?;
        let mut taps = Vec::new();
        let mut total: Option<Array> = None;
        for step in -(reach as i32)..=reach as i32 {
            let element = (&first + step as f32)?;
            let distance = (&sources - &element)?.abs()?.divide(width)?;
            let is_inside = element.greater_equal(0)?.logical_and(element.less(self.n))?;
            let weight = ops::where_(&is_inside, kernel.weight(&distance)?, 0.0)?;
            total = Some(match total {
                Some(total) => (total + &weight)?,
                None => weight.clone(),
            });
            taps.push((self.indices(&element)?, weight));
        }
        let total = total.ok_or_else(|| make::invalid("upsample", "no elements"))?;
        let total = ops::where_(&total.greater(0)?, &total, 1.0)?;
        taps.into_iter().map(|(indices, weight)| Ok((indices, (weight / &total)?))).collect()
    }
}
