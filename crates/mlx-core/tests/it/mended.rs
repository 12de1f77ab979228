//! What MLX's CPU backend gets wrong and this crate mends, by values.
//!
//! Arguments over which it would end the process are in `hostile`.

use mlx_core::ops::{self, BlockMasks, GatherMatmul};
use mlx_core::{Array, Device, Quantization, Result, Slice, with_device};

fn numbers(shape: &[i32]) -> Array {
    let n: i32 = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 37) % 23) as f32 * 0.25 - 2.0).collect();
    Array::from_slice(&values, shape).unwrap()
}

fn check_same(actual: &Array, expected: &Array) {
    assert_eq!(actual.shape(), expected.shape());
    assert_eq!(actual.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
}

fn on_cpu(f: impl FnOnce() -> Result<()>) {
    with_device(Device::Cpu, f).unwrap();
}

/// Indices that are not computed yet, so that nothing but the graph can bound them.
fn lazy(values: &[u32]) -> Result<Array> {
    Array::from_slice(values, &[values.len() as i32])?.maximum(Array::from(0u32))
}

#[test]
fn an_index_beyond_the_matrices_is_the_last() {
    on_cpu(|| {
        let (a, b) = (numbers(&[3, 1, 4]), numbers(&[2, 4, 5]));
        let product = |lhs: &[u32], rhs: &[u32]| {
            ops::gather_mm(&a, &b, Some(&lazy(lhs)?), Some(&lazy(rhs)?), false)
        };
        let packed = ops::quantize(&numbers(&[2, 6, 64]), Quantization::default())?;
        let x = numbers(&[3, 1, 64]);
        let packed_product = |lhs: &[u32], rhs: &[u32]| {
            let options = GatherMatmul::default();
            packed.gather_matmul(&x, Some(&lazy(lhs)?), Some(&lazy(rhs)?), options)
        };
        let (wild, tame) = ([0, 3, u32::MAX, 1 << 31], [0, 2, 2, 2]);
        let (wild_b, tame_b) = ([99, 0, 2, 1], [1, 0, 1, 1]);
        check_same(&product(&wild, &wild_b)?, &product(&tame, &tame_b)?);
        check_same(&packed_product(&wild, &wild_b)?, &packed_product(&tame, &tame_b)?);
        Ok(())
    });
}

#[test]
fn a_segment_ends_where_the_matrices_do() {
    on_cpu(|| {
        let (a, b) = (numbers(&[2, 5]), numbers(&[5, 3]));
        let segments = |values: &[i32]| Array::from_slice(values, &[values.len() as i32 / 2, 2]);
        check_same(
            &ops::segmented_mm(&a, &b, &segments(&[0, 99, 3, i32::MAX, 7, 9, -4, 2, 2, -1])?)?,
            &ops::segmented_mm(&a, &b, &segments(&[0, 5, 3, 5, 5, 5, 5, 2, 2, 5])?)?,
        );
        Ok(())
    });
}

/// MLX masks a broadcast operand in place, once for each matrix of the other, and takes the
/// wrong elements of one that is reversed.
#[test]
fn each_matrix_of_a_batch_has_its_own_masks() {
    on_cpu(|| {
        let (a, b) = (numbers(&[40, 33]), numbers(&[3, 33, 4]));
        let lhs = Array::from_slice(
            &[true, false, true, true, false, true, true, true, true, true, false, true],
            &[3, 2, 2],
        )?;
        let rhs = Array::from_slice(&[true, true, false, true, true, false], &[3, 2, 1])?;
        let blocks = |mask: &Array, shape: [i32; 2]| {
            let all = mask.repeat(32, -2)?.repeat(32, -1)?;
            all.at((.., ..shape[0], ..shape[1]))
        };
        for b in [b.clone(), b.at(Slice::step(-1))?] {
            let masks = BlockMasks { out: None, lhs: Some(&lhs), rhs: Some(&rhs) };
            let actual = ops::block_masked_mm(&a, &b, 32, masks)?;
            let masked_a = ops::where_(&blocks(&lhs, [40, 33])?, &a, 0.0)?;
            let masked_b = ops::where_(&blocks(&rhs, [33, 4])?, &b, 0.0)?;
            let difference = actual.subtract(masked_a.matmul(&masked_b))?.abs()?.max(.., false)?;
            assert!(difference.item::<f32>()? < 1e-4, "{difference}");
        }
        Ok(())
    });
}

/// As many elements as from the first to the last, but not those.
#[test]
fn a_view_that_overlaps_is_summed_by_its_own_elements() {
    on_cpu(|| {
        let x = Array::from_slice(&[1.0f32, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0, 5.0], &[9])?;
        let view = x.as_strided(&[3, 3], &[2, 2], 0)?;
        assert_eq!(view.to_vec::<f32>()?, [1.0, 2.0, 3.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0]);
        assert_eq!(view.sum(.., false)?.item::<f32>()?, 27.0);
        let changed = x.as_strided(&[3, 3], &[2, 2], 0)?.multiply(2.0)?;
        assert_eq!(changed.sum(.., false)?.item::<f32>()?, 54.0);
        Ok(())
    });
}

#[test]
fn a_convolution_over_nothing_is_zero() {
    on_cpu(|| {
        for (x, w, shape) in [
            (&[1, 4, 0][..], &[2, 3, 0][..], &[1, 2, 2][..]),
            (&[1, 4, 2], &[0, 3, 2], &[1, 2, 0]),
            (&[0, 4, 2], &[2, 3, 2], &[0, 2, 2]),
        ] {
            let y = ops::conv1d(&numbers(x), &numbers(w), ops::Conv::default())?;
            check_same(&y, &ops::zeros(shape, mlx_core::Dtype::Float32)?);
        }
        Ok(())
    });
}
