//! Several streams in a thread, and threads that come and go.

use std::sync::Barrier;
use std::time::Duration;

use mlx_core::transforms::{checkpoint, compile, jvp, value_and_grad_once, vjp, vmap_once};
use mlx_core::{
    Array, Device, Dtype, ErrorKind, Result, Stream, async_eval, memory, ops, random, stream,
    with_stream,
};

use crate::alone::alone;

fn streams(n: usize) -> Vec<Stream> {
    (0..n).map(|_| Stream::new(Device::Cpu).unwrap()).collect()
}

#[test]
fn results_pass_from_stream_to_stream() {
    let streams = streams(4);
    for is_async in [false, true] {
        let mut x = ops::ones(&[100, 100], Dtype::Float32).unwrap();
        let start = x.clone();
        for i in 0..200 {
            let step = || ((&x + 1.0)? - start.max(.., false)?)?.maximum(&start);
            x = with_stream(streams[i % 4], step).unwrap();
            x = (&x + 0.5).unwrap();
            if is_async && i % 3 == 0 {
                async_eval([&x]).unwrap();
            }
        }
        assert_eq!(x.to_vec::<f32>().unwrap(), vec![101.0; 10_000]);
    }
}

#[test]
fn memory_is_not_reused_while_another_stream_reads_it() {
    let streams = streams(3);
    for round in 0..30 {
        let x = ops::full(&[300_000], round as f32, None).unwrap();
        let slow = |stream| {
            with_stream(stream, || {
                let mut y = x.clone();
                for _ in 0..4 {
                    y = (y + 1.0)?;
                }
                y.sum(.., false)
            })
        };
        let sums: Vec<Array> = streams.iter().map(|&s| slow(s).unwrap()).collect();
        async_eval(&sums).unwrap();
        drop(x);
        for sum in sums {
            assert_eq!(sum.item::<f32>().unwrap(), (round + 4) as f32 * 300_000.0);
        }
    }
}

#[test]
fn synchronizing_waits_for_what_was_started() {
    let own = streams(2);
    let started: Vec<Array> = own
        .iter()
        .map(|&s| with_stream(s, || ops::ones(&[1 << 18], Dtype::Float32)?.sin()?.cos()).unwrap())
        .collect();
    async_eval(&started).unwrap();
    stream::synchronize_all().unwrap();
    assert!(started.iter().all(Array::is_available));
    let x = ops::ones(&[1 << 18], Dtype::Float32).unwrap().sin().unwrap();
    async_eval([&x]).unwrap();
    stream::synchronize().unwrap();
    assert!(x.is_available());
}

#[test]
fn streams_have_names() {
    let text = streams(1)[0].to_string();
    assert!(text.starts_with("Stream(cpu, "), "{text}");
}

#[test]
fn what_was_given_up_is_an_error() {
    let stream = Stream::new(Device::Cpu).unwrap();
    let made = with_stream(stream, || ops::ones(&[2], Dtype::Float32)? + 1.0).unwrap();
    let computed = (&made * 2.0).unwrap();
    computed.eval().unwrap();
    let waiting = with_stream(stream, || &made + 1.0).unwrap();
    stream::clear().unwrap();
    stream::clear().unwrap();

    assert_eq!(computed.to_vec::<f32>().unwrap(), [4.0; 2]);
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(with_stream(stream, || &made + 1.0).is_err());
    assert!(waiting.eval().is_err());
    // Not even when one of the new streams has its number.
    let new = streams(4);
    assert!(!new.contains(&stream));
    assert!(with_stream(stream, || &made + 1.0).is_err());
    assert_eq!((&made + 1.0).unwrap().to_vec::<f32>().unwrap(), [3.0; 2]);
    let twice = compile(|x| Ok(vec![(&x[0] * 2.0)?]), false).unwrap();
    assert_eq!(twice.call(&[made]).unwrap()[0].to_vec::<f32>().unwrap(), [4.0; 2]);
}

#[test]
fn clearing_inside_a_scope_ends_what_the_scope_can_do() {
    let stream = Stream::new(Device::Cpu).unwrap();
    let result = with_stream(stream, || {
        stream::clear()?;
        ops::ones(&[2], Dtype::Float32)
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(ops::ones(&[2], Dtype::Float32).unwrap().to_vec::<f32>().unwrap(), [1.0; 2]);
}

/// Something that uses streams, compiled functions and memory.
fn compute(seed: i32) -> Result<()> {
    let x = ops::full(&[64, 64], seed, Dtype::Float32)?;
    let f = compile(|x| Ok(vec![((&x[0] * 2.0)? + 1.0)?]), false)?;
    let y = &f.call(std::slice::from_ref(&x))?[0];
    let other = Stream::new(Device::Cpu)?;
    let z = with_stream(other, || y - &x)?;
    assert_eq!(z.to_vec::<f32>()?, vec![seed as f32 + 1.0; 64 * 64]);
    async_eval([&z.matmul(y)?])
}

#[cfg(target_os = "linux")]
fn os_threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[test]
fn threads_leave_nothing_behind() {
    alone("streams::threads_leave_nothing_behind", || {
        let wave = |n: i32| {
            let all_there = Barrier::new(n as usize);
            std::thread::scope(|scope| {
                for seed in 0..n {
                    let all_there = &all_there;
                    scope.spawn(move || {
                        all_there.wait();
                        compute(seed).unwrap();
                    });
                }
            });
        };
        // Work that a thread left under way holds its arrays until it is done.
        let check_nothing_is_held = || {
            for _ in 0..200 {
                memory::clear_cache().unwrap();
                if memory::active().unwrap() == 0 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            panic!("{} bytes are still held", memory::active().unwrap());
        };
        for _ in 0..5 {
            wave(4);
        }
        check_nothing_is_held();
        let (threads, resident) = (os_threads(), resident_bytes());
        for _ in 0..50 {
            wave(4);
        }
        check_nothing_is_held();
        // Two streams for each of four threads; some of work that went on as its thread ended.
        let more = os_threads().saturating_sub(threads);
        assert!(more <= 40, "{more} more OS threads after 200 threads");
        let more = resident_bytes().saturating_sub(resident);
        assert!(more < 20 << 20, "{more} more bytes resident after 200 threads");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_pool_gives_its_streams_up() {
    alone("streams::a_pool_gives_its_streams_up", || {
        let start = os_threads();
        for seed in 0..100 {
            compute(seed).unwrap();
            stream::clear().unwrap();
        }
        let more = os_threads() - start;
        // A busy machine may come late to a stream that is free; without reuse it would be 100.
        assert!(more <= 25, "{more} more OS threads after 100 times");
    });
}

/// Transforms make nodes of their own, for which MLX would take a stream that no later thread gets.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_may_begin_with_any_call() {
    let square = |x: &[Array]| Ok(vec![x[0].square()?]);
    let x = || [Array::from(3.0f32)];
    type Call<'a> = (&'a str, &'a (dyn Fn() -> Result<Array> + Sync));
    let calls: [Call<'_>; 8] = [
        ("vjp", &|| Ok(vjp(square, &x(), &[Array::from(1.0f32)])?.1.remove(0))),
        ("jvp", &|| Ok(jvp(square, &x(), &[Array::from(1.0f32)])?.1.remove(0))),
        ("vmap", &|| {
            let rows = Array::from_slice(&[1.0f32, 2.0], &[2])?;
            Ok(vmap_once(square, &[rows], 0, 0)?.remove(0))
        }),
        ("value_and_grad", &|| Ok(value_and_grad_once(square, &x(), 0)?.1.remove(0))),
        ("checkpoint", &|| Ok(checkpoint(square)?.call(&x())?.remove(0))),
        ("compile", &|| Ok(compile(square, false)?.call(&x())?.remove(0))),
        ("random", &|| random::uniform(0.0, 1.0, &[2], Dtype::Float32, None)),
        ("stream", &|| with_stream(Stream::new(Device::Cpu)?, || x()[0].square())),
    ];
    alone("streams::a_thread_may_begin_with_any_call", || {
        for (name, call) in calls {
            let run = || {
                std::thread::scope(|scope| {
                    scope.spawn(|| call().and_then(|y| y.eval()).expect(name));
                });
            };
            (0..5).for_each(|_| run());
            let threads = os_threads();
            (0..40).for_each(|_| run());
            let more = os_threads().saturating_sub(threads);
            // A busy machine may come late to a stream that is free.
            assert!(more <= 10, "{name}: {more} more OS threads after 40 threads");
        }
    });
}

#[test]
fn a_thread_that_ends_computes_no_more() {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static ERRORS: AtomicUsize = AtomicUsize::new(0);

    /// Computes when the thread's own values are dropped, which is too late or just in time.
    struct Late(Option<Array>);

    impl Drop for Late {
        fn drop(&mut self) {
            let outcomes = self.0.as_ref().map(|x| {
                [x.eval(), Stream::new(Device::Cpu).map(|_| ()), (x + 1.0).and_then(|y| y.eval())]
            });
            ERRORS.fetch_add(
                outcomes.into_iter().flatten().filter(Result::is_err).count(),
                Ordering::Relaxed,
            );
        }
    }

    thread_local! {
        static EARLY: RefCell<Late> = const { RefCell::new(Late(None)) };
        static LAST: RefCell<Late> = const { RefCell::new(Late(None)) };
    }
    for _ in 0..10 {
        std::thread::spawn(|| {
            EARLY.with(|_| ());
            let x = ops::ones(&[8], Dtype::Float32).unwrap().exp().unwrap();
            LAST.with(|late| late.borrow_mut().0 = Some(x.clone()));
            EARLY.with(|late| late.borrow_mut().0 = Some((x + 1.0).unwrap()));
        })
        .join()
        .unwrap();
    }
    assert!(ERRORS.load(Ordering::Relaxed) > 0, "nothing was refused");
}
