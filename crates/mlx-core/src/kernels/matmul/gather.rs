//! Products with dense weights that indices choose from a stack.

use std::borrow::Cow;
use std::ffi::CStr;

use half::{bf16, f16};

use super::super::compute::matmul::{Element, gather_matmul};
use super::super::routes;
use super::super::{Isa, elements, elements_mut, options};
use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::ops::{gather_mm_by_mlx, matrix_indices};
use crate::stream;

/// Which weights go with which rows of input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GatherLinear<'a> {
    pub(crate) lhs_indices: Option<&'a Array>,
    pub(crate) rhs_indices: Option<&'a Array>,
    /// Of meaning to MLX only.
    pub(crate) sorted_indices: bool,
}

struct Kernel {
    has_bias: bool,
    has_lhs_indices: bool,
    has_rhs_indices: bool,
    isa: Isa,
}

/// The stack among the inputs.
const WEIGHT: usize = 1;

impl HostKernel for Kernel {
    const NAME: &'static CStr = c"gather_linear";

    fn params(&self) -> Vec<u64> {
        let flags = [self.has_bias, self.has_lhs_indices, self.has_rhs_indices];
        flags.into_iter().map(u64::from).chain([super::super::isa_number(self.isa)]).collect()
    }

    fn takes_strided(&self, input: usize) -> bool {
        input == WEIGHT
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, ..], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        match x.dtype {
            Dtype::Float32 => self.products::<f32>(inputs, out),
            Dtype::Float16 => self.products::<f16>(inputs, out),
            Dtype::Bfloat16 => self.products::<bf16>(inputs, out),
            dtype => Err(format!("no kernel for {dtype}")),
        }
    }
}

impl Kernel {
    fn products<T: Element>(
        &self,
        inputs: &[HostInput<'_>],
        out: &mut HostOutput<'_>,
    ) -> Result<(), String> {
        let mut rest = inputs.iter();
        let mut next = |is_there: bool| if is_there { rest.next() } else { None };
        let (x, w, bias) = (next(true), next(true), next(self.has_bias));
        let indices = [next(self.has_lhs_indices), next(self.has_rhs_indices)];
        let (Some(x), Some(w)) = (x, w) else { return Err(format!("{} inputs", inputs.len())) };
        let routes = routes::routes(x.shape, w.shape, indices, out.shape)?;
        let (Some(&[n, k]), Some(x_k)) = (w.shape.last_chunk(), x.shape.last()) else {
            return Err(format!("input {:?}, weight {:?}", x.shape, w.shape));
        };
        if k != *x_k || out.shape.last() != Some(&n) || w.dtype != x.dtype {
            return Err(format!(
                "input {:?}, weight {:?}, output {:?}",
                x.shape, w.shape, out.shape
            ));
        }
        let stack = Stack::<T> { data: elements(w.bytes)?, w };
        let bias = bias.map(|bias| elements::<T>(bias.bytes)).transpose()?;
        let sizes = [n as usize, k as usize];
        let (x, out) = (elements(x.bytes)?, elements_mut(out.bytes)?);
        gather_matmul(self.isa, x, sizes, &|i| stack.matrix(i), bias, &routes, out);
        Ok(())
    }
}

/// Matrices, `[…, N, K]`, as they lie.
struct Stack<'a, T> {
    data: &'a [T],
    w: &'a HostInput<'a>,
}

impl<'a, T: Element> Stack<'a, T> {
    /// Returns a matrix row by row, which is a copy where it lies in another way.
    fn matrix(&self, i: usize) -> Cow<'a, [T]> {
        let (shape, strides) = (self.w.shape, self.w.strides);
        let (batch, [n, k]) = shape.split_last_chunk().expect("checked by the kernel");
        let mut at = self.w.start as i64;
        let mut rest = i as i64;
        for (&size, stride) in batch.iter().zip(strides).rev() {
            at += rest % i64::from(size) * stride;
            rest /= i64::from(size);
        }
        let [rows, columns] = [strides[batch.len()], strides[batch.len() + 1]];
        let (n, k) = (i64::from(*n), i64::from(*k));
        if (columns == 1 || k < 2) && (rows == k || n < 2) {
            return Cow::Borrowed(&self.data[at as usize..][..(n * k) as usize]);
        }
        // Along the axis that lies closer first, so that memory is read on and on.
        let mut copy = vec![T::default(); (n * k) as usize];
        for a in 0..if columns < rows { n } else { k } {
            for b in 0..if columns < rows { k } else { n } {
                let (row, column) = if columns < rows { (a, b) } else { (b, a) };
                let from = at + row * rows + column * columns;
                copy[(row * k + column) as usize] = self.data[from as usize];
            }
        }
        Cow::Owned(copy)
    }
}

/// Tells whether [`gather_linear`] takes these.
///
/// # Errors
/// When there is no current stream.
pub(crate) fn has_gather_linear(x: &Array, w: &Array) -> Result<bool> {
    let is_float = matches!(x.dtype(), Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16);
    let is_matrix = x.ndim() > 1 && w.ndim() > 1 && x.shape().last() == w.shape().last();
    let fits = is_float && is_matrix && x.dtype() == w.dtype() && x.size() > 0 && w.size() > 0;
    Ok(fits && stream::current_device()? == Device::Cpu)
}

/// `x × wᵀ + bias` with the matrices that indices choose, by a kernel of ours, summed in float32. A bias
/// goes with indices into the weights.
///
/// # Shape
/// `x: [A…, M, K]`, `w: [B…, N, K]`, `bias: [E, N]`, indices into the flattened `A…` and `B…` that
/// broadcast to `I…` → `[I…, M, N]`
///
/// # Errors
/// When the current device is no CPU, shapes and dtypes do not fit, or the host has an index at hand that
/// is out of range.
pub(crate) fn gather_linear(
    x: &Array,
    w: &Array,
    bias: Option<&Array>,
    gather: GatherLinear<'_>,
) -> Result<Array> {
    let GatherLinear { lhs_indices, rhs_indices, sorted_indices } = gather;
    let bias_fits = bias.is_none_or(|bias| {
        let fits = w.ndim() == 3 && bias.shape() == &w.shape()[..2] && bias.dtype() == w.dtype();
        fits && rhs_indices.is_some()
    });
    if !has_gather_linear(x, w)? || !bias_fits {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("gather_linear: input {x:?}, weight {w:?} and bias {bias:?} do not fit"),
        ));
    }
    let mut shape = routes::places("gather_mm", x.shape(), w.shape(), [lhs_indices, rhs_indices])?;
    shape.extend([x.dim(-2)?, w.dim(-2)?]);
    let inputs: Vec<&Array> =
        [x, w].into_iter().chain(bias).chain(lhs_indices).chain(rhs_indices).collect();
    let kernel = Kernel {
        has_bias: bias.is_some(),
        has_lhs_indices: lhs_indices.is_some(),
        has_rhs_indices: rhs_indices.is_some(),
        isa: options().isa,
    };
    let (has_bias, has_lhs, has_rhs) =
        (kernel.has_bias, kernel.has_lhs_indices, kernel.has_rhs_indices);
    let fallback = move |inputs: &[Array]| {
        let mut rest = inputs.iter();
        let mut next = |is_there: bool| if is_there { rest.next() } else { None };
        let (Some(x), Some(w)) = (next(true), next(true)) else { return Ok(vec![]) };
        let (bias, lhs, rhs) = (next(has_bias), next(has_lhs), next(has_rhs));
        // MLX takes float32 only.
        let wide = |x: &Array| x.astype(Dtype::Float32);
        let product =
            gather_mm_by_mlx(&wide(x)?, &wide(w)?.swapaxes(-1, -2)?, lhs, rhs, sorted_indices)?;
        let chosen = matrix_indices("gather_mm", w, rhs)?;
        let product = match (bias, chosen) {
            (Some(bias), Some(chosen)) => (product + bias.take(&chosen, 0)?.expand_dims(-2))?,
            _ => product,
        };
        Ok(vec![product.astype(x.dtype())?])
    };
    let outputs = ffi::host_op(kernel, &inputs, &[(&shape, x.dtype())], Box::new(fallback))?;
    super::super::only("gather_mm", outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Closeness, gather_mm};
    use crate::transforms::{compile, grad_once};
    use crate::{random, with_device};

    const DTYPES: [(Dtype, f64); 3] =
        [(Dtype::Float32, 1e-5), (Dtype::Float16, 2e-3), (Dtype::Bfloat16, 2e-2)];

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    fn normal(shape: &[i32], seed: u64) -> Result<Array> {
        random::normal(shape, Dtype::Float32, 0.0, 0.5, Some(&random::key(seed)?))
    }

    /// By MLX, in float32.
    fn expected(x: &Array, b: &Array, [lhs, rhs]: [Option<&Array>; 2]) -> Result<Array> {
        let wide = |x: &Array| x.astype(Dtype::Float32);
        gather_mm_by_mlx(&wide(x)?, &wide(b)?, lhs, rhs, false)?.astype(x.dtype())
    }

    #[test]
    fn agrees_with_mlx_however_weights_lie() -> Result<()> {
        with_device(Device::Cpu, || {
            let rhs = Array::from_slice(&[3u32, 0, 3, 1, 2, 3], &[3, 2])?;
            let lhs = Array::from_slice(&[1i64, 0, 2], &[3, 1])?;
            for (dtype, rtol) in DTYPES {
                let x = normal(&[3, 1, 2, 17], 1)?.astype(dtype)?;
                let rows = normal(&[4, 9, 17], 2)?.astype(dtype)?;
                let padded = normal(&[4, 20, 40], 3)?.astype(dtype)?;
                for b in [
                    rows.swapaxes(-1, -2)?,
                    rows.swapaxes(-1, -2)?.contiguous()?,
                    padded.at((.., ..17, 3..12))?,
                    rows.at((crate::Slice::step(-1), .., ..))?.swapaxes(-1, -2)?,
                    rows.reshape([2, 2, 9, 17])?.swapaxes(0, 1)?.swapaxes(-1, -2)?,
                ] {
                    for indices in [[None, Some(&rhs)], [Some(&lhs), Some(&rhs)]] {
                        let ours = gather_mm(&x, &b, indices[0], indices[1], false)?;
                        check_close(&ours, &expected(&x, &b, indices)?, rtol)?;
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn many_rows_and_a_bias() -> Result<()> {
        with_device(Device::Cpu, || {
            let rhs = crate::ops::remainder(Array::range(100)?, 3)?.astype(Dtype::Uint32)?;
            for (dtype, rtol) in DTYPES {
                let x = normal(&[100, 1, 40], 1)?.astype(dtype)?;
                let w = normal(&[4, 33, 40], 2)?.astype(dtype)?;
                let bias = normal(&[4, 33], 3)?.astype(dtype)?;
                let gather = GatherLinear { rhs_indices: Some(&rhs), ..GatherLinear::default() };
                let ours = gather_linear(&x, &w, Some(&bias), gather)?;
                let wide = |x: &Array| x.astype(Dtype::Float32);
                let product =
                    expected(&wide(&x)?, &wide(&w)?.swapaxes(-1, -2)?, [None, Some(&rhs)])?;
                let sum = (product + wide(&bias)?.take(&rhs, 0)?.expand_dims(-2))?;
                check_close(&ours, &sum.astype(dtype)?, rtol)?;
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_compile_and_grad() -> Result<()> {
        with_device(Device::Cpu, || {
            let rhs = Array::from_slice(&[1u32, 0, 1, 1], &[2, 2])?;
            let inputs = [normal(&[2, 1, 1, 8], 1)?, normal(&[2, 5, 8], 2)?, normal(&[2, 5], 3)?];
            let ours = {
                let rhs = rhs.clone();
                move |a: &[Array]| {
                    let gather = GatherLinear { rhs_indices: Some(&rhs), ..Default::default() };
                    Ok(vec![gather_linear(&a[0], &a[1], Some(&a[2]), gather)?])
                }
            };
            let theirs = move |a: &[Array]| {
                let b = a[1].swapaxes(-1, -2)?;
                let product = gather_mm_by_mlx(&a[0], &b, None, Some(&rhs), false)?;
                Ok(vec![(product + a[2].take(&rhs, 0)?.expand_dims(-2))?])
            };
            let expected = &theirs(&inputs)?[0];
            check_close(&ours(&inputs)?[0], expected, 1e-5)?;
            check_close(&compile(ours.clone(), false)?.call(&inputs)?[0], expected, 1e-5)?;
            let sum = |y: Vec<Array>| Ok(vec![y[0].square()?.sum(.., false)?]);
            for i in 0..3 {
                let ours = grad_once(|a: &[Array]| sum(ours(a)?), &inputs, i)?;
                let theirs = grad_once(|a: &[Array]| sum(theirs(a)?), &inputs, i)?;
                check_close(&ours[0], &theirs[0], 1e-4)?;
            }
            Ok(())
        })
    }
}
