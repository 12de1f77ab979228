//! MLX's fused ops: one kernel each on a GPU, composed of small ops on a CPU.
//!
//! Kernels of one's own for a GPU, from source, are [`MetalKernel`] and [`CudaKernel`];
//! [`precompiled_cuda_kernel`] runs one that is compiled already.

mod kernel;

pub use kernel::{
    CudaKernel, CudaKernelOptions, LaunchOptions, MetalKernel, MetalKernelOptions,
    PrecompiledOptions, ScalarArg, TemplateArg, precompiled_cuda_kernel,
};

use crate::array::Array;
use crate::array::index::Bounds;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

/// Scales each vector of the last axis to root mean square one, then by `weight`.
///
/// # Shape
/// `x: […, D]`, `weight: [D] → […, D]`; accumulates in float32.
///
/// # Errors
/// When the shapes do not fit.
///
/// ```
/// use mlx_core::{Array, fast};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[3.0f32, -3.0, 3.0, 3.0], &[1, 4])?;
/// assert_eq!(fast::rms_norm(&x, None, 0.0)?.to_vec::<f32>()?, [1.0, -1.0, 1.0, 1.0]);
/// # Ok(())
/// # }
/// ```
pub fn rms_norm(x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
    let x = &x.laid_out_if_empty()?;
    array_op!(mlx_fast_rms_norm, x, weight, eps)
}

/// Normalizes each vector of the last axis to mean zero and variance one, then applies weight
/// and bias.
///
/// # Shape
/// `x: […, D]`, `weight`, `bias: [D] → […, D]`; accumulates in float32.
///
/// # Errors
/// When the shapes do not fit.
///
/// ```
/// use mlx_core::{Array, fast};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 3.0], &[1, 2])?;
/// assert_eq!(fast::layer_norm(&x, None, None, 0.0)?.to_vec::<f32>()?, [-1.0, 1.0]);
/// # Ok(())
/// # }
/// ```
pub fn layer_norm(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f32,
) -> Result<Array> {
    let x = &x.laid_out_if_empty()?;
    array_op!(mlx_fast_layer_norm, x, weight, bias, eps)
}

/// Returns the negative logarithm of the softmax of `logits` at `targets`.
///
/// # Shape
/// `logits: […, V]`, `targets: […] → […]`
///
/// A target below 0 or not below `V` is not noticed and reads another element, or none.
///
/// # Errors
/// When the shapes do not fit, the targets are not integers, or one that the host has at hand is out
/// of range.
///
/// ```
/// use mlx_core::{Array, fast};
///
/// # fn main() -> mlx_core::Result<()> {
/// let logits = Array::from_slice(&[0.0f32, 0.0], &[1, 2])?;
/// let targets = Array::from_slice(&[1], &[1])?;
/// assert!((fast::cross_entropy(&logits, &targets)?.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub fn cross_entropy(logits: &Array, targets: &Array) -> Result<Array> {
    let size = logits.dim(-1)?;
    let bounds = Bounds { op: "cross_entropy", size, slice: 1, from_end: false };
    let targets = &bounds.apply(targets)?;
    array_op!(mlx_fast_cross_entropy, logits, targets)
}

/// What [`rope`] rotates and how fast.
#[derive(Clone, Copy, Debug)]
pub struct RopeOptions<'a> {
    /// Leading elements of the last axis that are rotated.
    pub dims: i32,
    /// Pairs neighbours instead of halves.
    pub traditional: bool,
    /// Base of the frequencies, where `freqs` does not give them.
    pub base: Option<f32>,
    /// Factor on the positions.
    pub scale: f32,
    /// `[dims / 2]`: wavelengths, in place of powers of `base`.
    pub freqs: Option<&'a Array>,
}

/// Position of the first row of [`rope`]'s input.
#[derive(Clone, Copy, Debug)]
pub enum Offset<'a> {
    /// One for the whole batch.
    Int(i32),
    /// `[B]` or 0-d: one for each batch row.
    Array(&'a Array),
}

impl From<i32> for Offset<'_> {
    fn from(offset: i32) -> Self {
        Offset::Int(offset)
    }
}

impl<'a> From<&'a Array> for Offset<'a> {
    fn from(offsets: &'a Array) -> Self {
        Offset::Array(offsets)
    }
}

/// Rotates pairs of elements by angles that grow with the position (RoFormer, arXiv 2104.09864).
///
/// # Shape
/// `x: [B, …, L, D] → [B, …, L, D]`
///
/// # Errors
/// When both or neither of `base` and `freqs` are given, or the shapes do not fit.
///
/// ```
/// use mlx_core::{Dtype, fast, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = ops::ones(&[1, 1, 2, 4], Dtype::Float32)?;
/// let options = fast::RopeOptions {
///     dims: 4,
///     traditional: false,
///     base: Some(10000.0),
///     scale: 1.0,
///     freqs: None,
/// };
/// let y = fast::rope(&x, options, fast::Offset::Int(0))?;
/// assert_eq!(y.at((0, 0, 0))?.to_vec::<f32>()?, [1.0; 4]); // position 0 stays
/// # Ok(())
/// # }
/// ```
pub fn rope(x: &Array, options: RopeOptions<'_>, offset: Offset<'_>) -> Result<Array> {
    let RopeOptions { dims, traditional, base, scale, freqs } = options;
    match offset {
        Offset::Int(offset) => {
            array_op!(mlx_fast_rope, x, dims, traditional, base, scale, offset, freqs)
        }
        Offset::Array(offset) => {
            array_op!(mlx_fast_rope_dynamic, x, dims, traditional, base, scale, offset, freqs)
        }
    }
}

/// Which keys a query of [`scaled_dot_product_attention`] sees.
#[derive(Clone, Copy, Debug, Default)]
pub enum AttentionMask<'a> {
    /// All.
    #[default]
    None,
    /// Those not after it, the last query being the last key.
    Causal,
    /// Broadcasts to `[B, H, L, S]`: bool keeps where true, other dtypes are added to the scores.
    Array(&'a Array),
}

/// Returns `softmax(scale * q × kᵀ + mask) × v`, softmax in float32.
///
/// # Shape
/// `q: [B, H, L, D]`, `k: [B, KV, S, D]`, `v: [B, KV, S, DV] → [B, H, L, DV]`, where `KV` divides
/// `H`. `sinks: [H]` are extra scores whose values are zero.
///
/// # Errors
/// When the shapes or dtypes do not fit.
///
/// ```
/// use mlx_core::{Dtype, fast, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// // Eight query heads over two heads of keys and values.
/// let q = ops::ones(&[1, 8, 5, 16], Dtype::Float32)?;
/// let kv = ops::ones(&[1, 2, 5, 16], Dtype::Float32)?;
/// let mask = fast::AttentionMask::Causal;
/// let y = fast::scaled_dot_product_attention(&q, &kv, &kv, 0.25, mask, None)?;
/// assert_eq!(y.shape(), [1, 8, 5, 16]);
/// # Ok(())
/// # }
/// ```
pub fn scaled_dot_product_attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f32,
    mask: AttentionMask<'_>,
    sinks: Option<&Array>,
) -> Result<Array> {
    attention([q, k, v], scale, mask, sinks, false)
}

/// Does as [`scaled_dot_product_attention`] in one kernel, whose memory does not grow with
/// `L × S`, or not at all.
///
/// Python has this as `force_fused=True`.
///
/// # Errors
/// When the device has no such kernel for these shapes and dtypes (a CPU has none), or they do
/// not fit.
pub fn scaled_dot_product_attention_fused(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f32,
    mask: AttentionMask<'_>,
    sinks: Option<&Array>,
) -> Result<Array> {
    attention([q, k, v], scale, mask, sinks, true)
}

fn attention(
    [q, k, v]: [&Array; 3],
    scale: f32,
    mask: AttentionMask<'_>,
    sinks: Option<&Array>,
    force_fused: bool,
) -> Result<Array> {
    // MLX divides by the number of key heads.
    if k.shape().get(1) == Some(&0) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("attention: no heads in {k:?}"),
        ));
    }
    let (mode, mask) = match mask {
        AttentionMask::None => (c"", None),
        AttentionMask::Causal => (c"causal", None),
        AttentionMask::Array(mask) => (c"array", Some(mask)),
    };
    array_op!(mlx_fast_scaled_dot_product_attention, q, k, v, scale, mode, mask, sinks, force_fused)
}
