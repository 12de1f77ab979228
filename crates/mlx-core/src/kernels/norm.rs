//! Norms in one pass over each row.

use std::ffi::CStr;

use half::{bf16, f16};

use super::{Float, elements, elements_mut};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

/// Sums run in this many independent lanes, which the compiler turns into vector registers.
const LANES: usize = 16;

struct RmsNorm {
    eps: f32,
}

impl HostKernel for RmsNorm {
    const NAME: &'static CStr = c"rms_norm";

    fn params(&self) -> Vec<u64> {
        vec![u64::from(self.eps.to_bits())]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, weight], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        if out.shape != x.shape || x.shape.last() != weight.shape.first() {
            return Err(format!("input {:?}, weight {:?}", x.shape, weight.shape));
        }
        match x.dtype {
            Dtype::Float32 => self.rows::<f32>(x, weight, out),
            Dtype::Float16 => self.rows::<f16>(x, weight, out),
            Dtype::Bfloat16 => self.rows::<bf16>(x, weight, out),
            dtype => Err(format!("no kernel for {dtype}")),
        }
    }
}

impl RmsNorm {
    fn rows<T: Float>(
        &self,
        x: &HostInput<'_>,
        weight: &HostInput<'_>,
        out: &mut HostOutput<'_>,
    ) -> Result<(), String> {
        let (x, weight) = (elements::<T>(x.bytes)?, elements::<T>(weight.bytes)?);
        let out = elements_mut::<T>(out.bytes)?;
        if weight.is_empty() {
            return Ok(());
        }
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let scale = (mean_square(x) + self.eps).sqrt().recip();
            for ((out, &x), &weight) in out.iter_mut().zip(x).zip(weight) {
                // Rounded to the element type before the weight, as MLX's own op is.
                let normed = T::from_f32(x.to_f32() * scale);
                *out = T::from_f32(normed.to_f32() * weight.to_f32());
            }
        }
        Ok(())
    }
}

fn mean_square<T: Float>(row: &[T]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x.to_f32() * x.to_f32();
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += x.to_f32() * x.to_f32();
    }
    lanes.iter().sum::<f32>() / row.len() as f32
}

/// [`fast::rms_norm`](crate::fast::rms_norm) by a kernel of ours.
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array> {
    let (shape, dtype) = (x.shape(), x.dtype());
    if shape.last() != weight.shape().first() || weight.ndim() != 1 || weight.dtype() != dtype {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("rms_norm: input {x:?} and weight {weight:?} do not fit"),
        ));
    }
    let fallback =
        move |inputs: &[Array]| Ok(vec![crate::fast::rms_norm(&inputs[0], Some(&inputs[1]), eps)?]);
    let outputs =
        ffi::host_op(RmsNorm { eps }, &[x, weight], &[(shape, dtype)], Box::new(fallback))?;
    outputs.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Runtime, "rms_norm: no output"))
}

#[cfg(test)]
mod tests {
    use crate::ops::Closeness;
    use crate::{Array, Device, Dtype, Result, random, transforms::compile, with_device};

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
                    check_close(&ours, &crate::fast::rms_norm(&x, Some(&weight), 1e-5)?, rtol)?;
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
            check_close(&ours, &crate::fast::rms_norm(&view, Some(&weight), 1e-5)?, 1e-6)
        })
    }

    #[test]
    fn runs_under_compile_and_vmap() -> Result<()> {
        with_device(Device::Cpu, || {
            let (x, weight) = inputs(3, Dtype::Float32)?;
            let expected = crate::fast::rms_norm(&x, Some(&weight), 1e-5)?;
            let f = |inputs: &[Array]| Ok(vec![super::rms_norm(&inputs[0], &inputs[1], 1e-5)?]);

            let compiled = compile(f, false)?;
            for _ in 0..2 {
                check_close(&compiled.call(&[x.clone(), weight.clone()])?[0], &expected, 1e-6)?;
            }
            let mapped = crate::transforms::vmap(f, &[Some(0), None], 0)?;
            check_close(&mapped.call(&[x, weight])?[0], &expected, 1e-6)
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
