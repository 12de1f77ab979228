//! Products of random sizes, in all formats and element types: each instruction set against the scalar
//! one, and against the definition in `f64`.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::kernels::compute::{cases, most};

/// Format, group size, and the sizes `M`, `N` and `K`, in groups.
#[derive(Clone, Copy, Debug)]
struct Shape {
    format: Format,
    group_size: usize,
    m: usize,
    n: usize,
    groups: usize,
    seed: u64,
}

struct Operands<S, T> {
    packed: Vec<u8>,
    scales: Vec<S>,
    biases: Vec<S>,
    bias: Vec<T>,
    x: Vec<T>,
}

/// What a product is, and what the errors of computing it are measured by.
struct Expected {
    product: f64,
    /// Sum of the magnitudes of all that is added.
    magnitude: f64,
    /// What rounding activations to 8 bits changes at most: half a step of each.
    rounding: f64,
}

impl Shape {
    fn k(&self) -> usize {
        self.groups * self.group_size
    }

    fn operands<S, T: Float>(&self, scale: impl Fn(u64) -> S) -> Operands<S, T> {
        let mut state = self.seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let Shape { format, m, n, groups, .. } = *self;
        let byte = |bits: u64| match (format, bits as u8) {
            // Not a number.
            (Format::Fp8, 0x7f | 0xff) => 0x30,
            (_, byte) => byte,
        };
        let is_affine = matches!(format, Format::Affine(_));
        let packed = (0..n * self.k() * format.bits() / 8).map(|_| byte(next())).collect();
        let scales = (0..n * groups).map(|_| scale(next())).collect();
        let biases = (0..if is_affine { n * groups } else { 0 }).map(|_| scale(next())).collect();
        let mut float = || T::from_f32(next() as f32 / (1u64 << 30) as f32 - 1.0);
        let bias = (0..n).map(|_| float()).collect();
        Operands { packed, scales, biases, bias, x: (0..m * self.k()).map(|_| float()).collect() }
    }

    /// The weights of a row: each as itself, and the magnitudes that it is made of.
    fn weights<S: Scale, T>(&self, operands: &Operands<S, T>, n: usize) -> Vec<(f64, f64)> {
        let Shape { format, group_size, groups, .. } = *self;
        let row_bytes = self.k() * format.bits() / 8;
        let row = &operands.packed[n * row_bytes..][..row_bytes];
        let mut chunk = [0; CHUNK];
        let mut weights = Vec::new();
        for packed in row.chunks(CHUNK * format.bits() / 8) {
            format.unpack(packed, &mut chunk);
            for &q in &chunk[..(self.k() - weights.len()).min(CHUNK)] {
                let g = n * groups + weights.len() / group_size;
                let scale = f64::from(operands.scales[g].to_f32());
                let bias = operands.biases.get(g).map_or(0.0, |bias| f64::from(bias.to_f32()));
                let q = match format {
                    Format::Affine(_) => f64::from(q),
                    Format::Fp4 => f64::from(q) - 12.0,
                    Format::Fp8 => 2.0 * e4m3(q),
                };
                let offset = 2.0 * f64::from(format.offset().abs());
                let magnitude = scale.abs() * (q.abs() + offset) + bias.abs();
                weights.push((scale * q + bias, magnitude));
            }
        }
        weights
    }

    fn expected<S: Scale, T: Float>(&self, operands: &Operands<S, T>) -> Vec<Expected> {
        let weights: Vec<_> = (0..self.n).map(|n| self.weights(operands, n)).collect();
        let wide = |x: &T| f64::from(x.to_f32());
        let mut out = Vec::new();
        for x in operands.x.chunks_exact(self.k()) {
            let steps: Vec<f64> = x
                .chunks_exact(self.group_size)
                .map(|x| x.iter().map(|x| wide(x).abs()).fold(0.0, f64::max) / 127.0)
                .collect();
            for (weights, bias) in weights.iter().zip(&operands.bias) {
                let bias = wide(bias);
                let mut sum = Expected { product: bias, magnitude: bias.abs(), rounding: 0.0 };
                for (i, (x, (weight, magnitude))) in x.iter().zip(weights).enumerate() {
                    let step = steps[i / self.group_size];
                    sum.product += wide(x) * weight;
                    sum.magnitude += (wide(x).abs() + step) * magnitude;
                    sum.rounding += step / 2.0 * weight.abs();
                }
                out.push(sum);
            }
        }
        out
    }

    /// Sums in float32 have an error of so many units of `2⁻²⁴` of what is added: some for each block
    /// of activations and weights, whose own sums are exact or of few numbers.
    fn units(&self) -> f64 {
        (self.k() / 16 + 16) as f64
    }
}

/// The definition of an 8-bit float.
fn e4m3(bits: u8) -> f64 {
    let (exponent, mantissa) = (bits >> 3 & 15, f64::from(bits & 7) / 8.0);
    let magnitude = match exponent {
        0 => mantissa / 64.0,
        _ => (1.0 + mantissa) * f64::from(1u32 << exponent) / 128.0,
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

fn products<S: Scale, T: Float>(
    isa: Isa,
    x: &Input,
    shape: &Shape,
    o: &Operands<S, T>,
) -> Vec<f64> {
    let Shape { format, group_size, .. } = *shape;
    let w = Rows::new(format, group_size, shape.k(), &o.packed, &o.scales, &o.biases);
    let layer = Layer { w: w.expect("sizes fit"), bias: Some(&o.bias[..]) };
    let mut out = vec![T::from_f32(f32::NAN); shape.m * shape.n];
    matmul(isa, x, &[layer], &mut [&mut out]);
    out.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// `epsilon` is half a unit of the element type, in which results are.
fn check<S: Scale, T: Float>(shape: &Shape, epsilon: f64, scale: impl Fn(u64) -> S) {
    let Shape { format, group_size, .. } = *shape;
    let operands = shape.operands::<S, T>(scale);
    let expected = shape.expected(&operands);
    let close = |what: &str, isa: Isa, found: &[f64], expected: &dyn Fn(usize) -> (f64, f64)| {
        for (i, found) in found.iter().enumerate() {
            let (expected, bound) = expected(i);
            let bound = bound + epsilon * expected.abs() + 1e-30;
            let off = (found - expected).abs();
            assert!(
                off <= bound,
                "{what} {isa:?} {shape:?} {i}: {found}, not {expected} ± {bound}"
            );
        }
    };
    let sums = |i: usize| shape.units() * 2f64.powi(-24) * expected[i].magnitude;
    let fast = |isa| Input::fast(isa, &operands.x, shape.k(), group_size, format);
    let scalar = products(Isa::SCALAR, &fast(Isa::SCALAR), shape, &operands);
    for isa in Isa::available() {
        let exact = Input::exact(&operands.x, shape.k(), format);
        let exact = products(isa, &exact, shape, &operands);
        close("exact", isa, &exact, &|i| (expected[i].product, sums(i)));
        let fast = products(isa, &fast(isa), shape, &operands);
        let rounding = |i: usize| if format == Format::Fp8 { 0.0 } else { expected[i].rounding };
        close("fast", isa, &fast, &|i| (expected[i].product, rounding(i) + sums(i)));
        // Both results are rounded.
        close("scalar", isa, &fast, &|i| (scalar[i], sums(i) + epsilon * scalar[i].abs()));
    }
}

/// All types that a format's scales, and activations beside them, have.
fn check_dtypes(shape: Shape) {
    let float = |bits: u64| bits as f32 / (1u64 << 30) as f32 - 1.0;
    let (half, brief) = (2f64.powi(-11), 2f64.powi(-8));
    match (shape.format, shape.group_size) {
        (Format::Affine(_), _) => {
            check::<f32, f32>(&shape, 0.0, float);
            check::<f16, f16>(&shape, half, |bits| f16::from_f32(float(bits)));
            check::<bf16, bf16>(&shape, brief, |bits| bf16::from_f32(float(bits)));
        }
        (_, 16) => {
            let scale = |bits: u64| E4m3(0x28 + bits as u8 % 0x20);
            check::<E4m3, f32>(&shape, 0.0, scale);
            check::<E4m3, bf16>(&shape, brief, scale);
        }
        _ => {
            let scale = |bits: u64| E8m0(122 + bits as u8 % 8);
            check::<E8m0, f32>(&shape, 0.0, scale);
            check::<E8m0, f16>(&shape, half, scale);
            check::<E8m0, bf16>(&shape, brief, scale);
        }
    }
}

fn formats() -> impl Strategy<Value = (Format, usize)> {
    let affine = [2, 3, 4, 5, 6, 8].into_iter().map(Format::Affine);
    let affine = affine.flat_map(|format| [32, 64, 128].map(|group_size| (format, group_size)));
    let small = [(Format::Fp4, 16), (Format::Fp4, 32), (Format::Fp8, 32)];
    prop::sample::select(affine.chain(small).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn few_rows(
        (format, group_size) in formats(),
        (m, n, groups) in (1..most(20), 1..most(40), 1..most(40)),
        seed: u64,
    ) {
        check_dtypes(Shape { format, group_size, m, n, groups, seed });
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn many_rows(
        (format, group_size) in formats(),
        (m, n, groups) in (20..20 + most(580), 1..most(20), 1..most(6)),
        seed: u64,
    ) {
        check_dtypes(Shape { format, group_size, m, n, groups, seed });
    }
}

#[test]
fn numbers_that_no_integers_stand_for() {
    let (format, group_size, m, n, groups) = (Format::Affine(4), 32, 5, 9, 4);
    let shape = Shape { format, group_size, m, n, groups, seed: 3 };
    let k = shape.k();
    let float = |bits: u64| bits as f32 / (1u64 << 30) as f32 - 1.0;
    for isa in Isa::available() {
        for (bad, count) in
            [(f32::NAN, 1), (f32::NAN, 32), (f32::INFINITY, 32), (-f32::INFINITY, 2)]
        {
            let mut operands = shape.operands::<f32, f32>(float);
            operands.x[2 * k..][..count].fill(bad);
            let x = Input::fast(isa, &operands.x, k, group_size, format);
            for (i, y) in products(isa, &x, &shape, &operands).into_iter().enumerate() {
                assert_eq!(y.is_nan(), i / n == 2, "{isa:?} {bad} {i}: {y}");
            }
        }
        // Too small for a step, as all zeros are.
        for tiny in [0.0, f32::MIN_POSITIVE, f32::from_bits(1)] {
            let mut operands = shape.operands::<f32, f32>(float);
            operands.x[2 * k..3 * k].fill(0.0);
            operands.x[2 * k..][..3].fill(tiny);
            let x = Input::fast(isa, &operands.x, k, group_size, format);
            let found = products(isa, &x, &shape, &operands);
            for (y, bias) in found[2 * n..].iter().zip(&operands.bias) {
                assert_eq!(*y, f64::from(*bias), "{isa:?} {tiny}");
            }
        }
    }
}
