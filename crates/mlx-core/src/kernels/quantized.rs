//! Products with packed weights.

use std::ffi::CStr;

use half::{bf16, f16};

use super::compute::quantized::{Activations, E4m3, E8m0, Format, Rows, Scale, exact, matmul};
use super::{Arithmetic, Float, KernelOptions, elements, elements_mut, isa_number, options};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::ops::{Packed, promote_types};
use crate::quantization::{QuantMode, Quantization};

struct QuantizedMatmul {
    quantization: Quantization,
    options: KernelOptions,
}

/// The format of a mode's weights, where there is a kernel for it.
fn format_of(quantization: Quantization) -> Option<Format> {
    let Quantization { group_size, bits, mode } = quantization;
    match mode {
        QuantMode::Affine => {
            let has_kernel = matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128);
            has_kernel.then_some(Format::Affine(bits as u8))
        }
        QuantMode::Mxfp4 | QuantMode::Nvfp4 => Some(Format::Fp4),
        QuantMode::Mxfp8 => Some(Format::Fp8),
    }
}

impl HostKernel for QuantizedMatmul {
    const NAME: &'static CStr = c"quantized_matmul";

    fn params(&self) -> Vec<u64> {
        let Quantization { group_size, bits, mode } = self.quantization;
        let KernelOptions { arithmetic, isa } = self.options;
        vec![group_size as u64, bits as u64, mode as u64, arithmetic as u64, isa_number(isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, ..], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        match x.dtype {
            Dtype::Float32 => self.scales::<f32>(inputs, out),
            Dtype::Float16 => self.scales::<f16>(inputs, out),
            Dtype::Bfloat16 => self.scales::<bf16>(inputs, out),
            dtype => Err(format!("no kernel for {dtype}")),
        }
    }
}

impl QuantizedMatmul {
    fn scales<X: Float>(
        &self,
        inputs: &[HostInput<'_>],
        out: &mut HostOutput<'_>,
    ) -> Result<(), String> {
        match inputs {
            [x, w, scales, biases] => match scales.dtype {
                Dtype::Float32 => self.product::<X, f32>(
                    x,
                    w,
                    elements(scales.bytes)?,
                    elements(biases.bytes)?,
                    out,
                ),
                Dtype::Float16 => self.product::<X, f16>(
                    x,
                    w,
                    elements(scales.bytes)?,
                    elements(biases.bytes)?,
                    out,
                ),
                Dtype::Bfloat16 => self.product::<X, bf16>(
                    x,
                    w,
                    elements(scales.bytes)?,
                    elements(biases.bytes)?,
                    out,
                ),
                dtype => Err(format!("no kernel for scales of {dtype}")),
            },
            [x, w, scales] if self.quantization.mode == QuantMode::Nvfp4 => {
                self.product::<X, _>(x, w, E4m3::slice(scales.bytes), &[], out)
            }
            [x, w, scales] => self.product::<X, _>(x, w, E8m0::slice(scales.bytes), &[], out),
            _ => Err(format!("{} inputs", inputs.len())),
        }
    }

    fn product<X: Float, S: Scale>(
        &self,
        x: &HostInput<'_>,
        w: &HostInput<'_>,
        scales: &[S],
        biases: &[S],
        out: &mut HostOutput<'_>,
    ) -> Result<(), String> {
        let k = x.shape.last().map_or(0, |&k| k as usize);
        let group_size = self.quantization.group_size as usize;
        let format = format_of(self.quantization).ok_or("no kernel for this format")?;
        let rows = Rows::new(format, group_size, k, w.bytes, scales, biases)?;
        let (x, out) = (elements::<X>(x.bytes)?, elements_mut::<X>(out.bytes)?);
        let mut result = vec![0.0f32; out.len()];
        let KernelOptions { arithmetic, isa } = self.options;
        // Small floats of 8 bits are no integers.
        if arithmetic == Arithmetic::Exact || format == Format::Fp8 {
            exact::matmul(isa, x, &rows, &mut result);
        } else {
            let x = Activations::new(isa, x, k, group_size, format);
            matmul(isa, &x, &rows, &mut result);
        }
        out.iter_mut().zip(&result).for_each(|(out, &y)| *out = X::from_f32(y));
        Ok(())
    }
}

/// Returns `x × wᵀ` by a kernel of ours, or `None` where there is none.
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn quantized_matmul(x: &Array, w: &Packed) -> Result<Option<Array>> {
    let is_float = |dtype| matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16);
    let is_affine = w.quantization.mode == QuantMode::Affine;
    let scales_fit = match &w.biases {
        Some(biases) => {
            is_affine && is_float(w.scales.dtype()) && w.scales.dtype() == biases.dtype()
        }
        None => !is_affine,
    };
    if !is_float(x.dtype())
        || !scales_fit
        || w.weight.ndim() != 2
        || w.weight.dtype() != Dtype::Uint32
        || format_of(w.quantization).is_none()
    {
        return Ok(None);
    }
    let [n, words] = w.weight.dims()?;
    let k = i64::from(words) * 32 / i64::from(w.quantization.bits);
    let Some((&last, leading)) = x.shape().split_last() else { return Ok(None) };
    if i64::from(last) != k {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("quantized_matmul: input {x:?} and weight {:?} of rows of {k}", w.weight),
        ));
    }
    // As MLX: a result of the type that holds inputs and scales.
    let dtype = if is_affine { promote_types(x.dtype(), w.scales.dtype()) } else { x.dtype() };
    let x = &x.astype(dtype)?;
    let mut shape = leading.to_vec();
    shape.push(n);
    let mut inputs = vec![x, &w.weight, &w.scales];
    inputs.extend(&w.biases);
    let quantization = w.quantization;
    let fallback = move |inputs: &[Array]| {
        let packed = Packed {
            weight: inputs[1].clone(),
            scales: inputs[2].clone(),
            biases: inputs.get(3).cloned(),
            quantization,
        };
        Ok(vec![packed.matmul_by_mlx(&inputs[0], true)?])
    };
    let kernel = QuantizedMatmul { quantization, options: options() };
    let outputs = ffi::host_op(kernel, &inputs, &[(&shape, dtype)], Box::new(fallback))?;
    Ok(outputs.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Closeness, quantize};
    use crate::transforms::grad_once;
    use crate::{Device, random, with_device};

    fn all() -> Vec<Quantization> {
        let affine = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| {
            let of = move |group_size| Quantization { group_size, bits, mode: QuantMode::Affine };
            [32, 64, 128].map(of)
        });
        affine.chain(QuantMode::ALL[1..].iter().map(|&mode| Quantization::of(mode))).collect()
    }

    /// The largest difference over the largest product.
    fn error(a: &Array, b: &Array) -> Result<f32> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let (a, b) = (a.astype(Dtype::Float32)?, b.astype(Dtype::Float32)?);
        let difference = (&a - &b)?.abs()?.max(.., false)?.item::<f32>()?;
        Ok(difference / b.abs()?.max(.., false)?.item::<f32>()?)
    }

    fn check_format(quantization: Quantization, dtype: Dtype, bounds: [f32; 2]) -> Result<()> {
        let key = random::key(3)?;
        let k = 3 * quantization.group_size.max(32);
        let w = random::normal(&[10, k], Dtype::Float32, 0.0, 1.0, Some(&key))?.astype(dtype)?;
        let x = random::normal(&[2, 3, k], Dtype::Float32, 0.1, 1.0, Some(&key))?.astype(dtype)?;
        let packed = quantize(&w, quantization)?;
        // MLX sums in the input's type; what it sums in float32 is nearer to the truth.
        let as_float32 = |array: &Array| array.astype(Dtype::Float32);
        let wide = match &packed.biases {
            Some(biases) => Packed {
                scales: as_float32(&packed.scales)?,
                biases: Some(as_float32(biases)?),
                ..packed.clone()
            },
            None => packed.clone(),
        };
        let expected = wide.matmul_by_mlx(&as_float32(&x)?, true)?.astype(dtype)?;
        for (arithmetic, bound) in [Arithmetic::Exact, Arithmetic::Fast].into_iter().zip(bounds) {
            let options = KernelOptions { arithmetic, ..options() };
            let ours = super::super::with_options(options, || quantized_matmul(&x, &packed))?;
            let error = error(&ours.expect("there is a kernel"), &expected)?;
            assert!(error <= bound, "{quantization} {dtype} {arithmetic:?}: {error}");
        }
        Ok(())
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            for quantization in all() {
                check_format(quantization, Dtype::Float32, [1e-6, 0.02])?;
                check_format(quantization, Dtype::Float16, [1e-3, 0.02])?;
                check_format(quantization, Dtype::Bfloat16, [8e-3, 0.03])?;
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms_and_on_views() -> Result<()> {
        with_device(Device::Cpu, || {
            let packed = quantize(
                &random::normal(&[8, 64], Dtype::Float32, 0.0, 1.0, Some(&random::key(1)?))?,
                Quantization::of(QuantMode::Affine),
            )?;
            let x =
                random::normal(&[64, 5], Dtype::Float32, 0.0, 1.0, Some(&random::key(2)?))?.t()?;
            let close = |a: &Array, b: &Array| -> Result<()> {
                let bounds = Closeness { rtol: 1e-5, atol: 2e-4, equal_nan: false };
                assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
                Ok(())
            };
            let f = {
                let packed = packed.clone();
                move |x: &[Array]| Ok(vec![packed.matmul(&x[0], true)?])
            };
            let expected = packed.matmul_by_mlx(&x, true)?;
            let inputs = [x.clone()];
            close(&f(&inputs)?[0], &expected)?;
            close(&crate::transforms::compile(f.clone(), false)?.call(&inputs)?[0], &expected)?;
            // The gradient by the input; MLX has no vmap of the product.
            let loss = |x: &[Array]| Ok(vec![f(x)?[0].square()?.sum(.., false)?]);
            let by_mlx = |x: &[Array]| {
                Ok(vec![packed.matmul_by_mlx(&x[0], true)?.square()?.sum(.., false)?])
            };
            close(&grad_once(loss, &inputs, 0)?[0], &grad_once(by_mlx, &inputs, 0)?[0])
        })
    }
}
