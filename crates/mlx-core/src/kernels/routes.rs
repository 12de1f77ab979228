//! Index arrays of kernels that choose from stacks of matrices.

use super::compute::routes::Routes;
use crate::array::Array;
use crate::array::index::Bounds;
use crate::array::index::bounds::integers;
use crate::error::Result;
use crate::ffi::HostInput;
use crate::ops::broadcast_shapes;

/// Indices into the stacks of both sides; of a side without any, all of it is taken.
pub(super) type Indices<T> = [Option<T>; 2];

/// The axes of a stack.
fn batch(shape: &[i32]) -> &[i32] {
    &shape[..shape.len().saturating_sub(2)]
}

fn count(shape: &[i32]) -> usize {
    shape.iter().map(|&size| size as usize).product()
}

/// Returns the shape `[A…, 1…, 1, K]` in which rows `[A…, K]` are matrices of one row each that go with
/// indices of so many axes.
pub(super) fn as_matrices(rows: &[i32], n_axes: usize) -> Vec<i32> {
    let (batch, last) = rows.split_at(rows.len().saturating_sub(1));
    let ones = vec![1; n_axes.saturating_sub(batch.len()) + 1];
    [batch, &ones, last].concat()
}

/// Returns the axes that indices into the stacks of shapes `x` and `w` broadcast to.
///
/// # Errors
/// When they do not, are no integers, or the host has one at hand that is out of range.
pub(super) fn places(op: &str, x: &[i32], w: &[i32], indices: Indices<&Array>) -> Result<Vec<i32>> {
    let mut shapes = Vec::new();
    for (stack, indices) in [x, w].into_iter().zip(indices) {
        let batch = batch(stack);
        if let Some(indices) = indices {
            let size = i32::try_from(count(batch)).unwrap_or(i32::MAX);
            Bounds { op, size, slice: 1, from_end: false }.check_known(indices)?;
        }
        shapes.push(indices.map_or(batch, |indices| indices.shape()));
    }
    broadcast_shapes(shapes)
}

/// Returns which rows of `x: [A…, M, …]` go to which matrix of `w: [B…, …, …]`, for a result
/// `[I…, M, …]`, where indices, or else the places in `A…` and `B…`, broadcast to `I…`.
///
/// An index that is out of range means the nearest that is not: the host did not know it when it made
/// the node.
///
/// # Errors
/// When shapes do not fit.
pub(super) fn routes(
    x: &[i32],
    w: &[i32],
    [lhs, rhs]: Indices<&HostInput<'_>>,
    out: &[i32],
) -> std::result::Result<Routes, String> {
    let (to, m) = (batch(out), x.iter().rev().nth(1).map_or(0, |&m| m as usize));
    let blocks = chosen(lhs, batch(x), to)?;
    let matrices = chosen(rhs, batch(w), to)?;
    let pairs: Vec<_> = blocks.into_iter().zip(matrices).map(|(a, b)| [a, b]).collect();
    Routes::new(&pairs, m, count(batch(x)), count(batch(w)))
}

/// Returns the place in a stack for each place of `to`.
fn chosen(
    indices: Option<&HostInput<'_>>,
    stack: &[i32],
    to: &[i32],
) -> std::result::Result<Vec<usize>, String> {
    let Some(indices) = indices else { return spread(stack, to) };
    let values = integers(indices.bytes, indices.dtype);
    if values.len() != count(indices.shape) {
        return Err(format!("indices of {}", indices.dtype));
    }
    let last = count(stack).checked_sub(1).ok_or("nothing to choose from")?;
    let places = spread(indices.shape, to)?;
    Ok(places.into_iter().map(|place| (values[place].max(0) as usize).min(last)).collect())
}

/// Returns the place in an array of the shape `from` for each place of `to`, to which it broadcasts.
fn spread(from: &[i32], to: &[i32]) -> std::result::Result<Vec<usize>, String> {
    let mut places = vec![0];
    let missing = to.len().checked_sub(from.len()).ok_or("more axes of indices than of results")?;
    for (i, &size) in to.iter().enumerate() {
        let own = if i < missing { 1 } else { from[i - missing] };
        if own != 1 && own != size {
            return Err(format!("indices {from:?} for results {to:?}"));
        }
        let step =
            |place: usize, j: i32| place * own as usize + if own == 1 { 0 } else { j as usize };
        places = places.iter().flat_map(|&place| (0..size).map(move |j| step(place, j))).collect();
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_matrices() {
        assert_eq!(as_matrices(&[2, 3, 8], 3), [2, 3, 1, 1, 8]);
        assert_eq!(as_matrices(&[2, 3, 4, 8], 3), [2, 3, 4, 1, 8]);
        assert_eq!(as_matrices(&[8], 1), [1, 1, 8]);
    }

    #[test]
    fn places_spread_as_arrays_broadcast() {
        assert_eq!(spread(&[], &[]), Ok(vec![0]));
        assert_eq!(spread(&[3], &[3]), Ok(vec![0, 1, 2]));
        assert_eq!(spread(&[3], &[2, 3]), Ok(vec![0, 1, 2, 0, 1, 2]));
        assert_eq!(spread(&[2, 1], &[2, 3]), Ok(vec![0, 0, 0, 1, 1, 1]));
        assert_eq!(spread(&[2, 1, 2], &[2, 2, 2]), Ok(vec![0, 1, 0, 1, 2, 3, 2, 3]));
        assert_eq!(spread(&[1], &[2, 0]), Ok(vec![]));
        assert!(spread(&[2], &[3]).is_err());
        assert!(spread(&[1, 1], &[1]).is_err());
    }
}
