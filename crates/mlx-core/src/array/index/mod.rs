//! Reading with Python's indices: `x.at((.., -1, NewAxis, 0..4, &rows))?`.
//!
//! Integers and slices become one strided view (`view`); with index arrays and masks there is one
//! gather over it (`layout`, `mask`). An integer beside arrays counts as an array, as in NumPy.
//! Values of index arrays are kept in range by `bounds`, for all ops that take any.

pub(crate) mod bounds;
mod layout;
pub(crate) mod mask;
mod view;

use std::ops::{Range, RangeFrom, RangeFull, RangeTo, RangeToInclusive};

use smallvec::SmallVec;

use crate::array::{Array, Sizes};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

pub(crate) use bounds::Bounds;
pub(super) use layout::Layout;
pub(crate) use view::{View, resolve_slices};

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
}

/// One index.
///
/// ```
/// use mlx_core::{Array, IndexItem};
///
/// # fn main() -> mlx_core::Result<()> {
/// // As many axes as there are: the first element of each.
/// let x = Array::range(8)?.reshape([2, 2, 2])?;
/// let first: Vec<IndexItem> = vec![IndexItem::Int(0); x.ndim()];
/// assert_eq!(x.at(first)?.item::<i32>()?, 0);
/// # Ok(())
/// # }
/// ```
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
    /// A mask without axes: adds one, of size one or zero.
    Bool(bool),
    /// Positions in an integer array, or a mask.
    Array(Array),
}

impl IndexItem {
    /// Returns how many axes the item stands for; those of the ellipsis are what the others leave.
    fn n_axes(&self) -> usize {
        match self {
            IndexItem::NewAxis | IndexItem::Ellipsis | IndexItem::Bool(_) => 0,
            IndexItem::Int(_) | IndexItem::Slice(_) => 1,
            IndexItem::Array(mask) if is_mask(mask) => mask.ndim(),
            IndexItem::Array(_) => 1,
        }
    }
}

impl From<i32> for IndexItem {
    fn from(position: i32) -> Self {
        IndexItem::Int(position)
    }
}

impl From<bool> for IndexItem {
    fn from(truth: bool) -> Self {
        IndexItem::Bool(truth)
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
///
/// ```
/// use mlx_core::{Array, Ellipsis, NewAxis};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::range(6)?.reshape([2, 3])?;
/// assert_eq!(x.at((-1, 1..))?.to_vec::<i32>()?, [4, 5]);
/// assert_eq!(x.at((Ellipsis, NewAxis))?.shape(), [2, 3, 1]);
/// let columns = Array::from_slice(&[2, 0], &[2])?;
/// assert_eq!(x.at((.., &columns))?.to_vec::<i32>()?, [2, 0, 5, 3]);
/// # Ok(())
/// # }
/// ```
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

/// One index with the ellipsis written out.
pub(crate) enum Placed {
    Int(i32),
    Slice(Slice),
    NewAxis,
    /// Integers.
    Array(Array),
    /// Booleans, for as many axes as it has.
    Mask(Array),
    /// A mask without axes.
    Truth(bool),
    /// An ellipsis for no axis, which still stands between what is on either side of it.
    Nothing,
}

/// The whole index, without the heap for as many axes as there commonly are.
pub(crate) type PlacedItems = SmallVec<[Placed; 8]>;

impl Placed {
    fn removes_axis(&self) -> bool {
        matches!(self, Placed::Int(_))
    }

    /// Tells whether the index is a view only if this item is not there.
    pub(crate) fn is_array(&self) -> bool {
        matches!(self, Placed::Array(_) | Placed::Mask(_) | Placed::Truth(_))
    }
}

impl Array {
    /// Reads a part of the array, with NumPy's meaning of the indices.
    ///
    /// Integers and slices make a view; index arrays copy. A mask, a boolean array of the shape of
    /// the axes that it stands for, means the positions of its true elements. How many these are
    /// decides the shape of the result, so a mask is computed at once; it is the one index that is.
    /// DIFFERENCE: MLX in Python does not read by masks.
    ///
    /// ```
    /// use mlx_core::{Array, NewAxis};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::range(6)?.reshape([2, 3])?;
    /// assert_eq!(x.at((-1, 1..))?.to_vec::<i32>()?, [4, 5]);
    /// assert_eq!(x.at((NewAxis, .., 0))?.shape(), [1, 2]);
    /// assert_eq!(x.at(x.greater(3)?)?.to_vec::<i32>()?, [4, 5]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there are more indices than axes, an integer is out of range, a step is zero, index
    /// arrays are neither integers nor booleans or do not broadcast, or a mask has another shape.
    /// DIFFERENCE: MLX in Python does not check integers. Values of index arrays that the host has
    /// at hand are checked too; others that are out of range mean the nearest element.
    pub fn at(&self, index: impl Index) -> Result<Array> {
        let items = index.into_items();
        // The most common index array needs none of what follows.
        if let ([IndexItem::Array(rows)], Some(&size)) = (&items[..], self.shape().first())
            && !is_mask(rows)
        {
            let rows = &Bounds::axis("index", size).apply(rows)?;
            return array_op!(mlx_take_axis, self, rows, 0);
        }
        let items = place(items, self.ndim())?;
        if items.iter().any(Placed::is_array) {
            return Layout::new(items, self.shape())?.read(self);
        }
        let (view, shape) = View::new(&items, self.shape())?;
        let result = view.of(self)?;
        if *result.shape() == *shape {
            return Ok(result);
        }
        if shape.len() + items.iter().filter(|item| item.removes_axis()).count() != self.ndim() {
            return result.reshape(shape);
        }
        let of_axes = items.iter().filter(|item| !matches!(item, Placed::Nothing));
        let removed = of_axes.zip(0..).filter(|(item, _)| item.removes_axis());
        let axes: Sizes = removed.map(|(_, axis)| axis).collect();
        result.squeeze(&axes[..])
    }
}

fn is_mask(array: &Array) -> bool {
    array.dtype() == Dtype::Bool
}

/// Writes out the ellipsis and adds full slices for the axes after the last index.
pub(crate) fn place(items: Vec<IndexItem>, ndim: usize) -> Result<PlacedItems> {
    let n_axes = items.iter().map(IndexItem::n_axes).sum::<usize>();
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
    let mut placed = PlacedItems::with_capacity(items.len() + ndim - n_axes);
    for item in items {
        placed.push(match item {
            IndexItem::Int(position) => Placed::Int(position),
            IndexItem::Slice(slice) => Placed::Slice(slice),
            IndexItem::NewAxis => Placed::NewAxis,
            IndexItem::Bool(truth) => Placed::Truth(truth),
            IndexItem::Array(mask) if is_mask(&mask) && mask.ndim() == 0 => {
                Placed::Truth(mask.item()?)
            }
            IndexItem::Array(mask) if is_mask(&mask) => Placed::Mask(mask),
            IndexItem::Array(array) => Placed::Array(array),
            IndexItem::Ellipsis if n_axes == ndim => Placed::Nothing,
            IndexItem::Ellipsis => {
                placed.extend(full());
                continue;
            }
        });
    }
    if n_ellipses == 0 {
        placed.extend(full());
    }
    Ok(placed)
}
