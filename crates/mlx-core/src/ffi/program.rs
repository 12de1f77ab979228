//! One node for several kernels: what runs in which memory.

use std::ffi::CStr;
use std::ptr;

use mlx_sys as sys;
use smallvec::SmallVec;

use super::host::{HostInput, HostKernel, HostOutput, host_node};
use super::recording::{NotedStep, NotedValue};
use super::{array_clone, array_free, array_is_available, array_is_row_contiguous};
use crate::array::{Array, Sizes};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::ahead;

/// Where an input of a kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// An input of the node.
    Input(usize),
    /// An array that was there when the kernel was noted.
    Constant(usize),
    /// A result of a kernel before.
    Value(usize),
}

/// An array that was there before the node, row contiguous. It is no input, because each input of a
/// node costs for each of its outputs, and weights are many.
pub(super) struct Constant {
    /// Keeps the array's memory; nothing is evaluated by it.
    raw: sys::mlx_array,
    data: *const u8,
    nbytes: usize,
    shape: Sizes,
    strides: SmallVec<[i64; 4]>,
    dtype: Dtype,
}

// SAFETY: the array is there, so it is never written to again while this handle exists; its reference
// count is atomic, and freeing it on another thread is what MLX's own tasks do.
unsafe impl Send for Constant {}
// SAFETY: as above; only the memory is read.
unsafe impl Sync for Constant {}

impl Constant {
    /// Takes an array if it is there, row contiguous.
    pub(super) fn new(array: &Array) -> Option<Constant> {
        if !array_is_available(array) || !array_is_row_contiguous(array).ok()? {
            return None;
        }
        let raw = array.raw();
        // SAFETY: an array that is there has its memory.
        let data = unsafe { sys::mlx_shim_array_data(raw) }.cast::<u8>();
        if data.is_null() {
            return None;
        }
        let shape = Sizes::from_slice(array.shape());
        Some(Constant {
            data,
            nbytes: array.nbytes(),
            strides: contiguous(&shape),
            shape,
            dtype: array.dtype(),
            raw: array_clone(raw),
        })
    }

    fn input(&self) -> HostInput<'_> {
        HostInput {
            // SAFETY: row contiguity makes `nbytes` from the data pointer on its own elements, which
            // the handle keeps.
            bytes: unsafe { std::slice::from_raw_parts(self.data, self.nbytes) },
            shape: &self.shape,
            strides: &self.strides,
            start: 0,
            dtype: self.dtype,
        }
    }
}

impl Drop for Constant {
    fn drop(&mut self) {
        array_free(self.raw);
    }
}

/// The strides of a row-contiguous array.
fn contiguous(shape: &[i32]) -> SmallVec<[i64; 4]> {
    let mut strides: SmallVec<[i64; 4]> = SmallVec::from_elem(1, shape.len());
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * i64::from(shape[i]);
    }
    strides
}

/// Where a result lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    /// In an output of the node.
    Output(usize),
    /// In the node's scratch memory, from here on.
    Scratch(usize),
    /// Nowhere: no kernel that runs makes it.
    None,
}

struct PlannedValue {
    shape: Sizes,
    strides: SmallVec<[i64; 4]>,
    dtype: Dtype,
    nbytes: usize,
    storage: Storage,
}

/// Kernels that run one after the other as one.
pub(super) struct Program {
    steps: Vec<NotedStep>,
    values: Vec<PlannedValue>,
    constants: Vec<Constant>,
    /// Which input an output continues.
    in_place: Vec<Option<usize>>,
    /// Whether an input is taken as it lies.
    takes_strided: Vec<bool>,
    /// Behind each step, the next one that reads weights whole; the first one, behind the last.
    next_product: Vec<Option<usize>>,
    scratch_bytes: usize,
}

/// Results start at multiples of this, as what MLX allocates does at least.
const ALIGN: usize = 64;

impl Program {
    /// Leaves out what nobody needs and finds places for the rest. Returns with it which values are
    /// outputs.
    pub(super) fn plan(
        mut steps: Vec<NotedStep>,
        noted: &[NotedValue],
        constants: Vec<Constant>,
        is_held: &[bool],
    ) -> (Program, Vec<usize>) {
        // The last step that needs a value; one that is held is needed behind the last.
        let mut last_use: Vec<Option<usize>> =
            is_held.iter().map(|&is_held| is_held.then_some(usize::MAX)).collect();
        let mut is_needed = vec![false; steps.len()];
        for (i, step) in steps.iter().enumerate().rev() {
            let mut results = step.first..step.first + step.n_outputs;
            is_needed[i] = results.any(|value| last_use[value].is_some());
            for operand in step.operands.iter().filter(|_| is_needed[i]) {
                if let Operand::Value(value) = *operand {
                    last_use[value].get_or_insert(i);
                }
            }
        }
        let mut values: Vec<PlannedValue> = noted
            .iter()
            .map(|value| PlannedValue {
                shape: value.shape.clone(),
                strides: contiguous(&value.shape),
                dtype: value.dtype,
                nbytes: value.shape.iter().map(|&n| n as usize).product::<usize>()
                    * value.dtype.size(),
                storage: Storage::None,
            })
            .collect();

        let mut scratch = Scratch::default();
        let (mut outputs, mut in_place) = (Vec::new(), Vec::new());
        let mut takes_strided: Vec<Option<bool>> = Vec::new();
        // Of each step, the values that nobody needs behind it.
        let mut ends: Vec<SmallVec<[usize; 4]>> = vec![SmallVec::new(); steps.len()];
        for (value, last) in last_use.iter().enumerate() {
            if let Some(end) = last.and_then(|last| ends.get_mut(last)) {
                end.push(value);
            }
        }
        for (i, step) in steps.iter().enumerate().filter(|&(i, _)| is_needed[i]) {
            for (position, operand) in step.operands.iter().enumerate() {
                if let Operand::Input(input) = *operand {
                    takes_strided.resize(takes_strided.len().max(input + 1), None);
                    takes_strided[input] = Some(step.step.takes_strided(position));
                }
            }
            for result in 0..step.n_outputs {
                let value = step.first + result;
                let continued = step.step.appends_to(result);
                values[value].storage = if continued.is_some() || is_held[value] {
                    outputs.push(value);
                    in_place.push(continued.and_then(|input| match step.operands[input] {
                        Operand::Input(input) => Some(input),
                        _ => None,
                    }));
                    Storage::Output(outputs.len() - 1)
                } else {
                    Storage::Scratch(scratch.take(values[value].nbytes))
                };
            }
            // A result that nobody ever reads has its place for the step alone.
            let unread =
                (step.first..step.first + step.n_outputs).filter(|&v| last_use[v].is_none());
            for value in ends[i].iter().copied().chain(unread) {
                if let Storage::Scratch(start) = values[value].storage {
                    scratch.give_back(start);
                }
            }
        }
        let mut is_needed = is_needed.into_iter();
        steps.retain(|_| is_needed.next() == Some(true));
        let program = Program {
            next_product: next_products(&steps),
            steps,
            values,
            constants,
            in_place,
            takes_strided: takes_strided.into_iter().map(|strided| strided == Some(true)).collect(),
            scratch_bytes: scratch.len,
        };
        (program, outputs)
    }

    /// Tells of the weights that a step reads.
    fn announce(&self, step: Option<usize>) {
        let operands = step.map_or(&[][..], |step| &self.steps[step].operands);
        ahead::announce(operands.iter().filter_map(|operand| match *operand {
            Operand::Constant(constant) => Some(self.constants[constant].input().bytes),
            _ => None,
        }));
    }

    /// Makes the node and returns its outputs.
    pub(super) fn into_node(
        self,
        inputs: &[Array],
        noted: &[NotedValue],
        outputs: &[usize],
        stream: sys::mlx_stream,
    ) -> Result<Vec<Array>> {
        // The scratch memory is an output that nobody holds, so it is counted as MLX's and is free as
        // soon as the node has run.
        const ROW: usize = 4096;
        let rows = i32::try_from(self.scratch_bytes.div_ceil(ROW)).map_err(|_| {
            Error::new(ErrorKind::OutOfMemory, "kernels: results beyond what a node can hold")
        })?;
        let scratch = [rows, ROW as i32];
        let mut specs: Vec<(&[i32], Dtype)> =
            outputs.iter().map(|&value| (&noted[value].shape[..], noted[value].dtype)).collect();
        if rows > 0 {
            specs.push((&scratch, Dtype::Uint8));
        }
        // Kernels are noted outside of transforms only, and what was there before is constant to them.
        let fallback = |_: &[Array]| {
            Err(Error::new(ErrorKind::Unsupported, "kernels: a transform of kernels in one node"))
        };
        let inputs: Vec<&Array> = inputs.iter().collect();
        host_node(self, &inputs, &specs, Box::new(fallback), stream)
    }
}

/// Returns of each step which one behind it reads weights. Programs run again and again as a rule, so
/// that the first step follows the last.
fn next_products(steps: &[NotedStep]) -> Vec<Option<usize>> {
    let mut next = steps.iter().position(|step| step.step.reads_weights());
    let mut of_each = vec![None; steps.len()];
    for (i, step) in steps.iter().enumerate().rev() {
        of_each[i] = next;
        if step.step.reads_weights() {
            next = Some(i);
        }
    }
    of_each
}

/// Memory for results, in blocks that one takes after the other.
#[derive(Default)]
struct Scratch {
    blocks: Vec<Block>,
    len: usize,
}

struct Block {
    start: usize,
    len: usize,
    is_taken: bool,
}

impl Scratch {
    /// Takes the smallest free block that is large enough, or a new one.
    fn take(&mut self, nbytes: usize) -> usize {
        let free = self.blocks.iter_mut().filter(|block| !block.is_taken && block.len >= nbytes);
        let block = match free.min_by_key(|block| block.len) {
            Some(block) => block,
            None => {
                let len = nbytes.next_multiple_of(ALIGN);
                self.blocks.push(Block { start: self.len, len, is_taken: true });
                self.len += len;
                self.blocks.last_mut().expect("a block was pushed")
            }
        };
        block.is_taken = true;
        block.start
    }

    fn give_back(&mut self, start: usize) {
        for block in self.blocks.iter_mut().filter(|block| block.start == start && block.is_taken) {
            block.is_taken = false;
        }
    }
}

impl HostKernel for Program {
    const NAME: &'static CStr = c"kernels";

    /// No two are alike: what they compute is told by their constants, too.
    fn params(&self) -> Vec<u64> {
        vec![self.steps.as_ptr() as u64]
    }

    fn takes_strided(&self, input: usize) -> bool {
        self.takes_strided.get(input) == Some(&true)
    }

    fn appends_to(&self, output: usize) -> Option<usize> {
        *self.in_place.get(output)?
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let scratch: *mut u8 = match outputs.get_mut(self.in_place.len()) {
            Some(scratch) => scratch.bytes.as_mut_ptr(),
            None => ptr::dangling_mut(),
        };
        let outputs: Vec<*mut u8> = outputs.iter().map(|out| out.shared.cast()).collect();
        let place = |value: &PlannedValue| match value.storage {
            Storage::Output(output) => outputs[output],
            // SAFETY: within what was planned.
            Storage::Scratch(start) => unsafe { scratch.add(start) },
            Storage::None => unreachable!("a kernel that runs needs what none makes"),
        };
        let mut announced = None;
        for (i, NotedStep { step, operands, first, n_outputs }) in self.steps.iter().enumerate() {
            if self.next_product[i] != announced {
                announced = self.next_product[i];
                self.announce(announced);
            }
            let input = |operand: &Operand| match *operand {
                Operand::Input(input) => inputs[input],
                Operand::Constant(constant) => self.constants[constant].input(),
                Operand::Value(value) => {
                    let value = &self.values[value];
                    HostInput {
                        // SAFETY: a step before wrote it, and what this step writes lies elsewhere:
                        // a block is given back behind its last reader only.
                        bytes: unsafe { std::slice::from_raw_parts(place(value), value.nbytes) },
                        shape: &value.shape,
                        strides: &value.strides,
                        start: 0,
                        dtype: value.dtype,
                    }
                }
            };
            let inputs: SmallVec<[HostInput<'_>; 16]> = operands.iter().map(input).collect();
            let mut results: SmallVec<[HostOutput<'_>; 3]> = SmallVec::new();
            for (i, value) in self.values[*first..first + n_outputs].iter().enumerate() {
                let data = place(value);
                let own = if step.appends_to(i).is_some() { 0 } else { value.nbytes };
                results.push(HostOutput {
                    // SAFETY: of its size; no other result of this step and no input has it. None of
                    // it is shown as this step's own where it continues an input.
                    bytes: unsafe { std::slice::from_raw_parts_mut(data, own) },
                    shape: &value.shape,
                    shared: ptr::slice_from_raw_parts_mut(data, value.nbytes),
                });
            }
            step.run(&inputs, &mut results)
                .map_err(|text| format!("{}: {text}", step.name().to_string_lossy()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Step {
        reads_weights: bool,
    }

    impl HostKernel for Step {
        const NAME: &'static CStr = c"step";

        fn params(&self) -> Vec<u64> {
            vec![]
        }

        fn reads_weights(&self) -> bool {
            self.reads_weights
        }

        fn run(&self, _: &[HostInput<'_>], _: &mut [HostOutput<'_>]) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn the_first_product_follows_the_last() {
        let next = |reads: &[bool]| {
            let step = |&reads_weights| NotedStep {
                step: Box::new(Step { reads_weights }),
                operands: SmallVec::new(),
                first: 0,
                n_outputs: 0,
            };
            next_products(&reads.iter().map(step).collect::<Vec<_>>())
        };
        let [some, none] = [true, false];
        assert_eq!(
            next(&[none, some, none, some, none]),
            [Some(1), Some(3), Some(3), Some(1), Some(1)]
        );
        assert_eq!(next(&[some]), [Some(0)]);
        assert_eq!(next(&[none, none]), [None, None]);
    }
}
