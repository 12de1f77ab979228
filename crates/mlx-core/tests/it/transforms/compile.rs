//! Compiled functions: their traces, their cache, and where MLX would replay without looking.

use std::cell::{Cell, OnceCell};
use std::process::Command;
use std::rc::Rc;
use std::slice::from_ref;

use mlx_core::ops::{self, Scan};
use mlx_core::transforms::{
    CompileMode, Compiled, clear_compile_cache, compile, disable_compile, enable_compile,
    grad_once, set_compile_mode, vmap_once,
};
use mlx_core::{Array, Dtype, Result, memory, nn};

use crate::alone::alone;

fn floats(values: &[f32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

type Function = dyn Fn(&[Array]) -> Result<Vec<Array>>;

/// A function that counts how often it is called.
fn counting(f: fn(&[Array]) -> Result<Vec<Array>>) -> (Rc<Cell<usize>>, Box<Function>) {
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    let f = move |x: &[Array]| {
        counter.set(counter.get() + 1);
        f(x)
    };
    (count, Box::new(f))
}

#[test]
fn modes_and_the_cache() {
    alone("transforms::compile::modes_and_the_cache", || {
        let x = floats(&[1.0, 2.0]);
        let f = |x: &[Array]| Ok(vec![((&x[0] * 2.0)? + (&x[0] * 2.0)?)?]);
        for mode in [CompileMode::NoSimplify, CompileMode::NoFuse, CompileMode::Enabled] {
            set_compile_mode(mode).unwrap();
            let (count, f) = counting(f);
            let f = compile(f, false).unwrap();
            for _ in 0..3 {
                f.call(from_ref(&x)).unwrap();
            }
            assert_eq!(count.get(), 1, "{mode:?}");
            clear_compile_cache().unwrap();
            f.call(from_ref(&x)).unwrap();
            assert_eq!(count.get(), 2, "{mode:?}");
        }
        disable_compile().unwrap();
        let (count, plain) = counting(f);
        let plain = compile(plain, true).unwrap();
        for _ in 0..3 {
            assert_eq!(plain.call(from_ref(&x)).unwrap()[0].to_vec::<f32>().unwrap(), [4.0, 8.0]);
        }
        assert_eq!(count.get(), 3);
        enable_compile().unwrap();
        plain.call(from_ref(&x)).unwrap();
        assert_eq!(count.get(), 4, "what was compiled while it was disabled stays");
        set_compile_mode(CompileMode::NoFuse).unwrap();
        let f = compile(f, false).unwrap();
        assert_eq!(f.call(from_ref(&x)).unwrap()[0].to_vec::<f32>().unwrap(), [4.0, 8.0]);
    });
}

#[test]
#[allow(clippy::print_stderr)]
fn fused_ops_are_the_same() {
    alone("transforms::compile::fused_ops_are_the_same", || {
        // MLX calls this program by name.
        if Command::new("g++").arg("--version").output().is_err() {
            eprintln!("skipped: no g++ on PATH");
            return;
        }
        enable_compile().unwrap();
        let f = |x: &[Array]| {
            let y = ((x[0].sin()? * &x[1])?.exp()? + 1.0)?.log()?;
            Ok(vec![y.tanh()?, (&y * &x[0])?])
        };
        let inputs = [floats(&[0.1, 0.5, -2.0]), floats(&[1.0, -1.0, 0.25])];
        let compiled = compile(f, false).unwrap().call(&inputs).unwrap();
        for (a, b) in compiled.iter().zip(&f(&inputs).unwrap()) {
            let close = a.allclose(b, Default::default()).unwrap();
            assert!(close.item::<bool>().unwrap(), "{a} {b}");
        }
    });
}

#[test]
fn a_thousand_functions_leave_nothing() {
    alone("transforms::compile::a_thousand_functions_leave_nothing", || {
        set_compile_mode(CompileMode::NoFuse).unwrap();
        let x = floats(&[1.0, 2.0]);
        x.eval().unwrap();
        let token = Rc::new(());
        let run = |n: usize| {
            let own = token.clone();
            let big = ops::full(&[4096], n as f32, None).unwrap();
            big.eval().unwrap();
            let f = compile(
                move |x| {
                    let _ = &own;
                    Ok(vec![(&x[0] + big.max(.., false)?)?])
                },
                n.is_multiple_of(2),
            );
            let f = f.unwrap();
            let y = f.call(from_ref(&x)).unwrap();
            assert_eq!(y[0].to_vec::<f32>().unwrap(), [1.0 + n as f32, 2.0 + n as f32]);
            f
        };
        // Some constants are kept until the cache is cleared.
        let active = || {
            memory::clear_cache().unwrap();
            memory::active().unwrap()
        };
        drop(run(0));
        let start = active();
        for n in 0..2000 {
            drop(run(n));
        }
        assert_eq!(active(), start);
        assert_eq!(Rc::strong_count(&token), 1);
        // Many at once: each has its own trace.
        let all: Vec<Compiled> = (0..200).map(run).collect();
        for (n, f) in all.iter().enumerate() {
            let y = f.call(from_ref(&x)).unwrap()[0].to_vec::<f32>().unwrap();
            assert_eq!(y, [1.0 + n as f32, 2.0 + n as f32]);
        }
        drop(all);
        assert_eq!(Rc::strong_count(&token), 1);
        assert_eq!(active(), start);
    });
}

#[test]
fn a_function_may_call_itself_while_traced() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    for shapeless in [false, true] {
        let itself: Rc<OnceCell<Compiled>> = Rc::default();
        let weak = Rc::downgrade(&itself);
        let f = move |x: &[Array]| {
            // Values of its own, of other shapes each time: MLX would grow the list of traces that
            // the outer call is still writing to.
            let n = x[0].size() as i32;
            if n >= 40 {
                return Ok(x.to_vec());
            }
            let own = ops::ones(&[n + 1], Dtype::Float32)?;
            let inner = weak.upgrade().and_then(|f| Some(f.get()?.call(&[own]))).transpose()?;
            let inner = inner.map_or_else(|| Ok(Array::from(0.0f32)), |y| y[0].sum(.., false))?;
            Ok(vec![(&x[0] + inner)?])
        };
        itself.set(compile(f, shapeless).unwrap()).ok().unwrap();
        let y = itself.get().unwrap().call(&[ops::ones(&[38], Dtype::Float32).unwrap()]);
        let y = y.unwrap()[0].to_vec::<f32>().unwrap();
        // 40 ones; 39 times 1 + 40; 38 times 1 + 39 · 41.
        assert_eq!(y, vec![1.0 + 39.0 * 41.0; 38]);
    }
}

#[test]
fn a_shapeless_trace_serves_what_it_holds_for() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    type Case = (&'static str, fn(&[Array]) -> Result<Vec<Array>>);
    let cases: [Case; 9] = [
        ("elementwise", |x| Ok(vec![((&x[0] * 2.0)? + 1.0)?.tanh()?])),
        ("sum", |x| Ok(vec![x[0].sum(-1, true)?])),
        ("softmax", |x| Ok(vec![x[0].softmax(-1, true)?])),
        ("matmul", |x| Ok(vec![x[0].matmul(&x[0].t()?)?])),
        ("sort", |x| Ok(vec![x[0].sort(-1)?])),
        ("cumsum", |x| Ok(vec![x[0].cumsum(-1, Scan::default())?])),
        ("mean", |x| Ok(vec![x[0].mean(-1, true)?])),
        ("flatten", |x| Ok(vec![x[0].flatten(0, -1)?])),
        ("norm", |x| {
            let weight = ops::ones(&[1], Dtype::Float32)?;
            let norm = nn::RmsNorm { weight: weight.into(), eps: 1e-5 };
            Ok(vec![norm.forward(&x[0].reshape([-1, 1])?)?])
        }),
    ];
    for (name, f) in cases {
        let compiled = compile(f, true).unwrap();
        for shape in [[2, 3], [4, 3], [2, 5], [1, 1], [7, 2]] {
            let n = shape[0] * shape[1];
            let x = Array::range(n).unwrap().reshape(shape).unwrap();
            let x = x.astype(Dtype::Float32).unwrap();
            let (got, expected) = (compiled.call(from_ref(&x)), f(from_ref(&x)).unwrap());
            check_same(name, &got.unwrap()[0], &expected[0]);
        }
    }
}

fn check_same(name: &str, got: &Array, expected: &Array) {
    assert_eq!(got.shape(), expected.shape(), "{name}");
    let close = got.allclose(expected, Default::default()).unwrap();
    assert!(close.item::<bool>().unwrap(), "{name}: {got} {expected}");
}

#[test]
fn a_shapeless_trace_is_not_replayed_where_it_does_not_hold() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    type Case = (&'static str, fn(&[Array]) -> Result<Vec<Array>>);
    let cases: [Case; 6] = [
        // Of equal shapes when traced, so that MLX sees no broadcast to repeat.
        ("add", |x| Ok(vec![(&x[0] + &x[1])?])),
        ("multiply", |x| Ok(vec![(x[0].exp()? * &x[1])?])),
        ("reshape", |x| Ok(vec![x[0].reshape([2, 2])?])),
        ("slice", |x| Ok(vec![x[0].at(..x[0].shape()[0] - 1)?])),
        ("scale", |x| Ok(vec![(&x[0] * x[0].size() as f32)?])),
        ("matmul", |x| Ok(vec![x[0].reshape([1, -1])?.matmul(&x[1].reshape([-1, 1])?)?])),
    ];
    for (name, f) in cases {
        let compiled = compile(f, true).unwrap();
        let of = |n: i32| ops::ones(&[n], Dtype::Float32).unwrap();
        for (n, m) in [(4, 4), (4, 2), (2, 4), (1 << 16, 4), (4, 1), (3, 3), (8, 8), (4, 4)] {
            let inputs = [of(n), of(m)];
            match (compiled.call(&inputs), f(&inputs)) {
                (Ok(got), Ok(expected)) => check_same(name, &got[0], &expected[0]),
                (Err(got), Err(expected)) => assert_eq!(got.to_string(), expected.to_string()),
                (got, expected) => panic!("{name} {n} {m}: {got:?} {expected:?}"),
            }
        }
    }
}

#[test]
fn a_shapeless_function_is_called_where_its_trace_does_not_hold() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    let (count, f) = counting(|x| Ok(vec![(&x[0] * x[0].size() as f32)?]));
    let f = compile(f, true).unwrap();
    let of = |n: i32| ops::ones(&[n], Dtype::Float32).unwrap();
    let mut counts = Vec::new();
    for n in [2, 2, 3, 3, 2] {
        assert_eq!(
            f.call(&[of(n)]).unwrap()[0].to_vec::<f32>().unwrap(),
            vec![n as f32; n as usize]
        );
        counts.push(count.get());
    }
    // Traced; replayed; traced again and called; called; replayed.
    assert_eq!(counts, [1, 1, 3, 4, 4]);
}

#[test]
fn compiled_functions_are_transformed() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    for shapeless in [false, true] {
        let f =
            compile(|x| Ok(vec![(x[0].square()? * &x[0])?.sum(.., false)?]), shapeless).unwrap();
        let x = floats(&[1.0, 2.0]);
        let slope = grad_once(|x| f.call(x), from_ref(&x), 0).unwrap();
        assert_eq!(slope[0].to_vec::<f32>().unwrap(), [3.0, 12.0]);
        let mapped = vmap_once(|x| f.call(x), from_ref(&x), 0, 0).unwrap();
        assert_eq!(mapped[0].to_vec::<f32>().unwrap(), [1.0, 8.0]);
        assert_eq!(f.call(from_ref(&x)).unwrap()[0].item::<f32>().unwrap(), 9.0);
    }
}
