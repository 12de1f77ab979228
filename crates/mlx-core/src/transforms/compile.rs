//! Compiling: a function's graph is traced once, simplified and fused, and replayed.
//!
//! MLX replays without looking. What it would get wrong, or read out of bounds for, is met here: a
//! function that calls itself while it is traced, and a shapeless one that does depend on shapes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::{self, Closure, TraceRecord};

/// A function compiled by [`compile`].
pub struct Compiled {
    function: Closure,
    compiled: Closure,
    shapes: Option<Rc<Shapes>>,
    busy: Cell<bool>,
}

impl Compiled {
    /// Calls the function.
    ///
    /// # Errors
    /// Those of the function while it is traced, and MLX's.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        // Under another transform MLX, too, calls the function itself. A call from within its own
        // trace would pull the cache from under the outer one.
        if self.busy.get() || inputs.iter().any(Array::is_tracer) {
            return self.function.apply(inputs);
        }
        let _busy = Raised::new(&self.busy);
        let Some(shapes) = &self.shapes else { return self.compiled.apply(inputs) };
        if !shapes.hold(&self.function, inputs) {
            return self.function.apply(inputs);
        }
        match self.compiled.apply(inputs) {
            // The trace that MLX just made is of no use for other shapes.
            Err(_) if !shapes.hold(&self.function, inputs) => self.function.apply(inputs),
            result => result,
        }
    }
}

/// A flag that falls when this is dropped.
struct Raised<'a>(&'a Cell<bool>);

impl<'a> Raised<'a> {
    fn new(flag: &'a Cell<bool>) -> Self {
        flag.set(true);
        Raised(flag)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Ranks and dtypes of inputs, for which a shapeless function has one graph.
type Class = Vec<(usize, Dtype)>;
type Signature = Vec<Vec<i32>>;

fn class(inputs: &[Array]) -> Class {
    inputs.iter().map(|x| (x.ndim(), x.dtype())).collect()
}

fn signature(inputs: &[Array]) -> Signature {
    inputs.iter().map(|x| x.shape().to_vec()).collect()
}

/// The shapes that a shapeless trace is known to hold for, or not.
#[derive(Default)]
struct Shapes {
    /// Whether the function is being traced for a check only.
    checking: Cell<bool>,
    graphs: RefCell<Vec<Graph>>,
}

struct Graph {
    class: Class,
    /// What MLX replays; nothing where that cannot serve other shapes.
    record: Option<TraceRecord>,
    known: HashMap<Signature, bool>,
}

impl Shapes {
    /// Takes note of a trace that MLX is going to replay.
    fn traced(&self, inputs: &[Array], outputs: &[Array]) -> Result<()> {
        if self.checking.get() || !inputs.iter().all(Array::is_tracer) {
            return Ok(());
        }
        let class = class(inputs);
        let (record, result) = match TraceRecord::new(inputs, outputs) {
            Ok(record) => (Some(record), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let known = HashMap::from([(signature(inputs), record.is_some())]);
        let mut graphs = self.graphs.borrow_mut();
        graphs.retain(|graph| graph.class != class);
        graphs.push(Graph { class, record, known });
        result
    }

    /// Whether `function` makes the same graph for `inputs` as when it was traced; found out by
    /// tracing it again, once for each set of shapes. True where there is no trace yet.
    fn hold(&self, function: &Closure, inputs: &[Array]) -> bool {
        const MAX_KNOWN: usize = 1024;
        let (class, signature) = (class(inputs), signature(inputs));
        match self.graphs.borrow().iter().find(|graph| graph.class == class) {
            None => return true,
            Some(graph) => match graph.known.get(&signature) {
                Some(&holds) => return holds,
                None if graph.record.is_none() => return false,
                None => {}
            },
        }
        let record = {
            let _checking = Raised::new(&self.checking);
            TraceRecord::trace(function, inputs)
        };
        let mut graphs = self.graphs.borrow_mut();
        let Some(graph) = graphs.iter_mut().find(|graph| graph.class == class) else {
            return false;
        };
        let holds = match (&graph.record, record) {
            (Some(first), Ok(other)) => first.same(&other),
            _ => false,
        };
        if graph.known.len() >= MAX_KNOWN {
            graph.known.clear();
        }
        graph.known.insert(signature, holds);
        holds
    }
}

/// Compiles `f`: what it does is traced once for each set of input shapes and dtypes, then replayed
/// without calling it.
///
/// If `shapeless`, one trace serves all shapes of the same rank. `f` is called once more for each
/// new set of shapes, to see that it does the same for them; nothing of that is computed. For those
/// it does something else for, `f` is called as it is.
///
/// A trace is of arrays alone: `f` cannot read their values, and what else it does, such as
/// counting or drawing random numbers from the default sequence, happens while it is traced only.
/// Under another transform, `f` itself is called.
///
/// On a CPU, MLX fuses elementwise ops by calling a C++ compiler when the result is first computed;
/// [`CompileMode::NoFuse`] does without.
///
/// # Errors
/// When MLX cannot make the function.
///
/// ```
/// use mlx_core::{Array, transforms::{CompileMode, compile, set_compile_mode}};
///
/// # fn main() -> mlx_core::Result<()> {
/// set_compile_mode(CompileMode::NoFuse)?;
/// let f = compile(|x| Ok(vec![((&x[0] * 2.0)? + 1.0)?]), false)?;
/// assert_eq!(f.call(&[Array::from(3.0f32)])?[0].item::<f32>()?, 7.0);
/// # Ok(())
/// # }
/// ```
pub fn compile(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    shapeless: bool,
) -> Result<Compiled> {
    let shapes = shapeless.then(Rc::<Shapes>::default);
    let function = match shapes.clone() {
        None => Closure::new(Box::new(f))?,
        Some(shapes) => Closure::new(Box::new(move |inputs| {
            let outputs = f(inputs)?;
            shapes.traced(inputs, &outputs)?;
            Ok(outputs)
        }))?,
    };
    let compiled = function.compile(shapeless)?;
    Ok(Compiled { function, compiled, shapes, busy: Cell::new(false) })
}

/// How much [`compile`] does with what it has traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompileMode {
    /// Nothing; a compiled function is the function itself.
    Disabled,
    /// Fuses ops, but removes no duplicates.
    NoSimplify,
    /// Removes duplicates and does not fuse; needs no compiler at run time.
    NoFuse,
    /// All of it.
    Enabled,
}

/// Sets how much compiling does, for the whole process.
///
/// Functions compiled under [`CompileMode::Disabled`] stay as they are; others take notice at
/// their next trace.
///
/// # Errors
/// When MLX fails.
pub fn set_compile_mode(mode: CompileMode) -> Result<()> {
    ffi::set_compile_mode(mode)
}

/// Lets [`compile`] do all it can, which is the default.
///
/// # Errors
/// When MLX fails.
pub fn enable_compile() -> Result<()> {
    set_compile_mode(CompileMode::Enabled)
}

/// Makes [`compile`] return functions as they are.
///
/// # Errors
/// When MLX fails.
pub fn disable_compile() -> Result<()> {
    set_compile_mode(CompileMode::Disabled)
}

/// Forgets what this thread's compiled functions have traced; they trace again when called.
///
/// # Errors
/// When MLX fails.
pub fn clear_compile_cache() -> Result<()> {
    ffi::clear_compile_cache()
}
