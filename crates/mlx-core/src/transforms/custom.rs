//! Functions that say themselves how they are differentiated or mapped, and checkpoints.

use std::cell::Cell;
use std::rc::Rc;

use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{ArrayFn, Closure, CustomRules};

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Starts a function that computes `f` and whose derivatives or mapping are given by hand.
///
/// MLX derives the rules that are not given from `f`. A function without any is `f` itself.
///
/// What the function and its rules own lives as long as the function or a graph that it is part
/// of. They see stand-ins for the arrays they are given, so they must not keep them.
///
/// ```
/// use mlx_core::{Array, transforms::{custom_function, grad}};
///
/// # fn main() -> mlx_core::Result<()> {
/// // Rounds, and lets gradients through as if it did not.
/// let round = custom_function(|x| Ok(vec![x[0].round(0)?]))
///     .vjp(|_, cotangents, _| Ok(cotangents.to_vec()))
///     .build()?;
/// let slope = grad(move |x| round.call(x), 0)?;
/// assert_eq!(slope.call(&[Array::from(2.7f32)])?[0].item::<f32>()?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn custom_function(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
) -> CustomFunctionBuilder {
    let n_outputs = Rc::new(Cell::new(0));
    let seen = n_outputs.clone();
    let function = move |x: &[Array]| {
        let outputs = f(x)?;
        seen.set(outputs.len());
        some(outputs, "custom_function")
    };
    CustomFunctionBuilder { function: Box::new(function), rules: CustomRules::default(), n_outputs }
}

/// MLX reads the first output without looking.
fn some(outputs: Vec<Array>, what: &str) -> Result<Vec<Array>> {
    if outputs.is_empty() {
        return Err(invalid(format!("{what}: the function returned nothing")));
    }
    Ok(outputs)
}

/// The rules of a function under way, see [`custom_function`].
#[must_use]
pub struct CustomFunctionBuilder {
    function: Box<ArrayFn>,
    rules: CustomRules,
    /// How many outputs the function last had.
    n_outputs: Rc<Cell<usize>>,
}

impl CustomFunctionBuilder {
    /// Takes the gradient from `rule(primals, cotangents, outputs)`, one array for each primal and
    /// of its shape.
    pub fn vjp(
        mut self,
        rule: impl Fn(&[Array], &[Array], &[Array]) -> Result<Vec<Array>> + 'static,
    ) -> Self {
        self.rules.vjp = Some(Box::new(move |primals, cotangents, outputs| {
            let gradients = rule(primals, cotangents, outputs)?;
            if gradients.len() != primals.len() {
                let (n, expected) = (gradients.len(), primals.len());
                return Err(invalid(format!("vjp rule: {n} gradients for {expected} primals")));
            }
            let pairs = gradients.iter().zip(primals).enumerate();
            let checked = pairs.map(|(i, (gradient, primal))| {
                if gradient.shape() != primal.shape() {
                    let (got, expected) = (gradient.shape(), primal.shape());
                    let text = format!("vjp rule: gradient {i} {got:?}, its primal {expected:?}");
                    return Err(invalid(text));
                }
                gradient.astype(primal.dtype())
            });
            checked.collect()
        }));
        self
    }

    /// Takes the derivative from `rule(primals, tangents)`, the change of each output; a primal
    /// that does not change has no tangent.
    pub fn jvp(
        mut self,
        rule: impl Fn(&[Array], &[Option<Array>]) -> Result<Vec<Array>> + 'static,
    ) -> Self {
        let n_outputs = self.n_outputs.clone();
        self.rules.jvp = Some(Box::new(move |primals, tangents, argnums| {
            let mut all = vec![None; primals.len()];
            for (&argnum, tangent) in argnums.iter().zip(tangents) {
                if let Some(place) = all.get_mut(argnum as usize) {
                    *place = Some(tangent.clone());
                }
            }
            let changes = rule(primals, &all)?;
            check_count("jvp", changes.len(), n_outputs.get())?;
            Ok(changes)
        }));
        self
    }

    /// Takes the mapped function from `rule(inputs, axes)`: the outputs, and the axis of each that
    /// counts the elements. An input without an axis is the same for all elements.
    pub fn vmap(
        mut self,
        rule: impl Fn(&[Array], &[Option<i32>]) -> Result<(Vec<Array>, Vec<i32>)> + 'static,
    ) -> Self {
        let n_outputs = self.n_outputs.clone();
        self.rules.vmap = Some(Box::new(move |inputs, axes| {
            let axes: Vec<_> = axes.iter().map(|&axis| (axis >= 0).then_some(axis)).collect();
            let (outputs, axes) = rule(inputs, &axes)?;
            check_count("vmap", outputs.len(), n_outputs.get())?;
            check_count("vmap", axes.len(), outputs.len())?;
            let axes = axes.iter().zip(&outputs).map(|(&axis, output)| {
                super::vmap::normal_axis(axis, output.ndim()).ok_or_else(|| {
                    let n = output.ndim();
                    let text = format!("vmap rule: axis {axis} of an output of {n} dimensions");
                    Error::new(ErrorKind::OutOfRange, text)
                })
            });
            let axes = axes.collect::<Result<_>>()?;
            Ok((outputs, axes))
        }));
        self
    }

    /// Makes the function.
    ///
    /// # Errors
    /// When MLX cannot make it.
    pub fn build(self) -> Result<CustomFunction> {
        Ok(CustomFunction(Closure::new(self.function)?.custom(self.rules)?))
    }
}

fn check_count(rule: &str, n: usize, expected: usize) -> Result<()> {
    if n == expected {
        return Ok(());
    }
    Err(invalid(format!("{rule} rule: {n} results for {expected} outputs")))
}

/// A function made by [`custom_function`].
pub struct CustomFunction(Closure);

impl CustomFunction {
    /// Calls the function.
    ///
    /// # Errors
    /// Those of the function; when it returns nothing.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.0.apply(inputs)
    }
}

/// Makes the function that computes `f` and keeps nothing in between for its gradient, but
/// computes `f` again.
///
/// This trades time for memory, which a long chain of large layers is short of.
///
/// # Errors
/// When MLX cannot make the function.
///
/// ```
/// use mlx_core::{Array, transforms::{checkpoint, grad}};
///
/// # fn main() -> mlx_core::Result<()> {
/// let block = checkpoint(|x| Ok(vec![x[0].sin()?.exp()?]))?;
/// let slope = grad(move |x| block.call(x), 0)?;
/// assert_eq!(slope.call(&[Array::from(0.0f32)])?[0].item::<f32>()?, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn checkpoint(f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static) -> Result<Checkpoint> {
    let function = Closure::new(Box::new(move |x| some(f(x)?, "checkpoint")))?;
    Ok(Checkpoint(function.checkpoint()?))
}

/// A function made by [`checkpoint`].
pub struct Checkpoint(Closure);

impl Checkpoint {
    /// Calls the function.
    ///
    /// # Errors
    /// Those of the function; when it returns nothing.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.0.apply(inputs)
    }
}
