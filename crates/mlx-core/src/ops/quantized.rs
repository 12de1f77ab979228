//! Packed weights.

use super::matmul::matrix_indices;
use crate::array::Array;
use crate::array::index::Bounds;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{array_op, vec_op};
use crate::quantization::Quantization;

/// A weight in packed form.
#[derive(Clone, Debug)]
pub struct Packed {
    /// `[…, D, E * bits / 32]`, `uint32`.
    pub weight: Array,
    /// `[…, D, E / group_size]`: the weight's dtype for affine, else `uint8`.
    pub scales: Array,
    /// As `scales`, for affine only.
    pub biases: Option<Array>,
    /// The format.
    pub quantization: Quantization,
}

/// Packs a weight along its last axis.
///
/// # Errors
/// When the last axis does not divide by the group size, or bits and group size do not fit the mode.
pub fn quantize(w: &Array, quantization: Quantization) -> Result<Packed> {
    quantization.check()?;
    let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
    let mode = quantization.mode.c_name();
    let global_scale: Option<&Array> = None;
    let mut parts = vec_op!(mlx_quantize, w, group_size, bits, mode, global_scale)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(weight), Some(scales)) => {
            Ok(Packed { weight, scales, biases: parts.next(), quantization })
        }
        _ => Err(super::missing_output("quantize")),
    }
}

/// Converts to 8-bit floats (E4M3), as `uint8`; what is too large becomes the greatest number.
///
/// # Errors
/// When the dtype is not floating.
pub fn to_fp8(x: &Array) -> Result<Array> {
    array_op!(mlx_to_fp8, x)
}

/// Converts from 8-bit floats (E4M3).
///
/// # Errors
/// When `x` is not `uint8` or `dtype` is not floating.
pub fn from_fp8(x: &Array, dtype: Dtype) -> Result<Array> {
    array_op!(mlx_from_fp8, x, dtype)
}

impl Packed {
    /// Unpacks the weight; without `dtype` affine gives the scales' dtype, else `bfloat16`.
    ///
    /// # Errors
    /// When the shapes do not fit the format.
    pub fn dequantize(&self, dtype: impl Into<Option<Dtype>>) -> Result<Array> {
        self.quantization.check()?;
        let Packed { weight, scales, biases, quantization } = self;
        let biases = biases.as_ref();
        let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
        let mode = quantization.mode.c_name();
        let global_scale: Option<&Array> = None;
        let dtype: Option<Dtype> = dtype.into();
        array_op!(
            mlx_dequantize,
            weight,
            scales,
            biases,
            group_size,
            bits,
            mode,
            global_scale,
            dtype
        )
    }

    /// Fails where MLX would compare sizes that the shapes of weight and scales do not have.
    fn check_matrix(&self, op: &str) -> Result<()> {
        let (weight, scales) = (self.weight.shape(), self.scales.shape());
        if weight.len() >= 2 && scales.len() == weight.len() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{op}: packed weight of shape {weight:?} with scales of shape {scales:?}"),
        ))
    }

    /// Returns `x × wᵀ` (`transpose`) or `x × w` without unpacking the weight.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`; without `transpose` `[…, D] → […, E]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matmul(&self, x: &Array, transpose: bool) -> Result<Array> {
        self.quantization.check()?;
        self.check_matrix("quantized_matmul")?;
        if x.size() == 0 || self.weight.size() == 0 {
            // MLX's kernel divides by the sizes.
            let w = self.dequantize(x.dtype())?;
            return x.matmul(&if transpose { w.swapaxes(-1, -2)? } else { w });
        }
        let Packed { weight, scales, biases, quantization } = self;
        let biases = biases.as_ref();
        let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
        let mode = quantization.mode.c_name();
        array_op!(
            mlx_quantized_matmul,
            x,
            weight,
            scales,
            biases,
            transpose,
            group_size,
            bits,
            mode
        )
    }

    /// Returns [`Packed::matmul`] with one of the stacked weights, or of the inputs, per index.
    ///
    /// # Errors
    /// When the shapes do not fit, the indices are not integers, or one that the host has at hand is
    /// out of range.
    pub fn gather_matmul(
        &self,
        x: &Array,
        lhs_indices: Option<&Array>,
        rhs_indices: Option<&Array>,
        options: GatherMatmul,
    ) -> Result<Array> {
        self.quantization.check()?;
        self.check_matrix("gather_matmul")?;
        if x.size() == 0 || self.weight.size() == 0 {
            // MLX's kernel divides by the sizes.
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("gather_matmul: empty input {x:?} or weight {:?}", self.weight),
            ));
        }
        let lhs_indices = matrix_indices("gather_matmul", x, lhs_indices)?;
        let rhs_indices = matrix_indices("gather_matmul", &self.weight, rhs_indices)?;
        let (lhs_indices, rhs_indices) = (lhs_indices.as_ref(), rhs_indices.as_ref());
        let Packed { weight, scales, biases, quantization } = self;
        let biases = biases.as_ref();
        let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
        let mode = quantization.mode.c_name();
        let GatherMatmul { transpose, sorted_indices } = options;
        array_op!(
            mlx_gather_qmm,
            x,
            weight,
            scales,
            biases,
            lhs_indices,
            rhs_indices,
            transpose,
            group_size,
            bits,
            mode,
            sorted_indices
        )
    }

    /// Takes rows of the weight and unpacks only those.
    ///
    /// # Shape
    /// `indices: I → I + [E]`
    ///
    /// # Errors
    /// When the indices are not integers, or one that the host has at hand is out of range.
    pub fn take_rows(&self, indices: &Array) -> Result<Array> {
        let n_rows = |array: &Array| array.dim(0);
        let parts = [Some(&self.weight), Some(&self.scales), self.biases.as_ref()];
        let sizes = parts.into_iter().flatten().map(n_rows).collect::<Result<Vec<_>>>()?;
        let least = sizes.iter().copied().min().unwrap_or(0);
        let indices = &Bounds::axis("take_rows", least).apply(indices)?;
        let take = |array: &Array| array_op!(mlx_take_axis, array, indices, 0);
        let rows = Packed {
            weight: take(&self.weight)?,
            scales: take(&self.scales)?,
            biases: self.biases.as_ref().map(take).transpose()?,
            quantization: self.quantization,
        };
        rows.dequantize(None)
    }
}

/// Options of [`Packed::gather_matmul`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherMatmul {
    /// Whether the weight is `[D, E]` and read as its transpose.
    pub transpose: bool,
    /// Whether the indices are in ascending order, which is faster.
    pub sorted_indices: bool,
}

impl Default for GatherMatmul {
    fn default() -> Self {
        GatherMatmul { transpose: true, sorted_indices: false }
    }
}
