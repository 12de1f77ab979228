//! A tensor on its way from a checkpoint to a layer.
//!
//! What a family's rules make of a tensor, a part of it, several in a stack, is noted and done when a
//! layer takes the result. Shapes are known before, so that all that does not fit is told before a byte
//! is read, and conversion can go one result after the other.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Checkpoint, TensorBytes};
use crate::ops;

/// A tensor that is made when it is wanted.
///
/// Cloning is cheap; clones, and what is made of them, share what was read.
///
/// ```
/// use mlx_core::{Array, Tensor};
///
/// # fn main() -> mlx_core::Result<()> {
/// let gate_up = Tensor::from(Array::range(8)?.reshape([4, 2])?);
/// let [gate, up] = [0, 2].map(|row| gate_up.slice(0, row, 2, 1));
/// assert_eq!(up?.into_array()?.to_vec::<i32>()?, [4, 5, 6, 7]);
/// assert_eq!(gate?.shape(), [2, 2]);
/// assert!(gate_up.slice(0, 3, 2, 1).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tensor(Rc<Node>);

#[derive(Debug)]
struct Node {
    shape: Vec<i32>,
    dtype: Dtype,
    origin: Origin,
    made: OnceCell<Array>,
}

#[derive(Clone, Debug)]
enum Origin {
    Array(Array),
    File(TensorBytes),
    Stack(Vec<Tensor>),
    Concatenation(Vec<Tensor>, i32),
    Slice { of: Tensor, axis: usize, start: i32, stop: i32, step: i32 },
    Transpose(Tensor, Vec<i32>),
    Reshape(Tensor),
    Add(Tensor, f32),
    Made(Maker),
}

/// Makes an array where no file and no op does.
#[derive(Clone)]
struct Maker(Rc<dyn Fn() -> Result<Array>>);

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maker")
    }
}

impl From<Array> for Tensor {
    fn from(array: Array) -> Tensor {
        Tensor::new(array.shape().to_vec(), array.dtype(), Origin::Array(array))
    }
}

impl Tensor {
    fn new(shape: Vec<i32>, dtype: Dtype, origin: Origin) -> Tensor {
        Tensor(Rc::new(Node { shape, dtype, origin, made: OnceCell::new() }))
    }

    /// Returns a tensor of a checkpoint, if it is there.
    pub fn stored(checkpoint: &Checkpoint, name: &str) -> Option<Tensor> {
        let (_, info) = checkpoint.get(name)?;
        let bytes = checkpoint.tensor_bytes(name)?;
        Some(Tensor::new(info.shape.clone(), info.dtype, Origin::File(bytes)))
    }

    /// Returns a tensor that `make` makes, of this shape and dtype.
    pub fn made_by(
        shape: &[i32],
        dtype: Dtype,
        make: impl Fn() -> Result<Array> + 'static,
    ) -> Tensor {
        Tensor::new(shape.to_vec(), dtype, Origin::Made(Maker(Rc::new(make))))
    }

    /// Returns the bytes of the elements where they lie in a file just so, and nothing need be made.
    ///
    /// # Errors
    /// When a file that was changed by an array over it cannot be read again.
    pub fn stored_bytes(&self) -> Result<Option<Cow<'_, [u8]>>> {
        match &self.0.origin {
            Origin::File(bytes) => bytes.stored().map(Some),
            Origin::Reshape(of) => of.stored_bytes(),
            _ => Ok(None),
        }
    }

    /// Returns one of the tensors that lie along the first axis: of a stack, the tensor that was stacked,
    /// so that the others need not be made.
    ///
    /// # Errors
    /// When it is not there.
    pub fn at(&self, index: i32) -> Result<Tensor> {
        if let Origin::Stack(tensors) = &self.0.origin {
            let tensor = usize::try_from(index).ok().and_then(|index| tensors.get(index));
            let missing = || invalid(format!("number {index} of {}", self.describe()));
            return tensor.cloned().ok_or_else(missing);
        }
        self.slice(0, index, 1, 1)?.reshape(self.shape().get(1..).unwrap_or_default())
    }

    /// Returns the size along each axis.
    pub fn shape(&self) -> &[i32] {
        &self.0.shape
    }

    /// Returns the dtype.
    pub fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    /// Stacks tensors of one shape and dtype along a new first axis.
    ///
    /// # Errors
    /// When there are none, or they differ.
    pub fn stack(tensors: Vec<Tensor>) -> Result<Tensor> {
        let first = tensors.first().ok_or_else(|| invalid("stack of no tensors".to_owned()))?;
        if let Some(other) = tensors.iter().find(|other| !other.is_like(first)) {
            let (a, b) = (first.describe(), other.describe());
            return Err(invalid(format!("stack of {a} and {b}")));
        }
        let shape = [&[tensors.len() as i32], first.shape()].concat();
        Ok(Tensor::new(shape, first.dtype(), Origin::Stack(tensors)))
    }

    /// Joins tensors of one dtype that differ along `axis` at most.
    ///
    /// # Errors
    /// When there are none, or they do not fit.
    pub fn concatenate(tensors: Vec<Tensor>, axis: usize) -> Result<Tensor> {
        let first = tensors.first().ok_or_else(|| invalid("no tensors to join".to_owned()))?;
        let mut shape = first.shape().to_vec();
        if axis >= shape.len() {
            return Err(invalid(format!("join of {} along axis {axis}", first.describe())));
        }
        let mut size = 0i64;
        for tensor in &tensors {
            let mut alike = tensor.shape().to_vec();
            size += alike.get(axis).map_or(0, |&n| i64::from(n));
            if let Some(n) = alike.get_mut(axis) {
                *n = shape[axis];
            }
            if alike != shape || tensor.dtype() != first.dtype() {
                let (a, b) = (first.describe(), tensor.describe());
                return Err(invalid(format!("join of {a} and {b} along axis {axis}")));
            }
        }
        shape[axis] = i32::try_from(size).map_err(|_| invalid(format!("join of {size} rows")))?;
        Ok(Tensor::new(shape, first.dtype(), Origin::Concatenation(tensors, axis as i32)))
    }

    /// Returns every `step`th of some elements along an axis, `count` of them from `start` on.
    ///
    /// # Errors
    /// When they are not there.
    pub fn slice(&self, axis: usize, start: i32, count: i32, step: i32) -> Result<Tensor> {
        let size = self.shape().get(axis).copied().unwrap_or(-1);
        let last = i64::from(start) + (i64::from(count) - 1) * i64::from(step);
        if start < 0 || count < 1 || step < 1 || last >= i64::from(size) {
            let what = self.describe();
            return Err(invalid(format!(
                "{count} elements from {start} by {step} along axis {axis} of {what}"
            )));
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = count;
        let stop = last as i32 + 1;
        let origin = Origin::Slice { of: self.clone(), axis, start, stop, step };
        Ok(Tensor::new(shape, self.dtype(), origin))
    }

    /// Returns the tensor with its axes in another order.
    ///
    /// # Errors
    /// When `axes` is not an order of the axes.
    pub fn transpose(&self, axes: &[i32]) -> Result<Tensor> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.shape().len() as i32) {
            return Err(invalid(format!("axes {axes:?} of {}", self.describe())));
        }
        let shape = axes.iter().map(|&axis| self.shape()[axis as usize]).collect();
        Ok(Tensor::new(shape, self.dtype(), Origin::Transpose(self.clone(), axes.to_vec())))
    }

    /// Returns the elements in another shape.
    ///
    /// # Errors
    /// When it has another number of elements.
    pub fn reshape(&self, shape: &[i32]) -> Result<Tensor> {
        let count = |shape: &[i32]| {
            shape.iter().try_fold(1i64, |n, &dim| {
                u32::try_from(dim).ok().and_then(|dim| n.checked_mul(i64::from(dim)))
            })
        };
        if count(shape).is_none() || count(shape) != count(self.shape()) {
            return Err(invalid(format!("{} as {shape:?}", self.describe())));
        }
        Ok(Tensor::new(shape.to_vec(), self.dtype(), Origin::Reshape(self.clone())))
    }

    /// Returns the tensor with a number added to each element, in its dtype.
    ///
    /// # Errors
    /// When the dtype is not floating.
    pub fn plus(&self, number: f32) -> Result<Tensor> {
        if !self.dtype().is_floating() {
            return Err(invalid(format!("{number} added to {}", self.describe())));
        }
        let origin = Origin::Add(self.clone(), number);
        Ok(Tensor::new(self.shape().to_vec(), self.dtype(), origin))
    }

    /// Makes the tensor.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn into_array(self) -> Result<Array> {
        match Rc::try_unwrap(self.0) {
            Ok(node) => match node.made.into_inner() {
                Some(array) => Ok(array),
                None => make(node.origin, &node.shape, node.dtype),
            },
            // Somebody else may want it, too.
            Err(node) => Tensor(node).to_array(),
        }
    }

    fn to_array(&self) -> Result<Array> {
        if let Some(array) = self.0.made.get() {
            return Ok(array.clone());
        }
        let Node { shape, dtype, origin, .. } = &*self.0;
        let array = make(origin.clone(), shape, *dtype)?;
        Ok(self.0.made.get_or_init(|| array).clone())
    }

    fn is_like(&self, other: &Tensor) -> bool {
        (self.shape(), self.dtype()) == (other.shape(), other.dtype())
    }

    fn describe(&self) -> String {
        format!("{:?} of {}", self.shape(), self.dtype())
    }
}

fn make(origin: Origin, shape: &[i32], dtype: Dtype) -> Result<Array> {
    let arrays = |tensors: Vec<Tensor>| {
        tensors.into_iter().map(Tensor::into_array).collect::<Result<Vec<Array>>>()
    };
    match origin {
        Origin::Array(array) => Ok(array),
        Origin::File(bytes) => Array::from_tensor(&bytes, shape, dtype),
        Origin::Stack(tensors) => ops::stack(&arrays(tensors)?, 0),
        Origin::Concatenation(tensors, axis) => ops::concatenate(&arrays(tensors)?, axis),
        Origin::Slice { of, axis, start, stop, step } => {
            let mut starts = vec![0; of.shape().len()];
            let (mut stops, mut steps) = (of.shape().to_vec(), vec![1; starts.len()]);
            (starts[axis], stops[axis], steps[axis]) = (start, stop, step);
            of.into_array()?.slice(&starts, &stops, &steps)
        }
        Origin::Transpose(of, axes) => of.into_array()?.transpose(axes),
        Origin::Reshape(of) => of.into_array()?.reshape(shape),
        Origin::Add(of, number) => of.into_array()? + number,
        Origin::Made(Maker(make)) => {
            let array = make()?;
            match (array.shape(), array.dtype()) == (shape, dtype) {
                true => Ok(array),
                false => Err(invalid(format!("{array:?} for {shape:?} of {dtype}"))),
            }
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[i32]) -> Result<Tensor> {
        Ok(Array::range(shape.iter().product())?.reshape(shape)?.into())
    }

    #[test]
    fn shapes_are_known_before_anything_is_made() -> Result<()> {
        let x = numbers(&[4, 6])?;
        let cases = [
            Tensor::stack(vec![x.clone(), x.clone(), x.clone()])?,
            Tensor::concatenate(vec![x.clone(), numbers(&[4, 2])?], 1)?,
            x.slice(0, 1, 2, 2)?,
            x.slice(1, 5, 1, 3)?,
            x.transpose(&[1, 0])?,
            x.reshape(&[2, 2, 6])?,
            Tensor::from(x.clone().into_array()?.astype(Dtype::Bfloat16)?).plus(1.0)?,
        ];
        for tensor in cases {
            let (shape, dtype) = (tensor.shape().to_vec(), tensor.dtype());
            let array = tensor.into_array()?;
            assert_eq!((array.shape(), array.dtype()), (&shape[..], dtype));
        }
        Ok(())
    }

    #[test]
    fn parts_are_those_of_the_whole() -> Result<()> {
        let x = numbers(&[4, 3])?;
        let values = |tensor: Tensor| tensor.into_array()?.to_vec::<i32>();
        assert_eq!(values(x.slice(0, 1, 2, 2)?)?, [3, 4, 5, 9, 10, 11]);
        assert_eq!(values(x.slice(1, 2, 1, 1)?)?, [2, 5, 8, 11]);
        assert_eq!(values(x.transpose(&[1, 0])?)?, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        let halves = [x.slice(0, 0, 2, 1)?, x.slice(0, 2, 2, 1)?];
        assert_eq!(values(Tensor::concatenate(halves.to_vec(), 0)?)?, values(x.clone())?);
        let [first, second] = halves;
        assert_eq!(values(Tensor::stack(vec![second, first])?)?[..3], [6, 7, 8]);
        Ok(())
    }

    #[test]
    fn parts_of_a_stack_are_made_alone() -> Result<()> {
        let made = Rc::new(std::cell::Cell::new(0));
        let tensor = |start: i32| {
            let made = Rc::clone(&made);
            Tensor::made_by(&[2], Dtype::Int32, move || {
                made.set(made.get() + 1);
                Array::from_slice(&[start, start + 1], &[2])
            })
        };
        let stack = Tensor::stack((0..5).map(|i| tensor(10 * i)).collect())?;
        assert_eq!(stack.at(3)?.into_array()?.to_vec::<i32>()?, [30, 31]);
        assert_eq!(made.get(), 1);
        assert!(stack.at(5).is_err() && stack.at(-1).is_err());
        let x = numbers(&[4, 2, 3])?;
        assert_eq!(x.at(1)?.shape(), [2, 3]);
        assert_eq!(x.at(1)?.into_array()?.to_vec::<i32>()?, [6, 7, 8, 9, 10, 11]);
        assert!(x.at(4).is_err());
        let unlike = Tensor::made_by(&[3], Dtype::Int32, || Array::range(2));
        assert!(unlike.into_array().is_err());
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        let x = numbers(&[4, 6])?;
        assert!(x.plus(1.0).is_err());
        for (axis, start, count, step) in
            [(2, 0, 1, 1), (0, 0, 5, 1), (0, 3, 2, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)]
        {
            assert!(x.slice(axis, start, count, step).is_err(), "{axis} {start} {count} {step}");
        }
        assert!(x.slice(0, 0, i32::MAX, i32::MAX).is_err());
        assert!(Tensor::stack(vec![]).is_err());
        assert!(Tensor::stack(vec![x.clone(), numbers(&[4, 5])?]).is_err());
        assert!(Tensor::concatenate(vec![], 0).is_err());
        assert!(Tensor::concatenate(vec![x.clone()], 2).is_err());
        assert!(Tensor::concatenate(vec![x.clone(), numbers(&[4, 5])?], 0).is_err());
        for axes in [&[0][..], &[0, 0], &[0, 2], &[0, 1, 2], &[-1, 0]] {
            assert!(x.transpose(axes).is_err(), "{axes:?}");
        }
        for shape in [&[4][..], &[-4, -6], &[i32::MAX, i32::MAX, i32::MAX]] {
            assert!(x.reshape(shape).is_err(), "{shape:?}");
        }
        Ok(())
    }
}
