//! Random calls: ops with arguments that mostly do not fit, each of which must return.
//!
//! A child process makes them, so that a death is told with the call that it came from. The seed
//! is fixed; `MLX_CORE_TEST_FUZZ=seed:calls` tries others.

// One spelling for all rows of the table; the child writes down what it does.
#![allow(clippy::needless_borrows_for_generic_args, clippy::print_stderr)]

use mlx_core::fast::{self, AttentionMask, Offset, RopeOptions};
use mlx_core::fft::{self, Fft, FftN, FftNorm};
use mlx_core::linalg::{self, NormOrd, Uplo};
use mlx_core::ops::{
    self, BlockMasks, Closeness, Conv, ConvGeneral, ConvTranspose, ConvolveMode, GatherMatmul,
    Meshgrid, Packed, PadMode, QqWeight, Scan, Side,
};
use mlx_core::transforms::vmap;
use mlx_core::{
    Array, Device, Dtype, Ellipsis, IndexItem, NewAxis, QuantMode, Quantization, Result, Slice, nn,
    random, with_device,
};

use crate::alone::alone;

/// Random arguments.
struct Pick(u64);

impl Pick {
    fn below(&mut self, n: usize) -> usize {
        // Xorshift: as good as it takes, and the same everywhere.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    /// Draws, and writes down what.
    fn of<T: Copy + std::fmt::Debug>(&mut self, from: &[T]) -> T {
        let drawn = from[self.below(from.len())];
        eprint!(" {drawn:?}");
        drawn
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// An axis, a shift, a diagonal: anything.
    fn int(&mut self) -> i32 {
        self.of(&[0, 0, 0, 1, 1, 2, -1, -1, -2, 3, 4, 7, -9, i32::MIN, i32::MAX])
    }

    /// A size that may be made.
    fn size(&mut self) -> i32 {
        self.of(&[0, 1, 1, 2, 2, 3, 3, 4, 8, 32, 64])
    }

    /// A size that an argument asks for.
    fn asked(&mut self) -> i32 {
        self.of(&[0, 1, 2, 3, 4, 8, 64, -1, -1, -2, i32::MIN])
    }

    fn list(&mut self, item: fn(&mut Pick) -> i32) -> Vec<i32> {
        (0..self.below(4)).map(|_| item(self)).collect()
    }

    /// One number for each of `n` axes, now and then one too few.
    fn each(&mut self, n: usize, item: fn(&mut Pick) -> i32) -> Vec<i32> {
        let n = if self.below(8) == 0 { n.saturating_sub(1) } else { n };
        (0..n).map(|_| item(self)).collect()
    }

    fn axis(&mut self) -> Option<i32> {
        if self.below(4) == 0 { None } else { Some(self.int()) }
    }

    fn dtype(&mut self) -> Dtype {
        if self.flag() { Dtype::Float32 } else { self.of(&Dtype::ALL) }
    }

    fn shape(&mut self) -> Vec<i32> {
        let ndim = self.of(&[0, 1, 1, 2, 2, 2, 3, 4]);
        (0..ndim).map(|_| if self.below(3) == 0 { self.size() } else { self.of(&[2, 3]) }).collect()
    }

    fn array(&mut self) -> Array {
        let (shape, dtype) = (self.shape(), self.dtype());
        self.make(&shape, dtype)
    }

    fn make(&mut self, shape: &[i32], dtype: Dtype) -> Array {
        const VALUES: [f32; 7] = [0.0, 1.0, -1.0, 2.5, f32::NAN, f32::INFINITY, 1e9];
        eprint!(" Array({shape:?} {dtype})");
        let n: i32 = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| VALUES[self.below(VALUES.len())]).collect();
        let array = Array::from_slice(&values, shape).unwrap().astype(dtype).unwrap();
        match self.below(4) {
            0 => array.t().unwrap(),
            1 if shape.len() == 2 => array.at((.., Slice::step(-1))).unwrap(),
            _ => array,
        }
    }

    /// Integers, mostly in range, that the host knows or does not know yet.
    fn indices(&mut self) -> Array {
        let shape = self.shape();
        let dtype =
            self.of(&[Dtype::Int32, Dtype::Uint32, Dtype::Int64, Dtype::Uint8, Dtype::Float32]);
        if self.flag() {
            return ops::zeros(&shape, dtype).unwrap();
        }
        let n: i32 = shape.iter().product();
        let values: Vec<i32> = (0..n).map(|_| self.int()).collect();
        let values = Array::from_slice(&values, &shape).unwrap();
        if self.flag() && dtype == Dtype::Int32 {
            values
        } else {
            values.add(0).unwrap().astype(dtype).unwrap()
        }
    }

    fn mask(&mut self, x: &Array) -> Array {
        let rank = self.below(x.ndim() + 1);
        let shape = if self.below(6) == 0 { self.shape() } else { x.shape()[..rank].to_vec() };
        self.make(&shape, Dtype::Bool)
    }

    /// What a scatter at two indices along the first axis takes, or nearly.
    fn updates(&mut self, x: &Array) -> Array {
        let mut shape = vec![2];
        shape.extend(x.shape().iter().enumerate().map(|(axis, &size)| match self.below(12) {
            0 => 0,
            1 => 1,
            _ if axis == 0 => 1,
            _ => size,
        }));
        self.make(&shape, x.dtype())
    }

    fn index(&mut self) -> Vec<IndexItem> {
        (0..self.below(5))
            .map(|_| match self.below(9) {
                7 => self.flag().into(),
                8 => {
                    let shape = self.shape();
                    self.make(&shape, Dtype::Bool).into()
                }
                0 => NewAxis.into(),
                1 => Ellipsis.into(),
                2 => self.indices().into(),
                3 => self.int().into(),
                _ => {
                    let bound = |p: &mut Pick| if p.flag() { None } else { Some(p.int()) };
                    Slice { start: bound(self), stop: bound(self), step: self.int() }.into()
                }
            })
            .collect()
    }

    fn quantization(&mut self) -> Quantization {
        let mode = self.of(&QuantMode::ALL);
        if self.flag() {
            return Quantization::of(mode);
        }
        let bits = self.of(&[2, 3, 4, 5, 6, 8, 0, 7, -1, i32::MAX]);
        Quantization { group_size: self.of(&[16, 32, 64, 128, 0, -32, i32::MAX]), bits, mode }
    }

    fn packed(&mut self) -> Packed {
        let quantization = self.quantization();
        let lead = self.size();
        let weight = ops::quantize(&ops::ones(&[lead, 64], Dtype::Float32).unwrap(), quantization);
        match weight {
            Ok(packed) if self.flag() => packed,
            _ => Packed {
                weight: self.array().astype(Dtype::Uint32).unwrap(),
                scales: self.array(),
                biases: if self.flag() { Some(self.array()) } else { None },
                quantization,
            },
        }
    }

    /// A square matrix, or `x`.
    fn matrix(&mut self, x: Array) -> Array {
        if self.flag() {
            return x;
        }
        let (n, dtype) = (self.size(), self.of(&[Dtype::Float32, Dtype::Float64]));
        self.make(&[n, n], dtype)
    }

    fn fft(&mut self) -> Fft {
        let n = if self.flag() { Some(self.asked()) } else { None };
        Fft { n, axis: self.int(), norm: FftNorm::Backward }
    }

    fn conv<const N: usize>(&mut self) -> Conv<N> {
        let numbers = [0, 1, 1, 2, 3, -1, i32::MIN, i32::MAX];
        let each = |p: &mut Pick| std::array::from_fn(|_| p.of(&numbers));
        let (stride, padding, dilation) = (each(self), each(self), each(self));
        Conv { stride, padding, dilation, groups: self.of(&[0, 1, 1, 2, -1]) }
    }

    fn text(&mut self) -> String {
        let parts =
            ["i", "j", "k", "ij", "jk", ",", "->", "...", " ", "-", ">", ".", "Z", "%s", "é"];
        (0..self.below(7)).map(|_| self.of(&parts)).collect()
    }
}

fn i(n: i32) -> Array {
    ops::zeros(&[n], Dtype::Int32).unwrap()
}

type Call = fn(&mut Pick) -> Result<Vec<Array>>;

macro_rules! calls {
    ($($name:ident: |$p:ident, $x:ident| $call:expr;)*) => {
        &[$((stringify!($name), |$p: &mut Pick| {
            #[allow(unused_variables)]
            let $x = $p.array();
            let result = $call?;
            Ok(vec![result])
        })),*]
    };
}

static CALLS: &[(&str, Call)] = calls! {
    add: |p, x| x.add(&p.array());
    divide: |p, x| x.divide(&p.array());
    floor_divide: |p, x| x.floor_divide(&p.array());
    remainder: |p, x| &x % &p.array();
    remainder_by_number: |p, x| &x % p.int();
    divmod: |p, x| ops::divmod(&x, &p.array()).map(|both| both.1);
    power: |p, x| x.power(&p.array());
    left_shift: |p, x| x.left_shift(&p.array());
    right_shift: |p, x| x.right_shift(p.int());
    maximum: |p, x| x.maximum(&p.array());
    logaddexp: |p, x| x.logaddexp(&p.array());
    arctan2: |p, x| x.arctan2(&p.array());
    bitwise_and: |p, x| x.bitwise_and(&p.array());
    erfinv: |p, x| x.erfinv();
    round: |p, x| x.round(p.int());
    sign: |p, x| x.sign();
    clip: |p, x| x.clip(Some(&p.array()), None);
    nan_to_num: |p, x| x.nan_to_num(0.0, None, Some(1.0));
    isclose: |p, x| x.isclose(&p.array(), Closeness::default());
    array_equal: |p, x| x.array_equal(&p.array(), p.flag());
    where_: |p, x| ops::where_(&x, &p.array(), &p.array());
    astype: |p, x| x.astype(p.of(&Dtype::ALL));
    view: |p, x| x.view(p.of(&Dtype::ALL));
    sum: |p, x| x.sum(&p.list(Pick::int)[..], p.flag());
    prod: |p, x| x.prod(p.int(), p.flag());
    max: |p, x| x.max(&p.list(Pick::int)[..], p.flag());
    all: |p, x| x.all(p.int(), p.flag());
    var: |p, x| x.var(p.int(), p.flag(), p.int());
    median: |p, x| x.median(&p.list(Pick::int)[..], p.flag());
    logsumexp: |p, x| x.logsumexp(&p.list(Pick::int)[..], p.flag());
    softmax: |p, x| x.softmax(&p.list(Pick::int)[..], p.flag());
    argmax: |p, x| x.argmax(p.axis(), p.flag());
    argmin: |p, x| x.argmin(p.axis(), p.flag());
    cumsum: |p, x| x.cumsum(p.axis(), Scan { reverse: p.flag(), inclusive: p.flag() });
    cummax: |p, x| x.cummax(p.axis(), Scan { reverse: p.flag(), inclusive: p.flag() });
    cumprod: |p, x| x.cumprod(p.axis(), Scan { reverse: p.flag(), inclusive: p.flag() });
    logcumsumexp: |p, x| x.logcumsumexp(p.axis(), Scan { reverse: p.flag(), inclusive: p.flag() });
    sort: |p, x| x.sort(p.axis());
    argsort: |p, x| x.argsort(p.axis());
    partition: |p, x| x.partition(p.int(), p.axis());
    argpartition: |p, x| x.argpartition(p.int(), p.axis());
    topk: |p, x| x.topk(p.int(), p.axis());
    searchsorted: |p, x| x.searchsorted(&p.array(), p.of(&[Side::Left, Side::Right]));
    reshape: |p, x| x.reshape(p.list(Pick::asked));
    flatten: |p, x| x.flatten(p.int(), p.int());
    unflatten: |p, x| x.unflatten(p.int(), p.list(Pick::asked));
    squeeze: |p, x| x.squeeze(&p.list(Pick::int)[..]);
    expand_dims: |p, x| x.expand_dims(&p.list(Pick::int)[..]);
    transpose: |p, x| x.transpose(p.each(x.ndim(), |p| p.of(&[0, 1, 2, -1, 5])));
    swapaxes: |p, x| x.swapaxes(p.int(), p.int());
    moveaxis: |p, x| x.moveaxis(p.int(), p.int());
    broadcast_to: |p, x| x.broadcast_to(p.list(Pick::asked));
    broadcast_arrays: |p, x| ops::broadcast_arrays(&[x, p.array()]).map(|mut all| all.remove(1));
    meshgrid: |p, x| ops::meshgrid(&[x, p.array()], Meshgrid { sparse: p.flag(), matrix: p.flag() }).map(|mut all| all.remove(0));
    concatenate: |p, x| ops::concatenate(&[x, p.array()], p.int());
    stack: |p, x| ops::stack(&[x.clone(), x], p.int());
    split: |p, x| x.split(p.int(), p.int()).map(|all| all.last().cloned().unwrap_or(x));
    split_at: |p, x| x.split_at(&p.list(Pick::int), p.int()).map(|mut all| all.remove(0));
    unstack: |p, x| x.unstack(p.int()).map(|all| all.last().cloned().unwrap_or(x));
    repeat: |p, x| x.repeat(p.asked(), p.axis());
    tile: |p, x| x.tile(&p.list(Pick::asked));
    pad: |p, x| x.pad(&(0..p.below(4)).map(|_| (p.asked(), p.asked())).collect::<Vec<_>>(), 1);
    pad_mode: |p, x| x.pad_mode(&(0..x.ndim()).map(|_| (p.asked(), p.asked())).collect::<Vec<_>>(), p.of(&[PadMode::Edge, PadMode::Reflect, PadMode::Symmetric]));
    roll: |p, x| x.roll(p.int(), p.axis());
    roll_axes: |p, x| x.roll_axes(&p.list(Pick::int), &p.list(Pick::int));
    flip: |p, x| x.flip(&p.list(Pick::int)[..]);
    tril: |p, x| x.tril(p.int());
    diag: |p, x| x.diag(p.of(&[0, 1, -1, 5, -5]));
    diagonal: |p, x| x.diagonal(p.int(), p.int(), p.int());
    trace: |p, x| x.trace(p.int(), p.int(), p.int(), p.dtype());
    contiguous: |p, x| x.contiguous();
    eye: |p, x| ops::eye(p.asked(), p.asked(), p.int(), p.dtype());
    tri: |p, x| ops::tri(p.asked(), p.asked(), p.int(), p.dtype());
    full: |p, x| ops::full(&p.list(Pick::asked), &x, p.dtype());
    arange: |p, x| ops::arange(p.asked().into(), p.of(&[0.0, 9.5, f64::NAN, f64::INFINITY]), p.of(&[1.0, 0.25, 0.0, -1.0, f64::NAN]), p.dtype());
    linspace: |p, x| ops::linspace(0.0, 1.0, p.asked(), p.dtype());
    at: |p, x| x.at(p.index());
    put: |p, x| x.put(p.index(), &p.array());
    put_add: |p, x| x.put_add(p.index(), &p.array());
    put_multiply: |p, x| x.put_multiply(p.index(), &p.array());
    put_maximum: |p, x| x.put_maximum(p.index(), 1);
    slice: |p, x| {
        let n = x.ndim();
        x.slice(&p.each(n, Pick::int), &p.each(n, Pick::int), &p.each(n, Pick::int))
    };
    slice_update: |p, x| {
        let (n, values) = (x.ndim(), p.array());
        x.slice_update(&values, &p.each(n, Pick::int), &p.each(n, Pick::int), &p.each(n, Pick::int))
    };
    slice_dynamic: |p, x| {
        let start = if p.flag() { p.indices() } else { Array::from_slice(&[0], &[1])? };
        x.slice_dynamic(&start, &[p.int()], &p.each(x.ndim(), |p| p.of(&[0, 1, 1, 2, 3, -1])))
    };
    slice_update_dynamic: |p, x| {
        let start = if p.flag() { p.indices() } else { Array::from_slice(&[0], &[1])? };
        x.slice_update_dynamic(&p.array(), &start, &[p.int()])
    };
    slice_update_add_dynamic: |p, x| {
        let start = if p.flag() { p.indices() } else { Array::from_slice(&[0], &[1])? };
        x.slice_update_add_dynamic(&p.array(), &start, &[p.int()])
    };
    at_mask: |p, x| { let mask = p.mask(&x); x.at((mask, p.int())) };
    put_mask: |p, x| { let mask = p.mask(&x); x.put(mask, &p.array()) };
    put_add_mask: |p, x| { let mask = p.mask(&x); x.put_add((.., mask), &p.array()) };
    masked_scatter: |p, x| { let mask = p.mask(&x); x.masked_scatter(&mask, &p.array()) };
    nonzero: |p, x| ops::argwhere(&x);
    take: |p, x| x.take(&p.indices(), p.axis());
    take_number: |p, x| x.take(p.int(), p.axis());
    take_along_axis: |p, x| x.take_along_axis(&p.indices(), p.int());
    put_along_axis: |p, x| x.put_along_axis(&p.indices(), &p.array(), p.int());
    scatter_add_axis: |p, x| x.scatter_add_axis(&p.indices(), &p.array(), p.int());
    gather_single: |p, x| x.gather_single(&p.indices(), p.of(&[0, 0, 1, -1, 7]), &p.each(x.ndim(), |p| p.of(&[0, 1, 1, 2, -1])));
    gather: |p, x| x.gather(&[p.indices()], &[p.of(&[0, 0, 1, -1, 7])], &p.each(x.ndim(), |p| p.of(&[0, 1, 1, 2, -1])));
    scatter: |p, x| x.scatter(&[p.indices(), p.indices()][..p.below(3)], &p.array(), &p.list(Pick::int));
    scatter_add: |p, x| x.scatter_add(&[i(2)], &p.updates(&x), &[0]);
    scatter_prod_single: |p, x| { let updates = p.updates(&x); x.scatter_prod_single(&p.indices(), &updates, p.of(&[0, 0, 1])) };
    scatter_max: |p, x| x.scatter_max(&[i(2)], &p.updates(&x), &[p.of(&[0, 0, 1, -1])]);
    scatter_min: |p, x| x.scatter_min(&[i(2), p.indices()], &p.updates(&x), &[0, p.of(&[0, 1])]);
    matmul: |p, x| x.matmul(&p.array());
    addmm: |p, x| ops::addmm(&x, &p.array(), &p.array(), 0.5, 2.0);
    trunc: |p, x| x.trunc();
    count_nonzero: |p, x| x.count_nonzero(&p.list(Pick::int)[..], p.flag());
    diff: |p, x| x.diff(p.asked(), p.int());
    as_strided: |p, x| {
        let strides: Vec<i64> = p.list(Pick::int).into_iter().map(i64::from).collect();
        let shape = p.each(strides.len(), |p| p.of(&[0, 1, 2, 3, 4, -1]));
        x.as_strided(&shape, &strides, p.below(6))?.add(1)
    };
    full_like: |p, x| x.full_like(&p.array(), p.dtype());
    vecdot: |p, x| x.vecdot(&p.array(), p.int());
    hadamard: |p, x| x.hadamard_transform(if p.flag() { None } else { Some(0.5) });
    block_masked_mm: |p, x| {
        let (lhs, out) = (p.array(), p.array());
        let masks = BlockMasks { out: p.flag().then_some(&out), lhs: Some(&lhs), rhs: None };
        ops::block_masked_mm(&x, &p.array(), p.of(&[32, 64, 0, -1]), masks)
    };
    segmented_mm: |p, x| {
        let k = p.size();
        let (a, b) = (p.make(&[2, k], Dtype::Float32), p.make(&[k, 3], Dtype::Float32));
        let segments: Vec<i32> = (0..4).map(|_| p.int()).collect();
        let segments = Array::from_slice(&segments, &[2, 2])?;
        ops::segmented_mm(if p.flag() { &a } else { &x }, &b, &segments)
    };
    gather_mm_fitting: |p, x| {
        let (a, b) = (p.make(&[3, 1, 4], Dtype::Float32), p.make(&[2, 4, 2], Dtype::Float32));
        let indices: Vec<i32> = (0..3).map(|_| p.int()).collect();
        let indices = Array::from_slice(&indices, &[3])?;
        ops::gather_mm(&a, &b, p.flag().then_some(&indices), Some(&indices), p.flag())
    };
    conv1d: |p, x| { let options = p.conv(); ops::conv1d(&x, &p.array(), options) };
    conv2d: |p, x| { let options = p.conv(); ops::conv2d(&x, &p.array(), options) };
    conv_fitting: |p, x| {
        let (n, l, h, o) = (p.of(&[0, 1, 2]), p.size(), p.of(&[0, 1, 2, 3]), p.of(&[0, 1, 2, 4]));
        let (k, groups) = (p.of(&[0, 1, 2, 3, 4]), p.of(&[0, 1, 1, 2, -1]));
        let (x, w) = (p.make(&[n, l, 2 * h], Dtype::Float32), p.make(&[o, k, 2 * h / groups.max(1)], Dtype::Float32));
        let of = |p: &mut Pick| [p.of(&[0, 1, 1, 2, 3, -1, -2, 5])];
        let (stride, lo, hi) = (of(p), of(p), of(p));
        let (kernel, inner) = (of(p), of(p));
        let options = ConvGeneral { stride: &stride, padding_lo: &lo, padding_hi: &hi, kernel_dilation: &kernel, input_dilation: &inner, groups, flip: p.flag() };
        ops::conv_general(&x, &w, options)
    };
    conv_transpose2d: |p, x| {
        let Conv { stride, padding, dilation, groups } = p.conv();
        let options = ConvTranspose { stride, padding, dilation, output_padding: [p.asked(), 0], groups };
        let (x, w) = (p.make(&[1, 3, 4, 2], Dtype::Float32), p.make(&[2, 2, 3, 2], Dtype::Float32));
        ops::conv_transpose2d(&x, &w, options)
    };
    convolve: |p, x| ops::convolve(&x, &p.array(), p.of(&[ConvolveMode::Full, ConvolveMode::Same, ConvolveMode::Valid]));
    qqmm: |p, x| { let packed = p.packed(); let x = if p.flag() { p.make(&[1, 64], Dtype::Float32) } else { x }; ops::qqmm(&x, QqWeight::Packed(&packed), None) };
    windows: |p, x| ops::hanning(p.asked());
    tensordot_axis: |p, x| x.tensordot_axis(&p.array(), p.int());
    tensordot: |p, x| x.tensordot(&p.array(), &p.list(Pick::int), &p.list(Pick::int));
    inner: |p, x| x.inner(&p.array());
    kron: |p, x| x.kron(&p.array());
    einsum: |p, x| ops::einsum(&p.text(), &[x, p.array()][..p.below(3)]);
    gather_mm: |p, x| ops::gather_mm(&x, &p.array(), Some(&p.indices()), Some(&p.indices()), p.flag());
    quantize: |p, x| ops::quantize(&x, p.quantization()).map(|packed| packed.weight);
    dequantize: |p, x| { let dtype = p.dtype(); p.packed().dequantize(dtype) };
    quantized_matmul: |p, x| { let transpose = p.flag(); p.packed().matmul(&x, transpose) };
    quantized_matmul_fitting: |p, x| { let rows = p.size(); let x = p.make(&[rows, 64], Dtype::Float32); p.packed().matmul(&x, true) };
    gather_qmm: |p, x| { let options = GatherMatmul { transpose: p.flag(), sorted_indices: p.flag() }; let (l, r) = (p.indices(), p.indices()); p.packed().gather_matmul(&x, Some(&l), Some(&r), options) };
    take_rows: |p, x| { let indices = p.indices(); p.packed().take_rows(&indices) };
    from_fp8: |p, x| ops::from_fp8(&x, p.dtype());
    to_fp8: |p, x| ops::to_fp8(&x);
    rms_norm: |p, x| fast::rms_norm(&x, Some(&p.array()), 1e-5);
    host_rms_norm: |p, x| nn::RmsNorm { weight: p.array().into(), eps: 1e-5 }.forward(&x);
    layer_norm: |p, x| fast::layer_norm(&x, Some(&p.array()), Some(&p.array()), 1e-5);
    rope: |p, x| {
        let freqs = p.array();
        let freqs = if p.flag() { Some(&freqs) } else { None };
        let base = if p.flag() { Some(10.0) } else { None };
        let options = RopeOptions { dims: p.asked(), traditional: p.flag(), base, scale: 1.0, freqs };
        let x = if p.flag() { p.make(&[2, 2, 3, 8], Dtype::Float32) } else { x };
        fast::rope(&x, options, Offset::Int(p.int()))
    };
    rope_array: |p, x| fast::rope(&x, RopeOptions { dims: p.asked(), traditional: p.flag(), base: Some(10.0), scale: 1.0, freqs: None }, Offset::Array(&p.indices()));
    attention: |p, x| {
        let [b, h, l, d] = std::array::from_fn(|_| p.of(&[0, 1, 2, 3, 4]));
        let (kv, s, dv) = (p.of(&[0, 1, 2, h]), p.of(&[0, 1, 3, l]), p.of(&[0, 2, d]));
        let dtype = p.dtype();
        let (q, k, v) = (p.make(&[b, h, l, d], dtype), p.make(&[b, kv, s, d], dtype), p.make(&[b, kv, s, dv], dtype));
        let sinks = p.array();
        let mask = if p.flag() { AttentionMask::Causal } else { AttentionMask::Array(&x) };
        fast::scaled_dot_product_attention(&q, &k, &v, 0.5, mask, if p.flag() { Some(&sinks) } else { None })
    };
    cross_entropy: |p, x| fast::cross_entropy(&x, &p.indices());
    bits: |p, x| random::bits(&p.list(Pick::asked), p.asked(), None);
    uniform: |p, x| random::uniform(&x, &p.array(), &p.list(Pick::asked), p.dtype(), None);
    normal: |p, x| random::normal(&p.list(Pick::asked), p.dtype(), &x, 1.0, None);
    randint: |p, x| random::randint(&x, &p.array(), &p.list(Pick::asked), p.dtype(), None);
    bernoulli: |p, x| random::bernoulli(&x, &p.list(Pick::asked), None);
    truncated_normal: |p, x| random::truncated_normal(&x, &p.array(), &p.list(Pick::asked), p.dtype(), None);
    split_key: |p, x| random::split(&x, p.asked());
    categorical: |p, x| random::categorical(&x, p.int(), None);
    categorical_num_samples: |p, x| random::categorical_num_samples(&x, p.int(), p.asked(), None);
    categorical_shape: |p, x| random::categorical_shape(&x, p.int(), &p.list(Pick::asked), None);
    permutation: |p, x| random::permutation(&x, p.int(), None);
    norm: |p, x| { let axes = p.list(Pick::int); let ord = p.of(&[0.0, 1.0, -2.0, 2.0, 3.0, f64::INFINITY]); linalg::norm(&x, ord, &axes[..], p.flag()) };
    nuclear_norm: |p, x| { let axes = p.list(Pick::int); linalg::norm(&x, NormOrd::Nuclear, &axes[..], p.flag()) };
    qr: |p, x| { let x = p.matrix(x); linalg::qr(&x).map(|(q, _)| q) };
    svd: |p, x| { let x = p.matrix(x); linalg::svd(&x).map(|(u, _, _)| u) };
    svdvals: |p, x| linalg::svdvals(&p.matrix(x));
    eig: |p, x| { let x = p.matrix(x); linalg::eig(&x).map(|(w, _)| w) };
    eigvals: |p, x| linalg::eigvals(&p.matrix(x));
    eigh: |p, x| { let x = p.matrix(x); linalg::eigh(&x, p.of(&[Uplo::Lower, Uplo::Upper])).map(|(w, _)| w) };
    inv: |p, x| linalg::inv(&p.matrix(x));
    tri_inv: |p, x| { let x = p.matrix(x); linalg::tri_inv(&x, p.flag()) };
    pinv: |p, x| linalg::pinv(&p.matrix(x));
    cholesky: |p, x| { let x = p.matrix(x); linalg::cholesky(&x, p.flag()) };
    cholesky_inv: |p, x| { let x = p.matrix(x); linalg::cholesky_inv(&x, p.flag()) };
    lu: |p, x| { let x = p.matrix(x); linalg::lu(&x).map(|(p, _, _)| p) };
    lu_factor: |p, x| { let x = p.matrix(x); linalg::lu_factor(&x).map(|(lu, _)| lu) };
    solve: |p, x| { let x = p.matrix(x); linalg::solve(&x, &p.array()) };
    solve_triangular: |p, x| { let x = p.matrix(x); let b = p.array(); linalg::solve_triangular(&x, &b, p.flag()) };
    cross: |p, x| { let b = p.array(); linalg::cross(&x, &b, p.int()) };
    det: |p, x| linalg::det(&p.matrix(x));
    slogdet: |p, x| { let x = p.matrix(x); linalg::slogdet(&x).map(|(sign, _)| sign) };
    fft: |p, x| fft::fft(&x, p.fft());
    ifft: |p, x| fft::ifft(&x, p.fft());
    rfft: |p, x| fft::rfft(&x, p.fft());
    irfft: |p, x| fft::irfft(&x, p.fft());
    rfftn: |p, x| { let (s, axes) = (p.list(Pick::asked), p.list(Pick::int)); fft::rfftn(&x, FftN { s: p.flag().then_some(&s), axes: p.flag().then_some(&axes), norm: FftNorm::Ortho }) };
    irfft2: |p, x| { let (s, axes) = (p.list(Pick::asked), p.list(Pick::int)); fft::irfft2(&x, FftN { s: p.flag().then_some(&s), axes: p.flag().then_some(&axes), norm: FftNorm::Forward }) };
    fftshift: |p, x| { let axes = p.list(Pick::int); fft::fftshift(&x, &axes[..]) };
    fftfreq: |p, x| { let d = p.of(&[0.0, 1.0, -0.5, f64::NAN]); fft::fftfreq(p.asked(), d) };
    multivariate_normal: |p, x| { let cov = p.matrix(x); let mean = p.array(); random::multivariate_normal(&mean, &cov, &p.list(Pick::asked), None) };
    vmap: |p, x| vmap(|x| Ok(vec![x[0].softmax(-1, false)?]), &[p.int()], &[p.int()])?.call(&[x]).map(|mut all| all.remove(0));
};

#[test]
fn no_random_call_ends_the_process() {
    alone("fuzz::no_random_call_ends_the_process", || {
        let text = std::env::var("MLX_CORE_TEST_FUZZ").unwrap_or_else(|_| "1:4000".to_owned());
        let (seed, calls) = text.split_once(':').unwrap();
        let calls: u64 = calls.parse().unwrap();
        let first = seed.parse::<u64>().unwrap() << 32;
        let _ = with_device(Device::Cpu, || {
            for n in 0..calls {
                let mut pick = Pick((first + n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
                pick.below(2);
                let (name, call) = CALLS[n as usize % CALLS.len()];
                eprint!("\ncall {n} {name}:");
                let _ = call(&mut pick).and_then(|arrays| {
                    mlx_core::eval(&arrays)?;
                    Ok(arrays)
                });
            }
            Ok(())
        });
    });
}
