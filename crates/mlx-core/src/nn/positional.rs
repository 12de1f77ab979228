//! Encodings of positions besides [`Rope`](super::Rope): sines, and slopes on the scores.

use super::make;
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ops;

/// Options of [`SinusoidalPositionalEncoding`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SinusoidalOptions {
    /// Least frequency.
    pub min_freq: f64,
    /// Greatest frequency.
    pub max_freq: f64,
    /// Factor on the result; `None` is `√(2 / dims)`.
    pub scale: Option<f64>,
    /// Puts cosines before sines.
    pub cos_first: bool,
    /// Multiplies the frequencies by `2π`.
    pub full_turns: bool,
}

impl Default for SinusoidalOptions {
    fn default() -> Self {
        let (min_freq, max_freq) = (1e-4, 1.0);
        SinusoidalOptions { min_freq, max_freq, scale: None, cos_first: false, full_turns: false }
    }
}

/// Sines and cosines of a position at several frequencies (arXiv 1706.03762).
///
/// ```
/// use mlx_core::nn::SinusoidalPositionalEncoding;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = SinusoidalPositionalEncoding::new(8, Default::default())?;
/// assert_eq!(layer.forward(&ops::arange(0.0, 5.0, 1.0, Dtype::Float32)?)?.shape(), [5, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SinusoidalPositionalEncoding {
    /// `[E / 2]`: the frequencies, greatest first; not part of a checkpoint.
    pub sigmas: Array,
    /// Factor on the result.
    pub scale: f64,
    /// Puts cosines before sines.
    pub cos_first: bool,
}

crate::module! { SinusoidalPositionalEncoding {} }

impl SinusoidalPositionalEncoding {
    /// Makes a layer that gives `dims` numbers for each position.
    ///
    /// # Errors
    /// When `dims` is not positive and even, or a frequency is not positive.
    pub fn new(dims: i32, options: SinusoidalOptions) -> Result<SinusoidalPositionalEncoding> {
        const LAYER: &str = "sinusoidal_positional_encoding";
        let SinusoidalOptions { min_freq, max_freq, scale, cos_first, full_turns } = options;
        if dims <= 0 || dims % 2 != 0 {
            return Err(make::invalid(LAYER, format!("dims {dims} is not positive and even")));
        }
        let is_frequency = |freq: f64| freq > 0.0 && freq.is_finite();
        if !is_frequency(min_freq) || !is_frequency(max_freq) {
            return Err(make::invalid(LAYER, format!("frequencies {min_freq} to {max_freq}")));
        }
        // A single frequency is the greatest.
        let steps = (dims / 2 - 1).max(1);
        let position = ops::arange(0.0, f64::from(dims / 2), 1.0, Dtype::Int32)?;
        let from_least = ops::subtract(1, position.divide(steps)?)?;
        let (low, high) = (min_freq.ln(), max_freq.ln());
        let exponent = ops::add(ops::multiply(from_least, high - low)?, low)?;
        let mut sigmas = exponent.exp()?;
        if full_turns {
            sigmas = sigmas.multiply(std::f64::consts::TAU)?;
        }
        let scale = scale.unwrap_or((2.0 / f64::from(dims)).sqrt());
        Ok(SinusoidalPositionalEncoding { sigmas, scale, cos_first })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […] → […, E]`
    ///
    /// # Errors
    /// When memory runs out.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let angle = x.expand_dims(-1)?.multiply(&self.sigmas)?;
        let (sin, cos) = (angle.sin()?, angle.cos()?);
        let parts = if self.cos_first { [&cos, &sin] } else { [&sin, &cos] };
        let y = ops::concatenate(parts, -1)?;
        if self.scale == 1.0 { Ok(y) } else { y.multiply(self.scale) }
    }
}

/// The shape of an [`Alibi`] matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlibiShape {
    /// Position after the last query.
    pub q_sequence_length: i32,
    /// Keys.
    pub k_sequence_length: i32,
    /// Heads, each with its slope.
    pub num_heads: i32,
    /// Position of the first query.
    pub offset: i32,
}

/// Takes from each score what grows with the distance of query and key (arXiv 2108.12409).
///
/// ```
/// use mlx_core::nn::Alibi;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let scores = ops::zeros(&[1, 4, 3, 3], Dtype::Float32)?; // [B, H, L, S]
/// assert_eq!(Alibi.forward(&scores, 0, None)?.shape(), [1, 4, 3, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Alibi;

crate::module! { Alibi {} }

impl Alibi {
    /// Returns what is added to the scores.
    ///
    /// # Shape
    /// `[1, H, L, S]`
    ///
    /// # Errors
    /// When a length is negative, there are no heads, or the dtype is not floating.
    pub fn create_alibi_matrix(shape: AlibiShape, dtype: Dtype) -> Result<Array> {
        let AlibiShape { q_sequence_length, k_sequence_length, num_heads, offset } = shape;
        make::check_none_negative(
            "alibi",
            "lengths",
            &[q_sequence_length, k_sequence_length, offset],
        )?;
        let range = |from: i32, to: i32| ops::arange(from.into(), to.into(), 1.0, Dtype::Int32);
        let queries = range(offset, q_sequence_length)?.expand_dims(1)?;
        let keys = range(0, k_sequence_length)?.expand_dims(0)?;
        let distance = (queries - keys)?.abs()?.negative()?.expand_dims(&[0, 1])?;
        distance.multiply(Alibi::create_alibi_slope(num_heads, dtype)?)?.astype(dtype)
    }

    /// Returns the slope of each head: powers of two, and where the heads are no power of two,
    /// every other one of the next such number beside them.
    ///
    /// # Shape
    /// `[H, 1, 1]`
    ///
    /// # Errors
    /// When there are no heads or the dtype is not floating.
    pub fn create_alibi_slope(num_heads: i32, dtype: Dtype) -> Result<Array> {
        const MAX_HEADS: i32 = 1 << 20;
        if !(1..=MAX_HEADS).contains(&num_heads) || !dtype.is_floating() {
            return Err(make::invalid("alibi", format!("{num_heads} heads of {dtype}")));
        }
        let slopes = |n: u32| {
            let start = (-8.0 / f64::from(n)).exp2();
            (1..=n as i32).map(move |i| start.powi(i))
        };
        let n = num_heads as u32;
        let power = 1 << n.ilog2();
        let more = slopes(2 * power).step_by(2).take((n - power) as usize);
        let slopes: Vec<f32> = slopes(power).chain(more).map(|slope| slope as f32).collect();
        Array::from_slice(&slopes, &[num_heads, 1, 1])?.astype(dtype)
    }

    /// Adds the matrix, and the mask if there is one, to scores whose first query is at position
    /// `offset`.
    ///
    /// # Shape
    /// `attention_scores: [B, H, L, S] → [B, H, L, S]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(
        &self,
        attention_scores: &Array,
        offset: i32,
        mask: Option<&Array>,
    ) -> Result<Array> {
        let [_, num_heads, l, k_sequence_length] = attention_scores.dims()?;
        let q_sequence_length = l.saturating_add(offset);
        let shape = AlibiShape { q_sequence_length, k_sequence_length, num_heads, offset };
        let mut matrix = Alibi::create_alibi_matrix(shape, attention_scores.dtype())?;
        if let Some(mask) = mask {
            matrix = (matrix + mask)?;
        }
        attention_scores + matrix
    }
}
