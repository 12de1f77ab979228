//! Kernels from source on a GPU: the handles of mlx-c's two backends, which have the same form.

use std::ffi::CStr;
use std::ptr;

use mlx_sys as sys;

use super::{ArrayVec, IntoC, check, last_error};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;

/// A constant of a kernel as mlx-c takes it.
pub(crate) enum Constant {
    Int(i32),
    Bool(bool),
    Dtype(Dtype),
}

/// One launch, checked: as many shapes as dtypes, sizes that are not negative.
pub(crate) struct Launch<'a> {
    pub(crate) constants: &'a [(&'a CStr, Constant)],
    pub(crate) grid: [i32; 3],
    pub(crate) threadgroup: [i32; 3],
    pub(crate) outputs: &'a [(&'a [i32], Dtype)],
    pub(crate) init_value: Option<f32>,
    pub(crate) verbose: bool,
}

/// The texts that a kernel is made of.
pub(crate) struct Source<'a> {
    pub(crate) name: &'a CStr,
    pub(crate) inputs: &'a [&'a CStr],
    pub(crate) outputs: &'a [&'a CStr],
    pub(crate) source: &'a CStr,
    pub(crate) header: &'a CStr,
    pub(crate) ensure_row_contiguous: bool,
}

struct Names(sys::mlx_vector_string);

impl Names {
    fn new(names: &[&CStr]) -> Result<Self> {
        let mut raw: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the pointers are live; the vector copies the texts.
        let vector = unsafe { sys::mlx_vector_string_new_data(raw.as_mut_ptr(), raw.len()) };
        if vector.ctx.is_null() {
            return Err(last_error("mlx_vector_string_new_data"));
        }
        Ok(Names(vector))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: the handle is owned.
        unsafe { sys::mlx_vector_string_free(self.0) };
    }
}

/// Writes a backend's kernel type over mlx-c's functions for it.
macro_rules! backend {
    ($kernel:ident($last:ident: $t:ty), $raw:ident, $config:ident, $name:literal:
     $new:ident $free:ident $apply:ident $config_new:ident $config_free:ident $add_output:ident
     $set_grid:ident $set_threadgroup:ident $set_init:ident $set_verbose:ident
     $add_dtype:ident $add_int:ident $add_bool:ident) => {
        pub(crate) struct $kernel(sys::$raw);

        impl Drop for $kernel {
            fn drop(&mut self) {
                // SAFETY: the handle is owned.
                unsafe { sys::$free(self.0) };
            }
        }

        impl $kernel {
            pub(crate) fn new(source: &Source<'_>, $last: $t) -> Result<Self> {
                let (inputs, outputs) = (Names::new(source.inputs)?, Names::new(source.outputs)?);
                // SAFETY: texts and vectors outlive the call, which copies them.
                let raw = unsafe {
                    sys::$new(
                        source.name.as_ptr(),
                        inputs.0,
                        outputs.0,
                        source.source.as_ptr(),
                        source.header.as_ptr(),
                        source.ensure_row_contiguous,
                        $last,
                    )
                };
                if raw.ctx.is_null() { Err(last_error($name)) } else { Ok($kernel(raw)) }
            }

            pub(crate) fn apply(
                &self,
                inputs: &[&Array],
                launch: &Launch<'_>,
            ) -> Result<Vec<Array>> {
                struct Config(sys::$config);
                impl Drop for Config {
                    fn drop(&mut self) {
                        // SAFETY: the handle is owned, and an empty one is allowed.
                        unsafe { sys::$config_free(self.0) };
                    }
                }
                let inputs = ArrayVec::new(inputs.iter().copied())?;
                let stream = crate::stream::current_raw()?;
                let mut outputs = ArrayVec::empty();
                let ([gx, gy, gz], [tx, ty, tz]) = (launch.grid, launch.threadgroup);
                // SAFETY: handles are live; texts and shapes outlive the calls, which copy them;
                // the vector is empty and is filled on success only.
                unsafe {
                    let config = Config(sys::$config_new());
                    check(i32::from(config.0.ctx.is_null()), $name)?;
                    for (shape, dtype) in launch.outputs {
                        let dtype = dtype.into_c();
                        let status = sys::$add_output(config.0, shape.as_ptr(), shape.len(), dtype);
                        check(status, $name)?;
                    }
                    for (name, constant) in launch.constants {
                        let name = name.as_ptr();
                        let status = match constant {
                            Constant::Int(x) => sys::$add_int(config.0, name, *x),
                            Constant::Bool(x) => sys::$add_bool(config.0, name, *x),
                            Constant::Dtype(x) => sys::$add_dtype(config.0, name, x.into_c()),
                        };
                        check(status, $name)?;
                    }
                    check(sys::$set_grid(config.0, gx, gy, gz), $name)?;
                    check(sys::$set_threadgroup(config.0, tx, ty, tz), $name)?;
                    if let Some(value) = launch.init_value {
                        check(sys::$set_init(config.0, value), $name)?;
                    }
                    check(sys::$set_verbose(config.0, launch.verbose), $name)?;
                    let status = sys::$apply(outputs.as_mut(), self.0, inputs.0, config.0, stream);
                    check(status, $name)?;
                }
                outputs.into_arrays()
            }
        }
    };
}

backend! {
    Metal(atomic_outputs: bool), mlx_fast_metal_kernel, mlx_fast_metal_kernel_config,
    "mlx_metal_kernel":
    mlx_fast_metal_kernel_new mlx_fast_metal_kernel_free mlx_fast_metal_kernel_apply
    mlx_fast_metal_kernel_config_new mlx_fast_metal_kernel_config_free
    mlx_fast_metal_kernel_config_add_output_arg mlx_fast_metal_kernel_config_set_grid
    mlx_fast_metal_kernel_config_set_thread_group mlx_fast_metal_kernel_config_set_init_value
    mlx_fast_metal_kernel_config_set_verbose mlx_fast_metal_kernel_config_add_template_arg_dtype
    mlx_fast_metal_kernel_config_add_template_arg_int
    mlx_fast_metal_kernel_config_add_template_arg_bool
}

backend! {
    Cuda(shared_memory: i32), mlx_fast_cuda_kernel, mlx_fast_cuda_kernel_config,
    "mlx_cuda_kernel":
    mlx_fast_cuda_kernel_new mlx_fast_cuda_kernel_free mlx_fast_cuda_kernel_apply
    mlx_fast_cuda_kernel_config_new mlx_fast_cuda_kernel_config_free
    mlx_fast_cuda_kernel_config_add_output_arg mlx_fast_cuda_kernel_config_set_grid
    mlx_fast_cuda_kernel_config_set_thread_group mlx_fast_cuda_kernel_config_set_init_value
    mlx_fast_cuda_kernel_config_set_verbose mlx_fast_cuda_kernel_config_add_template_arg_dtype
    mlx_fast_cuda_kernel_config_add_template_arg_int
    mlx_fast_cuda_kernel_config_add_template_arg_bool
}

/// An argument of a compiled kernel as the shim takes it.
pub(crate) enum Scalar {
    Bool(bool),
    Int(i32),
    Float(f32),
}

/// One run of a compiled kernel, checked as a [`Launch`] is.
pub(crate) struct Precompiled<'a> {
    pub(crate) name: &'a CStr,
    pub(crate) module: &'a [u8],
    pub(crate) scalars: &'a [Scalar],
    pub(crate) grid: [i32; 3],
    pub(crate) threadgroup: [i32; 3],
    pub(crate) outputs: &'a [(&'a [i32], Dtype)],
    pub(crate) shared_memory: i32,
    pub(crate) init_value: Option<f32>,
    pub(crate) ensure_row_contiguous: bool,
}

pub(crate) fn run_precompiled(inputs: &[&Array], run: &Precompiled<'_>) -> Result<Vec<Array>> {
    let inputs = ArrayVec::new(inputs.iter().copied())?;
    let specs: Vec<sys::mlx_shim_output> = run
        .outputs
        .iter()
        .map(|(shape, dtype)| sys::mlx_shim_output {
            shape: shape.as_ptr(),
            ndim: shape.len(),
            dtype: dtype.into_c(),
        })
        .collect();
    let scalars: Vec<sys::mlx_shim_scalar> = run
        .scalars
        .iter()
        .map(|scalar| match *scalar {
            Scalar::Bool(x) => sys::mlx_shim_scalar { kind: 0, integer: x.into(), number: 0.0 },
            Scalar::Int(x) => sys::mlx_shim_scalar { kind: 1, integer: x, number: 0.0 },
            Scalar::Float(x) => sys::mlx_shim_scalar { kind: 2, integer: 0, number: x },
        })
        .collect();
    let stream = crate::stream::current_raw()?;
    let mut outputs = ArrayVec::empty();
    // SAFETY: handles are live; texts, slices and the optional number outlive the call, which
    // copies them; the vector is empty and is filled on success only.
    let status = unsafe {
        sys::mlx_shim_precompiled_cuda_kernel(
            outputs.as_mut(),
            run.name.as_ptr(),
            run.module.as_ptr().cast(),
            run.module.len(),
            inputs.0,
            specs.as_ptr(),
            specs.len(),
            scalars.as_ptr(),
            scalars.len(),
            run.grid.as_ptr(),
            run.threadgroup.as_ptr(),
            run.shared_memory,
            run.init_value.as_ref().map_or(ptr::null(), ptr::from_ref),
            run.ensure_row_contiguous,
            stream,
        )
    };
    check(status, "mlx_shim_precompiled_cuda_kernel")?;
    outputs.into_arrays()
}
