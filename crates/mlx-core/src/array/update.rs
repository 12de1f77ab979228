//! Writing with Python's indices: `x.put((0, ..), 1.0)?` is `x[0, :] = 1.0`.
//!
//! An array is a value, so each of these returns the changed copy; MLX reuses the buffer where no
//! other handle to it exists. Integers and slices update one strided view. Index arrays first read
//! the positions of the chosen elements, then scatter into the flat array.

use super::index::{Chosen, Index};
use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::array_op;

/// Writes updates: `name, slice function, scatter method, how the value is made, "doc";`.
macro_rules! updates {
    ($($name:ident, $slice:ident, $scatter:ident, |$value:ident| $made:expr, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// The value broadcasts to the chosen part and takes this array's dtype.
                ///
                /// # Errors
                /// Those of [`Array::at`], and when the value does not broadcast.
                pub fn $name(&self, index: impl Index, value: impl Operand) -> Result<Array> {
                    let chosen = Chosen::of(self, index.into_items())?;
                    let $value = value.into_array(Some(self.dtype()))?;
                    let value = fit($made?.astype(self.dtype())?, chosen.shape())?;
                    match chosen {
                        Chosen::View { start, stop, step, view_shape, .. } => {
                            let value = &value.reshape(view_shape)?;
                            array_op!($slice, self, value, [start], [stop], [step])
                        }
                        Chosen::Positions(positions) if positions.size() == 0 => Ok(self.clone()),
                        Chosen::Positions(positions) => {
                            let indices = positions.reshape([-1])?;
                            let updates = value.reshape([indices.dim(0)?, 1])?;
                            let flat = self.reshape([-1])?;
                            flat.$scatter(&[indices], &updates, &[0])?.reshape(self.shape())
                        }
                    }
                }
            )*
        }
    };
}

updates! {
    put, mlx_slice_update, scatter, |value| Ok::<_, Error>(value),
        "Puts a value over the chosen part. Python: `x[index] = value`.";
    put_add, mlx_slice_update_add, scatter_add, |value| Ok::<_, Error>(value),
        "Adds at the chosen part, as often as an element is chosen. Python: `x.at[index].add`.";
    put_subtract, mlx_slice_update_add, scatter_add, |value| value.negative(),
        "Subtracts at the chosen part, as often as an element is chosen.";
    put_multiply, mlx_slice_update_prod, scatter_prod, |value| Ok::<_, Error>(value),
        "Multiplies the chosen part, as often as an element is chosen.";
    put_divide, mlx_slice_update_prod, scatter_prod, |value| value.reciprocal(),
        "Divides the chosen part, as often as an element is chosen.";
    put_maximum, mlx_slice_update_max, scatter_max, |value| Ok::<_, Error>(value),
        "Takes the greater of the chosen part and the value.";
    put_minimum, mlx_slice_update_min, scatter_min, |value| Ok::<_, Error>(value),
        "Takes the lesser of the chosen part and the value.";
}

/// Broadcasts a value to the chosen part; as in NumPy, leading axes of size one may be too many.
fn fit(value: Array, shape: &[i32]) -> Result<Array> {
    let surplus = value.ndim().saturating_sub(shape.len());
    let value = match value.shape().split_at(surplus) {
        (_, _) if surplus == 0 => value,
        (lead, rest) if lead.iter().all(|&size| size == 1) => value.reshape(rest)?,
        _ => {
            let text = format!("index: value of shape {:?} for {shape:?}", value.shape());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
    };
    value.broadcast_to(shape)
}

/// Returns an array of this shape that holds each element's position in row-major order.
pub(super) fn positions(shape: &[i32]) -> Result<Array> {
    let n = super::count(shape)?;
    crate::ops::arange(0.0, n as f64, 1.0, Dtype::Int64)?.reshape(shape)
}
