//! Which functions of mlx-c this crate calls, and why not the others.
//!
//! Every function of the bindings is named in the crate's source, outside of comments, or matched by
//! [`UNUSED`]. An entry that matches nothing any more fails as well, so that the list stays true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Names, or the start of names before `*`, and the reason why nothing calls them.
const UNUSED: &[(&[&str], &str)] = &[
    (
        &["mlx_array_data_*", "mlx_array_item_*", "mlx_array_strides"],
        "the shim reads bytes of every dtype, and strides as the signed numbers that they are",
    ),
    (
        &["mlx_array_dim", "mlx_array_itemsize", "mlx_array_nbytes", "mlx_array_size"],
        "follows from shape and dtype, without a call",
    ),
    (&["mlx_dtype_size"], "a constant of `Dtype`"),
    (
        &["mlx_array_new", "mlx_array_new_*", "mlx_array_set_*"],
        "arrays are made from bytes, a mapping, or by an op; a handle is never written again",
    ),
    (&["mlx_array_eval"], "`eval` takes several arrays"),
    (
        &[
            "_mlx_array_is_available",
            "_mlx_array_is_col_contiguous",
            "_mlx_array_is_contiguous",
            "_mlx_array_wait",
        ],
        "the shim tells an array's status; no op of this crate asks for layouts but one",
    ),
    (
        &["_mlx_error", "mlx_set_error_handler", "mlx_shim_set_error"],
        "errors are raised in C++ and taken by the shim",
    ),
    (
        &["mlx_load", "mlx_load_*", "mlx_save", "mlx_save_*", "mlx_io_*"],
        "MLX's loaders never see a file: `io` reads and writes them",
    ),
    (&["mlx_map_string_to_string_*"], "metadata of files, which MLX's loaders would give"),
    (
        &[
            "mlx_stack",
            "mlx_take",
            "mlx_unstack",
            "mlx_trace",
            "mlx_trace_axes",
            "mlx_pad_symmetric",
            "mlx_random_normal",
            "mlx_scatter_single",
            "mlx_scatter_add_single",
            "mlx_scatter_max_single",
            "mlx_scatter_min_single",
            "mlx_scatter_prod_single",
        ],
        "a form with defaults; its general form is called, for `trace` the ops that it consists of",
    ),
    (
        &["mlx_set_default_device", "mlx_set_default_stream", "mlx_get_default_*"],
        "a scope decides on device and stream, no global switch",
    ),
    (
        &[
            "mlx_device_equal",
            "mlx_device_get_*",
            "mlx_device_info_has_key",
            "mlx_device_info_new",
            "mlx_device_set",
            "mlx_device_tostring",
            "mlx_device_is_available",
        ],
        "a device is an enum here; the number of GPUs tells whether there are any",
    ),
    (
        &[
            "mlx_stream_equal",
            "mlx_stream_get_*",
            "mlx_stream_new",
            "mlx_stream_set",
            "mlx_stream_tostring",
            "mlx_get_streams",
            "mlx_vector_stream_*",
        ],
        "this crate keeps the streams of a thread itself and knows their devices",
    ),
    (
        &[
            "mlx_stream_new_thread_unsafe",
            "mlx_stream_from_thread_local",
            "mlx_stream_thread_local_*",
            "mlx_synchronize_thread_local",
        ],
        "a stream belongs to the thread that made it, as arrays do",
    ),
    (
        &["mlx_random_seed"],
        "`random` keeps its sequence of keys itself, so that it can be read and put back",
    ),
    (&["mlx_synchronize_default"], "the stream is always named"),
    (&["mlx_string_new", "mlx_string_new_data", "mlx_string_set"], "strings only come from mlx-c"),
    (
        &[
            "mlx_closure_new_func",
            "mlx_closure_new_unary",
            "mlx_closure_value_and_grad_new",
            "mlx_closure_value_and_grad_new_*",
            "mlx_closure_value_and_grad_set",
        ],
        "a closure carries its Rust function as payload, and is handed over once",
    ),
    (
        &[
            "mlx_closure_custom_*apply",
            "mlx_closure_custom_*new",
            "mlx_closure_custom_*new_func",
            "mlx_closure_custom_*set",
            "mlx_closure_kwargs_apply",
            "mlx_closure_kwargs_new_func",
            "mlx_closure_kwargs_set",
        ],
        "as above; rules and functions to export are called by MLX only",
    ),
    (
        &["mlx_add", "mlx_divide", "mlx_maximum", "mlx_minimum", "mlx_multiply", "mlx_subtract"],
        "the shim makes the same nodes at less cost",
    ),
    (&["mlx_custom_vjp"], "`mlx_custom_function` with one rule"),
    (
        &["mlx_detail_compile", "mlx_detail_compile_erase", "mlx_compile_cache_new"],
        "`mlx_compile` gives each function an id of its own and erases it with the function",
    ),
    (&["mlx_disable_compile", "mlx_enable_compile"], "`mlx_set_compile_mode` with either mode"),
    (
        &["mlx_imported_function_*", "mlx_map_string_to_array_get", "mlx_map_string_to_array_set"],
        "MLX's importer never sees a file: `transforms::export` reads it and makes the ops",
    ),
    (
        &["mlx_export_function_kwargs", "mlx_function_exporter_apply", "mlx_function_exporter_new"],
        "the shim's exporter takes metadata too, and always keywords",
    ),
    (&["mlx_export_to_dot", "mlx_node_namer_get_name"], "the shim writes graphs to a text"),
    (&["mlx_distributed_group_new", "mlx_distributed_init"], "the shim checks the environment"),
    (
        &["mlx_default_*_stream_new", "mlx_stream_new_device", "mlx_synchronize"],
        "the shim gives streams of ended threads to new ones, and keeps the errors of failed work",
    ),
    (&["mlx_masked_scatter"], "composed of ops whose gradient stays within the array"),
    (&["mlx_vector_int_*", "mlx_vector_vector_array_*"], "nothing takes or gives such vectors"),
    (
        &[
            "mlx_vector_*_append_*",
            "mlx_vector_*_new_value",
            "mlx_vector_*_set_*",
            "mlx_vector_array_new",
            "mlx_vector_string_new",
            "mlx_vector_string_set",
        ],
        "vectors are made from slices and read, never changed",
    ),
];

fn source(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The names of mlx-c's form in a text, without its comments.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.flat_map(move |line| line.split(move |c| !is_word(c)))
        .filter(|word| word.starts_with("mlx_") || word.starts_with("_mlx_"))
}

/// Tells whether a name has the parts of a pattern between `*`, in order.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || pattern.ends_with('*')
}

#[test]
fn every_function_of_mlx_c_is_called_or_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bindings = fs::read_to_string(root.join("../mlx-sys/src/generated.rs")).unwrap();
    let declared: BTreeSet<&str> = bindings
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub fn ")?.split('(').next())
        .filter(|name| name.starts_with("mlx_") || name.starts_with("_mlx_"))
        .collect();
    assert!(declared.len() > 500, "{} functions: the bindings have another form", declared.len());
    let mut files = Vec::new();
    source(&root.join("src"), &mut files);
    let texts: Vec<String> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| names(text)).collect();
    let mut failures = Vec::new();
    let patterns = || UNUSED.iter().flat_map(|(patterns, _)| patterns.iter());
    for name in declared.difference(&used) {
        if !patterns().any(|pattern| matches(pattern, name)) {
            failures.push(format!("{name}: nobody calls it; call it or say why not in UNUSED"));
        }
    }
    for pattern in patterns() {
        if !declared.difference(&used).any(|name| matches(pattern, name)) {
            failures.push(format!("{pattern}: stale, what it names is called or gone"));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn patterns_match_names() {
    for (pattern, name, expected) in [
        ("mlx_load", "mlx_load", true),
        ("mlx_load", "mlx_load_gguf", false),
        ("mlx_load_*", "mlx_load_gguf", true),
        ("mlx_load_*", "mlx_load", false),
        ("mlx_vector_*_set_*", "mlx_vector_int_set_data", true),
        ("mlx_vector_*_set_*", "mlx_vector_int_get", false),
        ("mlx_*_free", "mlx_io_reader_free", true),
        ("mlx_*_free", "mlx_io_reader_new", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}
