//! Products with a layer's dense weights, one by one or chosen from a stack.

mod gather;

pub(crate) use gather::{GatherLinear, gather_linear, has_gather_linear};

use std::ffi::CStr;

use half::{bf16, f16};

use super::compute::matmul::{Dense, Element, WeightRows, matmul};
use super::{Isa, elements, elements_mut, options};
use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::stream;

struct Linear {
    isa: Isa,
}

impl HostKernel for Linear {
    const NAME: &'static CStr = c"linear";

    fn params(&self) -> Vec<u64> {
        vec![super::isa_number(self.isa)]
    }

    fn reads_weights(&self) -> bool {
        true
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, w, bias @ ..], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        match x.dtype {
            Dtype::Float32 => self.product::<f32>(x, w, bias.first(), out),
            Dtype::Float16 => self.product::<f16>(x, w, bias.first(), out),
            Dtype::Bfloat16 => self.product::<bf16>(x, w, bias.first(), out),
            dtype => Err(format!("no kernel for {dtype}")),
        }
    }
}

impl Linear {
    fn product<T: Element>(
        &self,
        x: &HostInput<'_>,
        w: &HostInput<'_>,
        bias: Option<&HostInput<'_>>,
        out: &mut HostOutput<'_>,
    ) -> Result<(), String> {
        let ([.., k], [n, w_k]) = (x.shape, w.shape) else {
            return Err(format!("input {:?}, weight {:?}", x.shape, w.shape));
        };
        let (rows, columns) = (x.shape.split_last(), out.shape.split_last());
        let fits = k == w_k
            && rows.map(|(_, rows)| rows) == columns.map(|(_, rows)| rows)
            && columns.map(|(n, _)| n) == Some(n)
            && bias.is_none_or(|bias| bias.shape == [*n] && bias.dtype == x.dtype)
            && w.dtype == x.dtype;
        if !fits {
            return Err(format!(
                "input {:?}, weight {:?}, output {:?}",
                x.shape, w.shape, out.shape
            ));
        }
        let w = Dense::new(elements::<T>(w.bytes)?, *n as usize, *k as usize);
        let bias = bias.map(|bias| elements::<T>(bias.bytes)).transpose()?;
        matmul(self.isa, elements(x.bytes)?, &w, bias, elements_mut(out.bytes)?);
        Ok(())
    }
}

/// Tells whether [`linear`] takes these, and is the faster one.
///
/// # Errors
/// When there is no current stream.
pub(crate) fn has_linear(x: &Array, w: &Array, bias: Option<&Array>) -> Result<bool> {
    let n_rows: i32 = x.shape().split_last().map_or(0, |(_, rows)| rows.iter().product());
    // MLX's BLAS has the better tiles, by a twentieth to a tenth, but for float32 only.
    let is_faster = x.dtype() != Dtype::Float32 || n_rows as usize <= Dense::<f32>::FEW;
    Ok(is_faster && fits(x, w, bias) && stream::current_device()? == Device::Cpu)
}

fn fits(x: &Array, w: &Array, bias: Option<&Array>) -> bool {
    let dtype = x.dtype();
    let ([.., k], [n, w_k]) = (x.shape(), w.shape()) else {
        return false;
    };
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
        && k == w_k
        && w.dtype() == dtype
        && bias.is_none_or(|bias| bias.dtype() == dtype && bias.shape() == [*n])
}

/// `x × wᵀ + bias` by a kernel of ours, summed in float32.
///
/// # Shape
/// `x: […, K]`, `w: [N, K]`, `bias: [N]` → `[…, N]`
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn linear(x: &Array, w: &Array, bias: Option<&Array>) -> Result<Array> {
    if !fits(x, w, bias) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("linear: input {x:?}, weight {w:?} and bias {bias:?} do not fit"),
        ));
    }
    let mut shape = x.shape().to_vec();
    if let (Some(last), Some(&n)) = (shape.last_mut(), w.shape().first()) {
        *last = n;
    }
    let fallback = |inputs: &[Array]| {
        let product = inputs[0].matmul(&inputs[1].t()?)?;
        Ok(vec![match inputs.get(2) {
            Some(bias) => product.add(bias)?,
            None => product,
        }])
    };
    let kernel = Linear { isa: options().isa };
    let inputs: Vec<&Array> = [x, w].into_iter().chain(bias).collect();
    let outputs = ffi::host_op(kernel, &inputs, &[(&shape, x.dtype())], Box::new(fallback))?;
    super::only("linear", outputs)
}

#[cfg(test)]
mod tests {
    use crate::ops::Closeness;
    use crate::transforms::{compile, grad, vmap};
    use crate::{Array, Device, Dtype, Result, random, with_device};

    const DTYPES: [(Dtype, f64); 3] =
        [(Dtype::Float32, 1e-5), (Dtype::Float16, 2e-3), (Dtype::Bfloat16, 2e-2)];

    fn inputs(shape: &[i32], n: i32, dtype: Dtype) -> Result<[Array; 3]> {
        let keys = [random::key(7)?, random::key(8)?, random::key(9)?];
        let k = shape[shape.len() - 1];
        let normal =
            |shape: &[i32], key| random::normal(shape, Dtype::Float32, 0.0, 0.5, Some(key));
        Ok([
            normal(shape, &keys[0])?.astype(dtype)?,
            normal(&[n, k], &keys[1])?.astype(dtype)?,
            normal(&[n], &keys[2])?.astype(dtype)?,
        ])
    }

    fn expected(x: &Array, w: &Array, bias: Option<&Array>) -> Result<Array> {
        let wide = |x: &Array| x.astype(Dtype::Float32);
        let product = wide(x)?.matmul(&wide(w)?.t()?)?;
        let sum = match bias {
            Some(bias) => product.add(&wide(bias)?)?,
            None => product,
        };
        sum.astype(x.dtype())
    }

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        let shapes: [&[i32]; 9] = [
            &[33],
            &[1, 33],
            &[0, 33],
            &[2, 3, 40],
            &[3, 0],
            &[2, 12, 300],
            &[25, 33],
            &[1, 70, 513],
            &[300, 64],
        ];
        with_device(Device::Cpu, || {
            for (dtype, rtol) in DTYPES {
                for (shape, n) in shapes.into_iter().zip([5, 48, 7, 50, 3, 100, 0, 49, 97]) {
                    let [x, w, bias] = inputs(shape, n, dtype)?;
                    for bias in [None, Some(&bias)] {
                        let ours = super::linear(&x, &w, bias)?;
                        check_close(&ours, &expected(&x, &w, bias)?, rtol)?;
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn takes_strided_input() -> Result<()> {
        with_device(Device::Cpu, || {
            let [x, w, bias] = inputs(&[3, 5, 40], 8, Dtype::Float32)?;
            let view = x.transpose([1, 0, 2])?;
            let columns = w.t()?.contiguous()?.t()?;
            let ours = super::linear(&view, &columns, Some(&bias))?;
            check_close(&ours, &expected(&view, &w, Some(&bias))?, 1e-5)
        })
    }

    #[test]
    fn runs_under_compile_vmap_and_grad() -> Result<()> {
        with_device(Device::Cpu, || {
            let all = inputs(&[2, 3, 33], 5, Dtype::Float32)?;
            let [x, w, bias] = &all;
            let expected = expected(x, w, Some(bias))?;
            let f = |a: &[Array]| Ok(vec![super::linear(&a[0], &a[1], Some(&a[2]))?]);

            let compiled = compile(f, false)?;
            for _ in 0..2 {
                check_close(&compiled.call(&all)?[0], &expected, 1e-5)?;
            }
            let mapped = vmap(f, &[Some(0), None, None], 0)?;
            check_close(&mapped.call(&all)?[0], &expected, 1e-5)?;

            let loss = |y: Array| Ok(vec![y.square()?.sum(.., false)?]);
            let ours = move |a: &[Array]| loss(super::linear(&a[0], &a[1], Some(&a[2]))?);
            let theirs = move |a: &[Array]| loss(a[0].matmul(&a[1].t()?)?.add(&a[2])?);
            let (ours, theirs) = (grad(ours, &[0, 1, 2])?, grad(theirs, &[0, 1, 2])?);
            for (ours, theirs) in ours.call(&all)?.iter().zip(&theirs.call(&all)?) {
                check_close(ours, theirs, 1e-4)?;
            }
            Ok(())
        })
    }

    #[test]
    fn refuses_what_does_not_fit() -> Result<()> {
        with_device(Device::Cpu, || {
            let [x, w, bias] = inputs(&[2, 33], 5, Dtype::Float32)?;
            let half = w.astype(Dtype::Float16)?;
            for (x, w, bias) in [(&x, &half, None), (&x, &x.t()?, None), (&x, &w, Some(&w))] {
                assert!(!super::has_linear(x, w, bias)?);
                let error = super::linear(x, w, bias).expect_err("no fit");
                assert!(error.to_string().starts_with("linear: "), "{error}");
            }
            assert!(super::has_linear(&x, &w, Some(&bias))?);
            Ok(())
        })
    }

    #[test]
    fn leaves_many_rows_of_float32_to_blas() -> Result<()> {
        with_device(Device::Cpu, || {
            for (dtype, is_ours) in
                [(Dtype::Float32, false), (Dtype::Float16, true), (Dtype::Bfloat16, true)]
            {
                let [x, w, _] = inputs(&[5, 5, 33], 5, dtype)?;
                assert_eq!(super::has_linear(&x, &w, None)?, is_ours, "{dtype}");
            }
            Ok(())
        })
    }
}
