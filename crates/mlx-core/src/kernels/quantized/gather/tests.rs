use proptest::prelude::*;

use super::super::tests::{check_formats, error, widened};
use super::*;
use crate::kernels::{Arithmetic, KernelOptions, with_options};
use crate::ops::{Packed, quantize};
use crate::transforms::{compile, grad_once};
use crate::{Device, Dtype, QuantMode, Quantization, random, with_device};

const BOTH: [GatherMatmul; 2] = [
    GatherMatmul { transpose: true, sorted_indices: false },
    GatherMatmul { transpose: false, sorted_indices: false },
];

fn normal(shape: &[i32], seed: u64) -> Result<Array> {
    random::normal(shape, Dtype::Float32, 0.1, 1.0, Some(&random::key(seed)?))
}

/// Returns our result, which is not MLX's.
fn ours(inputs: GatherInputs<'_>, packed: &Packed, arithmetic: Arithmetic) -> Result<Array> {
    let options = KernelOptions { arithmetic, ..options() };
    let outputs =
        with_options(options, || gather_quantized_matmul(inputs, &[(packed, None)], None))?;
    Ok(outputs.expect("there is a kernel").remove(0))
}

fn check_format(quantization: Quantization, dtype: Dtype, bounds: [f32; 2]) -> Result<()> {
    let k = 3 * quantization.group_size.max(32);
    let packed = quantize(&normal(&[4, 32, k], 3)?.astype(dtype)?, quantization)?;
    let wide = widened(&packed)?;
    let rhs = Array::from_slice(&[3u32, 0, 3, 3, 1, 0], &[3, 2])?;
    for options in BOTH {
        let x = normal(&[3, 1, 2, if options.transpose { k } else { 32 }], 4)?.astype(dtype)?;
        let as_float32 = x.astype(Dtype::Float32)?;
        let expected =
            wide.gather_matmul_by_mlx(&as_float32, None, Some(&rhs), options)?.astype(dtype)?;
        let inputs = GatherInputs {
            x: &x,
            of_rows: false,
            lhs_indices: None,
            rhs_indices: Some(&rhs),
            options,
        };
        for (arithmetic, bound) in [Arithmetic::Exact, Arithmetic::Fast].into_iter().zip(bounds) {
            let error = error(&ours(inputs, &packed, arithmetic)?, &expected)?;
            assert!(error <= bound, "{quantization} {dtype} {arithmetic:?} {options:?}: {error}");
        }
    }
    Ok(())
}

#[test]
fn agrees_with_mlx() -> Result<()> {
    check_formats(check_format)
}

#[test]
fn stacks_without_indices_are_batches() -> Result<()> {
    with_device(Device::Cpu, || {
        for quantization in [Quantization::default(), Quantization::of(QuantMode::Mxfp4)] {
            let packed = quantize(&normal(&[3, 32, 64], 1)?, quantization)?;
            let single = Packed {
                weight: packed.weight.at(1)?,
                scales: packed.scales.at(1)?,
                biases: packed.biases.as_ref().map(|biases| biases.at(1)).transpose()?,
                quantization,
            };
            for GatherMatmul { transpose, .. } in BOTH {
                let width = if transpose { 64 } else { 32 };
                for x in [normal(&[2, 3, 5, width], 2)?, normal(&[1, width], 2)?] {
                    for packed in [&packed, &single] {
                        let expected = packed.matmul_by_mlx(&x, transpose)?;
                        assert!(error(&packed.matmul(&x, transpose)?, &expected)? < 1e-6);
                    }
                }
                assert!(packed.matmul(&normal(&[2, 5, width], 2)?, transpose).is_err());
                assert!(packed.matmul(&normal(&[5, width - 1], 2)?, transpose).is_err());
            }
        }
        Ok(())
    })
}

/// Returns what keeps our results from being MLX's.
fn check_shapes(
    [n_weights, n, m, n_blocks]: [i32; 4],
    pairs: &[(u32, u32)],
    options: GatherMatmul,
) -> Result<Option<String>> {
    with_device(Device::Cpu, || {
        let packed = quantize(&normal(&[n_weights, n, 64], 1)?, Quantization::default())?;
        let x = normal(&[n_blocks, m, if options.transpose { 64 } else { n }], 2)?;
        let len = [pairs.len() as i32];
        let blocks: Vec<u32> = pairs.iter().map(|pair| pair.0 % n_blocks as u32).collect();
        let lhs = Array::from_slice(&blocks, &len)?;
        let mut chosen: Vec<u32> = pairs.iter().map(|pair| pair.1 % n_weights as u32).collect();
        if options.sorted_indices {
            chosen.sort_unstable();
        }
        let rhs = Array::from_slice(&chosen, &len)?;
        let (lhs, rhs) = (Some(&lhs), Some(&rhs));
        let y = packed.gather_matmul(&x, lhs, rhs, options)?;
        if pairs.is_empty() {
            let empty = y.size() == 0 && y.dim(0)? == 0;
            return Ok((!empty).then(|| format!("{y:?}")));
        }
        let error = error(&y, &packed.gather_matmul_by_mlx(&x, lhs, rhs, options)?)?;
        Ok((error > 1e-5).then(|| format!("error of {error}")))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn all_shapes_agree_with_mlx(
        n_weights in 1..7i32,
        n in 1..20i32,
        m in 1..4i32,
        n_blocks in 1..5i32,
        pairs in prop::collection::vec((any::<u32>(), any::<u32>()), 0..40),
        transpose: bool,
        sorted_indices: bool,
    ) {
        // MLX has its rows without `transpose` in vectors of 32.
        let n = if transpose { n } else { 32 * n };
        let options = GatherMatmul { transpose, sorted_indices };
        let checked = check_shapes([n_weights, n, m, n_blocks], &pairs, options);
        prop_assert_eq!(checked.unwrap(), None);
    }
}

#[test]
fn runs_under_transforms_and_on_views() -> Result<()> {
    with_device(Device::Cpu, || {
        let packed = quantize(&normal(&[4, 32, 64], 1)?, Quantization::default())?;
        for options in BOTH {
            let width = if options.transpose { 64 } else { 32 };
            let x = normal(&[width, 3], 2)?.t()?.expand_dims(&[1, 2])?;
            let rhs = Array::from_slice(&[3u32, 9, 0, 9, 1, 9], &[3, 2])?.at((.., ..1))?;
            let f = {
                let packed = packed.clone();
                move |a: &[Array]| {
                    Ok(vec![packed.gather_matmul(&a[0], None, Some(&a[1]), options)?])
                }
            };
            let by_mlx = {
                let packed = packed.clone();
                move |a: &[Array]| {
                    Ok(vec![packed.gather_matmul_by_mlx(&a[0], None, Some(&a[1]), options)?])
                }
            };
            let inputs = [x, rhs];
            let expected = &by_mlx(&inputs)?[0];
            assert!(error(&f(&inputs)?[0], expected)? < 1e-6);
            assert!(error(&compile(f.clone(), false)?.call(&inputs)?[0], expected)? < 1e-6);
            let loss = |y: Vec<Array>| Ok(vec![y[0].square()?.sum(.., false)?]);
            let ours = grad_once(|a: &[Array]| loss(f(a)?), &inputs, 0)?;
            let theirs = grad_once(|a: &[Array]| loss(by_mlx(a)?), &inputs, 0)?;
            assert!(error(&ours[0], &theirs[0])? < 1e-5);
        }
        Ok(())
    })
}

#[test]
fn indices_that_are_not_there_are_refused_or_clipped() -> Result<()> {
    with_device(Device::Cpu, || {
        let packed = quantize(&normal(&[3, 32, 64], 1)?, Quantization::default())?;
        let x = normal(&[2, 1, 64], 2)?;
        let gather = |lhs: &Array, rhs: &Array| {
            packed.gather_matmul(&x, Some(lhs), Some(rhs), GatherMatmul::default())
        };
        let of = |values: &[i64]| Array::from_slice(values, &[values.len() as i32]);
        for (lhs, rhs) in [(0, 3), (0, -1), (2, 0), (i64::MIN, 0), (0, i64::MAX)] {
            assert!(gather(&of(&[lhs])?, &of(&[rhs])?).is_err(), "{lhs} {rhs}");
        }
        assert!(gather(&of(&[0, 0])?, &of(&[0, 0, 0])?).is_err());
        assert!(gather(&of(&[0])?, &Array::from_slice(&[0.0f32], &[1])?).is_err());
        // Not known to the host when the node is made.
        let lazy = |values: &[i64], dtype| of(values)?.maximum(of(&[i64::MIN])?)?.astype(dtype);
        let expected = gather(&of(&[0, 1, 1, 0])?, &of(&[2, 0, 2, 1])?)?;
        for dtype in [Dtype::Int64, Dtype::Int32, Dtype::Int16, Dtype::Int8] {
            let (lhs, rhs) = (lazy(&[-7, 2, 99, 0], dtype)?, lazy(&[3, -1, 127, 1], dtype)?);
            assert!(error(&gather(&lhs, &rhs)?, &expected)? < 1e-6, "{dtype}");
        }
        for dtype in [Dtype::Uint64, Dtype::Uint32, Dtype::Uint16, Dtype::Uint8] {
            let (lhs, rhs) = (lazy(&[0, 2, 250, 0], dtype)?, lazy(&[3, 0, 255, 1], dtype)?);
            assert!(error(&gather(&lhs, &rhs)?, &expected)? < 1e-6, "{dtype}");
        }
        Ok(())
    })
}
