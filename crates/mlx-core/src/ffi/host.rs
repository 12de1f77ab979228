//! CPU kernels as nodes of MLX's graph, through the shim's host primitive.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mlx_sys as sys;

use super::closure::release;
use super::{ArrayFn, ArrayVec, Closure, IntoC, check};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;

/// How the error of a kernel that panicked ends; it runs where nobody could catch the panic.
pub(super) const PANICKED: &str = "kernel panicked";

/// One array as a CPU kernel sees it: row contiguous, its bytes and its shape.
pub(crate) struct HostInput<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) shape: &'a [i32],
    pub(crate) dtype: Dtype,
}

/// An output to be written in full: freshly allocated, row contiguous.
pub(crate) struct HostOutput<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) shape: &'a [i32],
}

/// A CPU kernel behind a node of MLX's graph.
///
/// It runs on the stream's own thread, so it holds no array, and it is told apart from others of
/// its type by [`HostKernel::params`] alone.
pub(crate) trait HostKernel: Send + Sync + 'static {
    /// Name in graphs and error texts.
    const NAME: &'static CStr;

    /// Numbers that determine what the kernel computes.
    fn params(&self) -> Vec<u64>;

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String>;
}

/// Makes a node that runs `kernel` on the current CPU stream; `fallback` computes the same by
/// ordinary ops and serves vmap, jvp and vjp.
pub(crate) fn host_op<K: HostKernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[(&[i32], Dtype)],
    fallback: Box<ArrayFn>,
) -> Result<Vec<Array>> {
    let params = kernel.params();
    let fallback = Closure::new(fallback)?;
    let inputs = ArrayVec::new(inputs.iter().copied())?;
    let specs: Vec<sys::mlx_shim_output> = outputs
        .iter()
        .map(|(shape, dtype)| sys::mlx_shim_output {
            shape: shape.as_ptr(),
            ndim: shape.len(),
            dtype: dtype.into_c(),
        })
        .collect();
    let stream = crate::stream::current_raw()?;
    let mut result = ArrayVec::empty();
    let payload = Box::into_raw(Box::new(kernel)).cast();
    // SAFETY: handles are live, slices outlive the call, and `run_kernel::<K>` and
    // `release::<K>` fit the payload, which the shim releases in every case.
    let status = unsafe {
        sys::mlx_shim_host_op(
            result.as_mut(),
            K::NAME.as_ptr(),
            inputs.0,
            specs.as_ptr(),
            specs.len(),
            Some(run_kernel::<K>),
            payload,
            Some(release::<K>),
            params.as_ptr(),
            params.len(),
            fallback.into_c(),
            stream,
        )
    };
    check(status, "mlx_shim_host_op")?;
    result.into_arrays()
}

unsafe extern "C" fn run_kernel<K: HostKernel>(
    payload: *const c_void,
    inputs: *const sys::mlx_shim_view,
    n_inputs: usize,
    outputs: *const sys::mlx_shim_view,
    n_outputs: usize,
    error: *mut c_char,
    error_len: usize,
) -> i32 {
    // SAFETY: the shim passes live, row-contiguous views; outputs are distinct fresh buffers that
    // nothing else reads or writes until the task ends; an empty array may have no data.
    let (kernel, inputs, mut outputs) = unsafe {
        let nbytes = |v: &sys::mlx_shim_view| v.size * Dtype::ALL[v.dtype as usize].size();
        let shape = |v: &sys::mlx_shim_view| match v.ndim {
            0 => &[][..],
            n => std::slice::from_raw_parts(v.shape, n),
        };
        let data = |v: &sys::mlx_shim_view| match nbytes(v) {
            0 => ptr::NonNull::<u64>::dangling().as_ptr().cast::<u8>(),
            _ => v.data.cast::<u8>(),
        };
        let inputs: Vec<HostInput<'_>> = std::slice::from_raw_parts(inputs, n_inputs)
            .iter()
            .map(|v| HostInput {
                bytes: std::slice::from_raw_parts(data(v), nbytes(v)),
                shape: shape(v),
                dtype: Dtype::ALL[v.dtype as usize],
            })
            .collect();
        let outputs: Vec<HostOutput<'_>> = std::slice::from_raw_parts(outputs, n_outputs)
            .iter()
            .map(|v| HostOutput {
                bytes: std::slice::from_raw_parts_mut(data(v), nbytes(v)),
                shape: shape(v),
            })
            .collect();
        (&*payload.cast::<K>(), inputs, outputs)
    };
    let text = match catch_unwind(AssertUnwindSafe(|| kernel.run(&inputs, &mut outputs))) {
        Ok(Ok(())) => return 0,
        Ok(Err(text)) => text,
        Err(_) => PANICKED.to_owned(),
    };
    let len = text.len().min(error_len.saturating_sub(1));
    // SAFETY: `error` is valid for `error_len` bytes and was zeroed, so the text stays terminated.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), error.cast::<u8>(), len) };
    1
}
