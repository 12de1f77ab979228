use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::kernels::compute::{cases, every, most};

const FLOAT4: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

#[test]
fn codes_of_four_bits_are_the_nearest() {
    for i in (-7_000..7_000).step_by(every(99)) {
        let x = i as f32 / 1000.0;
        let distance = |code: usize| (x - FLOAT4[code]).abs();
        // The first of the nearest, as MLX's search.
        let nearest = (0..16).fold(0, |a, b| if distance(b) < distance(a) { b } else { a });
        assert_eq!(usize::from(e2m1(x)), nearest, "{x}");
    }
}

#[test]
fn codes_of_eight_bits_are_the_nearest() {
    for code in (0..0x7f_u8).step_by(every(7)) {
        let x = e4m3_value(code);
        assert_eq!((e4m3(x), e4m3(-x)), (code, code | 0x80), "{x}");
        let Some(next) = Some(code + 1).filter(|&next| next < 0x7f) else { continue };
        let middle = (x + e4m3_value(next)) / 2.0;
        assert_eq!(e4m3(middle), if code % 2 == 0 { code } else { next }, "{middle}");
        assert_eq!(e4m3(middle * 0.999), code);
        assert_eq!(e4m3(middle * 1.001), next);
    }
    assert_eq!((e4m3(449.0), e4m3(-1e30)), (0x7e, 0xfe));
}

#[test]
fn powers_of_two_are_no_less() {
    for (x, code) in [(1.0, 127), (1.0001, 128), (0.5, 126), (0.0, 127), (1e-45, 0), (6e-39, 1)] {
        assert_eq!(e8m0_at_least(x), code, "{x}");
    }
    for i in (1..2000u32).step_by(every(41)) {
        let x = f32::from_bits(i.wrapping_mul(0x000f_4243) & 0x7eff_ffff);
        let value = e8m0_value(e8m0_at_least(x));
        assert!(x == 0.0 || (value >= x && (value / 2.0 < x || value < 1e-38)), "{x} {value}");
    }
}

#[test]
fn bits_lie_one_behind_the_other() {
    for bits in [2, 3, 4, 5, 6, 8] {
        let codes: Vec<u8> = (0..64u32).map(|i| (i * 37 % (1 << bits)) as u8).collect();
        let mut packed = vec![0; 8 * bits];
        join(bits, &codes, &mut packed);
        for (i, &code) in codes.iter().enumerate() {
            let bit = |at: usize| packed[at / 8] >> (at % 8) & 1;
            let found = (0..bits).fold(0, |found, b| found | bit(i * bits + b) << b);
            assert_eq!(found, code, "{bits} bits, number {i}");
        }
    }
}

/// A pack of one row and what it means.
fn round_trip<T: Float>(
    isa: Isa,
    packing: Packing,
    weights: &[f32],
) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let n_groups = weights.len() / packing.group_size;
    let mut packed = vec![0; packing.packed_bytes(weights.len())];
    let (mut scales, mut biases) = (vec![T::default(); n_groups], vec![T::default(); n_groups]);
    let mut bytes = vec![0; n_groups];
    let is_affine = matches!(packing.format, Format::Affine(_));
    let to = match is_affine {
        true => Scales::Affine(&mut scales, &mut biases),
        false => Scales::Bytes(&mut bytes),
    };
    assert!(pack(isa, packing, weights, Parts { packed: &mut packed, scales: to }));
    let bits = packing.format.bits();
    let value = |i: usize| {
        let bit = |at: usize| packed[at / 8] >> (at % 8) & 1;
        let code = (0..bits).fold(0u8, |found, b| found | bit(i * bits + b) << b);
        let group = i / packing.group_size;
        match packing.format {
            Format::Affine(_) => (
                f32::from(code) * scales[group].to_f32() + biases[group].to_f32(),
                scales[group].to_f32(),
            ),
            format => {
                let scale = match packing.group_size {
                    16 => e4m3_value(bytes[group]),
                    _ => e8m0_value(bytes[group]),
                };
                let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
                let number = match format {
                    Format::Fp4 => FLOAT4[usize::from(code)],
                    _ => sign * e4m3_value(code),
                };
                (number * scale, scale)
            }
        }
    };
    let (values, scales) = (0..weights.len()).map(value).unzip();
    (packed, values, scales)
}

fn packings() -> impl Strategy<Value = Packing> {
    let affine =
        (prop::sample::select(vec![2u8, 3, 4, 5, 6, 8]), prop::sample::select(vec![32, 64, 128]))
            .prop_map(|(bits, group_size)| Packing {
                format: Format::Affine(bits),
                group_size,
                search: ScaleSearch::MinMax,
            });
    let floats =
        prop::sample::select(vec![(Format::Fp4, 32), (Format::Fp4, 16), (Format::Fp8, 32)])
            .prop_map(|(format, group_size)| Packing {
                format,
                group_size,
                search: ScaleSearch::MinMax,
            });
    prop_oneof![affine, floats]
}

proptest! {
    #![proptest_config(cases(200))]

    /// No weight is off by more than half a step and what rounding scale and bias does; and every
    /// instruction set gives the same.
    #[test]
    fn weights_come_back_within_half_a_step(
        packing in packings(),
        exponent in -20..20i32,
        numbers in prop::collection::vec(-1.0..1.0f32, 256),
    ) {
        let weights: Vec<f32> = numbers.iter().map(|x| x * 2f32.powi(exponent)).collect();
        let (packed, values, scales) = round_trip::<f32>(Isa::SCALAR, packing, &weights);
        for isa in Isa::available() {
            let other = round_trip::<f32>(isa, packing, &weights);
            prop_assert_eq!((&other.0, &other.1), (&packed, &values), "{}", isa.name());
        }
        let groups = weights.chunks(packing.group_size).zip(values.chunks(packing.group_size));
        for (g, (weights, values)) in groups.enumerate() {
            let most = weights.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (&x, &value) in weights.iter().zip(values) {
                let scale = scales[g * packing.group_size].abs();
                let bound = match (packing.format, packing.group_size) {
                    // Of affine steps the one end is hit exactly, and the other by the last step or
                    // beyond it by less than one.
                    (Format::Affine(_), _) => 1.01 * scale + 1e-5 * most,
                    // Half the distance of 4 and 6; a scale may be off by a sixteenth.
                    (Format::Fp4, 32) => scale,
                    // Beyond 448 there is no scale, and below 2⁻¹⁰ none but 0.
                    (Format::Fp4, _) if most > 6.0 * 448.0 => most - 6.0 * 448.0 + 448.0,
                    (Format::Fp4, _) => scale + most / 8.0 + 6.0 / 1024.0,
                    _ => x.abs() / 16.0 + scale / 512.0,
                };
                prop_assert!((x - value).abs() <= bound, "{x} {value} {scale} of {packing:?}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_told(
        packing in packings(),
        at in 0..256usize,
        odd in prop::sample::select(vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN]),
    ) {
        let mut weights = vec![0.5f32; 256];
        weights[at] = odd;
        for isa in Isa::available() {
            let mut packed = vec![0; packing.packed_bytes(256)];
            let (mut scales, mut biases) = (vec![bf16::ZERO; 256 / packing.group_size], vec![bf16::ZERO; 256 / packing.group_size]);
            let mut bytes = vec![0; 256 / packing.group_size];
            let to = match packing.format {
                Format::Affine(_) => Scales::Affine(&mut scales, &mut biases),
                _ => Scales::Bytes(&mut bytes),
            };
            let parts = Parts { packed: &mut packed, scales: to };
            prop_assert!(!pack(isa, packing, &weights, parts));
        }
    }
}

#[test]
fn types_are_converted_by_every_instruction_set() {
    let n = most(1000);
    let from: Vec<f32> = (0..n).map(|i| (i as f32 - n as f32 / 2.0) * 0.37).collect();
    for isa in Isa::available() {
        let (mut halves, mut brains) = (vec![f16::ZERO; n], vec![bf16::ZERO; n]);
        convert(isa, &from, &mut halves);
        convert(isa, &from, &mut brains);
        for (i, x) in from.iter().enumerate() {
            assert_eq!((halves[i], brains[i]), (f16::from_f32(*x), bf16::from_f32(*x)));
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// Every instruction set finds the same scales, and these are no farther from the weights.
    #[test]
    fn searched_scales_are_no_farther(
        packing in packings(),
        exponent in -20..20i32,
        mut numbers in prop::collection::vec(-1.0..1.0f32, 256),
        outlier in prop::option::of((0..256usize, -40.0..40.0f32)),
    ) {
        if let Some((at, number)) = outlier {
            numbers[at] = number;
        }
        let weights: Vec<f32> = numbers.iter().map(|x| x * 2f32.powi(exponent)).collect();
        let searched = Packing { search: ScaleSearch::LeastSquares, ..packing };
        let [plain, found] = [packing, searched].map(|p| round_trip::<bf16>(Isa::SCALAR, p, &weights));
        for isa in Isa::available() {
            prop_assert_eq!(&round_trip::<bf16>(isa, searched, &weights), &found, "{}", isa.name());
        }
        let distance = |values: &[f32]| -> f64 {
            let pairs = values.iter().zip(&weights);
            pairs.map(|(&a, &b)| f64::from(a - bf16::from_f32(b).to_f32()).powi(2)).sum()
        };
        let (before, after) = (distance(&plain.1), distance(&found.1));
        prop_assert!(after <= before * (1.0 + 1e-5), "{} to {}", before, after);
    }
}
