//! Layers of one input, functions as layers, and chains of them.

use std::fmt;
use std::rc::Rc;

use super::{
    AvgPool1d, AvgPool2d, AvgPool3d, BatchNorm, Conv1d, Conv2d, Conv3d, ConvTranspose1d,
    ConvTranspose2d, ConvTranspose3d, Dropout, Dropout2d, Dropout3d, Embedding, GroupNorm, Gru,
    InstanceNorm, LayerNorm, Linear, MaxPool1d, MaxPool2d, MaxPool3d, Module, Param, RmsNorm, Rnn,
    SinusoidalPositionalEncoding, Upsample, activation, make,
};
use crate::array::Array;
use crate::error::Result;

/// A layer from one array to one array, as [`Sequential`] takes it.
pub trait Layer: Module {
    /// Applies the layer.
    ///
    /// # Errors
    /// When the shape or dtype does not fit.
    fn forward(&self, x: &Array) -> Result<Array>;
}

/// Implements [`Layer`] for types with a method `forward(&self, &Array)` of their own.
macro_rules! layers {
    ($($type:ident)*) => {
        $(impl Layer for $type {
            fn forward(&self, x: &Array) -> Result<Array> {
                $type::forward(self, x)
            }
        })*
    };
}

layers! {
    Activation AvgPool1d AvgPool2d AvgPool3d BatchNorm Conv1d Conv2d Conv3d ConvTranspose1d
    ConvTranspose2d ConvTranspose3d Dropout Dropout2d Dropout3d Embedding GroupNorm Identity
    InstanceNorm LayerNorm Linear MaxPool1d MaxPool2d MaxPool3d PRelu RmsNorm Sequential
    SinusoidalPositionalEncoding Upsample
}

impl Layer for Rnn {
    fn forward(&self, x: &Array) -> Result<Array> {
        Rnn::forward(self, x, None)
    }
}

impl Layer for Gru {
    fn forward(&self, x: &Array) -> Result<Array> {
        Gru::forward(self, x, None)
    }
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    fn forward(&self, x: &Array) -> Result<Array> {
        (**self).forward(x)
    }
}

/// A function as a layer without parameters, in place of Python's classes such as `nn.LeakyReLU`.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::{Activation, silu};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[-2.0f32, 3.0], &[2])?;
/// let leaky = Activation::new(|x| x.maximum(x * 0.1));
/// assert_eq!(leaky.forward(&x)?.to_vec::<f32>()?, [-0.2, 3.0]);
/// assert_eq!(Activation::default().forward(&x)?.to_vec::<f32>()?, [0.0, 3.0]);
/// # let _ = Activation::new(silu);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Activation(Rc<Function>);

type Function = dyn Fn(&Array) -> Result<Array>;

crate::module! { Activation {} }

impl Activation {
    /// Makes a layer of a function.
    pub fn new(f: impl Fn(&Array) -> Result<Array> + 'static) -> Activation {
        Activation(Rc::new(f))
    }

    /// Calls the function.
    ///
    /// # Errors
    /// The function's.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        (self.0)(x)
    }
}

impl Default for Activation {
    /// Returns [`relu`](super::relu).
    fn default() -> Self {
        Activation::new(activation::relu)
    }
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Activation")
    }
}

/// Returns its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

crate::module! { Identity {} }

impl Identity {
    /// Returns `x`.
    ///
    /// # Errors
    /// None.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        Ok(x.clone())
    }
}

/// `max(x, 0) + weight * min(x, 0)` with learned slopes (arXiv 1502.01852).
#[derive(Clone, Debug)]
pub struct PRelu {
    /// `[1]` or `[E]`
    pub weight: Param,
}

crate::module! { PRelu { weight } }

impl PRelu {
    /// Makes a layer with slopes of `init`, one for all elements or one for each of the last axis;
    /// Python's defaults are 1 and 0.25.
    ///
    /// # Errors
    /// When the number is not positive.
    pub fn new(num_parameters: i32, init: f32) -> Result<PRelu> {
        make::check_positive("prelu", &[("num_parameters", num_parameters)])?;
        Ok(PRelu { weight: make::full(init, &[num_parameters])? })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: […, E] → […, E]`
    ///
    /// # Errors
    /// When the shapes do not broadcast.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        super::prelu(x, &self.weight)
    }
}

/// Layers one after the other.
///
/// ```
/// use mlx_core::nn::{Activation, Linear, Module, Sequential, relu};
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let mlp = Sequential::new()
///     .push(Linear::new(4, 8, true)?)
///     .push(Activation::new(relu))
///     .push(Linear::new(8, 2, false)?);
/// assert_eq!(mlp.forward(&ops::zeros(&[3, 4], Dtype::Float32)?)?.shape(), [3, 2]);
/// let names: Vec<String> = mlp.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["layers.0.bias", "layers.0.weight", "layers.2.weight"]);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Sequential {
    /// In the order of application.
    pub layers: Vec<Box<dyn Layer>>,
}

crate::module! { Sequential { layers } }

impl Sequential {
    /// Makes an empty chain, which returns its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Adds a layer at the end.
    #[must_use]
    pub fn push(mut self, layer: impl Layer + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }

    /// Applies the layers.
    ///
    /// # Errors
    /// The first layer's that fails, with its position before the text.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.layers.iter().enumerate().try_fold(x.clone(), |x, (i, layer)| {
            layer.forward(&x).map_err(|e| e.context(format_args!("layers.{i}")))
        })
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequential({} layers)", self.layers.len())
    }
}
