//! Sums and products between other kernels, so that these can stay one node.

use std::ffi::CStr;

use super::compute::elementwise::{Elementwise, elementwise};
use super::{Isa, are_for, elements, elements_mut, isa_number, options, with_float};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

struct Binary {
    function: Elementwise,
    isa: Isa,
}

impl HostKernel for Binary {
    const NAME: &'static CStr = c"elementwise";

    fn params(&self) -> Vec<u64> {
        vec![self.function as u64, isa_number(self.isa)]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([a, b], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        with_float!(a.dtype, T => {
            let (a, b) = (elements::<T>(a.bytes)?, elements::<T>(b.bytes)?);
            elementwise(self.isa, self.function, a, b, elements_mut(out.bytes)?);
            Ok(())
        })
    }
}

/// Returns the sum of a kernel's result that is no node yet and another array of its shape and dtype;
/// nothing where it is not like that.
///
/// # Errors
/// When there is no current stream.
pub(crate) fn add(a: &Array, b: &Array) -> Result<Option<Array>> {
    binary(Elementwise::Add, a, b)
}

/// Returns the product, as [`add`].
///
/// # Errors
/// As there.
pub(crate) fn multiply(a: &Array, b: &Array) -> Result<Option<Array>> {
    binary(Elementwise::Multiply, a, b)
}

fn binary(function: Elementwise, a: &Array, b: &Array) -> Result<Option<Array>> {
    let is_between = ffi::is_recorded(a) || ffi::is_recorded(b);
    if !is_between || (a.shape(), a.dtype()) != (b.shape(), b.dtype()) || !are_for(a.dtype())? {
        return Ok(None);
    }
    let fallback = move |inputs: &[Array]| {
        let (a, b) = (&inputs[0], &inputs[1]);
        Ok(vec![match function {
            Elementwise::Add => a.add(b),
            Elementwise::Multiply => a.multiply(b),
        }?])
    };
    let kernel = Binary { function, isa: options().isa };
    let outputs = ffi::host_op(kernel, &[a, b], &[(a.shape(), a.dtype())], Box::new(fallback))?;
    super::only("elementwise", outputs).map(Some)
}
