//! Mapping: a function of one element, turned into a function of many at once.
//!
//! MLX traces the function with an element's stand-in and widens each op of the graph. It trusts
//! the axes it is given, so they are checked here.

use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{Closure, is_mapping};

/// The axes that [`vmap`] maps: one for all arrays, or one for each, where `None` is an input that
/// is the same for all elements.
#[derive(Clone, Debug)]
pub struct MapAxes(Each);

#[derive(Clone, Debug)]
enum Each {
    Same(i32),
    Own(Vec<Option<i32>>),
}

impl From<i32> for MapAxes {
    fn from(axis: i32) -> Self {
        MapAxes(Each::Same(axis))
    }
}

impl From<&[i32]> for MapAxes {
    fn from(axes: &[i32]) -> Self {
        MapAxes(Each::Own(axes.iter().copied().map(Some).collect()))
    }
}

impl<const N: usize> From<&[i32; N]> for MapAxes {
    fn from(axes: &[i32; N]) -> Self {
        axes.as_slice().into()
    }
}

impl From<&[Option<i32>]> for MapAxes {
    fn from(axes: &[Option<i32>]) -> Self {
        MapAxes(Each::Own(axes.to_vec()))
    }
}

impl<const N: usize> From<&[Option<i32>; N]> for MapAxes {
    fn from(axes: &[Option<i32>; N]) -> Self {
        axes.as_slice().into()
    }
}

/// Returns the axis counted from the start, if there is such a one.
pub(super) fn normal_axis(axis: i32, ndim: usize) -> Option<i32> {
    let ndim = ndim as i64;
    let axis = i64::from(axis) + if axis < 0 { ndim } else { 0 };
    (0..ndim).contains(&axis).then_some(axis as i32)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

impl MapAxes {
    /// Returns one axis for each array, given their numbers of dimensions; -1 where there is none.
    fn of(&self, what: &str, ndims: &[usize]) -> Result<Vec<i32>> {
        let own = match &self.0 {
            Each::Same(axis) => vec![Some(*axis); ndims.len()],
            Each::Own(axes) => axes.clone(),
        };
        if own.len() != ndims.len() {
            let (n, expected) = (own.len(), ndims.len());
            return Err(invalid(format!("vmap: {n} {what} axes for {expected} {what}s")));
        }
        let axes = own.iter().zip(ndims).enumerate().map(|(i, (axis, &ndim))| match axis {
            None => Ok(-1),
            Some(axis) => normal_axis(*axis, ndim).ok_or_else(|| {
                let text = format!("vmap: axis {axis} of {what} {i}, which has {ndim} dimensions");
                Error::new(ErrorKind::OutOfRange, text)
            }),
        });
        axes.collect()
    }

    fn of_inputs(&self, inputs: &[Array]) -> Result<Vec<i32>> {
        let axes = self.of("input", &inputs.iter().map(Array::ndim).collect::<Vec<_>>())?;
        let pairs = inputs.iter().zip(&axes).filter(|(_, axis)| **axis >= 0);
        let sizes: Vec<i32> =
            pairs.filter_map(|(x, &axis)| x.shape().get(axis as usize).copied()).collect();
        match sizes.first() {
            None => Err(invalid("vmap: no input is mapped".to_owned())),
            Some(first) if sizes.iter().any(|size| size != first) => {
                Err(invalid(format!("vmap: mapped axes of sizes {sizes:?}")))
            }
            Some(_) => Ok(axes),
        }
    }

    /// Returns the axes of outputs whose elements are `outputs`.
    fn of_outputs(&self, outputs: &[Array]) -> Result<Vec<i32>> {
        let ndims: Vec<_> = outputs.iter().map(|x| x.ndim() + 1).collect();
        let axes = self.of("output", &ndims)?;
        if axes.contains(&-1) {
            return Err(invalid("vmap: an output without an axis".to_owned()));
        }
        Ok(axes)
    }
}

fn map(f: &Closure, inputs: &[Array], in_axes: &MapAxes, out_axes: &MapAxes) -> Result<Vec<Array>> {
    let in_axes = in_axes.of_inputs(inputs)?;
    f.vmap(inputs, &in_axes, |outputs| out_axes.of_outputs(outputs))
}

/// Returns `values`, which are put into `x`, as mapped as `x` is.
///
/// MLX maps an update of a slice by values that are the same for all elements as if there were as
/// many of them as of elements, and reads past their end.
pub(crate) fn mapped_as(values: Array, x: &Array) -> Result<Array> {
    if !is_mapping() || x.size() == 0 {
        return Ok(values);
    }
    let one = x.reshape([-1])?.slice(&[0], &[1], &[1])?.astype(values.dtype())?;
    let never = one.isnan()?.logical_and(&one.isnan()?.logical_not()?)?;
    crate::ops::where_(&never, &one, &values)?.reshape(values.shape())
}

/// A function mapped over an axis by [`vmap`].
pub struct Mapped {
    function: Closure,
    in_axes: MapAxes,
    out_axes: MapAxes,
}

impl Mapped {
    /// Calls the function on each element of the mapped axes at once.
    ///
    /// # Errors
    /// Those of the function while it is traced; when the axes do not fit the inputs and outputs;
    /// when an op cannot be mapped.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        map(&self.function, inputs, &self.in_axes, &self.out_axes)
    }
}

/// Makes the function that maps `f` over axis `in_axes[i]` of input `i` and collects its results
/// along axis `out_axes[j]` of output `j`.
///
/// Axes are one number for all, or a slice with one for each, where an input's may be `None`: it
/// is then the same for all elements. Negative axes count from the end. An output that does not
/// depend on what is mapped is repeated.
///
/// # Errors
/// When MLX cannot make the function.
///
/// ```
/// use mlx_core::{Array, transforms::vmap};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rows = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// let weights = Array::from_slice(&[1.0f32, 10.0], &[2])?;
/// let dot = vmap(|x| Ok(vec![(&x[0] * &x[1])?.sum(.., false)?]), &[Some(0), None], 0)?;
/// assert_eq!(dot.call(&[rows, weights])?[0].to_vec::<f32>()?, [21.0, 43.0]);
/// # Ok(())
/// # }
/// ```
pub fn vmap(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    in_axes: impl Into<MapAxes>,
    out_axes: impl Into<MapAxes>,
) -> Result<Mapped> {
    let function = Closure::new(Box::new(f))?;
    Ok(Mapped { function, in_axes: in_axes.into(), out_axes: out_axes.into() })
}

/// Returns what [`vmap`]'s function returns for `inputs`, with an `f` that may borrow.
///
/// # Errors
/// As [`Mapped::call`].
pub fn vmap_once(
    f: impl Fn(&[Array]) -> Result<Vec<Array>>,
    inputs: &[Array],
    in_axes: impl Into<MapAxes>,
    out_axes: impl Into<MapAxes>,
) -> Result<Vec<Array>> {
    let (in_axes, out_axes) = (in_axes.into(), out_axes.into());
    Closure::with_scoped(&f, |f| map(f, inputs, &in_axes, &out_axes))
}
