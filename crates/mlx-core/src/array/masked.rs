//! Writing by a mask without computing it.
//!
//! Old and new are both there and the mask chooses. Values for the true elements are spread over
//! the masked axes first: the k-th true element takes the k-th value, and k is a running sum of the
//! mask. MLX's own masked scatter does the same in one step, but its gradient writes behind the end
//! of the values.

use super::index::{bounds, mask};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;
use crate::ops::{Reduce, Scan, where_};

/// Writes `value` where `mask` is true, which stands for axes from `axis` on.
pub(crate) fn write(
    array: &Array,
    mask: &Array,
    axis: usize,
    value: &Array,
    how: Reduce,
) -> Result<Array> {
    let shape = array.shape();
    mask::check_shape(mask, shape, axis)?;
    let (before, after) = (&shape[..axis], &shape[axis + mask.ndim()..]);
    let value = fit(value, before, after)?;
    let n_values = value.shape()[axis];
    let new = if n_values == 1 {
        let (lead, rest) = value.shape().split_at(axis);
        value.reshape([lead, &vec![1; mask.ndim()], &rest[1..]].concat())?
    } else {
        check_count(mask, n_values)?;
        if n_values == 0 || mask.size() == 0 {
            return Ok(array.clone());
        }
        spread(mask, axis, &value.broadcast_to([before, &[n_values], after].concat())?)?
            .reshape(shape)?
    };
    let chosen = [&vec![1; before.len()], mask.shape(), &vec![1; after.len()]].concat();
    where_(&mask.reshape(chosen)?, &how.apply(array, &new)?, array)
}

/// Gives a value the axes `before`, one for the true elements, and `after`.
fn fit(value: &Array, before: &[i32], after: &[i32]) -> Result<Array> {
    let ndim = before.len() + 1 + after.len();
    let surplus = value.ndim().saturating_sub(ndim);
    let (lead, rest) = value.shape().split_at(surplus);
    let sizes = [&vec![1; ndim - rest.len()][..], rest].concat();
    let (true_axis, mut to) = (before.len(), [before, &[1], after].concat());
    to[true_axis] = sizes[true_axis];
    let fits = sizes.iter().zip(&to).all(|(&size, &to)| size == 1 || size == to);
    if !fits || lead.iter().any(|&size| size != 1) {
        let text = format!(
            "index: value of shape {:?} for {before:?} + [true] + {after:?}",
            value.shape()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    value.reshape(sizes)
}

/// Fails where it is already known that there is not one value for each true element.
fn check_count(mask: &Array, n_values: i32) -> Result<()> {
    let fits = match bounds::host_bytes(mask)? {
        Some(bytes) => bytes.iter().filter(|&&byte| byte != 0).count() == n_values as usize,
        // More than one value is never right for a mask without axes.
        None => n_values == 0 || (mask.ndim() > 0 && mask.size() > 0),
    };
    if fits {
        return Ok(());
    }
    let text = format!("index: {n_values} values for mask {mask:?}");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Takes for each element of the mask the value whose turn it is.
fn spread(mask: &Array, axis: usize, values: &Array) -> Result<Array> {
    let last = values.dim(axis as i32)? - 1;
    let flat = mask.reshape([-1])?.astype(Dtype::Int32)?;
    let turn = flat.cumsum(0, Scan::default())?.subtract(1)?.maximum(0)?.minimum(last)?;
    // A mask that was made of what a gradient is taken by has none itself, which MLX has to be told.
    let turn = &turn;
    let (turn, axis) = (&array_op!(mlx_stop_gradient, turn)?, axis as i32);
    array_op!(mlx_take_axis, values, turn, axis)
}
