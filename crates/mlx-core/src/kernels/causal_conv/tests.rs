use proptest::prelude::*;

use super::*;
use crate::kernels::fused;
use crate::ops::Closeness;
use crate::transforms::{compile, grad_once, vmap};
use crate::{Device, random, with_device};

fn normal(shape: &[i32], dtype: Dtype, seed: u64) -> Result<Array> {
    random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))?.astype(dtype)
}

fn arrays([b, l, c, k]: [i32; 4], dtype: Dtype, has: [bool; 3]) -> Result<CausalConvArrays> {
    let of = |i: usize, array: Result<Array>| if has[i] { array.map(Some) } else { Ok(None) };
    Ok(CausalConvArrays {
        x: normal(&[b, l, c], dtype, 1)?,
        weight: normal(&[c, k, 1], dtype, 2)?,
        bias: of(0, normal(&[c], dtype, 3))?,
        before: of(1, normal(&[b, k - 1, c], dtype, 4))?,
        tokens: of(2, normal(&[b, l], Dtype::Float32, 5)?.greater(0.0))?,
    })
}

fn check_close((a, b): (&Array, &Array), rtol: f64) -> Result<()> {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let bounds = Closeness { rtol, atol: rtol, equal_nan: false };
    assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn agrees_with_ops(
        sizes in (0..3i32, 0..9i32, 1..70i32, 1..5i32),
        has in prop::array::uniform3(any::<bool>()),
        has_silu: bool,
        dtype in prop::sample::select(vec![Dtype::Float32, Dtype::Float16, Dtype::Bfloat16]),
    ) {
        with_device(Device::Cpu, || -> Result<()> {
            let arrays = arrays([sizes.0, sizes.1, sizes.2, sizes.3], dtype, has)?;
            let ours = causal_conv(arrays.clone(), has_silu)?;
            let theirs = by_ops(arrays, has_silu)?;
            let rtol = if dtype == Dtype::Float32 { 1e-5 } else { 1e-2 };
            check_close((&ours.0, &theirs.0), rtol)?;
            check_close((&ours.1, &theirs.1), 0.0)
        })
        .expect("it computes");
    }
}

#[test]
fn parts_of_a_sequence_are_the_whole() -> Result<()> {
    with_device(Device::Cpu, || {
        let whole = arrays([2, 11, 8, 4], Dtype::Float32, [true, false, true])?;
        let expected = causal_conv(whole.clone(), true)?;
        let (mut outs, mut before) = (Vec::new(), None);
        // Shorter than the taps, among others.
        for (start, stop) in [(0, 1), (1, 3), (3, 10), (10, 11)] {
            let part = |array: &Array| array.at((.., start..stop));
            let arrays = CausalConvArrays {
                x: part(&whole.x)?,
                tokens: whole.tokens.as_ref().map(part).transpose()?,
                before: before.take(),
                ..whole.clone()
            };
            let (out, after) = fused(|| causal_conv(arrays, true))?;
            outs.push(out);
            before = Some(after);
        }
        check_close((&ops::concatenate(&outs, 1)?, &expected.0), 1e-6)?;
        check_close((&before.expect("the last inputs"), &expected.1), 0.0)
    })
}

#[test]
fn runs_under_transforms() -> Result<()> {
    with_device(Device::Cpu, || {
        let [x, weight, before] = [[2, 5, 6], [6, 3, 1], [2, 2, 6]];
        let inputs = [(x, 1), (weight, 2), (before, 3)]
            .map(|(shape, seed)| normal(&shape, Dtype::Float32, seed))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let list = |(out, after)| vec![out, after];
        let of = |x: &[Array]| CausalConvArrays {
            x: x[0].clone(),
            weight: x[1].clone(),
            bias: None,
            before: Some(x[2].clone()),
            tokens: None,
        };
        let ours = move |x: &[Array]| causal_conv(of(x), true).map(list);
        let theirs = |x: &[Array]| by_ops(of(x), true).map(list);
        let expected = theirs(&inputs)?;
        let stacked = inputs.iter().map(|x| x.expand_dims(0)).collect::<Result<Vec<_>>>()?;
        let mapped = vmap(ours, &[Some(0); 3], 0)?.call(&stacked)?;
        let compiled = compile(ours, false)?.call(&inputs)?;
        for ((mapped, compiled), expected) in mapped.iter().zip(&compiled).zip(&expected) {
            check_close((&mapped.squeeze(0)?, expected), 1e-6)?;
            check_close((compiled, expected), 1e-6)?;
        }
        let square =
            |y: Vec<Array>| Ok(vec![(y[0].square()?.sum(.., false)? + y[1].sum(.., false)?)?]);
        let ours = grad_once(|x: &[Array]| square(ours(x)?), &inputs, 1)?;
        let theirs = grad_once(|x: &[Array]| square(theirs(x)?), &inputs, 1)?;
        check_close((&ours[0], &theirs[0]), 1e-5)
    })
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    with_device(Device::Cpu, || {
        let good = arrays([2, 5, 6, 3], Dtype::Float32, [true; 3])?;
        causal_conv(good.clone(), false)?;
        let other = normal(&[2, 5, 7], Dtype::Float32, 9)?;
        for bad in [
            CausalConvArrays { x: other.clone(), ..good.clone() },
            CausalConvArrays { weight: other.clone(), ..good.clone() },
            CausalConvArrays { bias: Some(other.clone()), ..good.clone() },
            CausalConvArrays { before: Some(other.clone()), ..good.clone() },
            CausalConvArrays { tokens: Some(other.at((.., .., 0))?), ..good.clone() },
            CausalConvArrays { x: good.x.astype(Dtype::Int32)?, ..good.clone() },
        ] {
            let error = causal_conv(bad, false).expect_err("it does not fit");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        Ok(())
    })
}
