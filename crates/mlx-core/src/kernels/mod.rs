//! CPU kernels of our own, reached through the host primitive.
//!
//! MLX's CPU backend composes norms, rotations and attention of small single-threaded ops. A
//! kernel here does such a thing in one pass and is chosen where the current stream is a CPU's.
//! Each agrees with MLX's result to rounding, and brings MLX's own ops as the fallback that vmap
//! and gradients use.

mod norm;

pub(crate) use norm::rms_norm;

use half::{bf16, f16};

/// A floating element type that a kernel reads and writes, computing in `f32`.
pub(crate) trait Float: Copy {
    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
}

impl Float for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Float for f16 {
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
}

impl Float for bf16 {
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
}

const MISALIGNED: &str = "misaligned buffer";

fn elements<T: Float>(bytes: &[u8]) -> Result<&[T], String> {
    // SAFETY: every bit pattern is a value of the `Float` types.
    match unsafe { bytes.align_to() } {
        ([], elements, []) => Ok(elements),
        _ => Err(MISALIGNED.to_owned()),
    }
}

fn elements_mut<T: Float>(bytes: &mut [u8]) -> Result<&mut [T], String> {
    // SAFETY: as above, and every `Float` value is made of bytes without padding.
    match unsafe { bytes.align_to_mut() } {
        ([], elements, []) => Ok(elements),
        _ => Err(MISALIGNED.to_owned()),
    }
}
