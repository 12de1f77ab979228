//! Norms in one pass over each row.

use std::ffi::CStr;

use super::compute::norm::{self as compute, AddRmsNorm};
use super::{Float, Isa, elements, elements_mut, isa_number, only, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::fast;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct RmsNorm {
    eps: f32,
    isa: Isa,
}

impl HostKernel for RmsNorm {
    const NAME: &'static CStr = c"rms_norm";

    fn params(&self) -> Vec<u64> {
        vec![u64::from(self.eps.to_bits()), isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let RmsNorm { eps, isa } = *self;
        match (inputs, outputs) {
            ([x, weight], [out]) => with_float!(x.dtype, T => {
                let (x, weight) = (elements::<T>(x.bytes)?, elements::<T>(weight.bytes)?);
                compute::rms_norm(isa, x, weight, eps, elements_mut(out.bytes)?);
                Ok(())
            }),
            ([x, residual, weight], [sum, normed]) => with_float!(x.dtype, T => {
                let slices = AddRmsNorm::<T> {
                    x: elements(x.bytes)?,
                    residual: elements(residual.bytes)?,
                    weight: elements(weight.bytes)?,
                    eps,
                    sum: elements_mut(sum.bytes)?,
                    normed: elements_mut(normed.bytes)?,
                };
                compute::add_rms_norm(isa, slices);
                Ok(())
            }),
            _ => Err(format!("{} inputs", inputs.len())),
        }
    }
}

/// [`fast::rms_norm`] by a kernel of ours.
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array> {
    check_fits("rms_norm", x, weight)?;
    let fallback =
        move |inputs: &[Array]| Ok(vec![fast::rms_norm(&inputs[0], Some(&inputs[1]), eps)?]);
    let kernel = RmsNorm { eps, isa: options().isa };
    let outputs =
        ffi::host_op(kernel, &[x, weight], &[(x.shape(), x.dtype())], Box::new(fallback))?;
    only("rms_norm", outputs)
}

/// Returns `x + residual` and its [`rms_norm`].
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn add_rms_norm(
    x: &Array,
    residual: &Array,
    weight: &Array,
    eps: f32,
) -> Result<(Array, Array)> {
    check_fits("add_rms_norm", x, weight)?;
    if (x.shape(), x.dtype()) != (residual.shape(), residual.dtype()) {
        return Err(misfit("add_rms_norm", x, residual));
    }
    let fallback = move |inputs: &[Array]| {
        let sum = (&inputs[0] + &inputs[1])?;
        let normed = fast::rms_norm(&sum, Some(&inputs[2]), eps)?;
        Ok(vec![sum, normed])
    };
    let kernel = RmsNorm { eps, isa: options().isa };
    let spec = (x.shape(), x.dtype());
    let outputs = ffi::host_op(kernel, &[x, residual, weight], &[spec, spec], Box::new(fallback))?;
    match <[Array; 2]>::try_from(outputs) {
        Ok([sum, normed]) => Ok((sum, normed)),
        Err(_) => Err(Error::new(ErrorKind::Runtime, "add_rms_norm: not two outputs")),
    }
}

struct LayerNorm {
    eps: f32,
    has_weight: bool,
    has_bias: bool,
    isa: Isa,
}

impl HostKernel for LayerNorm {
    const NAME: &'static CStr = c"layer_norm";

    fn params(&self) -> Vec<u64> {
        let LayerNorm { eps, has_weight, has_bias, isa } = *self;
        vec![u64::from(eps.to_bits()), has_weight.into(), has_bias.into(), isa_number(isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let LayerNorm { eps, has_weight, isa, .. } = *self;
        let ([x, affine @ ..], [out]) = (inputs, outputs) else {
            return Err("no inputs".to_owned());
        };
        with_float!(x.dtype, T => {
            let d = x.shape.last().map_or(0, |&d| d as usize);
            let (weight, bias) = affine.split_at_checked(has_weight.into()).unwrap_or_default();
            let (weight, bias) = (first::<T>(weight)?, first::<T>(bias)?);
            let norm = compute::LayerNorm { d, weight, bias, eps };
            compute::layer_norm(isa, elements(x.bytes)?, norm, elements_mut(out.bytes)?);
            Ok(())
        })
    }
}

fn first<'a, T: Float>(inputs: &[HostInput<'a>]) -> Result<Option<&'a [T]>, String> {
    inputs.first().map(|input| elements(input.bytes)).transpose()
}

/// [`fast::layer_norm`] by a kernel of ours.
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn layer_norm(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f32,
) -> Result<Array> {
    let mut inputs = vec![x];
    for part in [weight, bias].into_iter().flatten() {
        check_fits("layer_norm", x, part)?;
        inputs.push(part);
    }
    let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
    let fallback = move |inputs: &[Array]| {
        let weight = inputs.get(1).filter(|_| has_weight);
        let bias = inputs.get(1 + usize::from(has_weight));
        Ok(vec![fast::layer_norm(&inputs[0], weight, bias, eps)?])
    };
    let kernel = LayerNorm { eps, has_weight, has_bias, isa: options().isa };
    let outputs = ffi::host_op(kernel, &inputs, &[(x.shape(), x.dtype())], Box::new(fallback))?;
    only("layer_norm", outputs)
}

/// Fails unless `weight` has an element of the same dtype for each of the last axis.
fn check_fits(op: &str, x: &Array, weight: &Array) -> Result<()> {
    let is_vector = weight.ndim() == 1 && x.shape().last() == weight.shape().first();
    if is_vector && weight.dtype() == x.dtype() { Ok(()) } else { Err(misfit(op, x, weight)) }
}

fn misfit(op: &str, x: &Array, other: &Array) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{op}: {x:?} and {other:?} do not fit"))
}

#[cfg(test)]
mod tests {
    use crate::ops::Closeness;
    use crate::transforms::{compile, grad_once, vmap};
    use crate::{Array, Device, Dtype, Result, fast, random, with_device};

    fn inputs(rows: i32, dtype: Dtype) -> Result<(Array, Array)> {
        let key = random::key(7)?;
        let x = random::normal(&[2, rows, 33], Dtype::Float32, 0.5, 2.0, Some(&key))?;
        let weight = random::normal(&[33], Dtype::Float32, 1.0, 0.2, Some(&key))?;
        Ok((x.astype(dtype)?, weight.astype(dtype)?))
    }

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            for (dtype, rtol) in
                [(Dtype::Float32, 1e-6), (Dtype::Float16, 2e-3), (Dtype::Bfloat16, 1e-2)]
            {
                for rows in [0, 1, 5] {
                    let (x, weight) = inputs(rows, dtype)?;
                    let ours = super::rms_norm(&x, &weight, 1e-5)?;
                    check_close(&ours, &fast::rms_norm(&x, Some(&weight), 1e-5)?, rtol)?;
                }
            }
            Ok(())
        })
    }

    #[test]
    fn takes_strided_input() -> Result<()> {
        with_device(Device::Cpu, || {
            let (x, weight) = inputs(4, Dtype::Float32)?;
            let view = x.transpose([1, 0, 2])?;
            let ours = super::rms_norm(&view, &weight, 1e-5)?;
            check_close(&ours, &fast::rms_norm(&view, Some(&weight), 1e-5)?, 1e-6)
        })
    }

    #[test]
    fn runs_under_compile_and_vmap() -> Result<()> {
        with_device(Device::Cpu, || {
            let (x, weight) = inputs(3, Dtype::Float32)?;
            let expected = fast::rms_norm(&x, Some(&weight), 1e-5)?;
            let f = |inputs: &[Array]| Ok(vec![super::rms_norm(&inputs[0], &inputs[1], 1e-5)?]);

            let compiled = compile(f, false)?;
            for _ in 0..2 {
                check_close(&compiled.call(&[x.clone(), weight.clone()])?[0], &expected, 1e-6)?;
            }
            let mapped = vmap(f, &[Some(0), None], 0)?;
            check_close(&mapped.call(&[x, weight])?[0], &expected, 1e-6)
        })
    }

    #[test]
    fn adds_before_the_norm() -> Result<()> {
        with_device(Device::Cpu, || {
            for (dtype, rtol) in
                [(Dtype::Float32, 1e-6), (Dtype::Float16, 2e-3), (Dtype::Bfloat16, 1e-2)]
            {
                let (x, weight) = inputs(5, dtype)?;
                let residual = x.square()?;
                let (sum, normed) = super::add_rms_norm(&x, &residual, &weight, 1e-5)?;
                let expected = (&x + &residual)?;
                check_close(&sum, &expected, 0.0)?;
                check_close(&normed, &fast::rms_norm(&expected, Some(&weight), 1e-5)?, rtol)?;
            }
            Ok(())
        })
    }

    #[test]
    fn layer_norm_agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            for (dtype, rtol) in
                [(Dtype::Float32, 2e-6), (Dtype::Float16, 4e-3), (Dtype::Bfloat16, 2e-2)]
            {
                for rows in [0, 1, 5] {
                    let (x, weight) = inputs(rows, dtype)?;
                    let bias = weight.negative()?;
                    for (weight, bias) in [
                        (None, None),
                        (Some(&weight), None),
                        (None, Some(&bias)),
                        (Some(&weight), Some(&bias)),
                    ] {
                        let ours = super::layer_norm(&x, weight, bias, 1e-5)?;
                        let theirs = fast::layer_norm(&x, weight, bias, 1e-5)?;
                        check_close(&ours, &theirs, rtol)?;
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn transforms_see_what_mlx_computes() -> Result<()> {
        type F = fn(&[Array]) -> Result<Vec<Array>>;
        let ours: [F; 2] = [
            |x| {
                let (sum, normed) = super::add_rms_norm(&x[0], &x[1], &x[2], 1e-5)?;
                Ok(vec![sum, normed])
            },
            |x| Ok(vec![super::layer_norm(&x[0], Some(&x[2]), Some(&x[2]), 1e-5)?]),
        ];
        let theirs: [F; 2] = [
            |x| {
                let sum = (&x[0] + &x[1])?;
                let normed = fast::rms_norm(&sum, Some(&x[2]), 1e-5)?;
                Ok(vec![sum, normed])
            },
            |x| Ok(vec![fast::layer_norm(&x[0], Some(&x[2]), Some(&x[2]), 1e-5)?]),
        ];
        with_device(Device::Cpu, || {
            let (x, weight) = inputs(3, Dtype::Float32)?;
            let inputs = [x.transpose([1, 0, 2])?, x.square()?.transpose([1, 0, 2])?, weight];
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                let expected = theirs(&inputs)?;
                let check = |found: &[Array]| {
                    assert_eq!(found.len(), expected.len());
                    found.iter().zip(&expected).try_for_each(|(a, b)| check_close(a, b, 2e-6))
                };
                check(&ours(&inputs)?)?;
                check(&compile(ours, false)?.call(&inputs)?)?;
                check(&vmap(ours, &[Some(0), Some(0), None], 0)?.call(&inputs)?)?;
                let loss = |f: F| {
                    move |x: &[Array]| {
                        let ys = f(x)?;
                        let sums = ys.iter().map(|y| y.power(3)?.sum(.., false));
                        let sums = sums.collect::<Result<Vec<_>>>()?;
                        Ok(vec![crate::ops::stack(&sums, 0)?.sum(.., false)?])
                    }
                };
                for i in [0, 2] {
                    let ours = grad_once(loss(ours), &inputs, i)?;
                    let theirs = grad_once(loss(theirs), &inputs, i)?;
                    check_close(&ours[0], &theirs[0], 1e-4)?;
                }
            }
            Ok(())
        })
    }

    #[test]
    fn refuses_what_does_not_fit() -> Result<()> {
        with_device(Device::Cpu, || {
            let (x, weight) = inputs(1, Dtype::Float32)?;
            let short = weight.at(..32)?;
            let error = super::rms_norm(&x, &short, 1e-5).expect_err("shapes differ");
            assert!(error.to_string().starts_with("rms_norm: "), "{error}");
            Ok(())
        })
    }
}
