//! Rows of packed weights, as an embedding takes them.

use std::ffi::CStr;

use half::{bf16, f16};

use super::super::compute::quantized::{E4m3, E8m0, Rows, Scale, dequantize_rows};
use super::super::{Float, Isa, elements, elements_mut, isa_number, only, options};
use super::{format_of, has_kernel};
use crate::array::Array;
use crate::array::index::Bounds;
use crate::array::index::bounds::integers;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::ops::Packed;
use crate::quantization::{QuantMode, Quantization};

struct TakeRows {
    quantization: Quantization,
    isa: Isa,
}

impl HostKernel for TakeRows {
    const NAME: &'static CStr = c"take_rows";

    fn params(&self) -> Vec<u64> {
        let Quantization { group_size, bits, mode } = self.quantization;
        vec![group_size as u64, bits as u64, mode as u64, isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([_, scales, ..], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        match (self.quantization.mode, scales.dtype) {
            (QuantMode::Affine, Dtype::Float32) => self.rows::<f32, f32>(inputs, out, elements),
            (QuantMode::Affine, Dtype::Float16) => self.rows::<f16, f16>(inputs, out, elements),
            (QuantMode::Affine, Dtype::Bfloat16) => self.rows::<bf16, bf16>(inputs, out, elements),
            (QuantMode::Affine, dtype) => Err(format!("no kernel for scales of {dtype}")),
            (QuantMode::Nvfp4, _) => {
                self.rows::<E4m3, bf16>(inputs, out, |bytes| Ok(E4m3::slice(bytes)))
            }
            _ => self.rows::<E8m0, bf16>(inputs, out, |bytes| Ok(E8m0::slice(bytes))),
        }
    }
}

impl TakeRows {
    fn rows<S: Scale, T: Float>(
        &self,
        inputs: &[HostInput<'_>],
        out: &mut HostOutput<'_>,
        scales_of: fn(&[u8]) -> Result<&[S], String>,
    ) -> Result<(), String> {
        let (weight, scales, biases, indices) = match (self.quantization.mode, inputs) {
            (QuantMode::Affine, [weight, scales, biases, indices]) => {
                (weight, scales, scales_of(biases.bytes)?, indices)
            }
            (_, [weight, scales, indices]) => (weight, scales, &[][..], indices),
            _ => return Err(format!("{} inputs", inputs.len())),
        };
        let k = out.shape.last().map_or(0, |&k| k as usize);
        let format = format_of(self.quantization).ok_or("no kernel for this format")?;
        let group_size = self.quantization.group_size as usize;
        let scales = scales_of(scales.bytes)?;
        let w = Rows::new(format, group_size, k, weight.bytes, scales, biases)?;
        let n = weight.shape.first().map_or(0, |&n| i64::from(n));
        // The host did not know those out of range when it made the node.
        let rows: Vec<usize> = integers(indices.bytes, indices.dtype)
            .into_iter()
            .map(|row| if row < 0 { row.saturating_add(n) } else { row })
            .map(|row| row.clamp(0, (n - 1).max(0)) as usize)
            .collect();
        let out = elements_mut::<T>(out.bytes)?;
        if n == 0 || out.len() != rows.len() * k {
            return Err(format!("{} rows of {n}, {} results of {k}", rows.len(), out.len()));
        }
        dequantize_rows(self.isa, &w, &rows, out);
        Ok(())
    }
}

/// Returns [`Packed::take_rows`] by a kernel of ours, bit for bit, or `None` where there is none.
///
/// # Errors
/// When the current device is no CPU, the indices are not integers, or the host has one at hand that is
/// out of range.
pub(crate) fn take_rows(w: &Packed, indices: &Array) -> Result<Option<Array>> {
    let ([n, words], true) = (w.weight.shape(), has_kernel(w)) else { return Ok(None) };
    if w.weight.size() == 0 {
        return Ok(None);
    }
    Bounds::axis("take_rows", *n).check_known(indices)?;
    let k = i64::from(*words) * 32 / i64::from(w.quantization.bits);
    let k = i32::try_from(k).unwrap_or(i32::MAX);
    let shape = [indices.shape(), &[k]].concat();
    let is_affine = w.quantization.mode == QuantMode::Affine;
    let dtype = if is_affine { w.scales.dtype() } else { Dtype::Bfloat16 };
    let inputs: Vec<_> =
        [&w.weight, &w.scales].into_iter().chain(&w.biases).chain([indices]).collect();
    let quantization = w.quantization;
    let fallback = move |inputs: &[Array]| {
        let [weight, scales, .., indices] = inputs else { return Ok(vec![]) };
        let (weight, scales) = (weight.clone(), scales.clone());
        let biases = is_affine.then(|| inputs[2].clone());
        let packed = Packed { weight, scales, biases, quantization };
        Ok(vec![packed.take_rows_by_mlx(indices)?])
    };
    let kernel = TakeRows { quantization, isa: options().isa };
    let outputs = ffi::host_op(kernel, &inputs, &[(&shape, dtype)], Box::new(fallback))?;
    only("take_rows", outputs).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::tests::all;
    use super::*;
    use crate::ops::{Closeness, quantize};
    use crate::transforms::{compile, grad_once, vmap};
    use crate::{Device, random, with_device};

    /// Equal in every bit, and NaN where the other is.
    fn check_same(a: &Array, b: &Array) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol: 0.0, atol: 0.0, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    /// Equal but for a rounding: MLX's compiled ops may fuse a multiplication with an addition.
    fn check_close(a: &Array, b: &Array) -> Result<()> {
        let bounds = Closeness { rtol: 1e-5, atol: 1e-6, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    /// Weights of any bits at all.
    fn packed(quantization: Quantization, dtype: Dtype) -> Result<Packed> {
        let k = 3 * quantization.group_size.max(32);
        let key = random::key(5)?;
        let w = random::normal(&[9, k], Dtype::Float32, 0.0, 1.0, Some(&key))?.astype(dtype)?;
        let packed = quantize(&w, quantization)?;
        let weight = random::bits(packed.weight.shape(), 4, Some(&key))?;
        let scales = match quantization.mode {
            QuantMode::Affine => packed.scales.clone(),
            _ => random::bits(packed.scales.shape(), 1, Some(&key))?,
        };
        Ok(Packed { weight, scales, ..packed })
    }

    #[test]
    fn rows_are_those_of_dequantize() -> Result<()> {
        with_device(Device::Cpu, || {
            for quantization in all() {
                for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
                    let packed = packed(quantization, dtype)?;
                    let all = packed.dequantize(None)?;
                    for isa in Isa::available() {
                        for indices in [&[0, 8, -1, 3, 3][..], &[], &[-9]] {
                            let shape = [indices.len() as i32];
                            let indices = Array::from_slice(indices, &shape)?;
                            let options = crate::kernels::KernelOptions { isa, ..options() };
                            let rows = crate::kernels::with_options(options, || {
                                take_rows(&packed, &indices)
                            });
                            let rows = rows?.expect("there is a kernel");
                            check_same(&rows, &all.take(&indices, 0)?)?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn rows_that_are_not_there_are_refused_or_clipped() -> Result<()> {
        with_device(Device::Cpu, || {
            let packed = packed(Quantization::default(), Dtype::Float32)?;
            for bad in [9, -10, i32::MAX] {
                assert!(take_rows(&packed, &Array::from_slice(&[bad], &[1])?).is_err(), "{bad}");
            }
            assert!(take_rows(&packed, &Array::from_slice(&[0.0f32], &[1])?).is_err());
            let wild = Array::from_slice(&[i64::MAX, 9, -10, i64::MIN, 4], &[5])?;
            let rows = take_rows(&packed, &wild.maximum(i32::MIN)?)?.expect("there is a kernel");
            let tame = Array::from_slice(&[8, 8, 0, 0, 4], &[5])?;
            check_same(&rows, &packed.dequantize(None)?.take(&tame, 0)?)
        })
    }

    #[test]
    fn runs_under_transforms() -> Result<()> {
        with_device(Device::Cpu, || {
            let packed = packed(Quantization::default(), Dtype::Float32)?;
            let indices = Array::from_slice(&[1, 2, 7, 0], &[2, 2])?;
            let expected = packed.take_rows_by_mlx(&indices)?;
            let f = {
                let packed = packed.clone();
                move |x: &[Array]| Ok(vec![packed.take_rows(&x[0])?])
            };
            let inputs = [indices.clone()];
            check_close(&compile(f.clone(), false)?.call(&inputs)?[0], &expected)?;
            check_close(&vmap(f, &[Some(0)], 0)?.call(&inputs)?[0], &expected)?;
            // The gradient by the scales.
            let sum = move |x: &[Array]| {
                let packed = Packed { scales: x[0].clone(), ..packed.clone() };
                Ok(vec![packed.take_rows(&indices)?.square()?.sum(.., false)?])
            };
            let by_mlx = {
                let packed = self::packed(Quantization::default(), Dtype::Float32)?;
                let indices = inputs[0].clone();
                move |x: &[Array]| {
                    let packed = Packed { scales: x[0].clone(), ..packed.clone() };
                    Ok(vec![packed.take_rows_by_mlx(&indices)?.square()?.sum(.., false)?])
                }
            };
            let scales = [self::packed(Quantization::default(), Dtype::Float32)?.scales];
            check_close(&grad_once(sum, &scales, 0)?[0], &grad_once(by_mlx, &scales, 0)?[0])
        })
    }
}
