//! Short convolutions over time, with the inputs that they remember.

use std::ffi::CStr;

use super::compute::causal_conv::{self as compute, CausalConv};
use super::{Float, Isa, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::{NewAxis, nn, ops};

/// Arrays of [`nn::CausalConv`](crate::nn::CausalConv).
#[derive(Clone, Debug)]
pub(crate) struct CausalConvArrays {
    /// `[B, L, C]`
    pub(crate) x: Array,
    /// `[C, K, 1]`
    pub(crate) weight: Array,
    /// `[C]`
    pub(crate) bias: Option<Array>,
    /// `[B, K - 1, C]`, zeros where it is absent.
    pub(crate) before: Option<Array>,
    /// `[B, L]` of bool
    pub(crate) tokens: Option<Array>,
}

impl CausalConvArrays {
    fn inputs(&self) -> Vec<&Array> {
        let CausalConvArrays { x, weight, bias, before, tokens } = self;
        [x, weight].into_iter().chain(bias).chain(before).chain(tokens).collect()
    }
}

#[derive(Clone, Copy)]
struct Conv {
    has_silu: bool,
    /// Whether there are a bias, inputs before, and tokens.
    has: [bool; 3],
    isa: Isa,
}

impl HostKernel for Conv {
    const NAME: &'static CStr = c"causal_conv";

    fn params(&self) -> Vec<u64> {
        let has = self.has.into_iter().chain([self.has_silu]);
        let flags = has.fold(0, |flags, has| flags << 1 | u64::from(has));
        vec![flags, isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, ..], [out, after]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        with_float!(x.dtype, T => self.compute::<T>(inputs, [out, after]))
    }
}

impl Conv {
    fn compute<T: Float>(
        &self,
        inputs: &[HostInput<'_>],
        [out, after]: [&mut HostOutput<'_>; 2],
    ) -> Result<(), String> {
        let [x, weight, rest @ ..] = inputs else {
            return Err(format!("{} inputs", inputs.len()));
        };
        let mut rest = rest.iter();
        let mut next = |i: usize| match self.has[i] {
            true => rest.next().map(Some).ok_or_else(|| "too few inputs".to_owned()),
            false => Ok(None),
        };
        let (bias, before, tokens) = (next(0)?, next(1)?, next(2)?);
        let (&[_, l, _], &[c, k, _]) = (x.shape, weight.shape) else {
            return Err(format!("inputs {:?}, weight {:?}", x.shape, weight.shape));
        };
        let conv = CausalConv::<T> {
            sizes: [l, c, k].map(|n| n as usize),
            x: elements(x.bytes)?,
            before: optional(before)?,
            weight: elements(weight.bytes)?,
            bias: optional(bias)?,
            tokens: tokens.map(|tokens| tokens.bytes),
            has_silu: self.has_silu,
        };
        compute::causal_conv(self.isa, &conv, elements_mut(out.bytes)?, elements_mut(after.bytes)?);
        Ok(())
    }
}

fn optional<'a, T: Float>(input: Option<&HostInput<'a>>) -> Result<Option<&'a [T]>, String> {
    input.map(|input| elements(input.bytes)).transpose()
}

/// Does what [`nn::CausalConv`](crate::nn::CausalConv) says.
///
/// # Errors
/// When shapes and dtypes do not fit.
pub(crate) fn causal_conv(arrays: CausalConvArrays, has_silu: bool) -> Result<(Array, Array)> {
    check(&arrays)?;
    let CausalConvArrays { x, weight, bias, before, tokens } = &arrays;
    let has = [bias, before, tokens].map(|array| array.is_some());
    let floats = [weight].into_iter().chain(bias).chain(before);
    let is_alike = floats.into_iter().all(|array| array.dtype() == x.dtype());
    if !is_alike || x.size() == 0 || !super::are_for(x.dtype())? {
        return by_ops(arrays, has_silu);
    }
    let ([b, _, c], k) = (x.dims()?, weight.dim(1)?);
    let specs = [(x.shape(), x.dtype()), (&[b, k - 1, c][..], x.dtype())];
    let fallback = move |inputs: &[Array]| {
        let [x, weight, rest @ ..] = inputs else {
            return Err(Error::new(ErrorKind::Runtime, "causal convolution: too few inputs"));
        };
        let mut rest = rest.iter().cloned();
        let mut next = |i: usize| if has[i] { rest.next() } else { None };
        let arrays = CausalConvArrays {
            x: x.clone(),
            weight: weight.clone(),
            bias: next(0),
            before: next(1),
            tokens: next(2),
        };
        let (out, after) = by_ops(arrays, has_silu)?;
        Ok(vec![out, after])
    };
    let kernel = Conv { has_silu, has, isa: options().isa };
    let outputs = ffi::host_op(kernel, &arrays.inputs(), &specs, Box::new(fallback))?;
    match <[Array; 2]>::try_from(outputs) {
        Ok([out, after]) => Ok((out, after)),
        Err(_) => Err(Error::new(ErrorKind::Runtime, "causal convolution: not two outputs")),
    }
}

/// Does as the kernel, by ops: on a GPU, and for transforms.
fn by_ops(arrays: CausalConvArrays, has_silu: bool) -> Result<(Array, Array)> {
    let CausalConvArrays { x, weight, bias, before, tokens } = arrays;
    let ([b, l, c], k, dtype) = (x.dims()?, weight.dim(1)?, x.dtype());
    let x = match tokens {
        Some(tokens) => ops::where_(&tokens.expand_dims(-1)?, &x, 0.0)?,
        None => x,
    };
    let before = match before {
        Some(before) => before,
        None => ops::zeros(&[b, k - 1, c], dtype)?,
    };
    let inputs = ops::concatenate([&before, &x], 1)?;
    let after = inputs.at((.., l..))?;
    let (inputs, weight) = (inputs.astype(Dtype::Float32)?, weight.astype(Dtype::Float32)?);
    let tap = |j: i32| inputs.at((.., j..j + l))? * weight.at((NewAxis, NewAxis, .., j, 0))?;
    let mut sum = (1..k).try_fold(tap(0)?, |sum, j| sum + tap(j)?)?;
    if let Some(bias) = bias {
        sum = (sum + bias.astype(Dtype::Float32)?)?;
    }
    if has_silu {
        sum = nn::silu(&sum)?;
    }
    Ok((sum.astype(dtype)?, after))
}

fn check(arrays: &CausalConvArrays) -> Result<()> {
    let CausalConvArrays { x, weight, bias, before, tokens } = arrays;
    let fits = match (x.shape(), weight.shape()) {
        (&[b, l, c], &[of_weight, k, 1]) => {
            c == of_weight
                && k > 0
                && bias.iter().all(|bias| bias.shape() == [c])
                && before.iter().all(|before| before.shape() == [b, k - 1, c])
                && tokens
                    .iter()
                    .all(|tokens| tokens.shape() == [b, l] && tokens.dtype() == Dtype::Bool)
        }
        _ => false,
    };
    let mut floats = [x, weight].into_iter().chain(bias).chain(before);
    if fits && floats.all(|array| array.dtype().is_floating()) {
        return Ok(());
    }
    let text = format!("causal convolution: {arrays:?} do not fit");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

#[cfg(test)]
mod tests;
