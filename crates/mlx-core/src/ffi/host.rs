//! CPU kernels as nodes of MLX's graph, through the shim's host primitive.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlx_sys as sys;

use super::closure::release;
use super::recording::record;
use super::{ArrayFn, ArrayVec, Closure, IntoC, check};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;

/// Nanoseconds that kernels of this process ran.
static BUSY: AtomicU64 = AtomicU64::new(0);

/// Returns how long kernels of this process ran, one after the other on each stream.
pub(crate) fn kernel_time() -> Duration {
    Duration::from_nanos(BUSY.load(Ordering::Relaxed))
}

/// How the error of a kernel that panicked ends; it runs where nobody could catch the panic.
pub(super) const PANICKED: &str = "kernel panicked";

/// One array as a CPU kernel sees it: row contiguous, unless the kernel takes it as it lies.
#[derive(Clone, Copy)]
pub(crate) struct HostInput<'a> {
    /// From the lowest element to the end of the highest; none where an output has them.
    pub(crate) bytes: &'a [u8],
    pub(crate) shape: &'a [i32],
    /// Elements to the next one of each axis; of use to a kernel that takes it as it lies.
    pub(crate) strides: &'a [i64],
    /// Elements in front of the first one: 0 where no stride is negative.
    pub(crate) start: usize,
    pub(crate) dtype: Dtype,
}

/// An output, row contiguous; freshly allocated and to be written in full, unless the kernel appends.
pub(crate) struct HostOutput<'a> {
    /// None where the kernel appends.
    pub(crate) bytes: &'a mut [u8],
    pub(crate) shape: &'a [i32],
    /// All bytes, of which others may read what the kernel leaves as it is, where the kernel appends.
    pub(crate) shared: *mut [u8],
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

    /// Tells whether the kernel takes an input as it lies, whatever its strides are.
    fn takes_strided(&self, _input: usize) -> bool {
        false
    }

    /// Tells which input of the same size and dtype an output is with something appended, where that
    /// is so. It may have the input's memory, of which views may be around, so the kernel writes only
    /// what is of no meaning in the input. Such an input is not one that is taken as it lies.
    fn appends_to(&self, _output: usize) -> Option<usize> {
        None
    }

    /// Tells whether the kernel reads its weights whole and in order, so that memory can be told of them
    /// ahead.
    fn reads_weights(&self) -> bool {
        false
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String>;
}

/// A [`HostKernel`] of whatever type.
pub(super) trait HostStep: Send + Sync {
    fn name(&self) -> &'static CStr;
    fn takes_strided(&self, input: usize) -> bool;
    fn appends_to(&self, output: usize) -> Option<usize>;
    fn reads_weights(&self) -> bool;
    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String>;
}

impl<K: HostKernel> HostStep for K {
    fn name(&self) -> &'static CStr {
        K::NAME
    }

    fn takes_strided(&self, input: usize) -> bool {
        HostKernel::takes_strided(self, input)
    }

    fn appends_to(&self, output: usize) -> Option<usize> {
        HostKernel::appends_to(self, output)
    }

    fn reads_weights(&self) -> bool {
        HostKernel::reads_weights(self)
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        HostKernel::run(self, inputs, outputs)
    }
}

/// Makes a node that runs `kernel` on the current CPU stream, or a part of one ([`recording`]);
/// `fallback` computes the same by ordinary ops and serves vmap, jvp and vjp.
///
/// [`recording`]: super::recording
pub(crate) fn host_op<K: HostKernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[(&[i32], Dtype)],
    fallback: Box<ArrayFn>,
) -> Result<Vec<Array>> {
    match record(kernel, inputs, outputs)? {
        Ok(arrays) => Ok(arrays),
        Err(kernel) => host_node(kernel, inputs, outputs, fallback, crate::stream::current_raw()?),
    }
}

/// Makes a node that runs `kernel` on a CPU stream.
pub(super) fn host_node<K: HostKernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[(&[i32], Dtype)],
    fallback: Box<ArrayFn>,
    stream: sys::mlx_stream,
) -> Result<Vec<Array>> {
    let params = kernel.params();
    let strided = (0..inputs.len().min(64)).fold(0, |bits, input| {
        bits | u64::from(HostKernel::takes_strided(&kernel, input)) << input
    });
    let mut in_place = vec![-1; outputs.len()];
    for (i, output) in outputs.iter().enumerate() {
        let Some(input) = HostKernel::appends_to(&kernel, i) else { continue };
        assert_eq!((inputs[input].shape(), inputs[input].dtype()), *output, "memory of an output");
        assert!(!HostKernel::takes_strided(&kernel, input), "memory of an output");
        in_place[i] = input as i32;
    }
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
    let mut result = ArrayVec::empty();
    let payload = Box::into_raw(Box::new(kernel)).cast();
    // SAFETY: handles are live, slices outlive the call, and `run_kernel::<K>` and
    // `release::<K>` fit the payload, which the shim releases in every case.
    let status = unsafe {
        sys::mlx_shim_host_op(
            result.as_mut(),
            K::NAME.as_ptr(),
            inputs.0,
            strided,
            specs.as_ptr(),
            specs.len(),
            Some(run_kernel::<K>),
            payload,
            Some(release::<K>),
            params.as_ptr(),
            params.len(),
            in_place.as_ptr(),
            fallback.into_c(),
            stream,
        )
    };
    check(status, "mlx_shim_host_op")?;
    result.into_arrays()
}

/// Returns how many elements lie in front of the first one and how many from it to the highest.
fn span(shape: &[i32], strides: &[i64]) -> Option<(usize, usize)> {
    let (mut before, mut after) = (0usize, 1usize);
    for (&n, &stride) in shape.iter().zip(strides) {
        let steps = usize::try_from(n).ok()?.checked_sub(1)?;
        let reach = steps.checked_mul(usize::try_from(stride.unsigned_abs()).ok()?)?;
        let side = if stride < 0 { &mut before } else { &mut after };
        *side = side.checked_add(reach)?;
    }
    Some((before, after))
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
    // SAFETY: the shim passes live views, row contiguous but for inputs that the kernel takes as they
    // lie; those are within one buffer, from their lowest element to the highest, and nothing writes
    // to a buffer that a view is left of, but for inputs that outputs start with, of which nothing is
    // shown. Outputs are distinct buffers that nothing else reads or writes until the task ends, but
    // for those that the kernel appends to, of which no reference is made. An empty array may have no
    // data.
    let (kernel, inputs, mut outputs) = unsafe {
        let kernel = &*payload.cast::<K>();
        // An empty C++ vector has no address.
        let views = |views, n| match n {
            0 => &[][..],
            n => std::slice::from_raw_parts(views, n),
        };
        let itemsize = |v: &sys::mlx_shim_view| Dtype::ALL[v.dtype as usize].size();
        let nbytes = |v: &sys::mlx_shim_view| v.size * itemsize(v);
        let shape = |v: &sys::mlx_shim_view| match v.ndim {
            0 => &[][..],
            n => std::slice::from_raw_parts(v.shape, n),
        };
        let strides = |v: &sys::mlx_shim_view| match v.ndim {
            0 => &[][..],
            n => std::slice::from_raw_parts(v.strides, n),
        };
        let data = |v: &sys::mlx_shim_view| match nbytes(v) {
            0 => ptr::NonNull::<u64>::dangling().as_ptr().cast::<u8>(),
            _ => v.data.cast::<u8>(),
        };
        let taken_over: Vec<usize> =
            (0..n_outputs).filter_map(|output| HostKernel::appends_to(kernel, output)).collect();
        let inputs: Vec<HostInput<'_>> = views(inputs, n_inputs)
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let (shape, strides) = (shape(v), strides(v));
                let (before, after) = match HostKernel::takes_strided(kernel, i) && v.size > 0 {
                    // The view is in memory, so its span is a number of bytes.
                    true => span(shape, strides).unwrap_or_default(),
                    false if taken_over.contains(&i) => (0, 0),
                    false => (0, v.size),
                };
                let (start, len) = (before * itemsize(v), (before + after) * itemsize(v));
                HostInput {
                    bytes: std::slice::from_raw_parts(data(v).sub(start), len),
                    shape,
                    strides,
                    start: before,
                    dtype: Dtype::ALL[v.dtype as usize],
                }
            })
            .collect();
        let outputs: Vec<HostOutput<'_>> = views(outputs, n_outputs)
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let own = if HostKernel::appends_to(kernel, i).is_some() { 0 } else { nbytes(v) };
                HostOutput {
                    bytes: std::slice::from_raw_parts_mut(data(v), own),
                    shape: shape(v),
                    shared: ptr::slice_from_raw_parts_mut(data(v), nbytes(v)),
                }
            })
            .collect();
        (kernel, inputs, outputs)
    };
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| HostKernel::run(kernel, &inputs, &mut outputs)));
    BUSY.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    let text = match result {
        Ok(Ok(())) => return 0,
        Ok(Err(text)) => text,
        Err(_) => PANICKED.to_owned(),
    };
    let len = text.len().min(error_len.saturating_sub(1));
    // SAFETY: `error` is valid for `error_len` bytes and was zeroed, so the text stays terminated.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), error.cast::<u8>(), len) };
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Result, Slice, with_device};

    #[test]
    fn spans_reach_from_the_lowest_element_to_the_highest() {
        assert_eq!(span(&[], &[]), Some((0, 1)));
        assert_eq!(span(&[2, 3], &[10, 1]), Some((0, 13)));
        assert_eq!(span(&[2, 3], &[-10, 2]), Some((10, 5)));
        assert_eq!(span(&[7, 3], &[0, -1]), Some((2, 1)));
        assert_eq!(span(&[0, 3], &[3, 1]), None);
        assert_eq!(span(&[i32::MAX, i32::MAX], &[i64::MAX, i64::MIN]), None);
    }

    /// Writes an array's elements, row by row, whatever its strides are.
    struct Gather;

    impl HostKernel for Gather {
        const NAME: &'static CStr = c"gather";

        fn params(&self) -> Vec<u64> {
            vec![]
        }

        fn takes_strided(&self, _input: usize) -> bool {
            true
        }

        fn run(
            &self,
            inputs: &[HostInput<'_>],
            outputs: &mut [HostOutput<'_>],
        ) -> Result<(), String> {
            let (x, out) = (&inputs[0], &mut outputs[0]);
            let [rows, columns] = x.shape else { return Err("ndim".to_owned()) };
            let places = (0..*rows).flat_map(|i| (0..*columns).map(move |j| [i, j]));
            for (place, out) in places.zip(&mut *out.bytes) {
                let offset: i64 = place.iter().zip(x.strides).map(|(&i, s)| i64::from(i) * s).sum();
                *out = x.bytes[x.start.wrapping_add_signed(offset as isize)];
            }
            Ok(())
        }
    }

    #[test]
    fn views_reach_a_kernel_as_they_lie() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = Array::range(60)?.astype(Dtype::Uint8)?.reshape([6, 10])?;
            let views = [
                x.clone(),
                x.t()?,
                x.at((1..4, 2..9))?,
                x.at((Slice::step(-2), Slice::step(-3)))?,
                x.at((0..1, ..))?.broadcast_to([4, 10])?,
                x.at((0..0, ..))?,
            ];
            for view in views {
                let fallback = |inputs: &[Array]| Ok(inputs.to_vec());
                let specs = [(view.shape(), Dtype::Uint8)];
                let outputs = host_op(Gather, &[&view], &specs, Box::new(fallback))?;
                assert_eq!(outputs[0].to_vec::<u8>()?, view.to_vec::<u8>()?, "{view}");
            }
            Ok(())
        })
    }
}
