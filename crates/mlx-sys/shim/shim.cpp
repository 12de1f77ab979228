#include "shim.h"

#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "guard.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/closure.h"
#include "mlx/c/private/enums.h"
#include "mlx/c/private/stream.h"
#include "mlx/c/private/vector.h"
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

class HostOp : public mx::Primitive {
 public:
  HostOp(
      mx::Stream stream,
      std::string name,
      mlx_shim_kernel kernel,
      std::shared_ptr<void> payload,
      std::vector<uint64_t> params,
      ArrayFunction fallback)
      : mx::Primitive(stream),
        name_(std::move(name)),
        kernel_(kernel),
        payload_(std::move(payload)),
        params_(std::move(params)),
        fallback_(std::move(fallback)) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (auto& out : outputs) {
      out.set_data(mx::allocator::malloc(out.nbytes()));
      encoder.set_output_array(out);
    }
    std::vector<mx::array> in_refs;
    for (auto& in : inputs) {
      encoder.set_input_array(in);
      in_refs.push_back(mx::array::unsafe_weak_copy(in));
    }
    std::vector<mx::array> out_refs;
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
  ArrayFunction fallback_;
};

// Statics are destroyed in the reverse order of their construction, so this one, made after the
// allocator, goes before it.
struct ExitGuard {
  ExitGuard() {
    mx::allocator::allocator();
    mx::get_streams();
  }

  ~ExitGuard() {
    for (auto stream : mx::get_streams()) {
      if (stream.device == mx::Device::cpu) {
        try {
          mx::synchronize(stream);
        } catch (...) {
          // The error of work that nobody waits for any more.
        }
      }
    }
  }
};

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

extern "C" int mlx_shim_host_op(
    mlx_vector_array* res,
    const char* name,
    const mlx_vector_array inputs,
    const mlx_shim_output* outputs,
    size_t n_outputs,
    mlx_shim_kernel kernel,
    void* payload,
    void (*dtor)(void*),
    const uint64_t* params,
    size_t n_params,
    const mlx_closure fallback,
    const mlx_stream s) {
  return guard([&] {
    std::shared_ptr<void> owned(payload, dtor);
    auto stream = mlx_stream_get_(s);
    std::vector<mx::array> contiguous;
    for (auto& in : mlx_vector_array_get_(inputs)) {
      contiguous.push_back(mx::contiguous(in, false, stream));
    }
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> dtypes;
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
        mlx_closure_get_(fallback));
    mlx_vector_array_set_(
        *res,
        mx::array::make_arrays(
            std::move(shapes), dtypes, primitive, std::move(contiguous)));
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
