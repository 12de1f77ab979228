//! Bilinear.

use super::{Param, make};
use crate::array::Array;
use crate::error::Result;

/// `y_i = x2ᵀ × W_i × x1 + b_i`.
///
/// ```
/// use mlx_core::nn::Bilinear;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = Bilinear::new(3, 4, 2, true)?;
/// let (x1, x2) = (ops::ones(&[5, 3], Dtype::Float32)?, ops::ones(&[5, 4], Dtype::Float32)?);
/// assert_eq!(layer.forward(&x1, &x2)?.shape(), [5, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bilinear {
    /// `[D, E2, E1]`
    pub weight: Param,
    /// `[D]`
    pub bias: Option<Param>,
}

crate::module! { Bilinear { weight, bias } }

impl Bilinear {
    /// Makes a layer with weights and biases spread evenly over `±1 / √input1_dims`, in float32,
    /// out of this thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(
        input1_dims: i32,
        input2_dims: i32,
        output_dims: i32,
        bias: bool,
    ) -> Result<Bilinear> {
        let sizes = [
            ("input1_dims", input1_dims),
            ("input2_dims", input2_dims),
            ("output_dims", output_dims),
        ];
        make::check_positive("bilinear", &sizes)?;
        let fan_in = input1_dims.into();
        Ok(Bilinear {
            weight: make::uniform(fan_in, &[output_dims, input2_dims, input1_dims])?,
            bias: if bias { Some(make::uniform(fan_in, &[output_dims])?) } else { None },
        })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x1: […, E1]`, `x2: […, E2] → […, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x1: &Array, x2: &Array) -> Result<Array> {
        let [out, in2, in1] = self.weight.dims()?;
        if x1.dim(-1)? != in1
            || x2.dim(-1)? != in2
            || x1.shape().split_last().map(|(_, b)| b) != x2.shape().split_last().map(|(_, b)| b)
        {
            let (x1, x2, w) = (x1.shape(), x2.shape(), self.weight.shape());
            return Err(make::invalid("bilinear", format!("{x1:?} and {x2:?} for weight {w:?}")));
        }
        let mut shape = x1.shape().to_vec();
        shape.pop();
        shape.push(out);
        let n = shape.iter().rev().skip(1).product();
        let w = self.weight.reshape([out.saturating_mul(in2), in1])?;
        let y = x1.reshape([n, in1])?.matmul(&w.t()?)?.reshape([n, out, in2])?;
        let y = x2.reshape([n, 1, in2])?.matmul(&y.swapaxes(-2, -1)?)?.reshape(shape)?;
        match &self.bias {
            Some(bias) => y + &**bias,
            None => Ok(y),
        }
    }
}
