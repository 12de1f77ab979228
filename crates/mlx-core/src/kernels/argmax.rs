//! The position of the greatest element, over the last axis.

use std::ffi::CStr;

use super::compute::argmax as compute;
use super::{Isa, are_for, elements, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

/// Below this many elements MLX's own kernel takes less than making a node of ours.
const LEAST: usize = 1 << 11;

struct Argmax {
    isa: Isa,
}

impl HostKernel for Argmax {
    const NAME: &'static CStr = c"argmax";

    fn params(&self) -> Vec<u64> {
        vec![isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 1", inputs.len()));
        };
        let d = x.shape.last().map_or(0, |&d| d as usize);
        let mut positions = vec![0; out.bytes.len() / size_of::<u32>()];
        with_float!(x.dtype, T => {
            compute::argmax(self.isa, elements::<T>(x.bytes)?, d, &mut positions);
            Ok::<(), String>(())
        })?;
        for (bytes, position) in out.bytes.chunks_exact_mut(size_of::<u32>()).zip(positions) {
            bytes.copy_from_slice(&position.to_ne_bytes());
        }
        Ok(())
    }
}

/// Tells whether a kernel of ours is for the maximum over `axis`.
pub(crate) fn has_argmax(x: &Array, axis: i32) -> Result<bool> {
    let is_last = axis == -1 || axis >= 0 && axis as usize + 1 == x.ndim();
    Ok(is_last && x.ndim() > 0 && x.size() >= LEAST && are_for(x.dtype())?)
}

/// [`Array::argmax`] over the last axis by a kernel of ours; `fallback` does the same by MLX's.
///
/// # Errors
/// When the current device is no CPU.
pub(crate) fn argmax(
    x: &Array,
    keepdims: bool,
    fallback: fn(&Array, bool) -> Result<Array>,
) -> Result<Array> {
    let fallback = move |inputs: &[Array]| Ok(vec![fallback(&inputs[0], keepdims)?]);
    let mut shape = x.shape().to_vec();
    shape.pop();
    if keepdims {
        shape.push(1);
    }
    let kernel = Argmax { isa: options().isa };
    super::only(
        "argmax",
        ffi::host_op(kernel, &[x], &[(&shape, Dtype::Uint32)], Box::new(fallback))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::{compile, vmap};
    use crate::{Device, Slice, ops, random, with_device};

    /// By MLX: over all elements of one row at a time, which no kernel of ours is for.
    fn by_mlx(x: &Array) -> Result<Vec<u32>> {
        let rows = x.reshape([-1, *x.shape().last().expect("an axis")])?;
        (0..rows.dim(0)?).map(|i| rows.at(i)?.argmax(None, false)?.item::<u32>()).collect()
    }

    /// Few values, so that there are ties, and some that are no numbers.
    fn inputs(shape: &[i32], dtype: Dtype) -> Result<Array> {
        let x = random::normal(shape, Dtype::Float32, 0.0, 2.0, Some(&random::key(5)?))?;
        let nan = x.greater(5.0f32)?;
        ops::where_(&nan, f32::NAN, &x.round(0)?)?.astype(dtype)
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
                for shape in [&[3000][..], &[5, 700], &[2, 40, 33], &[2048, 1]] {
                    let x = inputs(shape, dtype)?;
                    let mut views = vec![x.clone(), x.at(Slice::step(-1))?];
                    if x.ndim() > 1 {
                        views.extend([x.at((.., Slice::step(-1)))?, x.t()?]);
                    }
                    for x in &views {
                        assert!(has_argmax(x, -1)?);
                        assert_eq!(x.argmax(-1, false)?.to_vec::<u32>()?, by_mlx(x)?, "{x:?}");
                        let kept = x.argmax(-1, true)?;
                        assert_eq!(kept.dim(-1)?, 1);
                        assert_eq!(kept.to_vec::<u32>()?, by_mlx(x)?);
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = inputs(&[70, 50], Dtype::Float32)?;
            let f = |x: &[Array]| Ok(vec![x[0].argmax(-1, false)?]);
            let expected = by_mlx(&x)?;
            let compiled = compile(f, false)?.call(std::slice::from_ref(&x))?;
            assert_eq!(compiled[0].to_vec::<u32>()?, expected);
            let stacked = [x.expand_dims(0)?];
            let mapped = vmap(f, &[Some(0)], 0)?.call(&stacked)?;
            assert_eq!(mapped[0].shape(), [1, 70]);
            assert_eq!(mapped[0].to_vec::<u32>()?, expected);
            Ok(())
        })
    }
}
