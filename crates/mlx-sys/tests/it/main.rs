//! What the shim promises, seen from C's side.

use std::ffi::{CStr, c_char};
use std::ptr;

use mlx_sys as sys;

fn take_error() -> (i32, String) {
    let (mut text, mut len) = (ptr::null::<c_char>(), 0);
    // SAFETY: both are valid for writes; the text lives until the next error of this thread.
    unsafe {
        let kind = sys::mlx_shim_take_error(&mut text, &mut len);
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), len);
        (kind, String::from_utf8_lossy(bytes).into_owned())
    }
}

/// mlx-c hands this text to a printf-like function as the format, which reads wild pointers.
#[test]
fn a_path_full_of_percents_gives_a_clean_error() {
    for path in [c"%s%s%s.safetensors", c"100%.safetensors", c"%n%n%n%n.safetensors"] {
        let mut arrays = sys::mlx_map_string_to_array { ctx: ptr::null_mut() };
        let mut metadata = sys::mlx_map_string_to_string { ctx: ptr::null_mut() };
        // SAFETY: the handles are empty ones to fill, the stream is freed below.
        let status = unsafe {
            let stream = sys::mlx_default_cpu_stream_new();
            let status =
                sys::mlx_load_safetensors(&mut arrays, &mut metadata, path.as_ptr(), stream);
            sys::mlx_stream_free(stream);
            status
        };
        assert_ne!(status, 0);
        let (_, text) = take_error();
        assert!(text.contains(path.to_str().expect("ASCII")), "{text}");
        assert!(!text.contains(".cpp:"), "no C++ source line in {text}");
    }
}

#[test]
fn errors_keep_their_class_and_leave_no_trace() {
    // SAFETY: handles are owned here and freed below.
    unsafe {
        let stream = sys::mlx_default_cpu_stream_new();
        let shape = [2, 3];
        let mut a = sys::mlx_array { ctx: ptr::null_mut() };
        let mut b = sys::mlx_array { ctx: ptr::null_mut() };
        assert_eq!(sys::mlx_zeros(&mut a, shape.as_ptr(), 2, sys::MLX_FLOAT32, stream), 0);
        assert_ne!(sys::mlx_matmul(&mut b, a, a, stream), 0);
        let (kind, text) = take_error();
        assert_eq!(kind, 1, "invalid argument: {text}");
        assert!(text.contains("matmul"), "{text}");
        assert_eq!(take_error().0, -1, "an error is taken once");
        sys::mlx_array_free(a);
        sys::mlx_stream_free(stream);
    }
}

#[test]
fn the_version_is_the_one_that_the_bindings_are_for() {
    // SAFETY: the string is filled, read and freed.
    unsafe {
        let mut version = sys::mlx_string { ctx: ptr::null_mut() };
        assert_eq!(sys::mlx_version(&mut version), 0);
        let text = CStr::from_ptr(sys::mlx_string_data(version)).to_string_lossy().into_owned();
        sys::mlx_string_free(version);
        assert!(text.starts_with("0.32.2"), "{text}");
    }
}

#[test]
fn half_precision_data_can_be_read_on_every_target() {
    // SAFETY: handles are owned here and freed below; the array is evaluated before it is read.
    unsafe {
        let stream = sys::mlx_default_cpu_stream_new();
        for (dtype, one) in [(sys::MLX_FLOAT16, 0x3c00u16), (sys::MLX_BFLOAT16, 0x3f80)] {
            let mut a = sys::mlx_array { ctx: ptr::null_mut() };
            assert_eq!(sys::mlx_ones(&mut a, [2].as_ptr(), 1, dtype, stream), 0);
            assert!(sys::mlx_shim_array_data(a).is_null(), "no data before evaluation");
            assert_eq!(sys::mlx_array_eval(a), 0);
            assert_eq!(sys::mlx_shim_array_status(a), 2);
            let data = sys::mlx_shim_array_data(a).cast::<u16>();
            assert_eq!([*data, *data.add(1)], [one; 2]);
            sys::mlx_array_free(a);
        }
        sys::mlx_stream_free(stream);
    }
}
