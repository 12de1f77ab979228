//! Packed weights: how far unpacking may lie from the weight, and products against the unpacked.

use fixtures::Tolerance;
use mlx_core::ops::{self, GatherMatmul, Packed};
use mlx_core::{Array, Device, Dtype, ErrorKind, QuantMode, Quantization, Result, with_device};
use proptest::prelude::*;

fn formats() -> Vec<Quantization> {
    let affine = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| {
        [32, 64, 128].map(|group_size| Quantization { group_size, bits, mode: QuantMode::Affine })
    });
    let micro = [QuantMode::Mxfp4, QuantMode::Nvfp4, QuantMode::Mxfp8].map(Quantization::of);
    affine.chain(micro).collect()
}

/// How far an unpacked weight of a group may lie from the packed one.
///
/// `largest` is the greatest magnitude of the group, `range` its greatest less its least element.
fn bound(quantization: Quantization, largest: f32, range: f32) -> f32 {
    let steps = |bits: i32| ((1 << bits) - 1) as f32;
    match quantization.mode {
        // Half a step, and as much again: the scale is moved so that zero or an end is exact.
        QuantMode::Affine => 1.01 * range / steps(quantization.bits) + 1e-6 * largest,
        // The scale is the power of two around largest / 6 or the next E4M3 number to it; steps
        // of E2M1 are at most a third of a number, and what is above 6 is cut off.
        QuantMode::Mxfp4 => largest / 3.0,
        QuantMode::Nvfp4 => largest / 4.0 + 2e-3,
        // E4M3: three bits behind the point, and what is above 448 is cut off.
        QuantMode::Mxfp8 => largest / 8.0,
    }
}

fn check_bounds(
    quantization: Quantization,
    rows: i32,
    values: &[f32],
) -> Result<(), TestCaseError> {
    let columns = values.len() as i32 / rows;
    let unpacked = with_device(Device::Cpu, || {
        let w = Array::from_slice(values, &[rows, columns])?;
        let packed = ops::quantize(&w, quantization)?;
        assert_eq!(packed.weight.shape(), [rows, columns * quantization.bits / 32]);
        assert_eq!(packed.scales.shape(), [rows, columns / quantization.group_size]);
        assert_eq!(packed.biases.is_some(), quantization.mode == QuantMode::Affine);
        packed.dequantize(Dtype::Float32)?.to_vec::<f32>()
    });
    let unpacked = unpacked.unwrap();
    let size = quantization.group_size as usize;
    for (group, (from, to)) in values.chunks(size).zip(unpacked.chunks(size)).enumerate() {
        let largest = from.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let least = from.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = from.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let bound = bound(quantization, largest, greatest - least);
        for (w, u) in from.iter().zip(to) {
            prop_assert!(
                (w - u).abs() <= bound,
                "{quantization}, group {group}: {w} became {u}, bound {bound}"
            );
        }
    }
    Ok(())
}

/// Weights of one or two magnitudes per group, with zeros and equal ones among them.
fn any_weights() -> impl Strategy<Value = (i32, Vec<f32>)> {
    let value = prop_oneof![
        8 => -1.0..1.0f32,
        1 => Just(0.0f32),
        1 => Just(0.5f32),
    ];
    let scale = prop::sample::select(&[1e-3f32, 0.05, 1.0, 30.0][..]);
    (1..4i32, prop::sample::select(&[128usize, 256][..]), scale).prop_flat_map(
        move |(rows, columns, scale)| {
            let values = prop::collection::vec(value.clone(), rows as usize * columns);
            values.prop_map(move |v| (rows, v.into_iter().map(|x| x * scale).collect()))
        },
    )
}

fn check_product(
    quantization: Quantization,
    transpose: bool,
    n: i32,
    seed: u64,
) -> Result<(), TestCaseError> {
    let checked = with_device(Device::Cpu, || {
        let key = mlx_core::random::key(seed)?;
        let normal =
            |shape: &[i32]| mlx_core::random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&key));
        // Both sides of the product are whole groups whatever the format.
        let packed = ops::quantize(&normal(&[2, 64, 128])?, quantization)?;
        let w = packed.dequantize(Dtype::Float32)?;
        let w = if transpose { w.swapaxes(-1, -2)? } else { w };
        let x = normal(&[2, n, if transpose { 128 } else { 64 }])?;
        let compare = |actual: Array, expected: Array| -> Result<Result<(), String>> {
            if actual.shape() != expected.shape() || actual.dtype() != Dtype::Float32 {
                return Ok(Err(format!("{actual:?}, expected {expected:?}")));
            }
            let tolerance = Tolerance { rtol: 1e-4, atol: 1e-5, of_max: 1e-5 };
            Ok(tolerance.check(&actual.to_vec()?, &expected.to_vec()?))
        };
        let batched = compare(packed.matmul(&x, transpose)?, x.matmul(&w)?)?;
        // One matrix for all rows.
        let first = Packed {
            weight: packed.weight.at(0)?,
            scales: packed.scales.at(0)?,
            biases: packed.biases.as_ref().map(|b| b.at(0)).transpose()?,
            quantization,
        };
        let single = compare(first.matmul(&x, transpose)?, x.matmul(&w.at(0)?)?)?;
        // Matrices chosen by index.
        let chosen = Array::from_slice(&[1u32, 0], &[2])?;
        let options = GatherMatmul { transpose, sorted_indices: false };
        let gathered = compare(
            packed.gather_matmul(&x, None, Some(&chosen), options)?,
            x.matmul(&w.take(&chosen, 0)?)?,
        )?;
        let rows = Array::from_slice(&[63u32, 0, 5], &[3])?;
        let taken = first.take_rows(&rows)?.astype(Dtype::Float32)?;
        let plain = first.dequantize(Dtype::Float32)?.take(&rows, 0)?;
        Ok(batched.and(single).and(gathered).and(compare(taken, plain)?))
    });
    prop_assert_eq!(checked.unwrap(), Ok(()), "{}, transpose {}", quantization, transpose);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn unpacking_stays_within_the_scale((rows, values) in any_weights()) {
        for quantization in formats() {
            check_bounds(quantization, rows, &values)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn products_are_those_of_the_unpacked_weight(seed in any::<u64>(), n in 1..7i32) {
        for quantization in formats() {
            for transpose in [true, false] {
                check_product(quantization, transpose, n, seed)?;
            }
        }
    }
}

#[test]
fn empty_products_are_empty() {
    let checked = with_device(Device::Cpu, || {
        for quantization in formats() {
            let packed = ops::quantize(&ops::ones(&[8, 128], Dtype::Float32)?, quantization)?;
            let none = ops::zeros(&[0, 128], Dtype::Float32)?;
            assert_eq!(packed.matmul(&none, true)?.shape(), [0, 8]);
            let none = ops::zeros(&[3, 0, 8], Dtype::Float32)?;
            assert_eq!(packed.matmul(&none, false)?.shape(), [3, 0, 128]);
        }
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn formats_that_do_not_exist_are_refused() {
    let w = ops::ones(&[8, 128], Dtype::Float32).unwrap();
    let real = formats();
    for mode in QuantMode::ALL {
        for bits in -1..10 {
            for group_size in [-32, 0, 1, 8, 16, 32, 48, 64, 128, 256] {
                let quantization = Quantization { group_size, bits, mode };
                let result = ops::quantize(&w, quantization);
                assert_eq!(result.is_ok(), real.contains(&quantization), "{quantization}");
                if let Err(error) = result {
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                }
            }
        }
    }
}
