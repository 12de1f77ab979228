//! Arguments that no caller should pass: each must give an error or a value, never end the process.
//!
//! MLX's CPU backend divides by sizes, trusts axes and shifts counters without a look, so a case
//! here has usually killed a process once. The cases run in child processes, which start again
//! behind the one that died, so that all of them are reported.

// One spelling for all rows of the table; the child tells its parent where it is.
#![allow(clippy::needless_borrows_for_generic_args, clippy::print_stderr)]

use std::process::Command;

use mlx_core::fast::{
    self, AttentionMask, CudaKernel, CudaKernelOptions, MetalKernel, MetalKernelOptions, Offset,
    RopeOptions,
};
use mlx_core::fft::{self, Fft, FftN};
use mlx_core::linalg::{self, NormOrd, Uplo};
use mlx_core::ops::{
    self, BlockMasks, Closeness, Conv, ConvGeneral, ConvTranspose, ConvolveMode, GatherMatmul,
    GlobalScales, Meshgrid, Packed, PadMode, QqWeight, Scan, Side,
};
use mlx_core::transforms::{self, compile, vmap};
use mlx_core::{
    Array, Device, Dtype, ErrorKind, NewAxis, QuantMode, Quantization, Result, Scalar, Slice,
    metal, nn, random, with_device,
};

/// What a case gives: evaluated to the end.
trait Outputs {
    fn arrays(self) -> Vec<Array>;
}

impl Outputs for Array {
    fn arrays(self) -> Vec<Array> {
        vec![self]
    }
}

impl Outputs for (Array, Array) {
    fn arrays(self) -> Vec<Array> {
        vec![self.0, self.1]
    }
}

impl Outputs for (Array, Array, Array) {
    fn arrays(self) -> Vec<Array> {
        vec![self.0, self.1, self.2]
    }
}

impl Outputs for Vec<Array> {
    fn arrays(self) -> Vec<Array> {
        self
    }
}

impl Outputs for Packed {
    fn arrays(self) -> Vec<Array> {
        [self.weight, self.scales].into_iter().chain(self.biases).collect()
    }
}

struct Case {
    text: &'static str,
    /// Whether an error is the only right answer.
    refused: bool,
    run: fn() -> Result<Vec<Array>>,
}

macro_rules! cases {
    (refused { $($bad:expr;)* } survived { $($any:expr;)* }) => {
        &[
            $(Case {
                text: stringify!($bad),
                refused: true,
                run: || { let result = $bad?; Ok(Outputs::arrays(result)) },
            },)*
            $(Case {
                text: stringify!($any),
                refused: false,
                run: || { let result = $any?; Ok(Outputs::arrays(result)) },
            },)*
        ]
    };
}

mod layers;

fn f(shape: &[i32]) -> Array {
    ops::full(shape, 0.5f32, Dtype::Float32).unwrap()
}

fn i(values: &[i32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

/// Indices far out of range that the host does not know yet.
fn far() -> Array {
    i(&[HUGE, i32::MIN, 1 << 20, -1 << 20]).add(0).unwrap()
}

fn of(shape: &[i32], dtype: Dtype) -> Array {
    ops::ones(shape, dtype).unwrap()
}

fn q(mode: QuantMode, group_size: i32, bits: i32) -> Quantization {
    Quantization { group_size, bits, mode }
}

fn packed(weight: &[i32], scales: &[i32], group_size: i32, bits: i32) -> Packed {
    Packed {
        weight: of(weight, Dtype::Uint32),
        scales: f(scales),
        biases: Some(f(scales)),
        quantization: q(QuantMode::Affine, group_size, bits),
    }
}

fn micro(weight: &[i32], scales: &[i32], mode: QuantMode) -> Packed {
    Packed {
        weight: of(weight, Dtype::Uint32),
        scales: of(scales, Dtype::Uint8),
        biases: None,
        quantization: Quantization::of(mode),
    }
}

fn mask(out: &Array) -> BlockMasks<'_> {
    BlockMasks { out: Some(out), ..BlockMasks::default() }
}

fn lhs_mask(lhs: &Array) -> BlockMasks<'_> {
    BlockMasks { lhs: Some(lhs), ..BlockMasks::default() }
}

fn rope(x: &Array, dims: i32, base: Option<f32>, freqs: Option<&Array>) -> Result<Array> {
    let options = RopeOptions { dims, traditional: false, base, scale: 1.0, freqs };
    fast::rope(x, options, Offset::Int(0))
}

fn rope_at(x: &Array, offset: &Array) -> Result<Array> {
    let options =
        RopeOptions { dims: 4, traditional: true, base: Some(10.0), scale: 1.0, freqs: None };
    fast::rope(x, options, Offset::Array(offset))
}

fn sdpa(q: &[i32], k: &[i32], v: &[i32], mask: AttentionMask<'_>) -> Result<Array> {
    fast::scaled_dot_product_attention(&f(q), &f(k), &f(v), 1.0, mask, None)
}

fn every_integer(run: impl Fn(Array, Array) -> Result<Array>) -> Result<Vec<Array>> {
    let mut results = Vec::new();
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
        let least = match dtype {
            Dtype::Int8 => i64::from(i8::MIN),
            Dtype::Int16 => i64::from(i16::MIN),
            Dtype::Int32 => i64::from(i32::MIN),
            Dtype::Int64 => i64::MIN,
            _ => 0,
        };
        let a = Array::from_slice(&[least, least, 5, -5, 7], &[5])?.astype(dtype)?;
        let b = Array::from_slice(&[-1i64, 0, 0, -1, 2], &[5])?.astype(dtype)?;
        let result = run(a, b)?;
        result.eval()?;
        results.push(result);
    }
    Ok(results)
}

fn square(n: i32, value: f32) -> Array {
    ops::full(&[n, n], value, FLOAT).unwrap()
}

fn metal_kernel(
    name: &str,
    input_names: &[&str],
    output_names: &[&str],
    source: &str,
) -> Result<Array> {
    let default = MetalKernelOptions::default();
    let options = MetalKernelOptions { name, input_names, output_names, source, ..default };
    MetalKernel::new(options).map(|_| f(&[]))
}

fn cuda_kernel(input_names: &[&str], shared_memory: i32, source: &str) -> Result<Array> {
    let options = CudaKernelOptions {
        name: "name",
        input_names,
        output_names: &["y"],
        source,
        shared_memory,
        ..CudaKernelOptions::default()
    };
    CudaKernel::new(options).map(|_| f(&[]))
}

const FLOAT: Dtype = Dtype::Float32;
const ALL: std::ops::RangeFull = ..;
const HUGE: i32 = i32::MAX;

static CASES: &[Case] = cases! {
    refused {
        // Shapes
        ops::zeros(&[-1], FLOAT);

        // Empty and out of range axes.
        f(&[0]).argmax(None, false);
        f(&[2, 0]).argmax(1, false);
        f(&[0, 2]).argmin(1, true);
        f(&[0]).max(ALL, false);
        f(&[0]).min(0, false);
        f(&[0]).median(ALL, false);
        f(&[2, 0]).median(1, false);
        f(&[2, 0]).median(&[0, 1], false);
        f(&[0]).logsumexp(ALL, false);
        f(&[2]).std(7, false, 0);
        f(&[2]).sum(&[0, 0], false);
        f(&[2]).sum(i32::MIN, false);
        f(&[2]).sum(&[i32::MIN, HUGE], false);
        f(&[0]).cumsum(None, Scan::default());
        f(&[2, 0]).cumsum(1, Scan::default());
        f(&[0]).cummax(-1, Scan { reverse: true, inclusive: false });
        f(&[]).cumsum(0, Scan::default());
        f(&[2]).logcumsumexp(i32::MIN, Scan::default());
        f(&[0]).sort(None);
        f(&[2, 0]).argsort(-1);
        f(&[]).sort(0);
        f(&[2]).sort(i32::MIN);
        f(&[2]).argsort(HUGE);
        f(&[0]).partition(0, None);
        f(&[3]).partition(3, None);
        f(&[3]).partition(-4, 0);
        f(&[3]).argpartition(i32::MIN, 0);
        f(&[3]).argpartition(HUGE, 0);
        f(&[]).argpartition(0, 0);
        f(&[3]).topk(4, None);
        f(&[3]).topk(-1, None);
        f(&[3]).topk(HUGE, 0);
        f(&[3]).topk(i32::MIN, 0);
        f(&[]).topk(1, 0);
        f(&[0]).topk(0, 0);
        f(&[2, 2]).searchsorted(&f(&[2]), Side::Right);
        f(&[]).searchsorted(&f(&[2]), Side::Right);

        // Shapes.
        ops::zeros(&[HUGE, HUGE, HUGE], FLOAT);
        ops::zeros(&[HUGE, HUGE], FLOAT);
        ops::ones(&[i32::MIN], FLOAT);
        ops::full(&[-2, -2], 1.0f32, None);
        f(&[2]).reshape([i32::MIN]);
        f(&[2]).reshape([-1, -1]);
        f(&[2]).reshape([-2, -1]);
        f(&[2]).reshape([0, -1]);
        f(&[0]).reshape([0, -1]);
        f(&[0]).reshape([65536, 65536]);
        f(&[1]).reshape([65536, 65536, 65536, 65536, -1]);
        f(&[2]).unflatten(0, [65536, 65536, -1]);
        f(&[1]).unflatten(0, [65536, 65536, 65536, 65536, -1]);
        f(&[1]).unflatten(0, [65536, 65536, 65536, 65536]);
        f(&[0]).unflatten(0, [65536, 65536]);
        f(&[0]).reshape([65536, 65536, 65536, 65536]);
        f(&[1]).reshape([65537, 65537, 65537, HUGE]);
        f(&[4]).reshape([-2, -2]);
        f(&[2]).flatten(5, 7);
        f(&[2]).flatten(HUGE, i32::MIN);
        f(&[2]).unflatten(0, []);
        f(&[2]).unflatten(0, [0, -1]);
        f(&[0]).unflatten(0, [0, -1]);
        f(&[0]).unflatten(0, [-1, 0]);
        f(&[2]).unflatten(HUGE, [2]);
        f(&[2]).unflatten(i32::MIN, [2]);
        f(&[2]).unflatten(0, [-1, -1]);
        f(&[2]).unflatten(0, [-2, -1]);
        f(&[1]).squeeze(HUGE);
        f(&[1]).squeeze(i32::MIN);
        f(&[1]).squeeze(&[0, 0]);
        f(&[1]).expand_dims(HUGE);
        f(&[1]).expand_dims(i32::MIN);
        f(&[1]).expand_dims(&[HUGE, HUGE]);
        f(&[1]).expand_dims(&[0, 5]);
        f(&[1]).expand_dims(&[i32::MIN, 0]);
        f(&[2, 3]).transpose([0, 0]);
        f(&[2, 3]).transpose([0]);
        f(&[2, 3]).transpose([0, 1, 2]);
        f(&[2, 3]).transpose([HUGE, i32::MIN]);
        f(&[2, 3]).transpose([]);
        f(&[]).transpose([0]);
        f(&[2, 3]).swapaxes(HUGE, i32::MIN);
        f(&[]).swapaxes(0, 0);
        f(&[2, 3]).moveaxis(i32::MIN, HUGE);
        f(&[]).moveaxis(0, 0);
        f(&[2]).broadcast_to([-1]);
        f(&[2]).broadcast_to([i32::MIN, 2]);
        f(&[1]).broadcast_to([-5]);
        f(&[1]).broadcast_to([HUGE, HUGE, HUGE])?.sum(ALL, false);
        f(&[]).broadcast_to([HUGE, HUGE, HUGE])?.at((0, 0, 0));
        f(&[6]).split(0, 0);
        f(&[6]).split(-2, 0);
        f(&[6]).split(i32::MIN, 0);
        f(&[6]).split(4, 0);
        f(&[6]).split(2, HUGE);
        f(&[6]).split(2, i32::MIN);
        f(&[]).split(1, 0);
        f(&[6]).split_at(&[1], HUGE);
        f(&[]).split_at(&[1], 0);
        f(&[]).unstack(0);
        f(&[2]).unstack(i32::MIN);
        f(&[2]).repeat(-1, None);
        f(&[2]).repeat(HUGE, None);
        f(&[2]).repeat(i32::MIN, 0);
        f(&[3]).repeat(HUGE, 0);
        f(&[2]).repeat(2, HUGE);
        f(&[]).repeat(2, 0);
        f(&[2]).tile(&[-1]);
        f(&[2]).tile(&[HUGE, HUGE, HUGE]);
        f(&[3]).tile(&[HUGE]);
        f(&[2]).pad(&[(-1, 0)], 0);
        f(&[2]).pad(&[(HUGE, HUGE)], 0);
        f(&[2]).pad(&[(i32::MIN, 0)], 0);
        f(&[2]).pad(&[], 0);
        f(&[2]).pad(&[(0, 0), (1, 1)], 0);
        f(&[0]).pad_mode(&[(1, 1)], PadMode::Edge);
        f(&[0]).pad_mode(&[(1, 1)], PadMode::Reflect);
        f(&[0]).pad_mode(&[(1, 1)], PadMode::Symmetric);
        f(&[2]).pad_mode(&[(-1, 1)], PadMode::Reflect);
        f(&[2]).pad_mode(&[(HUGE, HUGE)], PadMode::Reflect);
        f(&[]).roll(1, 0);
        f(&[3]).roll(1, i32::MIN);
        f(&[3]).roll_axes(&[], &[0]);
        f(&[3]).roll_axes(&[1], &[HUGE]);
        f(&[3]).flip(HUGE);
        f(&[]).flip(0);
        f(&[2]).triu(0);
        f(&[]).triu(0);
        f(&[2]).diag(i32::MIN);
        f(&[2]).diag(HUGE);
        f(&[2]).diag(-HUGE);
        f(&[]).diag(0);
        f(&[2, 2]).diagonal(0, 0, 0);
        f(&[2, 2]).diagonal(0, HUGE, i32::MIN);
        f(&[2]).diagonal(0, 0, 1);
        f(&[]).diagonal(0, 0, 1);
        f(&[]).trace(0, 0, 1, FLOAT);
        f(&[6]).as_strided(&[6], &[1], 1);
        f(&[6]).as_strided(&[7], &[1], 0);
        f(&[6]).as_strided(&[1], &[1], 6);
        f(&[6]).as_strided(&[], &[], 6);
        f(&[6]).as_strided(&[], &[], usize::MAX);
        f(&[6]).as_strided(&[2], &[-1], 0);
        f(&[6]).as_strided(&[2], &[6], 0);
        f(&[6]).as_strided(&[2], &[i64::MAX], 0);
        f(&[6]).as_strided(&[2], &[i64::MIN], 0);
        f(&[6]).as_strided(&[2, 2], &[i64::MAX, i64::MAX], 0);
        f(&[6]).as_strided(&[3, 3], &[i64::MAX / 2, i64::MIN / 2], 2);
        f(&[6]).as_strided(&[3, 3], &[-2, 2], 0);
        f(&[6]).as_strided(&[HUGE], &[i64::MAX], 0);
        f(&[6]).as_strided(&[-1], &[1], 0);
        f(&[6]).as_strided(&[2], &[], 0);
        f(&[6]).as_strided(&[], &[1], 0);
        f(&[6]).as_strided(&[0], &[1], 7);
        f(&[0]).as_strided(&[1], &[1], 0);
        f(&[0]).as_strided(&[], &[], 0);
        f(&[6]).as_strided(&[HUGE, HUGE, HUGE], &[0, 0, 0], 0);
        f(&[1]).broadcast_to([6])?.as_strided(&[7], &[1], 0);
        f(&[2]).diff(-1, 0);
        f(&[2]).diff(i32::MIN, 0);
        f(&[2]).diff(1, HUGE);
        f(&[]).diff(1, 0);
        f(&[2]).full_like(&f(&[3]), None);
        f(&[1]).full_like(&f(&[3]), None);
        f(&[2]).full_like(&f(&[2, 2]), None);
        of(&[2], Dtype::Uint8).full_like(300, None);
        ops::concatenate(&[], None);
        ops::broadcast_shapes([[HUGE], [i32::MIN]]).map(|_| f(&[]));
        ops::eye(-1, 2, 0, FLOAT);
        ops::eye(2, -1, 0, FLOAT);
        ops::eye(2, 2, i32::MIN, FLOAT);
        ops::eye(HUGE, HUGE, 0, FLOAT);
        ops::identity(-1, FLOAT);
        ops::identity(i32::MIN, FLOAT);
        ops::arange(0.0, 1.0, 0.0, FLOAT);
        ops::arange(0.0, f64::INFINITY, 1.0, FLOAT);
        ops::arange(f64::NAN, 1.0, 1.0, FLOAT);
        ops::arange(0.0, 1.0, f64::NAN, FLOAT);
        ops::arange(0.0, 1e300, 1e-300, FLOAT);
        ops::arange(0.0, 1e12, 1.0, FLOAT);
        ops::arange(0.0, 5.0, 1.0, Dtype::Bool);
        ops::linspace(0.0, 1.0, -1, FLOAT);
        ops::linspace(0.0, 1.0, i32::MIN, FLOAT);
        ops::concatenate(&[], 0);
        ops::concatenate(&[f(&[2]), f(&[2])], HUGE);
        ops::concatenate(&[f(&[2]), f(&[2])], i32::MIN);
        ops::concatenate(&[f(&[2]), f(&[])], 0);
        ops::stack(&[], 0);
        ops::stack(&[f(&[2])], HUGE);
        ops::stack(&[f(&[2])], i32::MIN);
        f(&[]).view(Dtype::Uint8);
        f(&[3]).view(Dtype::Int64);
        of(&[], Dtype::Uint8).view(Dtype::Int32);
        of(&[5], Dtype::Uint8).view(Dtype::Int32);

        // Indexing.
        f(&[2]).slice(&[0], &[2], &[0]);
        f(&[2]).slice(&[], &[], &[]);
        f(&[2]).slice(&[0, 0], &[1, 1], &[1, 1]);
        f(&[2]).slice_update(&f(&[2]), &[0], &[2], &[0]);
        f(&[2]).slice_update(&f(&[3]), &[0], &[2], &[1]);
        f(&[2, 3]).slice_dynamic(&i(&[0]), &[7], &[1, 1]);
        f(&[2, 3]).slice_dynamic(&i(&[0, 0]), &[0], &[1, 1]);
        f(&[2, 3]).slice_dynamic(&i(&[0]), &[0], &[1]);
        f(&[2, 3]).slice_dynamic(&i(&[0]), &[0], &[-1, 3]);
        f(&[2, 3]).slice_dynamic(&i(&[0]), &[0], &[9, 3]);
        f(&[2, 3]).slice_dynamic(&f(&[1]), &[0], &[1, 3]);
        f(&[2, 3]).slice_dynamic(&i(&[0, 1]), &[0, 0], &[1, 1]);
        f(&[2, 3]).slice_dynamic(&i(&[0]), &[i32::MIN], &[1, 1]);
        f(&[2, 3]).slice_update_dynamic(&f(&[9, 9]), &i(&[0]), &[0]);
        f(&[2, 3]).slice_update_dynamic(&f(&[1, 1, 1, 1]), &i(&[0]), &[0]);
        f(&[2, 3]).slice_update_dynamic(&f(&[1, 1]), &i(&[0]), &[5]);
        f(&[2]).take(&f(&[1]), 0);
        f(&[2]).take(&of(&[1], Dtype::Bool), 0);
        f(&[2]).take(&of(&[1], Dtype::Complex64), 0);
        f(&[2]).take(&i(&[0]), HUGE);
        f(&[2]).take(&i(&[0]), i32::MIN);
        f(&[0]).take(&i(&[0]), 0);
        f(&[0]).take(&i(&[0]), None);
        f(&[]).take(&i(&[0]), 0);
        f(&[2]).take_along_axis(&i(&[0]), 3);
        f(&[2]).take_along_axis(&f(&[1]), 0);
        f(&[0]).take_along_axis(&i(&[0]), 0);
        f(&[]).take_along_axis(&i(&[0]), 0);
        f(&[2]).put_along_axis(&i(&[0]), 1.0f32, i32::MIN);
        f(&[2]).put_along_axis(&f(&[1]), 1.0f32, 0);
        f(&[0]).put_along_axis(&i(&[0]), 1.0f32, 0);
        f(&[2]).scatter_add_axis(&i(&[0]), &f(&[1]), HUGE);
        f(&[2]).scatter_add_axis(&f(&[1]), &f(&[1]), 0);
        f(&[2, 3]).gather(&[], &[0], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[0], &[1]);
        f(&[2, 3]).gather(&[i(&[0])], &[0], &[1, 1, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[0], &[-1, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[0], &[3, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[9], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[i32::MIN], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0]), i(&[0])], &[0, 0], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0, 1]), i(&[0, 1, 1])], &[0, 1], &[1, 1]);
        f(&[2, 3]).gather(&[f(&[1])], &[0], &[1, 1]);
        f(&[0, 3]).gather(&[i(&[0])], &[0], &[1, 1]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[1, 1, 3]), &[]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[1, 1, 3]), &[5]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[1, 1, 3]), &[i32::MIN]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[1]), &[0]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[]), &[0]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[1, 9, 9]), &[0]);
        f(&[2, 3]).scatter(&[i(&[0])], &f(&[5, 1, 3]), &[0]);
        f(&[2, 3]).scatter(&[f(&[1])], &f(&[1, 1, 3]), &[0]);
        f(&[2, 3]).scatter_max(&[i(&[0]), i(&[0])], &f(&[1, 1, 1]), &[0, 0]);
        f(&[0, 3]).scatter_min(&[i(&[0])], &f(&[1, 1, 3]), &[0]);
        f(&[2]).take(2, 0);
        f(&[2]).take(i64::MIN, None);
        f(&[2]).take(true, 0);
        f(&[2]).take(f32::NAN, 0);
        f(&[2]).take(&i(&[0, 2]), 0);
        f(&[2]).take_along_axis(&i(&[-3]), 0);
        f(&[2]).put_along_axis(&i(&[2]), 1.0f32, None);
        f(&[2]).scatter_add_axis(&i(&[HUGE]), &f(&[1]), 0);
        f(&[2, 3]).gather(&[i(&[2])], &[1], &[1, 2]);
        f(&[2, 3]).gather(&[i(&[-1])], &[1], &[1, 2]);
        f(&[2, 3]).gather_single(&i(&[i32::MIN]), 0, &[1, 1]);
        f(&[2, 3]).gather_single(&i(&[0]), -1, &[1, 1]);
        f(&[2, 3]).scatter(&[i(&[2])], &f(&[1, 1, 3]), &[0]);
        f(&[2, 3]).scatter_add(&[i(&[1])], &f(&[1, 2, 3]), &[0]);
        f(&[2, 3]).scatter_prod_single(&i(&[-3]), &f(&[1, 1, 3]), 0);
        f(&[4]).slice_dynamic(&i(&[3]), &[0], &[2]);
        f(&[4]).slice_dynamic(&i(&[-1]), &[0], &[1]);
        f(&[4]).slice_dynamic(&i(&[0]), &[0], &[-1]);
        f(&[4]).slice_dynamic(&i(&[0]), &[0], &[1, 1]);
        f(&[4]).slice_dynamic(&of(&[1], Dtype::Bool), &[0], &[1]);
        f(&[4]).slice_update_max_dynamic(&f(&[2]), &i(&[3]), &[0]);
        f(&[2]).slice_update_prod(&f(&[3]), &[0], &[2], &[1]);
        f(&[2]).slice_update_min(&f(&[2]), &[0], &[2], &[0]);
        f(&[2]).masked_scatter(&f(&[2]), &f(&[2]));
        f(&[2]).masked_scatter(&of(&[3], Dtype::Bool), &f(&[2]));
        f(&[2]).masked_scatter(&of(&[2], Dtype::Bool), &f(&[2, 2]));
        f(&[2]).put(Array::from_slice(&[true, true], &[2]).unwrap(), &f(&[3]));
        f(&[2]).put(true, &f(&[2, 2]));
        f(&[2]).at((true, of(&[2], Dtype::Bool), 0));
        ops::nonzero(&f(&[]));
        fast::cross_entropy(&f(&[2, 3]), &i(&[3, 0]));
        ops::gather_mm(&f(&[2, 2, 2]), &f(&[2, 2, 2]), Some(&i(&[2])), None, false);
        f(&[2]).at(f(&[1]));
        f(&[2]).at(of(&[3], Dtype::Bool));
        f(&[2]).at(Slice::step(0));
        f(&[2]).at(i32::MIN);
        f(&[2]).at(HUGE);
        f(&[]).at(0);
        f(&[]).at(i(&[0]));
        f(&[0]).at(0);
        f(&[2]).at((i(&[0]), NewAxis, i(&[0])));
        f(&[2, 2]).at((i(&[0, 1]), i(&[0, 1, 0])));
        f(&[2]).put(0, &f(&[2]));
        f(&[2]).put(.., &f(&[0]));
        f(&[2]).put(of(&[3], Dtype::Bool), 1.0f32);
        of(&[2], Dtype::Bool).put_subtract(0, true);

        // Products.
        f(&[]).matmul(&f(&[]));
        f(&[2]).matmul(&f(&[3]));
        of(&[2, 2], Dtype::Bool).matmul(&of(&[2, 2], Dtype::Bool));
        of(&[2, 2], Dtype::Int32).matmul(&of(&[2, 2], Dtype::Int32));
        f(&[HUGE, 1]).matmul(&f(&[2, 2]));
        ops::addmm(&f(&[7]), &f(&[2, 2]), &f(&[2, 2]), 1.0, 1.0);
        ops::addmm(&f(&[]), &f(&[]), &f(&[2, 2]), 1.0, 1.0);
        ops::addmm(&f(&[3, 2, 2]), &f(&[2, 2]), &f(&[2, 2]), 1.0, 1.0);
        ops::addmm(&i(&[1, 2]), &i(&[1, 2]), &i(&[1, 2]), 1.0, 1.0);
        f(&[2]).tensordot(&f(&[2]), &[0, 0], &[0, 0]);
        f(&[2]).tensordot(&f(&[2]), &[5], &[5]);
        f(&[2]).tensordot(&f(&[2]), &[i32::MIN], &[0]);
        f(&[2]).tensordot(&f(&[2]), &[0], &[]);
        f(&[2]).tensordot(&f(&[3]), &[0], &[0]);
        ops::kron(&f(&[0]), &f(&[2, 2]));
        ops::einsum("", &[]);
        ops::einsum("", &[f(&[2])]);
        ops::einsum("->", &[f(&[2])]);
        ops::einsum("i", &[]);
        ops::einsum("i,j,k", &[f(&[2])]);
        ops::einsum("i->j", &[f(&[2])]);
        ops::einsum("i->ii", &[f(&[2])]);
        ops::einsum("ii->i", &[f(&[2, 3])]);
        ops::einsum("ij,ij,ij->", &[f(&[2, 2]), f(&[2, 2]), f(&[2, 3])]);
        ops::einsum("......", &[f(&[2])]);
        ops::einsum("..i", &[f(&[2])]);
        ops::einsum("i...j...", &[f(&[2, 2])]);
        ops::einsum("...ij->...", &[f(&[])]);
        ops::einsum("...i,...i->...", &[f(&[2, 3]), f(&[5, 4, 3])]);
        ops::einsum("i->->", &[f(&[2])]);
        ops::einsum("-", &[f(&[2])]);
        ops::einsum(">", &[f(&[2])]);
        ops::einsum("i-", &[f(&[2])]);
        ops::einsum("%s%s%s%n", &[f(&[2])]);
        ops::einsum("äß→", &[f(&[2])]);
        ops::einsum("i\0", &[f(&[2])]);
        ops::einsum("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", &[f(&[2])]);
        ops::einsum("ij,j", &[i(&[1, 2]).reshape([1, 2])?, i(&[1, 2])]);
        ops::einsum(&"i".repeat(5000), &[f(&[2])]);
        ops::einsum(&"i,".repeat(5000), &[f(&[2])]);
        ops::gather_mm(&f(&[]), &f(&[]), None, None, false);
        ops::gather_mm(&f(&[1, 2]), &f(&[2, 2]), Some(&f(&[1])), None, false);
        ops::gather_mm(&of(&[1, 2], Dtype::Int32), &of(&[2, 2], Dtype::Int32), None, None, false);

        f(&[2]).tensordot_axis(&f(&[2]), -1);
        f(&[2]).tensordot_axis(&f(&[2]), 2);
        f(&[2]).tensordot_axis(&f(&[2]), HUGE);
        f(&[2]).tensordot_axis(&f(&[2]), i32::MIN);
        f(&[]).vecdot(&f(&[]), 0);
        f(&[2]).vecdot(&f(&[2]), HUGE);
        f(&[2]).vecdot(&f(&[2]), i32::MIN);
        f(&[2]).vecdot(&f(&[3]), 0);
        f(&[0]).hadamard_transform(None);
        f(&[2, 36]).hadamard_transform(None);
        f(&[1, 60]).hadamard_transform(1.0);
        f(&[1, 84]).hadamard_transform(1.0);
        f(&[3]).hadamard_transform(f32::NAN);
        f(&[1]).broadcast_to([HUGE, 2])?.hadamard_transform(None);
        of(&[2], Dtype::Float64).hadamard_transform(None);
        ops::block_masked_mm(&f(&[2, 2]), &f(&[2, 2]), 0, mask(&f(&[1, 1])));
        ops::block_masked_mm(&f(&[2, 2]), &f(&[2, 2]), -64, mask(&f(&[1, 1])));
        ops::block_masked_mm(&f(&[2, 2]), &f(&[2, 2]), HUGE, mask(&f(&[1, 1])));
        ops::block_masked_mm(&f(&[2, 2]), &f(&[2, 2]), 64, mask(&f(&[2, 2])));
        ops::block_masked_mm(&f(&[2, 2]), &f(&[2, 2]), 64, mask(&f(&[1, 1, 1, 1])));
        ops::block_masked_mm(&f(&[2, 2]), &f(&[2, 2]), 64, mask(&f(&[0])));
        ops::block_masked_mm(&f(&[]), &f(&[]), 64, mask(&f(&[])));
        ops::block_masked_mm(&f(&[2, 3]), &f(&[2, 2]), 64, mask(&f(&[1, 1])));
        ops::block_masked_mm(&f(&[2, 2, 2]), &f(&[3, 2, 2]), 64, mask(&f(&[1, 1])));
        ops::segmented_mm(&f(&[2, 3]), &f(&[4, 2]), &i(&[0, 4]));
        ops::segmented_mm(&f(&[2, 4]), &f(&[3, 2]), &i(&[0, 4]));
        ops::segmented_mm(&f(&[2]), &f(&[2]), &i(&[0, 1]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[0, 1, 2]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &Array::from(0));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &f(&[2]));
        ops::segmented_mm(&f(&[1, 1]).broadcast_to([32768, 1])?, &f(&[1, 1]).broadcast_to([1, 32768])?, &i(&[0; 8]).reshape([4, 2])?);
        ops::gather_mm(&f(&[3, 1, 2]), &f(&[0, 2, 2]), None, Some(&i(&[0])), false);
        ops::gather_mm(&f(&[0, 1, 2]), &f(&[2, 2, 2]), Some(&i(&[0])), Some(&i(&[0])), false);
        ops::depends(&[], &[]);
        ops::depends(&[], &[f(&[2])]);
        f(&[2]).number_of_elements(1, false, FLOAT);
        f(&[2]).number_of_elements(i32::MIN, true, FLOAT);
        f(&[]).number_of_elements(0, false, FLOAT);

        // Convolutions.
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { stride: [0], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { stride: [i32::MIN], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { dilation: [0], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { dilation: [HUGE], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { groups: 0, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { groups: -2, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { groups: HUGE, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 0]), &f(&[2, 3, 2]), Conv { groups: 0, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[3, 3, 1]), Conv { groups: 2, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 5, 2]), Conv { stride: [3], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 5, 2]), Conv { stride: [HUGE], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 9, 2]), Conv { stride: [64], ..Conv::default() });
        ops::conv1d(&f(&[1, 0, 2]), &f(&[2, 1, 2]), Conv { stride: [64], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 3]), Conv::default());
        ops::conv1d(&f(&[1, 4]), &f(&[2, 3]), Conv::default());
        ops::conv1d(&f(&[]), &f(&[]), Conv::default());
        ops::conv1d(&f(&[1, 4, 4, 2]), &f(&[2, 3, 3, 2]), Conv::default());
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { padding: [HUGE], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { padding: [i32::MIN], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { padding: [-4], ..Conv::default() });
        ops::conv1d(&i(&[1, 2]).reshape([1, 2, 1])?, &f(&[1, 1, 1]), Conv::default());
        ops::conv1d(&of(&[1, 4, 2], Dtype::Complex64), &f(&[2, 3, 2]), Conv::default());
        ops::conv2d(&f(&[1, 4, 4, 2]), &f(&[2, 3, 5, 2]), Conv { stride: [1, 3], ..Conv::default() });
        ops::conv2d(&f(&[1, 1, 1, 16]), &f(&[1, 1, 1, 16]), Conv { padding: [1 << 29; 2], stride: [1 << 30; 2], ..Conv::default() });
        ops::conv2d(&f(&[1, 1, 1, 1]), &f(&[1, 1, 1, 1]), Conv { padding: [1 << 15; 2], ..Conv::default() });
        ops::conv2d(&f(&[1, 1, 1, 1]), &f(&[1, 1, 1, 1]), Conv { padding: [1 << 16; 2], ..Conv::default() });
        ops::conv3d(&f(&[1, 2, 2, 2, 2]), &f(&[2, 1, 1, 1, 1]), Conv { groups: 2, ..Conv::default() });
        ops::conv3d(&f(&[1, 2, 2, 2, 0]), &f(&[2, 1, 1, 1, 0]), Conv { groups: 0, ..Conv::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { stride: [0], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { stride: [HUGE], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { padding: [HUGE], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { padding: [i32::MIN], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { dilation: [HUGE], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { output_padding: [HUGE], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { output_padding: [i32::MIN], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { groups: 0, ..Default::default() });
        ops::conv_transpose2d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose::default());
        ops::conv_transpose2d(&f(&[1, 4, 4, 2]), &f(&[2]), ConvTranspose::default());
        ops::conv_transpose3d(&f(&[]), &f(&[]), ConvTranspose::default());
        ops::conv_general(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvGeneral { input_dilation: &[0], ..Default::default() });
        ops::conv_general(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvGeneral { input_dilation: &[HUGE], ..Default::default() });
        ops::conv_general(&f(&[1, 9, 2]), &f(&[2, 1, 2]), ConvGeneral { input_dilation: &[1 << 29], kernel_dilation: &[2], ..Default::default() });
        ops::conv_general(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvGeneral { stride: &[1, 1], ..Default::default() });
        ops::conv_general(&f(&[1, 5, 2]), &f(&[2, 1, 2]), ConvGeneral { padding_hi: &[-7], ..Default::default() });
        ops::conv_general(&f(&[1, 5, 2]), &f(&[2, 1, 2]), ConvGeneral { padding_lo: &[-7], padding_hi: &[9], ..Default::default() });
        ops::conv_general(&f(&[1, 5, 2]), &f(&[2, 1, 2]), ConvGeneral { padding_lo: &[i32::MIN], padding_hi: &[HUGE], ..Default::default() });
        ops::conv_general(&f(&[1, 2]), &f(&[1, 2]), ConvGeneral::default());
        ops::conv_general(&f(&[1, 1, 1, 1, 1, 1]), &f(&[1, 1, 1, 1, 1, 1]), ConvGeneral::default());
        ops::convolve(&f(&[0]), &f(&[2]), ConvolveMode::Full);
        ops::convolve(&f(&[2, 2]), &f(&[2]), ConvolveMode::Same);
        ops::convolve(&i(&[1, 2]), &i(&[1]), ConvolveMode::Valid);

        // Quantization.
        packed(&[2, 8], &[1, 2], 32, 4).matmul(&f(&[3, 64]), true);
        packed(&[2, 8], &[2], 32, 4).matmul(&f(&[3, 64]), true);
        packed(&[3, 2, 8], &[3, 1, 2], 32, 4).gather_matmul(&f(&[1, 64]), None, Some(&i(&[0])), GatherMatmul::default());
        packed(&[8], &[2], 32, 4).gather_matmul(&f(&[1, 64]), None, Some(&i(&[0])), GatherMatmul::default());
        Packed { quantization: q(QuantMode::Mxfp4, 64, 4), ..micro(&[2, 8], &[2, 1], QuantMode::Mxfp4) }.matmul(&f(&[3, 64]), true);
        Packed { quantization: q(QuantMode::Mxfp8, 64, 8), ..micro(&[2, 16], &[2, 1], QuantMode::Mxfp8) }.matmul(&f(&[3, 64]), true);
        Packed { quantization: q(QuantMode::Nvfp4, 64, 4), ..micro(&[2, 8], &[2, 1], QuantMode::Nvfp4) }.matmul(&f(&[3, 64]), true);
        ops::qqmm(&f(&[]), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&packed(&[2, 8], &[2, 2], 32, 4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[8], &[2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[2, 8], &[1, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[3, 2, 8], &[3, 2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 63]), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&of(&[1, 64], Dtype::Complex64), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Dense(&f(&[2, 64]), q(QuantMode::Mxfp4, 0, 4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Dense(&f(&[]), q(QuantMode::Mxfp4, 32, 4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Dense(&of(&[2, 8], Dtype::Uint32), q(QuantMode::Mxfp4, 32, 4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), Some(GlobalScales { x: &f(&[]), w: &f(&[]) }));
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[2, 8], &[2, 4], QuantMode::Nvfp4)), Some(GlobalScales { x: &f(&[3]), w: &f(&[]) }));
        ops::gather_qqmm(&f(&[]), QqWeight::Packed(&micro(&[2, 2, 8], &[2, 2, 2], QuantMode::Mxfp4)), None, None, false);
        ops::gather_qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[8], &[2], QuantMode::Mxfp4)), None, None, false);
        ops::gather_qqmm(&f(&[1, 64]), QqWeight::Dense(&f(&[64]), Quantization::of(QuantMode::Nvfp4)), None, None, false);
        ops::gather_qqmm(&f(&[1, 1, 64]), QqWeight::Packed(&micro(&[0, 2, 8], &[0, 2, 2], QuantMode::Mxfp4)), None, Some(&i(&[0])), false);
        ops::quantize_with_global_scale(&f(&[2, 64]), &f(&[2]));
        ops::quantize_with_global_scale(&f(&[]), &f(&[]));
        ops::quantize_with_global_scale(&f(&[2, 64]), &i(&[1]));
        packed(&[2, 8], &[2, 2], 32, 4).dequantize_with_global_scale(&f(&[]), None);
        micro(&[2, 8], &[2, 4], QuantMode::Nvfp4).dequantize_with_global_scale(&f(&[3]), None);
        ops::quantize(&f(&[2, 33]), q(QuantMode::Affine, 32, 4));
        ops::quantize(&f(&[]), q(QuantMode::Affine, 32, 4));
        ops::quantize(&f(&[64]), q(QuantMode::Affine, 32, 4));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, 0, 4));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, -32, 4));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, HUGE, 4));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, i32::MIN, 4));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, 32, 0));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, 32, -4));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, 32, 7));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, 32, 32));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Affine, 32, i32::MIN));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Mxfp4, 0, 0));
        ops::quantize(&f(&[2, 64]), q(QuantMode::Nvfp4, 32, 4));
        ops::quantize(&f(&[2, 0]), q(QuantMode::Mxfp4, 32, 4));
        ops::quantize(&f(&[0, 64]), q(QuantMode::Mxfp8, 32, 8));
        ops::quantize(&f(&[2, 24]), q(QuantMode::Nvfp4, 16, 4));
        ops::quantize(&of(&[2, 64], Dtype::Int32), q(QuantMode::Affine, 32, 4));
        ops::quantize(&of(&[2, 64], Dtype::Complex64), q(QuantMode::Affine, 32, 4));
        ops::quantize(&of(&[2, 64], Dtype::Float64), q(QuantMode::Affine, 32, 4));
        packed(&[], &[], 32, 4).dequantize(None);
        packed(&[8], &[2], 32, 4).dequantize(None);
        packed(&[2, 8], &[2], 32, 4).dequantize(None);
        packed(&[2, 8], &[2, 2], 0, 4).dequantize(None);
        packed(&[2, 8], &[2, 2], 32, 0).dequantize(None);
        packed(&[2, 8], &[2, 2], -32, -4).dequantize(None);
        packed(&[2, 8], &[2, 2], 32, 64).dequantize(None);
        packed(&[2, 8], &[3, 2], 32, 4).dequantize(None);
        packed(&[2, 8], &[2, 0], 32, 4).dequantize(None);
        packed(&[0, 8], &[0, 2], 32, 4).dequantize(None);
        packed(&[2, 7], &[2, 2], 32, 3).dequantize(None);
        packed(&[2, 8], &[2, 2], 32, 4).dequantize(Dtype::Int32);
        packed(&[2, 8], &[2, 2], 32, 4).dequantize(Dtype::Complex64);
        micro(&[2, 8], &[2, 2], QuantMode::Mxfp4).dequantize(Dtype::Int32);
        micro(&[2, 8], &[2, 3], QuantMode::Nvfp4).dequantize(None);
        micro(&[8], &[2], QuantMode::Mxfp8).dequantize(None);
        micro(&[], &[], QuantMode::Mxfp8).dequantize(None);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&f(&[]), true);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&f(&[3, 63]), true);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&f(&[3, 3]), false);
        packed(&[0, 8], &[0, 2], 32, 4).matmul(&f(&[3, 64]), true);
        packed(&[0, 8], &[0, 2], 32, 4).matmul(&f(&[3, 0]), false);
        packed(&[2, 8], &[2, 2], 0, 4).matmul(&f(&[3, 64]), true);
        packed(&[2, 8], &[2, 2], 32, 0).matmul(&f(&[3, 64]), true);
        packed(&[8], &[2], 32, 4).matmul(&f(&[3, 64]), true);
        packed(&[], &[], 32, 4).matmul(&f(&[3, 64]), true);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&of(&[1, 64], Dtype::Complex64), true);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&of(&[1, 64], Dtype::Float64), true);
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).matmul(&f(&[2, 1, 64]), true);
        packed(&[3, 2, 8], &[2, 2, 2], 32, 4).matmul(&f(&[3, 1, 64]), true);
        micro(&[2, 8], &[2, 2], QuantMode::Mxfp4).matmul(&f(&[3, 63]), true);
        micro(&[2, 8], &[2, 2], QuantMode::Mxfp4).matmul(&f(&[]), true);
        micro(&[2, 8], &[2, 9], QuantMode::Mxfp4).matmul(&f(&[3, 64]), true);
        Packed { biases: None, ..packed(&[2, 8], &[2, 2], 32, 4) }.matmul(&f(&[3, 64]), true);
        Packed { weight: f(&[2, 8]), ..packed(&[2, 8], &[2, 2], 32, 4) }.matmul(&f(&[3, 64]), true);
        Packed { biases: Some(f(&[1])), ..packed(&[2, 8], &[2, 2], 32, 4) }.matmul(&f(&[3, 64]), true);
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).gather_matmul(&f(&[]), None, None, GatherMatmul::default());
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).gather_matmul(&f(&[1, 64]), None, Some(&f(&[1])), GatherMatmul::default());
        packed(&[0, 2, 8], &[0, 2, 2], 32, 4).gather_matmul(&f(&[1, 64]), None, None, GatherMatmul::default());
        packed(&[2, 8], &[2, 2], 32, 4).take_rows(&f(&[1]));
        packed(&[], &[], 32, 4).take_rows(&i(&[0]));
        ops::to_fp8(&i(&[1]));
        ops::to_fp8(&of(&[2], Dtype::Complex64));
        ops::from_fp8(&f(&[2]), FLOAT);
        ops::from_fp8(&of(&[2], Dtype::Uint8), Dtype::Int32);
        ops::from_fp8(&of(&[2], Dtype::Uint8), Dtype::Complex64);

        // Fused.
        rope(&f(&[1, 2, 3, 8]), 0, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), -2, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), 5, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), 1, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), 16, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), HUGE, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), i32::MIN, Some(10.0), None);
        rope(&f(&[1, 2, 3, 7]), 7, Some(10.0), None);
        rope(&f(&[1, 2, 3, 8]), 8, None, None);
        rope(&f(&[1, 2, 3, 8]), 8, Some(1.0), Some(&f(&[4])));
        rope(&f(&[1, 2, 3, 8]), 8, None, Some(&f(&[3])));
        rope(&f(&[1, 2, 3, 8]), 8, None, Some(&f(&[])));
        rope(&f(&[1, 2, 3, 8]), 8, None, Some(&f(&[2, 2])));
        rope(&f(&[1, 2, 3, 8]), 16, None, Some(&f(&[8])));
        rope(&f(&[1, 2, 3, 8]), 5, None, Some(&f(&[2])));
        rope(&f(&[]), 8, Some(10.0), None);
        rope(&f(&[8]), 8, Some(10.0), None);
        rope(&f(&[3, 8]), 8, Some(10.0), None);
        rope(&f(&[1, 2, 3, 0]), 8, Some(10.0), None);
        rope(&of(&[1, 2, 3, 8], Dtype::Int32), 8, Some(10.0), None);
        rope(&of(&[1, 2, 3, 8], Dtype::Complex64), 8, Some(10.0), None);
        rope_at(&f(&[2, 2, 3, 8]), &i(&[1, 2, 3]));
        rope_at(&f(&[2, 2, 3, 8]), &i(&[]));
        rope_at(&f(&[2, 2, 3, 8]), &f(&[2]));
        rope_at(&f(&[2, 2, 3, 8]), &of(&[2, 1], Dtype::Int32));
        rope_at(&f(&[0, 2, 3, 8]), &i(&[]));
        nn::Rope { magnitude: 2.0, ..nn::Rope::new(16, 10.0) }.forward(&f(&[1, 2, 3, 8]), 0);
        nn::Rope { magnitude: 2.0, ..nn::Rope::new(-3, 10.0) }.forward(&f(&[1, 2, 3, 8]), 0);
        nn::Rope { magnitude: 2.0, ..nn::Rope::new(4, 10.0) }.forward(&f(&[3, 8]), 0);
        sdpa(&[1, 2, 3, 8], &[1, 0, 3, 8], &[1, 0, 3, 8], AttentionMask::None);
        sdpa(&[1, 0, 3, 8], &[1, 0, 3, 8], &[1, 0, 3, 8], AttentionMask::None);
        sdpa(&[1, 3, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 4, 3, 8], &[1, 4, 3, 8], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 8], &[1, 1, 3, 8], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 4], &[1, 2, 3, 8], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 2, 4, 8], &[1, 2, 3, 8], AttentionMask::None);
        sdpa(&[2, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::None);
        sdpa(&[3, 8], &[3, 8], &[3, 8], AttentionMask::None);
        sdpa(&[], &[], &[], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[], &[1, 2, 3, 8], AttentionMask::Causal);
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Array(&f(&[7, 7])));
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Array(&f(&[1, 1, 1, 1, 3, 3])));
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Array(&f(&[0])));
        sdpa(&[1, 4, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Array(&f(&[3, 3, 3])));
        sdpa(&[1, 4, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Array(&of(&[3, 3], Dtype::Complex64)));
        fast::scaled_dot_product_attention(&f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), 1.0, AttentionMask::None, Some(&f(&[])));
        fast::scaled_dot_product_attention(&f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), 1.0, AttentionMask::None, Some(&f(&[5, 5])));
        fast::scaled_dot_product_attention(&of(&[1, 2, 3, 8], Dtype::Complex64), &f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), 1.0, AttentionMask::None, None);
        nn::attention(&f(&[3, 8]), &f(&[3, 8]), &f(&[3, 8]), 1.0, AttentionMask::None, None);
        nn::attention(&f(&[1, 2, 0, 8]), &f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), 1.0, AttentionMask::None, None);
        fast::rms_norm(&f(&[]), None, 1e-5);
        fast::rms_norm(&f(&[2, 4]), Some(&f(&[2, 4])), 1e-5);
        fast::rms_norm(&of(&[2, 4], Dtype::Complex64), None, 1e-5);
        nn::RmsNorm { weight: f(&[]).into(), eps: 1e-5 }.forward(&f(&[]));
        nn::RmsNorm { weight: f(&[4]).into(), eps: 1e-5 }.forward(&f(&[]));
        nn::RmsNorm { weight: f(&[1, 4]).into(), eps: 1e-5 }.forward(&f(&[2, 4]));
        nn::LayerNorm { weight: Some(f(&[3]).into()), bias: None, eps: 1e-5 }.forward(&f(&[2, 4]));
        nn::LayerNorm { weight: None, bias: Some(f(&[]).into()), eps: 1e-5 }.forward(&f(&[2, 4]));
        nn::LayerNorm { weight: None, bias: None, eps: 1e-5 }.forward(&of(&[2, 4], Dtype::Int32));
        nn::gelu(&of(&[2], Dtype::Complex64));
        fast::cross_entropy(&f(&[2, 3]), &i(&[0]));
        fast::cross_entropy(&f(&[2, 3]), &f(&[2]));
        fast::cross_entropy(&f(&[]), &i(&[]));
        fast::cross_entropy(&f(&[0, 3]), &i(&[]));
        fast::cross_entropy(&f(&[2, 0]), &i(&[0, 0]));

        // Random.
        random::split(&i(&[1, 2]), 2);
        random::split(&random::key(0)?, -1);
        random::split(&f(&[]), 2);
        random::bits(&[-1], 4, None);
        random::bits(&[2], 3, None);
        random::bits(&[2], 0, None);
        random::bits(&[2], -4, None);
        random::bits(&[HUGE, HUGE, HUGE], 4, None);
        random::bits(&[2], 4, Some(&f(&[2])));
        random::uniform(0.0, 1.0, &[-1], FLOAT, None);
        random::uniform(0.0, 1.0, &[2], Dtype::Int32, None);
        random::uniform(&f(&[3]), 1.0, &[2], FLOAT, None);
        random::uniform(&f(&[0]), 1.0, &[2], FLOAT, None);
        random::uniform(0.0, 1.0, &[2], Dtype::Float64, None);
        random::normal(&[-1], FLOAT, 0.0, 1.0, None);
        random::normal(&[2], Dtype::Int32, 0.0, 1.0, None);
        random::normal(&[2], FLOAT, &f(&[3]), 1.0, None);
        random::truncated_normal(&f(&[3]), 1.0, &[2], FLOAT, None);
        random::randint(0, 10, &[2], FLOAT, None);
        random::randint(&i(&[0, 1, 2]), 10, &[2], Dtype::Int32, None);
        random::bernoulli(0.5, &[-1], None);
        random::bernoulli(&i(&[1]), &[1], None);
        random::bernoulli(&f(&[3]), &[2], None);
        random::gumbel(&[-1], FLOAT, None);
        random::gumbel(&[2], Dtype::Int32, None);
        random::laplace(&[2], Dtype::Int32, 0.0, 1.0, None);
        random::laplace(&[-2], FLOAT, 0.0, 1.0, None);
        random::categorical(&f(&[]), 0, None);
        random::categorical(&f(&[]), -1, None);
        random::categorical(&f(&[0]), 0, None);
        random::categorical(&f(&[2, 0]), 1, None);
        random::categorical(&f(&[0, 2]), 1, None);
        random::categorical(&f(&[2, 0]), 0, None);
        random::categorical(&f(&[2]), HUGE, None);
        random::categorical(&f(&[2]), i32::MIN, None);
        random::categorical_num_samples(&f(&[2]), 0, -1, None);
        random::categorical_num_samples(&f(&[0]), 0, 3, None);
        random::categorical_num_samples(&f(&[0, 3]), 1, 3, None);
        random::categorical_num_samples(&f(&[2]), 5, 3, None);
        random::categorical_num_samples(&f(&[2]), 0, i32::MIN, None);
        random::categorical_shape(&f(&[2]), 0, &[-1], None);
        random::categorical_shape(&f(&[2, 2]), 0, &[3], None);
        random::categorical_shape(&f(&[2, 2]), 0, &[], None);
        random::categorical_shape(&f(&[0]), 0, &[2], None);
        random::categorical_shape(&f(&[]), 0, &[2], None);
        random::permutation(&f(&[]), 0, None);
        random::permutation(&f(&[0]), 0, None);
        random::permutation(&f(&[2, 0]), 1, None);
        random::permutation(&f(&[2]), HUGE, None);
        random::permutation(&f(&[2]), i32::MIN, None);
        random::permutation_arange(0, None);
        random::permutation_arange(-1, None);
        random::permutation_arange(i32::MIN, None);

        // Complex and double where kernels may have none.
        of(&[2], Dtype::Complex64).floor();
        of(&[2], Dtype::Complex64).sigmoid();
        of(&[2], Dtype::Complex64).erf();
        of(&[2], Dtype::Complex64).remainder(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).floor_divide(&of(&[2], Dtype::Complex64));
        ops::divmod(&of(&[2], Dtype::Complex64), &of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).arctan2(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).bitwise_and(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).nan_to_num(0.0, None, None);
        of(&[2], Dtype::Complex64).expm1();
        of(&[2], Dtype::Complex64).bitwise_invert();
        f(&[2]).bitwise_and(&f(&[2]));
        f(&[2]).left_shift(&f(&[2]));
        of(&[2], Dtype::Bool).negative();
        f(&[2]).clip(None, None);
        f(&[2]).clip(Some(&f(&[3])), None);
        f(&[2]).allclose(&f(&[3]), Closeness::default());
        ops::where_(&f(&[3]), &f(&[2]), 1.0f32);

        // Transforms.
        vmap(|x| Ok(x.to_vec()), &[0i32; 0], &[0i32; 0])?.call(&[]);
        vmap(|x| Ok(x.to_vec()), &[0], &[0])?.call(&[]);
        vmap(|x| Ok(x.to_vec()), &[0i32; 0], &[0i32; 0])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[5], &[0])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[-3], &[0])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[i32::MIN], &[0])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[0], &[i32::MIN])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[None], &[0])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[Some(0)], &[None])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[0], &[7])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[0], &[-7])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[0], &[0i32; 0])?.call(&[f(&[2])]);
        vmap(|x| Ok(x.to_vec()), &[0, 0], &[0, 0])?.call(&[f(&[2]), f(&[3])]);
        vmap(|x| Ok(x.to_vec()), &[0], &[0])?.call(&[f(&[])]);
        vmap(|x| Ok(vec![x[0].item::<f32>()?.into()]), &[0], &[0])?.call(&[f(&[2])]);
        vmap(|x| { x[0].eval()?; Ok(x.to_vec()) }, &[0], &[0])?.call(&[f(&[2])]);
        compile(|x| { x[0].eval()?; Ok(x.to_vec()) }, false)?.call(&[f(&[2])]);
        compile(|x| { x[0].to_vec::<f32>()?; Ok(x.to_vec()) }, false)?.call(&[f(&[2])]);
        compile(|x| { x[0].strides()?; Ok(x.to_vec()) }, false)?.call(&[f(&[2])]);

        // Linear algebra.
        linalg::svd(&square(4, f32::NAN));
        linalg::svd(&square(80, f32::NAN));
        linalg::svd(&square(4, f32::INFINITY));
        linalg::svd(&square(80, f32::INFINITY));
        linalg::svd(&square(80, f32::NEG_INFINITY).astype(Dtype::Float64)?);
        linalg::svd(&square(80, f32::INFINITY).astype(Dtype::Complex64)?);
        linalg::svd(&ops::stack(&[square(4, 1.0), square(4, f32::NAN)], 0)?);
        linalg::svdvals(&square(80, f32::INFINITY));
        linalg::svdvals(&square(80, f32::NAN).astype(Dtype::Float64)?);
        linalg::pinv(&square(80, f32::INFINITY));
        linalg::pinv(&square(4, f32::NAN));
        linalg::eig(&square(4, f32::NAN));
        linalg::eig(&square(80, f32::INFINITY));
        linalg::eig(&square(4, f32::NAN).astype(Dtype::Float64)?);
        linalg::eig(&square(4, f32::NAN).astype(Dtype::Complex64)?);
        linalg::eigvals(&square(4, f32::INFINITY));
        linalg::eigvals(&square(80, f32::NAN));
        linalg::eigh(&square(4, f32::NAN), Uplo::Lower);
        linalg::eigh(&square(80, f32::INFINITY), Uplo::Upper);
        linalg::eigh(&square(80, f32::NAN).astype(Dtype::Complex64)?, Uplo::Upper);
        linalg::eigvalsh(&square(80, f32::NAN), Uplo::Lower);
        linalg::norm(&square(80, f32::INFINITY), NormOrd::Nuclear, .., false);
        linalg::norm(&square(80, f32::NAN), 2, .., false);
        linalg::norm(&f(&[2, 2]), 2, &[-4, 1], false);
        linalg::norm(&f(&[2, 2]), 1, &[i32::MIN, 0], false);
        linalg::norm(&f(&[2, 2]), 1, &[0, HUGE], true);
        linalg::norm(&f(&[2, 2]), NormOrd::Nuclear, &[0, -9], true);
        linalg::norm(&f(&[2, 2, 2]), NormOrd::Euclidean, &[0, 1, 2], false);
        linalg::norm(&f(&[0]), f64::INFINITY, .., false);
        linalg::norm(&f(&[2, 0]), -2, .., false);
        linalg::norm(&f(&[]), 2, .., false);
        linalg::inv(&square(4, 0.0));
        linalg::inv(&f(&[]));
        linalg::inv(&f(&[2, 3]));
        linalg::tri_inv(&square(4, 0.0), true);
        linalg::cholesky_inv(&square(4, 0.0), false);
        linalg::solve(&square(3, 0.0), &f(&[3]));
        linalg::solve(&f(&[0, 0]), &f(&[3]));
        linalg::solve(&f(&[3, 3]), &f(&[]));
        linalg::solve_triangular(&f(&[3, 3]), &f(&[0, 3]), true);
        linalg::det(&f(&[2, 0]));
        linalg::slogdet(&f(&[0]));
        linalg::cross(&f(&[3]), &f(&[3]), i32::MIN);
        linalg::cross(&f(&[3]), &f(&[3]), HUGE);
        linalg::cross(&f(&[0]), &f(&[0]), 0);
        linalg::cross(&f(&[3, 3, 2]), &f(&[2]), 0);
        linalg::svd(&f(&[1]).broadcast_to([65536, 65536])?);
        linalg::svd(&f(&[1]).broadcast_to([1, 100_000])?);
        linalg::svd(&f(&[1]).broadcast_to([0, 65536, 65536])?);
        linalg::svdvals(&f(&[1]).broadcast_to([HUGE, 2])?);
        linalg::inv(&f(&[1]).broadcast_to([65536, 65536])?);
        linalg::inv(&f(&[1]).broadcast_to([0, 65536, 65536])?);
        linalg::qr(&f(&[1]).broadcast_to([0, 65536, 65536])?);
        linalg::lu(&f(&[1]).broadcast_to([0, 65536, 65536])?);
        linalg::eigh(&f(&[1]).broadcast_to([0, 65536, 65536])?, Uplo::Lower);
        linalg::cholesky(&f(&[1]).broadcast_to([0, 65536, 65536])?, true);
        linalg::det(&f(&[1]).broadcast_to([65536, 65536])?);
        random::multivariate_normal(&f(&[4]), &square(4, f32::NAN), &[2], None);
        random::multivariate_normal(&f(&[80]), &square(80, f32::INFINITY), &[], None);
        random::multivariate_normal(&f(&[2]), &square(2, 1.0), &[i32::MIN], None);
        random::multivariate_normal(&f(&[2]), &square(2, 1.0), &[HUGE, HUGE, HUGE], None);
        random::multivariate_normal(&f(&[]), &f(&[]), &[], None);
        random::set_state(&f(&[2])).map(|()| f(&[]));
        random::set_state(&of(&[3], Dtype::Uint32)).map(|()| f(&[]));
        random::KeySequence::from_state(&i(&[1, 2])).map(|keys| keys.state().clone());

        // Fourier transforms.
        fft::fft(&f(&[]), Fft::default());
        fft::fft(&f(&[0]), Fft::default());
        fft::fft(&f(&[2]), Fft { n: Some(HUGE), ..Fft::default() });
        fft::fft(&f(&[2]), Fft { n: Some(i32::MIN), ..Fft::default() });
        fft::fft(&f(&[2]), Fft { axis: i32::MIN, ..Fft::default() });
        fft::fft(&f(&[2]), Fft { n: Some(2), axis: HUGE, ..Fft::default() });
        fft::irfft(&f(&[1]), Fft::default());
        fft::irfft(&f(&[2, 0]), Fft::default());
        fft::irfft(&f(&[1]).broadcast_to([HUGE])?, Fft::default());
        fft::rfft(&f(&[2]), Fft { n: Some(0), ..Fft::default() });
        fft::fftn(&f(&[2]), FftN { s: Some(&[65536, 65536]), axes: Some(&[0, 0]), ..FftN::default() });
        fft::fftn(&f(&[2, 2]), FftN { s: Some(&[65536, 65536]), axes: Some(&[0, 1]), ..FftN::default() });
        fft::ifftn(&f(&[2, 2]), FftN { s: Some(&[-1, i32::MIN]), axes: Some(&[0, 1]), ..FftN::default() });
        fft::fftn(&f(&[2, 2]), FftN { axes: Some(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), ..FftN::default() });
        fft::fftn(&f(&[2, 2]), FftN { s: Some(&[2]), axes: Some(&[]), ..FftN::default() });
        fft::fftn(&f(&[2, 2]), FftN { s: Some(&[]), axes: Some(&[0]), ..FftN::default() });
        fft::rfftn(&f(&[2, 2]), FftN { s: Some(&[2, 2]), axes: Some(&[i32::MIN, HUGE]), ..FftN::default() });
        fft::irfft2(&f(&[2]), FftN::default());
        fft::irfftn(&f(&[2]), FftN { axes: Some(&[-7]), ..FftN::default() });
        fft::fftshift(&f(&[2]), i32::MIN);
        fft::ifftshift(&f(&[2]), &[0, HUGE]);
        fft::fftshift(&f(&[]), 0);
        fft::fftfreq(HUGE, 1.0);
        fft::rfftfreq(HUGE, 1.0);
        fft::fftfreq(i32::MIN, 1.0);

        // Kernels from source.
        metal_kernel("a b", &["x"], &["y"], "");
        metal_kernel("name", &["x"], &[], "");
        metal_kernel("name", &["1x"], &["y"], "");
        metal_kernel("name", &["x"], &["y\0"], "");
        metal_kernel("name", &["x"], &["y"], "y[0] = 1;\0");
        metal_kernel("", &[], &["y"], "y[0] = 1;");
        cuda_kernel(&["x"], 0, "\0");
        cuda_kernel(&["x y"], 0, "");
        cuda_kernel(&["x"], -1, "");
        metal::start_capture("a\0b").map(|()| f(&[]));
        metal::set_metallib_path("a\0b").map(|()| f(&[]));
    }
    survived {
        // Integer division.
        every_integer(|a, b| a.floor_divide(&b));
        every_integer(|a, b| a.remainder(&b));
        every_integer(|a, b| &a % &b);
        every_integer(|a, _| &a % 0);
        every_integer(|a, _| a.floor_divide(0));
        every_integer(|_, b| ops::floor_divide(7, &b));
        every_integer(|a, b| Ok(ops::divmod(&a, &b)?.0));
        every_integer(|a, b| Ok(ops::divmod(&a, &b)?.1));
        every_integer(|a, b| a.divide(&b));
        every_integer(|a, b| a.astype(Dtype::Int64)?.remainder(&b));
        every_integer(|a, b| a.left_shift(&b));
        every_integer(|a, b| a.right_shift(&b));
        every_integer(|a, b| a.power(&b));
        every_integer(|a, _| a.reciprocal());
        every_integer(|a, _| a.round(-3));
        every_integer(|a, _| a.round(-400));
        every_integer(|a, _| a.square()?.abs());
        every_integer(|a, _| a.nan_to_num(0.0, None, None));
        ops::floor_divide(&of(&[2], Dtype::Bool), &of(&[2], Dtype::Bool).logical_not()?);
        ops::remainder(&of(&[2], Dtype::Bool), &of(&[2], Dtype::Bool).logical_not()?);
        ops::divmod(&of(&[2], Dtype::Bool), &of(&[2], Dtype::Bool).logical_not()?);
        ops::remainder(Scalar::Int(i64::MIN), Scalar::Int(-1));
        ops::remainder(7, 0);
        ops::remainder(true, false);
        ops::floor_divide(&of(&[2], Dtype::Uint64), &of(&[2], Dtype::Int64));
        with_device(Device::Cpu, || compile(|x| Ok(vec![x[0].remainder(&x[1])?]), false)?.call(&[i(&[1]), i(&[0])]));
        vmap(|x| Ok(vec![x[0].remainder(&x[1])?]), &[0, 0], &[0])?.call(&[i(&[1]), i(&[0])]);

        // Empty and out of range axes.
        f(&[0, 2]).median(1, false);
        f(&[0]).softmax(ALL, false);
        f(&[0]).mean(ALL, false);
        f(&[0]).var(ALL, false, 5);
        f(&[]).var(ALL, false, HUGE);
        f(&[0, 2]).cumsum(1, Scan::default());
        f(&[]).cumsum(None, Scan::default());
        of(&[2], Dtype::Bool).cumsum(0, Scan::default());
        of(&[2], Dtype::Complex64).cumsum(0, Scan::default());
        of(&[2], Dtype::Complex64).cummax(0, Scan::default());
        of(&[2], Dtype::Complex64).logcumsumexp(0, Scan::default());
        f(&[0, 2]).sort(1);
        f(&[]).sort(None);
        of(&[2], Dtype::Complex64).sort(0);
        of(&[2], Dtype::Complex64).argsort(0);
        of(&[3], Dtype::Complex64).topk(1, 0);
        of(&[3], Dtype::Complex64).argmax(None, false);
        f(&[]).partition(0, None);
        f(&[2, 0]).argpartition(0, 0);
        f(&[3]).topk(0, None);
        f(&[]).topk(1, None);
        f(&[0]).searchsorted(&f(&[2]), Side::Left);
        f(&[2]).searchsorted(&f(&[]), Side::Right);
        f(&[2]).searchsorted(&i(&[2]), Side::Right);
        of(&[2], Dtype::Complex64).searchsorted(&f(&[2]), Side::Left);

        // Empty arrays that are not laid out in order.
        f(&[3, 0]).t()?.sum(0, false);
        f(&[3, 2, 2]).diagonal(4, 1, 2)?.prod(-1, true);
        f(&[3, 2, 2]).trace(4, 1, 2, FLOAT);
        f(&[3, 0]).t()?.mean(0, false);
        f(&[3, 0]).t()?.softmax(0, true);
        f(&[3, 0]).t()?.logsumexp(0, false);
        f(&[3, 0]).t()?.all(ALL, false);
        f(&[2, 0]).cumsum(0, Scan::default());
        f(&[2]).scatter_max(&[i(&[0])], &f(&[0]), &[0]);
        f(&[3, 2]).scatter_add(&[i(&[0, 0])], &f(&[2, 0]), &[1]);

        // Shapes.
        ops::zeros(&[HUGE, 0, HUGE], FLOAT);
        f(&[0]).reshape([-1]);
        f(&[0]).reshape([-1, 3]);
        f(&[0]).reshape([65536, 65536, 0]);
        f(&[0]).reshape([65536, 65536, -1]);
        f(&[0]).unflatten(0, [3, 0]);
        f(&[2]).flatten(i32::MIN, HUGE);
        f(&[]).flatten(0, 0);
        f(&[]).flatten(-1, 3);
        f(&[1]).expand_dims(&[]);
        f(&[]).t();
        ops::broadcast_arrays(&[]);
        ops::meshgrid(&[], Meshgrid::default());
        ops::meshgrid(&[f(&[])], Meshgrid::default());
        ops::meshgrid(&[f(&[2, 2]), f(&[2])], Meshgrid { sparse: true, matrix: true });
        ops::meshgrid(&[f(&[0]), f(&[2])], Meshgrid::default());
        f(&[0]).split(2, 0);
        f(&[6]).split_at(&[4, 2], 0);
        f(&[6]).split_at(&[-2, 99, i32::MIN, HUGE], 0);
        f(&[6]).split_at(&[], 0);
        f(&[0]).unstack(0);
        f(&[]).repeat(2, None);
        f(&[0]).repeat(2, 0);
        f(&[2]).tile(&[]);
        f(&[]).tile(&[0]);
        f(&[2]).pad(&[(0, 1)], &f(&[3]));
        f(&[1]).pad_mode(&[(3, 3)], PadMode::Reflect);
        f(&[1]).pad_mode(&[(3, 3)], PadMode::Symmetric);
        f(&[]).pad_mode(&[], PadMode::Edge);
        f(&[0]).roll(1, 0);
        f(&[0]).roll(1, None);
        f(&[]).roll(1, None);
        f(&[3]).roll(i32::MIN, 0);
        f(&[3]).roll(HUGE, None);
        f(&[3]).roll_axes(&[1, 2], &[0]);
        f(&[0, 2]).roll_axes(&[1, 1], &[0, 1]);
        f(&[0]).flip(ALL);
        f(&[3]).flip(&[0, 0]);
        f(&[2, 2]).tril(i32::MIN);
        f(&[2, 2]).tril(HUGE);
        f(&[0, 0]).triu(0);
        f(&[2, 2]).diag(i32::MIN);
        f(&[2, 2]).diag(HUGE);
        f(&[0]).diag(0);
        f(&[2, 2]).diagonal(i32::MIN, 0, 1);
        f(&[2, 2]).diagonal(HUGE, 0, 1);
        f(&[0, 2]).diagonal(1, 0, 1);
        f(&[2, 2]).trace(i32::MIN, 0, 1, FLOAT);
        f(&[2, 2]).trace(HUGE, 1, 0, Dtype::Bool);
        ops::eye(2, 2, HUGE, FLOAT);
        ops::eye(0, 0, 0, FLOAT);
        ops::tri(-1, -1, 0, FLOAT);
        ops::tri(2, 2, i32::MIN, FLOAT);
        ops::tri(2, 2, HUGE, FLOAT);
        ops::hanning(i32::MIN);
        ops::bartlett(-1);
        ops::blackman(0);
        ops::hamming(1);
        f(&[6]).as_strided(&[0, HUGE], &[i64::MAX, i64::MIN], 6);
        f(&[6]).as_strided(&[1, 1], &[i64::MAX, i64::MIN], 5);
        f(&[6]).as_strided(&[6], &[-1], 5);
        f(&[3, 2]).t()?.as_strided(&[6], &[1], 0)?.add(1);
        f(&[9]).as_strided(&[3, 3], &[2, 2], 0)?.sum(ALL, false);
        f(&[9]).as_strided(&[3, 3], &[2, 2], 0)?.put(0, 1.0f32);
        f(&[9]).as_strided(&[9, 9], &[0, 0], 8)?.cumsum(0, Scan::default());
        f(&[0]).as_strided(&[0], &[0], 0);
        f(&[2]).diff(HUGE, 0);
        f(&[0]).diff(HUGE, 0);
        f(&[0, 2]).t()?.diff(3, 0);
        f(&[0]).full_like(1, None);
        f(&[0]).copy();
        ops::concatenate(&[f(&[]), f(&[0, 3])], None);
        ops::arange(0.0, 5.0, 1.0, Dtype::Complex64);
        ops::arange(0.0, 1.0, 0.5, Dtype::Int32);
        ops::arange(0.0, 5.0, 0.1, Dtype::Int32);
        ops::linspace(0.0, 1.0, 1, Dtype::Int32);
        ops::linspace(0.0, f64::INFINITY, 3, FLOAT);
        ops::linspace_endpoint(0.0, 1.0, 0, false, FLOAT);
        ops::linspace_endpoint(0.0, 1.0, 1, true, FLOAT);
        Array::range(-5);
        ops::concatenate(&[f(&[])], 0);
        f(&[0]).view(Dtype::Int64);
        f(&[2, 0]).view(Dtype::Complex64);
        f(&[2, 2]).t()?.view(Dtype::Int64);

        // Indexing.
        f(&[2]).slice(&[-100], &[100], &[-1]);
        f(&[2]).slice(&[i32::MIN], &[HUGE], &[i32::MIN]);
        f(&[2]).slice(&[HUGE], &[i32::MIN], &[i32::MIN]);
        f(&[2]).slice_update(&f(&[1]), &[-100], &[0], &[-1]);
        f(&[2, 3]).slice_dynamic(&i(&[]), &[], &[1, 1]);
        f(&[2, 3]).slice_update_dynamic(&f(&[]), &i(&[0]), &[0]);
        f(&[0]).take(&i(&[]), 0);
        f(&[]).take(&i(&[0]), None);
        f(&[2]).put_along_axis(&i(&[0]), &f(&[5]), 0);
        f(&[2]).scatter_add_axis(&i(&[0]), &f(&[1]), 0);
        f(&[2]).scatter_add_axis(&i(&[0]), &f(&[7]), 0);
        f(&[2, 3]).gather(&[], &[], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0]), i(&[0])], &[1, 0], &[1, 1]);
        f(&[2, 3]).gather(&[i(&[0])], &[0], &[0, 0]);
        f(&[2, 3]).scatter(&[], &f(&[1, 1]), &[]);
        f(&[2, 3]).scatter_add(&[i(&[0])], &f(&[1, 2, 3]), &[0]);
        of(&[2], Dtype::Complex64).scatter_prod(&[i(&[0])], &of(&[1, 1], Dtype::Complex64), &[0]);
        of(&[2], Dtype::Complex64).scatter_max(&[i(&[0])], &of(&[1, 1], Dtype::Complex64), &[0]);
        f(&[2]).take(&far(), 0);
        f(&[2]).take(&far(), None);
        f(&[2]).take(&far().astype(Dtype::Uint64).unwrap(), 0);
        f(&[4]).take_along_axis(&far(), 0);
        f(&[4]).put_along_axis(&far(), 1.0f32, 0);
        f(&[4]).scatter_add_axis(&far(), &f(&[4]), 0);
        f(&[2, 3]).gather(&[far(), far()], &[0, 1], &[2, 2]);
        f(&[2, 3]).gather_single(&far(), 1, &[1, 2]);
        f(&[2, 3]).scatter(&[far()], &f(&[4, 1, 3]), &[0]);
        f(&[2, 3]).scatter_max(&[far(), far()], &f(&[4, 1, 2]), &[0, 1]);
        f(&[2, 3]).slice_dynamic(&far().at(..2).unwrap(), &[0, 1], &[1, 2]);
        f(&[2, 3]).slice_dynamic(&far().at((NewAxis, 0)).unwrap().broadcast_to([2]).unwrap(), &[0, 1], &[1, 2]);
        f(&[2, 3]).slice_dynamic(&far().at(Slice::step(-3)).unwrap(), &[0, 1], &[1, 2]);
        f(&[2, 3]).slice_update_dynamic(&f(&[1, 2]), &far().at(1..3).unwrap(), &[0, 1]);
        f(&[2, 3]).slice_update_add_dynamic(&f(&[1, 2]), &far().at(1..3).unwrap(), &[0, 1]);
        f(&[2, 3]).at((far(), far()));
        f(&[2, 3]).put((.., far()), 1.0f32);
        f(&[2, 3]).put_add((far(), ..2), 1.0f32);
        ops::gather_mm(&f(&[2, 2, 2]), &f(&[2, 2, 2]), Some(&far()), Some(&far()), false);
        packed(&[3, 2, 8], &[3, 2, 1], 64, 4).gather_matmul(&f(&[2, 1, 64]), Some(&far()), Some(&far()), GatherMatmul::default());
        packed(&[2, 8], &[2, 1], 64, 4).take_rows(&far());
        packed(&[2, 8], &[1, 1], 64, 4).take_rows(&i(&[1]));
        fast::cross_entropy(&f(&[4, 3]), &far());
        f(&[2]).put(&of(&[2], Dtype::Bool), &f(&[3]));
        f(&[2]).put(f(&[2]).greater(0.0f32).unwrap(), &f(&[0]));
        f(&[0]).put(f(&[0]).greater(0.0f32).unwrap(), &f(&[3]));
        f(&[]).put(f(&[]).greater(0.0f32).unwrap(), 1.0f32);
        f(&[]).at(f(&[]).greater(0.0f32).unwrap());
        transforms::grad_once(|x| Ok(vec![x[0].put(x[0].greater(0.0f32)?, &x[1])?.sum(ALL, false)?]), &[f(&[64]), f(&[3])], &[0, 1]);
        transforms::grad_once(|x| Ok(vec![x[0].take(&far(), 0)?.sum(ALL, false)?]), &[f(&[2])], 0);
        f(&[0]).at(i(&[]));
        f(&[2]).at((NewAxis, NewAxis, NewAxis, NewAxis, NewAxis, NewAxis, NewAxis, NewAxis));
        f(&[2]).put(i(&[]), 1.0f32);
        f(&[0]).put(.., 1.0f32);
        f(&[]).put(Vec::new(), 1.0f32);
        f(&[2]).put_divide(0, 0.0f32);
        of(&[2], Dtype::Int32).put_divide(0, 0);
        of(&[2], Dtype::Int32).put_divide(i(&[0]), 0);
        of(&[2], Dtype::Bool).put_multiply(i(&[0]), true);

        // Products.
        f(&[0]).matmul(&f(&[0]));
        f(&[2, 0]).matmul(&f(&[0, 3]));
        of(&[2, 2], Dtype::Complex64).matmul(&of(&[2, 2], Dtype::Complex64));
        of(&[2, 2], Dtype::Float64).matmul(&of(&[2, 2], Dtype::Float64));
        of(&[2, 0], Dtype::Complex64).matmul(&of(&[0, 2], Dtype::Complex64));
        ops::addmm(&f(&[0]), &f(&[2, 0]), &f(&[0, 0]), 1.0, 1.0);
        f(&[0]).tensordot(&f(&[0]), &[0], &[0]);
        f(&[]).tensordot(&f(&[]), &[], &[]);
        f(&[2, 0]).tensordot(&f(&[0, 2]), &[1], &[0]);
        ops::inner(&f(&[]), &f(&[0]));
        ops::inner(&f(&[2, 0]), &f(&[0]));
        ops::outer(&f(&[0]), &f(&[]));
        ops::kron(&f(&[]), &f(&[2]));
        ops::kron(&f(&[2, 2]), &f(&[]));
        ops::einsum("->", &[f(&[])]);
        ops::einsum(",", &[f(&[]), f(&[])]);
        ops::einsum("iii->i", &[f(&[2, 2, 2])]);
        ops::einsum("...", &[f(&[2])]);
        ops::einsum("i,i", &[f(&[0]), f(&[0])]);
        ops::einsum("ij,jk", &[f(&[2, 0]), f(&[0, 2])]);
        ops::einsum("ii", &[f(&[0, 0])]);
        ops::gather_mm(&f(&[2]), &f(&[2]), None, None, false);
        ops::gather_mm(&f(&[1, 2]), &f(&[2, 2]), None, None, false);
        ops::gather_mm(&f(&[1, 2]), &f(&[2, 2]), Some(&i(&[0])), None, true);
        ops::gather_mm(&f(&[3, 1, 2]), &f(&[2, 2, 2]), Some(&i(&[HUGE, -1, i32::MIN])), Some(&i(&[99, 2, -7])), false);
        ops::gather_mm(&f(&[3, 1, 2]), &f(&[2, 2, 2]), None, Some(&Array::from_slice(&[u64::MAX, 1 << 40, 5], &[3])?), true);
        ops::gather_mm(&f(&[2]), &f(&[2, 2]), Some(&i(&[5])), Some(&i(&[5])), false);
        ops::gather_mm(&f(&[0, 1, 2]), &f(&[2, 2, 2]), Some(&i(&[])), None, false);
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[0, 4]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[-5, HUGE]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[HUGE, HUGE]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[i32::MIN, 2]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &Array::from_slice(&[u64::MAX - 1, u64::MAX], &[2])?);
        ops::segmented_mm(&f(&[2, 0]), &f(&[0, 2]), &i(&[0, 3]));
        ops::segmented_mm(&f(&[0, 3]), &f(&[3, 2]), &i(&[0, 3]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 0]), &i(&[0, 3]));
        ops::segmented_mm(&f(&[2, 3]), &f(&[3, 2]), &i(&[]).reshape([0, 2])?);
        ops::block_masked_mm(&f(&[4, 2, 3]).at(Slice::step(-1))?, &f(&[3, 2]), 64, lhs_mask(&of(&[1, 1], Dtype::Bool)));
        ops::block_masked_mm(&f(&[4, 2, 3]).at(Slice::step(-1))?, &f(&[4, 3, 2]).at(Slice::step(-1))?, 32, lhs_mask(&of(&[4, 1, 1], Dtype::Bool)));
        ops::block_masked_mm(&f(&[4, 2, 3]).at(Slice::step(2))?, &f(&[1, 3, 2]), 32, lhs_mask(&of(&[2, 1, 1], Dtype::Bool).at(Slice::step(-1))?));
        ops::block_masked_mm(&f(&[2, 0]), &f(&[0, 2]), 64, lhs_mask(&f(&[1, 0])));
        ops::block_masked_mm(&f(&[0, 2]), &f(&[2, 2]), 64, lhs_mask(&f(&[0, 1])));
        ops::block_masked_mm(&f(&[0, 2, 2]), &f(&[2, 2]), 64, lhs_mask(&f(&[1, 1])));
        ops::block_masked_mm(&f(&[2]), &f(&[2]), 64, lhs_mask(&f(&[1])));
        f(&[0]).vecdot(&f(&[0]), 0);
        f(&[3, 0]).t()?.vecdot(&f(&[0, 3]), 0);
        f(&[]).hadamard_transform(f32::INFINITY);
        f(&[2]).tensordot_axis(&f(&[2]), 0);
        ops::depends(&[f(&[2])], &[]);
        f(&[2]).number_of_elements(ALL, true, Dtype::Bool);
        f(&[0]).number_of_elements(&[0, 0, -1], true, Dtype::Int32);
        f(&[3, 0]).t()?.count_nonzero(0, false);

        // Convolutions.
        ops::conv1d(&f(&[0, 4, 2]), &f(&[2, 3, 2]), Conv::default());
        ops::conv1d(&f(&[1, 4, 0]), &f(&[2, 3, 0]), Conv::default());
        ops::conv1d(&f(&[1, 4, 2]), &f(&[0, 3, 2]), Conv::default());
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 0, 2]), Conv::default());
        ops::conv1d(&f(&[1, 0, 2]), &f(&[2, 3, 2]), Conv { padding: [4], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 0]), &f(&[4, 3, 0]), Conv { groups: 2, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 0]), &f(&[HUGE, 3, 0]), Conv { groups: HUGE, ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), Conv { stride: [HUGE], ..Conv::default() });
        ops::conv1d(&f(&[1, 1, 1]), &f(&[1, 2, 1]), Conv { padding: [9], dilation: [18], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]), &f(&[2, 1, 2]), Conv { padding: [-2], ..Conv::default() });
        ops::conv1d(&f(&[1, 4, 2]).at(Slice::step(-1))?, &f(&[2, 2, 2]).at((.., Slice::step(-1)))?, Conv { dilation: [2], ..Conv::default() });
        ops::conv2d(&f(&[1, 4, 4, 2]).at((.., Slice::step(-1), Slice::step(-2)))?, &f(&[2, 2, 2, 2]).at((.., Slice::step(-1)))?, Conv::default());
        ops::conv2d(&f(&[1, 4, 4, 0]), &f(&[2, 3, 3, 0]), Conv::default());
        ops::conv2d(&f(&[1, 4, 4, 2]), &f(&[2, 0, 3, 2]), Conv { stride: [2; 2], ..Conv::default() });
        ops::conv3d(&f(&[1, 2, 0, 2, 2]), &f(&[2, 1, 1, 1, 2]), Conv { padding: [1; 3], ..Conv::default() });
        ops::conv_transpose1d(&f(&[1, 0, 2]), &f(&[2, 3, 2]), ConvTranspose::default());
        ops::conv_transpose1d(&f(&[1, 4, 0]), &f(&[2, 3, 0]), ConvTranspose { stride: [2], ..Default::default() });
        ops::conv_transpose1d(&f(&[1, 4, 2]), &f(&[2, 3, 2]), ConvTranspose { padding: [5], output_padding: [4], ..Default::default() });
        ops::conv_transpose2d(&f(&[1, 4, 4, 2]), &f(&[2, 0, 0, 2]), ConvTranspose { stride: [3; 2], ..Default::default() });
        ops::conv_general(&f(&[1, 5, 2]), &f(&[2, 2, 2]), ConvGeneral { padding_lo: &[-5], padding_hi: &[3], ..Default::default() });
        ops::conv_general(&f(&[1, 5, 2]), &f(&[2, 2, 2]), ConvGeneral { padding_lo: &[-5], padding_hi: &[3], input_dilation: &[2], ..Default::default() });
        ops::conv_general(&f(&[1, 5, 2]), &f(&[2, 2, 2]), ConvGeneral { stride: &[], padding_lo: &[], padding_hi: &[], kernel_dilation: &[], input_dilation: &[], ..Default::default() });
        ops::conv_general(&f(&[1, 4, 4]), &f(&[4, 2, 1]), ConvGeneral { groups: 4, flip: true, ..Default::default() });
        ops::convolve(&f(&[1]), &f(&[5]), ConvolveMode::Valid);
        ops::gather_mm(&f(&[0, 1, 2]), &f(&[0, 2, 2]), None, None, false);
        ops::gather_mm(&f(&[3, 1, 0]), &f(&[3, 0, 2]), None, Some(&i(&[0])), false);

        // Quantization.
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).gather_matmul(&f(&[1, 64]), None, Some(&i(&[HUGE, -1, 3])), GatherMatmul::default());
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).gather_matmul(&f(&[2, 1, 64]), Some(&i(&[9, -9])), Some(&i(&[HUGE, -1])), GatherMatmul::default());
        micro(&[3, 2, 8], &[3, 2, 2], QuantMode::Mxfp4).gather_matmul(&f(&[1, 64]), None, Some(&i(&[HUGE, -1, 3])), GatherMatmul::default());
        ops::qqmm(&f(&[64]), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 64]), QqWeight::Packed(&micro(&[2, 8], &[2, 4], QuantMode::Nvfp4)), Some(GlobalScales { x: &f(&[]), w: &f(&[1]) }));
        ops::qqmm(&f(&[2, 64]), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[0, 64]), QqWeight::Packed(&micro(&[2, 8], &[2, 2], QuantMode::Mxfp4)), None);
        ops::qqmm(&f(&[1, 0]), QqWeight::Packed(&micro(&[2, 0], &[2, 0], QuantMode::Mxfp4)), None);
        ops::gather_qqmm(&f(&[1, 1, 64]), QqWeight::Packed(&micro(&[2, 2, 8], &[2, 2, 2], QuantMode::Mxfp4)), None, Some(&i(&[99])), false);
        ops::quantize(&f(&[2, 0]), q(QuantMode::Affine, 32, 4));
        ops::quantize(&f(&[0, 64]), q(QuantMode::Affine, 32, 4));
        ops::quantize(&of(&[2, 64], Dtype::Float64), q(QuantMode::Mxfp4, 32, 4));
        packed(&[2, 8], &[2, 2], 32, 4).dequantize(None);
        packed(&[2, 0], &[2, 0], 32, 4).dequantize(None);
        packed(&[2, 8], &[2, 2], 32, 4).dequantize(Dtype::Float64);
        micro(&[2, 8], &[2, 2], QuantMode::Mxfp4).dequantize(Dtype::Float64);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&f(&[64]), true);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&f(&[0, 64]), true);
        packed(&[2, 0], &[2, 0], 32, 4).matmul(&f(&[3, 0]), true);
        packed(&[2, 8], &[2, 2], 32, 4).matmul(&i(&[1; 64]), true);
        Packed { scales: of(&[2, 2], Dtype::Int32), ..packed(&[2, 8], &[2, 2], 32, 4) }.matmul(&f(&[3, 64]), true);
        Packed { biases: Some(f(&[2, 1])), ..packed(&[2, 8], &[2, 2], 32, 4) }.dequantize(None);
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).gather_matmul(&f(&[64]), None, None, GatherMatmul::default());
        packed(&[3, 2, 8], &[3, 2, 2], 32, 4).gather_matmul(&f(&[1, 64]), None, Some(&i(&[])), GatherMatmul::default());
        packed(&[2, 8], &[2, 2], 32, 4).gather_matmul(&f(&[1, 64]), None, None, GatherMatmul::default());
        packed(&[2, 8], &[2, 2], 32, 4).gather_matmul(&f(&[1, 64]), Some(&i(&[0])), Some(&i(&[0])), GatherMatmul { transpose: true, sorted_indices: true });
        ops::to_fp8(&of(&[2], Dtype::Float64));

        // Fused.
        rope(&f(&[1, 2, 3, 8]), 8, Some(0.0), None);
        rope(&f(&[1, 2, 3, 8]), 8, Some(f32::NAN), None);
        rope(&f(&[1, 2, 3, 8]), 4, None, Some(&i(&[1, 2])));
        rope(&f(&[1, 3, 8]), 8, Some(10.0), None);
        rope(&f(&[0, 2, 3, 8]), 8, Some(10.0), None);
        rope(&f(&[1, 2, 0, 8]), 8, Some(10.0), None);
        rope(&f(&[1, 0, 3, 8]), 8, Some(10.0), None);
        rope(&f(&[1, 2, 3, 4, 5, 8]), 8, Some(10.0), None);
        rope(&of(&[1, 2, 3, 8], Dtype::Float64), 8, Some(10.0), None);
        sdpa(&[0, 2, 3, 8], &[0, 2, 3, 8], &[0, 2, 3, 8], AttentionMask::None);
        sdpa(&[1, 2, 0, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Causal);
        sdpa(&[1, 2, 3, 8], &[1, 2, 0, 8], &[1, 2, 0, 8], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 2, 0, 8], &[1, 2, 0, 8], AttentionMask::Causal);
        sdpa(&[1, 2, 5, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Causal);
        sdpa(&[1, 2, 3, 0], &[1, 2, 3, 0], &[1, 2, 3, 0], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 0], AttentionMask::None);
        sdpa(&[1, 2, 3, 8], &[1, 2, 3, 8], &[1, 2, 3, 8], AttentionMask::Array(&f(&[])));
        fast::scaled_dot_product_attention(&of(&[1, 2, 3, 8], Dtype::Int32), &f(&[1, 2, 3, 8]), &f(&[1, 2, 3, 8]), 1.0, AttentionMask::None, None);
        fast::rms_norm(&f(&[2, 0]), Some(&f(&[0])), 1e-5);
        fast::rms_norm(&f(&[0, 4]), None, 1e-5);
        fast::rms_norm(&f(&[2, 4]), Some(&i(&[1; 4])), 1e-5);
        nn::RmsNorm { weight: f(&[0]).into(), eps: 1e-5 }.forward(&f(&[2, 0]));
        nn::LayerNorm { weight: None, bias: None, eps: 1e-5 }.forward(&f(&[2, 0]));
        nn::silu(&of(&[2], Dtype::Bool));
        fast::cross_entropy(&f(&[3]), &Array::from(0));

        // Random.
        random::split(&random::key(0)?, 0);
        random::bits(&[0], 4, None);
        random::bits(&[3], 1, None);
        random::bits(&[3], 2, None);
        random::uniform(f64::NAN, f64::INFINITY, &[2], FLOAT, None);
        random::normal(&[2], Dtype::Complex64, 0.0, 1.0, None);
        random::truncated_normal(1.0, -1.0, &[2], FLOAT, None);
        random::randint(5, 5, &[2], Dtype::Int32, None);
        random::randint(5, -5, &[2], Dtype::Int32, None);
        random::randint(0, 10, &[2], Dtype::Bool, None);
        random::randint(i64::MIN, i64::MAX, &[2], Dtype::Int64, None);
        random::categorical(&of(&[2], Dtype::Complex64), 0, None);
        random::categorical(&i(&[1, 2]), 0, None);
        random::categorical_num_samples(&f(&[2]), 0, 0, None);
        random::categorical_num_samples(&f(&[2]), 0, 5000, None);
        random::permutation(&f(&[0, 2]), 1, None);

        // Complex and double where kernels may have none.
        of(&[2], Dtype::Complex64).round(0);
        of(&[2], Dtype::Complex64).maximum(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).less(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).logaddexp(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).power(&of(&[2], Dtype::Complex64));
        of(&[2], Dtype::Complex64).softmax(0, true);
        of(&[2], Dtype::Complex64).prod(ALL, false);
        of(&[2], Dtype::Complex64).median(ALL, false);
        of(&[2], Dtype::Complex64).max(ALL, false);
        of(&[2], Dtype::Complex64).all(ALL, false);
        of(&[2], Dtype::Complex64).logsumexp(ALL, false);
        of(&[2], Dtype::Complex64).clip(Some(&f(&[])), None);
        of(&[2], Dtype::Complex64).isclose(&f(&[2]), Closeness::default());
        of(&[2], Dtype::Complex64).isinf();
        of(&[2], Dtype::Complex64).sign();
        of(&[2], Dtype::Complex64).degrees();
        of(&[2], Dtype::Complex64).log1p();
        of(&[2], Dtype::Float64).sort(0);
        of(&[2], Dtype::Float64).softmax(0, true);
        of(&[2], Dtype::Float64).cumsum(0, Scan::default());
        of(&[2], Dtype::Float64).erfinv();
        of(&[2, 2], Dtype::Float64).argmax(0, false);
        of(&[2], Dtype::Bool).subtract(&of(&[2], Dtype::Bool));
        of(&[2], Dtype::Bool).power(&of(&[2], Dtype::Bool));
        of(&[2], Dtype::Bool).median(ALL, false);
        of(&[2], Dtype::Bool).sort(None);
        of(&[2], Dtype::Bool).left_shift(&of(&[2], Dtype::Bool));
        f(&[2]).round(HUGE);
        f(&[2]).round(i32::MIN);
        f(&[2]).array_equal(&f(&[3]), false);
        ops::where_(&of(&[2], Dtype::Complex64), &f(&[2]), 1.0f32);

        // Transforms.
        vmap(|x| Ok(x.to_vec()), &[0], &[0])?.call(&[f(&[0])]);
        vmap(|_| Ok(vec![]), &[0], &[0i32; 0])?.call(&[f(&[2])]);
        vmap(|_| Ok(vec![f(&[2])]), &[0], &[0])?.call(&[f(&[2])]);
        vmap(|x| Ok(vec![x[0].at(0)?]), &[0], &[0])?.call(&[f(&[2, 2])]);
        vmap(|x| Ok(vec![x[0].sort(0)?]), &[0], &[0])?.call(&[f(&[2, 2])]);
        vmap(|x| Ok(vec![x[0].cumsum(0, Scan::default())?]), &[0], &[0])?.call(&[f(&[0, 2])]);
        compile(|x| { let _ = x[0].to_string(); Ok(x.to_vec()) }, false)?.call(&[f(&[2])]);
        compile(|_| Ok(vec![]), false)?.call(&[f(&[2])]);
        compile(|x| Ok(x.to_vec()), false)?.call(&[]);
        compile(|x| Ok(x.to_vec()), true)?.call(&[f(&[])]);
        compile(|x| Ok(vec![x[0].add(1.0f32)?.at(0)?]), true)?.call(&[f(&[2])]);
        compile(|x| Ok(vec![x[0].reshape([-1])?, x[0].sum(.., false)?]), true)?.call(&[f(&[2, 2])]);

        // Linear algebra.
        linalg::inv(&f(&[0, 0]));
        linalg::inv(&f(&[2, 0, 0]));
        linalg::tri_inv(&f(&[0, 0]), false);
        linalg::tri_inv(&square(4, f32::NAN), false);
        linalg::inv(&square(80, f32::INFINITY));
        linalg::cholesky(&square(80, f32::NAN), false);
        linalg::cholesky(&square(4, -1.0), true);
        linalg::cholesky_inv(&f(&[0, 0]), true);
        linalg::lu(&f(&[0, 3]));
        linalg::lu(&f(&[2, 3, 0]));
        linalg::lu(&square(80, f32::NAN));
        linalg::lu_factor(&f(&[3, 0]));
        linalg::lu_factor(&square(80, f32::INFINITY));
        linalg::solve(&f(&[0, 0]), &f(&[0, 2]));
        linalg::solve(&f(&[0, 0]), &f(&[5, 0, 2]));
        linalg::solve(&f(&[0, 0]), &f(&[0]));
        linalg::solve(&square(3, f32::NAN), &f(&[3]));
        linalg::solve(&f(&[2, 3, 3]), &f(&[3, 1]));
        linalg::solve_triangular(&f(&[0, 0]), &f(&[0]), false);
        linalg::qr(&f(&[0, 3]));
        linalg::qr(&f(&[3, 0]));
        linalg::qr(&square(80, f32::NAN));
        linalg::qr(&square(4, f32::MAX));
        linalg::svd(&f(&[2, 0, 3]));
        linalg::svd(&f(&[1]).broadcast_to([1, 20_000])?).map(|(_, s, _)| ops::zeros(s.shape(), FLOAT))?;
        linalg::svd(&square(80, f32::MAX));
        linalg::svd(&square(80, 1e-45));
        linalg::svdvals(&square(4, 2.0).transpose([1, 0])?.at(..0)?);
        linalg::eig(&square(80, f32::MAX));
        linalg::eig(&f(&[0, 0]));
        linalg::eigvals(&square(80, -f32::MAX));
        linalg::eigh(&square(80, f32::MAX), Uplo::Lower);
        linalg::eigh(&f(&[2, 0, 0]), Uplo::Upper);
        linalg::eigvalsh(&square(80, f32::MAX), Uplo::Upper);
        linalg::pinv(&f(&[0, 2]));
        linalg::pinv(&f(&[0, 3, 2]).transpose([0, 2, 1])?);
        linalg::pinv(&square(4, f32::MAX));
        linalg::det(&f(&[0, 0]));
        linalg::det(&f(&[0, 4, 4]));
        linalg::det(&square(4, f32::NAN));
        linalg::slogdet(&square(80, f32::INFINITY));
        linalg::norm(&f(&[0, 3]).transpose([1, 0])?, NormOrd::Euclidean, .., true);
        linalg::norm(&f(&[0, 3]), NormOrd::Nuclear, .., true);
        linalg::norm(&f(&[2, 2]), 2, &[0, 0], false);
        linalg::norm(&f(&[2]), f64::NAN, .., false);
        linalg::norm(&of(&[2], Dtype::Bool), 0.5, .., false);
        linalg::cross(&f(&[0, 3]), &f(&[0, 2]), -1);
        linalg::cross(&f(&[2, 3]), &f(&[3]), 0);
        random::multivariate_normal(&f(&[0]), &f(&[0, 0]), &[2], None);
        random::multivariate_normal(&f(&[2]), &square(2, -1.0), &[3], None);
        random::multivariate_normal(&f(&[2]), &f(&[0, 2, 2]), &[], None);

        // Fourier transforms.
        fft::fft(&f(&[0, 3]), Fft::default());
        fft::fft(&f(&[2, 0]), Fft { n: Some(4), ..Fft::default() });
        fft::fft(&f(&[7919]), Fft::default());
        fft::fft(&f(&[2]), Fft { n: Some(99_991), ..Fft::default() });
        fft::irfft(&f(&[2]), Fft { n: Some(65_537), ..Fft::default() });
        fft::ifft(&square(3, f32::NAN), Fft { axis: 0, ..Fft::default() });
        fft::fftn(&f(&[0, 3]).transpose([1, 0])?, FftN { axes: Some(&[0]), ..FftN::default() });
        fft::irfftn(&f(&[2, 2]), FftN { axes: Some(&[]), ..FftN::default() });
        fft::fftshift(&f(&[0]), ..);
        fft::ifftshift(&f(&[0, 3]).transpose([1, 0])?, ..);
        fft::fftshift(&f(&[2]), &[0; 40]);
        fft::fftfreq(4, f64::NAN);
        fft::fftfreq(4, 1e-320);
    }
};

const START: &str = "MLX_CORE_TEST_HOSTILE_START";

fn all_cases() -> Vec<&'static Case> {
    CASES.iter().chain(layers::CASES).collect()
}

/// Does nothing unless the parent below started this process.
#[test]
fn child_process() {
    let Some(start) = std::env::var(START).ok().and_then(|text| text.parse().ok()) else { return };
    let checked = with_device(Device::Cpu, || {
        for (n, case) in all_cases().into_iter().enumerate().skip(start) {
            // Read by the parent, and by people when a case hangs.
            eprintln!("case {n}");
            let result = (case.run)().and_then(|arrays| {
                arrays.iter().try_for_each(|array| array.with_bytes(|_| ()))?;
                Ok(arrays)
            });
            match &result {
                Err(e) if e.kind() == ErrorKind::Panic => eprintln!("case {n} panicked: {e}"),
                Err(_) => {}
                Ok(_) if !case.refused => {}
                Ok(arrays) => eprintln!("case {n} gave {arrays:?}"),
            }
        }
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn no_argument_ends_the_process() {
    let cases = all_cases();
    let mut failures = Vec::new();
    let mut start = 0;
    while start < cases.len() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hostile::child_process", "--nocapture"])
            .env(START, start.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stderr);
        let mut last = start;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("case ") else { continue };
            match rest.split_once(' ') {
                None => last = rest.parse().unwrap(),
                Some((n, what)) => {
                    failures.push(format!("{} {what}", cases[n.parse::<usize>().unwrap()].text));
                }
            }
        }
        // LAPACK can end the process as if all were well.
        if child.status.success() && last + 1 == cases.len() {
            break;
        }
        failures.push(format!("{} died: {}", cases[last].text, child.status));
        start = last + 1;
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
