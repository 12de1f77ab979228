use super::*;
use crate::ops;

fn signature() -> Signature {
    Signature::new("kernel", "name", &["x"], &["a", "b"]).unwrap()
}

fn good() -> LaunchOptions<'static> {
    LaunchOptions {
        template: &[("T", TemplateArg::Dtype(Dtype::Float16)), ("N", TemplateArg::Int(-3))],
        grid: [7, 1, 1],
        threadgroup: [256, 1, 1],
        output_shapes: &[&[2, 3], &[]],
        output_dtypes: &[Dtype::Float32, Dtype::Int8],
        ..Default::default()
    }
}

/// What a launch of `inputs` inputs says before it reaches a device.
fn check(inputs: usize, options: LaunchOptions<'_>) -> Result<(), String> {
    let x = ops::ones(&[2], Dtype::Float32).unwrap();
    let inputs = vec![&x; inputs];
    signature().launch(&inputs, options, |_| Ok(())).map_err(|e| {
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
        e.to_string()
    })
}

#[test]
fn launch_is_handed_on() {
    let x = ops::ones(&[2], Dtype::Float32).unwrap();
    let seen = signature().launch(&[&x], good(), |launch| {
        assert_eq!(launch.grid, [7, 1, 1]);
        assert_eq!(launch.threadgroup, [256, 1, 1]);
        assert_eq!(launch.outputs, [(&[2, 3][..], Dtype::Float32), (&[][..], Dtype::Int8)]);
        let names: Vec<_> = launch.constants.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [c"T", c"N"]);
        assert!(matches!(launch.constants[1].1, Constant::Int(-3)));
        Ok(launch.init_value)
    });
    assert_eq!(seen.unwrap(), None);
}

#[test]
fn launch_is_checked() {
    assert_eq!(check(1, good()), Ok(()));
    for (inputs, options, text) in [
        (0, good(), "kernel: 0 inputs for 1 names"),
        (2, good(), "kernel: 2 inputs for 1 names"),
        (
            1,
            LaunchOptions { output_shapes: &[&[2]], ..good() },
            "kernel: 1 output shapes for 2 names",
        ),
        (1, LaunchOptions { output_dtypes: &[], ..good() }, "kernel: 0 output dtypes for 2 names"),
        (
            1,
            LaunchOptions { output_shapes: &[&[2], &[-1]], ..good() },
            "kernel: output of shape [-1]",
        ),
        (
            1,
            LaunchOptions { grid: [1, -1, 1], ..good() },
            "kernel: grid [1, -1, 1] in groups of [256, 1, 1]",
        ),
        (
            1,
            LaunchOptions { threadgroup: [1, 1, 0], ..good() },
            "kernel: grid [7, 1, 1] in groups of [1, 1, 0]",
        ),
        (
            1,
            LaunchOptions { grid: [i32::MAX, 1, 1], ..good() },
            "kernel: grid [2147483647, 1, 1] in groups of [256, 1, 1]",
        ),
        (
            1,
            LaunchOptions { template: &[("a b", TemplateArg::Bool(true))], ..good() },
            "kernel: \"a b\" is no identifier",
        ),
    ] {
        assert_eq!(check(inputs, options), Err(text.to_owned()));
    }
}

#[test]
fn a_compiled_kernel_reaches_mlx() {
    if cuda::is_available().unwrap() {
        return;
    }
    let x = ops::ones(&[2], Dtype::Float32).unwrap();
    let run = raw::Precompiled {
        name: c"kernel",
        module: b"\0",
        scalars: &[scalar(ScalarArg::Bool(true)), scalar(ScalarArg::Float(2.0))],
        grid: [1; 3],
        threadgroup: [1; 3],
        outputs: &[(&[2], Dtype::Float32), (&[], Dtype::Int32)],
        shared_memory: 0,
        init_value: Some(0.0),
        ensure_row_contiguous: true,
    };
    let error = raw::run_precompiled(&[&x], &run).unwrap_err();
    assert_eq!(error.to_string(), "cuda_kernel: No CUDA back-end");
}
