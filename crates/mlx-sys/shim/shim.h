// What mlx-c lacks against the C++ library. Each entry names its gap, so that it can retire.
//
// Every function that can fail returns 0, or 1 after `mlx_shim_set_error`. Nothing unwinds out.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mlx/c/mlx.h"

#ifdef __cplusplus
extern "C" {
#endif

// Gap: mlx-c loses the exception's class and passes its text as a printf format.
// Kinds: 0 runtime, 1 invalid argument, 2 out of range, 3 out of memory, 4 system.
void mlx_shim_set_error(int kind, const char* text);
// Moves out this thread's last error: its kind, or -1 where there is none. `text` is valid until
// the next error of this thread.
int mlx_shim_take_error(const char** text, size_t* len);

// Gap: mlx-c has no accessors for float16 and bfloat16 outside ARM, and none for the storage.
// The data pointer of an evaluated array, whatever its dtype; null when it has no data yet.
const void* mlx_shim_array_data(mlx_array a);
// Element strides; mlx-c's own accessor gives them as unsigned, yet a flipped view has negative ones.
const int64_t* mlx_shim_array_strides(mlx_array a);
// 0 unscheduled, 1 on its way or failed, 2 available.
int mlx_shim_array_status(mlx_array a);
// Whether the host made the array or has waited for it: unlike the status the answer does not depend on
// how fast a device is, and asking changes nothing.
bool mlx_shim_array_is_settled(mlx_array a);
// Identity of the array's node in the graph.
uintptr_t mlx_shim_array_id(mlx_array a);

// Gap: on a CPU-only build mlx-c's managed arrays copy. Wraps `nbytes` of memory that the caller
// keeps alive until `dtor(payload)`; writable, because an update may reuse the buffer, and with at
// least 16 readable bytes before `data`. Copies where the device's memory cannot be wrapped.
// `dtor` runs in every case, failure included.
int mlx_shim_array_wrap(
    mlx_array* res,
    void* data,
    const int32_t* shape,
    size_t ndim,
    mlx_dtype dtype,
    void* payload,
    void (*dtor)(void*));

// To be called before the first stream is asked for; any number of times, from any thread.
//
// Gap: when the process exits, MLX destroys its CPU allocator while its stream threads, which it
// leaks, may still free buffers into it. Exit now waits for their work first.
// Gap: the thread that first hands a task to MLX's CPU backend gets the error of a failed task when
// it hands over another, which makes MLX lose count of the tasks under way; with more than ten too
// many it waits forever. A thread that hands over none takes that place and is never gone, so that
// no other inherits its id. Other threads get the error where they wait for the result.
void mlx_shim_init(void);

// Gap: MLX ends neither the streams of a thread that ends nor their OS threads. Streams made here
// are left to later threads (not with an installed MLX, which hides what that needs).
// The thread's default stream of a device, and a new one.
int mlx_shim_default_stream(mlx_stream* res, bool gpu);
int mlx_shim_new_stream(mlx_stream* res, bool gpu);
// Waits for the thread's work and gives its streams up; ops need new ones then.
int mlx_shim_clear_streams(void);

// Gap: MLX tells the error of a failed op once, and then takes whatever was computed by it or
// queued behind it for computed, though its memory was never written. After these, reading or using
// such an array gives the error each time.
int mlx_shim_eval(mlx_vector_array arrays, bool async);
int mlx_shim_synchronize(mlx_stream stream);

// Gap: MLX takes the rank of a ring's process as any number and divides by the number of hosts.
// Gap: behind a collective that failed, or whose peer stands still, a CPU stream and with it exit wait
// forever. After a failure a group's collectives are refused, and exit gives up those under way.
int mlx_shim_distributed_init(mlx_distributed_group* res, bool strict, const char* backend);

// Gap: mlx-c has no dtype promotion.
mlx_dtype mlx_shim_promote_types(mlx_dtype a, mlx_dtype b);

// Gap: mlx-c has no access to the default random key's state, only to its seed.
int mlx_shim_random_next_key(mlx_array* res);

// Gap: mlx-c's and C++'s own functions look at types, shapes and broadcasting in ways that copy, which
// costs more than the node. Where both arrays have one type, and one shape or one of them is a
// number, these make the same nodes at once; else they call C++'s.
int mlx_shim_add(mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s);
int mlx_shim_subtract(mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s);
int mlx_shim_multiply(mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s);
int mlx_shim_divide(mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s);
int mlx_shim_maximum(mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s);
int mlx_shim_minimum(mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s);

// Gap: mlx-c has no custom primitive.
typedef struct mlx_shim_view_ {
  void* data;
  const int32_t* shape;
  const int64_t* strides;
  size_t ndim;
  size_t size;
  mlx_dtype dtype;
} mlx_shim_view;

// Returns 0, or 1 after writing a NUL-terminated text of at most `error_len` bytes to `error`.
typedef int (*mlx_shim_kernel)(
    const void* payload,
    const mlx_shim_view* inputs,
    size_t n_inputs,
    const mlx_shim_view* outputs,
    size_t n_outputs,
    char* error,
    size_t error_len);

typedef struct mlx_shim_output_ {
  const int32_t* shape;
  size_t ndim;
  mlx_dtype dtype;
} mlx_shim_output;

// Makes a node of the graph that runs `kernel` on the CPU stream `s`. Inputs reach the kernel row
// contiguous, but for those whose bit of `strided` is set (the lowest is the first input's), which
// keep their strides, be they negative or 0; outputs are freshly allocated and row contiguous.
// `in_place` may be null, or has for each output the input of the same size and type whose elements it
// starts with, or -1: the kernel appends to the input, of which it must not read otherwise and which
// may not be one of `strided`. The output has the input's memory if that is what the last kernel that
// appended has made, and nobody else has a handle of it; views of the memory, and tasks on their way,
// may read what the kernel leaves as it is.
// `fallback` maps the inputs to the same outputs by ordinary ops and serves vmap, jvp and vjp. Two
// nodes are the same to `compile` when kernel and `params` (`n_params` numbers that determine the
// payload) agree.
// `payload` is released through `dtor` in every case, failure included. While a function is exported
// or traced without shapes, the result is the fallback's: neither can hold a kernel.
int mlx_shim_host_op(
    mlx_vector_array* res,
    const char* name,
    const mlx_vector_array inputs,
    uint64_t strided,
    const mlx_shim_output* outputs,
    size_t n_outputs,
    mlx_shim_kernel kernel,
    void* payload,
    void (*dtor)(void*),
    const uint64_t* params,
    size_t n_params,
    const int32_t* in_place,
    const mlx_closure fallback,
    const mlx_stream s);

// Gap: mlx-c has CUDA kernels from source only.
// `kind` is 0 for a bool and 1 for an integer, both in `integer`, and 2 for a float in `number`.
typedef struct mlx_shim_scalar_ {
  int kind;
  int integer;
  float number;
} mlx_shim_scalar;

// Makes a node of the graph that runs the kernel `name` of a compiled module. `grid` and
// `threadgroup` have three sizes each; `init_value` may be null. Fails without a CUDA backend.
int mlx_shim_precompiled_cuda_kernel(
    mlx_vector_array* res,
    const char* name,
    const char* module,
    size_t module_len,
    const mlx_vector_array inputs,
    const mlx_shim_output* outputs,
    size_t n_outputs,
    const mlx_shim_scalar* scalars,
    size_t n_scalars,
    const int32_t* grid,
    const int32_t* threadgroup,
    int shared_memory,
    const float* init_value,
    bool ensure_row_contiguous,
    const mlx_stream s);

// Gap: mlx-c cannot tell a stand-in of a function being traced from an array with a value.
bool mlx_shim_array_is_tracer(mlx_array a);

// Gap: mlx-c writes graphs to FILE* only. `dot` chooses Graphviz's language over a plain list.
int mlx_shim_graph_text(
    mlx_string* res,
    const mlx_node_namer namer,
    const mlx_vector_array outputs,
    bool dot);

// Gap: mlx-c's exporter drops keyword arguments and has no metadata.
int mlx_shim_function_exporter_new(
    mlx_function_exporter* res,
    const char* file,
    const mlx_closure_kwargs fun,
    bool shapeless,
    const char* metadata,
    size_t metadata_len);

// Gap: MLX writes the constants of an exported function as if they were computed and row
// contiguous. Waits for those under `outputs`, which are all but `inputs` and what ops will make;
// fails where one is neither.
int mlx_shim_check_constants(const mlx_vector_array inputs, const mlx_vector_array outputs);

// Gap: MLX replays a shapeless trace for other shapes without the checks of the ops, and reads out
// of bounds where they would have failed. A record of a trace tells whether another trace, made
// with those shapes, has the same graph.
typedef struct mlx_shim_record_ {
  void* ctx;
} mlx_shim_record;
// Fails where the graph's shapes do not follow from those of its inputs.
int mlx_shim_record_new(
    mlx_shim_record* res,
    const mlx_vector_array inputs,
    const mlx_vector_array outputs);
// Traces `fun` as a shapeless compilation does, with stand-ins for `inputs`.
int mlx_shim_record_trace(
    mlx_shim_record* res,
    const mlx_closure fun,
    const mlx_vector_array inputs);
bool mlx_shim_record_same(const mlx_shim_record a, const mlx_shim_record b);
void mlx_shim_record_free(mlx_shim_record record);

#ifdef __cplusplus
}
#endif
