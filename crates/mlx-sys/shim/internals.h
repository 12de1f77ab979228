// What the shim needs of MLX's inside.
//
// MLX that is linked statically has it all. An installed one exports only what is for everybody, so
// there the state of an event or a trace is told by what exported functions make of it, and the error
// of an event is found by the layout of MLX_VERSION, which the build checks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string_view>
#include <vector>

#include "mlx/mlx.h"
#include "mlx/primitives.h"
#include "mlx/transforms_impl.h"

namespace mlx_shim {

inline bool is_named(const mlx::core::Primitive& primitive, std::string_view name) {
  return primitive.name() == name;
}

// Says that a function is traced to be exported, for as long as it lives.
class Exporting {
 public:
  Exporting() {
    depth()++;
  }
  ~Exporting() {
    depth()--;
  }
  Exporting(const Exporting&) = delete;

  static int& depth() {
    static thread_local int depth = 0;
    return depth;
  }
};

#ifdef MLX_STATIC

inline mlx::core::Error* load_error(const mlx::core::Event& event) {
  return event.load_error();
}

inline void set_error(mlx::core::Event& event, mlx::core::Error& error) {
  event.set_error(error);
}

inline bool is_signaled(const mlx::core::Event& event) {
  return event.is_signaled();
}

// Makes an event that has been signaled on a CPU stream.
inline mlx::core::Event signaled_event(mlx::core::Stream stream) {
  mlx::core::Event event(stream);
  event.set_value(1);
  event.signal(stream);
  return event;
}

inline bool in_dynamic_tracing() {
  return mlx::core::detail::in_dynamic_tracing();
}

// Calls `f` with stand-ins for `inputs` whose sizes may change.
template <typename F>
void trace(const std::vector<mlx::core::array>& inputs, F&& f) {
  mlx::core::detail::InTracing tracing{true};
  std::vector<mlx::core::array> stand_ins;
  for (auto& in : inputs) {
    mlx::core::array stand_in(in.shape(), in.dtype(), nullptr, {});
    stand_in.set_tracer(true);
    stand_ins.push_back(std::move(stand_in));
  }
  f(stand_ins);
}

#else

inline std::atomic<mlx::core::Error*>& error_of(const mlx::core::Event& event) {
#if defined(MLX_SHIM_CPU_ONLY)
  struct Layout {
    uint64_t value;
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<mlx::core::Error*> error;
  };
#elif defined(__APPLE__)
  struct Layout {
    void* event;
    std::atomic<mlx::core::Error*> error;
  };
#else
  struct Layout {
    std::atomic<mlx::core::Error*> error;
  };
#endif
  return event.cast<Layout>().error;
}

inline mlx::core::Error* load_error(const mlx::core::Event& event) {
  return event.valid() ? error_of(event).load() : nullptr;
}

inline void set_error(mlx::core::Event& event, mlx::core::Error& error) {
  error_of(event).store(&error);
}

// An array without a value.
inline mlx::core::array bare_array() {
  return mlx::core::array(mlx::core::Shape{1}, mlx::core::float32, nullptr, {});
}

// An event with an error counts as signaled, which it is about to be.
inline bool is_signaled(const mlx::core::Event& event) {
  if (load_error(event)) {
    return true;
  }
  static thread_local mlx::core::array probe = bare_array();
  probe.set_status(mlx::core::array::Status::evaluated);
  probe.attach_event(event);
  bool result = true;
  try {
    result = probe.is_available();
  } catch (const std::exception&) {
    // It got an error in between.
  }
  probe.attach_event(mlx::core::Event{});
  return result;
}

inline mlx::core::Event signaled_event(mlx::core::Stream stream) {
  auto done = mlx::core::ones({1}, mlx::core::float32, stream);
  mlx::core::async_eval({done});
  return done.event();
}

inline bool in_dynamic_tracing() {
  static thread_local mlx::core::array probe = [] {
    auto probe = bare_array();
    probe.set_tracer(true);
    return probe;
  }();
  // A sum over an axis of size 1 is a node of its own only where sizes may change.
  return probe.is_tracer() && mlx::core::sum(probe, std::vector<int>{0}, true).id() != probe.id();
}

template <typename F>
void trace(const std::vector<mlx::core::array>& inputs, F&& f) {
  std::function<std::vector<mlx::core::array>(const std::vector<mlx::core::array>&)> traced =
      std::ref(f);
  mlx::core::compile(std::move(traced), true)(inputs);
}

#endif

} // namespace mlx_shim
