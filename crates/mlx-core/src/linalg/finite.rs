//! A guard before the decompositions that do not bear NaN or infinity.
//!
//! Given either, LAPACK's eigenvalue and singular value routines do not converge, or report an
//! illegal argument, upon which the reference LAPACK ends the process. So the matrix passes
//! through a node that looks at each element first.

use std::ffi::CStr;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct Finite;

impl HostKernel for Finite {
    const NAME: &'static CStr = c"linalg";

    fn params(&self) -> Vec<u64> {
        Vec::new()
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([a], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 1", inputs.len()));
        };
        let finite = match a.dtype {
            Dtype::Float64 => all(a.bytes, |bytes| f64::from_ne_bytes(bytes).is_finite()),
            // A complex number is two of these.
            _ => all(a.bytes, |bytes| f32::from_ne_bytes(bytes).is_finite()),
        };
        if finite {
            out.bytes.copy_from_slice(a.bytes);
            return Ok(());
        }
        // The task behind this one runs in spite of the error.
        out.bytes.fill(0);
        Err(format!("NaN or infinity in a matrix of shape {:?}", a.shape))
    }
}

fn all<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> bool {
    bytes.as_chunks::<N>().0.iter().all(|element| is_finite(*element))
}

/// Returns `a` behind a node whose evaluation fails when `a` has an element that is not finite.
pub(super) fn finite(a: &Array) -> Result<Array> {
    if !matches!(a.dtype(), Dtype::Float32 | Dtype::Float64 | Dtype::Complex64) {
        // MLX refuses these itself.
        return Ok(a.clone());
    }
    let same = Box::new(|inputs: &[Array]| Ok(inputs.to_vec()));
    let outputs = ffi::host_op(Finite, &[a], &[(a.shape(), a.dtype())], same)?;
    outputs.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Runtime, "linalg: no output"))
}
