//! The recurrence of state-space models in one pass over the tokens.

use std::ffi::CStr;

use super::compute::ssm::{self as compute, Rows};
use super::{Float, Isa, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

/// The inputs of [`nn::SsmScan`](crate::nn::SsmScan), `x`, `b` and `c` of one type, the others in
/// float32.
#[derive(Clone, Debug)]
pub(crate) struct SsmArrays {
    pub(crate) x: Array,
    pub(crate) dt: Array,
    pub(crate) a: Array,
    pub(crate) b: Array,
    pub(crate) c: Array,
    pub(crate) d: Array,
    pub(crate) state: Array,
}

struct SsmScan {
    isa: Isa,
}

/// The places of `x`, `b` and `c` among the inputs.
const LAID: [usize; 3] = [0, 1, 2];

impl HostKernel for SsmScan {
    const NAME: &'static CStr = c"ssm_scan";

    fn params(&self) -> Vec<u64> {
        vec![isa_number(self.isa)]
    }

    /// They are parts of one array as a rule.
    fn takes_strided(&self, input: usize) -> bool {
        LAID.contains(&input)
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([x, b, c, dt, a, d, state], [y, next]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 7", inputs.len()));
        };
        let (&[n_b, l, h, p], &[_, _, g, n]) = (x.shape, b.shape) else {
            return Err(format!("inputs {:?} and {:?}", x.shape, b.shape));
        };
        with_float!(x.dtype, T => {
            let scan = compute::Scan::<'_, T> {
                sizes: [n_b, l, h, p, g, n].map(|size| size as usize),
                x: rows(x)?,
                dt: elements(dt.bytes)?,
                a: elements(a.bytes)?,
                b: rows(b)?,
                c: rows(c)?,
                d: elements(d.bytes)?,
                state: elements(state.bytes)?,
            };
            compute::scan(self.isa, &scan, elements_mut(y.bytes)?, elements_mut(next.bytes)?);
            Ok(())
        })
    }
}

fn rows<'a, T: Float>(input: &HostInput<'a>) -> Result<Rows<'a, T>, String> {
    let strides = <[i64; 4]>::try_from(input.strides).map_err(|e| e.to_string())?;
    Ok(Rows { data: elements(input.bytes)?, start: input.start, strides })
}

/// [`nn::SsmScan`](crate::nn::SsmScan) by a kernel of ours, for arrays whose shapes fit; `fallback` does
/// the same by ops.
///
/// # Errors
/// When the current device is no CPU.
pub(crate) fn ssm_scan(
    arrays: &SsmArrays,
    fallback: fn(&SsmArrays) -> Result<(Array, Array)>,
) -> Result<(Array, Array)> {
    let SsmArrays { x, dt, a, b, c, d, state } = arrays;
    let fallback = move |inputs: &[Array]| {
        let [x, b, c, dt, a, d, state] = std::array::from_fn(|i| inputs[i].clone());
        let (y, state) = fallback(&SsmArrays { x, dt, a, b, c, d, state })?;
        Ok(vec![y, state])
    };
    let kernel = SsmScan { isa: options().isa };
    let specs = [(x.shape(), x.dtype()), (state.shape(), Dtype::Float32)];
    let inputs = [x, b, c, dt, a, d, state];
    let outputs = ffi::host_op(kernel, &inputs, &specs, Box::new(fallback))?;
    match <[Array; 2]>::try_from(outputs) {
        Ok([y, state]) => Ok((y, state)),
        Err(_) => Err(Error::new(ErrorKind::Runtime, "ssm_scan: not two outputs")),
    }
}
