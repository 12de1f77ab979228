//! Streams by scope, threads, evaluation, and functions that MLX calls back.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use mlx_core::ops::{self, Closeness, Scan};
use mlx_core::transforms::{async_eval, compile, vmap};
use mlx_core::{
    Array, Device, Dtype, Error, ErrorKind, Result, Stream, eval, fast, nn, random, with_device,
    with_stream,
};

fn floats(values: &[f32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

fn check_close(a: &Array, b: &Array) {
    let bounds = Closeness { rtol: 1e-5, atol: 1e-6, equal_nan: false };
    assert!(a.allclose(b, bounds).unwrap().item::<bool>().unwrap(), "{a}\n{b}");
}

#[test]
fn a_stream_holds_for_its_scope() {
    let outer = Stream::current().unwrap();
    let (first, second) = (Stream::new(Device::Cpu).unwrap(), Stream::new(Device::Cpu).unwrap());
    assert_ne!(first, second);
    let y = with_stream(first, || {
        assert_eq!(Stream::current()?, first);
        let x = floats(&[1.0, 2.0]).square()?;
        let y = with_stream(second, || {
            assert_eq!(Stream::current()?, second);
            // Made on one stream, used on another.
            &x + 1.0
        })?;
        assert_eq!(Stream::current()?, first);
        x * y
    });
    assert_eq!(Stream::current().unwrap(), outer);
    assert_eq!(y.unwrap().to_vec::<f32>().unwrap(), [2.0, 20.0]);
    first.synchronize().unwrap();
}

#[test]
fn a_scope_ends_with_an_error_or_a_panic() {
    let outer = Stream::current().unwrap();
    let stream = Stream::new(Device::Cpu).unwrap();
    let failed = with_stream(stream, || -> Result<()> { Err(Error::new(ErrorKind::Io, "mine")) });
    assert_eq!(failed.unwrap_err().to_string(), "mine");
    assert_eq!(Stream::current().unwrap(), outer);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = with_stream(stream, || -> Result<()> {
            let _ = with_device(Device::Cpu, || -> Result<()> { panic!("inner") });
            Ok(())
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(Stream::current().unwrap(), outer);
    assert_eq!(floats(&[1.0]).exp().unwrap().size(), 1);
}

#[test]
fn a_device_is_chosen_or_refused() {
    let on_cpu = with_device(Device::Cpu, || Ok(Stream::current()?.device()));
    assert_eq!(on_cpu.unwrap(), Device::Cpu);
    assert_eq!(Stream::current().unwrap().device(), Device::default_device());
    if !Device::Gpu.is_available() {
        let error = with_device(Device::Gpu, || Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(Stream::new(Device::Gpu).unwrap_err().kind(), ErrorKind::Unsupported);
    }
    let default_of = || Stream::default_of(Device::Cpu).unwrap();
    assert_eq!(default_of(), default_of());
}

#[test]
fn threads_compute_side_by_side() {
    let compute = |seed: u64| -> Result<Vec<f32>> {
        let key = random::key(seed)?;
        let mut x = random::normal(&[16, 16], Dtype::Float32, 0.0, 0.3, Some(&key))?;
        for _ in 0..20 {
            x = (x.matmul(&x.t()?)?.softmax(-1, false)? + &x)?.tanh()?;
        }
        x.sort(-1)?.cumsum(0, Scan::default())?.to_vec()
    };
    let expected: Vec<_> = (0..8).map(|seed| compute(seed).unwrap()).collect();
    let threads: Vec<_> =
        (0..8).map(|seed| std::thread::spawn(move || compute(seed).unwrap())).collect();
    for (thread, expected) in threads.into_iter().zip(expected) {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn many_threads_share_the_host_primitive() {
    let threads: Vec<_> = (0..12u64)
        .map(|seed| {
            std::thread::spawn(move || {
                let key = random::key(seed).unwrap();
                let weight = random::normal(&[96], Dtype::Float32, 1.0, 0.1, Some(&key)).unwrap();
                let norm = nn::RmsNorm { weight: weight.into(), eps: 1e-6 };
                for step in 0..20 {
                    let shape = [1 + step % 5, 96];
                    let x = random::normal(&shape, Dtype::Float32, 0.0, 1.0, Some(&key)).unwrap();
                    let mut y = x.clone();
                    for _ in 0..4 {
                        y = (norm.forward(&y).unwrap() + &x).unwrap();
                    }
                    let mut z = x.clone();
                    for _ in 0..4 {
                        let normed = fast::rms_norm(&z, Some(&norm.weight), norm.eps).unwrap();
                        z = (normed + &x).unwrap();
                    }
                    check_close(&y, &z);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn each_thread_has_its_key_sequence() {
    let draw = || {
        random::seed(7).unwrap();
        let draws: Vec<_> = (0..3).map(|_| random::bits(&[4], 4, None).unwrap()).collect();
        draws.iter().map(|x| x.to_vec::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let here = draw();
    assert_ne!(here[0], here[1]);
    let other = std::thread::spawn(draw).join().unwrap();
    assert_eq!(here, other);
    random::seed(7).unwrap();
    let key = random::next_key().unwrap();
    assert_eq!(random::bits(&[4], 4, Some(&key)).unwrap().to_vec::<u32>().unwrap(), here[0]);
}

#[test]
fn a_thread_may_end_with_work_under_way() {
    for _ in 0..20 {
        std::thread::spawn(|| {
            let x = ops::ones(&[256, 256], Dtype::Float32).unwrap();
            async_eval([&x.matmul(&x).unwrap()]).unwrap();
        })
        .join()
        .unwrap();
    }
}

#[test]
fn async_work_is_waited_for_by_reads() {
    let x = ops::full(&[64, 64], 0.5f32, None).unwrap();
    let mut y = x.clone();
    for _ in 0..10 {
        y = (y.matmul(&x).unwrap() / 32.0).unwrap();
        async_eval([&y]).unwrap();
    }
    let z = (&y + 1.0).unwrap();
    assert_eq!(z.to_vec::<f32>().unwrap(), vec![1.5; 64 * 64]);
    assert!(y.is_available());
    eval([&x, &y, &z]).unwrap();
    eval(&[] as &[Array]).unwrap();
    async_eval(&[] as &[Array]).unwrap();
}

/// Tells when the closure that holds it is gone.
struct Gone(Rc<Cell<bool>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn a_closure_lives_as_long_as_its_function() {
    type Make = fn(Box<dyn Fn()>) -> Box<dyn Fn(&[Array]) -> Result<Vec<Array>>>;
    let makers: [Make; 2] = [
        |hold| {
            let f = compile(
                move |x| {
                    hold();
                    Ok(x.to_vec())
                },
                false,
            )
            .unwrap();
            Box::new(move |x| f.call(x))
        },
        |hold| {
            let f = vmap(
                move |x| {
                    hold();
                    Ok(x.to_vec())
                },
                &[0],
                &[0],
            )
            .unwrap();
            Box::new(move |x| f.call(x))
        },
    ];
    for make in makers {
        let gone = Rc::new(Cell::new(false));
        let token = Gone(gone.clone());
        let function = make(Box::new(move || {
            let _ = &token;
        }));
        let x = floats(&[1.0, 2.0]);
        let y = function(std::slice::from_ref(&x)).unwrap();
        assert!(!gone.get());
        drop(function);
        assert!(gone.get(), "the closure leaked");
        assert_eq!(y[0].to_vec::<f32>().unwrap(), [1.0, 2.0]);
    }
}

#[test]
fn an_error_of_a_callback_comes_back_as_it_was() {
    let fail = |_: &[Array]| Err(Error::new(ErrorKind::NotFound, "no %s here").context("%n"));
    let x = floats(&[1.0]);
    for error in [
        compile(fail, false).unwrap().call(std::slice::from_ref(&x)).unwrap_err(),
        vmap(fail, &[0], &[0]).unwrap().call(std::slice::from_ref(&x)).unwrap_err(),
        // Through two layers of C++.
        compile(move |x| vmap(fail, &[0], &[0])?.call(x), false)
            .unwrap()
            .call(std::slice::from_ref(&x))
            .unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::NotFound, "%n: no %s here")
        );
    }
    // A callback that deals with its error leaves nothing behind for the next one.
    let handled =
        compile(move |x| vmap(fail, &[0], &[0])?.call(x).or_else(|_| Ok(x.to_vec())), false);
    assert_eq!(handled.unwrap().call(std::slice::from_ref(&x)).unwrap()[0].size(), 1);
    let error = x.reshape([5]).unwrap_err();
    assert!(error.to_string().starts_with("reshape: "), "{error}");
    // MLX's own error inside a callback keeps its kind and text too.
    let own = compile(|x| Ok(vec![x[0].reshape([5])?]), false).unwrap();
    let inner = own.call(&[x]).unwrap_err();
    assert_eq!((inner.kind(), inner.to_string()), (error.kind(), error.to_string()));
}

#[test]
fn compile_traces_once_for_what_it_must() {
    // Without shapes too, each new shape is looked at once, before the trace is replayed for it.
    for (shapeless, traces) in [(false, 3), (true, 3)] {
        let count = Rc::new(Cell::new(0));
        let counter = count.clone();
        let f = move |x: &[Array]| {
            counter.set(counter.get() + 1);
            Ok(vec![((&x[0] * 2.0)? + 1.0)?.sum(-1, false)?])
        };
        let f = compile(f, shapeless).unwrap();
        for _ in 0..2 {
            for (n, dtype) in [(3, Dtype::Float32), (5, Dtype::Float32), (3, Dtype::Float16)] {
                let x = ops::ones(&[n], dtype).unwrap();
                let y = f.call(&[x]).unwrap();
                assert_eq!(y[0].to_vec_as::<f32>().unwrap(), [3.0 * n as f32]);
                assert_eq!(y[0].dtype(), dtype);
            }
        }
        assert_eq!(count.get(), traces, "shapeless: {shapeless}");
    }
}

#[test]
fn values_do_not_exist_while_tracing() {
    let read = |x: &[Array]| {
        let value = x[0].at(0)?.item::<f32>()?;
        Ok(vec![(&x[0] * value)?])
    };
    let x = floats(&[3.0, 4.0]);
    let error = compile(read, false).unwrap().call(&[x]).unwrap_err();
    assert!(error.to_string().starts_with("eval: "), "{error}");
}

#[test]
fn vmap_maps_any_axes() {
    let x = Array::range(6).unwrap().reshape([2, 3]).unwrap();
    let y = Array::from_slice(&[10, 20, 30], &[3]).unwrap();
    let add = vmap(|x| Ok(vec![(&x[0] + &x[1])?, x[0].sum(.., false)?]), &[Some(0), None], &[1, 0])
        .unwrap();
    let out = add.call(&[x.clone(), y.clone()]).unwrap();
    assert_eq!(out[0].shape(), [3, 2]);
    assert_eq!(out[0].to_vec::<i32>().unwrap(), [10, 13, 21, 24, 32, 35]);
    assert_eq!(out[1].to_vec::<i32>().unwrap(), [3, 12]);
    let columns = vmap(|x| Ok(vec![x[0].multiply(&x[1])?]), &[1, 0], &[0]).unwrap();
    let out = columns.call(&[x, y]).unwrap();
    assert_eq!(out[0].to_vec::<i32>().unwrap(), [0, 30, 20, 80, 60, 150]);
}
