//! Gradients by a model's own parameters.
//!
//! MLX differentiates by arguments; a model's parameters are fields. While the loss is traced, the
//! stand-ins of the trainable parameters stand in the model, so that model code is the same for
//! inference and training.

use std::cell::RefCell;

use super::{LeafMut, Module, Parameters, WeightMatrix};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::transforms::{self, value_and_grad_once};

/// Returns the loss and its gradients by the trainable parameters of `model`. Python:
/// `nn.value_and_grad`.
///
/// The loss, a scalar, may borrow whatever it needs besides the model: inputs, targets. Nothing is
/// computed yet; evaluate the loss and the gradients, or what an optimizer makes of them.
///
/// ```
/// use mlx_core::nn::{self, Linear, Module};
/// use mlx_core::{Array, ops, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// random::seed(0)?;
/// let mut model = Linear::new(2, 1, true)?;
/// let x = Array::from_slice(&[0.0f32, 1.0, 1.0, 0.0, 1.0, 1.0], &[3, 2])?;
/// let y = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3, 1])?;
/// let mut losses = Vec::new();
/// for _ in 0..50 {
///     let (loss, gradients) = nn::value_and_grad(&mut model, |model| {
///         (model.forward(&x)? - &y)?.square()?.mean(.., false)
///     })?;
///     let step = |path: &str, w: &Array| w - (&gradients[path] * 0.3);
///     let parameters = model.trainable_parameters().map(step)?;
///     model.update(&parameters)?;
///     losses.push(loss.item::<f32>()?);
/// }
/// assert!(losses[49] < losses[0] / 100.0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of `loss`; when it is no scalar; when no parameter is trainable; when an op has no
/// gradient. The model is then as it was.
pub fn value_and_grad<M: Module + ?Sized>(
    model: &mut M,
    loss: impl Fn(&M) -> Result<Array>,
) -> Result<(Array, Parameters)> {
    let (values, gradients) = value_and_grad_with(model, |model| Ok(vec![loss(model)?]))?;
    match values.into_iter().next() {
        Some(loss) => Ok((loss, gradients)),
        None => Err(Error::new(ErrorKind::Runtime, "value_and_grad: no loss came back")),
    }
}

/// Returns all outputs of `f`, of which the first is the loss, and the loss's gradients by the
/// trainable parameters of `model`; see [`value_and_grad`].
///
/// # Errors
/// As [`value_and_grad`].
pub fn value_and_grad_with<M: Module + ?Sized>(
    model: &mut M,
    f: impl Fn(&M) -> Result<Vec<Array>>,
) -> Result<(Vec<Array>, Parameters)> {
    let (paths, originals): (Vec<String>, Vec<Array>) =
        model.trainable_parameters_in_order().into_iter().unzip();
    if paths.is_empty() {
        let text = "value_and_grad: no parameter is trainable";
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let traced = Traced { model: RefCell::new(model), originals };
    let (values, gradients) = value_and_grad_once(
        |stand_ins: &[Array]| {
            let Ok(mut model) = traced.model.try_borrow_mut() else {
                return Err(Error::new(ErrorKind::Runtime, "value_and_grad: called by its loss"));
            };
            put(&mut **model, stand_ins)?;
            f(&**model)
        },
        &traced.originals,
        ..,
    )?;
    Ok((values, Parameters(paths.into_iter().zip(gradients).collect())))
}

/// Returns what `f` makes of a layer and inputs, and keeps nothing in between for the gradient, but
/// calls `f` again when that is computed. Python: `nn.utils.checkpoint`.
///
/// Gradients reach the inputs and the layer's trainable parameters. `f` gets a copy of the layer:
/// state that it changes there, such as running statistics, is lost.
///
/// ```
/// use mlx_core::nn::{self, Linear};
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut layer = Linear::new(4, 4, false)?;
/// let x = ops::ones(&[2, 4], Dtype::Float32)?;
/// let (_, gradients) = nn::value_and_grad(&mut layer, |layer| {
///     let y = nn::checkpoint(layer, &[x.clone()], |layer, x| Ok(vec![layer.forward(&x[0])?]))?;
///     y[0].sum(.., false)
/// })?;
/// assert_eq!(gradients["weight"].to_vec::<f32>()?, [2.0; 16]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of `f`; when it returns nothing.
pub fn checkpoint<M: Module + Clone + 'static>(
    layer: &M,
    inputs: &[Array],
    f: impl Fn(&M, &[Array]) -> Result<Vec<Array>> + 'static,
) -> Result<Vec<Array>> {
    let (mut all, copy): (Vec<Array>, M) = (
        layer.trainable_parameters_in_order().into_iter().map(|(_, array)| array).collect(),
        layer.clone(),
    );
    let n_parameters = all.len();
    all.extend_from_slice(inputs);
    let function = transforms::checkpoint(move |all| {
        let (parameters, inputs) = all.split_at_checked(n_parameters).unwrap_or((&[], all));
        let mut layer = copy.clone();
        put(&mut layer, parameters)?;
        f(&layer, inputs)
    })?;
    function.call(&all)
}

/// A model that holds stand-ins; gets its own arrays back when this goes, in a panic too.
struct Traced<'a, M: Module + ?Sized> {
    model: RefCell<&'a mut M>,
    originals: Vec<Array>,
}

impl<M: Module + ?Sized> Drop for Traced<'_, M> {
    fn drop(&mut self) {
        // The visitor does not fail.
        let _ = put(&mut **self.model.get_mut(), &self.originals);
    }
}

/// Puts arrays in the place of the trainable parameters, in the order of the walk.
fn put<M: Module + ?Sized>(model: &mut M, arrays: &[Array]) -> Result<()> {
    let mut arrays = arrays.iter();
    model.for_each_mut(&mut |_, leaf| {
        if let LeafMut::Param(param) | LeafMut::Weight(WeightMatrix::Dense(param)) = leaf
            && !param.is_frozen()
            && let Some(array) = arrays.next()
        {
            param.replace(array.clone());
        }
        Ok(())
    })
}
