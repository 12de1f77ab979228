//! Kernels that become one node.
//!
//! A node costs its way through MLX's graph twice: when it is made, and when the evaluation reaches
//! it. A decoder has some hundred kernels for a token, and on few cores that time is taken from the
//! kernels. Within [`recording`] a kernel is therefore noted here instead, and its results are arrays
//! that no node stands for yet. Where somebody needs such a node, all that was noted becomes one, whose
//! outputs are the results that somebody still holds.
//!
//! What is noted are kernels alone; each op of MLX's asks for the nodes of its inputs ([`Array::raw`]).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};

use mlx_sys as sys;
use smallvec::SmallVec;

use super::host::{HostKernel, HostStep};
use super::program::{Constant, Operand, Program};
use super::{array_clone, array_free, null_array};
use crate::array::{Array, Sizes};
use crate::dtype::Dtype;
use crate::error::Result;

/// Kernels in one node; what is left over starts the next.
const MAX_STEPS: usize = 4096;

/// Whether kernels are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noting {
    Off,
    On,
    /// Not here, whatever is asked for: MLX follows each op of a function that it transforms.
    Never,
}

thread_local! {
    static NOTING: Cell<Noting> = const { Cell::new(Noting::Off) };
    /// What is noted until somebody needs a node.
    static CURRENT: RefCell<Option<Rc<Recording>>> = const { RefCell::new(None) };
}

/// Sets whether kernels are noted until it is dropped.
pub(super) struct Switch {
    before: Noting,
}

impl Switch {
    pub(super) fn set(noting: Noting) -> Switch {
        let before = NOTING.get();
        if before != Noting::Never {
            NOTING.set(noting);
        }
        Switch { before }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        NOTING.set(self.before);
    }
}

/// Calls `f` and makes one node of the kernels it calls, as far as there are no ops of MLX's between.
pub(crate) fn recording<R>(f: impl FnOnce() -> R) -> R {
    /// Ends what was noted, also if `f` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            if NOTING.get() != Noting::On
                && let Some(recording) = CURRENT.take()
            {
                recording.close();
            }
        }
    }
    let _end = End;
    let _switch = Switch::set(Noting::On);
    f()
}

/// Tells whether an array is the result of a kernel that was noted and is no node yet.
pub(crate) fn is_recorded(array: &Array) -> bool {
    array.recorded().is_some_and(|value| value.node.get().is_none())
}

/// Notes a kernel, or gives it back where kernels are not noted.
pub(super) fn record<K: HostKernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[(&[i32], Dtype)],
) -> Result<std::result::Result<Vec<Array>, K>> {
    if NOTING.get() != Noting::On {
        return Ok(Err(kernel));
    }
    // What is appended to has to be a node's: only MLX's reference counts tell whether its memory may
    // be taken over.
    for output in 0..outputs.len() {
        if let Some(input) = HostKernel::appends_to(&kernel, output) {
            inputs[input].raw();
        }
    }
    let recording = Recording::current()?;
    Ok(Ok(recording.add(Box::new(kernel), inputs, outputs)))
}

/// Kernels that were noted, in an order in which they can run.
pub(crate) struct Recording {
    stream: sys::mlx_stream,
    /// Taken when the node is made.
    noted: RefCell<Option<Noted>>,
}

#[derive(Default)]
struct Noted {
    steps: Vec<NotedStep>,
    values: Vec<NotedValue>,
    /// Arrays that the node depends on.
    inputs: Vec<Array>,
    /// Arrays that were there before, in most cases weights.
    constants: Vec<Constant>,
}

pub(super) struct NotedStep {
    pub(super) step: Box<dyn HostStep>,
    pub(super) operands: SmallVec<[Operand; 16]>,
    /// Its results are values from here on.
    pub(super) first: usize,
    pub(super) n_outputs: usize,
}

pub(super) struct NotedValue {
    pub(super) shape: Sizes,
    pub(super) dtype: Dtype,
    array: Weak<Value>,
}

impl Recording {
    /// Returns what is noted for the current stream.
    fn current() -> Result<Rc<Recording>> {
        let stream = crate::stream::current_raw()?;
        let is_open = |recording: &Recording| {
            recording.stream.ctx == stream.ctx
                && recording.noted.borrow().as_ref().is_some_and(|n| n.steps.len() < MAX_STEPS)
        };
        let current = CURRENT.with_borrow(Clone::clone);
        if let Some(recording) = current.clone().filter(|recording| is_open(recording)) {
            return Ok(recording);
        }
        if let Some(recording) = current {
            recording.close();
        }
        let new = Rc::new(Recording { stream, noted: RefCell::new(Some(Noted::default())) });
        CURRENT.set(Some(new.clone()));
        Ok(new)
    }

    fn add(
        self: &Rc<Self>,
        step: Box<dyn HostStep>,
        inputs: &[&Array],
        outputs: &[(&[i32], Dtype)],
    ) -> Vec<Array> {
        // Values of other recordings become nodes here, before this one's notes are borrowed.
        let known = |input: &Array| match input.recorded() {
            Some(value) if value.node.get().is_none() && Rc::ptr_eq(&value.recording, self) => {
                Some(Operand::Value(value.index))
            }
            _ => {
                input.raw();
                None
            }
        };
        let known: SmallVec<[Option<Operand>; 16]> = inputs.iter().map(|x| known(x)).collect();
        let mut noted = self.noted.borrow_mut();
        let noted = noted.as_mut().expect("an open recording");
        let is_appended_to =
            |i| (0..outputs.len()).any(|output| step.appends_to(output) == Some(i));
        let operands = inputs.iter().zip(known).enumerate().map(|(i, (input, known))| {
            if let Some(value) = known {
                return value;
            }
            let constant = if is_appended_to(i) { None } else { Constant::new(input) };
            match constant {
                Some(constant) => {
                    noted.constants.push(constant);
                    Operand::Constant(noted.constants.len() - 1)
                }
                None => {
                    noted.inputs.push((*input).clone());
                    Operand::Input(noted.inputs.len() - 1)
                }
            }
        });
        let operands = operands.collect();
        let first = noted.values.len();
        let arrays = outputs.iter().enumerate().map(|(i, &(shape, dtype))| {
            let value = Rc::new(Value {
                recording: self.clone(),
                index: first + i,
                shape: Sizes::from_slice(shape),
                dtype,
                node: OnceCell::new(),
            });
            let array = Rc::downgrade(&value);
            noted.values.push(NotedValue { shape: Sizes::from_slice(shape), dtype, array });
            Array::from_recorded(value)
        });
        let arrays = arrays.collect();
        noted.steps.push(NotedStep { step, operands, first, n_outputs: outputs.len() });
        arrays
    }

    /// Makes the node, and gives the results that somebody holds their part of it. Where that fails
    /// they have none, and what is done with them fails.
    fn close(&self) {
        let Some(Noted { steps, values, inputs, constants }) = self.noted.take() else { return };
        let held: Vec<_> = values.iter().map(|value| value.array.upgrade()).collect();
        let is_held: Vec<bool> = held.iter().map(Option::is_some).collect();
        let (program, outputs) = Program::plan(steps, &values, constants, &is_held);
        if outputs.is_empty() {
            return;
        }
        if let Ok(arrays) = program.into_node(&inputs, &values, &outputs, self.stream) {
            for (array, &index) in arrays.iter().zip(&outputs) {
                if let Some(value) = &held[index] {
                    // A value has a node only from here.
                    let _ = value.node.set(Node(array_clone(array.raw())));
                }
            }
        }
    }
}

/// A result of a kernel that was noted.
pub(crate) struct Value {
    recording: Rc<Recording>,
    index: usize,
    pub(crate) shape: Sizes,
    pub(crate) dtype: Dtype,
    node: OnceCell<Node>,
}

struct Node(sys::mlx_array);

impl Drop for Node {
    fn drop(&mut self) {
        array_free(self.0);
    }
}

impl Value {
    /// Returns the handle of the value's node, which is made where there is none.
    pub(crate) fn raw(&self) -> sys::mlx_array {
        if self.node.get().is_none() {
            self.recording.close();
        }
        self.node.get().map_or(null_array(), |node| node.0)
    }
}

#[cfg(test)]
mod tests;
