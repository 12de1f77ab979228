//! Writing functions to files; MLX's reader is not called.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use mlx_sys as sys;

use super::closure::{give, release, run, trace};
use super::{ArrayVec, check, finish_array, last_error, null_array, read_vector};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};

/// A function with positional and keyword arguments.
pub(crate) type KwargsFn = dyn Fn(&[Array], &BTreeMap<String, Array>) -> Result<Vec<Array>>;

/// A file that traces of a function are written to.
pub(crate) struct Exporter(sys::mlx_function_exporter);

impl Exporter {
    /// Opens `path` and writes an empty header.
    pub(crate) fn new(
        path: &CStr,
        f: Box<KwargsFn>,
        shapeless: bool,
        metadata: &str,
    ) -> Result<Self> {
        unsafe extern "C" fn call(
            result: *mut sys::mlx_vector_array,
            args: sys::mlx_vector_array,
            kwargs: sys::mlx_map_string_to_array,
            payload: *mut c_void,
        ) -> i32 {
            run(|| {
                // SAFETY: the payload is the box leaked below; C++ keeps it alive during a call.
                let f = unsafe { &*payload.cast::<Box<KwargsFn>>() };
                let (args, kwargs) = (read_vector(args)?, read_map(kwargs)?);
                let outputs = f(&args, &kwargs)?;
                // MLX writes constants as if they were computed and contiguous.
                let inputs = ArrayVec::new(args.iter().chain(kwargs.values()))?;
                let traced = ArrayVec::new(&outputs)?;
                // SAFETY: both handles are live.
                let status = unsafe { sys::mlx_shim_check_constants(inputs.0, traced.0) };
                check(status, "mlx_export_function")?;
                // SAFETY: `result` is the vector that C++ wants filled.
                unsafe { give(result, &outputs) }
            })
        }
        struct Function(sys::mlx_closure_kwargs);
        impl Drop for Function {
            fn drop(&mut self) {
                // SAFETY: the handle is owned, and an empty one is allowed.
                unsafe { sys::mlx_closure_kwargs_free(self.0) };
            }
        }
        let payload = Box::into_raw(Box::new(f)).cast();
        // SAFETY: `call` and `release` fit the payload.
        let function = Function(unsafe {
            let drop = Some(release::<Box<KwargsFn>> as unsafe extern "C" fn(*mut c_void));
            sys::mlx_closure_kwargs_new_func_payload(Some(call), payload, drop)
        });
        if function.0.ctx.is_null() {
            return Err(last_error("mlx_closure_kwargs_new"));
        }
        let mut exporter = Exporter(sys::mlx_function_exporter { ctx: ptr::null_mut() });
        // SAFETY: handles are live or empty, the strings outlive the call, which copies them.
        let status = unsafe {
            sys::mlx_shim_function_exporter_new(
                &mut exporter.0,
                path.as_ptr(),
                function.0,
                shapeless,
                metadata.as_ptr().cast::<c_char>(),
                metadata.len(),
            )
        };
        check(status, "mlx_export_function")?;
        Ok(exporter)
    }

    /// Traces the function with `args` and `kwargs` and writes the trace. After an error the
    /// exporter must not be used: MLX has filed a trace that is not there.
    pub(crate) fn trace(&self, args: &[Array], kwargs: &BTreeMap<String, Array>) -> Result<()> {
        let args = ArrayVec::new(args)?;
        let map = Map::new(kwargs)?;
        // SAFETY: all three handles are live.
        trace("mlx_export_function", || unsafe {
            sys::mlx_function_exporter_apply_kwargs(self.0, args.0, map.0)
        })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_function_exporter_free(self.0) };
    }
}

/// A C++ map from names to arrays.
struct Map(sys::mlx_map_string_to_array);

impl Map {
    fn new(arrays: &BTreeMap<String, Array>) -> Result<Self> {
        // SAFETY: makes a new handle.
        let map = Map(unsafe { sys::mlx_map_string_to_array_new() });
        if map.0.ctx.is_null() {
            return Err(last_error("mlx_map_new"));
        }
        for (name, array) in arrays {
            let name = CString::new(name.as_str()).map_err(|_| {
                let text = format!("export: keyword {name:?} has a zero byte");
                Error::new(ErrorKind::InvalidArgument, text)
            })?;
            // SAFETY: handles are live, the name is copied.
            let status =
                unsafe { sys::mlx_map_string_to_array_insert(map.0, name.as_ptr(), array.raw()) };
            check(status, "mlx_map_insert")?;
        }
        Ok(map)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the handle is owned.
        unsafe { sys::mlx_map_string_to_array_free(self.0) };
    }
}

/// Copies the handles out of a map that somebody else owns.
fn read_map(map: sys::mlx_map_string_to_array) -> Result<BTreeMap<String, Array>> {
    struct Iter(sys::mlx_map_string_to_array_iterator);
    impl Drop for Iter {
        fn drop(&mut self) {
            // SAFETY: the handle is owned.
            unsafe { sys::mlx_map_string_to_array_iterator_free(self.0) };
        }
    }
    let mut arrays = BTreeMap::new();
    if map.ctx.is_null() {
        return Ok(arrays);
    }
    // SAFETY: the map is live.
    let iter = Iter(unsafe { sys::mlx_map_string_to_array_iterator_new(map) });
    loop {
        const END: i32 = 2;
        let (mut key, mut raw) = (ptr::null(), null_array());
        // SAFETY: the iterator is live; both pointers are valid for writes.
        let status =
            unsafe { sys::mlx_map_string_to_array_iterator_next(&mut key, &mut raw, iter.0) };
        if status == END {
            return Ok(arrays);
        }
        let array = finish_array(raw, status, "mlx_map_get")?;
        // SAFETY: the key is a string of the map, which outlives this.
        let key = unsafe { CStr::from_ptr(key) }.to_string_lossy().into_owned();
        arrays.insert(key, array);
    }
}
