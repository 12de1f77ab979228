//! Derivatives: along an input direction (`jvp`), of an output direction (`vjp`), of a scalar.
//!
//! MLX traces the function with stand-ins for its inputs and derives the graph that comes out. What
//! is called once may borrow from its surroundings; [`grad`] and [`value_and_grad`] make functions
//! to keep, and own theirs.

use crate::array::{Array, Axes};
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayFn, Closure};

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Returns the outputs of `f` at `primals` and, for each primal, the gradient of the outputs
/// weighted by `cotangents`.
///
/// An output behind [`Array::stop_gradient`] takes no cotangent.
///
/// # Shape
/// Cotangent `j` has the shape of output `j`, gradient `i` that of primal `i`.
///
/// # Errors
/// Those of `f`; when the cotangents do not fit the outputs; when an op has no gradient.
///
/// ```
/// use mlx_core::{Array, transforms::vjp};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
/// let weights = Array::from_slice(&[1.0f32, 10.0], &[2])?;
/// let (outputs, gradients) = vjp(|x| Ok(vec![x[0].square()?]), &[x], &[weights])?;
/// assert_eq!(outputs[0].to_vec::<f32>()?, [1.0, 4.0]);
/// assert_eq!(gradients[0].to_vec::<f32>()?, [2.0, 40.0]);
/// # Ok(())
/// # }
/// ```
pub fn vjp(
    f: impl Fn(&[Array]) -> Result<Vec<Array>>,
    primals: &[Array],
    cotangents: &[Array],
) -> Result<(Vec<Array>, Vec<Array>)> {
    let result = Closure::with_scoped(&f, |f| f.vjp(primals, cotangents))?;
    let (n, expected) = (cotangents.len(), result.0.len());
    if n > expected {
        return Err(invalid(format!("vjp: {n} cotangents for {expected} outputs")));
    }
    Ok(result)
}

/// Returns the outputs of `f` at `primals` and how they change along `tangents`.
///
/// # Shape
/// Tangent `i` has the shape of primal `i`, change `j` that of output `j`. A tangent of another
/// dtype is cast to its primal's.
///
/// # Errors
/// Those of `f`; when the tangents do not fit the primals; when an op has no derivative.
///
/// ```
/// use mlx_core::{Array, transforms::jvp};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
/// let direction = Array::from_slice(&[1.0f32, 10.0], &[2])?;
/// let (_, changes) = jvp(|x| Ok(vec![x[0].square()?]), &[x], &[direction])?;
/// assert_eq!(changes[0].to_vec::<f32>()?, [2.0, 40.0]);
/// # Ok(())
/// # }
/// ```
pub fn jvp(
    f: impl Fn(&[Array]) -> Result<Vec<Array>>,
    primals: &[Array],
    tangents: &[Array],
) -> Result<(Vec<Array>, Vec<Array>)> {
    if primals.len() != tangents.len() {
        let (n, expected) = (tangents.len(), primals.len());
        return Err(invalid(format!("jvp: {n} tangents for {expected} primals")));
    }
    let tangents = primals.iter().zip(tangents).enumerate().map(|(i, (primal, tangent))| {
        if primal.shape() != tangent.shape() {
            let (got, expected) = (tangent.shape(), primal.shape());
            return Err(invalid(format!("jvp: tangent {i} {got:?}, its primal {expected:?}")));
        }
        tangent.astype(primal.dtype())
    });
    let tangents = tangents.collect::<Result<Vec<_>>>()?;
    Closure::with_scoped(&f, |f| f.jvp(primals, &tangents))
}

/// Which inputs to differentiate by, as the caller wrote it.
enum Argnums {
    All,
    Some(Vec<i32>),
}

impl From<Axes<'_>> for Argnums {
    fn from(argnums: Axes<'_>) -> Self {
        match argnums {
            Axes::All => Argnums::All,
            Axes::One(argnum) => Argnums::Some(vec![argnum]),
            Axes::Some(argnums) => Argnums::Some(argnums.to_vec()),
        }
    }
}

impl Argnums {
    /// Returns the positions among `n` inputs, in the order asked for.
    fn positions(&self, n: usize) -> Result<Vec<usize>> {
        let positions = match self {
            Argnums::All => (0..n).collect(),
            Argnums::Some(argnums) => argnums
                .iter()
                .map(|&argnum| {
                    let position = argnum as i64 + if argnum < 0 { n as i64 } else { 0 };
                    (usize::try_from(position).ok().filter(|&p| p < n)).ok_or_else(|| {
                        Error::new(ErrorKind::OutOfRange, format!("grad: argument {argnum} of {n}"))
                    })
                })
                .collect::<Result<Vec<_>>>()?,
        };
        if positions.is_empty() {
            return Err(invalid("grad: no argument to differentiate by".to_owned()));
        }
        if (1..positions.len()).any(|i| positions[..i].contains(&positions[i])) {
            return Err(invalid(format!("grad: arguments {positions:?} repeat")));
        }
        Ok(positions)
    }

    /// Returns the values and the gradients in the order asked for; MLX has them in ascending one.
    fn value_and_grad(&self, f: &Closure, inputs: &[Array]) -> Result<(Vec<Array>, Vec<Array>)> {
        let positions = self.positions(inputs.len())?;
        let mut ascending: Vec<i32> = positions.iter().map(|&p| p as i32).collect();
        ascending.sort_unstable();
        let (values, gradients) = f.value_and_grad(inputs, &ascending)?;
        let gradients = positions.iter().filter_map(|&position| {
            let i = ascending.binary_search(&(position as i32)).ok()?;
            gradients.get(i).cloned()
        });
        Ok((values, gradients.collect()))
    }
}

/// Checks that what `f` returned can be differentiated.
fn scalar_first(outputs: Vec<Array>) -> Result<Vec<Array>> {
    match outputs.first() {
        Some(first) if first.ndim() == 0 => Ok(outputs),
        Some(first) => Err(invalid(format!(
            "grad: the first output has to be a scalar and has shape {:?}",
            first.shape()
        ))),
        None => Err(invalid("grad: the function returned nothing".to_owned())),
    }
}

/// A function made by [`value_and_grad`].
pub struct ValueAndGrad {
    function: Closure,
    argnums: Argnums,
}

impl ValueAndGrad {
    fn new(function: Box<ArrayFn>, argnums: Argnums) -> Result<Self> {
        let function = Closure::new(Box::new(move |x| scalar_first(function(x)?)))?;
        Ok(ValueAndGrad { function, argnums })
    }

    /// Returns the outputs of the function and the gradients of the first of them.
    ///
    /// # Errors
    /// Those of the function; when its first output is no scalar; when there is no such argument;
    /// when an op has no gradient.
    pub fn call(&self, inputs: &[Array]) -> Result<(Vec<Array>, Vec<Array>)> {
        self.argnums.value_and_grad(&self.function, inputs)
    }
}

/// Makes a function that returns the outputs of `f` and the gradients of the first of them, a
/// scalar, by the arguments `argnums`; the other outputs are passed on.
///
/// `argnums` is a position, a slice of them, or `..` for every argument; a negative one counts from
/// the end. The gradients come in the order of `argnums`.
///
/// # Errors
/// When MLX cannot make the function.
///
/// ```
/// use mlx_core::{Array, transforms::value_and_grad};
///
/// # fn main() -> mlx_core::Result<()> {
/// let loss = |x: &[Array]| Ok(vec![(&x[0] * &x[1])?.sum(.., false)?]);
/// let step = value_and_grad(loss, ..)?;
/// let (w, x) = (Array::from_slice(&[3.0f32, 4.0], &[2])?, Array::from_slice(&[1.0f32, 2.0], &[2])?);
/// let (values, gradients) = step.call(&[w, x])?;
/// assert_eq!(values[0].item::<f32>()?, 11.0);
/// assert_eq!(gradients[0].to_vec::<f32>()?, [1.0, 2.0]);
/// assert_eq!(gradients[1].to_vec::<f32>()?, [3.0, 4.0]);
/// # Ok(())
/// # }
/// ```
pub fn value_and_grad<'a>(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    argnums: impl Into<Axes<'a>>,
) -> Result<ValueAndGrad> {
    ValueAndGrad::new(Box::new(f), argnums.into().into())
}

/// A function made by [`grad`].
pub struct Grad(ValueAndGrad);

impl Grad {
    /// Returns the gradients of the function's first output.
    ///
    /// # Errors
    /// As [`ValueAndGrad::call`].
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        Ok(self.0.call(inputs)?.1)
    }
}

/// Makes a function that returns the gradients of the first output of `f`, a scalar, by the
/// arguments `argnums`; see [`value_and_grad`].
///
/// # Errors
/// When MLX cannot make the function.
///
/// ```
/// use mlx_core::{Array, transforms::grad};
///
/// # fn main() -> mlx_core::Result<()> {
/// let cube = |x: &[Array]| Ok(vec![(x[0].square()? * &x[0])?]);
/// let slope = grad(cube, 0)?;
/// let curvature = grad(move |x| slope.call(x), 0)?;
/// assert_eq!(curvature.call(&[Array::from(2.0f32)])?[0].item::<f32>()?, 12.0);
/// # Ok(())
/// # }
/// ```
pub fn grad<'a>(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    argnums: impl Into<Axes<'a>>,
) -> Result<Grad> {
    Ok(Grad(ValueAndGrad::new(Box::new(f), argnums.into().into())?))
}

/// Returns what [`value_and_grad`]'s function returns for `inputs`, with an `f` that may borrow.
///
/// # Errors
/// As [`ValueAndGrad::call`].
///
/// ```
/// use mlx_core::{Array, transforms::value_and_grad_once};
///
/// # fn main() -> mlx_core::Result<()> {
/// let target = Array::from(5.0f32);
/// let loss = |x: &[Array]| Ok(vec![(&x[0] - &target)?.square()?]);
/// let (values, gradients) = value_and_grad_once(loss, &[Array::from(2.0f32)], 0)?;
/// assert_eq!(values[0].item::<f32>()?, 9.0);
/// assert_eq!(gradients[0].item::<f32>()?, -6.0);
/// # Ok(())
/// # }
/// ```
pub fn value_and_grad_once<'a>(
    f: impl Fn(&[Array]) -> Result<Vec<Array>>,
    inputs: &[Array],
    argnums: impl Into<Axes<'a>>,
) -> Result<(Vec<Array>, Vec<Array>)> {
    let argnums = Argnums::from(argnums.into());
    let f = |x: &[Array]| scalar_first(f(x)?);
    Closure::with_scoped(&f, |f| argnums.value_and_grad(f, inputs))
}

/// Returns the gradients of the first output of `f` at `inputs`, with an `f` that may borrow.
///
/// # Errors
/// As [`ValueAndGrad::call`].
pub fn grad_once<'a>(
    f: impl Fn(&[Array]) -> Result<Vec<Array>>,
    inputs: &[Array],
    argnums: impl Into<Axes<'a>>,
) -> Result<Vec<Array>> {
    Ok(value_and_grad_once(f, inputs, argnums)?.1)
}
