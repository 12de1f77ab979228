//! Writing with Python's indices: `x.put((0, ..), 1.0)?` is `x[0, :] = 1.0`.
//!
//! An array is a value, so each of these returns the changed copy. MLX writes into the old buffer
//! where nothing else holds it by the time of the evaluation: drop the old handle first, as
//! `x = x.put(index, value)?` does. Integers and slices update one strided view, index arrays
//! scatter, and a mask alone chooses between old and new.

use super::index::mask::lone_mask;
use super::index::{Index, IndexItem, Layout, Placed, View, place};
use super::masked;
use crate::array::{Array, Operand, Sizes};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::Reduce;

/// Writes updates: `name, reduction, how the value is made, "doc";`.
macro_rules! updates {
    ($($name:ident, $how:ident, |$value:ident| $made:expr, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// The value broadcasts to the chosen part and takes this array's dtype. A mask
                /// alone, or beside whole axes, is not computed; of values for its true elements
                /// too many are then left out, and the last of too few is repeated.
                ///
                /// # Errors
                /// Those of [`Array::at`], and when the value does not broadcast.
                pub fn $name(&self, index: impl Index, value: impl Operand) -> Result<Array> {
                    let $value = value.into_array(Some(self.dtype()))?;
                    let value = $made?.astype(self.dtype())?;
                    write(self, index.into_items(), &value, Reduce::$how)
                }
            )*
        }
    };
}

updates! {
    put, Set, |value| Ok::<_, Error>(value),
        "Puts a value over the chosen part. Python: `x[index] = value`.";
    put_add, Add, |value| Ok::<_, Error>(value),
        "Adds at the chosen part, as often as an element is chosen. Python: `x.at[index].add`.";
    put_subtract, Add, |value| value.negative(),
        "Subtracts at the chosen part, as often as an element is chosen.";
    put_multiply, Prod, |value| Ok::<_, Error>(value),
        "Multiplies the chosen part, as often as an element is chosen.";
    put_divide, Prod, |value| value.reciprocal(),
        "Divides the chosen part, as often as an element is chosen.";
    put_maximum, Max, |value| Ok::<_, Error>(value),
        "Takes the greater of the chosen part and the value.";
    put_minimum, Min, |value| Ok::<_, Error>(value),
        "Takes the lesser of the chosen part and the value.";
}

fn write(array: &Array, items: Vec<IndexItem>, value: &Array, how: Reduce) -> Result<Array> {
    if let Some((mask, axis)) = lone_mask(&items, array.ndim()) {
        return masked::write(array, &mask, axis, value, how);
    }
    let items = place(items, array.ndim())?;
    if items.iter().any(Placed::is_array) {
        return Layout::new(items, array.shape())?.write(array, value, how);
    }
    let (view, shape) = View::new(&items, array.shape())?;
    let value = fit(value, &shape)?;
    let mut sizes = value.shape().iter().copied();
    let value_shape: Sizes = items
        .iter()
        .filter_map(|item| match item {
            Placed::NewAxis => sizes.next().and(None),
            Placed::Nothing => None,
            Placed::Int(_) => Some(1),
            _ => sizes.next(),
        })
        .collect();
    view.update(array, &value.reshape(value_shape)?, how)
}

/// Gives a value that broadcasts to a shape as many axes; as in NumPy, leading ones of size one may
/// be too many.
pub(super) fn fit(value: &Array, shape: &[i32]) -> Result<Array> {
    let surplus = value.ndim().saturating_sub(shape.len());
    let (lead, rest) = value.shape().split_at(surplus);
    let missing = shape.len() - rest.len();
    let fits = rest.iter().zip(&shape[missing..]).all(|(&size, &to)| size == 1 || size == to);
    if !fits || lead.iter().any(|&size| size != 1) {
        let text = format!("index: value of shape {:?} for {shape:?}", value.shape());
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    if surplus == 0 && missing == 0 {
        return Ok(value.clone());
    }
    value.reshape([&vec![1; missing][..], rest].concat())
}
