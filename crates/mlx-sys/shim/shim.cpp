#include "shim.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "guard.h"
#include "internals.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/closure.h"
#include "mlx/c/private/enums.h"
#include "mlx/c/private/export.h"
#include "mlx/c/private/graph_utils.h"
#include "mlx/c/private/stream.h"
#include "mlx/c/private/string.h"
#include "mlx/c/private/vector.h"
#include "mlx/compile_impl.h"
#include "mlx/export.h"
#include "mlx/graph_utils.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"
#include "mlx/scheduler.h"
#include "mlx/transforms_impl.h"

namespace mx = mlx::core;
using mlx_shim::guard;

namespace {

struct LastError {
  int kind = -1;
  std::string text;
};

LastError& last_error() {
  static thread_local LastError error;
  return error;
}

using ArrayFunction =
    std::function<std::vector<mx::array>(const std::vector<mx::array>&)>;

// Frees memory that kernels append to; views of it, and tasks on their way, may read what is there.
struct StoreDeleter {
  // Identity of the array with the most rows. Others of the memory know nothing of its last ones.
  std::shared_ptr<uintptr_t> tip;

  void operator()(mx::allocator::Buffer buffer) const {
    mx::allocator::free(buffer);
  }
};

// Returns the number of an array's handles. What counts them is private, but an instantiation may
// name it.
long n_handles(const mx::array& a);

template <auto member>
struct Opened {
  friend long n_handles(const mx::array& a) {
    return (a.*member).use_count();
  }
};

template struct Opened<&mx::array::array_desc_>;

class HostOp : public mx::Primitive {
 public:
  HostOp(
      mx::Stream stream,
      std::string name,
      mlx_shim_kernel kernel,
      std::shared_ptr<void> payload,
      std::vector<uint64_t> params,
      std::vector<int32_t> in_place,
      ArrayFunction fallback)
      : mx::Primitive(stream),
        name_(std::move(name)),
        kernel_(kernel),
        payload_(std::move(payload)),
        params_(std::move(params)),
        in_place_(std::move(in_place)),
        fallback_(std::move(fallback)) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (size_t i = 0; i < outputs.size(); i++) {
      auto& out = outputs[i];
      if (in_place_.empty() || in_place_[i] < 0) {
        out.set_data(mx::allocator::malloc(out.nbytes()));
      } else {
        take_over(encoder, inputs[in_place_[i]], out, outputs.size());
      }
      encoder.set_output_array(out);
    }
    std::vector<mx::array> in_refs;
    in_refs.reserve(inputs.size());
    for (auto& in : inputs) {
      encoder.set_input_array(in);
      in_refs.push_back(mx::array::unsafe_weak_copy(in));
    }
    std::vector<mx::array> out_refs;
    out_refs.reserve(outputs.size());
    for (auto& out : outputs) {
      out_refs.push_back(mx::array::unsafe_weak_copy(out));
    }
    encoder.dispatch([name = name_,
                      kernel = kernel_,
                      payload = payload_,
                      ins = std::move(in_refs),
                      outs = std::move(out_refs)]() mutable {
      auto views = [](std::vector<mx::array>& arrays) {
        std::vector<mlx_shim_view> result;
        result.reserve(arrays.size());
        for (auto& a : arrays) {
          result.push_back(
              {a.data<char>(),
               a.shape().data(),
               a.strides().data(),
               a.ndim(),
               a.size(),
               mlx_dtype_to_c(a.dtype())});
        }
        return result;
      };
      auto in_views = views(ins);
      auto out_views = views(outs);
      char error[512] = {0};
      if (kernel(
              payload.get(),
              in_views.data(),
              in_views.size(),
              out_views.data(),
              out_views.size(),
              error,
              sizeof(error))) {
        throw std::runtime_error("[" + name + "] " + error);
      }
    });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw std::runtime_error("[" + name_ + "] is a CPU kernel");
  }

  std::vector<mx::array> jvp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& tangents,
      const std::vector<int>& argnums) override {
    auto over = [&](const std::vector<mx::array>& selected) {
      return fallback_(merge(primals, selected, argnums));
    };
    return mx::jvp(over, select(primals, argnums), tangents).second;
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    auto over = [&](const std::vector<mx::array>& selected) {
      return fallback_(merge(primals, selected, argnums));
    };
    return mx::vjp(over, select(primals, argnums), cotangents).second;
  }

  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override {
    auto [trace_in, trace_out] =
        mx::detail::vmap_trace(fallback_, inputs, axes);
    std::vector<int> out_axes(trace_out.size(), 0);
    auto outs = mx::detail::vmap_replace(
        inputs, trace_in, trace_out, axes, out_axes);
    return {std::move(outs), std::move(out_axes)};
  }

  const char* name() const override {
    return name_.c_str();
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    auto* op = dynamic_cast<const HostOp*>(&other);
    return op && op->kernel_ == kernel_ && op->params_ == params_;
  }

 private:
  // Gives the output the input's memory, if that was allocated here and the input is what the last
  // kernel made of it, with no other handle; else a copy.
  static void take_over(
      mx::cpu::CommandEncoder& encoder,
      const mx::array& in,
      mx::array& out,
      size_t n_outputs) {
    // Each output has a list of the inputs.
    bool is_alone = n_handles(in) == static_cast<long>(n_outputs);
    auto* store = in.data_shared_ptr()->d.target<StoreDeleter>();
    if (store && *store->tip == in.id() && is_alone && in.data_size() == in.size()) {
      *store->tip = out.id();
      out.copy_shared_buffer(in);
      return;
    }
    auto tip = std::make_shared<uintptr_t>(out.id());
    out.set_data(mx::allocator::malloc(out.nbytes()), StoreDeleter{std::move(tip)});
    encoder.set_input_array(in);
    encoder.set_output_array(out);
    encoder.dispatch([in = mx::array::unsafe_weak_copy(in),
                      out = mx::array::unsafe_weak_copy(out)]() mutable {
      std::memcpy(out.data<char>(), in.data<char>(), in.nbytes());
    });
  }

  static std::vector<mx::array> select(
      const std::vector<mx::array>& arrays,
      const std::vector<int>& argnums) {
    std::vector<mx::array> result;
    for (auto i : argnums) {
      result.push_back(arrays[i]);
    }
    return result;
  }

  static std::vector<mx::array> merge(
      std::vector<mx::array> primals,
      const std::vector<mx::array>& selected,
      const std::vector<int>& argnums) {
    for (size_t i = 0; i < argnums.size(); i++) {
      primals[argnums[i]] = selected[i];
    }
    return primals;
  }

  std::string name_;
  mlx_shim_kernel kernel_;
  std::shared_ptr<void> payload_;
  std::vector<uint64_t> params_;
  std::vector<int32_t> in_place_;
  ArrayFunction fallback_;
};

// Tells whether an array is sure to be row contiguous: it was computed, or comes from a kernel.
bool is_laid_out(const mx::array& a) {
  if (a.status() == mx::array::Status::unscheduled) {
    return a.has_primitive() && typeid(a.primitive()) == typeid(HostOp);
  }
  return a.flags().row_contiguous && a.data_size() >= a.size();
}

// Calls `visit` for each array under `outputs`, inputs first; stops below those it returns false
// for on the way down. Keeps its own stack, because graphs are as deep as computations are long.
template <typename Enter, typename Visit>
void each_array(const std::vector<mx::array>& outputs, Enter&& enter, Visit&& visit) {
  std::unordered_set<uintptr_t> seen;
  std::vector<std::pair<mx::array, size_t>> path;
  auto push = [&](const mx::array& a) {
    if (!seen.insert(a.id()).second) {
      return;
    }
    for (auto& s : a.siblings()) {
      seen.insert(s.id());
    }
    path.emplace_back(a, enter(a) ? 0 : a.inputs().size());
  };
  for (auto& out : outputs) {
    push(out);
    while (!path.empty()) {
      auto& [a, next] = path.back();
      if (next < a.inputs().size()) {
        auto in = a.inputs()[next++];
        push(in);
      } else {
        auto done = std::move(a);
        path.pop_back();
        visit(done);
      }
    }
  }
}

bool is_plain(const mx::array& a) {
  return a.is_available() && a.flags().row_contiguous && a.data_size() >= a.size();
}

// What a trace did, without its arrays: compiling rewires those.
struct Record {
  struct Node {
    std::shared_ptr<mx::Primitive> primitive;
    std::vector<std::pair<size_t, size_t>> inputs;
    std::vector<std::pair<mx::Dtype, size_t>> outputs;
    // The place of a function input, or -1.
    int input = -1;
    std::shared_ptr<mx::array> constant;
  };
  std::vector<Node> nodes;
  std::vector<std::pair<size_t, size_t>> outputs;

  Record(const std::vector<mx::array>& inputs, const std::vector<mx::array>& results) {
    std::unordered_map<uintptr_t, int> places;
    for (size_t i = 0; i < inputs.size(); i++) {
      places.emplace(inputs[i].id(), static_cast<int>(i));
    }
    std::unordered_map<uintptr_t, std::pair<size_t, size_t>> where;
    each_array(
        results,
        [&](const mx::array& a) { return !places.count(a.id()); },
        [&](const mx::array& a) {
          Node node;
          auto place = places.find(a.id());
          auto all = a.outputs();
          if (place != places.end()) {
            node.input = place->second;
          } else if (a.has_primitive()) {
            node.primitive = a.primitive_ptr();
            for (auto& in : a.inputs()) {
              node.inputs.push_back(where.at(in.id()));
            }
            check_shapes(*node.primitive, a.inputs(), all);
          } else {
            node.constant = std::make_shared<mx::array>(a);
          }
          for (size_t i = 0; i < all.size(); i++) {
            node.outputs.emplace_back(all[i].dtype(), all[i].ndim());
            where.emplace(all[i].id(), std::make_pair(nodes.size(), i));
          }
          nodes.push_back(std::move(node));
        });
    for (auto& out : results) {
      outputs.push_back(where.at(out.id()));
    }
  }

  static void check_shapes(
      mx::Primitive& primitive,
      const std::vector<mx::array>& inputs,
      const std::vector<mx::array>& outputs) {
    if (mlx_shim::is_named(primitive, "Load")) {
      return;
    }
    if (typeid(primitive) == typeid(mx::Reduce) && primitive.device() == mx::Device::cpu) {
      // The CPU kernel reads past the end of its plan when every axis it reduces has size 1. Only a
      // shapeless trace makes such a node.
      auto axes = static_cast<mx::Reduce&>(primitive).state().second;
      auto single = [&](int axis) { return inputs[0].shape(axis) == 1; };
      if (std::all_of(axes.begin(), axes.end(), single)) {
        throw std::invalid_argument("[compile] Reduce over axes of size 1");
      }
    }
    auto shapes = primitive.output_shapes(inputs);
    bool same = shapes.size() == outputs.size();
    for (size_t i = 0; same && i < shapes.size(); i++) {
      same = shapes[i] == outputs[i].shape();
    }
    if (!same) {
      throw std::invalid_argument(
          std::string("[compile] ") + primitive.name() + " cannot follow the shape of its inputs");
    }
  }

  static bool same_constant(const mx::array& a, const mx::array& b) {
    constexpr size_t max_bytes = 4096;
    if (a.id() == b.id()) {
      return true;
    }
    return a.dtype() == b.dtype() && a.shape() == b.shape() && a.nbytes() <= max_bytes &&
        is_plain(a) && is_plain(b) &&
        (a.nbytes() == 0 || std::memcmp(a.data<char>(), b.data<char>(), a.nbytes()) == 0);
  }

  static bool same_node(const Node& a, const Node& b) {
    if (a.input != b.input || a.inputs != b.inputs || a.outputs != b.outputs ||
        !a.primitive != !b.primitive || !a.constant != !b.constant) {
      return false;
    }
    if (a.constant) {
      return same_constant(*a.constant, *b.constant);
    }
    if (!a.primitive || a.primitive == b.primitive) {
      return true;
    }
    auto& p = *a.primitive;
    auto& q = *b.primitive;
    if (typeid(p) != typeid(q) || p.stream() != q.stream()) {
      return false;
    }
    // One that broadcasts against other arrays follows their shapes, not its own.
    return (mlx_shim::is_named(p, "Broadcast") && a.inputs.size() > 1) || p.is_equivalent(q);
  }

  bool same(const Record& other) const {
    return outputs == other.outputs &&
        std::equal(
               nodes.begin(),
               nodes.end(),
               other.nodes.begin(),
               other.nodes.end(),
               same_node);
  }
};

// Statics are destroyed in the reverse order of their construction, so this one, made after the
// allocator, goes before it.
struct ExitGuard {
  ExitGuard() {
    mx::allocator::allocator();
    mx::get_streams();
  }

  ~ExitGuard() {
    mlx_shim::begin_exit();
    for (auto stream : mx::get_streams()) {
      if (stream.device == mx::Device::cpu && !mlx_shim::is_for_collectives(stream)) {
        try {
          mx::synchronize(stream);
        } catch (...) {
          // The error of work that nobody waits for any more.
        }
      }
    }
    mlx_shim::leave_groups();
  }
};

// Makes the node of an elementwise op where C++'s `general` would only find that nothing is to be
// promoted, and at most a number to be broadcast. An installed MLX has no nodes for others to make.
template <typename Op>
int binary(
    mlx_array* res,
    const mlx_array c_a,
    const mlx_array c_b,
    const mlx_stream c_s,
    mx::array (*general)(const mx::array&, const mx::array&, mx::StreamOrDevice)) {
  return guard([&] {
    auto& a = mlx_array_get_(c_a);
    auto& b = mlx_array_get_(c_b);
    auto& s = mlx_stream_get_(c_s);
#ifdef MLX_STATIC
    auto dtype = a.dtype();
    bool is_same = a.shape() == b.shape();
    bool is_plain = dtype == b.dtype() && (is_same || a.ndim() == 0 || b.ndim() == 0) &&
        (!std::is_same_v<Op, mx::Divide> || mx::issubdtype(dtype, mx::inexact)) &&
        !mx::detail::in_dynamic_tracing();
    if (is_plain) {
      auto& shape = a.ndim() == 0 ? b.shape() : a.shape();
      std::vector<mx::array> inputs;
      inputs.reserve(2);
      for (auto* in : {&a, &b}) {
        if (is_same || in->ndim() > 0) {
          inputs.push_back(*in);
        } else {
          inputs.push_back(
              mx::array(shape, dtype, std::make_shared<mx::Broadcast>(s, shape), {*in}));
        }
      }
      mlx_array_set_(
          *res, mx::array(shape, dtype, std::make_shared<Op>(s), std::move(inputs)));
      return;
    }
#endif
    mlx_array_set_(*res, general(a, b, s));
  });
}

} // namespace

extern "C" void mlx_shim_init(void) {
  guard([] {
    static ExitGuard exit_guard;
#ifdef MLX_SHIM_CPU_ONLY
    static std::once_flag once;
    std::call_once(once, [] {
      std::promise<void> ready;
      auto is_ready = ready.get_future();
      std::thread([&ready] {
        mx::scheduler::scheduler();
        ready.set_value();
        std::promise<void>().get_future().wait();
      }).detach();
      is_ready.wait();
    });
#endif
  });
}

extern "C" void mlx_shim_set_error(int kind, const char* text) {
  auto& error = last_error();
  error.kind = kind;
  error.text = text;
  mlx_shim::rearm_failures();
}

extern "C" int mlx_shim_take_error(const char** text, size_t* len) {
  auto& error = last_error();
  *text = error.text.c_str();
  *len = error.text.size();
  int kind = error.kind;
  error.kind = -1;
  return kind;
}

extern "C" const int64_t* mlx_shim_array_strides(mlx_array a) {
  return mlx_array_get_(a).strides().data();
}

extern "C" bool mlx_shim_array_is_settled(mlx_array a) {
  return mlx_array_get_(a).status() == mx::array::Status::available;
}

extern "C" uintptr_t mlx_shim_array_id(mlx_array a) {
  return mlx_array_get_(a).id();
}

extern "C" int mlx_shim_array_wrap(
    mlx_array* res,
    void* data,
    const int32_t* shape,
    size_t ndim,
    mlx_dtype dtype,
    void* payload,
    void (*dtor)(void*)) {
  return guard([&] {
    std::shared_ptr<void> owned(payload, dtor);
    mx::Shape cpp_shape(shape, shape + ndim);
    auto cpp_dtype = mlx_dtype_to_cpp(dtype);
#ifdef MLX_SHIM_CPU_ONLY
    // The CPU allocator's buffers point at a size header and their data follows it. Only the
    // allocator frees by that header, and the deleter here replaces it.
    mx::allocator::Buffer probe(data);
    auto header = static_cast<char*>(probe.raw_ptr()) - static_cast<char*>(data);
    mx::allocator::Buffer buffer(static_cast<char*>(data) - header);
    mlx_array_set_(
        *res,
        mx::array(
            buffer,
            std::move(cpp_shape),
            cpp_dtype,
            [owned](mx::allocator::Buffer) mutable { owned.reset(); }));
#else
    mlx_array_set_(
        *res,
        mx::array(
            data, std::move(cpp_shape), cpp_dtype, [owned](void*) mutable {
              owned.reset();
            }));
#endif
  });
}

extern "C" mlx_dtype mlx_shim_promote_types(mlx_dtype a, mlx_dtype b) {
  return mlx_dtype_to_c(mx::promote_types(mlx_dtype_to_cpp(a), mlx_dtype_to_cpp(b)));
}

extern "C" int mlx_shim_random_next_key(mlx_array* res) {
  return guard([&] {
    mlx_array_set_(*res, mx::random::KeySequence::default_().next());
  });
}

#define MLX_SHIM_BINARY(name, Op)                                                    \
  extern "C" int mlx_shim_##name(                                                    \
      mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s) {    \
    return binary<mx::Op>(res, a, b, s, mx::name);                                   \
  }
MLX_SHIM_BINARY(add, Add)
MLX_SHIM_BINARY(subtract, Subtract)
MLX_SHIM_BINARY(multiply, Multiply)
MLX_SHIM_BINARY(divide, Divide)
MLX_SHIM_BINARY(maximum, Maximum)
MLX_SHIM_BINARY(minimum, Minimum)
#undef MLX_SHIM_BINARY

extern "C" int mlx_shim_host_op(
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
    const mlx_stream s) {
  return guard([&] {
    std::shared_ptr<void> owned(payload, dtor);
    if (mlx_shim::Exporting::depth() > 0 || mlx_shim::in_dynamic_tracing()) {
      mlx_vector_array_set_(*res, mlx_closure_get_(fallback)(mlx_vector_array_get_(inputs)));
      return;
    }
    auto stream = mlx_stream_get_(s);
    auto& given = mlx_vector_array_get_(inputs);
    std::vector<mx::array> laid_out;
    laid_out.reserve(given.size());
    for (auto& in : given) {
      bool keeps_strides = laid_out.size() < 64 && strided >> laid_out.size() & 1;
      bool is_taken = keeps_strides || is_laid_out(in);
      laid_out.push_back(is_taken ? in : mx::contiguous(in, false, stream));
    }
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> dtypes;
    shapes.reserve(n_outputs);
    dtypes.reserve(n_outputs);
    for (size_t i = 0; i < n_outputs; i++) {
      auto& out = outputs[i];
      shapes.emplace_back(out.shape, out.shape + out.ndim);
      dtypes.push_back(mlx_dtype_to_cpp(out.dtype));
    }
    auto primitive = std::make_shared<HostOp>(
        stream,
        name,
        kernel,
        std::move(owned),
        std::vector<uint64_t>(params, params + n_params),
        in_place ? std::vector<int32_t>(in_place, in_place + n_outputs)
                 : std::vector<int32_t>(),
        mlx_closure_get_(fallback));
    mlx_vector_array_set_(
        *res,
        mx::array::make_arrays(
            std::move(shapes), dtypes, primitive, std::move(laid_out)));
  });
}

extern "C" int mlx_shim_precompiled_cuda_kernel(
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
    const mlx_stream s) {
  return guard([&] {
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> dtypes;
    for (size_t i = 0; i < n_outputs; i++) {
      shapes.emplace_back(outputs[i].shape, outputs[i].shape + outputs[i].ndim);
      dtypes.push_back(mlx_dtype_to_cpp(outputs[i].dtype));
    }
    std::vector<mx::fast::ScalarArg> arguments;
    for (size_t i = 0; i < n_scalars; i++) {
      auto& scalar = scalars[i];
      switch (scalar.kind) {
        case 0:
          arguments.emplace_back(scalar.integer != 0);
          break;
        case 1:
          arguments.emplace_back(scalar.integer);
          break;
        default:
          arguments.emplace_back(scalar.number);
      }
    }
    mlx_vector_array_set_(
        *res,
        mx::fast::precompiled_cuda_kernel(
            name,
            std::string(module, module_len),
            mlx_vector_array_get_(inputs),
            shapes,
            dtypes,
            arguments,
            {grid[0], grid[1], grid[2]},
            {threadgroup[0], threadgroup[1], threadgroup[2]},
            shared_memory,
            init_value ? std::make_optional(*init_value) : std::nullopt,
            ensure_row_contiguous,
            mlx_stream_get_(s)));
  });
}

extern "C" bool mlx_shim_array_is_tracer(mlx_array a) {
  return mlx_array_get_(a).is_tracer();
}

extern "C" int mlx_shim_graph_text(
    mlx_string* res,
    const mlx_node_namer namer,
    const mlx_vector_array outputs,
    bool dot) {
  return guard([&] {
    std::ostringstream text;
    auto& names = mlx_node_namer_get_(namer);
    auto& arrays = mlx_vector_array_get_(outputs);
    if (dot) {
      mx::export_to_dot(text, names, arrays);
    } else {
      mx::print_graph(text, names, arrays);
    }
    mlx_string_set_(*res, text.str());
  });
}

extern "C" int mlx_shim_function_exporter_new(
    mlx_function_exporter* res,
    const char* file,
    const mlx_closure_kwargs fun,
    bool shapeless,
    const char* metadata,
    size_t metadata_len) {
  return guard([&] {
    mlx_function_exporter_set_(
        *res,
        mx::exporter(
            std::string(file),
            [fun = mlx_closure_kwargs_get_(fun)](const mx::Args& args, const mx::Kwargs& kwargs) {
              mlx_shim::Exporting exporting;
              return fun(args, kwargs);
            },
            shapeless,
            std::string(metadata, metadata_len)));
  });
}

extern "C" int mlx_shim_check_constants(
    const mlx_vector_array inputs,
    const mlx_vector_array outputs) {
  return guard([&] {
    std::unordered_set<uintptr_t> input_ids;
    for (auto& in : mlx_vector_array_get_(inputs)) {
      input_ids.insert(in.id());
    }
    each_array(
        mlx_vector_array_get_(outputs),
        [](const mx::array&) { return true; },
        [&](const mx::array& a) {
          if (a.has_primitive() || input_ids.count(a.id())) {
            return;
          }
          if (a.status() == mx::array::Status::unscheduled) {
            throw std::invalid_argument("[export_function] A captured array has no value");
          }
          auto copy = a;
          copy.wait();
          if (!is_plain(a)) {
            throw std::invalid_argument(
                "[export_function] A captured array is not contiguous in memory");
          }
        });
  });
}

extern "C" int mlx_shim_record_new(
    mlx_shim_record* res,
    const mlx_vector_array inputs,
    const mlx_vector_array outputs) {
  return guard([&] {
    res->ctx = new Record(mlx_vector_array_get_(inputs), mlx_vector_array_get_(outputs));
  });
}

extern "C" int mlx_shim_record_trace(
    mlx_shim_record* res,
    const mlx_closure fun,
    const mlx_vector_array inputs) {
  return guard([&] {
    mlx_shim::trace(mlx_vector_array_get_(inputs), [&](const std::vector<mx::array>& stand_ins) {
      auto outputs = mlx_closure_get_(fun)(stand_ins);
      res->ctx = new Record(stand_ins, outputs);
      return outputs;
    });
  });
}

extern "C" bool mlx_shim_record_same(const mlx_shim_record a, const mlx_shim_record b) {
  bool same = false;
  guard([&] { same = static_cast<Record*>(a.ctx)->same(*static_cast<Record*>(b.ctx)); });
  return same;
}

extern "C" void mlx_shim_record_free(mlx_shim_record record) {
  delete static_cast<Record*>(record.ctx);
}
