mod stacks;

use half::bf16;

use super::*;
use crate::kernels::compute::{cases, every, most};

/// Numbers that look random and are the same each time.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }
}

struct Case {
    packed: Vec<u8>,
    scales: Vec<bf16>,
    biases: Vec<bf16>,
    x: Vec<f32>,
}

fn case(format: Format, group_size: usize, m: usize, n: usize, k: usize) -> Case {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ (m * 31 + n * 17 + k) as u64);
    let n_groups = n * k / group_size;
    let mut floats = |n: usize, offset: f32| {
        (0..n).map(|_| bf16::from_f32(noise.float() + offset)).collect::<Vec<_>>()
    };
    let scales = floats(n_groups, 1.0);
    let biases = floats(if format == Format::Fp4 { 0 } else { n_groups }, -0.3);
    let packed = (0..n * k * format.bits() / 8).map(|_| noise.bits() as u8).collect();
    let x = (0..m * k).map(|_| noise.float()).collect();
    Case { packed, scales, biases, x }
}

const FORMATS: [Format; 7] = [
    Format::Affine(2),
    Format::Affine(3),
    Format::Affine(4),
    Format::Affine(5),
    Format::Affine(6),
    Format::Affine(8),
    Format::Fp4,
];

fn weight(format: Format, group_size: usize, k: usize, case: &Case) -> Rows<'_, bf16> {
    Rows::new(format, group_size, k, &case.packed, &case.scales, &case.biases).expect("sizes fit")
}

fn run(isa: Isa, format: Format, group_size: usize, k: usize, case: &Case) -> Vec<f32> {
    let w = weight(format, group_size, k, case);
    run_on(isa, &Input::fast(isa, &case.x, k, group_size, format), w)
}

fn run_exact(isa: Isa, format: Format, group_size: usize, k: usize, case: &Case) -> Vec<f32> {
    run_on(isa, &Input::exact(&case.x, k, format), weight(format, group_size, k, case))
}

fn run_on(isa: Isa, x: &Input, w: Rows<'_, bf16>) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.n_rows() * w.n_rows];
    matmul(isa, x, &[Layer { w, bias: None }], &mut [&mut out]);
    out
}

/// The product in `f64` with activations that are not rounded, and the sum of its magnitudes.
fn exact(format: Format, group_size: usize, k: usize, case: &Case) -> Vec<(f64, f64)> {
    let n_groups = k / group_size;
    let row_bytes = k * format.bits() / 8;
    let mut out = Vec::new();
    for x in case.x.chunks_exact(k) {
        for (n, packed) in case.packed.chunks_exact(row_bytes).enumerate() {
            let mut sum = (0.0, 0.0);
            for (c, packed) in packed.chunks(CHUNK * format.bits() / 8).enumerate() {
                let mut chunk = [0; CHUNK];
                format.unpack(packed, &mut chunk);
                for (i, q) in chunk.iter().enumerate().take(k - c * CHUNK) {
                    let at = c * CHUNK + i;
                    let g = n * n_groups + at / group_size;
                    let scale = f64::from(case.scales[g].to_f32());
                    let bias = match format {
                        Format::Fp4 => -12.0 * scale,
                        _ => f64::from(case.biases[g].to_f32()),
                    };
                    let product = f64::from(x[at]) * (scale * f64::from(*q) + bias);
                    sum = (sum.0 + product, sum.1 + product.abs());
                }
            }
            out.push(sum);
        }
    }
    out
}

fn group_sizes(format: Format) -> &'static [usize] {
    if format == Format::Fp4 { &[16, 32] } else { &[32, 64, 128] }
}

/// Formats with their group sizes.
fn formats() -> impl Iterator<Item = (Format, usize)> {
    let pairs = |format| group_sizes(format).iter().map(move |&group_size| (format, group_size));
    FORMATS.into_iter().flat_map(pairs).step_by(every(7))
}

#[test]
fn products_are_near_the_exact_ones() {
    for (format, group_size) in formats() {
        let k = 3 * group_size.max(64);
        let case = case(format, group_size, 3, 5, k);
        let expected = exact(format, group_size, k, &case);
        for (i, (y, (exact, size))) in
            run(Isa::SCALAR, format, group_size, k, &case).iter().zip(&expected).enumerate()
        {
            // Half a step of 127 in each activation.
            let bound = size.max(1.0) * 0.02;
            let error = (f64::from(*y) - exact).abs();
            assert!(error < bound, "{format:?} {group_size} at {i}: {y} {exact} {size}");
        }
    }
}

#[test]
fn instruction_sets_agree() {
    for isa in Isa::available() {
        for (format, group_size) in formats() {
            for (m, n, groups) in [
                (1, 1, 1),
                (1, 9, 2),
                (2, 4, 3),
                (4, 8, 5),
                (5, 7, 7),
                (13, 33, 9),
                (70, 19, 4),
                // Several blocks along the row, and panels that are not full.
                (1, 6, 35),
                (9, 3, 21),
                (19, 5, 35),
                // More than one panel of 32 rows, and tiles of 8, 4 and 1.
                (8, 40, 5),
                (13, 65, 11),
            ] {
                let k = groups * group_size;
                let case = case(format, group_size, m, n, k);
                let expected = run(Isa::SCALAR, format, group_size, k, &case);
                let found = run(isa, format, group_size, k, &case);
                let size = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        (a - b).abs() <= 2e-5 * size.max(1.0),
                        "{} {format:?} {group_size} [{m}, {n}, {k}] at {i}: {a} {b}",
                        isa.name()
                    );
                }
            }
        }
    }
}

/// Rows end within a chunk here, whose rest would have the scales of the next row.
#[test]
fn rows_do_not_see_their_neighbours() {
    for isa in Isa::available() {
        for (format, group_size) in formats() {
            for (m, n, groups) in [(1, 9, 3), (2, 5, 3), (3, 6, 1), (5, most(35), 5)] {
                let k = groups * group_size;
                let mut case = case(format, group_size, m, n, k);
                let expected = run(isa, format, group_size, k, &case);
                for row in case.scales.chunks_exact_mut(groups).skip(1).step_by(2) {
                    row.fill(bf16::INFINITY);
                }
                let found = run(isa, format, group_size, k, &case);
                for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                    let is_same = a.to_bits() == b.to_bits() || i % n % 2 == 1;
                    assert!(
                        is_same,
                        "{} {format:?} {group_size} [{m}, {n}, {k}] at {i}: {a} {b}",
                        isa.name()
                    );
                }
            }
        }
    }
}

/// Sums of narrow integers hold the largest of weights times the largest of activations.
#[test]
fn the_largest_products_do_not_overflow() {
    for isa in Isa::available() {
        for (format, group_size) in formats() {
            for (byte, sign, m) in
                [0x00, 0x77, 0xff].into_iter().flat_map(|b| [(b, 1.0, 1), (b, -1.0, 5)])
            {
                let (n, k) = (3, 2 * group_size.max(64));
                let mut case = case(format, group_size, m, n, k);
                case.packed.fill(byte);
                case.x.fill(sign);
                let expected = run(Isa::SCALAR, format, group_size, k, &case);
                for (a, b) in run(isa, format, group_size, k, &case).iter().zip(&expected) {
                    let close = (a - b).abs() <= 1e-3 * b.abs().max(1.0);
                    assert!(close, "{} {format:?} {group_size} {byte}: {a} {b}", isa.name());
                }
            }
        }
    }
}

/// All sizes, tails and tiles; errors within what sums of `k` numbers in float32 have.
#[test]
fn exact_products_are_those_of_float64() {
    for isa in Isa::available() {
        for (format, group_size) in formats() {
            for (m, n, groups) in [(1, 9, 1), (2, 3, 3), (5, most(17), 5), (9, 4, 2)] {
                let k = groups * group_size;
                let case = case(format, group_size, m, n, k);
                let expected = exact(format, group_size, k, &case);
                let found = run_exact(isa, format, group_size, k, &case);
                for (i, (y, (exact, size))) in found.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*y) - exact).abs();
                    assert!(
                        error <= 1e-6 * size,
                        "{} {format:?} {group_size} [{m}, {n}, {k}] at {i}: {y} {exact}",
                        isa.name()
                    );
                }
            }
        }
    }
}

/// One row takes another way than two do, in which weights are not brought to the exponents of `f32`.
#[test]
fn rows_of_any_magnitude_meet_8_bit_floats() {
    let (format, group_size, n, k) = (Format::Fp8, 32, 5, 96);
    let mut noise = Noise(5);
    let is_number = |code: &u8| code & 0x7f != 0x7f;
    let packed: Vec<u8> = (0..=255).filter(is_number).cycle().take(n * k).collect();
    let scales: Vec<_> = (0..n * k / group_size).map(|g| format::E8m0(120 + g as u8)).collect();
    let w = Rows::new(format, group_size, k, &packed, &scales, &[]).expect("sizes fit");
    let unit: Vec<f32> = (0..k).map(|_| noise.float()).collect();
    for isa in Isa::available() {
        for magnitude in [-110, -30, 0, 30, 100].map(|exponent| 2f32.powi(exponent)) {
            let x: Vec<f32> = unit.iter().map(|x| x * magnitude).collect();
            let products = |x: &[f32]| {
                let x = Input::fast(isa, x, k, group_size, format);
                let mut out = vec![f32::NAN; x.n_rows() * n];
                matmul(isa, &x, &[Layer { w, bias: None }], &mut [&mut out]);
                out
            };
            let (one, two) = (products(&x), products(&[&x[..], &x].concat()));
            let size = two.iter().fold(0.0f32, |size, y| size.max(y.abs()));
            for (one, two) in one.iter().zip(&two) {
                let is_close = (one - two).abs() <= 1e-5 * size;
                assert!(is_close && size > 0.0, "{} {magnitude}: {one} {two}", isa.name());
            }
        }
    }
}

/// 8-bit floats whose exponents are 0 are widened otherwise than the rest by some instruction sets.
#[test]
fn all_8_bit_floats_are_widened_alike() {
    // Rows that have all kinds of weights, only plain ones, and a zero or a small one at some place; none
    // so great that the small ones were lost beside it.
    for k in [32, 64, 96, 160] {
        let plain = |i: usize| (i * 37 % 24 + 8) as u8 | if i.is_multiple_of(3) { 0x80 } else { 0 };
        let mut packed: Vec<u8> = (0..k).map(|i| (i * 41) as u8 & 0x9f).collect();
        packed.extend((0..k).map(plain));
        for odd in [0, 1, 7, 0x80, 0x85] {
            packed.extend((0..k).map(|i| if i == odd as usize % k { odd } else { plain(i) }));
        }
        let codes: Vec<u8> = (0..packed.len() / 32).map(|i| 127 + i as u8 % 2).collect();
        let w = Rows::new(Format::Fp8, 32, k, &packed, E8m0::slice(&codes), &[]);
        let w = w.expect("sizes fit");
        let x: Vec<f32> = (0..k).map(|i| 1.0 + 0.5 * (i as f32).sin()).collect();
        let x = Input::exact(&x, k, Format::Fp8);
        let by_rule = x.products(Isa::SCALAR, &w, 0..w.n_rows);
        for isa in Isa::available() {
            for (a, b) in x.products(isa, &w, 0..w.n_rows).iter().zip(by_rule.iter()) {
                assert!((a - b).abs() <= 1e-4, "{}, {k}: {a} {b}", isa.name());
            }
        }
    }
}

/// Several layers at once are each by itself; sizes that make parts of several weights.
#[test]
fn layers_that_share_an_input_do_not_mix() {
    let (format, group_size, k) = (Format::Affine(4), 64, 192);
    let sizes = [most(700), 5, most(64)];
    for isa in Isa::available() {
        for m in [1, 3, most(40)] {
            let cases = sizes.map(|n| case(format, group_size, m, n, k));
            let x = &cases[0].x;
            let biases =
                sizes.map(|n| (0..n).map(|i| bf16::from_f32(i as f32 / 8.0)).collect::<Vec<_>>());
            for x in [Input::exact(x, k, format), Input::fast(isa, x, k, group_size, format)] {
                let layers: [Layer<'_, _, bf16>; 3] = std::array::from_fn(|i| Layer {
                    w: weight(format, group_size, k, &cases[i]),
                    bias: (i != 1).then_some(&biases[i][..]),
                });
                let mut outs = layers.map(|layer| vec![bf16::NAN; m * layer.w.n_rows]);
                matmul(isa, &x, &layers, &mut outs.each_mut().map(|out| &mut out[..]));
                for (layer, out) in layers.iter().zip(&outs) {
                    let alone = run_on(isa, &x, layer.w);
                    for (i, (out, alone)) in out.iter().zip(alone).enumerate() {
                        let bias = layer.bias.map_or(0.0, |bias| bias[i % layer.w.n_rows].to_f32());
                        assert_eq!(*out, bf16::from_f32(alone + bias), "{} {m} {i}", isa.name());
                    }
                }
                let layers = [layers[0], Layer { bias: None, ..layers[0] }];
                let [mut a, mut b, mut gated] = [(); 3].map(|()| vec![bf16::NAN; m * sizes[0]]);
                matmul(isa, &x, &layers, &mut [&mut a, &mut b]);
                gated_matmul(isa, &x, GatedActivation::Relu, layers, &mut gated);
                for ((gated, a), b) in gated.iter().zip(&a).zip(&b) {
                    assert_eq!(*gated, bf16::from_f32(a.to_f32().max(0.0) * b.to_f32()));
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "activations")]
fn activations_of_another_format_are_refused() {
    let case = case(Format::Affine(4), 64, 1, 2, 128);
    let x = Input::fast(Isa::SCALAR, &case.x, 128, 64, Format::Affine(8));
    run_on(Isa::SCALAR, &x, weight(Format::Affine(4), 64, 128, &case));
}

#[test]
fn small_scales_are_what_their_bits_say() {
    for bits in 0..=254u8 {
        // `powi` need not be exact, even where the result is.
        let half = f64::from_bits((u64::from(bits) + 1023 - 128) << 52);
        assert_eq!(f64::from(Scale::to_f32(format::E8m0(bits))), half);
    }
    assert_eq!(Scale::to_f32(format::E4m3(0x38)), 0.5);
    assert_eq!(Scale::to_f32(format::E4m3(0x7e)), 224.0);
    assert_eq!(Scale::to_f32(format::E4m3(0x81)), -1.0 / 1024.0);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let case = case(Format::Affine(4), 64, 1, 2, 128);
    let rows = |k: usize, group_size: usize, packed: &[u8]| {
        Rows::new(Format::Affine(4), group_size, k, packed, &case.scales, &case.biases).map(|_| ())
    };
    assert!(rows(128, 64, &case.packed).is_ok());
    assert!(rows(128, 32, &case.packed).is_err());
    assert!(rows(128, 64, &case.packed[1..]).is_err());
    assert!(rows(0, 64, &case.packed).is_err());
    assert!(rows(100, 64, &case.packed).is_err());
}
