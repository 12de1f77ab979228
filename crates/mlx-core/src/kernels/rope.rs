//! Rotary position embeddings in one pass.

use std::ffi::CStr;

use super::compute::rope::{self as compute, Layout, Positions};
use super::{Isa, are_for, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::fast::{Offset, RopeOptions};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct Rope {
    dims: usize,
    traditional: bool,
    /// Used where no wavelengths are given.
    base: f32,
    scale: f32,
    magnitude: f32,
    /// The position of the first row, where no array has it.
    offset: Option<i32>,
    has_freqs: bool,
    isa: Isa,
}

impl HostKernel for Rope {
    const NAME: &'static CStr = c"rope";

    fn params(&self) -> Vec<u64> {
        let Rope { dims, traditional, base, scale, magnitude, offset, has_freqs, isa } = *self;
        vec![
            dims as u64,
            u64::from(traditional) | u64::from(has_freqs) << 1 | u64::from(offset.is_some()) << 2,
            u64::from(base.to_bits()) << 32 | u64::from(scale.to_bits()),
            u64::from(magnitude.to_bits()) << 32 | u64::from(offset.unwrap_or(0) as u32),
            isa_number(isa),
        ]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, others @ ..], [out]) = (inputs, outputs) else {
            return Err("no inputs".to_owned());
        };
        let [batch, .., length, d] = *x.shape else {
            return Err(format!("input {:?}", x.shape));
        };
        let (batch, length, d) = (batch as usize, length as usize, d as usize);
        let (freqs, offsets) = others.split_at_checked(self.has_freqs.into()).unwrap_or_default();
        let frequencies = match freqs {
            [freqs, ..] => elements::<f32>(freqs.bytes)?.iter().map(|x| x.recip()).collect(),
            [] => compute::frequencies(self.isa, self.base, self.dims / 2),
        };
        let offsets: Vec<f32> = match (self.offset, offsets) {
            (Some(offset), _) => vec![offset as f32],
            (None, [offsets, ..]) => {
                let (offsets, _) = offsets.bytes.as_chunks::<4>();
                offsets.iter().map(|&bytes| i32::from_ne_bytes(bytes) as f32).collect()
            }
            (None, []) => return Err("no offset".to_owned()),
        };
        let row_len = length * self.dims;
        if frequencies.len() != self.dims / 2
            || self.dims > d
            || !(offsets.len() == 1 || offsets.len() == batch)
        {
            return Err(format!("{} wavelengths, {} offsets", frequencies.len(), offsets.len()));
        }
        if x.bytes.is_empty() {
            return Ok(());
        }
        let mut table = vec![0.0f32; offsets.len() * row_len];
        for (&offset, table) in offsets.iter().zip(table.chunks_exact_mut(row_len)) {
            let positions = Positions { offset, n: length, scale: self.scale };
            compute::fill_table(self.isa, &frequencies, positions, self.magnitude, table);
        }
        let rows: usize = x.shape[..x.shape.len() - 1].iter().map(|&n| n as usize).product();
        let layout = Layout {
            d,
            dims: self.dims,
            length,
            heads: rows / (batch * length),
            by_batch: offsets.len() > 1,
            traditional: self.traditional,
        };
        with_float!(x.dtype, T => {
            let (x, out) = (elements::<T>(x.bytes)?, elements_mut::<T>(out.bytes)?);
            compute::rope(self.isa, x, layout, &table, out);
            Ok(())
        })
    }
}

/// Tells whether a kernel of ours rotates this.
pub(crate) fn has_rope(x: &Array, rope: &RopeOptions<'_>, offset: &Offset<'_>) -> Result<bool> {
    let d = x.shape().last().copied().unwrap_or(0);
    let freqs_fit = match (rope.base, rope.freqs) {
        (Some(_), None) => true,
        (None, Some(freqs)) => freqs.dtype() == Dtype::Float32 && freqs.shape() == [rope.dims / 2],
        _ => false,
    };
    let offset_fits = match offset {
        Offset::Int(_) => true,
        Offset::Array(offset) => {
            let batch = x.shape().first().copied().unwrap_or(0);
            offset.dtype() == Dtype::Int32
                && (offset.size() == 1 && offset.ndim() <= 1 || offset.shape() == [batch])
        }
    };
    Ok(freqs_fit
        && offset_fits
        && x.ndim() >= 3
        && rope.dims > 0
        && rope.dims % 2 == 0
        && rope.dims <= d
        && are_for(x.dtype())?)
}

/// Rotates by a kernel of ours where [`has_rope`], the rotated elements times `magnitude`; `fallback`
/// does the same by ops.
///
/// # Errors
/// When the current device is no CPU.
pub(crate) fn rope(
    x: &Array,
    rope: RopeOptions<'_>,
    offset: Offset<'_>,
    magnitude: f32,
    fallback: fn(&Array, RopeOptions<'_>, Offset<'_>, f32) -> Result<Array>,
) -> Result<Array> {
    let RopeOptions { dims, traditional, base, scale, freqs } = rope;
    let kernel = Rope {
        dims: dims as usize,
        traditional,
        base: base.unwrap_or(0.0),
        scale,
        magnitude,
        offset: match offset {
            Offset::Int(offset) => Some(offset),
            Offset::Array(_) => None,
        },
        has_freqs: freqs.is_some(),
        isa: options().isa,
    };
    let (fixed, has_freqs) = (kernel.offset, kernel.has_freqs);
    let fallback = move |inputs: &[Array]| {
        let freqs = inputs.get(1).filter(|_| has_freqs);
        let rope = RopeOptions { dims, traditional, base, scale, freqs };
        let offset = match (fixed, inputs.last()) {
            (None, Some(offset)) => Offset::Array(offset),
            (fixed, _) => Offset::Int(fixed.unwrap_or(0)),
        };
        Ok(vec![fallback(&inputs[0], rope, offset, magnitude)?])
    };
    let mut inputs = vec![x];
    inputs.extend(freqs);
    if let Offset::Array(offset) = offset {
        inputs.push(offset);
    }
    let outputs = ffi::host_op(kernel, &inputs, &[(x.shape(), x.dtype())], Box::new(fallback))?;
    super::only("rope", outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn;
    use crate::ops::Closeness;
    use crate::transforms::{compile, grad_once, vmap};
    use crate::{Device, fast, random, with_device};

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    fn normal(shape: &[i32], dtype: Dtype) -> Result<Array> {
        random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(5)?))?.astype(dtype)
    }

    fn ours(x: &Array, options: RopeOptions<'_>, offset: Offset<'_>) -> Result<Array> {
        assert!(has_rope(x, &options, &offset)?);
        rope(x, options, offset, 1.0, |x, options, offset, _| fast::rope(x, options, offset))
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            let freqs = Array::from_slice(&[1.0f32, 7.0, 90.0, 1500.0], &[4])?;
            let offsets = Array::from_slice(&[3, 40], &[2])?;
            for (dtype, rtol) in
                [(Dtype::Float32, 1e-5), (Dtype::Float16, 2e-3), (Dtype::Bfloat16, 2e-2)]
            {
                for shape in [&[2, 3, 5, 16][..], &[2, 5, 16], &[2, 3, 2, 5, 16], &[2, 0, 5, 16]] {
                    let x = normal(shape, dtype)?;
                    for traditional in [false, true] {
                        for (dims, base, freqs) in [
                            (16, Some(1e4f32), None),
                            (10, Some(500.0), None),
                            (8, None, Some(&freqs)),
                        ] {
                            let options =
                                RopeOptions { dims, traditional, base, scale: 0.5, freqs };
                            for offset in
                                [Offset::Int(0), Offset::Int(1000), Offset::Array(&offsets)]
                            {
                                let expected = fast::rope(&x, options, offset)?;
                                check_close(&ours(&x, options, offset)?, &expected, rtol)?;
                            }
                        }
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms_and_on_views() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = normal(&[2, 5, 3, 8], Dtype::Float32)?.transpose([0, 2, 1, 3])?;
            let options = RopeOptions {
                dims: 8,
                traditional: false,
                base: Some(1e4),
                scale: 1.0,
                freqs: None,
            };
            let f = move |x: &[Array]| Ok(vec![ours(&x[0], options, Offset::Int(7))?]);
            let expected = fast::rope(&x, options, Offset::Int(7))?;
            let inputs = [x.clone()];
            check_close(&f(&inputs)?[0], &expected, 1e-5)?;
            check_close(&compile(f, false)?.call(&inputs)?[0], &expected, 1e-5)?;
            let stacked = [x.expand_dims(0)?];
            check_close(&vmap(f, &[Some(0)], 0)?.call(&stacked)?[0].squeeze(0)?, &expected, 1e-5)?;
            let loss = |y: Array| Ok(vec![y.square()?.multiply(&x)?.sum(.., false)?]);
            let by_mlx = |x: &[Array]| loss(fast::rope(&x[0], options, Offset::Int(7))?);
            let by_us = |x: &[Array]| loss(ours(&x[0], options, Offset::Int(7))?);
            check_close(&grad_once(by_us, &inputs, 0)?[0], &grad_once(by_mlx, &inputs, 0)?[0], 1e-4)
        })
    }

    /// An offset is part of the node: two of them are no common subexpression.
    #[test]
    fn a_compiled_function_keeps_offsets_apart() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = normal(&[1, 2, 3, 8], Dtype::Float32)?;
            let rotate = |x: &Array, offset: i32| nn::Rope::new(8, 1e4).forward(x, offset);
            let difference = move |x: &[Array]| Ok(vec![(rotate(&x[0], 1)? - rotate(&x[0], 9)?)?]);
            let inputs = [x];
            let expected = &difference(&inputs)?[0];
            assert!(expected.abs()?.max(.., false)?.item::<f32>()? > 0.1);
            check_close(&compile(difference, false)?.call(&inputs)?[0], expected, 1e-6)
        })
    }

    /// YaRN's factor is on what is rotated alone.
    #[test]
    fn a_magnitude_is_mlx_s_product() -> Result<()> {
        with_device(Device::Cpu, || {
            for (dtype, rtol) in [(Dtype::Float32, 1e-5), (Dtype::Bfloat16, 2e-2)] {
                let x = normal(&[2, 3, 4, 12], dtype)?;
                for dims in [8, 12] {
                    let layer = nn::Rope { magnitude: 1.3, ..nn::Rope::new(dims, 1e4) };
                    let ones = crate::ops::ones(&[dims], dtype)?.multiply(1.3)?;
                    let rest = crate::ops::ones(&[12 - dims], dtype)?;
                    let scaled = (&x * crate::ops::concatenate([&ones, &rest], -1)?)?;
                    let expected = nn::Rope::new(dims, 1e4).forward(&scaled, 5)?;
                    check_close(&layer.forward(&x, 5)?, &expected, rtol)?;
                }
            }
            Ok(())
        })
    }
}
