//! Shape: reshaping, reordering, joining, splitting, repeating.

use std::ffi::CStr;

use super::unary_methods;
use crate::array::{Array, Axes, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayVec, array_op, c_call, vec_op};

unary_methods! {
    atleast_1d, mlx_atleast_1d, "Adds axes of size one until there is at least one.";
    atleast_2d, mlx_atleast_2d, "Adds axes of size one until there are at least two.";
    atleast_3d, mlx_atleast_3d, "Adds axes of size one until there are at least three.";
}

/// What [`Array::pad_mode`] puts beside the edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// The element at the edge.
    Edge,
    /// The elements before the edge in reverse order, without that at the edge.
    Reflect,
    /// The elements before the edge in reverse order, with that at the edge.
    Symmetric,
}

/// Options of [`meshgrid`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meshgrid {
    /// Leaves axes of size one instead of repeating.
    pub sparse: bool,
    /// Gives the first array the first axis; else the second, as for plots. Python: `indexing="ij"`.
    pub matrix: bool,
}

impl Array {
    /// Reads the elements in row-major order with another shape; one size may be -1.
    ///
    /// # Shape
    /// `[…]` → `shape`, with what is left over in place of -1
    ///
    /// # Errors
    /// When the number of elements differs.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// assert_eq!(Array::range(6)?.reshape([2, -1])?.shape(), [2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reshape(&self, shape: impl AsRef<[i32]>) -> Result<Array> {
        let shape = shape.as_ref();
        array_op!(mlx_reshape, self, [shape])
    }

    /// Joins the axes from `start` to `end`, both included, into one.
    ///
    /// # Shape
    /// `[B, L, D]`, axes 1 to 2 → `[B, L * D]`
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn flatten(&self, start: i32, end: i32) -> Result<Array> {
        array_op!(mlx_flatten, self, start, end)
    }

    /// Splits an axis into several; one size may be -1.
    ///
    /// # Shape
    /// `[B, L * D]`, axis 1 into `[L, D]` → `[B, L, D]`
    ///
    /// # Errors
    /// When the sizes do not multiply to the axis.
    pub fn unflatten(&self, axis: i32, shape: impl AsRef<[i32]>) -> Result<Array> {
        let shape = shape.as_ref();
        // MLX divides by the product of the other sizes, in 32 bits.
        let others = shape.iter().filter(|&&size| size != -1);
        if !others.map(|&size| i64::from(size)).try_fold(1, i64::checked_mul).is_some_and(|n| {
            (1..=i64::from(i32::MAX)).contains(&n) || (n == 0 && !shape.contains(&-1))
        }) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("unflatten: axis {axis} of shape {:?} to {shape:?}", self.shape()),
            ));
        }
        array_op!(mlx_unflatten, self, axis, [shape])
    }

    /// Removes axes of size one.
    ///
    /// # Shape
    /// `[B, 1, D]` → `[B, D]`
    ///
    /// # Errors
    /// When there is no such axis or its size is not one.
    pub fn squeeze<'a>(&self, axes: impl Into<Axes<'a>>) -> Result<Array> {
        match axes.into() {
            Axes::All => array_op!(mlx_squeeze, self),
            Axes::One(axis) => array_op!(mlx_squeeze_axis, self, axis),
            Axes::Some(axes) => array_op!(mlx_squeeze_axes, self, [axes]),
        }
    }

    /// Adds axes of size one at positions of the result; none for `..`.
    ///
    /// # Shape
    /// `[B, D]`, axis 1 → `[B, 1, D]`; axes count in the result
    ///
    /// # Errors
    /// When a position is out of range or given twice.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::range(3)?.expand_dims(&[0, 2])?;
    /// assert_eq!(x.shape(), [1, 3, 1]);
    /// assert_eq!(x.squeeze(..)?.shape(), [3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expand_dims<'a>(&self, axes: impl Into<Axes<'a>>) -> Result<Array> {
        match axes.into() {
            Axes::All => Ok(self.clone()),
            Axes::One(axis) => array_op!(mlx_expand_dims, self, axis),
            Axes::Some(axes) => array_op!(mlx_expand_dims_axes, self, [axes]),
        }
    }

    /// Orders the axes anew.
    ///
    /// # Shape
    /// `[B, L, D]`, axes 0, 2, 1 → `[B, D, L]`
    ///
    /// # Errors
    /// When `axes` is not a permutation.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::range(24)?.reshape([2, 3, 4])?;
    /// assert_eq!(x.transpose([0, 2, 1])?.shape(), [2, 4, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn transpose(&self, axes: impl AsRef<[i32]>) -> Result<Array> {
        let axes = axes.as_ref();
        array_op!(mlx_transpose_axes, self, [axes])
    }

    /// Reverses the order of the axes. Python: `T`.
    ///
    /// # Shape
    /// `[B, L, D] → [D, L, B]`
    ///
    /// # Errors
    /// When memory runs out.
    pub fn t(&self) -> Result<Array> {
        array_op!(mlx_transpose, self)
    }

    /// Exchanges two axes.
    ///
    /// # Shape
    /// `[B, L, D]`, axes 0 and 2 → `[D, L, B]`
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn swapaxes(&self, axis1: i32, axis2: i32) -> Result<Array> {
        array_op!(mlx_swapaxes, self, axis1, axis2)
    }

    /// Moves an axis to another position.
    ///
    /// # Shape
    /// `[B, L, D]`, from 0 to 2 → `[L, D, B]`
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn moveaxis(&self, source: i32, destination: i32) -> Result<Array> {
        array_op!(mlx_moveaxis, self, source, destination)
    }

    /// Repeats along axes of size one, and along new leading axes, without a copy.
    ///
    /// # Shape
    /// `[…]` → `shape`
    ///
    /// # Errors
    /// When the shape does not broadcast.
    pub fn broadcast_to(&self, shape: impl AsRef<[i32]>) -> Result<Array> {
        let shape = shape.as_ref();
        array_op!(mlx_broadcast_to, self, [shape])
    }

    /// Splits into `n` equal parts along an axis.
    ///
    /// # Shape
    /// `[…, D, …]` → `n` of `[…, D / n, …]`
    ///
    /// # Errors
    /// When the axis does not divide.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let halves = Array::range(4)?.split(2, 0)?;
    /// assert_eq!(halves[1].to_vec::<i32>()?, [2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(&self, n: i32, axis: i32) -> Result<Vec<Array>> {
        // An empty axis divides by anything.
        const MAX_PARTS_OF_NOTHING: i32 = 1 << 16;
        if self.dim(axis)? == 0 && n > MAX_PARTS_OF_NOTHING {
            let text = format!("split: {n} parts of an empty axis");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        vec_op!(mlx_split, self, n, axis)
    }

    /// Splits before each of `indices` along an axis.
    ///
    /// # Shape
    /// `[…, D, …]`, `n` positions → `n + 1` arrays that differ in that axis only
    ///
    /// # Errors
    /// When there is no such axis.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let parts = Array::range(5)?.split_at(&[1, 3], 0)?;
    /// assert_eq!(parts.iter().map(Array::size).collect::<Vec<_>>(), [1, 2, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn split_at(&self, indices: &[i32], axis: i32) -> Result<Vec<Array>> {
        vec_op!(mlx_split_sections, self, [indices], axis)
    }

    /// Splits into slices without the axis.
    ///
    /// # Shape
    /// `[L, D]`, axis 0 → `L` of `[D]`
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn unstack(&self, axis: i32) -> Result<Vec<Array>> {
        vec_op!(mlx_unstack_axis, self, axis)
    }

    /// Takes the diagonal `offset` of two axes, which become one at the end.
    ///
    /// # Shape
    /// `[L, D]` → `[min(L, D)]` where `offset` is 0; the diagonal is the last axis
    ///
    /// # Errors
    /// When there are no such two axes.
    pub fn diagonal(&self, offset: i32, axis1: i32, axis2: i32) -> Result<Array> {
        array_op!(mlx_diagonal, self, offset, axis1, axis2)
    }

    /// Sums the diagonal `offset` of two axes, by default in the array's own dtype.
    ///
    /// # Shape
    /// The axes but the two: a matrix → 0-d
    ///
    /// # Errors
    /// When there are no such two axes.
    pub fn trace(
        &self,
        offset: i32,
        axis1: i32,
        axis2: i32,
        dtype: impl Into<Option<Dtype>>,
    ) -> Result<Array> {
        // MLX's own `trace` never ends where the diagonal is empty and other axes are not.
        let dtype = dtype.into().unwrap_or(self.dtype());
        self.diagonal(offset, axis1, axis2)?.astype(dtype)?.sum(-1, false)
    }

    /// Returns the differences of neighbours along an axis, `n` times over.
    ///
    /// # Shape
    /// `[…, D, …]` → `[…, D - n, …]`
    ///
    /// # Errors
    /// When there is no such axis, `n` is negative, or the dtype cannot be subtracted.
    pub fn diff(&self, n: i32, axis: i32) -> Result<Array> {
        // Once the axis is empty it stays so; MLX would go on.
        let n = n.min(self.dim(axis)?.max(1));
        array_op!(mlx_diff, self, n, axis)
    }

    /// Returns the array under a new node of the graph.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn copy(&self) -> Result<Array> {
        array_op!(mlx_copy, self)
    }

    /// Repeats each element `n` times; without an axis the array is flattened first.
    ///
    /// # Shape
    /// `[…, D, …]` → `[…, n * D, …]`
    ///
    /// # Errors
    /// When `n` is negative or there is no such axis.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1, 2], &[2])?;
    /// assert_eq!(x.repeat(2, 0)?.to_vec::<i32>()?, [1, 1, 2, 2]);
    /// assert_eq!(x.tile(&[2])?.to_vec::<i32>()?, [1, 2, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn repeat(&self, n: i32, axis: impl Into<Option<i32>>) -> Result<Array> {
        match axis.into() {
            None => array_op!(mlx_repeat, self, n),
            Some(axis) => array_op!(mlx_repeat_axis, self, n, axis),
        }
    }

    /// Repeats the whole array along each axis.
    ///
    /// # Shape
    /// `[L, D]`, `[2, 3]` → `[2 * L, 3 * D]`; the shorter list gets ones in front
    ///
    /// # Errors
    /// When a number is negative.
    pub fn tile(&self, reps: &[i32]) -> Result<Array> {
        array_op!(mlx_tile, self, [reps])
    }

    /// Pads every axis with a value: `(before, after)` for each.
    ///
    /// # Shape
    /// Axis `i` grows by both of `widths[i]`
    ///
    /// # Errors
    /// When there is not one pair for each axis, or a width is negative.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1, 2], &[2])?;
    /// assert_eq!(x.pad(&[(1, 2)], 0)?.to_vec::<i32>()?, [0, 1, 2, 0, 0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pad(&self, widths: &[(i32, i32)], value: impl Operand) -> Result<Array> {
        self.pad_c(widths, value.into_array(Some(self.dtype()))?, c"constant")
    }

    /// Pads every axis with elements of the array: `(before, after)` for each.
    ///
    /// # Shape
    /// Axis `i` grows by both of `widths[i]`
    ///
    /// # Errors
    /// When there is not one pair for each axis, or a width is negative.
    pub fn pad_mode(&self, widths: &[(i32, i32)], mode: PadMode) -> Result<Array> {
        let mode = match mode {
            PadMode::Edge => c"edge",
            PadMode::Reflect => c"reflect",
            PadMode::Symmetric => c"symmetric",
        };
        self.pad_c(widths, Array::from(0), mode)
    }

    fn pad_c(&self, widths: &[(i32, i32)], value: Array, mode: &CStr) -> Result<Array> {
        // MLX writes out of bounds for an axis that is not there.
        if widths.len() != self.ndim() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("pad: {} widths for shape {:?}", widths.len(), self.shape()),
            ));
        }
        let lacks_edge = |(&size, &width): (&i32, &(i32, i32))| size == 0 && width != (0, 0);
        if mode != c"constant" && self.shape().iter().zip(widths).any(lacks_edge) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("pad: no edge in shape {:?}", self.shape()),
            ));
        }
        let axes: Vec<i32> = (0..widths.len() as i32).collect();
        let (low, high): (Vec<i32>, Vec<i32>) = widths.iter().copied().unzip();
        let value = &value;
        array_op!(mlx_pad, self, [axes], [low], [high], value, mode)
    }

    /// Shifts along an axis; what leaves at one end enters at the other. Without an axis the
    /// array is flattened first.
    ///
    /// # Shape
    /// That of this array
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn roll(&self, shift: i32, axis: impl Into<Option<i32>>) -> Result<Array> {
        let shift = [shift];
        match axis.into() {
            None => array_op!(mlx_roll, self, [shift]),
            Some(axis) => array_op!(mlx_roll_axis, self, [shift], axis),
        }
    }

    /// Shifts along several axes, by one number each.
    ///
    /// # Errors
    /// When there is no such axis, or not one shift for each.
    pub fn roll_axes(&self, shifts: &[i32], axes: &[i32]) -> Result<Array> {
        array_op!(mlx_roll_axes, self, [shifts], [axes])
    }

    /// Reverses the order along axes.
    ///
    /// # Shape
    /// That of this array
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn flip<'a>(&self, axes: impl Into<Axes<'a>>) -> Result<Array> {
        match axes.into() {
            Axes::All => array_op!(mlx_flip, self),
            Axes::One(axis) => array_op!(mlx_flip_axis, self, axis),
            Axes::Some(axes) => array_op!(mlx_flip_axes, self, [axes]),
        }
    }

    /// Reads the elements, laid out in row-major order, from `offset` with any strides.
    ///
    /// Strides count elements; they may be zero, negative, or let elements be read several times.
    ///
    /// # Shape
    /// `[…]` → `shape`
    ///
    /// # Errors
    /// When there is not one stride for each size, or an element would lie outside of the array.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let windows = Array::range(4)?.as_strided(&[3, 2], &[1, 1], 0)?;
    /// assert_eq!(windows.to_vec::<i32>()?, [0, 1, 1, 2, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_strided(&self, shape: &[i32], strides: &[i64], offset: usize) -> Result<Array> {
        let Some(view) = StridedView::of(shape, strides, offset, self.size()) else {
            let text = format!("as_strided: {shape:?} by {strides:?} from {offset} of {self:?}");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        };
        // MLX refuses an array whose flattened form is a view, such as a reversed one.
        let x = &self.contiguous()?;
        let result = array_op!(mlx_as_strided, x, [shape], [strides], offset)?;
        if view.seems_contiguous { result.contiguous() } else { Ok(result) }
    }

    /// Returns the array with its elements laid out in row-major order.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn contiguous(&self) -> Result<Array> {
        array_op!(mlx_contiguous, self, false)
    }
}

/// A view by strides that lies within its array.
struct StridedView {
    /// Whether MLX takes it for contiguous though elements overlap: as many elements as there are
    /// from the first to the last, but not those. Its reductions would add up the wrong ones.
    seems_contiguous: bool,
}

impl StridedView {
    fn of(shape: &[i32], strides: &[i64], offset: usize, size: usize) -> Option<StridedView> {
        if shape.len() != strides.len() || shape.iter().any(|&size| size < 0) {
            return None;
        }
        let (mut first, mut last) = (i64::try_from(offset).ok()?, i64::try_from(offset).ok()?);
        if shape.contains(&0) {
            return (offset <= size).then_some(StridedView { seems_contiguous: false });
        }
        let mut axes = Vec::new();
        for (&n, &stride) in shape.iter().zip(strides) {
            let reach = stride.checked_mul(i64::from(n) - 1)?;
            let end = if reach < 0 { &mut first } else { &mut last };
            *end = end.checked_add(reach)?;
            if n > 1 && stride != 0 {
                axes.push((stride, i64::from(n)));
            }
        }
        if first < 0 || last >= i64::try_from(size).ok()? {
            return None;
        }
        axes.sort_unstable();
        let count = axes.iter().try_fold(1i64, |count, &(_, n)| count.checked_mul(n));
        let mut packed = 1i64;
        let overlaps = axes.iter().any(|&(stride, n)| {
            let fits = stride == packed;
            packed = packed.saturating_mul(n);
            !fits
        });
        Some(StridedView { seems_contiguous: overlaps && count == Some(last - first + 1) })
    }
}

/// Joins arrays along an axis that they have; `None` flattens them first.
///
/// # Shape
/// `[…, D1, …]`, `[…, D2, …]` → `[…, D1 + D2, …]`
///
/// # Errors
/// When there are no arrays or their other axes differ.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::range(2)?.reshape([1, 2])?;
/// assert_eq!(ops::concatenate([&x, &x], 0)?.shape(), [2, 2]);
/// assert_eq!(ops::concatenate([&x, &x], None)?.shape(), [4]);
/// # Ok(())
/// # }
/// ```
pub fn concatenate<'a>(
    arrays: impl IntoIterator<Item = &'a Array>,
    axis: impl Into<Option<i32>>,
) -> Result<Array> {
    let arrays = &ArrayVec::new(arrays)?;
    match axis.into() {
        Some(axis) => array_op!(mlx_concatenate_axis, arrays, axis),
        None => array_op!(mlx_concatenate, arrays),
    }
}

/// Joins arrays of one shape along a new axis.
///
/// # Shape
/// `n` of `[L, D]`, axis 1 → `[L, n, D]`
///
/// # Errors
/// When there are no arrays or their shapes differ.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::range(3)?;
/// assert_eq!(ops::stack([&x, &x], 0)?.shape(), [2, 3]);
/// assert_eq!(ops::stack([&x, &x], -1)?.shape(), [3, 2]);
/// # Ok(())
/// # }
/// ```
pub fn stack<'a>(arrays: impl IntoIterator<Item = &'a Array>, axis: i32) -> Result<Array> {
    let arrays = &ArrayVec::new(arrays)?;
    array_op!(mlx_stack_axis, arrays, axis)
}

/// Broadcasts arrays against one another.
///
/// # Shape
/// The one shape that all broadcast to, for each
///
/// # Errors
/// When the shapes do not broadcast.
pub fn broadcast_arrays<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<Vec<Array>> {
    let arrays = &ArrayVec::new(arrays)?;
    vec_op!(mlx_broadcast_arrays, arrays)
}

/// Returns the shape that shapes broadcast to.
///
/// # Errors
/// When they do not.
pub fn broadcast_shapes<S: AsRef<[i32]>>(shapes: impl IntoIterator<Item = S>) -> Result<Vec<i32>> {
    let mut result: Vec<i32> = Vec::new();
    for shape in shapes {
        let shape = shape.as_ref();
        let missing = shape.len().saturating_sub(result.len());
        result.splice(..0, std::iter::repeat_n(1, missing));
        for (size, &other) in result.iter_mut().rev().zip(shape.iter().rev()) {
            match (*size, other) {
                (a, b) if a == b || b == 1 => {}
                (1, b) => *size = b,
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("broadcast_shapes: {shape:?} beside {result:?}"),
                    ));
                }
            }
        }
    }
    Ok(result)
}

/// Returns the inputs such that evaluating them evaluates the dependencies first.
///
/// # Errors
/// When there are no inputs.
pub fn depends<'a>(
    inputs: impl IntoIterator<Item = &'a Array>,
    dependencies: impl IntoIterator<Item = &'a Array>,
) -> Result<Vec<Array>> {
    let mut inputs = inputs.into_iter().peekable();
    if inputs.peek().is_none() {
        // MLX takes the stream of the first.
        return Err(Error::new(ErrorKind::InvalidArgument, "depends: no inputs"));
    }
    let (inputs, dependencies) = (&ArrayVec::new(inputs)?, &ArrayVec::new(dependencies)?);
    let mut outputs = ArrayVec::empty();
    c_call!(mlx_depends, (outputs.as_mut()), inputs, dependencies)?;
    outputs.into_arrays()
}

/// Returns the coordinates of the grid that 1-D arrays span, one array for each.
///
/// # Shape
/// Sizes `M`, `N`, `K` → `[N, M, K]` each, `[M, N, K]` with `matrix`; ones for the others if `sparse`
///
/// # Errors
/// When an array has several axes.
///
/// ```
/// use mlx_core::{Array, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let (x, y) = (Array::range(3)?, Array::range(2)?);
/// let grid = ops::meshgrid([&x, &y], Default::default())?;
/// assert_eq!((grid[0].shape(), grid[1].shape()), (&[2, 3][..], &[2, 3][..]));
/// # Ok(())
/// # }
/// ```
pub fn meshgrid<'a>(
    arrays: impl IntoIterator<Item = &'a Array>,
    options: Meshgrid,
) -> Result<Vec<Array>> {
    let arrays = &ArrayVec::new(arrays)?;
    let Meshgrid { sparse, matrix } = options;
    let indexing = if matrix { c"ij" } else { c"xy" };
    vec_op!(mlx_meshgrid, arrays, sparse, indexing)
}
