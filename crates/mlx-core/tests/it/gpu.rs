//! Devices: what each build tells of them, and kernels from source where there is one to run them.

// What is skipped is said.
#![allow(clippy::print_stderr)]

use mlx_core::fast::{
    CudaKernel, CudaKernelOptions, LaunchOptions, MetalKernel, MetalKernelOptions,
    PrecompiledOptions, ScalarArg, TemplateArg, precompiled_cuda_kernel,
};
use mlx_core::{
    Array, Device, DeviceValue, Dtype, ErrorKind, MLX_VERSION, Result, cuda, linalg, metal,
    mlx_version, with_device,
};

#[test]
fn the_library_is_of_the_version_that_the_crate_is_for() {
    assert_eq!(mlx_version().unwrap(), MLX_VERSION);
}

#[test]
fn the_cpu_has_a_name() {
    assert!(Device::Cpu.is_available());
    assert_eq!(Device::Cpu.count().unwrap(), 1);
    let info = Device::Cpu.info().unwrap();
    for key in ["device_name", "architecture"] {
        let DeviceValue::Text(text) = &info[key] else { panic!("{key}: {:?}", info[key]) };
        assert!(!text.is_empty());
        assert_eq!(info[key].to_string(), *text);
    }
}

#[test]
fn the_gpu_is_what_its_backend_says() {
    let available = Device::Gpu.is_available();
    assert_eq!(Device::Gpu.count().unwrap() > 0, available);
    assert_eq!(metal::is_available().unwrap() || cuda::is_available().unwrap(), available);
    match Device::Gpu.info() {
        Ok(info) => assert!(available && info.contains_key("device_name"), "{info:?}"),
        Err(e) => assert_eq!((e.kind(), available), (ErrorKind::Unsupported, false), "{e}"),
    }
}

#[test]
fn what_only_metal_has_is_refused_elsewhere() {
    if metal::is_available().unwrap() {
        eprintln!("skipped: there is a Metal device");
        assert!(metal::metallib_path().is_ok());
        return;
    }
    let path = std::env::temp_dir().join("mlx-core-test.gputrace");
    for result in [
        metal::start_capture(&path),
        metal::stop_capture(),
        metal::metallib_path().map(|_| ()),
        metal::set_metallib_path(&path),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().ends_with(": no Metal device in this build of MLX"), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn lapack_is_refused_off_the_cpu() {
    if !Device::Gpu.is_available() {
        eprintln!("skipped: there is no GPU");
        return;
    }
    let x = mlx_core::ops::identity(3, Dtype::Float32).unwrap();
    let error = with_device(Device::Gpu, || linalg::inv(&x)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("with_device"), "{error}");
}

#[test]
fn float64_is_refused_off_the_cpu() {
    if !Device::Gpu.is_available() {
        eprintln!("skipped: there is no GPU");
        return;
    }
    let x = Array::from(2.0f64);
    let error = with_device(Device::Gpu, || x.square()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

/// Inputs of the kernels below: 2 rows of 5, the second input a number.
fn inputs() -> (Array, Array, Vec<f32>) {
    let values: Vec<f32> = (0..10).map(|i| i as f32 / 4.0 - 1.0).collect();
    let expected = values.iter().map(|x| 2.0 * x.exp()).collect();
    (Array::from_slice(&values, &[2, 5]).unwrap(), Array::from(2.0f32), expected)
}

fn launch<'a>(dtype: &'a [Dtype], shapes: &'a [&'a [i32]]) -> LaunchOptions<'a> {
    LaunchOptions {
        template: &[
            ("T", TemplateArg::Dtype(Dtype::Float32)),
            ("SIZE", TemplateArg::Int(10)),
            ("TWICE", TemplateArg::Bool(true)),
        ],
        grid: [16, 1, 1],
        threadgroup: [16, 1, 1],
        output_shapes: shapes,
        output_dtypes: dtype,
        ..LaunchOptions::default()
    }
}

fn check_close(actual: &Array, expected: &[f32]) {
    assert_eq!(actual.shape(), [2, 5]);
    let tolerance = fixtures::Tolerance { rtol: 1e-5, atol: 1e-6, of_max: 0.0 };
    tolerance.check(&actual.to_vec::<f32>().unwrap(), expected).unwrap();
}

#[test]
fn a_metal_kernel_runs_or_is_refused() {
    let options = MetalKernelOptions {
        name: "scaled_exp",
        input_names: &["x", "factor"],
        output_names: &["out"],
        source: "uint i = thread_position_in_grid.x;
            if (i < SIZE) { T y = metal::exp(x[i]); out[i] = TWICE ? factor * y : y; }",
        ..MetalKernelOptions::default()
    };
    let kernel = MetalKernel::new(options);
    if !metal::is_available().unwrap() {
        let Err(error) = kernel else { panic!("made without a device") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().starts_with("metal_kernel: no Metal device"), "{error}");
        return;
    }
    let kernel = kernel.unwrap();
    run(|inputs, options| kernel.call(inputs, options));
}

#[test]
fn a_cuda_kernel_runs_or_is_refused() {
    let options = CudaKernelOptions {
        name: "scaled_exp",
        input_names: &["x", "factor"],
        output_names: &["out"],
        source: "auto i = cg::this_grid().thread_rank();
            if (i < SIZE) { T y = exp(x[i]); out[i] = TWICE ? factor[0] * y : y; }",
        ..CudaKernelOptions::default()
    };
    let kernel = CudaKernel::new(options);
    if !cuda::is_available().unwrap() {
        let Err(error) = kernel else { panic!("made without a device") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().starts_with("cuda_kernel: no CUDA device"), "{error}");
        return;
    }
    let kernel = kernel.unwrap();
    run(|inputs, options| kernel.call(inputs, options));
}

#[test]
fn a_compiled_kernel_is_refused_without_cuda() {
    let x = Array::from(1.0f32);
    let options = PrecompiledOptions {
        name: "kernel",
        module: b"\0\xff",
        scalars: &[ScalarArg::Bool(true), ScalarArg::Int(-1), ScalarArg::Float(0.5)],
        output_shapes: &[&[2]],
        output_dtypes: &[Dtype::Float32],
        ..PrecompiledOptions::default()
    };
    for bad in [
        PrecompiledOptions { name: "a\0", ..options },
        PrecompiledOptions { grid: [1, -1, 1], ..options },
        PrecompiledOptions { threadgroup: [0, 1, 1], ..options },
        PrecompiledOptions { shared_memory: -1, ..options },
        PrecompiledOptions { output_dtypes: &[], ..options },
        PrecompiledOptions { output_shapes: &[], output_dtypes: &[], ..options },
        PrecompiledOptions { output_shapes: &[&[-2]], ..options },
    ] {
        let error = precompiled_cuda_kernel(&[&x], bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let on_cpu = || precompiled_cuda_kernel(&[&x], options);
    let error = with_device(Device::Cpu, on_cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    if cuda::is_available().unwrap() {
        // No module: refused when it is loaded.
        let ran = with_device(Device::Gpu, || precompiled_cuda_kernel(&[&x], options)?[0].eval());
        assert!(ran.is_err());
    }
}

/// Runs a kernel on contiguous and on transposed input, with what it must refuse.
fn run(call: impl Fn(&[&Array], LaunchOptions<'_>) -> Result<Vec<Array>>) {
    with_device(Device::Gpu, || {
        let (x, factor, expected) = inputs();
        let options = launch(&[Dtype::Float32], &[&[2, 5]]);
        let out = call(&[&x, &factor], options)?;
        check_close(&out[0], &expected);
        let view = x.t()?.contiguous()?.t()?;
        check_close(&call(&[&view, &factor], options)?[0], &expected);
        assert!(call(&[&x], options).is_err());
        assert!(call(&[&x, &factor], LaunchOptions { grid: [0, 1, 1], ..options }).is_err());
        Ok(())
    })
    .unwrap();
    let (x, factor, _) = inputs();
    let on_cpu = || call(&[&x, &factor], launch(&[Dtype::Float32], &[&[2, 5]]));
    assert!(with_device(Device::Cpu, on_cpu).is_err());
}
