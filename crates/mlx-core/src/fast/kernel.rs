//! Kernels of one's own for the GPU, from source: Metal and CUDA.
//!
//! The source is the body of a kernel. MLX writes the signature around it from the names given
//! here, the dtypes of the inputs and the launch's constants, and compiles it when it first runs.
//! Such source is trusted: it can write beside its outputs, which no check here prevents. All
//! that is checked is what MLX would divide by, cast or put into the signature unseen.

use std::ffi::{CStr, CString};

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::gpu_kernel::{self as raw, Constant, Launch, Source};
use crate::stream::current_device;
use crate::{Device, cuda, metal};

/// What a [`MetalKernel`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct MetalKernelOptions<'a> {
    /// Name of the kernel, an identifier.
    pub name: &'a str,
    /// Names of the inputs in the source, in order.
    pub input_names: &'a [&'a str],
    /// Names of the outputs in the source, in order.
    pub output_names: &'a [&'a str],
    /// The body: Metal Shading Language between the braces of the function.
    pub source: &'a str,
    /// What stands before the function: includes and helpers.
    pub header: &'a str,
    /// Copies inputs that are not in row-major order first.
    pub ensure_row_contiguous: bool,
    /// Declares the outputs as atomic.
    pub atomic_outputs: bool,
}

impl Default for MetalKernelOptions<'_> {
    fn default() -> Self {
        MetalKernelOptions {
            name: "",
            input_names: &[],
            output_names: &[],
            source: "",
            header: "",
            ensure_row_contiguous: true,
            atomic_outputs: false,
        }
    }
}

/// What a [`CudaKernel`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct CudaKernelOptions<'a> {
    /// Name of the kernel, an identifier.
    pub name: &'a str,
    /// Names of the inputs in the source, in order.
    pub input_names: &'a [&'a str],
    /// Names of the outputs in the source, in order.
    pub output_names: &'a [&'a str],
    /// The body: CUDA C++ between the braces of the function.
    pub source: &'a str,
    /// What stands before the function: includes and helpers.
    pub header: &'a str,
    /// Copies inputs that are not in row-major order first.
    pub ensure_row_contiguous: bool,
    /// Bytes of dynamic shared memory of a block.
    pub shared_memory: i32,
}

impl Default for CudaKernelOptions<'_> {
    fn default() -> Self {
        CudaKernelOptions {
            name: "",
            input_names: &[],
            output_names: &[],
            source: "",
            header: "",
            ensure_row_contiguous: true,
            shared_memory: 0,
        }
    }
}

/// A constant that a launch compiles into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateArg {
    /// An integer.
    Int(i32),
    /// A truth value.
    Bool(bool),
    /// A type: the source may use the name as one.
    Dtype(Dtype),
}

/// How a kernel is launched and what it returns.
#[derive(Clone, Copy, Debug)]
pub struct LaunchOptions<'a> {
    /// Names in the source and the constants they stand for.
    pub template: &'a [(&'a str, TemplateArg)],
    /// Threads in all, along each of three axes.
    pub grid: [i32; 3],
    /// Threads of a group (Metal) or block (CUDA), along each axis.
    pub threadgroup: [i32; 3],
    /// Shape of each output.
    pub output_shapes: &'a [&'a [i32]],
    /// Dtype of each output.
    pub output_dtypes: &'a [Dtype],
    /// What the outputs hold before the kernel runs; without it, anything.
    pub init_value: Option<f32>,
    /// Prints the whole source to standard output.
    pub verbose: bool,
}

impl Default for LaunchOptions<'_> {
    fn default() -> Self {
        LaunchOptions {
            template: &[],
            grid: [1; 3],
            threadgroup: [1; 3],
            output_shapes: &[],
            output_dtypes: &[],
            init_value: None,
            verbose: false,
        }
    }
}

/// A kernel in the Metal Shading Language.
///
/// ```
/// use mlx_core::fast::{LaunchOptions, MetalKernel, MetalKernelOptions, TemplateArg};
/// use mlx_core::{Array, Dtype, metal};
///
/// # fn main() -> mlx_core::Result<()> {
/// let options = MetalKernelOptions {
///     name: "double",
///     input_names: &["x"],
///     output_names: &["out"],
///     source: "uint i = thread_position_in_grid.x; out[i] = T(2) * x[i];",
///     ..Default::default()
/// };
/// if metal::is_available()? {
///     let kernel = MetalKernel::new(options)?;
///     let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3])?;
///     let out = kernel.call(
///         &[&x],
///         LaunchOptions {
///             template: &[("T", TemplateArg::Dtype(Dtype::Float32))],
///             grid: [3, 1, 1],
///             threadgroup: [3, 1, 1],
///             output_shapes: &[&[3]],
///             output_dtypes: &[Dtype::Float32],
///             ..Default::default()
///         },
///     )?;
///     assert_eq!(out[0].to_vec::<f32>()?, [2.0, 4.0, 6.0]);
/// }
/// # Ok(())
/// # }
/// ```
pub struct MetalKernel {
    raw: raw::Metal,
    signature: Signature,
}

impl MetalKernel {
    /// Makes a kernel; its source is compiled when it first runs.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Unsupported`] where there is no Metal device; and when a name is no
    /// identifier or there is no output.
    pub fn new(options: MetalKernelOptions<'_>) -> Result<MetalKernel> {
        const OP: &str = "metal_kernel";
        let MetalKernelOptions { name, input_names, output_names, .. } = options;
        let signature = Signature::new(OP, name, input_names, output_names)?;
        let (source, header) = (c_text(OP, options.source)?, c_text(OP, options.header)?);
        require(OP, "Metal", metal::is_available()?)?;
        let raw = signature.with_source(&source, &header, |mut source| {
            source.ensure_row_contiguous = options.ensure_row_contiguous;
            raw::Metal::new(&source, options.atomic_outputs)
        })?;
        Ok(MetalKernel { raw, signature })
    }

    /// Makes a node that runs the kernel on the current stream and returns its outputs.
    ///
    /// # Errors
    /// When the current device is not the GPU, the number of inputs, shapes or dtypes is not that
    /// of the names, or a size is out of range; when evaluated, also when the source does not
    /// compile.
    pub fn call(&self, inputs: &[&Array], options: LaunchOptions<'_>) -> Result<Vec<Array>> {
        self.signature.launch(inputs, options, |launch| self.raw.apply(inputs, launch))
    }
}

/// A kernel in CUDA C++.
///
/// ```
/// use mlx_core::fast::{CudaKernel, CudaKernelOptions, LaunchOptions};
/// use mlx_core::{Array, Dtype, cuda};
///
/// # fn main() -> mlx_core::Result<()> {
/// let options = CudaKernelOptions {
///     name: "double_it",
///     input_names: &["x"],
///     output_names: &["out"],
///     source: "auto i = cg::this_grid().thread_rank(); if (i < 3) out[i] = 2 * x[i];",
///     ..Default::default()
/// };
/// if cuda::is_available()? {
///     let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3])?;
///     let out = CudaKernel::new(options)?.call(
///         &[&x],
///         LaunchOptions {
///             grid: [3, 1, 1],
///             threadgroup: [32, 1, 1],
///             output_shapes: &[&[3]],
///             output_dtypes: &[Dtype::Float32],
///             ..Default::default()
///         },
///     )?;
///     assert_eq!(out[0].to_vec::<f32>()?, [2.0, 4.0, 6.0]);
/// }
/// # Ok(())
/// # }
/// ```
pub struct CudaKernel {
    raw: raw::Cuda,
    signature: Signature,
}

impl CudaKernel {
    /// Makes a kernel; its source is compiled when it first runs.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Unsupported`] where there is no CUDA device; and when a name is no
    /// identifier, there is no output, or `shared_memory` is negative.
    pub fn new(options: CudaKernelOptions<'_>) -> Result<CudaKernel> {
        const OP: &str = "cuda_kernel";
        let CudaKernelOptions { name, input_names, output_names, shared_memory, .. } = options;
        let signature = Signature::new(OP, name, input_names, output_names)?;
        let (source, header) = (c_text(OP, options.source)?, c_text(OP, options.header)?);
        if shared_memory < 0 {
            return Err(invalid(format!("{OP}: {shared_memory} bytes of shared memory")));
        }
        require(OP, "CUDA", cuda::is_available()?)?;
        let raw = signature.with_source(&source, &header, |mut source| {
            source.ensure_row_contiguous = options.ensure_row_contiguous;
            raw::Cuda::new(&source, shared_memory)
        })?;
        Ok(CudaKernel { raw, signature })
    }

    /// Makes a node that runs the kernel on the current stream and returns its outputs.
    ///
    /// # Errors
    /// When the current device is not the GPU, the number of inputs, shapes or dtypes is not that
    /// of the names, or a size is out of range; when evaluated, also when the source does not
    /// compile.
    pub fn call(&self, inputs: &[&Array], options: LaunchOptions<'_>) -> Result<Vec<Array>> {
        self.signature.launch(inputs, options, |launch| self.raw.apply(inputs, launch))
    }
}

/// A number that a compiled kernel takes behind its inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalarArg {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i32),
    /// A floating number.
    Float(f32),
}

/// What [`precompiled_cuda_kernel`] runs and what that returns.
#[derive(Clone, Copy, Debug)]
pub struct PrecompiledOptions<'a> {
    /// Name of the kernel in the module, mangled if it is.
    pub name: &'a str,
    /// The module: PTX or a cubin.
    pub module: &'a [u8],
    /// Numbers behind the inputs and outputs.
    pub scalars: &'a [ScalarArg],
    /// Threads in all, along each of three axes.
    pub grid: [i32; 3],
    /// Threads of a block, along each axis.
    pub threadgroup: [i32; 3],
    /// Shape of each output.
    pub output_shapes: &'a [&'a [i32]],
    /// Dtype of each output.
    pub output_dtypes: &'a [Dtype],
    /// Bytes of dynamic shared memory of a block.
    pub shared_memory: i32,
    /// What the outputs hold before the kernel runs; without it, anything.
    pub init_value: Option<f32>,
    /// Copies inputs that are not in row-major order first.
    pub ensure_row_contiguous: bool,
}

impl Default for PrecompiledOptions<'_> {
    fn default() -> Self {
        PrecompiledOptions {
            name: "",
            module: &[],
            scalars: &[],
            grid: [1; 3],
            threadgroup: [1; 3],
            output_shapes: &[],
            output_dtypes: &[],
            shared_memory: 0,
            init_value: None,
            ensure_row_contiguous: false,
        }
    }
}

/// Makes a node that runs a kernel of a compiled CUDA module, with pointers to the inputs, then to
/// the outputs, then the scalars as its arguments.
///
/// # Errors
/// Of kind [`ErrorKind::Unsupported`] where there is no CUDA device or it is not the current one;
/// and when a size is out of range or there are not as many dtypes as shapes; when evaluated, also
/// when the module has no such kernel.
pub fn precompiled_cuda_kernel(
    inputs: &[&Array],
    options: PrecompiledOptions<'_>,
) -> Result<Vec<Array>> {
    const OP: &str = "precompiled_cuda_kernel";
    let PrecompiledOptions { output_shapes, output_dtypes, shared_memory, .. } = options;
    let name = &c_text(OP, options.name)?;
    if output_shapes.is_empty() || output_shapes.len() != output_dtypes.len() {
        let (shapes, dtypes) = (output_shapes.len(), output_dtypes.len());
        return Err(invalid(format!("{OP}: {shapes} output shapes, {dtypes} output dtypes")));
    }
    if shared_memory < 0 {
        return Err(invalid(format!("{OP}: {shared_memory} bytes of shared memory")));
    }
    check_launch(OP, options.grid, options.threadgroup, output_shapes)?;
    let on_gpu = current_device()? == Device::Gpu;
    require(OP, "CUDA", cuda::is_available()? && on_gpu)?;
    let scalars: Vec<raw::Scalar> = options.scalars.iter().map(|&arg| scalar(arg)).collect();
    let outputs: Vec<(&[i32], Dtype)> =
        output_shapes.iter().copied().zip(output_dtypes.iter().copied()).collect();
    let PrecompiledOptions { module, grid, threadgroup, init_value, .. } = options;
    let run = raw::Precompiled {
        name,
        module,
        scalars: &scalars,
        grid,
        threadgroup,
        outputs: &outputs,
        shared_memory,
        init_value,
        ensure_row_contiguous: options.ensure_row_contiguous,
    };
    raw::run_precompiled(inputs, &run)
}

fn scalar(arg: ScalarArg) -> raw::Scalar {
    match arg {
        ScalarArg::Bool(x) => raw::Scalar::Bool(x),
        ScalarArg::Int(x) => raw::Scalar::Int(x),
        ScalarArg::Float(x) => raw::Scalar::Float(x),
    }
}

/// The names of a kernel, checked.
struct Signature {
    op: &'static str,
    name: CString,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl Signature {
    fn new(op: &'static str, name: &str, inputs: &[&str], outputs: &[&str]) -> Result<Signature> {
        if outputs.is_empty() {
            return Err(invalid(format!("{op}: no outputs")));
        }
        let identifiers = |names: &[&str]| -> Result<Vec<CString>> {
            names.iter().map(|name| identifier(op, name)).collect()
        };
        Ok(Signature {
            op,
            name: identifier(op, name)?,
            inputs: identifiers(inputs)?,
            outputs: identifiers(outputs)?,
        })
    }

    fn with_source<R>(&self, source: &CStr, header: &CStr, f: impl FnOnce(Source<'_>) -> R) -> R {
        let inputs: Vec<&CStr> = self.inputs.iter().map(CString::as_c_str).collect();
        let outputs: Vec<&CStr> = self.outputs.iter().map(CString::as_c_str).collect();
        f(Source {
            name: &self.name,
            inputs: &inputs,
            outputs: &outputs,
            source,
            header,
            ensure_row_contiguous: true,
        })
    }

    /// Checks a launch and hands it on.
    fn launch<R>(
        &self,
        inputs: &[&Array],
        options: LaunchOptions<'_>,
        apply: impl FnOnce(&Launch<'_>) -> Result<R>,
    ) -> Result<R> {
        let Signature { op, .. } = self;
        let LaunchOptions { output_shapes, output_dtypes, grid, threadgroup, .. } = options;
        for (what, len, expected) in [
            ("inputs", inputs.len(), self.inputs.len()),
            ("output shapes", output_shapes.len(), self.outputs.len()),
            ("output dtypes", output_dtypes.len(), self.outputs.len()),
        ] {
            if len != expected {
                return Err(invalid(format!("{op}: {len} {what} for {expected} names")));
            }
        }
        check_launch(op, grid, threadgroup, output_shapes)?;
        let constants = constants(op, options.template)?;
        let constants: Vec<(&CStr, Constant)> =
            constants.iter().map(|(name, arg)| (name.as_c_str(), constant(*arg))).collect();
        let outputs: Vec<(&[i32], Dtype)> =
            output_shapes.iter().copied().zip(output_dtypes.iter().copied()).collect();
        apply(&Launch {
            constants: &constants,
            grid,
            threadgroup,
            outputs: &outputs,
            init_value: options.init_value,
            verbose: options.verbose,
        })
    }
}

/// Refuses sizes that MLX would compute with unseen.
fn check_launch(op: &str, grid: [i32; 3], threadgroup: [i32; 3], shapes: &[&[i32]]) -> Result<()> {
    // MLX divides by the group and adds it to the grid, in 32 bits.
    let fits = |(&threads, &group): (&i32, &i32)| {
        threads > 0 && group > 0 && threads.checked_add(group).is_some()
    };
    if !grid.iter().zip(&threadgroup).all(fits) {
        return Err(invalid(format!("{op}: grid {grid:?} in groups of {threadgroup:?}")));
    }
    match shapes.iter().find(|shape| shape.iter().any(|&dim| dim < 0)) {
        Some(shape) => Err(invalid(format!("{op}: output of shape {shape:?}"))),
        None => Ok(()),
    }
}

fn constants(op: &str, template: &[(&str, TemplateArg)]) -> Result<Vec<(CString, TemplateArg)>> {
    template.iter().map(|(name, arg)| Ok((identifier(op, name)?, *arg))).collect()
}

fn constant(arg: TemplateArg) -> Constant {
    match arg {
        TemplateArg::Int(x) => Constant::Int(x),
        TemplateArg::Bool(x) => Constant::Bool(x),
        TemplateArg::Dtype(x) => Constant::Dtype(x),
    }
}

fn require(op: &str, backend: &str, available: bool) -> Result<()> {
    if available {
        return Ok(());
    }
    let device = current_device()?;
    let text = format!("{op}: no {backend} device here, where the current one is the {device}");
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// A name that MLX puts into the source as it stands.
fn identifier(op: &str, name: &str) -> Result<CString> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_word) || name.starts_with(|c: char| c.is_numeric()) {
        return Err(invalid(format!("{op}: {name:?} is no identifier")));
    }
    c_text(op, name)
}

fn c_text(op: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(format!("{op}: NUL in the source")))
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

#[cfg(test)]
mod tests;
