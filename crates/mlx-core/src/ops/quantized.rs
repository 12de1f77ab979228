//! Packed weights.

use super::matmul::matrix_indices;
use crate::array::Array;
use crate::array::index::Bounds;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{array_op, vec_op};
use crate::kernels::{self, GatedActivation, GatherInputs, PackedLayer};
use crate::quantization::{QuantMode, Quantization};
use crate::stream;

/// A weight in packed form.
///
/// ```
/// use mlx_core::{Dtype, QuantMode, Quantization, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let w = ops::full(&[8, 64], 0.5, Dtype::Float32)?;
/// let packed = ops::quantize(&w, Quantization::of(QuantMode::Mxfp4))?;
/// assert_eq!((packed.weight.shape(), packed.scales.shape()), (&[8, 8][..], &[8, 2][..]));
/// assert_eq!(packed.dequantize(Dtype::Float32)?.to_vec::<f32>()?, [0.5; 512]);
/// let x = ops::ones(&[1, 64], Dtype::Float32)?;
/// assert_eq!(packed.matmul(&x, true)?.to_vec::<f32>()?, [32.0; 8]);
/// # Ok(())
/// # }
/// ```
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
/// # Shape
/// `w: […, D, E]` → the parts as [`Packed`] has them
///
/// # Errors
/// When the last axis does not divide by the group size, or bits and group size do not fit the mode.
pub fn quantize(w: &Array, quantization: Quantization) -> Result<Packed> {
    quantize_c(w, quantization, None)
}

fn quantize_c(
    w: &Array,
    quantization: Quantization,
    global_scale: Option<&Array>,
) -> Result<Packed> {
    quantization.check()?;
    let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
    let mode = quantization.mode.c_name();
    let mut parts = vec_op!(mlx_quantize, w, group_size, bits, mode, global_scale)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(weight), Some(scales)) => {
            Ok(Packed { weight, scales, biases: parts.next(), quantization })
        }
        _ => Err(super::missing_output("quantize")),
    }
}

/// Packs a weight as nvfp4, with scales relative to one for the whole weight.
///
/// # Errors
/// When the last axis does not divide by 16 or `global_scale` is not one `float32`.
pub fn quantize_with_global_scale(w: &Array, global_scale: &Array) -> Result<Packed> {
    quantize_c(w, Quantization::of(QuantMode::Nvfp4), Some(global_scale))
}

/// The weight of [`qqmm`] and [`gather_qqmm`].
#[derive(Clone, Copy, Debug)]
pub enum QqWeight<'a> {
    /// A packed one.
    Packed(&'a Packed),
    /// A dense one, `[…, D, E]`, which is packed in this format for the call.
    Dense(&'a Array, Quantization),
}

/// One scale for a whole array, for each operand of [`qqmm`]; for nvfp4 only.
#[derive(Clone, Copy, Debug)]
pub struct GlobalScales<'a> {
    /// Of the input.
    pub x: &'a Array,
    /// Of the weight.
    pub w: &'a Array,
}

/// Returns `x × wᵀ` with both packed: the input is packed for the call in the weight's format.
///
/// A GPU computes it in that format where it can. MLX's CPU backend takes packed weights and one
/// row of input.
///
/// # Shape
/// `x: […, E]`, `w: [D, E]` → `[…, D]`
///
/// # Errors
/// When the format is affine, the shapes do not fit, or the device has no such kernel.
pub fn qqmm(x: &Array, w: QqWeight<'_>, global_scales: Option<GlobalScales<'_>>) -> Result<Array> {
    let (weight, scales, quantization) = w.parts("qqmm", x, global_scales)?;
    if weight.ndim() != 2 {
        return Err(w.misfit("qqmm", x));
    }
    let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
    let mode = quantization.mode.c_name();
    let (scale_x, scale_w) = (global_scales.map(|scales| scales.x), global_scales.map(|s| s.w));
    let result = array_op!(mlx_qqmm, x, weight, scales, group_size, bits, mode, scale_x, scale_w)?;
    if x.size() == 0 || weight.size() == 0 {
        return super::zeros(result.shape(), result.dtype());
    }
    Ok(result)
}

/// Returns [`qqmm`] with one of the stacked weights, or of the inputs, per index.
///
/// An index is not negative and within the stack. MLX's CPU backend has no kernel for it.
///
/// # Errors
/// When the format is affine, the shapes do not fit, or the device has no such kernel.
pub fn gather_qqmm(
    x: &Array,
    w: QqWeight<'_>,
    lhs_indices: Option<&Array>,
    rhs_indices: Option<&Array>,
    sorted_indices: bool,
) -> Result<Array> {
    let (weight, scales, quantization) = w.parts("gather_qqmm", x, None)?;
    if x.ndim() < 2 || weight.ndim() < 2 || x.size() == 0 || weight.size() == 0 {
        return Err(w.misfit("gather_qqmm", x));
    }
    let lhs = matrix_indices("gather_qqmm", x, lhs_indices)?;
    let rhs = matrix_indices("gather_qqmm", weight, rhs_indices)?;
    let (lhs, rhs) = (lhs.as_ref(), rhs.as_ref());
    let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
    let mode = quantization.mode.c_name();
    let none: Option<&Array> = None;
    array_op!(
        mlx_gather_qqmm,
        x,
        weight,
        scales,
        lhs,
        rhs,
        group_size,
        bits,
        mode,
        none,
        none,
        sorted_indices
    )
}

type QqParts<'a> = (&'a Array, Option<&'a Array>, Quantization);

impl<'a> QqWeight<'a> {
    /// Weight, scales and format; fails where MLX would not look.
    fn parts(
        self,
        op: &str,
        x: &Array,
        global_scales: Option<GlobalScales<'_>>,
    ) -> Result<QqParts<'a>> {
        let (weight, scales, quantization) = match self {
            QqWeight::Packed(packed) => {
                packed.check(op)?;
                (&packed.weight, Some(&packed.scales), packed.quantization)
            }
            QqWeight::Dense(weight, quantization) => (weight, None, quantization),
        };
        if quantization.mode == QuantMode::Affine {
            let text = format!("{op}: no kernel for {quantization}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let is_whole = |size: &i32| size % quantization.group_size == 0;
        let is_float = |dtype| matches!(dtype, Dtype::Float16 | Dtype::Bfloat16 | Dtype::Float32);
        let scales_fit = global_scales.is_none() || quantization.mode == QuantMode::Nvfp4;
        if !quantization.is_default()
            || !x.shape().last().is_some_and(is_whole)
            || !is_float(x.dtype())
            || !(scales.is_some() || is_float(weight.dtype()))
            || !scales_fit
        {
            return Err(self.misfit(op, x));
        }
        Ok((weight, scales, quantization))
    }

    fn misfit(self, op: &str, x: &Array) -> Error {
        let (weight, quantization) = match self {
            QqWeight::Packed(packed) => (&packed.weight, packed.quantization),
            QqWeight::Dense(weight, quantization) => (weight, quantization),
        };
        let text = format!("{op}: input {x:?} with weight {weight:?} as {quantization}");
        Error::new(ErrorKind::InvalidArgument, text)
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
    /// # Shape
    /// `[…, D, E]`, that of the dense weight
    ///
    /// # Errors
    /// When the shapes do not fit the format.
    pub fn dequantize(&self, dtype: impl Into<Option<Dtype>>) -> Result<Array> {
        self.dequantize_c(dtype.into(), None)
    }

    /// Unpacks a weight of [`quantize_with_global_scale`].
    ///
    /// # Errors
    /// When the shapes do not fit the format, or it is not nvfp4.
    pub fn dequantize_with_global_scale(
        &self,
        global_scale: &Array,
        dtype: impl Into<Option<Dtype>>,
    ) -> Result<Array> {
        self.dequantize_c(dtype.into(), Some(global_scale))
    }

    fn dequantize_c(&self, dtype: Option<Dtype>, global_scale: Option<&Array>) -> Result<Array> {
        self.quantization.check()?;
        let Packed { weight, scales, biases, quantization } = self;
        let biases = biases.as_ref();
        let (group_size, bits) = (Some(quantization.group_size), Some(quantization.bits));
        let mode = quantization.mode.c_name();
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

    /// Returns `x × wᵀ` (`transpose`) or `x × w` without unpacking the weight; on a CPU by a kernel of
    /// ours, which with `transpose` computes as [`kernels::options`] say and else is exact.
    ///
    /// # Shape
    /// `x: […, E] → […, D]`; without `transpose` `[…, D] → […, E]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matmul(&self, x: &Array, transpose: bool) -> Result<Array> {
        self.check("quantized_matmul")?;
        if x.size() == 0 || self.weight.size() == 0 {
            // MLX's kernel divides by the sizes.
            let w = self.dequantize(x.dtype())?;
            return x.matmul(&if transpose { w.swapaxes(-1, -2)? } else { w });
        }
        if transpose && let Some([y]) = Packed::matmul_each(x, [(self, None)])? {
            return Ok(y);
        }
        if x.ndim() <= 2 && self.weight.ndim() > 2 {
            // MLX broadcasts a stack against blocks of rows, not against one matrix.
            return self.matmul_by_mlx(x, transpose);
        }
        let options = GatherMatmul { transpose, sorted_indices: false };
        let (lhs_indices, rhs_indices) = (None, None);
        let inputs = GatherInputs { x, of_rows: false, lhs_indices, rhs_indices, options };
        match Packed::gather_each(inputs, [(self, None)])? {
            Some([y]) => Ok(y),
            None => self.matmul_by_mlx(x, transpose),
        }
    }

    /// Returns `x × wᵀ + bias` of each weight by one kernel of ours, or `None` where there is none:
    /// the device is no CPU, or the weights are not of one kind.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub(crate) fn matmul_each<const N: usize>(
        x: &Array,
        layers: [PackedLayer<'_>; N],
    ) -> Result<Option<[Array; N]>> {
        if !has_kernels(x, &layers)? {
            return Ok(None);
        }
        let outputs = kernels::quantized_matmul(x, &layers)?;
        Ok(outputs.and_then(|outputs| outputs.try_into().ok()))
    }

    /// Returns `function(gate) * up` of the results of two layers, as [`Packed::matmul_each`].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub(crate) fn gated_matmul(
        x: &Array,
        [gate, up]: [PackedLayer<'_>; 2],
        function: GatedActivation,
        fallback: kernels::GatedFallback,
    ) -> Result<Option<Array>> {
        if !has_kernels(x, &[gate, up])? {
            return Ok(None);
        }
        kernels::gated_quantized_matmul(x, [gate, up], function, fallback)
    }

    /// Does as [`Packed::matmul`] by MLX's own kernel, with parts that belong together.
    pub(crate) fn matmul_by_mlx(&self, x: &Array, transpose: bool) -> Result<Array> {
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
    /// An index is not negative. On a CPU the order of indices does not matter.
    ///
    /// # Shape
    /// `x: […, L, E]` → `[…, L, D]`, the axes before them those of the indices
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
        self.check("gather_qmm")?;
        if x.size() == 0 || self.weight.size() == 0 {
            // MLX's kernel divides by the sizes.
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("gather_matmul: empty input {x:?} or weight {:?}", self.weight),
            ));
        }
        let inputs = GatherInputs { x, of_rows: false, lhs_indices, rhs_indices, options };
        match Packed::gather_each(inputs, [(self, None)])? {
            Some([y]) => Ok(y),
            None => self.gather_matmul_by_mlx(x, lhs_indices, rhs_indices, options),
        }
    }

    /// Does as [`Packed::gather_matmul`] with each stack, plus the bias of the weight in use, by one
    /// kernel of ours, or returns `None` where there is none.
    ///
    /// # Errors
    /// When the shapes do not fit, the indices are not integers, or one that the host has at hand is
    /// out of range.
    pub(crate) fn gather_each<const N: usize>(
        inputs: GatherInputs<'_>,
        stacks: [PackedLayer<'_>; N],
    ) -> Result<Option<[Array; N]>> {
        if !has_kernels(inputs.x, &stacks)? {
            return Ok(None);
        }
        let outputs = kernels::gather_quantized_matmul(inputs, &stacks, None)?;
        Ok(outputs.and_then(|outputs| outputs.try_into().ok()))
    }

    /// Returns `function(gate) * up` of the results of two stacks, as [`Packed::gather_each`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn gather_gated(
        inputs: GatherInputs<'_>,
        stacks: [PackedLayer<'_>; 2],
        function: GatedActivation,
        fallback: kernels::GatedFallback,
    ) -> Result<Option<Array>> {
        if !has_kernels(inputs.x, &stacks)? {
            return Ok(None);
        }
        let gate = Some((function, fallback));
        Ok(kernels::gather_quantized_matmul(inputs, &stacks, gate)?.and_then(|mut y| y.pop()))
    }

    /// Does as [`Packed::gather_matmul`] by MLX's own kernel, with parts that belong together.
    pub(crate) fn gather_matmul_by_mlx(
        &self,
        x: &Array,
        lhs_indices: Option<&Array>,
        rhs_indices: Option<&Array>,
        options: GatherMatmul,
    ) -> Result<Array> {
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

    /// Fails where the parts do not belong together: MLX compares only some of their sizes, and
    /// its kernels then read beyond the scales.
    fn check(&self, op: &str) -> Result<()> {
        self.quantization.check()?;
        let Packed { weight, scales, biases, quantization } = self;
        let Quantization { group_size, bits, mode } = *quantization;
        let fits = match (weight.shape().split_last(), scales.shape().split_last()) {
            (Some((&words, rows)), Some((&groups, others))) => {
                let packed = i64::from(words) * 32 / i64::from(bits);
                rows == others
                    && !rows.is_empty()
                    && packed == i64::from(groups) * i64::from(group_size)
            }
            _ => false,
        };
        let fits = fits
            && match mode {
                QuantMode::Affine => biases.as_ref().is_some_and(|b| b.shape() == scales.shape()),
                _ => quantization.is_default() && scales.dtype() == Dtype::Uint8,
            };
        if fits {
            return Ok(());
        }
        let text =
            format!("{op}: {quantization}, {weight:?}, scales {scales:?}, biases {biases:?}");
        Err(Error::new(ErrorKind::InvalidArgument, text))
    }

    /// Takes rows of the weight and unpacks only those.
    ///
    /// # Shape
    /// `indices: I → I + [E]`
    ///
    /// # Errors
    /// When the indices are not integers, or one that the host has at hand is out of range.
    pub fn take_rows(&self, indices: &Array) -> Result<Array> {
        if self.check("take_rows").is_ok()
            && stream::current_device()? == Device::Cpu
            && let Some(rows) = kernels::take_rows(self, indices)?
        {
            return Ok(rows);
        }
        self.take_rows_by_mlx(indices)
    }

    /// Does as [`Packed::take_rows`] by MLX's ops.
    pub(crate) fn take_rows_by_mlx(&self, indices: &Array) -> Result<Array> {
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

/// Tells whether kernels of ours can be asked for products with these weights.
fn has_kernels(x: &Array, layers: &[PackedLayer<'_>]) -> Result<bool> {
    for (packed, _) in layers {
        packed.check("quantized_matmul")?;
    }
    let is_empty = x.size() == 0 || layers.iter().any(|(packed, _)| packed.weight.size() == 0);
    Ok(!is_empty && stream::current_device()? == Device::Cpu)
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
