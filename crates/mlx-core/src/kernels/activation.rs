//! Gated activations in one pass.

use std::ffi::CStr;

use super::compute::activation::{self as compute, GatedActivation};
use super::{Isa, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct Gated {
    activation: GatedActivation,
    isa: Isa,
}

impl HostKernel for Gated {
    const NAME: &'static CStr = c"gated";

    fn params(&self) -> Vec<u64> {
        vec![self.activation as u64, isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([gate, x], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        with_float!(x.dtype, T => {
            let (gate, x) = (elements::<T>(gate.bytes)?, elements::<T>(x.bytes)?);
            compute::gated(self.isa, self.activation, gate, x, elements_mut(out.bytes)?);
            Ok(())
        })
    }
}

/// [`nn::gated`](crate::nn::gated) by a kernel of ours, computed in float32 and rounded once;
/// `fallback` does the same by ops.
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn gated(
    gate: &Array,
    x: &Array,
    activation: GatedActivation,
    fallback: fn(&Array, &Array, GatedActivation) -> Result<Array>,
) -> Result<Array> {
    if (gate.shape(), gate.dtype()) != (x.shape(), x.dtype()) {
        let text = format!("gated: gate {gate:?} and input {x:?} do not fit");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let fallback = move |inputs: &[Array]| Ok(vec![fallback(&inputs[0], &inputs[1], activation)?]);
    let kernel = Gated { activation, isa: options().isa };
    let outputs = ffi::host_op(kernel, &[gate, x], &[(x.shape(), x.dtype())], Box::new(fallback))?;
    super::only("gated", outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Closeness;
    use crate::transforms::{compile, grad_once, vmap};
    use crate::{Device, nn, random, with_device};

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    /// By MLX's ops, in float32.
    fn expected(gate: &Array, x: &Array, activation: GatedActivation) -> Result<Array> {
        let wide = |x: &Array| x.astype(Dtype::Float32);
        let dtype = x.dtype();
        let gate = match activation {
            GatedActivation::Silu => nn::silu(&wide(gate)?),
            GatedActivation::Gelu => nn::gelu(&wide(gate)?),
            GatedActivation::GeluApprox => nn::gelu_approx(&wide(gate)?),
            GatedActivation::GeluFastApprox => nn::gelu_fast_approx(&wide(gate)?),
            GatedActivation::Relu => nn::relu(&wide(gate)?),
            GatedActivation::Relu2 => nn::relu2(&wide(gate)?),
            GatedActivation::Sigmoid => nn::sigmoid(&wide(gate)?),
            GatedActivation::ClampedSwiglu => {
                let (gate, x) = (wide(gate)?.minimum(7.0)?, wide(x)?.minimum(7.0)?.maximum(-7.0)?);
                let gate = (&gate * nn::sigmoid(&(&gate * 1.702)?))?;
                return (gate * (x + 1.0))?.astype(dtype);
            }
        };
        (gate? * wide(x)?)?.astype(x.dtype())
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            for (dtype, rtol) in
                [(Dtype::Float32, 2e-6), (Dtype::Float16, 1e-3), (Dtype::Bfloat16, 8e-3)]
            {
                for shape in [&[0, 5][..], &[7], &[3, 2, 33]] {
                    let key = random::key(2)?;
                    let gate = random::normal(shape, Dtype::Float32, 0.0, 3.0, Some(&key))?;
                    let x = gate.add(0.5)?.astype(dtype)?;
                    let gate = gate.astype(dtype)?;
                    for activation in GatedActivation::ALL {
                        let ours = nn::gated(&gate, &x, activation)?;
                        check_close(&ours, &expected(&gate, &x, activation)?, rtol)?;
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms_and_on_views() -> Result<()> {
        with_device(Device::Cpu, || {
            let both = random::normal(&[6, 4], Dtype::Float32, 0.0, 1.0, Some(&random::key(1)?))?;
            let inputs = [both.at((.., ..2))?, both.at((.., 2..))?];
            let f = |x: &[Array]| Ok(vec![nn::gated(&x[0], &x[1], GatedActivation::Silu)?]);
            let expected = expected(&inputs[0], &inputs[1], GatedActivation::Silu)?;
            check_close(&f(&inputs)?[0], &expected, 1e-5)?;
            check_close(&compile(f, false)?.call(&inputs)?[0], &expected, 1e-5)?;
            check_close(&vmap(f, &[Some(0), Some(0)], 0)?.call(&inputs)?[0], &expected, 1e-5)?;
            let ours = |x: &[Array]| Ok(vec![f(x)?[0].sum(.., false)?]);
            let theirs = |x: &[Array]| Ok(vec![(nn::silu(&x[0])? * &x[1])?.sum(.., false)?]);
            for i in 0..2 {
                let (ours, theirs) = (grad_once(ours, &inputs, i)?, grad_once(theirs, &inputs, i)?);
                check_close(&ours[0], &theirs[0], 1e-5)?;
            }
            Ok(())
        })
    }
}
