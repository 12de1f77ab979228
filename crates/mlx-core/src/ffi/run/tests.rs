//! What is left of arrays when an op fails while it is computed: an error each time they are read
//! or used, never the memory that nobody wrote.

use std::ffi::CStr;
use std::time::Duration;

use proptest::prelude::*;

use crate::ffi::{ArrayVec, Closure, HostInput, HostKernel, HostOutput, array_op, c_call, host_op};
use crate::stream::{self, Stream, with_stream};
use crate::{Array, Device, Dtype, Error, ErrorKind, Result, async_eval, eval, ops};

/// Waits, then copies its input or fails.
struct Slow {
    delay: Duration,
    fails: bool,
}

impl HostKernel for Slow {
    const NAME: &'static CStr = c"slow";

    fn params(&self) -> Vec<u64> {
        vec![self.delay.as_micros() as u64, self.fails.into()]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        std::thread::sleep(self.delay);
        if self.fails {
            return Err("refused".to_owned());
        }
        outputs.iter_mut().zip(inputs).for_each(|(y, x)| y.bytes.copy_from_slice(x.bytes));
        Ok(())
    }
}

fn slow(x: &Array, delay_us: u64, fails: bool) -> Array {
    let kernel = Slow { delay: Duration::from_micros(delay_us), fails };
    let outputs = [(x.shape(), x.dtype())];
    let made = host_op(kernel, &[x], &outputs, Box::new(|x| Ok(x.to_vec())));
    made.unwrap().remove(0)
}

/// Large enough to have memory of its own.
fn ones() -> Array {
    ops::ones(&[1000], Dtype::Float32).unwrap()
}

fn failing() -> Array {
    slow(&ones(), 0, true)
}

#[track_caller]
fn check_failed<T: std::fmt::Debug>(result: Result<T>) {
    let error: Error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Runtime, "slow: refused"));
}

#[track_caller]
fn check_unreadable(x: &Array) {
    for _ in 0..3 {
        check_failed(x.eval());
        check_failed(x.to_vec::<f32>());
        check_failed(x.with_bytes(<[u8]>::len));
        check_failed(x.strides());
        check_failed(x.at(0).unwrap().item::<f32>());
        check_failed((x + 1.0).unwrap().eval());
        assert_eq!(x.to_string(), "<slow: refused>");
        assert!(!x.is_available());
    }
}

#[track_caller]
fn check_still_works() {
    let x = (ones() + 1.0).unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), [2.0; 1000]);
    stream::synchronize_all().unwrap();
}

#[test]
fn what_failed_is_an_error_each_time() {
    let x = failing();
    let before = (&x * 2.0).unwrap();
    check_unreadable(&x);
    check_failed(before.eval());
    let after = (&x * 2.0).unwrap();
    check_failed(eval([&after, &before]));
    check_unreadable(&after);
    check_unreadable(&before);
    check_still_works();
}

#[test]
fn what_failed_in_the_background_is_an_error_each_time() {
    let x = failing();
    let y = (&x * 2.0).unwrap();
    async_eval([&y]).unwrap();
    check_unreadable(&y);
    check_unreadable(&x);
    check_still_works();
}

#[test]
fn results_on_the_way_to_an_error_are_not_read() {
    let ready = (ones() + 3.0).unwrap();
    ready.eval().unwrap();
    let (bad, good) = (failing(), (&ready * 2.0).unwrap());
    let sum = (&bad + &good).unwrap();
    let rest = sum.sum(.., false).unwrap();
    check_failed(rest.eval());
    check_unreadable(&bad);
    check_unreadable(&sum);
    // Computed in the same call, before or behind what failed: nobody can tell.
    if let Ok(values) = good.to_vec::<f32>() {
        assert_eq!(values, [8.0; 1000]);
    }
    assert_eq!(ready.to_vec::<f32>().unwrap(), [4.0; 1000]);
    check_still_works();
}

#[test]
fn one_of_two_outputs_fails() {
    for order in [false, true] {
        let (bad, good) = (failing(), (ones() + 1.0).unwrap());
        let both = if order { [&bad, &good] } else { [&good, &bad] };
        check_failed(eval(both));
        check_unreadable(&bad);
        if let Ok(values) = good.to_vec::<f32>() {
            assert_eq!(values, [2.0; 1000]);
        }
        check_still_works();
    }
}

#[test]
fn later_work_does_not_get_the_error() {
    let x = failing();
    async_eval([&x]).unwrap();
    // What failed never gets available, so only time tells; its kernel takes none.
    std::thread::sleep(Duration::from_millis(100));
    assert!(!x.is_available());
    check_still_works();
    check_unreadable(&x);
}

#[test]
fn work_queued_behind_an_error_is_not_read_as_if_it_were_there() {
    for _ in 0..20 {
        let bad = slow(&ones(), 2000, true);
        async_eval([&bad]).unwrap();
        let dependent = (&bad + 1.0).unwrap();
        // On a busy machine it has failed by now.
        if let Err(error) = async_eval([&dependent]) {
            check_failed::<()>(Err(error));
        }
        let unrelated = (ones() + 1.0).unwrap();
        async_eval([&unrelated]).unwrap();
        let also_bad = failing();
        async_eval([&also_bad]).unwrap();
        check_failed(bad.eval());
        check_unreadable(&dependent);
        check_unreadable(&also_bad);
        if let Ok(values) = unrelated.to_vec::<f32>() {
            assert_eq!(values, [2.0; 1000]);
        }
        check_still_works();
    }
}

#[test]
fn an_error_follows_from_stream_to_stream() {
    let streams = [Stream::new(Device::Cpu).unwrap(), Stream::new(Device::Cpu).unwrap()];
    for is_async in [false, true] {
        let bad = with_stream(streams[0], || Ok(slow(&ones(), 1000, true))).unwrap();
        let between = with_stream(streams[1], || &bad + 1.0).unwrap();
        let last = (&between * 2.0).unwrap();
        if is_async {
            async_eval([&last]).unwrap();
        } else {
            check_failed(last.eval());
        }
        for x in [&last, &bad, &between] {
            check_unreadable(x);
        }
        for stream in streams {
            with_stream(stream, || {
                check_still_works();
                Ok(())
            })
            .unwrap();
        }
    }
}

#[test]
fn two_errors_at_once_are_both_remembered() {
    // One in its task; one as MLX hands the tasks out, which makes MLX forget the first.
    let bad = failing();
    let huge = ops::zeros(&[1 << 21, 1 << 21], Dtype::Float32).unwrap();
    let other = (&bad.at(0).unwrap() + &huge).unwrap().sum(.., false).unwrap();
    assert!(other.eval().is_err());
    assert!(bad.to_vec::<f32>().is_err());
    assert!((&bad + 1.0).unwrap().to_vec::<f32>().is_err());
    assert!(other.eval().is_err());
    check_still_works();
}

#[test]
fn an_op_that_could_not_start_can_be_tried_again() {
    let x = (ones() + 1.0).unwrap();
    let huge = ops::zeros(&[1 << 21, 1 << 21], Dtype::Float32).unwrap();
    let y = ((&huge + 1.0).unwrap().at((0, 0)).unwrap() + &x).unwrap();
    assert_eq!(y.eval().unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(y.eval().unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(x.to_vec::<f32>().unwrap(), [2.0; 1000]);
}

#[test]
fn synchronizing_tells_once_and_arrays_tell_always() {
    let x = failing();
    async_eval([&x]).unwrap();
    check_failed(Stream::current().unwrap().synchronize());
    Stream::current().unwrap().synchronize().unwrap();
    check_unreadable(&x);
    check_still_works();
    let x = failing();
    async_eval([&x]).unwrap();
    check_failed(stream::synchronize_all());
    check_unreadable(&x);
}

#[test]
fn more_errors_than_texts_are_kept_stay_errors() {
    let all: Vec<Array> = (0..40).map(|_| failing()).collect();
    all.iter().for_each(|x| check_failed(x.eval()));
    all.iter().for_each(check_unreadable);
    check_still_works();
}

#[test]
fn a_stream_comes_clean_to_the_next_thread() {
    for _ in 0..20 {
        let thread = std::thread::spawn(|| {
            check_still_works();
            async_eval([&failing()]).unwrap();
        });
        thread.join().unwrap();
    }
}

#[test]
fn a_stream_comes_clean_out_of_clear() {
    let x = failing();
    async_eval([&x]).unwrap();
    stream::clear().unwrap();
    check_still_works();
    check_failed(x.eval());
    check_unreadable(&x);
}

#[test]
fn mlx_own_ops_fail_the_same_way() {
    let singular = ops::zeros(&[2, 2], Dtype::Float32).unwrap();
    let inverse = || array_op!(mlx_linalg_inv, (singular.raw()));
    let inverse = inverse().unwrap();
    let texts: Vec<String> =
        (0..3).map(|_| inverse.to_vec::<f32>().unwrap_err().to_string()).collect();
    assert!(texts[0].starts_with("Inverse::eval_cpu: "), "{}", texts[0]);
    assert_eq!((&texts[1], &texts[2]), (&texts[0], &texts[0]));
    assert!((inverse + 1.0).unwrap().eval().is_err());
    check_still_works();
}

#[test]
fn an_error_inside_a_gradient_is_remembered() {
    let f = |x: &[Array]| {
        let bad = slow(&x[0], 0, true);
        let constant = failing();
        let sum = (&bad + &constant)?;
        check_failed(sum.eval());
        check_failed(sum.eval());
        check_failed(bad.to_vec::<f32>());
        check_failed(constant.to_vec::<f32>());
        check_still_works();
        Ok(vec![(&x[0] * 3.0)?])
    };
    let f = Closure::new(Box::new(f)).unwrap();
    let (x, cotangent) = (ones(), ones());
    let (primals, cotangents) =
        (ArrayVec::new([&x]).unwrap(), ArrayVec::new([&cotangent]).unwrap());
    let (mut values, mut gradients) = (ArrayVec::empty(), ArrayVec::empty());
    let (values_out, gradients_out) = (values.as_mut(), gradients.as_mut());
    let (f, primals, cotangents) = (&f, &primals, &cotangents);
    c_call!(mlx_vjp, (values_out), (gradients_out), f, primals, cotangents).unwrap();
    let gradient = gradients.into_arrays().unwrap().remove(0);
    assert_eq!(gradient.to_vec::<f32>().unwrap(), [3.0; 1000]);
    drop(values);
}

/// A step of a random program over a list of arrays; numbers are taken modulo what is there.
#[derive(Clone, Copy, Debug)]
enum Step {
    Leaf(u8),
    Add(usize, usize, usize),
    Slow(usize, usize, u8),
    Fail(usize, usize, u8),
    Eval(usize, usize),
    AsyncEval(usize, usize),
    Read(usize),
    Forget(usize),
    Synchronize(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let n = any::<usize>;
    prop_oneof![
        1 => any::<u8>().prop_map(Step::Leaf),
        8 => (n(), n(), n()).prop_map(|(a, b, s)| Step::Add(a, b, s)),
        2 => (n(), n(), any::<u8>()).prop_map(|(a, s, t)| Step::Slow(a, s, t)),
        1 => (n(), n(), any::<u8>()).prop_map(|(a, s, t)| Step::Fail(a, s, t)),
        2 => (n(), n()).prop_map(|(a, b)| Step::Eval(a, b)),
        4 => (n(), n()).prop_map(|(a, b)| Step::AsyncEval(a, b)),
        3 => n().prop_map(Step::Read),
        1 => n().prop_map(Step::Forget),
        1 => n().prop_map(Step::Synchronize),
    ]
}

/// An array and its value, which is `None` behind a failed op.
type Node = (Array, Option<f32>);

fn check_node((x, value): &Node) {
    if let Ok(found) = x.to_vec::<f32>() {
        assert!(found.iter().all(|&v| Some(v) == *value), "{} instead of {value:?}", found[0]);
    }
}

fn check_program(steps: &[Step], streams: &[Stream]) {
    let mut nodes: Vec<Node> = vec![(ones(), Some(1.0))];
    for &step in steps {
        let at = |i: usize| &nodes[i % nodes.len()];
        let on = |s: usize| streams[s % streams.len()];
        let made = match step {
            Step::Leaf(v) => {
                Some((ops::full(&[500], f32::from(v), None).unwrap(), Some(f32::from(v))))
            }
            Step::Add(a, b, s) => {
                let ((x, v), (y, w)) = (at(a), at(b));
                let (x, y) = (x.at(..500).unwrap(), y.at(..500).unwrap());
                let sum = with_stream(on(s), || &x + &y).unwrap();
                Some((sum, v.zip(*w).map(|(v, w)| v + w)))
            }
            Step::Slow(a, s, t) | Step::Fail(a, s, t) => {
                let fails = matches!(step, Step::Fail(..));
                let (x, v) = at(a);
                let y = with_stream(on(s), || Ok(slow(x, u64::from(t), fails))).unwrap();
                Some((y, v.filter(|_| !fails)))
            }
            Step::Eval(a, b) => {
                let _ = eval([&at(a).0, &at(b).0]);
                None
            }
            Step::AsyncEval(a, b) => {
                let _ = async_eval([&at(a).0, &at(b).0]);
                None
            }
            Step::Read(a) => {
                check_node(at(a));
                None
            }
            Step::Forget(a) => {
                let i = a % nodes.len();
                if nodes.len() > 1 {
                    nodes.swap_remove(i);
                }
                None
            }
            Step::Synchronize(s) => {
                let _ = on(s).synchronize();
                None
            }
        };
        nodes.extend(made);
    }
    nodes.iter().for_each(check_node);
    nodes.iter().rev().for_each(check_node);
    let _ = stream::synchronize_all();
    check_still_works();
}

proptest! {
    #[test]
    fn no_program_reads_what_was_not_computed(
        steps in prop::collection::vec(any_step(), 1..120),
        n_streams in 1usize..4,
    ) {
        // A thread of its own, with a stream count of its own.
        std::thread::spawn(move || {
            let mut streams = vec![Stream::current().unwrap()];
            streams.resize_with(n_streams, || Stream::new(Device::Cpu).unwrap());
            check_program(&steps, &streams);
        })
        .join()
        .unwrap();
    }
}
