//! The gated delta rule in one pass over the tokens.

use std::ffi::CStr;

use super::compute::gated_delta::{self as compute, GatedDelta, Sizes};
use super::{Float, Isa, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

mod by_ops;
#[cfg(test)]
mod tests;

use by_ops::by_ops;

/// Numbers of [`nn::GatedDelta`](crate::nn::GatedDelta).
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedDeltaParts {
    pub(crate) n_key_heads: i32,
    pub(crate) key_head_dim: i32,
    pub(crate) eps: f32,
}

/// Arrays of [`nn::GatedDelta`](crate::nn::GatedDelta).
#[derive(Clone, Debug)]
pub(crate) struct GatedDeltaArrays {
    /// `[B, L, 2 * HK * D + HV * DV]`
    pub(crate) qkv: Array,
    /// `[B, L, HV * DV]`
    pub(crate) z: Array,
    /// `[B, L, HV]`
    pub(crate) b: Array,
    /// `[B, L, HV]`
    pub(crate) a: Array,
    /// `[HV]`
    pub(crate) a_log: Array,
    /// `[HV]`
    pub(crate) dt_bias: Array,
    /// `[DV]`
    pub(crate) norm: Array,
    /// `[B, HV, DV, D]`, zeros where it is absent.
    pub(crate) state: Option<Array>,
    /// `[B, L]` of bool
    pub(crate) tokens: Option<Array>,
}

impl GatedDeltaArrays {
    fn inputs(&self) -> Vec<&Array> {
        let GatedDeltaArrays { qkv, z, b, a, a_log, dt_bias, norm, state, tokens } = self;
        let all = [qkv, z, b, a, a_log, dt_bias, norm].into_iter();
        all.chain(state).chain(tokens).collect()
    }

    /// Returns arrays in the order of [`GatedDeltaArrays::inputs`] under their names.
    fn from_inputs(inputs: &[Array], has_state: bool, has_tokens: bool) -> Result<Self> {
        let mut inputs = inputs.iter().cloned();
        let mut next = || {
            let few = || Error::new(ErrorKind::Runtime, "gated delta: too few inputs");
            inputs.next().ok_or_else(few)
        };
        Ok(GatedDeltaArrays {
            qkv: next()?,
            z: next()?,
            b: next()?,
            a: next()?,
            a_log: next()?,
            dt_bias: next()?,
            norm: next()?,
            state: has_state.then(&mut next).transpose()?,
            tokens: has_tokens.then(&mut next).transpose()?,
        })
    }
}

#[derive(Clone, Copy)]
struct Rule {
    parts: GatedDeltaParts,
    has_state: bool,
    has_tokens: bool,
    isa: Isa,
}

impl HostKernel for Rule {
    const NAME: &'static CStr = c"gated_delta";

    fn params(&self) -> Vec<u64> {
        let GatedDeltaParts { n_key_heads, key_head_dim, eps } = self.parts;
        vec![
            n_key_heads as u64,
            key_head_dim as u64,
            eps.to_bits().into(),
            self.has_state.into(),
            self.has_tokens.into(),
            isa_number(self.isa),
        ]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([qkv, ..], [out, state]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        with_float!(qkv.dtype, T => self.compute::<T>(inputs, [out, state]))
    }
}

impl Rule {
    fn compute<T: Float>(
        &self,
        inputs: &[HostInput<'_>],
        [out, after]: [&mut HostOutput<'_>; 2],
    ) -> Result<(), String> {
        let Some(([qkv, z, b, a, a_log, dt_bias, norm], rest)) = inputs.split_first_chunk() else {
            return Err(format!("{} inputs", inputs.len()));
        };
        let (state, tokens) = rest.split_at_checked(self.has_state.into()).unwrap_or_default();
        if tokens.len() != usize::from(self.has_tokens) {
            return Err(format!("{} inputs", inputs.len()));
        }
        let (&[n, l, _], &[hv], &[dv]) = (qkv.shape, a_log.shape, norm.shape) else {
            return Err(format!("queries, keys and values {:?}", qkv.shape));
        };
        let [n, l, hv, dv] = [n, l, hv, dv].map(|n| n as usize);
        let (hk, d) = (self.parts.n_key_heads as usize, self.parts.key_head_dim as usize);
        let (a_log, dt_bias, norm) = (floats(a_log)?, floats(dt_bias)?, floats(norm)?);
        let rule = GatedDelta::<T> {
            sizes: Sizes { n, l, hk, hv, d, dv },
            qkv: elements(qkv.bytes)?,
            z: elements(z.bytes)?,
            b: elements(b.bytes)?,
            a: elements(a.bytes)?,
            a_log: &a_log,
            dt_bias: &dt_bias,
            norm: &norm,
            eps: self.parts.eps,
            state: state.first().map(|state| elements(state.bytes)).transpose()?,
            tokens: tokens.first().map(|tokens| tokens.bytes),
        };
        compute::gated_delta(self.isa, &rule, elements_mut(after.bytes)?, elements_mut(out.bytes)?);
        Ok(())
    }
}

/// Returns few elements in float32.
fn floats(input: &HostInput<'_>) -> Result<Vec<f32>, String> {
    with_float!(input.dtype, T => {
        Ok(elements::<T>(input.bytes)?.iter().map(|x| x.to_f32()).collect())
    })
}

/// Does what [`nn::GatedDelta`](crate::nn::GatedDelta) says.
///
/// # Errors
/// When shapes and dtypes do not fit.
pub(crate) fn gated_delta(
    parts: GatedDeltaParts,
    arrays: GatedDeltaArrays,
) -> Result<(Array, Array)> {
    check(&parts, &arrays)?;
    if !has_kernel(&arrays)? {
        return by_ops(&parts, arrays);
    }
    let ([n, l, _], hv, dv) = (arrays.qkv.dims()?, arrays.a.dim(-1)?, arrays.norm.dim(0)?);
    let (has_state, has_tokens) = (arrays.state.is_some(), arrays.tokens.is_some());
    let (out, state) = ([n, l, hv * dv], [n, hv, dv, parts.key_head_dim]);
    let specs = [(&out[..], arrays.qkv.dtype()), (&state[..], Dtype::Float32)];
    let fallback = move |inputs: &[Array]| {
        let arrays = GatedDeltaArrays::from_inputs(inputs, has_state, has_tokens)?;
        let (out, state) = by_ops(&parts, arrays)?;
        Ok(vec![out, state])
    };
    let kernel = Rule { parts, has_state, has_tokens, isa: options().isa };
    let outputs = ffi::host_op(kernel, &arrays.inputs(), &specs, Box::new(fallback))?;
    match <[Array; 2]>::try_from(outputs) {
        Ok([out, state]) => Ok((out, state)),
        Err(_) => Err(Error::new(ErrorKind::Runtime, "gated delta: not two outputs")),
    }
}

fn has_kernel(arrays: &GatedDeltaArrays) -> Result<bool> {
    let GatedDeltaArrays { qkv, z, b, a, a_log, dt_bias, norm, .. } = arrays;
    let is_alike = [z, b, a].into_iter().all(|x| x.dtype() == qkv.dtype());
    let all = [qkv, a_log, dt_bias, norm].into_iter();
    let is_float = all.map(|x| super::are_for(x.dtype())).collect::<Result<Vec<_>>>()?;
    Ok(is_alike && is_float.into_iter().all(|is_float| is_float))
}

fn check(parts: &GatedDeltaParts, arrays: &GatedDeltaArrays) -> Result<()> {
    let GatedDeltaArrays { qkv, z, b, a, a_log, dt_bias, norm, state, tokens } = arrays;
    let GatedDeltaParts { n_key_heads: hk, key_head_dim: d, .. } = *parts;
    let fits = match (qkv.shape(), a.shape(), norm.shape()) {
        (&[n, l, size], &[_, _, hv], &[dv]) => {
            let sizes = || {
                let (keys, values) = (hk.checked_mul(d)?.checked_mul(2)?, hv.checked_mul(dv)?);
                Some((keys.checked_add(values)?, values))
            };
            let is_positive = [hk, d, hv, dv].into_iter().all(|size| size > 0);
            is_positive
                && hv % hk == 0
                && sizes().is_some_and(|(all, values)| size == all && z.shape() == [n, l, values])
                && [a, b].into_iter().all(|x| x.shape() == [n, l, hv])
                && [a_log, dt_bias].into_iter().all(|x| x.shape() == [hv])
                && state
                    .iter()
                    .all(|state| state.shape() == [n, hv, dv, d] && state.dtype() == Dtype::Float32)
                && tokens
                    .iter()
                    .all(|tokens| tokens.shape() == [n, l] && tokens.dtype() == Dtype::Bool)
        }
        _ => false,
    };
    let is_floating = [qkv, z, b, a, a_log, dt_bias, norm].iter().all(|x| x.dtype().is_floating());
    if fits && is_floating {
        return Ok(());
    }
    let text = format!("gated delta: {arrays:?} do not fit {parts:?}");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}
