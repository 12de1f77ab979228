//! Drawing a token from a distribution over a vocabulary.

use std::ffi::CStr;

use super::compute::sampling::{TokenFilter, sample};
use super::{Isa, are_for, elements, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct SampleTokens {
    filter: TokenFilter,
    temperature: f32,
    isa: Isa,
}

impl HostKernel for SampleTokens {
    const NAME: &'static CStr = c"sample_tokens";

    fn params(&self) -> Vec<u64> {
        let TokenFilter { top_p, min_p, xtc, top_k } = &self.filter;
        let bits = |x: f32| u64::from(x.to_bits());
        let mut params = vec![isa_number(self.isa), bits(self.temperature)];
        params.extend(top_p.map_or([0, 0], |p| [1, bits(p)]));
        params.extend(min_p.map_or([0, 0, 0], |(p, keep)| [1, bits(p), keep as u64]));
        params.extend(top_k.map_or([0, 0], |k| [1, k as u64]));
        if let Some(xtc) = xtc {
            params.extend([bits(xtc.probability), bits(xtc.threshold)]);
            params.extend(xtc.special_tokens.iter().map(|&token| u64::from(token)));
        }
        params
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([logits, draws], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        let (draws, _) = elements::<f32>(draws.bytes)?.as_chunks::<2>();
        let n_tokens = logits.shape.last().map_or(1, |&n| n.max(1) as usize);
        let places = out.bytes.chunks_exact_mut(size_of::<u32>());
        with_float!(logits.dtype, T => {
            let rows = elements::<T>(logits.bytes)?.chunks_exact(n_tokens);
            for ((row, &draws), place) in rows.zip(draws).zip(places) {
                let token = sample(self.isa, row, &self.filter, self.temperature, draws);
                place.copy_from_slice(&token.to_ne_bytes());
            }
            Ok(())
        })
    }
}

/// Draws a token of each row in one pass, where the current device is a CPU; elsewhere, and for
/// transforms, `ops` does the same.
///
/// `draws` are two numbers from 0 up to 1 for each row: the token drawn is the first up to which lies
/// more than the first number's share of all `softmax(filter(log_softmax(logits)) / temperature)`; the
/// second says whether XTC applies.
///
/// # Shape
/// `logits: […, V]`, `draws: […, 2]` in float32 `→ […]` in uint32
///
/// # Errors
/// Those of `ops`, and when memory runs out.
pub fn sample_tokens(
    logits: &Array,
    draws: &Array,
    filter: TokenFilter,
    temperature: f32,
    ops: impl Fn(&Array, &Array) -> Result<Array> + 'static,
) -> Result<Array> {
    let (rows, n_tokens) = match logits.shape() {
        [rows @ .., n_tokens] => (rows, *n_tokens),
        [] => return ops(logits, draws),
    };
    let is_for_each = draws.dtype() == Dtype::Float32 && draws.shape() == [rows, &[2]].concat();
    if n_tokens == 0 || !is_for_each || !are_for(logits.dtype())? {
        return ops(logits, draws);
    }
    let kernel = SampleTokens { filter, temperature, isa: options().isa };
    let fallback = move |inputs: &[Array]| Ok(vec![ops(&inputs[0], &inputs[1])?]);
    super::only(
        "sample_tokens",
        ffi::host_op(kernel, &[logits, draws], &[(rows, Dtype::Uint32)], Box::new(fallback))?,
    )
}
