//! The only calls into mlx-sys, and with `kernels/` and `io/mapping.rs` the only unsafe code.
//!
//! Every function of mlx-c that makes arrays has one form: `int f(result*, arguments…, stream)`.
//! The macros here call that form: an argument is turned into its C value by [`IntoC`], or is a
//! slice in brackets, which C takes as pointer and length. One proof then serves every op:
//!
//! SAFETY (of all macro calls): handles come from live [`Array`]s and [`ArrayVec`]s borrowed for
//! the call; mlx-c copies what it keeps; slices and C strings outlive the call; the result is an
//! empty handle that mlx-c fills on success only; C++ exceptions become a return code.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mlx_sys as sys;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// Calls `mlx_sys::$f(&mut array, args…, stream)`.
macro_rules! array_op {
    ($f:ident $(, $arg:tt)* $(,)?) => {{
        let mut raw = $crate::ffi::null_array();
        let stream = $crate::stream::current_raw()?;
        let status = $crate::ffi::c_call!(@args $f; (&mut raw); $($arg,)* (stream),);
        $crate::ffi::finish_array(raw, status, stringify!($f))
    }};
}

/// Calls `mlx_sys::$f(&mut vector, args…, stream)`.
macro_rules! vec_op {
    ($f:ident $(, $arg:tt)* $(,)?) => {{
        let mut raw = $crate::ffi::ArrayVec::empty();
        let stream = $crate::stream::current_raw()?;
        let status = $crate::ffi::c_call!(@args $f; (raw.as_mut()); $($arg,)* (stream),);
        $crate::ffi::check(status, stringify!($f)).and_then(|()| raw.into_arrays())
    }};
}

/// Calls `mlx_sys::$f(args…)`, which returns a status.
macro_rules! c_call {
    (@args $f:ident; ($($done:expr),*); [$slice:expr], $($rest:tt)*) => {
        $crate::ffi::c_call!(@args $f; ($($done,)* $slice.as_ptr(), $slice.len()); $($rest)*)
    };
    (@args $f:ident; ($($done:expr),*); ($arg:expr), $($rest:tt)*) => {
        $crate::ffi::c_call!(@args $f; ($($done,)* $arg); $($rest)*)
    };
    (@args $f:ident; ($($done:expr),*); $arg:tt, $($rest:tt)*) => {
        $crate::ffi::c_call!(@args $f; ($($done,)* $crate::ffi::IntoC::into_c($arg)); $($rest)*)
    };
    (@args $f:ident; ($($done:expr),*);) => {{
        // SAFETY: see the head of ffi.rs.
        #[allow(clippy::macro_metavars_in_unsafe)]
        unsafe { mlx_sys::$f($($done),*) }
    }};
    ($f:ident $(, $arg:tt)* $(,)?) => {
        $crate::ffi::check(
            $crate::ffi::c_call!(@args $f; (); $($arg,)*),
            stringify!($f),
        )
    };
}

pub(crate) use {array_op, c_call, vec_op};

/// A Rust value and its form in an mlx-c signature.
pub(crate) trait IntoC {
    type C;
    fn into_c(self) -> Self::C;
}

macro_rules! into_c {
    ($($t:ty => $c:ty: |$x:ident| $e:expr;)*) => {
        $(impl IntoC for $t {
            type C = $c;
            fn into_c(self) -> $c { let $x = self; $e }
        })*
    };
}

into_c! {
    bool => bool: |x| x;
    i32 => i32: |x| x;
    u64 => u64: |x| x;
    usize => usize: |x| x;
    f32 => f32: |x| x;
    f64 => f64: |x| x;
    Dtype => sys::mlx_dtype: |x| x as sys::mlx_dtype;
    &Array => sys::mlx_array: |x| x.raw();
    Option<&Array> => sys::mlx_array: |x| x.map_or(null_array(), Array::raw);
    &ArrayVec => sys::mlx_vector_array: |x| x.0;
    &CStr => *const c_char: |x| x.as_ptr();
    Option<i32> => sys::mlx_optional_int: |x| sys::mlx_optional_int {
        value: x.unwrap_or(0), has_value: x.is_some(),
    };
    Option<f32> => sys::mlx_optional_float: |x| sys::mlx_optional_float {
        value: x.unwrap_or(0.0), has_value: x.is_some(),
    };
    Option<Dtype> => sys::mlx_optional_dtype: |x| sys::mlx_optional_dtype {
        value: x.unwrap_or(Dtype::Float32) as sys::mlx_dtype, has_value: x.is_some(),
    };
}

pub(crate) const fn null_array() -> sys::mlx_array {
    sys::mlx_array { ctx: ptr::null_mut() }
}

/// Turns a status into this thread's last error.
pub(crate) fn check(status: i32, function: &str) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(last_error(function)) }
}

/// Owns `raw` on success; on failure frees whatever is there.
pub(crate) fn finish_array(raw: sys::mlx_array, status: i32, function: &str) -> Result<Array> {
    match check(status, function) {
        Ok(()) if !raw.ctx.is_null() => Array::from_raw(raw).checked(op_name(function)),
        Ok(()) => Err(Error::new(ErrorKind::Runtime, format!("{function}: no result"))),
        Err(e) => {
            if !raw.ctx.is_null() {
                drop(Array::from_raw(raw));
            }
            Err(e)
        }
    }
}

fn last_error(function: &str) -> Error {
    if let Some(error) = PENDING.take() {
        return error;
    }
    let (mut text, mut len) = (ptr::null(), 0);
    // SAFETY: both pointers are valid for writes; the text lives until this thread's next error.
    let (kind, text) = unsafe {
        let kind = sys::mlx_shim_take_error(&mut text, &mut len);
        (kind, String::from_utf8_lossy(std::slice::from_raw_parts(text.cast::<u8>(), len)))
    };
    let kind = match kind {
        1 => ErrorKind::InvalidArgument,
        2 => ErrorKind::OutOfRange,
        3 => ErrorKind::OutOfMemory,
        4 => ErrorKind::Io,
        _ => ErrorKind::Runtime,
    };
    Error::new(kind, message(function, &text))
}

/// MLX writes `[matmul] Last dimension …`; ours reads `matmul: Last dimension …`.
fn message(function: &str, text: &str) -> String {
    let text = text.trim_end().trim_end_matches('.');
    match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((op, rest)) => format!("{op}: {rest}"),
        None if text.is_empty() => format!("{}: failed", op_name(function)),
        None => format!("{}: {text}", op_name(function)),
    }
}

fn op_name(function: &str) -> &str {
    let name = function.strip_prefix("mlx_").unwrap_or(function);
    name.strip_prefix("shim_").unwrap_or(name)
}

/// A C++ vector of arrays.
pub(crate) struct ArrayVec(sys::mlx_vector_array);

impl ArrayVec {
    pub(crate) fn empty() -> Self {
        ArrayVec(sys::mlx_vector_array { ctx: ptr::null_mut() })
    }

    pub(crate) fn new<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<Self> {
        let raw: Vec<sys::mlx_array> = arrays.into_iter().map(Array::raw).collect();
        // SAFETY: the handles are live; the vector copies them.
        let vec = ArrayVec(unsafe { sys::mlx_vector_array_new_data(raw.as_ptr(), raw.len()) });
        if vec.0.ctx.is_null() { Err(last_error("mlx_vector_array_new_data")) } else { Ok(vec) }
    }

    pub(crate) fn as_mut(&mut self) -> *mut sys::mlx_vector_array {
        &mut self.0
    }

    pub(crate) fn into_arrays(self) -> Result<Vec<Array>> {
        read_vector(self.0)
    }
}

impl Drop for ArrayVec {
    fn drop(&mut self) {
        // SAFETY: this handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_vector_array_free(self.0) };
    }
}

/// Copies the handles out of a vector that somebody else owns.
fn read_vector(vector: sys::mlx_vector_array) -> Result<Vec<Array>> {
    if vector.ctx.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the vector is live.
    let len = unsafe { sys::mlx_vector_array_size(vector) };
    (0..len)
        .map(|i| {
            let mut raw = null_array();
            // SAFETY: `i` is in range and `raw` is an empty handle to fill.
            let status = unsafe { sys::mlx_vector_array_get(&mut raw, vector, i) };
            finish_array(raw, status, "mlx_vector_array_get")
        })
        .collect()
}

pub(crate) fn array_clone(raw: sys::mlx_array) -> sys::mlx_array {
    let mut copy = null_array();
    // SAFETY: `raw` is live; the call makes a new handle to the same node.
    let status = unsafe { sys::mlx_array_set(&mut copy, raw) };
    if status != 0 || copy.ctx.is_null() {
        // Only allocating the handle can fail.
        std::alloc::handle_alloc_error(std::alloc::Layout::new::<[usize; 2]>());
    }
    copy
}

pub(crate) fn array_free(raw: sys::mlx_array) {
    // SAFETY: called once, by the owner's `Drop`.
    unsafe { sys::mlx_array_free(raw) };
}

/// The shape, which belongs to the array's node and never changes.
pub(crate) fn array_shape(array: &Array) -> &[i32] {
    // SAFETY: the pointer is valid for `ndim` elements while the node lives, and `array` keeps it.
    unsafe {
        match sys::mlx_array_ndim(array.raw()) {
            0 => &[],
            ndim => std::slice::from_raw_parts(sys::mlx_array_shape(array.raw()), ndim),
        }
    }
}

/// The element strides of an evaluated array.
pub(crate) fn array_strides(array: &Array) -> &[i64] {
    // SAFETY: as for the shape; strides change only when the array is evaluated, which it is.
    unsafe {
        match sys::mlx_array_ndim(array.raw()) {
            0 => &[],
            ndim => std::slice::from_raw_parts(sys::mlx_shim_array_strides(array.raw()), ndim),
        }
    }
}

pub(crate) fn array_dtype(array: &Array) -> Dtype {
    // SAFETY: the handle is live.
    Dtype::ALL[unsafe { sys::mlx_array_dtype(array.raw()) } as usize]
}

pub(crate) fn array_id(array: &Array) -> usize {
    // SAFETY: the handle is live.
    unsafe { sys::mlx_shim_array_id(array.raw()) }
}

pub(crate) fn array_is_available(array: &Array) -> bool {
    // SAFETY: the handle is live.
    unsafe { sys::mlx_shim_array_status(array.raw()) == 2 }
}

pub(crate) fn array_is_row_contiguous(array: &Array) -> Result<bool> {
    let mut result = false;
    // SAFETY: the handle is live and `result` is valid for writes.
    let status = unsafe { sys::_mlx_array_is_row_contiguous(&mut result, array.raw()) };
    check(status, "array_is_row_contiguous")?;
    Ok(result)
}

/// The bytes of an evaluated, row-contiguous array.
pub(crate) fn array_bytes(array: &Array) -> Option<&[u8]> {
    if array.size() == 0 {
        return Some(&[]);
    }
    if !array_is_available(array) || !array_is_row_contiguous(array).ok()? {
        return None;
    }
    // SAFETY: an available array has its data; row contiguity makes `nbytes` from the data pointer
    // on its own elements; nothing writes to them while a handle besides the op's own exists.
    unsafe {
        let data = sys::mlx_shim_array_data(array.raw()).cast::<u8>();
        (!data.is_null()).then(|| std::slice::from_raw_parts(data, array.nbytes()))
    }
}

pub(crate) fn array_from_bytes(data: &[u8], shape: &[i32], dtype: Dtype) -> Result<Array> {
    let raw = {
        let ndim = shape.len() as i32;
        // SAFETY: the caller checked that `data` holds the shape's elements; MLX copies them.
        unsafe {
            sys::mlx_array_new_data(data.as_ptr().cast(), shape.as_ptr(), ndim, dtype.into_c())
        }
    };
    let status = i32::from(raw.ctx.is_null());
    finish_array(raw, status, "mlx_array_new_data")
}

/// Makes an array over memory that `owner` keeps alive, copying nothing where the device allows.
///
/// # Safety
/// `data` points to the elements of `shape`, aligned for `dtype`, writable, and valid until
/// `owner` is dropped; at least 16 bytes before it are readable.
pub(crate) unsafe fn array_wrap(
    data: *mut u8,
    shape: &[i32],
    dtype: Dtype,
    owner: Box<dyn Send>,
) -> Result<Array> {
    unsafe extern "C" fn drop_owner(payload: *mut c_void) {
        // SAFETY: the payload is the box leaked below, handed back exactly once.
        drop(unsafe { Box::from_raw(payload.cast::<Box<dyn Send>>()) });
    }
    let payload = Box::into_raw(Box::new(owner)).cast();
    let mut raw = null_array();
    // SAFETY: by this function's contract; the shim runs the destructor in every case.
    let status = unsafe {
        sys::mlx_shim_array_wrap(
            &mut raw,
            data.cast(),
            shape.as_ptr(),
            shape.len(),
            dtype.into_c(),
            payload,
            Some(drop_owner),
        )
    };
    finish_array(raw, status, "mlx_shim_array_wrap")
}

pub(crate) fn array_to_string(array: &Array) -> Result<String> {
    let mut string = sys::mlx_string { ctx: ptr::null_mut() };
    // SAFETY: `string` is an empty handle to fill; its text is copied before it is freed.
    unsafe {
        let status = sys::mlx_array_tostring(&mut string, array.raw());
        let text = match check(status, "mlx_array_tostring") {
            Ok(()) => {
                let data = sys::mlx_string_data(string);
                Ok(CStr::from_ptr(data).to_string_lossy().into_owned())
            }
            Err(e) => Err(e),
        };
        sys::mlx_string_free(string);
        text
    }
}

pub(crate) fn promote_types(a: Dtype, b: Dtype) -> Dtype {
    // SAFETY: both are valid enumerators.
    Dtype::ALL[unsafe { sys::mlx_shim_promote_types(a.into_c(), b.into_c()) } as usize]
}

pub(crate) fn random_next_key() -> Result<Array> {
    let mut raw = null_array();
    // SAFETY: `raw` is an empty handle to fill.
    let status = unsafe { sys::mlx_shim_random_next_key(&mut raw) };
    finish_array(raw, status, "mlx_random_key")
}

pub(crate) fn gpu_is_available() -> bool {
    let mut count = 0;
    // SAFETY: `count` is valid for writes.
    let status = unsafe { sys::mlx_device_count(&mut count, sys::MLX_GPU) };
    status == 0 && count > 0
}

fn owned_stream(raw: sys::mlx_stream, function: &str) -> Result<sys::mlx_stream> {
    if raw.ctx.is_null() { Err(last_error(function)) } else { Ok(raw) }
}

/// The default stream of this thread on a device, as a handle to free.
///
/// Every op needs a stream and every stream comes from here or from [`new_stream`].
pub(crate) fn default_stream(gpu: bool) -> Result<sys::mlx_stream> {
    // SAFETY: the first may be called any number of times; the others make a new handle.
    let raw = unsafe {
        sys::mlx_shim_init();
        if gpu { sys::mlx_default_gpu_stream_new() } else { sys::mlx_default_cpu_stream_new() }
    };
    owned_stream(raw, "default_stream")
}

/// A new stream of this thread on a device, as a handle to free.
pub(crate) fn new_stream(gpu: bool) -> Result<sys::mlx_stream> {
    // SAFETY: the device handle is freed after the stream has copied it.
    unsafe {
        sys::mlx_shim_init();
        let device = sys::mlx_device_new_type(if gpu { sys::MLX_GPU } else { sys::MLX_CPU }, 0);
        let raw = sys::mlx_stream_new_device(device);
        sys::mlx_device_free(device);
        owned_stream(raw, "new_stream")
    }
}

pub(crate) fn stream_free(raw: sys::mlx_stream) {
    // SAFETY: called once, by the table that owns the handle.
    unsafe { sys::mlx_stream_free(raw) };
}

pub(crate) fn memory_counter(which: unsafe extern "C" fn(*mut usize) -> i32) -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: `bytes` is valid for writes.
    check(unsafe { which(&mut bytes) }, "memory")?;
    Ok(bytes)
}

pub(crate) fn memory_limit(
    which: unsafe extern "C" fn(*mut usize, usize) -> i32,
    limit: usize,
) -> Result<usize> {
    let mut previous = 0;
    // SAFETY: `previous` is valid for writes.
    check(unsafe { which(&mut previous, limit) }, "memory")?;
    Ok(previous)
}

/// A function over arrays as MLX calls it back.
pub(crate) type ArrayFn = dyn Fn(&[Array]) -> Result<Vec<Array>>;

thread_local! {
    /// The error of a Rust callback, which beats the generic text that comes back through C++.
    static PENDING: Cell<Option<Error>> = const { Cell::new(None) };
}

/// A C++ function object around a Rust closure.
pub(crate) struct Closure(sys::mlx_closure);

impl Closure {
    pub(crate) fn empty() -> Self {
        Closure(sys::mlx_closure { ctx: ptr::null_mut() })
    }

    pub(crate) fn new(f: Box<ArrayFn>) -> Result<Self> {
        unsafe extern "C" fn call(
            result: *mut sys::mlx_vector_array,
            inputs: sys::mlx_vector_array,
            payload: *mut c_void,
        ) -> i32 {
            // SAFETY: the payload is the box leaked below; C++ keeps it alive during a call.
            let f = unsafe { &*payload.cast::<Box<ArrayFn>>() };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let outputs = ArrayVec::new(&f(&read_vector(inputs)?)?)?;
                // SAFETY: `result` is the vector that C++ wants filled.
                let status = unsafe { sys::mlx_vector_array_set(result, outputs.0) };
                check(status, "mlx_vector_array_set")
            }));
            let error = match outcome {
                Ok(Ok(())) => return 0,
                Ok(Err(e)) => e,
                Err(panic) => {
                    let text = (panic.downcast_ref::<&str>().copied().map(str::to_owned))
                        .or_else(|| panic.downcast_ref::<String>().cloned())
                        .unwrap_or_default();
                    Error::new(ErrorKind::Panic, format!("callback panicked: {text}"))
                }
            };
            PENDING.set(Some(error));
            1
        }
        unsafe extern "C" fn free(payload: *mut c_void) {
            // SAFETY: the payload is the box leaked below, handed back exactly once.
            drop(unsafe { Box::from_raw(payload.cast::<Box<ArrayFn>>()) });
        }
        let payload = Box::into_raw(Box::new(f)).cast();
        // SAFETY: `call` and `free` fit the payload.
        let raw = unsafe { sys::mlx_closure_new_func_payload(Some(call), payload, Some(free)) };
        if raw.ctx.is_null() { Err(last_error("mlx_closure_new")) } else { Ok(Closure(raw)) }
    }

    pub(crate) fn as_mut(&mut self) -> *mut sys::mlx_closure {
        &mut self.0
    }

    pub(crate) fn apply(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let inputs = ArrayVec::new(inputs)?;
        let mut outputs = ArrayVec::empty();
        // SAFETY: all three handles are live; the vector is filled on success.
        let status = unsafe { sys::mlx_closure_apply(outputs.as_mut(), self.0, inputs.0) };
        check(status, "mlx_closure_apply")?;
        outputs.into_arrays()
    }

    /// Traces the closure with `inputs` as MLX's vmap does and maps over `in_axes`.
    pub(crate) fn vmap(
        &self,
        inputs: &[Array],
        in_axes: &[i32],
        out_axes: &[i32],
    ) -> Result<Vec<Array>> {
        let inputs = ArrayVec::new(inputs)?;
        let (mut traced_in, mut traced_out) = (ArrayVec::empty(), ArrayVec::empty());
        // SAFETY: handles are live, slices outlive the call.
        let status = unsafe {
            sys::mlx_detail_vmap_trace(
                traced_in.as_mut(),
                traced_out.as_mut(),
                self.0,
                inputs.0,
                in_axes.as_ptr(),
                in_axes.len(),
            )
        };
        check(status, "mlx_vmap")?;
        // SAFETY: the vector is live.
        let n_outputs = unsafe { sys::mlx_vector_array_size(traced_out.0) };
        if out_axes.len() != n_outputs {
            let got = out_axes.len();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("vmap: {got} output axes for {n_outputs} outputs"),
            ));
        }
        let mut outputs = ArrayVec::empty();
        // SAFETY: as above.
        let status = unsafe {
            sys::mlx_detail_vmap_replace(
                outputs.as_mut(),
                inputs.0,
                traced_in.0,
                traced_out.0,
                in_axes.as_ptr(),
                in_axes.len(),
                out_axes.as_ptr(),
                out_axes.len(),
            )
        };
        check(status, "mlx_vmap")?;
        outputs.into_arrays()
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_closure_free(self.0) };
    }
}

impl IntoC for &Closure {
    type C = sys::mlx_closure;
    fn into_c(self) -> sys::mlx_closure {
        self.0
    }
}

/// One array as a CPU kernel sees it: row contiguous, its bytes and its shape.
pub(crate) struct HostInput<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) shape: &'a [i32],
    pub(crate) dtype: Dtype,
}

/// An output to be written in full: freshly allocated, row contiguous.
pub(crate) struct HostOutput<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) shape: &'a [i32],
}

/// A CPU kernel behind a node of MLX's graph.
///
/// It runs on the stream's own thread, so it holds no array, and it is told apart from others of
/// its type by [`HostKernel::params`] alone.
pub(crate) trait HostKernel: Send + Sync + 'static {
    /// Name in graphs and error texts.
    const NAME: &'static CStr;

    /// Numbers that determine what the kernel computes.
    fn params(&self) -> Vec<u64>;

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String>;
}

/// Makes a node that runs `kernel` on the current CPU stream; `fallback` computes the same by
/// ordinary ops and serves vmap, jvp and vjp.
pub(crate) fn host_op<K: HostKernel>(
    kernel: K,
    inputs: &[&Array],
    outputs: &[(&[i32], Dtype)],
    fallback: Box<ArrayFn>,
) -> Result<Vec<Array>> {
    let params = kernel.params();
    let fallback = Closure::new(fallback)?;
    let inputs = ArrayVec::new(inputs.iter().copied())?;
    let specs: Vec<sys::mlx_shim_output> = outputs
        .iter()
        .map(|(shape, dtype)| sys::mlx_shim_output {
            shape: shape.as_ptr(),
            ndim: shape.len(),
            dtype: dtype.into_c(),
        })
        .collect();
    let stream = crate::stream::current_raw()?;
    let mut result = ArrayVec::empty();
    let payload = Box::into_raw(Box::new(kernel)).cast();
    // SAFETY: handles are live, slices outlive the call, and `run_kernel::<K>` and
    // `drop_kernel::<K>` fit the payload, which the shim releases in every case.
    let status = unsafe {
        sys::mlx_shim_host_op(
            result.as_mut(),
            K::NAME.as_ptr(),
            inputs.0,
            specs.as_ptr(),
            specs.len(),
            Some(run_kernel::<K>),
            payload,
            Some(drop_kernel::<K>),
            params.as_ptr(),
            params.len(),
            fallback.0,
            stream,
        )
    };
    check(status, "mlx_shim_host_op")?;
    result.into_arrays()
}

unsafe extern "C" fn drop_kernel<K: HostKernel>(payload: *mut c_void) {
    // SAFETY: the payload is the box that `host_op` leaked, handed back exactly once.
    drop(unsafe { Box::from_raw(payload.cast::<K>()) });
}

unsafe extern "C" fn run_kernel<K: HostKernel>(
    payload: *const c_void,
    inputs: *const sys::mlx_shim_view,
    n_inputs: usize,
    outputs: *const sys::mlx_shim_view,
    n_outputs: usize,
    error: *mut c_char,
    error_len: usize,
) -> i32 {
    // SAFETY: the shim passes live, row-contiguous views; outputs are distinct fresh buffers that
    // nothing else reads or writes until the task ends; an empty array may have no data.
    let (kernel, inputs, mut outputs) = unsafe {
        let nbytes = |v: &sys::mlx_shim_view| v.size * Dtype::ALL[v.dtype as usize].size();
        let shape = |v: &sys::mlx_shim_view| match v.ndim {
            0 => &[][..],
            n => std::slice::from_raw_parts(v.shape, n),
        };
        let data = |v: &sys::mlx_shim_view| match nbytes(v) {
            0 => ptr::NonNull::<u64>::dangling().as_ptr().cast::<u8>(),
            _ => v.data.cast::<u8>(),
        };
        let inputs: Vec<HostInput<'_>> = std::slice::from_raw_parts(inputs, n_inputs)
            .iter()
            .map(|v| HostInput {
                bytes: std::slice::from_raw_parts(data(v), nbytes(v)),
                shape: shape(v),
                dtype: Dtype::ALL[v.dtype as usize],
            })
            .collect();
        let outputs: Vec<HostOutput<'_>> = std::slice::from_raw_parts(outputs, n_outputs)
            .iter()
            .map(|v| HostOutput {
                bytes: std::slice::from_raw_parts_mut(data(v), nbytes(v)),
                shape: shape(v),
            })
            .collect();
        (&*payload.cast::<K>(), inputs, outputs)
    };
    let text = match catch_unwind(AssertUnwindSafe(|| kernel.run(&inputs, &mut outputs))) {
        Ok(Ok(())) => return 0,
        Ok(Err(text)) => text,
        Err(_) => "kernel panicked".to_owned(),
    };
    let len = text.len().min(error_len.saturating_sub(1));
    // SAFETY: `error` is valid for `error_len` bytes and was zeroed, so the text stays terminated.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), error.cast::<u8>(), len) };
    1
}

/// The bytes of plain elements.
pub(crate) fn element_bytes<T: crate::array::Element>(elements: &[T]) -> &[u8] {
    // SAFETY: `Element` is sealed and implemented for padding-free types only.
    unsafe {
        std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), std::mem::size_of_val(elements))
    }
}
