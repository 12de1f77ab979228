//! Softmax and the logarithm of a sum of exponentials, over the last axis.

use std::ffi::CStr;

use super::compute::softmax as compute;
use super::{Isa, are_for, elements, elements_mut, isa_number, options, with_float};
use crate::array::{Array, Axes};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

/// Below this many elements MLX's own kernel takes less than making a node of ours.
const LEAST: usize = 1 << 11;

struct Softmax {
    /// Makes it one number a row: the logarithm of the sum.
    is_logsumexp: bool,
    isa: Isa,
}

impl HostKernel for Softmax {
    const NAME: &'static CStr = c"softmax";

    fn params(&self) -> Vec<u64> {
        vec![self.is_logsumexp.into(), isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 1", inputs.len()));
        };
        let d = x.shape.last().map_or(0, |&d| d as usize);
        with_float!(x.dtype, T => {
            let (x, out) = (elements::<T>(x.bytes)?, elements_mut::<T>(out.bytes)?);
            match self.is_logsumexp {
                true => compute::logsumexp(self.isa, x, d, out),
                false => compute::softmax(self.isa, x, d, out),
            }
            Ok(())
        })
    }
}

/// Tells whether `axes` are the last of an array that a kernel of ours is for.
pub(crate) fn has_softmax(x: &Array, axes: &Axes<'_>) -> Result<bool> {
    let axis = match axes {
        Axes::One(axis) | Axes::Some([axis]) => *axis,
        _ => return Ok(false),
    };
    let is_last = axis == -1 || axis >= 0 && axis as usize + 1 == x.ndim();
    Ok(is_last && x.ndim() > 0 && x.size() >= LEAST && are_for(x.dtype())?)
}

/// [`Array::softmax`] over the last axis by a kernel of ours; `fallback` does the same by MLX's.
///
/// # Errors
/// When the current device is no CPU.
pub(crate) fn softmax(x: &Array, fallback: fn(&Array) -> Result<Array>) -> Result<Array> {
    let kernel = Softmax { is_logsumexp: false, isa: options().isa };
    let fallback = move |inputs: &[Array]| Ok(vec![fallback(&inputs[0])?]);
    super::only(
        "softmax",
        ffi::host_op(kernel, &[x], &[(x.shape(), x.dtype())], Box::new(fallback))?,
    )
}

/// [`Array::logsumexp`] over the last axis by a kernel of ours; `fallback` does the same by MLX's.
///
/// # Errors
/// When the current device is no CPU.
pub(crate) fn logsumexp(
    x: &Array,
    keepdims: bool,
    fallback: fn(&Array, bool) -> Result<Array>,
) -> Result<Array> {
    let kernel = Softmax { is_logsumexp: true, isa: options().isa };
    let fallback = move |inputs: &[Array]| Ok(vec![fallback(&inputs[0], keepdims)?]);
    let mut shape = x.shape().to_vec();
    shape.pop();
    if keepdims {
        shape.push(1);
    }
    super::only(
        "logsumexp",
        ffi::host_op(kernel, &[x], &[(&shape, x.dtype())], Box::new(fallback))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Closeness;
    use crate::transforms::{compile, grad_once, vmap};
    use crate::{Device, random, with_device};

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    /// By MLX, which takes two axes at once.
    fn by_mlx(x: &Array) -> Result<[Array; 2]> {
        let wide = x.astype(Dtype::Float32)?.expand_dims(-1)?;
        let softmax = wide.softmax(&[-2, -1], true)?.squeeze(-1)?;
        Ok([softmax.astype(x.dtype())?, wide.logsumexp(&[-2, -1], false)?.astype(x.dtype())?])
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            let key = random::key(2)?;
            for (dtype, rtol) in
                [(Dtype::Float32, 2e-6), (Dtype::Float16, 1e-3), (Dtype::Bfloat16, 8e-3)]
            {
                for shape in [&[3000][..], &[5, 700], &[2, 40, 33]] {
                    let x = random::normal(shape, Dtype::Float32, 1.0, 4.0, Some(&key))?;
                    let x = x.astype(dtype)?;
                    assert!(has_softmax(&x, &Axes::One(-1))?);
                    let [softmax, logsumexp] = by_mlx(&x)?;
                    check_close(&x.softmax(-1, false)?, &softmax, rtol)?;
                    check_close(&x.logsumexp(-1, false)?, &logsumexp, rtol)?;
                    check_close(&x.logsumexp(-1, true)?, &logsumexp.expand_dims(-1)?, rtol)?;
                }
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms_and_on_views() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = random::normal(&[70, 50], Dtype::Float32, 0.0, 1.0, Some(&random::key(1)?))?;
            let inputs = [x.t()?];
            let f = |x: &[Array]| Ok(vec![x[0].softmax(-1, false)?, x[0].logsumexp(-1, false)?]);
            let expected = by_mlx(&inputs[0])?;
            let stacked = [inputs[0].expand_dims(0)?];
            let mapped = vmap(f, &[Some(0)], 0)?.call(&stacked)?;
            for (found, expected) in [f(&inputs)?, compile(f, false)?.call(&inputs)?]
                .iter()
                .flatten()
                .zip(expected.iter().cycle())
            {
                check_close(found, expected, 1e-5)?;
            }
            for (found, expected) in mapped.iter().zip(&expected) {
                check_close(&found.squeeze(0)?, expected, 1e-5)?;
            }
            let square = |y: &Array| Ok(vec![y.square()?.sum(.., false)?]);
            let ours = |x: &[Array]| square(&x[0].softmax(-1, false)?);
            let theirs = |x: &[Array]| square(&by_mlx(&x[0])?[0]);
            check_close(&grad_once(ours, &inputs, 0)?[0], &grad_once(theirs, &inputs, 0)?[0], 1e-5)
        })
    }
}
