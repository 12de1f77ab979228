//! The strided view that integers and slices choose.

use super::bounds::Bounds;
use super::{Placed, Slice};
use crate::array::{Array, Sizes};
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;
use crate::ops::Reduce;

impl Slice {
    /// Resolves against an axis: first position, position after the last, number of positions.
    fn resolve(self, size: i32) -> Result<(i32, i32, i32)> {
        let Slice { start, stop, step } = self;
        if step == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "slice: step is zero"));
        }
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let clamp = |position: i32| {
            let position = if position < 0 { position.saturating_add(size) } else { position };
            position.clamp(low, high)
        };
        let start = start.map_or(if step > 0 { low } else { high }, clamp);
        let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
        let distance = i64::from(stop) - i64::from(start);
        let step = i64::from(step);
        let n = if distance.signum() == step.signum() {
            (distance + step - step.signum()) / step
        } else {
            0
        };
        Ok((start, stop, n as i32))
    }
}

/// A view being put together, axis by axis.
#[derive(Default)]
pub(crate) struct View {
    start: Sizes,
    stop: Sizes,
    step: Sizes,
    pub(super) is_partial: bool,
}

impl View {
    /// Puts a view without index arrays together, and the shape of the result: the view's without
    /// the axes of integers, and with the new ones.
    pub(in crate::array) fn new(items: &[Placed], shape: &[i32]) -> Result<(View, Sizes)> {
        let mut view = View::default();
        let mut result_shape = Sizes::new();
        for item in items {
            let size = shape.get(view.start.len()).copied().unwrap_or(0);
            match item {
                Placed::NewAxis => result_shape.push(1),
                Placed::Int(position) => {
                    view.push_one(Bounds::axis("index", size).position(*position)?);
                }
                Placed::Slice(slice) => result_shape.push(view.push(*slice, size)?),
                Placed::Array(_) | Placed::Mask(_) | Placed::Truth(_) | Placed::Nothing => {}
            }
        }
        Ok((view, result_shape))
    }

    pub(crate) fn push_one(&mut self, position: i32) {
        self.start.push(position);
        self.stop.push(position + 1);
        self.step.push(1);
        self.is_partial = true;
    }

    /// Adds a whole axis.
    pub(crate) fn push_all(&mut self, size: i32) {
        self.start.push(0);
        self.stop.push(size);
        self.step.push(1);
    }

    /// Adds the next axis and returns its size in the view.
    ///
    /// MLX computes with these numbers unchecked, so they go there resolved and small.
    pub(super) fn push(&mut self, slice: Slice, size: i32) -> Result<i32> {
        let (start, stop, n) = slice.resolve(size)?;
        self.is_partial |= (start, n, slice.step) != (0, size, 1);
        let (start, stop, step) = match n {
            0 => (0, 0, 1),
            1 => (start, start + 1, 1),
            // A negative stop counts from the end; before the first element is below all of it.
            _ if stop < 0 => (start, -size - 1, slice.step),
            _ => (start, stop, slice.step),
        };
        self.start.push(start);
        self.stop.push(stop);
        self.step.push(step);
        Ok(n)
    }

    /// Reads the view.
    pub(crate) fn of(&self, array: &Array) -> Result<Array> {
        debug_assert_eq!(self.start.len(), array.ndim());
        if !self.is_partial {
            return Ok(array.clone());
        }
        let View { start, stop, step, .. } = self;
        array_op!(mlx_slice, array, [start], [stop], [step])
    }

    /// Writes values that broadcast to the view.
    pub(in crate::array) fn update(
        &self,
        array: &Array,
        values: &Array,
        how: Reduce,
    ) -> Result<Array> {
        how.slice_update(array, values, &self.start, &self.stop, &self.step)
    }
}

/// Resolves slices, one for each axis, to what MLX computes with unchecked.
pub(crate) fn resolve_slices(
    op: &str,
    shape: &[i32],
    start: &[i32],
    stop: &[i32],
    strides: &[i32],
) -> Result<[Sizes; 3]> {
    if [start.len(), stop.len(), strides.len()] != [shape.len(); 3] {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{op}: {start:?}, {stop:?} and {strides:?} for shape {shape:?}"),
        ));
    }
    let mut view = View::default();
    for (axis, &size) in shape.iter().enumerate() {
        let slice = Slice { start: Some(start[axis]), stop: Some(stop[axis]), step: strides[axis] };
        view.push(slice, size)?;
    }
    Ok([view.start, view.stop, view.step])
}
