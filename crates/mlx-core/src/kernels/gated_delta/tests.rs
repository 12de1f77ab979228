use proptest::prelude::*;

use super::*;
use crate::kernels::fused;
use crate::ops::{self, Closeness};
use crate::transforms::{compile, grad_once, vmap};
use crate::{Device, random, with_device};

/// Sequences, tokens, key heads, value heads of each, and the sizes of keys and values.
type Shape = [i32; 6];

fn normal(shape: &[i32], dtype: Dtype, seed: u64) -> Result<Array> {
    random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))?.astype(dtype)
}

fn case(
    [n, l, hk, each, d, dv]: Shape,
    dtype: Dtype,
    [has_state, has_tokens]: [bool; 2],
) -> Result<(GatedDeltaParts, GatedDeltaArrays)> {
    let hv = hk * each;
    let state = normal(&[n, hv, dv, d], Dtype::Float32, 8)?;
    let tokens = normal(&[n, l], Dtype::Float32, 9)?.greater(0.0)?;
    let arrays = GatedDeltaArrays {
        qkv: normal(&[n, l, 2 * hk * d + hv * dv], dtype, 1)?,
        z: normal(&[n, l, hv * dv], dtype, 2)?,
        b: normal(&[n, l, hv], dtype, 3)?,
        a: normal(&[n, l, hv], dtype, 4)?,
        a_log: normal(&[hv], Dtype::Float32, 5)?,
        dt_bias: normal(&[hv], dtype, 6)?,
        norm: normal(&[dv], dtype, 7)?,
        state: has_state.then_some(state),
        tokens: has_tokens.then_some(tokens),
    };
    Ok((GatedDeltaParts { n_key_heads: hk, key_head_dim: d, eps: 1e-3 }, arrays))
}

fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let bounds = Closeness { rtol, atol: rtol, equal_nan: false };
    assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn agrees_with_ops(
        (n, l, hk, each, d, dv) in (0..3i32, 0..40i32, 1..3i32, 1..4i32, 1..20i32, 1..20i32),
        has in prop::array::uniform2(any::<bool>()),
        dtype in prop::sample::select(vec![Dtype::Float32, Dtype::Float16, Dtype::Bfloat16]),
    ) {
        with_device(Device::Cpu, || -> Result<()> {
            let (parts, arrays) = case([n, l, hk, each, d, dv], dtype, has)?;
            let ours = gated_delta(parts, arrays.clone())?;
            let theirs = by_ops(&parts, arrays)?;
            let rtol = if dtype == Dtype::Float32 { 1e-4 } else { 1e-2 };
            check_close(&ours.0, &theirs.0, rtol)?;
            check_close(&ours.1, &theirs.1, 1e-5)
        })
        .expect("it computes");
    }
}

#[test]
fn parts_of_a_sequence_are_the_whole() -> Result<()> {
    with_device(Device::Cpu, || {
        let (parts, whole) = case([2, 11, 2, 2, 8, 6], Dtype::Float32, [false, true])?;
        let expected = gated_delta(parts, whole.clone())?;
        let (mut outs, mut state) = (Vec::new(), None);
        for (start, stop) in [(0, 1), (1, 3), (3, 10), (10, 11)] {
            let part = |array: &Array| array.at((.., start..stop));
            let arrays = GatedDeltaArrays {
                qkv: part(&whole.qkv)?,
                z: part(&whole.z)?,
                b: part(&whole.b)?,
                a: part(&whole.a)?,
                tokens: whole.tokens.as_ref().map(part).transpose()?,
                state: state.take(),
                ..whole.clone()
            };
            let (out, after) = fused(|| gated_delta(parts, arrays))?;
            outs.push(out);
            state = Some(after);
        }
        check_close(&ops::concatenate(&outs, 1)?, &expected.0, 1e-5)?;
        check_close(&state.expect("the last state"), &expected.1, 1e-6)
    })
}

#[test]
fn runs_under_transforms() -> Result<()> {
    with_device(Device::Cpu, || {
        let (parts, arrays) = case([2, 5, 2, 2, 8, 6], Dtype::Float32, [true, true])?;
        let inputs: Vec<Array> = arrays.inputs().into_iter().cloned().collect();
        let list = |(out, state)| vec![out, state];
        let of = |x: &[Array]| GatedDeltaArrays::from_inputs(x, true, true);
        let ours = move |x: &[Array]| gated_delta(parts, of(x)?).map(list);
        let theirs = |x: &[Array]| by_ops(&parts, of(x)?).map(list);
        let expected = theirs(&inputs)?;
        let stacked = inputs.iter().map(|x| x.expand_dims(0)).collect::<Result<Vec<_>>>()?;
        let mapped = vmap(ours, &[Some(0); 9], 0)?.call(&stacked)?;
        let compiled = compile(ours, false)?.call(&inputs)?;
        for ((mapped, compiled), expected) in mapped.iter().zip(&compiled).zip(&expected) {
            check_close(&mapped.squeeze(0)?, expected, 1e-5)?;
            check_close(compiled, expected, 1e-5)?;
        }
        let square = |y: Vec<Array>| {
            Ok(vec![(y[0].square()?.sum(.., false)? + y[1].square()?.sum(.., false)?)?])
        };
        for i in [0, 3, 4, 6, 7] {
            let ours = grad_once(|x: &[Array]| square(ours(x)?), &inputs, i)?;
            let theirs = grad_once(|x: &[Array]| square(theirs(x)?), &inputs, i)?;
            check_close(&ours[0], &theirs[0], 1e-4)?;
        }
        Ok(())
    })
}

#[test]
fn views_are_read_as_copies_are() -> Result<()> {
    with_device(Device::Cpu, || {
        let (parts, arrays) = case([3, 4, 2, 2, 8, 6], Dtype::Float32, [true, true])?;
        let expected = gated_delta(parts, arrays.clone())?;
        let strided = |x: &Array| -> Result<Array> {
            let turned = x.swapaxes(0, -1)?;
            turned.contiguous()?.swapaxes(0, -1)
        };
        let views = GatedDeltaArrays {
            qkv: strided(&arrays.qkv)?,
            a: strided(&arrays.a)?,
            state: arrays.state.as_ref().map(strided).transpose()?,
            tokens: arrays.tokens.as_ref().map(strided).transpose()?,
            ..arrays
        };
        let ours = gated_delta(parts, views)?;
        check_close(&ours.0, &expected.0, 0.0)?;
        check_close(&ours.1, &expected.1, 0.0)
    })
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    with_device(Device::Cpu, || {
        let (parts, good) = case([2, 5, 2, 2, 8, 6], Dtype::Float32, [true, true])?;
        let other = normal(&[2, 5, 7], Dtype::Float32, 9)?;
        let narrow = good.state.as_ref().map(|x| x.astype(Dtype::Float16)).transpose()?;
        let bad_arrays = [
            GatedDeltaArrays { qkv: other.clone(), ..good.clone() },
            GatedDeltaArrays { z: other.clone(), ..good.clone() },
            GatedDeltaArrays { b: other.clone(), ..good.clone() },
            GatedDeltaArrays { a: other.clone(), ..good.clone() },
            GatedDeltaArrays { a_log: other.clone(), ..good.clone() },
            GatedDeltaArrays { dt_bias: other.clone(), ..good.clone() },
            GatedDeltaArrays { norm: other.clone(), ..good.clone() },
            GatedDeltaArrays { state: Some(other.clone()), ..good.clone() },
            GatedDeltaArrays { state: narrow, ..good.clone() },
            GatedDeltaArrays { tokens: Some(other.at((.., .., 0))?), ..good.clone() },
        ];
        let sizes = [(0, 8), (3, 8), (-2, 8), (2, 0), (i32::MAX, i32::MAX), (2, -8)];
        let bad_parts = sizes.map(|(n_key_heads, key_head_dim)| {
            (GatedDeltaParts { n_key_heads, key_head_dim, ..parts }, good.clone())
        });
        for (parts, arrays) in bad_arrays.map(|bad| (parts, bad)).into_iter().chain(bad_parts) {
            let error = gated_delta(parts, arrays).expect_err("it does not fit");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        Ok(())
    })
}
