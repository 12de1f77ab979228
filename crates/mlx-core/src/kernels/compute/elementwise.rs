//! Sums and products of arrays of one shape.

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::rows::{for_each, rows_per_part};

/// What is done with two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elementwise {
    Add,
    Multiply,
}

/// Writes the results, computed in float32 and rounded once.
pub(crate) fn elementwise<T: Float>(
    isa: Isa,
    function: Elementwise,
    a: &[T],
    b: &[T],
    out: &mut [T],
) {
    let step = rows_per_part(out.len(), 1);
    let inputs = a.chunks(step).zip(b.chunks(step));
    for_each(inputs.zip(out.chunks_mut(step)), |((a, b), out)| part(isa, function, a, b, out));
}

multiversion! {
    fn part[T: Float] = part_body(function: Elementwise, a: &[T], b: &[T], out: &mut [T])
}

#[inline(always)]
fn part_body<S: Level, T: Float>(function: Elementwise, a: &[T], b: &[T], out: &mut [T]) {
    match function {
        Elementwise::Add => {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = T::from_f32(a.to_f32() + b.to_f32());
            }
        }
        Elementwise::Multiply => {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = T::from_f32(a.to_f32() * b.to_f32());
            }
        }
    }
}
