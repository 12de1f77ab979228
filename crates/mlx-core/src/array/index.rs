//! Reading with Python's indices: `x.at((.., -1, NewAxis, 0..4, &rows))?`.
//!
//! Integers and slices become one strided view; index arrays become one gather over it, with
//! NumPy's rule for where the broadcast axes go: in place of the arrays where these stand side by
//! side, else in front. An integer beside arrays counts as an array, as in NumPy.

use std::ops::{Range, RangeFrom, RangeFull, RangeTo, RangeToInclusive};

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

/// Adds an axis of size one. Python: `None` or `newaxis`.
#[derive(Clone, Copy, Debug)]
pub struct NewAxis;

/// Stands for all axes not named. Python: `...`.
#[derive(Clone, Copy, Debug)]
pub struct Ellipsis;

/// A slice with a step. Python: `start:stop:step`.
///
/// ```
/// use mlx_core::{Array, Slice};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::range(5)?;
/// assert_eq!(x.at(Slice::step(-2))?.to_vec::<i32>()?, [4, 2, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// First position; `None` is the end that the step comes from.
    pub start: Option<i32>,
    /// Position after the last; `None` is the end that the step goes to.
    pub stop: Option<i32>,
    /// Distance between positions; not zero.
    pub step: i32,
}

impl Slice {
    /// Makes a slice of a whole axis with a step.
    pub fn step(step: i32) -> Slice {
        Slice { start: None, stop: None, step }
    }

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

/// One index.
#[derive(Clone, Debug)]
pub enum IndexItem {
    /// A position; removes the axis.
    Int(i32),
    /// A range of positions.
    Slice(Slice),
    /// A new axis.
    NewAxis,
    /// All axes not named.
    Ellipsis,
    /// Positions in an integer array.
    Array(Array),
}

impl From<i32> for IndexItem {
    fn from(position: i32) -> Self {
        IndexItem::Int(position)
    }
}

impl From<NewAxis> for IndexItem {
    fn from(_: NewAxis) -> Self {
        IndexItem::NewAxis
    }
}

impl From<Ellipsis> for IndexItem {
    fn from(_: Ellipsis) -> Self {
        IndexItem::Ellipsis
    }
}

impl From<Slice> for IndexItem {
    fn from(slice: Slice) -> Self {
        IndexItem::Slice(slice)
    }
}

impl From<Array> for IndexItem {
    fn from(indices: Array) -> Self {
        IndexItem::Array(indices)
    }
}

impl From<&Array> for IndexItem {
    fn from(indices: &Array) -> Self {
        IndexItem::Array(indices.clone())
    }
}

macro_rules! ranges {
    ($($t:ty: |$r:ident| $start:expr, $stop:expr;)*) => {
        $(impl From<$t> for IndexItem {
            fn from($r: $t) -> Self {
                IndexItem::Slice(Slice { start: $start, stop: $stop, step: 1 })
            }
        })*
    };
}

ranges! {
    RangeFull: |_r| None, None;
    Range<i32>: |r| Some(r.start), Some(r.end);
    RangeFrom<i32>: |r| Some(r.start), None;
    RangeTo<i32>: |r| None, Some(r.end);
    RangeToInclusive<i32>: |r| None, (r.end != -1).then_some(r.end + 1);
}

/// One index or a tuple of up to eight.
pub trait Index {
    /// Returns the indices in order.
    fn into_items(self) -> Vec<IndexItem>;
}

impl<T: Into<IndexItem>> Index for T {
    fn into_items(self) -> Vec<IndexItem> {
        vec![self.into()]
    }
}

impl Index for Vec<IndexItem> {
    fn into_items(self) -> Vec<IndexItem> {
        self
    }
}

macro_rules! tuples {
    ($(($($t:ident),*))*) => {
        $(impl<$($t: Into<IndexItem>),*> Index for ($($t,)*) {
            #[allow(non_snake_case)]
            fn into_items(self) -> Vec<IndexItem> {
                let ($($t,)*) = self;
                vec![$($t.into()),*]
            }
        })*
    };
}

tuples! {
    (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F)
    (A, B, C, D, E, F, G) (A, B, C, D, E, F, G, H)
}

/// An index with its axis, the ellipsis written out.
enum Placed {
    Int(i32),
    Slice(Slice),
    NewAxis,
    Array(Array),
}

impl Array {
    /// Reads a part of the array, with Python's meaning of the indices.
    ///
    /// Integers and slices make a view; index arrays copy.
    ///
    /// # Errors
    /// When there are more indices than axes, an integer is out of range, a step is zero, or index
    /// arrays are not integers or do not broadcast. DIFFERENCE: MLX in Python does not check integers.
    pub fn at(&self, index: impl Index) -> Result<Array> {
        let shape = self.shape().to_vec();
        let items = place(index.into_items(), shape.len())?;
        if items.iter().any(|item| matches!(item, Placed::Array(_))) {
            return self.at_arrays(items, &shape);
        }
        let (view, result_shape, _) = View::new(&items, &shape)?;
        let result = view.of(self, &shape)?;
        if result.shape() == result_shape { Ok(result) } else { result.reshape(&result_shape) }
    }

    fn at_arrays(&self, items: Vec<Placed>, shape: &[i32]) -> Result<Array> {
        let mut view = View::default();
        // Of the sliced array: size of each axis, or the index array that takes from it.
        let mut axes: Vec<(i32, Option<Array>)> = Vec::new();
        // Of the result before the gathered axes: axis of the sliced array, new axis, or gathered.
        enum Part {
            Axis(usize),
            New,
            Gathered,
        }
        let mut parts = Vec::new();
        for item in items {
            let axis = view.start.len();
            let size = shape.get(axis).copied().unwrap_or(0);
            match item {
                Placed::NewAxis => parts.push(Part::New),
                Placed::Slice(slice) => {
                    axes.push((view.push(slice, size)?, None));
                    parts.push(Part::Axis(axis));
                }
                Placed::Int(position) => {
                    view.push(Slice::step(1), size)?;
                    axes.push((size, Some(Array::from(check_position(position, size)?))));
                    parts.push(Part::Gathered);
                }
                Placed::Array(indices) => {
                    view.push(Slice::step(1), size)?;
                    axes.push((size, Some(from_end(&indices, size)?)));
                    parts.push(Part::Gathered);
                }
            }
        }
        let sliced = view.of(self, shape)?;
        let (mut indices, mut gather_axes, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for (axis, (size, array)) in axes.iter().enumerate() {
            sizes.push(if array.is_some() { 1 } else { *size });
            if let Some(array) = array {
                indices.push(array.clone());
                gather_axes.push(axis as i32);
            }
        }
        // [I…, one size per axis of the sliced array]
        let gathered = sliced.gather(&indices, &gather_axes, &sizes)?;
        let n_index = gathered.ndim() - sizes.len();
        let index_shape = gathered.shape()[..n_index].to_vec();

        // NumPy looks at the written order: anything between the first and the last index array,
        // a new axis too, sends the broadcast axes to the front.
        let first = parts.iter().position(|p| matches!(p, Part::Gathered)).unwrap_or(0);
        let last = parts.iter().rposition(|p| matches!(p, Part::Gathered)).unwrap_or(0);
        let adjacent = parts[first..=last].iter().all(|p| matches!(p, Part::Gathered));

        let mut order: Vec<i32> = Vec::new();
        let mut result_shape: Vec<i32> = Vec::new();
        let index_axes = |order: &mut Vec<i32>, result_shape: &mut Vec<i32>| {
            order.extend(0..n_index as i32);
            result_shape.extend(&index_shape);
        };
        if !adjacent {
            index_axes(&mut order, &mut result_shape);
        }
        for (i, part) in parts.iter().enumerate() {
            match part {
                Part::Axis(axis) => {
                    order.push((n_index + axis) as i32);
                    result_shape.push(sizes[*axis]);
                }
                Part::New => result_shape.push(1),
                Part::Gathered if adjacent && i == first => {
                    index_axes(&mut order, &mut result_shape);
                }
                Part::Gathered => {}
            }
        }
        // The gathered axes have size one and go last, where the reshape drops them.
        order.extend(gather_axes.iter().map(|axis| n_index as i32 + axis));
        gathered.transpose(&order)?.reshape(&result_shape)
    }
}

/// A strided view being put together, axis by axis.
#[derive(Default)]
struct View {
    start: Vec<i32>,
    stop: Vec<i32>,
    step: Vec<i32>,
    is_partial: bool,
}

impl View {
    /// Puts a view without index arrays together: with it, the shape of what is chosen and the same
    /// with the axes that integers and new axes make away with and add.
    fn new(items: &[Placed], shape: &[i32]) -> Result<(View, Vec<i32>, Vec<i32>)> {
        let mut view = View::default();
        let (mut result_shape, mut view_shape) = (Vec::new(), Vec::new());
        for item in items {
            let size = shape.get(view.start.len()).copied().unwrap_or(0);
            match item {
                Placed::NewAxis => result_shape.push(1),
                Placed::Int(position) => {
                    view.push_one(check_position(*position, size)?);
                    view_shape.push(1);
                }
                Placed::Slice(slice) => {
                    let n = view.push(*slice, size)?;
                    result_shape.push(n);
                    view_shape.push(n);
                }
                Placed::Array(_) => {}
            }
        }
        Ok((view, result_shape, view_shape))
    }

    fn push_one(&mut self, position: i32) {
        self.start.push(position);
        self.stop.push(position + 1);
        self.step.push(1);
        self.is_partial = true;
    }

    /// Adds the next axis and returns its size in the view.
    ///
    /// MLX computes with these numbers unchecked, so they go there resolved and small.
    fn push(&mut self, slice: Slice, size: i32) -> Result<i32> {
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

    fn of(&self, array: &Array, shape: &[i32]) -> Result<Array> {
        debug_assert_eq!(self.start.len(), shape.len());
        if !self.is_partial {
            return Ok(array.clone());
        }
        let View { start, stop, step, .. } = self;
        array_op!(mlx_slice, array, [start], [stop], [step])
    }
}

/// Resolves slices, one for each axis, to what MLX computes with unchecked.
pub(crate) fn resolve_slices(
    op: &str,
    shape: &[i32],
    start: &[i32],
    stop: &[i32],
    strides: &[i32],
) -> Result<[Vec<i32>; 3]> {
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

/// What an index chooses, for an update.
pub(super) enum Chosen {
    /// A strided view of `view_shape`; written as an index, of `shape`.
    View { start: Vec<i32>, stop: Vec<i32>, step: Vec<i32>, view_shape: Vec<i32>, shape: Vec<i32> },
    /// Positions in the flat array.
    Positions(Array),
}

impl Chosen {
    pub(super) fn of(array: &Array, items: Vec<IndexItem>) -> Result<Chosen> {
        if items.iter().any(|item| matches!(item, IndexItem::Array(_))) {
            return Ok(Chosen::Positions(super::update::positions(array.shape())?.at(items)?));
        }
        let placed = place(items, array.ndim())?;
        let (View { start, stop, step, .. }, shape, view_shape) =
            View::new(&placed, array.shape())?;
        Ok(Chosen::View { start, stop, step, view_shape, shape })
    }

    pub(super) fn shape(&self) -> &[i32] {
        match self {
            Chosen::View { shape, .. } => shape,
            Chosen::Positions(positions) => positions.shape(),
        }
    }
}

fn check_position(position: i32, size: i32) -> Result<i32> {
    let resolved = if position < 0 { position + size } else { position };
    if (0..size).contains(&resolved) {
        return Ok(resolved);
    }
    Err(Error::new(
        ErrorKind::OutOfRange,
        format!("index: {position} is out of range for an axis of size {size}"),
    ))
}

/// Lets negative values of an index array count from the end.
fn from_end(indices: &Array, size: i32) -> Result<Array> {
    match indices.dtype() {
        dtype if !dtype.is_integer() => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("index: array of {dtype}, expected integers"),
        )),
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64 => Ok(indices.clone()),
        // A narrow dtype need not hold the size.
        Dtype::Int32 | Dtype::Int64 => {
            crate::ops::where_(&indices.less(0)?, &indices.add(size)?, indices)
        }
        _ => from_end(&indices.astype(Dtype::Int32)?, size),
    }
}

/// Writes out the ellipsis and adds full slices for the axes after the last index.
fn place(items: Vec<IndexItem>, ndim: usize) -> Result<Vec<Placed>> {
    let n_axes =
        items.iter().filter(|i| !matches!(i, IndexItem::NewAxis | IndexItem::Ellipsis)).count();
    let n_ellipses = items.iter().filter(|i| matches!(i, IndexItem::Ellipsis)).count();
    if n_ellipses > 1 {
        return Err(Error::new(ErrorKind::InvalidArgument, "index: more than one ellipsis"));
    }
    if n_axes > ndim {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("index: {n_axes} indices for {ndim} axes"),
        ));
    }
    let full = || std::iter::repeat_with(|| Placed::Slice(Slice::step(1))).take(ndim - n_axes);
    let mut placed = Vec::new();
    for item in items {
        match item {
            IndexItem::Int(position) => placed.push(Placed::Int(position)),
            IndexItem::Slice(slice) => placed.push(Placed::Slice(slice)),
            IndexItem::NewAxis => placed.push(Placed::NewAxis),
            IndexItem::Array(array) => placed.push(Placed::Array(array)),
            IndexItem::Ellipsis => placed.extend(full()),
        }
    }
    if n_ellipses == 0 {
        placed.extend(full());
    }
    Ok(placed)
}
