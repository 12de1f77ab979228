//! Dropping tokens from a distribution over a vocabulary.

use std::ffi::CStr;

use super::compute::sampling::{TokenFilter, filter};
use super::{Isa, are_for, elements, elements_mut, isa_number, options};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct FilterTokens {
    filter: TokenFilter,
    isa: Isa,
}

impl HostKernel for FilterTokens {
    const NAME: &'static CStr = c"filter_tokens";

    fn params(&self) -> Vec<u64> {
        let TokenFilter { top_p, min_p, xtc, top_k } = &self.filter;
        let bits = |x: f32| u64::from(x.to_bits());
        let mut params = vec![isa_number(self.isa)];
        params.extend(top_p.map_or([0, 0], |p| [1, bits(p)]));
        params.extend(min_p.map_or([0, 0, 0], |(p, keep)| [1, bits(p), keep as u64]));
        params.extend(top_k.map_or([0, 0], |k| [1, k as u64]));
        if let Some(xtc) = xtc {
            params.push(bits(xtc.threshold));
            params.extend(xtc.special_tokens.iter().map(|&token| u64::from(token)));
        }
        params
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([logprobs, excludes], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        let out = elements_mut::<f32>(out.bytes)?;
        out.copy_from_slice(elements(logprobs.bytes)?);
        let n_tokens = logprobs.shape.last().map_or(0, |&n| n as usize);
        for row in out.chunks_exact_mut(n_tokens.max(1)) {
            filter(self.isa, &self.filter, excludes.bytes != [0], row);
        }
        Ok(())
    }
}

/// Sets log-probabilities that `filter` drops to minus infinity in one pass, where the current device is a
/// CPU; elsewhere, and for transforms, `ops` does the same. XTC works where `excludes`, a 0-d `bool`,
/// says so.
///
/// # Shape
/// `logprobs: […, V] → […, V]`, `float32`
///
/// # Errors
/// Those of `ops`, and when memory runs out.
pub fn filter_tokens(
    logprobs: &Array,
    excludes: &Array,
    filter: TokenFilter,
    ops: impl Fn(&Array, &Array) -> Result<Array> + 'static,
) -> Result<Array> {
    let is_flag = excludes.dtype() == Dtype::Bool && excludes.size() == 1;
    if logprobs.dtype() != Dtype::Float32 || !is_flag || !are_for(logprobs.dtype())? {
        return ops(logprobs, excludes);
    }
    let kernel = FilterTokens { filter, isa: options().isa };
    let fallback = move |inputs: &[Array]| Ok(vec![ops(&inputs[0], &inputs[1])?]);
    let spec = (logprobs.shape(), logprobs.dtype());
    super::only(
        "filter_tokens",
        ffi::host_op(kernel, &[logprobs, excludes], &[spec], Box::new(fallback))?,
    )
}
