//! Looking at the graph behind arrays: which ops wait to be computed, as a list or a drawing.

use std::ffi::CString;

use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{array_is_tracer, graph_text};

/// Names for arrays in the text of a graph; others are called A, B, C and so on.
#[derive(Default)]
pub struct Names(Vec<(Array, String)>);

impl Names {
    /// Makes an empty set of names.
    pub fn new() -> Self {
        Names::default()
    }

    /// Gives an array a name.
    #[must_use]
    pub fn with(mut self, array: &Array, name: impl Into<String>) -> Self {
        self.0.push((array.clone(), name.into()));
        self
    }

    fn text(&self, outputs: &[Array], dot: bool) -> Result<String> {
        let names = self.0.iter().map(|(array, name)| {
            // MLX puts names between quotes in the one and between commas in the other.
            let name =
                if dot { name.replace('\\', "\\\\").replace('"', "\\\"") } else { name.clone() };
            CString::new(name).map(|name| (array, name)).map_err(|e| {
                Error::new(ErrorKind::InvalidArgument, format!("graph: name with a zero byte, {e}"))
            })
        });
        let names = names.collect::<Result<Vec<_>>>()?;
        graph_text(names.iter().map(|(array, name)| (*array, name.as_c_str())), outputs, dot)
    }
}

/// Lists what `outputs` are computed from: a line of inputs, one of outputs, and one for each op.
///
/// What is already computed is an input.
///
/// # Errors
/// When a name has a zero byte.
///
/// ```
/// use mlx_core::{Array, transforms::graph};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from(2.0f32);
/// let y = x.exp()?;
/// let names = graph::Names::new().with(&x, "x").with(&y, "y");
/// let text = graph::print_graph(&names, &[y])?;
/// assert!(text.contains("Exp x [(), float32] -> y [(), float32]"));
/// # Ok(())
/// # }
/// ```
pub fn print_graph(names: &Names, outputs: &[Array]) -> Result<String> {
    names.text(outputs, false)
}

/// Writes the graph behind `outputs` in Graphviz's language.
///
/// # Errors
/// When a name has a zero byte.
///
/// ```
/// use mlx_core::{Array, transforms::graph};
///
/// # fn main() -> mlx_core::Result<()> {
/// let y = Array::from(2.0f32).exp()?;
/// let dot = graph::export_to_dot(&graph::Names::new().with(&y, "y"), &[y])?;
/// assert!(dot.starts_with("digraph {") && dot.contains("\"Exp\"") && dot.contains("\"y\""));
/// # Ok(())
/// # }
/// ```
pub fn export_to_dot(names: &Names, outputs: &[Array]) -> Result<String> {
    names.text(outputs, true)
}

impl Array {
    /// Returns whether this is a stand-in in a function that is being traced, which has a shape and
    /// no value.
    pub fn is_tracer(&self) -> bool {
        array_is_tracer(self)
    }
}
