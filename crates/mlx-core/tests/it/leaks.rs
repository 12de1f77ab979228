//! That nothing is left behind by ops, transforms, errors and panics: no bytes of MLX's, no handles
//! of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice::from_ref;

use mlx_core::nn::Module;
use mlx_core::optim::{AdamW, Optimizer};
use mlx_core::transforms::export::{Kwargs, export_function, import_function};
use mlx_core::transforms::{
    checkpoint, compile, custom_function, grad_once, jvp, value_and_grad, vjp, vmap,
};
use mlx_core::{
    Array, Device, Dtype, Error, ErrorKind, Quantization, Result, Stream, async_eval, eval, fast,
    live_handles, load_npz, load_safetensors, memory, nn, ops, random, save_npz, save_safetensors,
    stream, with_stream,
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
fn derivatives_leave_nothing() {
    alone("leaks::derivatives_leave_nothing", || {
        check_leaks(200, |n| {
            let (held, x) = (large()?, ops::ones(&[3], Dtype::Float32)?);
            let own = held.at(..3)?;
            let f = |x: &[Array]| Ok(vec![(x[0].sin()? * &own)?]);
            eval(&vjp(f, from_ref(&x), from_ref(&x))?.1)?;
            eval(&jvp(f, from_ref(&x), from_ref(&x))?.1)?;
            let (own, rule) = (held.clone(), held.clone());
            let custom = custom_function(move |x| Ok(vec![(&x[0] + own.at(0)?)?]))
                .vjp(move |_, cotangents, _| Ok(vec![(&cotangents[0] * rule.at(0)?)?]))
                .build()?;
            let total = |x: &[Array]| Ok(vec![custom.call(x)?[0].sum(.., false)?]);
            eval(&grad_once(total, from_ref(&x), &[0])?)?;
            let own = held.clone();
            let again = checkpoint(move |x| Ok(vec![(x[0].exp()? * own.at(0)?)?]))?;
            let total = |x: &[Array]| Ok(vec![again.call(x)?[0].sum(.., false)?]);
            eval(&grad_once(total, from_ref(&x), &[0])?)?;
            // A rule that fails, a checkpoint that fails, and a graph nobody computes.
            let fail = |_: &[Array]| Err(Error::new(ErrorKind::Io, "meant"));
            let failing = checkpoint(fail)?;
            assert!(vjp(|x| failing.call(x), from_ref(&x), from_ref(&x)).is_err());
            let own = held.clone();
            let custom = custom_function(|x| Ok(x.to_vec()))
                .vjp(move |_, _, _| match own.at(n as i32) {
                    Ok(_) => Err(Error::new(ErrorKind::Io, "meant")),
                    Err(e) => Err(e),
                })
                .build()?;
            assert!(vjp(|x| custom.call(x), from_ref(&x), from_ref(&x)).is_err());
            custom.call(&[held]).map(drop)
        });
    });
}

#[test]
fn training_and_files_leave_nothing() {
    alone("leaks::training_and_files_leave_nothing", || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        check_leaks(60, |n| {
            let mut model = nn::Linear::new(64, 64, true)?;
            let mut optimizer = Optimizer::new(AdamW::default(), 1e-2)?;
            let x = large()?.reshape([256, 64])?;
            for _ in 0..3 {
                let (loss, gradients) = nn::value_and_grad(&mut model, |model| {
                    model.forward(&x)?.square()?.mean(.., false)
                })?;
                optimizer.update(&mut model, &gradients)?;
                let parameters = model.parameters();
                eval(parameters.values().chain(optimizer.state().values()).chain([&loss]))?;
            }
            let loss = nn::value_and_grad(&mut model, |model| model.forward(&x)?.at(..n as i32));
            assert!(loss.is_err());
            let parameters = model.parameters();
            let arrays = || parameters.iter().map(|(name, array)| (name.as_str(), array));
            save_safetensors(path("a.safetensors"), arrays(), &[])?;
            save_npz(path("a.npz"), arrays())?;
            eval(load_safetensors(path("a.safetensors"))?.values())?;
            let loaded = load_npz(path("a.npz"))?;
            assert!(loaded["weight"].matmul(&loaded["bias"].at(..n as i32)?).is_err());
            let own = x.at((..2, ..2))?.contiguous()?;
            own.eval()?;
            let f = move |x: &[Array], _: &Kwargs| Ok(vec![(&x[0] + &own)?]);
            let x = ops::ones(&[2, 2], Dtype::Float32)?;
            export_function(path("a.mlxfn"), f, from_ref(&x), &Kwargs::new(), false)?;
            let imported = import_function(path("a.mlxfn"))?;
            imported.call(from_ref(&x))?[0].eval()?;
            assert!(imported.call(&[x.at(0)?]).is_err());
            let broken = std::fs::read(path("a.mlxfn")).unwrap();
            std::fs::write(path("a.mlxfn"), &broken[..broken.len() - 1 - n % 40]).unwrap();
            assert!(import_function(path("a.mlxfn")).is_err());
            Ok(())
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
