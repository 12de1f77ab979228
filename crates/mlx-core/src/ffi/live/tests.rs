//! That wrapping an op needs no memory of Rust's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::{Array, Dtype, Ellipsis, NewAxis, Result, Slice, eval, fast, ops};

/// Counts the allocations of the thread that asks.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations<T>(f: impl FnOnce() -> T) -> usize {
    let start = ALLOCATIONS.get();
    let result = f();
    let n = ALLOCATIONS.get() - start;
    drop(result);
    n
}

/// What still allocates: whatever gives several arrays, and whatever takes many.
#[test]
fn wrapping_an_op_allocates_nothing() {
    let x = ops::ones(&[4, 6], Dtype::Float32).unwrap();
    let y = ops::ones(&[4, 6], Dtype::Float32).unwrap();
    let index = Array::from_slice(&[0, 1], &[2]).unwrap();
    // What a thread makes once.
    x.exp().unwrap();
    // An optimizer may see through a box that nobody looks into.
    assert!(allocations(|| std::hint::black_box(Box::new(1))) > 0, "nothing is counted");

    type Case<'a> = (&'a str, &'a dyn Fn() -> Result<Array>);
    let cases: [Case<'_>; 18] = [
        ("clone", &|| Ok(x.clone())),
        ("exp", &|| x.exp()),
        ("negative", &|| x.negative()),
        ("reshape", &|| x.reshape([2, 12])),
        ("astype", &|| x.astype(Dtype::Float16)),
        ("transpose", &|| x.t()),
        ("sum of an axis", &|| x.sum(-1, false)),
        ("sum of all", &|| x.sum(.., false)),
        ("sum of axes", &|| x.sum(&[0, 1], true)),
        ("softmax", &|| x.softmax(-1, false)),
        ("matmul", &|| x.matmul(&y.t()?)),
        ("take", &|| x.take(&index, 0)),
        ("add", &|| &x + &y),
        ("add a number", &|| &x + 1.0),
        ("broadcast", &|| x.broadcast_to([2, 4, 6])),
        ("rms_norm", &|| fast::rms_norm(&x, None, 1e-5)),
        ("concatenate", &|| ops::concatenate([&x, &y], 0)),
        ("eval", &|| eval([&x, &y]).map(|()| x.clone())),
    ];
    let offenders: Vec<String> = cases
        .iter()
        .map(|(name, f)| (name, allocations(f)))
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name}: {n}"))
        .collect();
    assert!(offenders.is_empty(), "{}", offenders.join(", "));
}

/// The one is the list of items, which is public.
#[test]
fn an_index_without_arrays_allocates_once() {
    let x = ops::ones(&[4, 6, 2], Dtype::Float32).unwrap();
    x.exp().unwrap();
    let cases: [(&str, &dyn Fn() -> Result<Array>); 8] = [
        ("integer", &|| x.at(-1)),
        ("integers", &|| x.at((1, 2, 0))),
        ("range", &|| x.at(1..3)),
        ("ranges", &|| x.at((.., 1.., ..1))),
        ("steps", &|| x.at((Ellipsis, Slice::step(-1)))),
        ("integer and range", &|| x.at((.., 0, 1..))),
        ("new axes", &|| x.at((NewAxis, 1, .., NewAxis))),
        ("write", &|| x.put((1, ..), &x.at((0, ..))?)),
    ];
    for (name, f) in cases {
        let most = if name == "write" { 2 } else { 1 };
        let n = allocations(|| f().unwrap());
        assert!(n <= most, "{name}: {n} allocations");
    }
    let one = x.at((0, 0, 0)).unwrap();
    assert_eq!(allocations(|| one.item::<f32>().unwrap()), 0);
    assert_eq!(allocations(|| one.to_vec::<f32>().unwrap()), 1);
}
