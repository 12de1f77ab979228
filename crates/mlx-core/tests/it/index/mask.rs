//! Masks: laziness, transforms, `nonzero`; and whether an update is in place.

use mlx_core::transforms::{compile, grad_once, vmap};
use mlx_core::{Array, Device, ErrorKind, NewAxis, Result, eval, ops, with_device};

fn i(values: &[i32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

fn on_cpu(f: impl FnOnce() -> Result<()>) {
    with_device(Device::Cpu, f).unwrap();
}

#[test]
fn a_mask_is_computed_to_read_but_not_to_write() {
    on_cpu(|| {
        let x = i(&[1, 2, 3, 4]);
        let mask = x.greater(2)?;
        for written in [
            x.put(&mask, 0)?,
            x.put(&mask, i(&[7, 8]))?,
            x.put((.., mlx_core::Ellipsis), 1)?.put_add(&mask, 1)?,
            x.masked_scatter(&mask, &i(&[7, 8, 9]))?,
        ] {
            assert!(!mask.is_available(), "{written:?} computed the mask");
        }
        assert_eq!(x.at(&mask)?.to_vec::<i32>()?, [3, 4]);
        assert!(mask.is_available());
        Ok(())
    });
}

#[test]
fn values_and_true_elements_that_differ_in_number() {
    on_cpu(|| {
        let x = i(&[1, 2, 3, 4]);
        for (values, expected) in
            [(vec![7, 8, 9], [1, 7, 8, 9]), (vec![7, 8], [1, 7, 8, 8]), (vec![5; 4], [1, 5, 5, 5])]
        {
            // Not known yet: too many are left out, the last of too few is repeated.
            assert_eq!(x.put(x.greater(1)?, i(&values))?.to_vec::<i32>()?, expected);
            // Known: refused.
            let mask = Array::from_slice(&[false, true, true, true], &[4])?;
            assert_eq!(x.put(&mask, i(&values)).is_ok(), values.len() == 3);
        }
        assert_eq!(x.put(x.greater(1)?, i(&[]))?.to_vec::<i32>()?, [1, 2, 3, 4]);
        Ok(())
    });
}

#[test]
fn transforms_of_masked_writes() {
    on_cpu(|| {
        let x = Array::range(6)?.reshape([2, 3])?;
        let scalar = |x: &[Array]| Ok(vec![x[0].put(x[0].greater(1)?, -1)?]);
        let mapped = vmap(scalar, &[0], &[0])?.call(std::slice::from_ref(&x))?;
        assert_eq!(mapped[0].to_vec::<i32>()?, [0, 1, -1, -1, -1, -1]);
        let compiled = compile(scalar, false)?.call(std::slice::from_ref(&x))?;
        assert_eq!(compiled[0].to_vec::<i32>()?, [0, 1, -1, -1, -1, -1]);

        let values = |x: &[Array]| Ok(vec![x[0].put(x[0].greater(1)?, &x[1])?]);
        let inputs = [x, i(&[10, 20, 30])];
        let mapped = vmap(values, &[Some(0), None], &[0])?.call(&inputs)?;
        assert_eq!(mapped[0].to_vec::<i32>()?, [0, 1, 10, 10, 20, 30]);
        Ok(())
    });
}

#[test]
fn gradients() {
    on_cpu(|| {
        let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[4])?;
        let weights = Array::from_slice(&[1.0f32, 10.0, 100.0, 1000.0], &[4])?;
        let check = |inputs: &[Array],
                     put: &dyn Fn(&[Array]) -> Result<Array>,
                     expected: &[&[f32]]|
         -> Result<()> {
            let weigh = |x: &[Array]| Ok(vec![(put(x)? * &weights)?.sum(.., false)?]);
            let argnums: Vec<i32> = (0..inputs.len() as i32).collect();
            for (grad, expected) in grad_once(weigh, inputs, &argnums[..])?.iter().zip(expected) {
                assert_eq!(grad.to_vec::<f32>()?, *expected);
            }
            Ok(())
        };
        let high = |x: &Array| x.greater(2.0f32);
        let scalar = [x.clone(), Array::from(5.0f32)];
        check(&scalar, &|x| x[0].put(high(&x[0])?, &x[1]), &[&[1.0, 10.0, 0.0, 0.0], &[1100.0]])?;
        check(
            &scalar,
            &|x| x[0].put_multiply(high(&x[0])?, &x[1]),
            &[&[1.0, 10.0, 500.0, 5000.0], &[4300.0]],
        )?;
        let values = [x.clone(), Array::from_slice(&[7.0f32, 8.0], &[2])?];
        check(
            &values,
            &|x| x[0].put(high(&x[0])?, &x[1]),
            &[&[1.0, 10.0, 0.0, 0.0], &[100.0, 1000.0]],
        )?;
        check(
            &values,
            &|x| x[0].put_add((i(&[3, 0]).add(0)?, true), x[1].reshape([2])?),
            &[&[1.0, 10.0, 100.0, 1000.0], &[1000.0, 1.0]],
        )?;
        // Two of the three indices mean the last element.
        check(
            &[x],
            &|x| x[0].take(i(&[9, 3, 0]).add(0)?, 0)?.pad(&[(1, 0)], 0.0f32),
            &[&[1000.0, 0.0, 0.0, 110.0]],
        )
    });
}

#[test]
fn transforms_of_index_arrays() {
    on_cpu(|| {
        let x = Array::range(6)?.reshape([2, 3])?;
        // Out of range values are clipped in a traced function, narrow dtypes are widened.
        let inputs = [x, i(&[9, -9]).astype(mlx_core::Dtype::Int8)?];
        let take = |x: &[Array]| Ok(vec![x[0].take(&x[1], 0)?, x[0].put_add(&x[1], 1)?]);
        for outputs in [
            vmap(take, &[Some(0), None], &[0, 0])?.call(&inputs)?,
            vmap(take, &[Some(0), None], &[0, 0])?.call(&inputs)?,
        ] {
            assert_eq!(outputs[0].to_vec::<i32>()?, [2, 0, 5, 3]);
            assert_eq!(outputs[1].to_vec::<i32>()?, [1, 1, 3, 4, 4, 6]);
        }
        let outputs = compile(take, false)?.call(&inputs)?;
        assert_eq!(outputs[0].to_vec::<i32>()?, [3, 4, 5, 0, 1, 2]);

        // A mask cannot be computed while tracing.
        let read = |x: &[Array]| Ok(vec![x[0].at(x[0].greater(1)?)?]);
        assert!(vmap(read, &[0], &[0])?.call(&inputs[..1]).is_err());
        assert!(compile(read, false)?.call(&inputs[..1]).is_err());
        Ok(())
    });
}

#[test]
fn narrow_indices_under_vmap() {
    on_cpu(|| {
        // MLX counts the mapped axis in the dtype of the indices.
        let x = ops::zeros(&[300, 2], mlx_core::Dtype::Float32)?;
        let rows = i(&[1]).astype(mlx_core::Dtype::Uint8)?;
        let put = |x: &[Array]| Ok(vec![x[0].put(&x[1], 1.0f32)?]);
        let mapped = vmap(put, &[Some(0), None], &[0])?.call(&[x, rows])?;
        assert_eq!(mapped[0].sum(0, false)?.to_vec::<f32>()?, [0.0, 300.0]);
        Ok(())
    });
}

#[test]
fn nonzero_as_numpy() {
    on_cpu(|| {
        let x = Array::from_slice(&[0.0f32, f32::NAN, 3.0, -0.0, 0.0, 1.0], &[2, 3])?;
        let positions = ops::nonzero(&x)?;
        assert_eq!(positions[0].to_vec::<i32>()?, [0, 0, 1]);
        assert_eq!(positions[1].to_vec::<i32>()?, [1, 2, 2]);
        assert_eq!(ops::flatnonzero(&x)?.to_vec::<i32>()?, [1, 2, 5]);
        assert_eq!(ops::argwhere(&x.t()?)?.to_vec::<i32>()?, [1, 0, 2, 0, 2, 1]);
        assert_eq!(ops::argwhere(&x.at((.., 0))?)?.shape(), [0, 1]);
        assert_eq!(ops::nonzero(&ops::zeros(&[0, 3], x.dtype())?)?.len(), 2);
        assert_eq!(ops::nonzero(&Array::from(1)).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(ops::flatnonzero(&Array::from(1))?.to_vec::<i32>()?, [0]);
        Ok(())
    });
}

/// The address of an evaluated array's elements.
fn address(array: &Array) -> Result<usize> {
    array.with_bytes(|bytes| bytes.as_ptr() as usize)
}

#[test]
fn an_update_is_in_place_once_the_old_handle_is_gone() {
    type Update = fn(&Array) -> Result<Array>;
    let updates: [(&str, Update); 6] = [
        ("slice", |x| x.put((.., 3..5), 1.0f32)),
        ("integer", |x| x.put_add((0, NewAxis), 1.0f32)),
        ("index array", |x| x.put(i(&[1, 0]), 2.0f32)),
        ("index array behind slices", |x| x.put_add((.., i(&[1, 0])), 2.0f32)),
        ("start that is computed", |x| {
            x.slice_update_dynamic(&ops::ones(&[1, 2], x.dtype())?, &i(&[1, 2]).add(0)?, &[0, 1])
        }),
        ("along an axis", |x| x.put_along_axis(&i(&[2, 5]).reshape([2, 1])?.add(0)?, 1.0f32, 1)),
    ];
    on_cpu(|| {
        for (name, update) in updates {
            let mut x = ops::zeros(&[2, 300], mlx_core::Dtype::Float32)?.contiguous()?;
            x = (x + 1.0f32)?;
            let before = address(&x)?;
            x = update(&x)?;
            eval([&x])?;
            assert_eq!(address(&x)?, before, "{name}: copied");

            let old = x.clone();
            let new = update(&old)?;
            eval([&new])?;
            assert_ne!(address(&new)?, address(&old)?, "{name}: wrote over an array in use");
        }
        Ok(())
    });
}

#[test]
fn refusals_say_what_is_wrong() {
    on_cpu(|| {
        let x = Array::range(6)?.reshape([2, 3])?;
        let text = |result: Result<Array>| result.unwrap_err().to_string();
        assert_eq!(text(x.at((0, 3))), "index: 3 is out of range for an axis of size 3");
        assert_eq!(
            text(x.at((0, i32::MIN))),
            "index: -2147483648 is out of range for an axis of size 3"
        );
        assert_eq!(text(x.at(i(&[0, -3]))), "index: -3 is out of range for an axis of size 2");
        assert_eq!(text(x.take(9, None)), "take: 9 is out of range for an axis of size 6");
        assert_eq!(
            text(x.take(i64::MAX, 0)),
            "take: 2147483647 is out of range for an axis of size 2"
        );
        assert_eq!(text(x.take(1.5f32, 0)), "take: indices of float32, expected integers");
        assert_eq!(
            text(x.gather(&[i(&[1])], &[1], &[1, 3])),
            "gather: 3 from 1 is out of range for an axis of size 3"
        );
        assert_eq!(
            text(x.slice_dynamic(&i(&[2]), &[1], &[2, 2])),
            "slice: start 2 on axis 1, expected 0..=1"
        );
        assert_eq!(text(x.at((.., x.greater(2)?))), "index: 3 indices for 2 axes");
        assert_eq!(
            text(x.at(Array::from_slice(&[true; 3], &[3])?)),
            "index: mask of shape [3] for axis 0 of [2, 3]"
        );
        assert_eq!(
            text(x.at((i(&[0, 1]), i(&[0, 1, 2])))),
            "index: arrays of shapes [[2], [3]] do not broadcast"
        );
        assert_eq!(text(x.put(0, i(&[1, 2]))), "index: value of shape [2] for [3]");
        Ok(())
    });
}
