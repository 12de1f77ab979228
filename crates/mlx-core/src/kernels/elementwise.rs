//! Sums and products between other kernels, so that these can stay one node.

use std::ffi::CStr;

use super::compute::elementwise::{Elementwise, elementwise};
use super::{Isa, are_for, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct Binary {
    function: Elementwise,
    isa: Isa,
}

impl HostKernel for Binary {
    const NAME: &'static CStr = c"elementwise";

    fn params(&self) -> Vec<u64> {
        vec![self.function as u64, isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([a, b], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        with_float!(a.dtype, T => {
            let (a, b) = (elements::<T>(a.bytes)?, elements::<T>(b.bytes)?);
            elementwise(self.isa, self.function, a, b, elements_mut(out.bytes)?);
            Ok(())
        })
    }
}

/// Returns the sum of a kernel's result that is no node yet and another array of its shape and dtype;
/// nothing where it is not like that.
///
/// # Errors
/// When there is no current stream.
pub(crate) fn add(a: &Array, b: &Array) -> Result<Option<Array>> {
    binary(Elementwise::Add, a, b)
}

/// Returns the product, as [`add`].
///
/// # Errors
/// As there.
pub(crate) fn multiply(a: &Array, b: &Array) -> Result<Option<Array>> {
    binary(Elementwise::Multiply, a, b)
}

fn binary(function: Elementwise, a: &Array, b: &Array) -> Result<Option<Array>> {
    let is_between = ffi::is_recorded(a) || ffi::is_recorded(b);
    if !is_between || (a.shape(), a.dtype()) != (b.shape(), b.dtype()) || !are_for(a.dtype())? {
        return Ok(None);
    }
    let fallback = move |inputs: &[Array]| {
        let (a, b) = (&inputs[0], &inputs[1]);
        Ok(vec![match function {
            Elementwise::Add => a.add(b),
            Elementwise::Multiply => a.multiply(b),
        }?])
    };
    let kernel = Binary { function, isa: options().isa };
    let outputs = ffi::host_op(kernel, &[a, b], &[(a.shape(), a.dtype())], Box::new(fallback))?;
    super::only("elementwise", outputs).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::fused;
    use crate::nn::RmsNorm;
    use crate::{Device, random, with_device};

    /// A kernel's result that is no node yet, and the same as one.
    fn with_kernel<R>(x: &Array, f: impl Fn(&Array) -> Result<R>) -> Result<[R; 2]> {
        let norm = RmsNorm { weight: crate::ops::ones(&[8], x.dtype())?.into(), eps: 1e-6 };
        let between = fused(|| f(&norm.forward(x)?))?;
        Ok([between, f(&norm.forward(x)?)?])
    }

    fn bits(x: &Array) -> Result<Vec<u8>> {
        x.view(Dtype::Uint8)?.to_vec()
    }

    #[test]
    fn results_are_those_of_mlx_bit_for_bit() -> Result<()> {
        with_device(Device::Cpu, || {
            for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
                for shape in [[3, 5, 8], [0, 5, 8], [64, 80, 8]] {
                    let normal = |seed, scale| {
                        let key = random::key(seed)?;
                        random::normal(&shape, Dtype::Float32, 0.0, scale, Some(&key))?
                            .astype(dtype)
                    };
                    let (x, y) = (normal(1, 1.0)?, normal(2, 3e4)?);
                    let sums = |x: &Array| {
                        let sum = (x + &y)?;
                        let is_kernel = ffi::is_recorded(&sum);
                        Ok(((&sum * x)?, (x * x)?, sum, is_kernel))
                    };
                    let [ours, theirs] = with_kernel(&x, sums)?;
                    assert!(ours.3 && !theirs.3);
                    let pairs = [(&ours.0, &theirs.0), (&ours.1, &theirs.1), (&ours.2, &theirs.2)];
                    for (ours, theirs) in pairs {
                        assert_eq!((ours.shape(), ours.dtype()), (theirs.shape(), theirs.dtype()));
                        assert_eq!(bits(ours)?, bits(theirs)?, "{dtype} {shape:?}");
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn what_broadcasts_or_promotes_is_mlx_s() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = random::normal(&[2, 8], Dtype::Float16, 0.0, 1.0, None)?;
            let row = random::normal(&[8], Dtype::Float16, 0.0, 1.0, None)?;
            let wide = x.astype(Dtype::Float32)?;
            for other in [&row, &wide] {
                let [ours, theirs] = with_kernel(&x, |x| x + other)?;
                assert_eq!((ours.shape(), ours.dtype()), (theirs.shape(), theirs.dtype()));
                assert_eq!(bits(&ours)?, bits(&theirs)?);
            }
            Ok(())
        })
    }
}
