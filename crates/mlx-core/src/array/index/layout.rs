//! An index with index arrays, integers beside them, and masks: one gather or scatter over a view.
//!
//! Of the result, the axes that all index arrays broadcast to stand in place of the arrays where
//! these are side by side, else in front. NumPy looks at the written order: anything between the
//! first and the last array counts, also a new axis and an ellipsis for no axis.

use super::bounds::Bounds;
use super::view::View;
use super::{Placed, PlacedItems, mask};
use crate::array::Array;
use crate::array::update::fit;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op};
use crate::ops::Reduce;

/// Of the result: an axis of the view, a new axis, the place of an index array, or an empty one.
enum Part {
    Axis(usize),
    New,
    Array,
    Nothing,
}

/// What an index with index arrays chooses.
pub(in crate::array) struct Layout {
    /// What slices choose; index arrays take from whole axes of it.
    view: View,
    /// Of each axis of the view what one index leaves: all of it, or 1 where an array takes from it.
    sizes: Vec<i32>,
    /// Index arrays that broadcast to `index_shape`, and their axes.
    arrays: Vec<Array>,
    axes: Vec<i32>,
    index_shape: Vec<i32>,
    /// Where each axis of the result comes from: first those of the index, then those of the view.
    /// The axes that arrays take from, of size one by then, are last and not in `shape`.
    order: Vec<i32>,
    /// Shape of the result, and its axes that are not new.
    shape: Vec<i32>,
    kept: Vec<usize>,
    /// Whether the axes of the index stand in place of the arrays.
    together: bool,
}

impl Layout {
    pub(in crate::array) fn new(items: PlacedItems, shape: &[i32]) -> Result<Layout> {
        let mut view = View::default();
        let mut sizes = Vec::with_capacity(shape.len());
        let (mut arrays, mut axes) = (Vec::new(), Vec::new());
        let mut parts = Vec::with_capacity(items.len());
        let mut truth = None;
        for item in items {
            let axis = sizes.len();
            let size = shape.get(axis).copied().unwrap_or(0);
            let bounds = Bounds::axis("index", size);
            let mut take = |array: Array, size: i32| {
                view.push_all(size);
                axes.push(sizes.len() as i32);
                sizes.push(1);
                arrays.push(array);
            };
            match item {
                Placed::NewAxis => {
                    parts.push(Part::New);
                    continue;
                }
                Placed::Nothing => {
                    parts.push(Part::Nothing);
                    continue;
                }
                Placed::Slice(slice) => {
                    sizes.push(view.push(slice, size)?);
                    parts.push(Part::Axis(axis));
                    continue;
                }
                Placed::Int(position) => take(Array::from(bounds.position(position)?), size),
                Placed::Array(indices) => take(bounds.apply(&indices)?, size),
                Placed::Mask(mask) => {
                    mask::check_shape(&mask, shape, axis)?;
                    let positions = mask::positions(&mask)?.into_iter();
                    positions.zip(mask.shape()).for_each(|(array, &size)| take(array, size));
                }
                Placed::Truth(value) => truth = Some(value && truth.unwrap_or(true)),
            }
            parts.push(Part::Array);
        }
        let index_shape = unite(&mut arrays, truth)?;
        let mut layout = Layout {
            view,
            sizes,
            arrays,
            axes,
            index_shape,
            order: Vec::new(),
            shape: Vec::new(),
            kept: Vec::new(),
            together: false,
        };
        layout.arrange(&parts);
        Ok(layout)
    }

    /// Finds order and shape of the result.
    fn arrange(&mut self, parts: &[Part]) {
        let is_array = |part: &Part| matches!(part, Part::Array);
        let first = parts.iter().position(is_array).unwrap_or(0);
        let last = parts.iter().rposition(is_array).unwrap_or(0);
        let together = parts[first..=last].iter().all(is_array);
        self.together = together;
        let n_index = self.index_shape.len();
        if !together {
            (0..n_index).for_each(|axis| self.keep(axis, self.index_shape[axis]));
        }
        for (i, part) in parts.iter().enumerate() {
            match part {
                Part::Axis(axis) => self.keep(n_index + axis, self.sizes[*axis]),
                Part::New => self.shape.push(1),
                Part::Array if together && i == first => {
                    (0..n_index).for_each(|axis| self.keep(axis, self.index_shape[axis]));
                }
                Part::Array | Part::Nothing => {}
            }
        }
        self.order.extend(self.axes.iter().map(|axis| n_index as i32 + axis));
    }

    /// Adds an axis to the result that comes from `axis`.
    fn keep(&mut self, axis: usize, size: i32) {
        self.kept.push(self.shape.len());
        self.order.push(axis as i32);
        self.shape.push(size);
    }

    pub(super) fn read(&self, array: &Array) -> Result<Array> {
        if self.arrays.is_empty() && self.index_shape == [0] {
            return crate::ops::zeros(&self.shape, array.dtype());
        }
        let view = &self.view.of(array)?;
        if self.arrays.is_empty() {
            return view.reshape(&self.shape);
        }
        if let ([indices], [axis], true) = (&self.arrays[..], &self.axes[..], self.together) {
            let taken = array_op!(mlx_take_axis, view, indices, (*axis))?;
            return shaped(taken, &self.shape);
        }
        let (axes, sizes) = (&self.axes, &self.sizes);
        let indices = &ArrayVec::new(&self.arrays)?;
        let gathered = array_op!(mlx_gather, view, indices, [axes], [sizes])?;
        let ordered = if self.is_ordered() { gathered } else { gathered.transpose(&self.order)? };
        shaped(ordered, &self.shape)
    }

    pub(in crate::array) fn write(
        &self,
        array: &Array,
        value: &Array,
        how: Reduce,
    ) -> Result<Array> {
        let value = fit(value, &self.shape)?;
        if self.shape.contains(&0) {
            return Ok(array.clone());
        }
        // The value stays as small as it came until its axes are in the order of the scatter.
        let mut small: Vec<i32> = self.kept.iter().map(|&axis| value.shape()[axis]).collect();
        small.resize(self.order.len(), 1);
        let mut back = vec![0; self.order.len()];
        self.order.iter().zip(0..).for_each(|(&axis, i)| back[axis as usize] = i);
        let value = shaped(value, &small)?;
        let value = if self.is_ordered() { value } else { value.transpose(back)? };
        if self.arrays.is_empty() {
            return self.view.update(array, &value.squeeze(0)?, how);
        }
        let sizes: Vec<i32> = self.index_shape.iter().chain(&self.sizes).copied().collect();
        let updates = value.broadcast_to(sizes)?;
        if !self.view.is_partial {
            return how.scatter(array, &self.arrays, &updates, &self.axes);
        }
        let view = self.view.of(array)?;
        let view = how.scatter(&view, &self.arrays, &updates, &self.axes)?;
        self.view.update(array, &view, Reduce::Set)
    }

    fn is_ordered(&self) -> bool {
        self.order.iter().zip(0..).all(|(&axis, i)| axis == i)
    }
}

fn shaped(array: Array, shape: &[i32]) -> Result<Array> {
    if array.shape() == shape { Ok(array) } else { array.reshape(shape) }
}

/// Makes index arrays that MLX promotes to integers, and returns the shape that they broadcast to;
/// a truth value stands for an array of one position or of none.
fn unite(arrays: &mut [Array], truth: Option<bool>) -> Result<Vec<i32>> {
    let truth_shape = truth.map(|truth| [i32::from(truth)]);
    let shapes = || arrays.iter().map(Array::shape).chain(truth_shape.as_ref().map(|s| &s[..]));
    let shape = broadcast_shapes(shapes()).ok_or_else(|| {
        let shapes: Vec<&[i32]> = shapes().collect();
        let text = format!("index: arrays of shapes {shapes:?} do not broadcast");
        Error::new(ErrorKind::InvalidArgument, text)
    })?;
    if arrays.len() > 1 {
        // Beside a signed dtype uint64 would become a float; in bounds it fits.
        for array in arrays.iter_mut().filter(|array| array.dtype() == Dtype::Uint64) {
            *array = array.astype(Dtype::Int64)?;
        }
    }
    if let (Some(first), Some(_)) = (arrays.first_mut(), truth) {
        *first = first.broadcast_to(&shape)?;
    }
    Ok(shape)
}

fn broadcast_shapes<'a>(shapes: impl Iterator<Item = &'a [i32]>) -> Option<Vec<i32>> {
    let mut result: Vec<i32> = Vec::new();
    for shape in shapes {
        if shape.len() > result.len() {
            let lead = shape.len() - result.len();
            result.splice(..0, shape[..lead].iter().copied());
        }
        let lead = result.len() - shape.len();
        for (size, &other) in result[lead..].iter_mut().zip(shape) {
            match (*size, other) {
                (1, other) => *size = other,
                (size, other) if other == 1 || other == size => {}
                _ => return None,
            }
        }
    }
    Some(result)
}
