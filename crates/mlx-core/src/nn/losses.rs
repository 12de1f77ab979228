//! Losses, under the names and with the defaults of Python's `mlx.nn.losses`.
//!
//! Every loss gives one number for each element, or for each row along an axis, and a
//! [`Reduction`] makes one of them where that is asked for. What Python takes by keyword is an
//! argument, or a struct of options where there are several. Dtypes promote as in any op: below
//! float32 a sum is rounded, so cast logits first where that matters.
//!
//! ```
//! use mlx_core::nn::losses::{CrossEntropyOptions, Reduction, cross_entropy};
//! use mlx_core::Array;
//!
//! # fn main() -> mlx_core::Result<()> {
//! let logits = Array::from_slice(&[2.0f32, -1.0, -1.0, 2.0], &[2, 2])?;
//! let targets = Array::from_slice(&[0, 1], &[2])?;
//! let options = CrossEntropyOptions { reduction: Reduction::Mean, ..Default::default() };
//! let loss = cross_entropy(&logits, &targets, options)?.item::<f32>()?;
//! assert!((loss - 0.048_587).abs() < 1e-5);
//! # Ok(())
//! # }
//! ```

use crate::array::index::Bounds;
use crate::array::{Array, Axes};
use crate::error::{Error, ErrorKind, Result};
use crate::linalg::{NormOrd, norm};
use crate::ops::{logaddexp, maximum, subtract, where_};

/// How one number is made of many losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// It is not: all losses are returned.
    #[default]
    None,
    /// Their mean, NaN where there are none.
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    fn apply(self, loss: Result<Array>) -> Result<Array> {
        match self {
            Reduction::None => loss,
            Reduction::Mean => loss?.mean(.., false),
            Reduction::Sum => loss?.sum(.., false),
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Fails where `b` has another shape than `a`.
fn check_shapes(loss: &str, a: (&str, &Array), b: (&str, &Array)) -> Result<()> {
    let (shape, other) = (a.1.shape(), b.1.shape());
    if shape == other {
        return Ok(());
    }
    Err(invalid(format!("{loss}: {} {shape:?} and {} {other:?} differ", a.0, b.0)))
}

fn weighted(name: &str, loss: Array, weights: Option<&Array>) -> Result<Array> {
    let Some(weights) = weights else { return Ok(loss) };
    check_shapes(name, ("losses", &loss), ("weights", weights))?;
    loss * weights
}

/// What [`cross_entropy`] takes beside logits and targets.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyOptions<'a> {
    /// A factor for each loss.
    pub weights: Option<&'a Array>,
    /// The axis of the classes.
    pub axis: i32,
    /// The part of each target, at least 0 and below 1, that is spread evenly over all classes.
    pub label_smoothing: f64,
    /// How the losses are reduced.
    pub reduction: Reduction,
}

impl Default for CrossEntropyOptions<'_> {
    fn default() -> Self {
        CrossEntropyOptions {
            weights: None,
            axis: -1,
            label_smoothing: 0.0,
            reduction: Reduction::None,
        }
    }
}

/// Returns the cross entropy of the softmax of `logits` with `targets`: integers that number the
/// classes, negative ones from the end, or a probability for each class.
///
/// # Shape
/// `logits: A + [V] + B`, `targets: A + B` or, of probabilities, `A + [V] + B`,
/// `weights: A + B → A + B`
///
/// # Errors
/// When there is no such axis, the shapes do not fit, `logits` are empty, `label_smoothing` is out
/// of its range, targets without probabilities are no integers, or one that the host has at hand
/// numbers no class; one that is still to be computed means the nearest class.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::losses::{self, CrossEntropyOptions, Reduction};
///
/// # fn main() -> mlx_core::Result<()> {
/// let logits = Array::from_slice(&[2.0f32, 0.0, 0.0, 1.0], &[2, 2])?;
/// let targets = Array::from_slice(&[0, 1], &[2])?;
/// let options = CrossEntropyOptions { reduction: Reduction::Mean, ..Default::default() };
/// let loss = losses::cross_entropy(&logits, &targets, options)?;
/// assert!((loss.item::<f32>()? - 0.220095).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn cross_entropy(
    logits: &Array,
    targets: &Array,
    options: CrossEntropyOptions<'_>,
) -> Result<Array> {
    let CrossEntropyOptions { weights, axis, label_smoothing, reduction } = options;
    if !(0.0..1.0).contains(&label_smoothing) {
        return Err(invalid(format!("cross_entropy: label_smoothing of {label_smoothing}")));
    }
    logits.dim(axis)?;
    let are_probabilities = targets.ndim() == logits.ndim();
    let fits = if are_probabilities {
        targets.shape() == logits.shape()
    } else {
        targets.shape() == without_axis(logits, axis)
    };
    if !fits {
        return Err(invalid(format!(
            "cross_entropy: targets {:?} for logits {:?} along axis {axis}",
            targets.shape(),
            logits.shape(),
        )));
    }
    let logits = &(logits - logits.max(axis, true)?.stop_gradient())?;
    let score = if are_probabilities {
        (logits * targets)?.sum(axis, false)?
    } else {
        at_targets("cross_entropy", logits, targets, axis)?
    };
    let loss = if label_smoothing > 0.0 {
        let spread = logits.mean(axis, false)?.negative()?.multiply(label_smoothing);
        ((logits.logsumexp(axis, false)? - score.multiply(1.0 - label_smoothing))? + spread)?
    } else {
        (logits.logsumexp(axis, false)? - score)?
    };
    reduction.apply(weighted("cross_entropy", loss, weights))
}

/// The shape without an axis that is there.
fn without_axis(x: &Array, axis: i32) -> Vec<i32> {
    let n = x.ndim() as i32;
    let position = if axis < 0 { axis + n } else { axis };
    let others = x.shape().iter().zip(0..n).filter(|&(_, i)| i != position);
    others.map(|(&size, _)| size).collect()
}

/// The element of `x` that each target numbers along an axis.
fn at_targets(loss: &str, x: &Array, targets: &Array, axis: i32) -> Result<Array> {
    // Checked before they get an axis more: then the host has their values no longer.
    let targets = Bounds::axis(loss, x.dim(axis)?).apply(targets)?;
    x.take_along_axis(&targets.expand_dims(axis)?, axis)?.squeeze(axis)
}

/// What [`binary_cross_entropy`] takes beside inputs and targets.
#[derive(Clone, Copy, Debug)]
pub struct BinaryCrossEntropyOptions<'a> {
    /// A factor for each loss.
    pub weights: Option<&'a Array>,
    /// Whether the inputs are logits, which is more precise, or probabilities, whose logarithms
    /// are then kept from falling below -100.
    pub with_logits: bool,
    /// How the losses are reduced; the mean by default.
    pub reduction: Reduction,
}

impl Default for BinaryCrossEntropyOptions<'_> {
    fn default() -> Self {
        BinaryCrossEntropyOptions { weights: None, with_logits: true, reduction: Reduction::Mean }
    }
}

/// Returns the cross entropy of inputs with targets in `0..=1`, each for itself.
///
/// # Shape
/// `inputs: S`, `targets: S`, `weights: S → S`
///
/// # Errors
/// When the shapes differ.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::losses;
///
/// # fn main() -> mlx_core::Result<()> {
/// let logits = Array::from_slice(&[0.0f32, 0.0], &[2])?;
/// let targets = Array::from_slice(&[0.0f32, 1.0], &[2])?;
/// let loss = losses::binary_cross_entropy(&logits, &targets, Default::default())?;
/// assert!((loss.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn binary_cross_entropy(
    inputs: &Array,
    targets: &Array,
    options: BinaryCrossEntropyOptions<'_>,
) -> Result<Array> {
    let BinaryCrossEntropyOptions { weights, with_logits, reduction } = options;
    check_shapes("binary_cross_entropy", ("inputs", inputs), ("targets", targets))?;
    let loss = if with_logits {
        (logaddexp(0.0, inputs)? - (inputs * targets))?
    } else {
        let log = inputs.log()?.maximum(-100)?;
        let log_inverse = subtract(1, inputs)?.log()?.maximum(-100)?;
        ((targets * log)? + (subtract(1, targets)? * log_inverse))?.negative()?
    };
    reduction.apply(weighted("binary_cross_entropy", loss, weights))
}

/// Returns `|predictions - targets|`; Python's default reduction is the mean.
///
/// # Shape
/// `predictions: S`, `targets: S → S`
///
/// # Errors
/// When the shapes differ.
pub fn l1_loss(predictions: &Array, targets: &Array, reduction: Reduction) -> Result<Array> {
    check_shapes("l1_loss", ("predictions", predictions), ("targets", targets))?;
    reduction.apply((predictions - targets)?.abs())
}

/// Returns `(predictions - targets)²`; Python's default reduction is the mean.
///
/// # Shape
/// `predictions: S`, `targets: S → S`
///
/// # Errors
/// When the shapes differ.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::losses::{self, Reduction};
///
/// # fn main() -> mlx_core::Result<()> {
/// let predictions = Array::from_slice(&[1.0f32, 2.0], &[2])?;
/// let targets = Array::from_slice(&[1.0f32, 4.0], &[2])?;
/// assert_eq!(losses::mse_loss(&predictions, &targets, Reduction::Mean)?.item::<f32>()?, 2.0);
/// # Ok(())
/// # }
/// ```
pub fn mse_loss(predictions: &Array, targets: &Array, reduction: Reduction) -> Result<Array> {
    check_shapes("mse_loss", ("predictions", predictions), ("targets", targets))?;
    reduction.apply((predictions - targets)?.square())
}

/// Returns `-inputs` at the classes that `targets` number along an axis, the last by default in
/// Python; `inputs` are logarithms of probabilities.
///
/// # Shape
/// `inputs: A + [V] + B`, `targets: A + B → A + B`
///
/// # Errors
/// When there is no such axis, the shapes do not fit, targets are no integers, or one that the
/// host has at hand numbers no class, as in [`cross_entropy`].
pub fn nll_loss(inputs: &Array, targets: &Array, axis: i32, reduction: Reduction) -> Result<Array> {
    reduction.apply(at_targets("nll_loss", inputs, targets, axis)?.negative())
}

/// What [`gaussian_nll_loss`] takes beside its arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianNllOptions {
    /// Whether the constant `log(2π) / 2` is part of the loss.
    pub full: bool,
    /// The least variance.
    pub eps: f64,
    /// How the losses are reduced; the mean by default.
    pub reduction: Reduction,
}

impl Default for GaussianNllOptions {
    fn default() -> Self {
        GaussianNllOptions { full: false, eps: 1e-6, reduction: Reduction::Mean }
    }
}

/// Returns `(log(vars) + (targets - inputs)² / vars) / 2`: the negative logarithm of the density
/// at `targets` of normal distributions with means `inputs` and variances `vars`.
///
/// # Shape
/// `inputs: S`, `targets: S`, `vars: S → S`
///
/// # Errors
/// When the shapes differ.
pub fn gaussian_nll_loss(
    inputs: &Array,
    targets: &Array,
    vars: &Array,
    options: GaussianNllOptions,
) -> Result<Array> {
    check_shapes("gaussian_nll_loss", ("inputs", inputs), ("targets", targets))?;
    check_shapes("gaussian_nll_loss", ("inputs", inputs), ("vars", vars))?;
    let vars = &vars.maximum(options.eps)?;
    let loss = ((vars.log()? + ((targets - inputs)?.square()? / vars))? * 0.5)?;
    let loss = if options.full { loss.add(0.5 * std::f64::consts::TAU.ln()) } else { Ok(loss) };
    options.reduction.apply(loss)
}

/// Returns the Kullback-Leibler divergence along axes, the last by default in Python; both
/// arrays are logarithms of probabilities.
///
/// # Shape
/// `inputs` and `targets` broadcast to `A + [V] + B → A + B`
///
/// # Errors
/// When the shapes do not broadcast or there is no such axis.
pub fn kl_div_loss<'a>(
    inputs: &Array,
    targets: &Array,
    axes: impl Into<Axes<'a>>,
    reduction: Reduction,
) -> Result<Array> {
    reduction.apply((targets.exp()? * (targets - inputs))?.sum(axes, false))
}

/// Returns `(x - y)² / (2 beta)` where the distance is below `beta`, else `|x - y| - beta / 2`;
/// Python's defaults are 1 and the mean.
///
/// # Shape
/// `predictions: S`, `targets: S → S`
///
/// # Errors
/// When the shapes differ.
pub fn smooth_l1_loss(
    predictions: &Array,
    targets: &Array,
    beta: f64,
    reduction: Reduction,
) -> Result<Array> {
    check_shapes("smooth_l1_loss", ("predictions", predictions), ("targets", targets))?;
    let distance = (predictions - targets)?.abs()?;
    let near = (distance.square()? * 0.5)?.divide(beta)?;
    let far = distance.subtract(0.5 * beta)?;
    reduction.apply(where_(&distance.less(beta)?, near, far))
}

/// What [`triplet_loss`] takes beside its arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TripletOptions {
    /// The axis of a sample's features.
    pub axis: i32,
    /// Which norm measures distances, at least 1.
    pub p: i32,
    /// By how much the negative sample has to be farther off.
    pub margin: f64,
    /// What is added under the root.
    pub eps: f64,
    /// How the losses are reduced.
    pub reduction: Reduction,
}

impl Default for TripletOptions {
    fn default() -> Self {
        TripletOptions { axis: -1, p: 2, margin: 1.0, eps: 1e-6, reduction: Reduction::None }
    }
}

/// Returns how much farther off, less a margin, the positive sample of each anchor is than the
/// negative one, or 0 (arXiv 1503.03832).
///
/// # Shape
/// The arrays broadcast to `A + [D] + B → A + B`
///
/// # Errors
/// When the shapes do not broadcast, there is no such axis, or `p` is not positive.
pub fn triplet_loss(
    anchors: &Array,
    positives: &Array,
    negatives: &Array,
    options: TripletOptions,
) -> Result<Array> {
    let TripletOptions { axis, p, margin, eps, reduction } = options;
    if p < 1 {
        return Err(invalid(format!("triplet_loss: p of {p}")));
    }
    let distance = |samples: &Array| {
        let sum = (anchors - samples)?.abs()?.power(p)?.sum(axis, false)?;
        sum.add(eps)?.power(1.0 / f64::from(p))
    };
    let loss = (distance(positives)? - distance(negatives)?)?.add(margin)?;
    reduction.apply(loss.maximum(0))
}

/// Returns `max(1 - inputs * targets, 0)`, for targets of -1 and 1; Python's default is no
/// reduction.
///
/// # Shape
/// `inputs` and `targets` broadcast to the result's.
///
/// # Errors
/// When the shapes do not broadcast.
pub fn hinge_loss(inputs: &Array, targets: &Array, reduction: Reduction) -> Result<Array> {
    reduction.apply(subtract(1, inputs * targets)?.maximum(0))
}

/// Returns `(x - y)² / 2` up to a distance of `delta`, and a line from there on; Python's
/// defaults are 1 and no reduction.
///
/// # Shape
/// `inputs` and `targets` broadcast to the result's.
///
/// # Errors
/// When the shapes do not broadcast.
pub fn huber_loss(
    inputs: &Array,
    targets: &Array,
    delta: f64,
    reduction: Reduction,
) -> Result<Array> {
    let distance = (inputs - targets)?.abs()?;
    let near = &distance.minimum(delta)?;
    let far = (distance - near)?.multiply(delta);
    reduction.apply((near.square()? * 0.5)? + far)
}

/// Returns `log(cosh(inputs - targets))`, without overflow; Python's default is no reduction.
///
/// # Shape
/// `inputs` and `targets` broadcast to the result's.
///
/// # Errors
/// When the shapes do not broadcast.
pub fn log_cosh_loss(inputs: &Array, targets: &Array, reduction: Reduction) -> Result<Array> {
    let distance = &(inputs - targets)?;
    reduction.apply(logaddexp(distance, distance.negative())?.subtract(std::f64::consts::LN_2))
}

/// What [`cosine_similarity_loss`] takes beside its arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineSimilarityOptions {
    /// The axis of the vectors; 1 by default.
    pub axis: i32,
    /// The least product of the norms.
    pub eps: f64,
    /// How the losses are reduced.
    pub reduction: Reduction,
}

impl Default for CosineSimilarityOptions {
    fn default() -> Self {
        CosineSimilarityOptions { axis: 1, eps: 1e-8, reduction: Reduction::None }
    }
}

/// Returns the cosine of the angle between vectors. As in Python, it is greater where they are
/// more alike.
///
/// # Shape
/// `x1` and `x2` broadcast to `A + [D] + B → A + B`
///
/// # Errors
/// When the shapes do not broadcast or there is no such axis.
pub fn cosine_similarity_loss(
    x1: &Array,
    x2: &Array,
    options: CosineSimilarityOptions,
) -> Result<Array> {
    let CosineSimilarityOptions { axis, eps, reduction } = options;
    let length = |x: &Array| norm(x, NormOrd::Euclidean, axis, false);
    let lengths = (length(x1)? * length(x2)?)?.maximum(eps);
    reduction.apply((x1 * x2)?.sum(axis, false)? / lengths)
}

/// Returns `max(0, margin - targets * (inputs1 - inputs2))`, for targets of 1 where the first
/// input should be the greater and -1 where the second; Python's defaults are 0 and no reduction.
///
/// # Shape
/// `inputs1: S`, `inputs2: S`, `targets: S → S`
///
/// # Errors
/// When the shapes differ.
pub fn margin_ranking_loss(
    inputs1: &Array,
    inputs2: &Array,
    targets: &Array,
    margin: f64,
    reduction: Reduction,
) -> Result<Array> {
    check_shapes("margin_ranking_loss", ("inputs1", inputs1), ("inputs2", inputs2))?;
    check_shapes("margin_ranking_loss", ("inputs1", inputs1), ("targets", targets))?;
    let difference = (inputs1 - inputs2)?;
    reduction.apply(maximum(0, (targets.negative()? * difference)?.add(margin)))
}
