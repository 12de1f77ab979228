//! That nothing is left behind by ops, transforms, errors and panics: no bytes of MLX's, no handles
//! of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mlx_core::transforms::{compile, value_and_grad, vmap};
use mlx_core::{
    Array, Device, Dtype, Error, ErrorKind, Quantization, Result, Stream, async_eval, fast,
    live_handles, memory, nn, ops, random, stream, with_stream,
};

use crate::alone::alone;

/// Runs `step` often and holds what is there afterwards against what was there before.
fn check_leaks(steps: usize, mut step: impl FnMut(usize) -> Result<()>) {
    // What is made once: streams, tables, MLX's own constants.
    for n in 0..16 {
        step(n).unwrap();
    }
    // Work under way, and the numbers that a thread keeps.
    let settle = || stream::synchronize_all().and_then(|()| memory::clear_cache()).unwrap();
    settle();
    let (bytes, handles) = (memory::active().unwrap(), live_handles());
    for n in 0..steps {
        step(n).unwrap();
    }
    settle();
    assert_eq!(memory::active().unwrap(), bytes, "bytes of MLX's");
    assert_eq!(live_handles(), handles, "handles of ours");
}

fn large() -> Result<Array> {
    let x = ops::ones(&[1 << 14], Dtype::Float32)?;
    x.eval()?;
    Ok(x)
}

#[test]
fn ops_leave_nothing() {
    alone("leaks::ops_leave_nothing", || {
        let stream = Stream::new(Device::Cpu).unwrap();
        check_leaks(400, |n| {
            let x = large()?.reshape([128, 128])?;
            let y = x.matmul(&x.t()?)?.at((.., n as i32 % 128, mlx_core::NewAxis))?;
            let y = with_stream(stream, || (&y + &x)?.softmax(-1, true))?;
            async_eval([&y])?;
            y.split(4, 0)?.iter().try_for_each(Array::eval)?;
            let key = random::key(n as u64)?;
            random::normal(&[16], Dtype::Float32, 0.0, 1.0, Some(&key))?.eval()?;
            nn::RmsNorm { weight: ops::ones(&[128], Dtype::Float32)?.into(), eps: 1e-5 }
                .forward(&y)?
                .eval()?;
            let packed = ops::quantize(&x, Quantization::default())?;
            packed.matmul(&x, true)?.eval()?;
            let _ = (y.to_string(), y.strides()?, y.item::<f32>().is_err());
            // A graph that nobody computes.
            fast::rms_norm(&(&x * 3.0)?, None, 1e-5).map(drop)
        });
    });
}

#[test]
fn transforms_leave_nothing() {
    alone("leaks::transforms_leave_nothing", || {
        check_leaks(300, |n| {
            let held = large()?;
            let own = held.clone();
            let mapped = vmap(move |x| Ok(vec![(&x[0] + own.at(0)?)?]), &[0], &[0])?;
            let x = ops::ones(&[4, 1 + n as i32 % 7], Dtype::Float32)?;
            mapped.call(std::slice::from_ref(&x))?[0].eval()?;
            let own = held.at(..1)?;
            own.eval()?;
            let compiled = compile(move |x| Ok(vec![(&x[0] * &own)?]), n % 2 == 0)?;
            compiled.call(std::slice::from_ref(&x))?[0].eval()?;
            compiled.call(&[x.t()?])?[0].eval()?;
            value_and_grad(|x| Ok(vec![x[0].square()?.sum(.., false)?]), &[0])?
                .call(std::slice::from_ref(&held))?;
            // Never called.
            compile(move |_| Ok(vec![held.clone()]), false).map(drop)
        });
    });
}

#[test]
fn errors_and_panics_leave_nothing() {
    alone("leaks::errors_and_panics_leave_nothing", || {
        // The panics are meant.
        std::panic::set_hook(Box::new(|_| ()));
        check_leaks(500, |n| {
            let held = large()?;
            let x = ops::ones(&[4, 3], Dtype::Float32)?;
            assert!(x.matmul(&x).is_err());
            assert!(ops::einsum("ij,jk", [&x]).is_err());
            let huge = ops::zeros(&[1 << 21, 1 << 21], Dtype::Float32)?;
            let unready = ((&huge + 1.0)?.at((0, 0))? + held.at(0)?)?;
            assert!(unready.eval().is_err());
            assert!(unready.eval().is_err());
            let own = held.clone();
            let fail = move |_: &[Array]| -> Result<Vec<Array>> {
                let _graph = (&own + 1.0)?;
                if n % 2 == 0 { panic!("meant") } else { Err(Error::new(ErrorKind::Io, "meant")) }
            };
            let fail = std::rc::Rc::new(fail);
            let (first, second) = (fail.clone(), fail);
            let mapped = vmap(move |x| first(x), &[0], &[0])?;
            let compiled = compile(move |x| second(x), false)?;
            let calls: [&dyn Fn() -> Result<Vec<Array>>; 2] =
                [&|| mapped.call(std::slice::from_ref(&x)), &|| {
                    compiled.call(std::slice::from_ref(&x))
                }];
            for call in calls {
                let outcome = catch_unwind(AssertUnwindSafe(call));
                assert_eq!(outcome.is_err(), n % 2 == 0);
                assert!(outcome.is_err() || outcome.is_ok_and(|result| result.is_err()));
            }
            Ok(())
        });
    });
}

#[test]
fn a_leak_is_seen() {
    let (handles, x) = (live_handles(), large().unwrap());
    let copy = x.clone();
    let seen = live_handles();
    drop((x, copy));
    assert_eq!(live_handles(), handles);
    if cfg!(debug_assertions) {
        assert_eq!(seen.unwrap(), handles.unwrap() + 2);
    }
}
