//! State of a layer that its own forward pass replaces.

use std::cell::RefCell;
use std::fmt;

use super::{Leaf, LeafMut, Module, Visitor, VisitorMut};
use crate::array::Array;
use crate::error::Result;

/// An array that is saved with a layer but not trained, and that `forward(&self, …)` may replace.
///
/// Running statistics are such. What is put here inside of a function that is differentiated is
/// part of its graph and stays usable afterwards; inside of a compiled function it is not.
#[derive(Clone)]
pub struct Buffer(RefCell<Array>);

impl Buffer {
    /// Returns the array as it is now.
    pub fn get(&self) -> Array {
        self.0.borrow().clone()
    }

    /// Puts another array in place of it.
    pub fn set(&self, array: Array) {
        // The old array is dropped after the borrow has ended.
        drop(self.0.replace(array));
    }
}

impl From<Array> for Buffer {
    fn from(array: Array) -> Buffer {
        Buffer(RefCell::new(array))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let array = self.get();
        write!(f, "Buffer({:?}, {})", array.shape(), array.dtype())
    }
}

impl Module for Buffer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        // A copy of the handle, so that the visitor may call `set`.
        visitor.leaf(Leaf::Buffer(&self.get()));
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        visitor.leaf(LeafMut::Buffer(self.0.get_mut()))
    }
}
