//! Scales and biases of some rows of weights, as AVX2 and AVX-512 take them: `N` at a time, in `f32`.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::Scale;

/// What is fetched at once.
pub(super) const LINE: usize = 64;

/// 8-bit floats that have one scale at least.
pub(super) const FP8_GROUP: usize = 32;

/// Fetches `n` from `at` on, if there are such.
#[inline(always)]
pub(super) fn prefetch<S>(all: &[S], at: usize, n: usize) {
    let start = all.as_ptr().wrapping_add(at).cast::<i8>();
    for line in 0..(n * size_of::<S>()).div_ceil(LINE) {
        // SAFETY: a hint, which faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE)) };
    }
}

/// Returns `N` of them.
///
/// # Safety
/// So many are there.
#[inline(always)]
pub(super) unsafe fn whole<S: Scale, const N: usize>(from: *const S) -> [f32; N] {
    // SAFETY: the caller's promise.
    let from = unsafe { &*from.cast::<[S; N]>() };
    let mut wide = [0.0; N];
    for i in 0..N {
        wide[i] = from[i].to_f32();
    }
    wide
}

/// Returns `N` of them, with zeros behind the last.
#[inline(never)]
pub(super) fn padded<S: Scale, const N: usize>(from: &[S]) -> [f32; N] {
    let mut wide = [0.0; N];
    for (wide, one) in wide.iter_mut().zip(from) {
        *wide = one.to_f32();
    }
    wide
}
