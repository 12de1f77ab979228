use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::ffi::{HostInput, HostKernel, HostOutput, graph_text, host_op};
use crate::transforms::{compile, grad_once};
use crate::{Device, Result, Stream, eval, with_device, with_stream};

/// Adds a number to each element, and counts how often it ran. A negative number fails.
struct Plus(f32, Arc<AtomicUsize>);

impl HostKernel for Plus {
    const NAME: &'static CStr = c"plus";

    fn params(&self) -> Vec<u64> {
        vec![self.0.to_bits().into()]
    }

    fn run(
        &self,
        inputs: &[HostInput<'_>],
        outputs: &mut [HostOutput<'_>],
    ) -> std::result::Result<(), String> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if self.0 < 0.0 {
            return Err("a negative number".to_owned());
        }
        let out = outputs[0].bytes.chunks_exact_mut(4);
        for (x, out) in inputs[0].bytes.chunks_exact(4).zip(out) {
            let x = f32::from_ne_bytes(x.try_into().expect("four bytes"));
            out.copy_from_slice(&(x + self.0).to_ne_bytes());
        }
        Ok(())
    }
}

fn plus(x: &Array, n: f32, count: &Arc<AtomicUsize>) -> Result<Array> {
    let fallback = move |x: &[Array]| Ok(vec![(&x[0] + n)?]);
    let outputs =
        host_op(Plus(n, count.clone()), &[x], &[(x.shape(), x.dtype())], Box::new(fallback))?;
    Ok(outputs.into_iter().next().expect("one output"))
}

/// Writes a row behind those that are there, to each of some stores.
struct Append {
    at: usize,
    n_stores: usize,
}

impl HostKernel for Append {
    const NAME: &'static CStr = c"append";

    fn params(&self) -> Vec<u64> {
        vec![self.at as u64, self.n_stores as u64]
    }

    fn appends_to(&self, output: usize) -> Option<usize> {
        (output < self.n_stores).then_some(output + 1)
    }

    fn run(
        &self,
        inputs: &[HostInput<'_>],
        outputs: &mut [HostOutput<'_>],
    ) -> std::result::Result<(), String> {
        let [row, stores @ ..] = inputs else { return Err("inputs".to_owned()) };
        assert_eq!((stores.len(), outputs.len()), (self.n_stores, self.n_stores));
        for (store, out) in stores.iter().zip(outputs) {
            assert!(store.bytes.is_empty() && out.bytes.is_empty());
            let out = out.shared.cast::<u8>();
            // SAFETY: the row is within the store, and nobody reads it.
            unsafe {
                let to = out.add(self.at * row.bytes.len());
                to.copy_from_nonoverlapping(row.bytes.as_ptr(), row.bytes.len());
            }
        }
        Ok(())
    }
}

fn append_to_each(row: &Array, stores: Vec<Array>, at: usize) -> Result<Vec<Array>> {
    let fallback = |_: &[Array]| Ok(vec![]);
    let shapes: Vec<Vec<i32>> = stores.iter().map(|store| store.shape().to_vec()).collect();
    let specs: Vec<(&[i32], Dtype)> =
        shapes.iter().zip(&stores).map(|(shape, store)| (&shape[..], store.dtype())).collect();
    let inputs: Vec<&Array> = [row].into_iter().chain(&stores).collect();
    host_op(Append { at, n_stores: stores.len() }, &inputs, &specs, Box::new(fallback))
}

fn append(row: &Array, store: Array, at: usize) -> Result<Array> {
    Ok(append_to_each(row, vec![store], at)?.into_iter().next().expect("one output"))
}

fn on_cpu(test: impl FnOnce(&Arc<AtomicUsize>) -> Result<()>) -> Result<()> {
    with_device(Device::Cpu, || test(&Arc::default()))
}

fn numbers(n: i32) -> Result<Array> {
    Array::range(n)?.astype(Dtype::Float32)
}

#[test]
fn kernels_in_a_row_are_one_node() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(5)?;
        let y = recording(|| {
            let mut y = plus(&x, 1.0, count)?;
            for _ in 0..9 {
                assert!(is_recorded(&y));
                assert_eq!((y.shape(), y.dtype()), (&[5][..], Dtype::Float32));
                y = plus(&y, 1.0, count)?;
            }
            Ok(y)
        })?;
        assert!(!is_recorded(&y));
        assert_eq!(count.load(Ordering::Relaxed), 0, "nothing runs before it is asked for");
        let graph = graph_text([], std::slice::from_ref(&y), false)?;
        assert_eq!(graph.matches("kernels").count(), 1, "{graph}");
        assert_eq!(y.to_vec::<f32>()?, [10.0, 11.0, 12.0, 13.0, 14.0]);
        assert_eq!(count.load(Ordering::Relaxed), 10);
        Ok(())
    })
}

#[test]
fn ops_between_get_nodes_and_go_on() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(4)?;
        let (y, inner) = recording(|| {
            let inner = plus(&x, 1.0, count)?;
            let sum = plus(&inner, 1.0, count)?.sum(.., true)?;
            assert!(!is_recorded(&inner), "what was noted becomes one node as a whole");
            let y = plus(&plus(&sum, 0.5, count)?, 0.5, count)?;
            // Reading a value on the way.
            assert_eq!(plus(&y, 1.0, count)?.item::<f32>()?, 16.0);
            Ok((y, inner))
        })?;
        assert_eq!(y.to_vec::<f32>()?, [15.0]);
        assert_eq!(inner.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
        Ok(())
    })
}

#[test]
fn what_nobody_needs_does_not_run() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(3)?;
        let y = recording(|| {
            let y = plus(&x, 1.0, count)?;
            let _unused = plus(&plus(&y, 1.0, count)?, 1.0, count)?;
            Ok(y)
        })?;
        eval([&y])?;
        assert_eq!(count.load(Ordering::Relaxed), 1);
        recording(|| plus(&x, 1.0, count).map(drop))?;
        assert_eq!(count.load(Ordering::Relaxed), 1);
        Ok(())
    })
}

#[test]
fn results_share_memory_only_where_nobody_reads_it() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(1000)?;
        let results = recording(|| {
            let mut results = Vec::new();
            let mut y = plus(&x, 1.0, count)?;
            for i in 0..20 {
                let next = plus(&y, 1.0, count)?;
                // Every third is held; the one before is read once more after the next was made.
                let again = plus(&y, 0.0, count)?;
                if i % 3 == 0 {
                    results.push((i, again));
                }
                y = next;
            }
            results.push((20, y));
            Ok(results)
        })?;
        for (i, result) in results {
            let expected: Vec<f32> = (0..1000).map(|x| (x + 1 + i) as f32).collect();
            assert_eq!(result.to_vec::<f32>()?, expected, "{i}");
        }
        Ok(())
    })
}

#[test]
fn stores_are_continued_in_place() -> Result<()> {
    on_cpu(|count| {
        let row = numbers(2)?;
        let mut store = crate::ops::zeros(&[64, 2], Dtype::Float32)?;
        let mut places = Vec::new();
        for at in 0..5 {
            store = recording(|| {
                let (row, old) = (plus(&row, at as f32, count)?, store);
                append(&row, old, at)
            })?;
            eval([&store])?;
            places.push(crate::ffi::array_bytes(&store).expect("evaluated").as_ptr());
        }
        // The first is a copy of what others could hold.
        assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "{places:?}");
        let rows = store.at(..6)?.to_vec::<f32>()?;
        assert_eq!(rows, [0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 0.0, 0.0]);
        // Twice within one, and an old one that somebody still holds.
        let old = store.clone();
        let twice = recording(|| append(&row, append(&row, store, 5)?, 6))?;
        assert_eq!(twice.at(5..8)?.to_vec::<f32>()?, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(old.at(5..7)?.to_vec::<f32>()?, [0.0; 4]);
        Ok(())
    })
}

/// As packed keys and values are, of so many layers that the stores are more than a word has bits.
#[test]
fn many_stores_are_continued_in_place() -> Result<()> {
    const N_LAYERS: usize = 14;
    on_cpu(|count| {
        let row = numbers(2)?;
        let store = |i: usize| crate::ops::full(&[16, 2], i as f32, Dtype::Float32);
        let mut layers = (0..N_LAYERS)
            .map(|layer| (0..6).map(|part| store(layer * 6 + part)).collect())
            .collect::<Result<Vec<Vec<Array>>>>()?;
        let mut places = Vec::new();
        for at in 0..4 {
            layers = recording(|| {
                let layers = layers.into_iter().enumerate();
                let append = |(layer, stores): (usize, Vec<Array>)| {
                    append_to_each(&plus(&row, (10 * layer + at) as f32, count)?, stores, at)
                };
                layers.map(append).collect::<Result<_>>()
            })?;
            let stores = || layers.iter().flatten();
            let graph = graph_text([], &stores().cloned().collect::<Vec<_>>(), false)?;
            assert_eq!(graph.matches("kernels").count(), 1, "{graph}");
            eval(stores())?;
            let place = |x: &Array| crate::ffi::array_bytes(x).expect("evaluated").as_ptr();
            places.push(stores().map(place).collect::<Vec<_>>());
        }
        assert!(places[1..].windows(2).all(|pair| pair[0] == pair[1]));
        let mut distinct = places[1].clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 6 * N_LAYERS);
        for (i, store) in layers.iter().flatten().enumerate() {
            let (first, rest) = ((10 * (i / 6)) as f32, i as f32);
            let expected = [0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0].map(|x| x + first);
            assert_eq!(store.at(..5)?.to_vec::<f32>()?, [&expected[..], &[rest; 2]].concat());
        }
        Ok(())
    })
}

#[test]
fn longer_rows_of_kernels_are_several_nodes() -> Result<()> {
    on_cpu(|count| {
        let n = MAX_STEPS + 10;
        let y = recording(|| (0..n).try_fold(numbers(1)?, |y, _| plus(&y, 1.0, count)))?;
        assert_eq!(graph_text([], std::slice::from_ref(&y), false)?.matches("kernels").count(), 2);
        assert_eq!(y.item::<f32>()?, n as f32);
        Ok(())
    })
}

#[test]
fn transforms_see_every_op() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(3)?;
        let f = |x: &[Array]| {
            recording(|| {
                let y = plus(&plus(&x[0], 1.0, count)?, 1.0, count)?;
                assert!(!is_recorded(&y));
                Ok(vec![y.square()?.sum(.., false)?])
            })
        };
        let inputs = [x.clone()];
        let gradient = recording(|| grad_once(f, &inputs, 0))?;
        assert_eq!(gradient[0].to_vec::<f32>()?, [4.0, 6.0, 8.0]);
        let compiled = {
            let count = count.clone();
            move |x: &[Array]| recording(|| Ok(vec![plus(&x[0], 1.0, &count)?]))
        };
        let y = compile(compiled, false)?.call(&inputs)?;
        assert_eq!(y[0].to_vec::<f32>()?, [1.0, 2.0, 3.0]);
        // A function that has a noted result of its caller's.
        let y = recording(|| {
            let outer = plus(&x, 1.0, count)?;
            grad_once(|x: &[Array]| Ok(vec![(&x[0] * &outer)?.sum(.., false)?]), &inputs, 0)
        })?;
        assert_eq!(y[0].to_vec::<f32>()?, [1.0, 2.0, 3.0]);
        Ok(())
    })
}

#[test]
fn a_kernel_that_fails_is_named() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(3)?;
        eval([&x])?;
        let y = recording(|| plus(&plus(&x, 1.0, count)?, -1.0, count))?;
        let error = eval([&y]).expect_err("the kernel fails").to_string();
        assert!(error.contains("plus: a negative number"), "{error}");
        // And the next is well.
        let y = recording(|| plus(&plus(&x, 1.0, count)?, 1.0, count))?;
        assert_eq!(y.to_vec::<f32>()?, [2.0, 3.0, 4.0]);
        Ok(())
    })
}

#[test]
fn panics_and_errors_leave_nothing_behind() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(3)?;
        let mut kept = None;
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            recording(|| {
                kept = plus(&x, 1.0, count).ok();
                panic!("in between");
            })
        }));
        assert!(panic.is_err());
        let kept = kept.expect("made before the panic");
        assert!(!is_recorded(&kept));
        assert_eq!(kept.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
        assert!(!is_recorded(&plus(&x, 1.0, count)?));
        Ok(())
    })
}

#[test]
fn each_stream_has_its_own_node() -> Result<()> {
    on_cpu(|count| {
        let x = numbers(3)?;
        let other = Stream::new(Device::Cpu)?;
        let y = recording(|| {
            let y = plus(&x, 1.0, count)?;
            let z = with_stream(other, || plus(&y, 1.0, count))?;
            assert!(!is_recorded(&y));
            plus(&z, 1.0, count)
        })?;
        assert_eq!(y.to_vec::<f32>()?, [3.0, 4.0, 5.0]);
        Ok(())
    })
}

#[test]
fn empty_and_large_results_have_their_place() -> Result<()> {
    on_cpu(|count| {
        for n in [0, 1, 1 << 20] {
            let x = crate::ops::zeros(&[n], Dtype::Float32)?;
            let y = recording(|| plus(&plus(&plus(&x, 1.0, count)?, 1.0, count)?, 1.0, count))?;
            let y = y.to_vec::<f32>()?;
            assert!(y.len() == n as usize && y.iter().all(|&y| y == 3.0));
        }
        Ok(())
    })
}
