//! Batch norm, with running statistics.

use super::{affine_parameters, apply_affine, check_features};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::nn::{Buffer, Param, Training, make};
use crate::ops;

/// Options of [`BatchNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f32,
    /// Part that a batch has in the running statistics.
    pub momentum: f32,
    /// Learns a factor and a bias for each feature.
    pub affine: bool,
    /// Keeps running statistics, and uses them outside of training.
    pub track_running_stats: bool,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        BatchNormOptions { eps: 1e-5, momentum: 0.1, affine: true, track_running_stats: true }
    }
}

/// Batch norm: each feature has the mean and variance of the batch, or outside of training those
/// of the batches before (arXiv 1502.03167).
///
/// ```
/// use mlx_core::nn::{BatchNorm, BatchNormOptions, Module};
/// use mlx_core::Array;
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut norm = BatchNorm::new(1, BatchNormOptions { momentum: 1.0, ..Default::default() })?;
/// norm.forward(&Array::from_slice(&[1.0f32, 3.0], &[2, 1])?)?;
/// assert_eq!(norm.get("running_mean").unwrap().to_vec::<f32>()?, [2.0]);
/// norm.train(false);
/// assert_eq!(norm.forward(&Array::from_slice(&[2.0f32], &[1, 1])?)?.to_vec::<f32>()?, [0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// `[C]`
    pub weight: Option<Param>,
    /// `[C]`
    pub bias: Option<Param>,
    /// `[C]`
    pub running_mean: Option<Buffer>,
    /// `[C]`, of the unbiased variance
    pub running_var: Option<Buffer>,
    /// Features.
    pub num_features: i32,
    /// Added to the variance.
    pub eps: f32,
    /// Part that a batch has in the running statistics.
    pub momentum: f32,
    /// Whether statistics are those of the batch and are remembered.
    pub training: Training,
}

crate::module! { BatchNorm { weight, bias, running_mean, running_var, training } }

impl BatchNorm {
    /// Makes a layer with weights and variances of one and biases and means of zero, in float32.
    ///
    /// # Errors
    /// When `num_features` or `eps` is not positive.
    pub fn new(num_features: i32, options: BatchNormOptions) -> Result<BatchNorm> {
        let BatchNormOptions { eps, momentum, affine, track_running_stats } = options;
        make::check_positive("batch_norm", &[("num_features", num_features)])?;
        make::check_eps("batch_norm", eps)?;
        let (weight, bias) = affine_parameters(affine, num_features)?;
        let buffer = |value: f32| -> Result<Option<Buffer>> {
            if !track_running_stats {
                return Ok(None);
            }
            Ok(Some(ops::full(&[num_features], value, Dtype::Float32)?.into()))
        };
        Ok(BatchNorm {
            weight,
            bias,
            running_mean: buffer(0.0)?,
            running_var: buffer(1.0)?,
            num_features,
            eps,
            momentum,
            training: Training::default(),
        })
    }

    /// Applies the layer; in training the running statistics take the batch in.
    ///
    /// # Shape
    /// `x: [N, C]`, `[N, L, C]` or `[N, H, W, C]`
    ///
    /// # Errors
    /// When the shape is none of these, or in training a feature has no two values.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if !(2..=4).contains(&x.ndim()) {
            let text = format!("expected 2 to 4 axes, got {:?}", x.shape());
            return Err(make::invalid("batch_norm", text));
        }
        check_features("batch_norm", x, self.num_features)?;
        let (mean, var) = self.statistics(x)?;
        let normalized = (x - mean)?.multiply((var + self.eps)?.rsqrt())?;
        apply_affine(normalized, self.weight.as_ref(), self.bias.as_ref())
    }

    /// Returns the mean and variance to normalize with, and remembers the batch's in training.
    fn statistics(&self, x: &Array) -> Result<(Array, Array)> {
        let running = self.running_mean.as_ref().zip(self.running_var.as_ref());
        if let (Some((mean, var)), false) = (running, self.training.0) {
            return Ok((mean.get(), var.get()));
        }
        let mut shape = x.shape().to_vec();
        shape.pop();
        let is_too_small = shape.contains(&0) || shape.iter().all(|&size| size == 1);
        if self.training.0 && is_too_small {
            let text = format!("too few values per feature in shape {:?}", x.shape());
            return Err(make::invalid("batch_norm", text));
        }
        let axes: Vec<i32> = (0..shape.len() as i32).collect();
        let axes = axes.as_slice();
        let (mean, var) = (x.mean(axes, false)?, x.var(axes, false, 0)?);
        if let Some((running_mean, running_var)) = running {
            let momentum = f64::from(self.momentum);
            let blend = |old: Array, new: &Array| {
                ops::multiply(1.0 - momentum, old)? + ops::multiply(momentum, new)
            };
            let (new_mean, new_var) = (
                blend(running_mean.get(), &mean)?,
                blend(running_var.get(), &x.var(axes, false, 1)?)?,
            );
            running_mean.set(new_mean);
            running_var.set(new_var);
        }
        Ok((mean, var))
    }
}
