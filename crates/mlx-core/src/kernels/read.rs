//! How fast the arrays of a model can be read at all.

use std::ffi::CStr;
use std::time::Instant;

use super::compute::read::read;
use super::{Isa, elements_mut, isa_number, options};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};

/// How often all is read.
const TIMES: usize = 5;

struct ReadSpeed {
    isa: Isa,
}

impl HostKernel for ReadSpeed {
    const NAME: &'static CStr = c"read speed";

    fn params(&self) -> Vec<u64> {
        vec![isa_number(self.isa)]
    }

    fn takes_strided(&self, _input: usize) -> bool {
        true
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let [out] = outputs else { return Err(format!("{} outputs, expected 1", outputs.len())) };
        let data: Vec<&[u8]> = inputs.iter().map(|input| input.bytes).collect();
        let n_bytes: usize = data.iter().map(|data| data.len()).sum();
        let mut speeds = [0.0; TIMES];
        for speed in &mut speeds {
            let start = Instant::now();
            std::hint::black_box(read(self.isa, &data));
            *speed = n_bytes as f64 / start.elapsed().as_secs_f64();
        }
        speeds.sort_by(f64::total_cmp);
        elements_mut::<f32>(out.bytes)?.fill(speeds[TIMES / 2] as f32);
        Ok(())
    }
}

/// Measures how many bytes per second this process reads of arrays that lie in a CPU's memory, on the
/// threads that kernels have: the median of several times over all of them. That is what a product with
/// them can reach at most, if they are more than caches hold.
///
/// ```
/// use mlx_core::{Device, Dtype, kernels, ops, with_device};
///
/// # fn main() -> mlx_core::Result<()> {
/// with_device(Device::Cpu, || {
///     let x = ops::ones(&[1 << 18], Dtype::Float32)?;
///     assert!(kernels::read_speed([&x])? > 0.0);
///     Ok(())
/// })
/// # }
/// ```
///
/// # Errors
/// When the current device is no CPU.
pub fn read_speed<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<f64> {
    let arrays: Vec<&Array> = arrays.into_iter().collect();
    let kernel = ReadSpeed { isa: options().isa };
    let fallback = |_: &[Array]| {
        Err(Error::new(ErrorKind::Unsupported, "read_speed is a measurement and has no transforms"))
    };
    let outputs = ffi::host_op(kernel, &arrays, &[(&[], Dtype::Float32)], Box::new(fallback))?;
    Ok(f64::from(super::only("read speed", outputs)?.item::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Slice, ops, with_device};

    #[test]
    fn arrays_are_read_as_they_lie() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = ops::arange(0.0, 4096.0, 1.0, Dtype::Float32)?.reshape([64, 64])?;
            let views = [x.t()?, x.at(Slice::step(-1))?, ops::zeros(&[0], Dtype::Uint8)?];
            for x in views.iter().chain([&x]) {
                let speed = read_speed([x, &x.astype(Dtype::Uint8)?])?;
                assert_eq!(speed > 0.0, x.size() > 0, "{speed}");
            }
            Ok(())
        })
    }
}
