//! Looking at graphs.

use std::ffi::CStr;

use mlx_sys as sys;

use super::closure::on_large_stack;
use super::{ArrayVec, check, is_recorded, last_error, read_string};
use crate::array::Array;
use crate::error::Result;

pub(crate) fn array_is_tracer(array: &Array) -> bool {
    if is_recorded(array) {
        return false;
    }
    // SAFETY: the handle is live.
    unsafe { sys::mlx_shim_array_is_tracer(array.raw()) }
}

/// Writes the graph under `outputs` as text, in Graphviz's language if `dot`.
pub(crate) fn graph_text<'a>(
    names: impl IntoIterator<Item = (&'a Array, &'a CStr)>,
    outputs: &[Array],
    dot: bool,
) -> Result<String> {
    struct Namer(sys::mlx_node_namer);
    impl Drop for Namer {
        fn drop(&mut self) {
            // SAFETY: the handle is owned, and an empty one is allowed.
            unsafe { sys::mlx_node_namer_free(self.0) };
        }
    }
    // SAFETY: makes a new handle.
    let namer = Namer(unsafe { sys::mlx_node_namer_new() });
    if namer.0.ctx.is_null() {
        return Err(last_error("mlx_node_namer_new"));
    }
    for (array, name) in names {
        // SAFETY: handles are live, the text is copied.
        let status = unsafe { sys::mlx_node_namer_set_name(namer.0, array.raw(), name.as_ptr()) };
        check(status, "mlx_node_namer_set_name")?;
    }
    let outputs = ArrayVec::new(outputs)?;
    read_string("mlx_print_graph", |text| {
        // SAFETY: handles are live, the string is an empty handle to fill.
        on_large_stack(|| unsafe { sys::mlx_shim_graph_text(text, namer.0, outputs.0, dot) })
    })
}
