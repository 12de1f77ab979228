//! The only calls into mlx-sys, and with `kernels/` and `io/mapping.rs` the only unsafe code.
//!
//! Here is what every op needs; what MLX calls back is in `closure` (functions over arrays) and
//! `host` (CPU kernels). `device` asks about devices, `gpu_kernel` runs kernels from source.
//! `host` (CPU kernels); `run` has evaluation and streams.
//! `host` (CPU kernels); `run` has evaluation and streams, `distributed` groups of processes.
//! Here is what every op needs; what MLX calls back is in `closure` and `custom` (functions over
//! arrays) and `host` (CPU kernels).
//!
//! Every function of mlx-c that makes arrays has one form: `int f(result*, arguments…, stream)`.
//! The macros here call that form: an argument is turned into its C value by [`IntoC`], or is a
//! slice in brackets, which C takes as pointer and length. One proof then serves every op:
//!
//! SAFETY (of all macro calls): handles come from live [`Array`]s and [`ArrayVec`]s borrowed for
//! the call; mlx-c copies what it keeps; slices and C strings outlive the call; the result is an
//! empty handle that mlx-c fills on success only; C++ exceptions become a return code.

mod closure;
mod compile;
mod custom;
pub(crate) mod device;
mod distributed;
mod export;
pub(crate) mod gpu_kernel;
mod graph;
mod host;
mod live;
mod program;
mod recording;
mod run;

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use mlx_sys as sys;
use smallvec::SmallVec;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::fft::FftNorm;

pub(crate) use closure::{ArrayFn, Closure, is_mapping};
pub(crate) use compile::{TraceRecord, clear_compile_cache, set_compile_mode};
pub(crate) use custom::CustomRules;
pub(crate) use distributed::{RawGroup, distributed_is_available};
pub(crate) use export::Exporter;
pub(crate) use graph::{array_is_tracer, graph_text};
pub(crate) use host::{HostInput, HostKernel, HostOutput, host_op, kernel_time};
pub(crate) use live::{Live, live_handles};
pub(crate) use recording::{Value, is_recorded, recording};
pub(crate) use run::{clear_streams, default_stream, evaluate, new_stream, stream_free};

/// Calls `mlx_sys::$f(&mut array, args…, stream)`.
macro_rules! array_op {
    ($f:ident $(, $arg:tt)* $(,)?) => {{
        let mut raw = $crate::ffi::null_array();
        let stream = $crate::stream::current_raw()?;
        let status = $crate::ffi::c_call!(@args $f; (&mut raw); $($arg,)* (stream),);
        $crate::ffi::finish_array(raw, status, stringify!($f))
    }};
}

/// Calls `mlx_sys::$f(&mut first, &mut second, args…, stream)`.
macro_rules! pair_op {
    ($f:ident $(, $arg:tt)* $(,)?) => {{
        let (mut first, mut second) = ($crate::ffi::null_array(), $crate::ffi::null_array());
        let stream = $crate::stream::current_raw()?;
        let status =
            $crate::ffi::c_call!(@args $f; (&mut first, &mut second); $($arg,)* (stream),);
        let first = $crate::ffi::finish_array(first, status, stringify!($f));
        let second = $crate::ffi::finish_array(second, status, stringify!($f));
        first.and_then(|first| Ok((first, second?)))
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

pub(crate) use {array_op, c_call, pair_op, vec_op};

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
    FftNorm => sys::mlx_fft_norm: |x| match x {
        FftNorm::Backward => sys::MLX_FFT_NORM_BACKWARD,
        FftNorm::Ortho => sys::MLX_FFT_NORM_ORTHO,
        FftNorm::Forward => sys::MLX_FFT_NORM_FORWARD,
    };
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

/// A slice in brackets of the macros that may be absent: then a null pointer.
pub(crate) struct OptionalSlice<'a>(pub(crate) Option<&'a [i32]>);

impl OptionalSlice<'_> {
    pub(crate) fn as_ptr(&self) -> *const i32 {
        self.0.map_or(ptr::null(), <[i32]>::as_ptr)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.map_or(0, <[i32]>::len)
    }
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
    let array = (!raw.ctx.is_null()).then(|| Array::from_raw(raw));
    check(status, function)?;
    match array {
        Some(array) => array.checked(op_name(function)),
        None => Err(Error::new(ErrorKind::Runtime, format!("{function}: no result"))),
    }
}

/// Returns this thread's last error; if it was a callback's panic, that goes on instead.
fn last_error(function: &str) -> Error {
    let (mut text, mut len) = (ptr::null(), 0);
    // SAFETY: both pointers are valid for writes; the text lives until this thread's next error.
    let (kind, text) = unsafe {
        let kind = sys::mlx_shim_take_error(&mut text, &mut len);
        // Without a kind the text is an earlier error's.
        let len = if kind < 0 { 0 } else { len };
        let text = std::slice::from_raw_parts(text.cast::<u8>(), len);
        (kind, String::from_utf8_lossy(text).into_owned())
    };
    if let Some(error) = closure::resume(&text) {
        return error;
    }
    let kind = match kind {
        1 if text.ends_with("is not supported on the GPU") => ErrorKind::Unsupported,
        1 => ErrorKind::InvalidArgument,
        2 => ErrorKind::OutOfRange,
        3 => ErrorKind::OutOfMemory,
        4 => ErrorKind::Io,
        _ if text.ends_with(host::PANICKED) => ErrorKind::Panic,
        // CUDA's errors have no class of their own.
        _ if text.ends_with("failed: out of memory") => ErrorKind::OutOfMemory,
        _ if text.ends_with("has no CUDA implementation.") => ErrorKind::Unsupported,
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
pub(crate) struct ArrayVec(sys::mlx_vector_array, Live);

impl ArrayVec {
    pub(crate) fn empty() -> Self {
        ArrayVec(sys::mlx_vector_array { ctx: ptr::null_mut() }, Live::new())
    }

    pub(crate) fn new<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<Self> {
        let raw: SmallVec<[sys::mlx_array; 8]> = arrays.into_iter().map(Array::raw).collect();
        // SAFETY: the handles are live; the vector copies them.
        let vec = unsafe { sys::mlx_vector_array_new_data(raw.as_ptr(), raw.len()) };
        let vec = ArrayVec(vec, Live::new());
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
    if let Some(value) = array.recorded() {
        return &value.shape;
    }
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
    if let Some(value) = array.recorded() {
        return value.dtype;
    }
    // SAFETY: the handle is live.
    Dtype::ALL[unsafe { sys::mlx_array_dtype(array.raw()) } as usize]
}

pub(crate) fn array_id(array: &Array) -> usize {
    let raw = array.raw();
    if raw.ctx.is_null() {
        return 0;
    }
    // SAFETY: the handle is live.
    unsafe { sys::mlx_shim_array_id(raw) }
}

pub(crate) fn array_is_available(array: &Array) -> bool {
    if is_recorded(array) {
        return false;
    }
    // SAFETY: the handle is live.
    unsafe { sys::mlx_shim_array_status(array.raw()) == 2 }
}

/// Tells whether the host made the array or has waited for it, whatever the device has done since.
pub(crate) fn array_is_settled(array: &Array) -> bool {
    if is_recorded(array) {
        return false;
    }
    // SAFETY: the handle is live.
    unsafe { sys::mlx_shim_array_is_settled(array.raw()) }
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

/// Calls a function that fills a string.
fn read_string(function: &str, fill: impl FnOnce(*mut sys::mlx_string) -> i32) -> Result<String> {
    struct Text(sys::mlx_string);
    impl Drop for Text {
        fn drop(&mut self) {
            // SAFETY: the handle is owned, and an empty one is allowed.
            unsafe { sys::mlx_string_free(self.0) };
        }
    }
    let mut text = Text(sys::mlx_string { ctx: ptr::null_mut() });
    check(fill(&mut text.0), function)?;
    if text.0.ctx.is_null() {
        return Ok(String::new());
    }
    // SAFETY: a filled string is live and terminated.
    let text = unsafe { CStr::from_ptr(sys::mlx_string_data(text.0)) };
    Ok(text.to_string_lossy().into_owned())
}

pub(crate) fn array_to_string(array: &Array) -> Result<String> {
    // SAFETY: the handle is live, the string an empty handle to fill.
    read_string("mlx_array_tostring", |text| unsafe { sys::mlx_array_tostring(text, array.raw()) })
}

pub(crate) fn promote_types(a: Dtype, b: Dtype) -> Dtype {
    // SAFETY: both are valid enumerators.
    Dtype::ALL[unsafe { sys::mlx_shim_promote_types(a.into_c(), b.into_c()) } as usize]
}

pub(crate) fn random_next_key() -> Result<Array> {
    // MLX splits the key on the default stream.
    crate::stream::ensure_default()?;
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

/// The bytes of plain elements.
pub(crate) fn element_bytes<T: crate::array::Element>(elements: &[T]) -> &[u8] {
    // SAFETY: `Element` is sealed and implemented for padding-free types only.
    unsafe {
        std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), std::mem::size_of_val(elements))
    }
}
