// Streams by thread, and evaluation whose failures are not forgotten.
//
// MLX keeps the error of a failed task in its stream, throws it to whoever waits first, and forgets
// it there: everything else that was computed by or behind that task then reads as if it were
// there, though its memory was never written. Here every array that is evaluated keeps the event of
// its evaluation, as with MLX's `async_eval`, and the events of evaluations under way are known.
// When an error shows, all work of the thread is waited for first, then those events are given an
// error of ours, which MLX itself throws wherever such an array is read or used.
#include "shim.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "guard.h"
#include "internals.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/backend/cpu/eval.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/distributed_group.h"
#include "mlx/c/private/stream.h"
#include "mlx/c/private/vector.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"
#include "mlx/scheduler.h"

namespace mx = mlx::core;

namespace {

// The errors that arrays of one thread carry. More failures than slots share the latest text.
struct Failures {
  struct Slot {
    mx::Error error;
    std::string text;
  };

  Slot slots[16];
  size_t count = 0;

  mx::Error& add(const std::string& text) {
    auto& slot = slots[count++ % std::size(slots)];
    slot.text = text;
    slot.error.set_message(std::make_shared<std::string>(text));
    return slot.error;
  }

  const Slot* find(const mx::Error* error) const {
    for (auto& slot : slots) {
      if (&slot.error == error) {
        return &slot;
      }
    }
    return nullptr;
  }

  void rearm() {
    for (auto& slot : slots) {
      if (!slot.text.empty() && !slot.error.valid()) {
        slot.error.set_message(std::make_shared<std::string>(slot.text));
      }
    }
  }
};

// What ended threads leave to new ones: MLX never ends the OS thread of a CPU stream.
struct Pool {
  struct Stream {
    mx::Stream stream;
    std::shared_ptr<std::atomic<bool>> is_idle;
  };

  std::mutex mutex;
  std::vector<Stream> streams;
  std::vector<Failures*> failures;
};

Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

// Plain data, so that they can be asked after the thread's other state is gone.
thread_local bool has_ended = false;
thread_local Failures* failures = nullptr;

using Events = std::vector<mx::Event>;

void add_event(Events& events, const mx::array& a) {
  auto& event = a.event();
  if (!event.valid()) {
    return;
  }
  for (auto& known : events) {
    if (&known.cast<char>() == &event.cast<char>()) {
      return;
    }
  }
  events.push_back(event);
}

bool is_new(const mx::array& a) {
  return a.status() == mx::array::Status::unscheduled;
}

// Calls `visit` for each array that is to be computed for `outputs` and for what those start from.
template <typename F>
void walk(const std::vector<mx::array>& outputs, F&& visit) {
  std::unordered_set<uintptr_t> seen;
  std::vector<const mx::array*> pending;
  auto push = [&](const std::vector<mx::array>& arrays) {
    for (auto& a : arrays) {
      if (seen.insert(a.id()).second) {
        pending.push_back(&a);
      }
    }
  };
  push(outputs);
  while (!pending.empty()) {
    auto& a = *pending.back();
    pending.pop_back();
    visit(a);
    if (is_new(a)) {
      push(a.inputs());
      push(a.siblings());
    }
  }
}

// How many handles there are to an array, which MLX keeps to itself.
template <auto Desc>
struct Handles {
  friend long count_handles(const mx::array& a) {
    return (a.*Desc).use_count();
  }
};
long count_handles(const mx::array& a);
template struct Handles<&mx::array::array_desc_>;

// The arrays that an evaluation on several streams computes. Made anew for each, with its memory
// kept, because a map of MLX's sort would cost a tenth of the evaluation itself.
class Graph {
 public:
  // The arrays to be computed for `outputs` that somebody besides the graph has a handle to; none
  // where all are on one stream. Holding them costs nothing: MLX never gives their memory to a
  // result.
  std::vector<mx::array> readable_later(const std::vector<mx::array>& outputs) {
    std::vector<mx::array> held;
    if (has_two_streams(outputs)) {
      for (auto& node : nodes_) {
        if (count_handles(*node.array) > node.inner) {
          held.push_back(*node.array);
        }
      }
    }
    if (places_.size() > max_kept) {
      nodes_ = {};
      places_ = {};
    }
    for (auto& node : nodes_) {
      places_[node.place] = 0;
    }
    nodes_.clear();
    return held;
  }

 private:
  static constexpr size_t max_kept = 1 << 17;

  struct Node {
    const mx::array* array;
    // How many handles the graph itself has to it.
    long inner;
    size_t place;
  };

  bool has_two_streams(const std::vector<mx::array>& outputs) {
    add(outputs);
    bool has_two = false;
    std::optional<int> stream;
    for (size_t i = 0; i < nodes_.size(); i++) {
      auto& a = *nodes_[i].array;
      if (a.has_primitive()) {
        int index = a.primitive().stream().index;
        has_two |= stream.value_or(index) != index;
        stream = index;
      }
      add(a.inputs());
      add(a.siblings());
    }
    return has_two;
  }

  void add(const std::vector<mx::array>& arrays) {
    for (auto& a : arrays) {
      if (is_new(a)) {
        add(a);
      }
    }
  }

  void add(const mx::array& a) {
    if (places_.size() < 2 * (nodes_.size() + 1)) {
      places_.assign(std::max<size_t>(64, 4 * nodes_.size()), 0);
      for (size_t i = 0; i < nodes_.size(); i++) {
        nodes_[i].place = find(nodes_[i].array->id());
        places_[nodes_[i].place] = static_cast<uint32_t>(i + 1);
      }
    }
    size_t place = find(a.id());
    if (places_[place]) {
      nodes_[places_[place] - 1].inner++;
    } else {
      nodes_.push_back({&a, 1, place});
      places_[place] = static_cast<uint32_t>(nodes_.size());
    }
  }

  // Where the node with an id is, or goes to.
  size_t find(uintptr_t id) const {
    size_t mask = places_.size() - 1;
    size_t i = (static_cast<uint64_t>(id) * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (places_[i] && nodes_[places_[i] - 1].array->id() != id) {
      i = (i + 1) & mask;
    }
    return i;
  }

  std::vector<Node> nodes_;
  // One more than an index into the nodes, by id; 0 is nothing. As many as a power of two.
  std::vector<uint32_t> places_;
};

// Puts a task behind everything on a CPU stream.
template <typename F>
void enqueue_last(const mx::Stream& stream, F&& task) {
  mx::scheduler::enqueue(stream, std::forward<F>(task));
}

struct Thread {
  std::vector<mx::Stream> streams;
  std::optional<mx::Stream> defaults[2];
  // The events of evaluations that are not yet known to have ended well, oldest first.
  std::deque<Events> flights;
  size_t sweep_at = 64;
  Graph graph;

  Thread() {
    // Made before this, and so destroyed after it: what the thread's streams need to be usable.
#ifdef MLX_STATIC
    mx::cpu::get_command_encoders();
#else
    try {
      mx::cpu::get_command_encoder(mx::Stream(INT_MAX, mx::Device::cpu));
    } catch (const std::exception&) {
    }
#endif
  }

  ~Thread() {
    has_ended = true;
    try {
      give_back();
      if (failures) {
        std::lock_guard lock(pool().mutex);
        pool().failures.push_back(std::exchange(failures, nullptr));
      }
    } catch (...) {
      // No memory for the list: the streams stay unused.
    }
  }

  mx::Stream take(mx::Device device) {
#ifdef MLX_STATIC
    if (device == mx::Device::cpu) {
      std::unique_lock lock(pool().mutex);
      auto& idle = pool().streams;
      for (auto it = idle.begin(); it != idle.end(); ++it) {
        if (*it->is_idle) {
          auto stream = it->stream;
          streams.reserve(streams.size() + 1);
          mx::cpu::new_stream(stream);
          idle.erase(it);
          lock.unlock();
          streams.push_back(stream);
          clear_error(stream);
          return stream;
        }
      }
    }
#endif
    streams.push_back(mx::new_stream(device));
    return streams.back();
  }

  mx::Stream default_of(mx::Device device) {
    auto& stream = defaults[device == mx::Device::gpu];
    if (!stream) {
      stream = take(device);
      mx::set_default_stream(*stream);
    }
    return *stream;
  }

  // Leaves the streams to other threads, where MLX allows that, without waiting for their work.
  void give_back() {
#ifdef MLX_STATIC
    for (auto& stream : streams) {
      if (stream.device == mx::Device::cpu) {
        auto is_idle = std::make_shared<std::atomic<bool>>(false);
        {
          std::lock_guard lock(pool().mutex);
          pool().streams.push_back({stream, is_idle});
        }
        enqueue_last(stream, [is_idle] { *is_idle = true; });
      }
    }
#endif
    streams.clear();
    defaults[0].reset();
    defaults[1].reset();
  }

  // Takes the error out of a CPU stream.
  static std::optional<std::string> clear_error(const mx::Stream& stream) {
    try {
      if (stream.device == mx::Device::cpu) {
        mx::scheduler::check_error(stream);
      }
    } catch (const std::exception& e) {
      return e.what();
    }
    return std::nullopt;
  }

  // Waits for all work of this thread and leaves the errors where they are.
  void drain() {
    std::vector<std::future<void>> ends;
    for (auto& stream : streams) {
      if (stream.device == mx::Device::cpu) {
        auto end = std::make_shared<std::promise<void>>();
        ends.push_back(end->get_future());
        enqueue_last(stream, [end] { end->set_value(); });
      } else {
        try {
          mx::synchronize(stream);
        } catch (const std::exception&) {
        }
      }
    }
    for (auto& end : ends) {
      end.wait();
    }
  }

  static bool is_ours(const mx::Error* error) {
    return failures && failures->find(error);
  }

  // Gives every event under way an error to keep, if a task of this thread has failed.
  //
  // All of them: the error may have been taken out of its stream, by whoever threw it, before the
  // stream came to the end of later evaluations, which then do not know.
  bool mark_failed(std::string text, Events more = {}) {
    drain();
    flights.push_back(std::move(more));
    bool has_failed = false;
    for (auto& stream : streams) {
      if (auto error = clear_error(stream)) {
        has_failed = true;
        if (text.empty()) {
          text = std::move(*error);
        }
      }
    }
    for (auto& events : flights) {
      for (auto& event : events) {
        auto* error = mlx_shim::load_error(event);
        has_failed |= error && !is_ours(error);
      }
    }
    if (has_failed) {
      auto& error = add_failure(text.empty() ? "an op failed" : text);
      for (auto& events : flights) {
        for (auto& event : events) {
          if (!is_ours(mlx_shim::load_error(event))) {
            mlx_shim::set_error(event, error);
          }
        }
      }
    }
    flights.clear();
    return has_failed;
  }

  static mx::Error& add_failure(const std::string& text) {
    if (!failures) {
      std::lock_guard lock(pool().mutex);
      auto& left = pool().failures;
      if (left.empty()) {
        failures = new Failures;
      } else {
        failures = left.back();
        left.pop_back();
      }
    }
    return failures->add(text);
  }

  // Forgets evaluations that have ended well and deals with one that has not.
  void settle() {
    // An event gets its error before it is signaled.
    auto is_over = [](Events& events) {
      return std::all_of(
          events.begin(), events.end(), [](auto& e) { return mlx_shim::is_signaled(e); });
    };
    auto has_error = [](Events& events) {
      return std::any_of(
          events.begin(), events.end(), [](auto& e) { return mlx_shim::load_error(e); });
    };
    bool sweep = flights.size() > sweep_at;
    for (auto it = flights.begin(); it != flights.end();) {
      if (is_over(*it)) {
        if (has_error(*it)) {
          mark_failed("");
          return;
        }
        it = flights.erase(it);
      } else if (sweep) {
        ++it;
      } else {
        return;
      }
    }
    sweep_at = std::max<size_t>(64, 2 * flights.size());
  }

  void evaluate(const std::vector<mx::array>& arrays, bool async) {
    settle();
    bool is_any_new = false;
    bool is_traced = false;
    for (auto& a : arrays) {
      if (is_new(a)) {
        is_any_new = true;
        is_traced |= a.is_tracer();
      }
    }
    if (is_traced && !async) {
      return evaluate_traced(arrays);
    }
    std::vector<mx::array> held;
    if (is_any_new) {
      held = start(arrays);
    }
    if (async) {
      if (is_any_new) {
        flights.push_back(events_of(arrays, held));
      }
      return;
    }
    for (auto& a : arrays) {
      auto& event = a.event();
      if (event.valid()) {
        if (auto* slot = failures ? failures->find(mlx_shim::load_error(event)) : nullptr) {
          flights.push_back(events_of(arrays, held));
          throw std::runtime_error(slot->text);
        }
      }
      try {
        const_cast<mx::array&>(a).wait();
      } catch (const std::exception& e) {
        mark_failed(e.what(), events_of(arrays, held));
        throw;
      }
    }
    // The outputs' events have ended well. Those of other streams may not be over.
    if (!held.empty()) {
      flights.push_back(events_of({}, held));
    }
    settle();
  }

  static Events events_of(
      const std::vector<mx::array>& arrays,
      const std::vector<mx::array>& held) {
    Events events;
    for (auto& a : arrays) {
      add_event(events, a);
    }
    for (auto& a : held) {
      add_event(events, a);
    }
    return events;
  }

  // Queues the ops, and returns the arrays whose events have to be known besides the outputs'.
  std::vector<mx::array> start(const std::vector<mx::array>& arrays) {
    // An evaluation has one event for each stream. That of the only one is found at the outputs.
    std::vector<mx::array> held;
    if (streams.size() > 1) {
      held = graph.readable_later(arrays);
    }
    try {
      mx::async_eval(arrays);
    } catch (const std::exception& e) {
      // MLX has waited for the streams and taken errors of earlier tasks out of them. What it had
      // not come to is as it was, and leads to what it had.
      auto events = events_of({}, held);
      walk(arrays, [&](const mx::array& a) { add_event(events, a); });
      mark_failed(e.what(), std::move(events));
      throw;
    }
    return held;
  }

  // Inside a gradient only MLX's blocking form is allowed, which gives arrays no event.
  void evaluate_traced(const std::vector<mx::array>& arrays) {
    std::vector<mx::array> nodes;
    walk(arrays, [&](const mx::array& a) {
      if (is_new(a)) {
        nodes.push_back(a);
      }
    });
    try {
      mx::eval(arrays);
    } catch (const std::exception& e) {
      nodes.erase(std::remove_if(nodes.begin(), nodes.end(), is_new), nodes.end());
      if (nodes.empty()) {
        throw;
      }
      auto stream = default_of(mx::Device::cpu);
      auto event = mlx_shim::signaled_event(stream);
      mark_failed(e.what());
      mlx_shim::set_error(event, add_failure(e.what()));
      for (auto& a : nodes) {
        a.set_status(mx::array::Status::evaluated);
        a.attach_event(event);
      }
      throw;
    }
  }
};

Thread& thread() {
  if (has_ended) {
    throw std::runtime_error("[stream] this thread is ending");
  }
  static thread_local Thread thread;
  return thread;
}

// Refuses what MLX's ring would take for an index, or divide by.
void check_ring_environment() {
  const char* rank = std::getenv("MLX_RANK");
  const char* hostfile = std::getenv("MLX_HOSTFILE");
  if (!rank || !hostfile) {
    return;
  }
  char* end = nullptr;
  long value = std::strtol(rank, &end, 10);
  if (end == rank || *end || value < 0 || value > INT_MAX) {
    throw std::invalid_argument(std::string("[init] MLX_RANK is no rank: ") + rank);
  }
  std::ifstream file(hostfile);
  char open = 0;
  char first = 0;
  file >> open >> first;
  if (open != '[' || first != '[') {
    throw std::invalid_argument(
        std::string("[init] MLX_HOSTFILE is no list of lists of addresses: ") + hostfile);
  }
}

mx::Device device(bool gpu) {
  return gpu ? mx::Device::gpu : mx::Device::cpu;
}

} // namespace

void mlx_shim::rearm_failures() noexcept {
  if (failures) {
    try {
      failures->rearm();
    } catch (...) {
      // Without memory for a text MLX throws nothing there, and the reader sees the marked event.
    }
  }
}

extern "C" int mlx_shim_default_stream(mlx_stream* res, bool gpu) {
  return mlx_shim::guard([&] {
    mlx_shim_init();
    mlx_stream_set_(*res, thread().default_of(device(gpu)));
  });
}

extern "C" int mlx_shim_new_stream(mlx_stream* res, bool gpu) {
  return mlx_shim::guard([&] {
    mlx_shim_init();
    mlx_stream_set_(*res, thread().take(device(gpu)));
  });
}

extern "C" int mlx_shim_synchronize(mlx_stream stream) {
  return mlx_shim::guard([&] {
    auto& own = thread();
    try {
      mx::synchronize(mlx_stream_get_(stream));
    } catch (const std::exception& e) {
      own.mark_failed(e.what());
      throw;
    }
    own.settle();
  });
}

extern "C" int mlx_shim_clear_streams(void) {
  return mlx_shim::guard([] {
    auto& own = thread();
    own.mark_failed("");
    mx::clear_streams();
    own.give_back();
  });
}

extern "C" int mlx_shim_eval(mlx_vector_array arrays, bool async) {
  return mlx_shim::guard([&] {
    if (arrays.ctx) {
      thread().evaluate(mlx_vector_array_get_(arrays), async);
    }
  });
}

extern "C" int mlx_shim_distributed_init(
    mlx_distributed_group* res,
    bool strict,
    const char* backend) {
  return mlx_shim::guard([&] {
    mlx_shim_init();
    check_ring_environment();
    mlx_distributed_group_set_(*res, mlx_shim::watch(mx::distributed::init(strict, backend)));
  });
}

extern "C" int mlx_shim_array_status(mlx_array array) {
  auto& a = mlx_array_get_(array);
  if (a.status() != mx::array::Status::evaluated) {
    return a.status() == mx::array::Status::available ? 2 : 0;
  }
  // An event gets its error before it is signaled, so the order of the questions matters; with an
  // error MLX's own answer would be to throw it.
  auto& event = a.event();
  if (event.valid() && (!mlx_shim::is_signaled(event) || mlx_shim::load_error(event))) {
    return 1;
  }
  int status = 1;
  mlx_shim::guard([&] { status = a.is_available() ? 2 : 1; });
  return status;
}

extern "C" const void* mlx_shim_array_data(mlx_array array) {
  if (!array.ctx || mlx_shim_array_status(array) != 2) {
    return nullptr;
  }
  return mlx_array_get_(array).data<char>();
}
