//! CPU kernels of our own, reached through the host primitive.
//!
//! MLX's CPU backend composes norms, rotations and attention of small single-threaded ops. A
//! kernel here does such a thing in one pass and is chosen where the current stream is a CPU's.
//! Each agrees with MLX's result to rounding, and brings MLX's own ops as the fallback that vmap
//! and gradients use.

mod activation;
mod append;
mod argmax;
mod attention;
mod cached_attention;
mod causal_conv;
mod compute;
mod elementwise;
mod gated_delta;
mod matmul;
mod norm;
mod packing;
mod quantized;
mod read;
mod rope;
mod routes;
mod sampling;
mod softmax;
mod ssm;

pub(crate) use activation::gated;
pub(crate) use append::{append, has_append};
pub(crate) use argmax::{argmax, has_argmax};
pub(crate) use attention::{AttentionOptions, attention, has_attention};
pub(crate) use cached_attention::{
    CachedAttentionArrays, CachedAttentionParts, RopeParts, cached_attention,
};
pub(crate) use causal_conv::{CausalConvArrays, causal_conv};
pub(crate) use elementwise::{add, multiply};
pub(crate) use gated_delta::{GatedDeltaArrays, GatedDeltaParts, gated_delta};
pub(crate) use matmul::{GatherLinear, gather_linear, has_gather_linear, has_linear, linear};
pub(crate) use norm::{add_rms_norm, layer_norm, rms_norm};
pub(crate) use quantized::{GatedFallback, PackedLayer, gated_quantized_matmul, quantized_matmul};
pub(crate) use quantized::{GatherInputs, gather_quantized_matmul, take_rows};
pub(crate) use rope::{has_rope, rope};
pub(crate) use softmax::{has_softmax, logsumexp, softmax};
pub(crate) use ssm::{SsmArrays, ssm_scan};

use std::cell::Cell;
use std::time::Duration;

use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::{ffi, stream};

pub use compute::Isa;
pub use compute::activation::GatedActivation;
pub use compute::packing::ScaleSearch;
pub use compute::pool::{set_threads, threads};
pub use compute::sampling::{TokenFilter, Xtc};
pub(crate) use compute::{Float, ahead};
pub use packing::{PackedBytes, convert_floats, pack_rows, unpack_rows};
pub use read::read_speed;
pub use sampling::sample_tokens;

/// How kernels made within [`with_options`] compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelOptions {
    /// What products with packed weights round.
    pub arithmetic: Arithmetic,
    /// The instructions to use.
    pub isa: Isa,
}

impl Default for KernelOptions {
    fn default() -> Self {
        KernelOptions { arithmetic: Arithmetic::default(), isa: Isa::detect() }
    }
}

/// What a product of activations with packed weights rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Nothing but sums in float32: MLX's result to rounding.
    #[default]
    Exact,
    /// Activations, to 8 bits with a scale for each group of the weight, so that products are of
    /// integers. Several times faster.
    Fast,
}

thread_local! {
    static OPTIONS: Cell<Option<KernelOptions>> = const { Cell::new(None) };
}

/// Calls `f`; kernels whose nodes it makes on this thread compute as `options` say.
///
/// ```
/// use mlx_core::kernels::{Arithmetic, KernelOptions, options, with_options};
///
/// let fast = KernelOptions { arithmetic: Arithmetic::Fast, ..options() };
/// assert_eq!(with_options(fast, options), fast);
/// assert_eq!(options().arithmetic, Arithmetic::Exact);
/// ```
pub fn with_options<R>(options: KernelOptions, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<KernelOptions>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OPTIONS.set(self.0);
        }
    }
    let _restore = Restore(OPTIONS.replace(Some(options)));
    f()
}

/// Returns how kernels made now would compute.
pub fn options() -> KernelOptions {
    OPTIONS.get().unwrap_or_default()
}

/// Calls `f` and makes one node of the graph of all kernels that it calls one after the other, as far as
/// there is no op without a kernel between: on a CPU a node takes as long as a small kernel. Results
/// that nobody holds when the node is made are not outputs, and what only they need is not computed.
///
/// Within functions that are being transformed it only calls `f`.
///
/// ```
/// use mlx_core::kernels::fused;
/// use mlx_core::nn::RmsNorm;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let (norm, x) = (RmsNorm::new(8, 1e-5)?, ops::ones(&[2, 8], Dtype::Float32)?);
/// let y = fused(|| norm.forward(&norm.forward(&x)?))?;
/// assert!((y.sum(.., false)?.item::<f32>()? - 16.0).abs() < 1e-3);
/// # Ok(())
/// # }
/// ```
pub fn fused<R>(f: impl FnOnce() -> R) -> R {
    ffi::recording(f)
}

/// Returns how long kernels of this process have run so far, all streams together: what a token takes
/// beyond that is the graph's, or another device's.
pub fn busy() -> Duration {
    ffi::kernel_time()
}

/// Tells whether the current device is a CPU and kernels compute in `dtype`.
pub(crate) fn are_for(dtype: Dtype) -> Result<bool> {
    let is_float = matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16);
    Ok(is_float && stream::current_device()? == Device::Cpu)
}

/// Returns the one output of a kernel.
fn only(name: &str, outputs: Vec<Array>) -> Result<Array> {
    outputs
        .into_iter()
        .next()
        .ok_or_else(|| Error::new(ErrorKind::Runtime, format!("{name}: no output")))
}

/// A number for [`HostKernel::params`](crate::ffi::HostKernel::params).
fn isa_number(isa: Isa) -> u64 {
    isa.name().bytes().fold(0, |hash, byte| hash << 7 | u64::from(byte))
}

/// Evaluates an expression with a type's name standing for the [`Float`] of a dtype.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            Dtype::Float32 => {
                type $T = f32;
                $body
            }
            Dtype::Float16 => {
                type $T = half::f16;
                $body
            }
            Dtype::Bfloat16 => {
                type $T = half::bf16;
                $body
            }
            dtype => Err(format!("no kernel for {dtype}")),
        }
    };
}
use with_float;

const MISALIGNED: &str = "misaligned buffer";

fn elements<T: Float>(bytes: &[u8]) -> std::result::Result<&[T], String> {
    // SAFETY: every bit pattern is a value of the `Float` types.
    match unsafe { bytes.align_to() } {
        ([], elements, []) => Ok(elements),
        _ => Err(MISALIGNED.to_owned()),
    }
}

fn elements_mut<T: Float>(bytes: &mut [u8]) -> std::result::Result<&mut [T], String> {
    // SAFETY: as above, and every `Float` value is made of bytes without padding.
    match unsafe { bytes.align_to_mut() } {
        ([], elements, []) => Ok(elements),
        _ => Err(MISALIGNED.to_owned()),
    }
}

/// Does as [`elements_mut`] where others hold references to a part.
fn shared_elements<T: Float>(bytes: *mut [u8]) -> std::result::Result<*mut [T], String> {
    let data = bytes.cast::<T>();
    if !data.is_aligned() || !bytes.len().is_multiple_of(size_of::<T>()) {
        return Err(MISALIGNED.to_owned());
    }
    Ok(std::ptr::slice_from_raw_parts_mut(data, bytes.len() / size_of::<T>()))
}

#[cfg(test)]
mod tests;
