//! Norms within each example: over groups of channels, or over one channel.

use super::{affine_parameters, apply_affine, check_features};
use crate::array::Array;
use crate::error::Result;
use crate::fast;
use crate::nn::{Param, make};

/// Options of [`GroupNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormOptions {
    /// Added to the variance.
    pub eps: f32,
    /// Learns a factor and a bias for each channel.
    pub affine: bool,
    /// Puts neighbouring channels into a group, as PyTorch does; else channels that lie
    /// `num_groups` apart.
    pub pytorch_compatible: bool,
}

impl Default for GroupNormOptions {
    fn default() -> Self {
        GroupNormOptions { eps: 1e-5, affine: true, pytorch_compatible: false }
    }
}

/// Group norm (arXiv 1803.08494).
///
/// ```
/// use mlx_core::nn::GroupNorm;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = GroupNorm::new(2, 4, Default::default())?;
/// assert_eq!(layer.forward(&ops::ones(&[1, 3, 4], Dtype::Float32)?)?.to_vec::<f32>()?, [0.0; 12]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// `[C]`
    pub weight: Option<Param>,
    /// `[C]`
    pub bias: Option<Param>,
    /// Groups of channels, each of which has its mean and variance.
    pub num_groups: i32,
    /// Channels.
    pub dims: i32,
    /// Added to the variance.
    pub eps: f32,
    /// Puts neighbouring channels into a group.
    pub pytorch_compatible: bool,
}

/// Instance norm: each channel of each example has its mean and variance (arXiv 1607.08022).
///
/// ```
/// use mlx_core::nn::InstanceNorm;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = InstanceNorm::new(4, 1e-5, false)?;
/// assert_eq!(layer.forward(&ops::ones(&[1, 3, 4], Dtype::Float32)?)?.to_vec::<f32>()?, [0.0; 12]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct InstanceNorm {
    /// `[C]`
    pub weight: Option<Param>,
    /// `[C]`
    pub bias: Option<Param>,
    /// Channels.
    pub dims: i32,
    /// Added to the variance.
    pub eps: f32,
}

crate::module! {
    GroupNorm { weight, bias }
    InstanceNorm { weight, bias }
}

impl GroupNorm {
    /// Makes a layer with weights of one and biases of zero, in float32.
    ///
    /// # Errors
    /// When a number is not positive or `dims` does not divide by `num_groups`.
    pub fn new(num_groups: i32, dims: i32, options: GroupNormOptions) -> Result<GroupNorm> {
        let GroupNormOptions { eps, affine, pytorch_compatible } = options;
        make::check_positive("group_norm", &[("num_groups", num_groups), ("dims", dims)])?;
        make::check_divides("group_norm", ("dims", dims), ("num_groups", num_groups))?;
        make::check_eps("group_norm", eps)?;
        let (weight, bias) = affine_parameters(affine, dims)?;
        Ok(GroupNorm { weight, bias, num_groups, dims, eps, pytorch_compatible })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: [N, …, C] → [N, …, C]`
    ///
    /// # Errors
    /// When the channels do not fit or `x` is empty.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        check_features("group_norm", x, self.dims)?;
        make::check_positive("group_norm", &[("num_groups", self.num_groups)])?;
        make::check_divides("group_norm", ("dims", self.dims), ("num_groups", self.num_groups))?;
        let n = x.dim(0)?;
        let normalized = if self.pytorch_compatible {
            // [N, L, groups, C / groups] → [N, groups, L * C / groups]
            let split = x.reshape([n, -1, self.num_groups, self.dims / self.num_groups])?;
            let grouped = split.transpose([0, 2, 1, 3])?;
            let shape = grouped.shape().to_vec();
            let normalized = fast::layer_norm(
                &grouped.reshape([n, self.num_groups, -1])?,
                None,
                None,
                self.eps,
            )?;
            normalized.reshape(shape)?.transpose([0, 2, 1, 3])?
        } else {
            let x = x.reshape([n, -1, self.num_groups])?;
            let centred = (&x - x.mean(1, true))?;
            centred.multiply((x.var(1, true, 0)? + self.eps)?.rsqrt())?
        };
        let normalized = normalized.reshape(x.shape())?;
        apply_affine(normalized, self.weight.as_ref(), self.bias.as_ref())
    }
}

impl InstanceNorm {
    /// Makes a layer; Python's defaults are `eps` of 1e-5 and not `affine`.
    ///
    /// # Errors
    /// When `dims` or `eps` is not positive.
    pub fn new(dims: i32, eps: f32, affine: bool) -> Result<InstanceNorm> {
        make::check_positive("instance_norm", &[("dims", dims)])?;
        make::check_eps("instance_norm", eps)?;
        let (weight, bias) = affine_parameters(affine, dims)?;
        Ok(InstanceNorm { weight, bias, dims, eps })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: [N, …, C] → [N, …, C]`
    ///
    /// # Errors
    /// When there are fewer than three axes, the channels do not fit, or `x` is empty.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if x.ndim() < 3 {
            let text = format!("expected 3 or more axes, got {:?}", x.shape());
            return Err(make::invalid("instance_norm", text));
        }
        check_features("instance_norm", x, self.dims)?;
        let channels_first = x.moveaxis(-1, 1)?;
        let flat = channels_first.reshape([x.dim(0)?, self.dims, -1])?;
        let normalized = fast::layer_norm(&flat, None, None, self.eps)?;
        let normalized = normalized.reshape(channels_first.shape())?.moveaxis(1, -1)?;
        apply_affine(normalized, self.weight.as_ref(), self.bias.as_ref())
    }
}
