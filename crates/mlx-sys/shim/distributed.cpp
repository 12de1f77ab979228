// Groups of processes of which one may be gone.
//
// When a peer dies MLX's ring fails a collective and stops serving the connection, so that a later
// one waits forever; so does one whose peer only stands still. MLX runs collectives on the CPU
// stream itself: that stream then never gets on, and exit, which waits for the streams, never ends.
// Here a collective runs on a stream of its own, and the CPU stream waits for it until it has ended
// or the process, on its way out, gives it up. After a failure the others are refused.
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "guard.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/private/distributed_group.h"
#include "mlx/distributed/distributed_impl.h"
#include "mlx/mlx.h"
#include "mlx/scheduler.h"

namespace mx = mlx::core;

namespace {

using mx::distributed::detail::GroupImpl;
using Clock = std::chrono::steady_clock;

// How long a collective may still take once the process exits.
constexpr auto exit_patience = std::chrono::seconds(5);

using Call = std::function<void(GroupImpl&, std::vector<mx::array>&, mx::Stream)>;

// One group of MLX's, shared with the tasks that use it.
struct Link {
  std::shared_ptr<GroupImpl> group;
  std::string failure;
};

// All of it is never destroyed: what was given up still runs when the process ends.
struct Links {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Clock::time_point> exit_begun;
  std::optional<mx::Stream> stream;
  std::vector<std::shared_ptr<Link>> all;
  // By MLX's own, which it returns again to whoever joins again.
  std::map<GroupImpl*, std::shared_ptr<GroupImpl>> watched;
  // Memory that a connection may still write to, and groups whose threads may still run.
  std::vector<std::shared_ptr<void>> kept;
  // Held while a collective runs: the stream's encoder is for one thread at a time.
  std::mutex running;
};

Links& links() {
  static Links* links = new Links;
  return *links;
}

// Errors that come before anything is sent: the connections are as they were.
bool is_refusal(std::string_view text) {
  return text.starts_with("[ring] Send only") || text.starts_with("[ring] Recv only") ||
      text.starts_with("Can't perform");
}

void check(const Link& link) {
  std::lock_guard lock(links().mutex);
  if (!link.failure.empty()) {
    throw std::runtime_error(
        "[distributed] an earlier collective of this group failed: " + link.failure);
  }
}

using Owners = std::vector<std::weak_ptr<mx::array::Data>>;

// With the lock held.
void fail(Link& link, std::string text, const Owners& owners) {
  link.failure = std::move(text);
  auto& kept = links().kept;
  for (auto& owner : owners) {
    kept.push_back(owner.lock());
  }
  kept.push_back(link.group);
}

// Runs on the CPU stream's thread, in the collective's turn.
void run(Link& link, const Call& call, std::vector<mx::array> arrays, const Owners& owners) {
  auto& all = links();
  std::lock_guard one(all.running);
  check(link);
  auto stream = *all.stream;
  call(*link.group, arrays, stream);
  auto has_ended = std::make_shared<bool>(false);
  mx::scheduler::enqueue(stream, [has_ended, &all] {
    {
      std::lock_guard lock(all.mutex);
      *has_ended = true;
    }
    all.changed.notify_all();
  });
  {
    auto begun = Clock::now();
    std::unique_lock lock(all.mutex);
    while (!*has_ended) {
      if (!all.exit_begun) {
        all.changed.wait(lock);
        continue;
      }
      auto limit = std::max(begun, *all.exit_begun) + exit_patience;
      if (all.changed.wait_until(lock, limit) == std::cv_status::timeout && !*has_ended) {
        fail(link, "given up at exit", owners);
        throw std::runtime_error("[distributed] given up at exit");
      }
    }
  }
  try {
    mx::scheduler::check_error(stream);
  } catch (const std::exception& e) {
    if (!is_refusal(e.what())) {
      std::lock_guard lock(all.mutex);
      fail(link, e.what(), owners);
    }
    throw;
  }
}

class WatchedGroup : public GroupImpl {
 public:
  explicit WatchedGroup(std::shared_ptr<GroupImpl> group)
      : rank_(group->rank()), size_(group->size()), link_(std::make_shared<Link>()) {
    link_->group = std::move(group);
    auto& all = links();
    std::lock_guard lock(all.mutex);
    if (!all.stream) {
      // Any thread may use it, as the one that evaluates is not the one that runs the stream.
      all.stream = mx::new_thread_unsafe_stream(mx::Device::cpu);
    }
    all.all.push_back(link_);
  }

  mx::Stream communication_stream(mx::StreamOrDevice s) override {
    return link_->group->communication_stream(s);
  }

  int rank() override {
    return rank_;
  }

  int size() override {
    return size_;
  }

  std::shared_ptr<GroupImpl> split(int color, int key) override {
    check(*link_);
    return std::make_shared<WatchedGroup>(link_->group->split(color, key));
  }

  void all_sum(const mx::array& in, mx::array& out, mx::Stream stream) override {
    queue({in, out}, stream, [](auto& g, auto& a, auto s) { g.all_sum(a[0], a[1], s); });
  }

  void all_max(const mx::array& in, mx::array& out, mx::Stream stream) override {
    queue({in, out}, stream, [](auto& g, auto& a, auto s) { g.all_max(a[0], a[1], s); });
  }

  void all_min(const mx::array& in, mx::array& out, mx::Stream stream) override {
    queue({in, out}, stream, [](auto& g, auto& a, auto s) { g.all_min(a[0], a[1], s); });
  }

  void all_gather(const mx::array& in, mx::array& out, mx::Stream stream) override {
    queue({in, out}, stream, [](auto& g, auto& a, auto s) { g.all_gather(a[0], a[1], s); });
  }

  void sum_scatter(const mx::array& in, mx::array& out, mx::Stream stream) override {
    queue({in, out}, stream, [](auto& g, auto& a, auto s) { g.sum_scatter(a[0], a[1], s); });
  }

  void send(const mx::array& in, int dst, mx::Stream stream) override {
    queue({in}, stream, [dst](auto& g, auto& a, auto s) { g.send(a[0], dst, s); });
  }

  void recv(mx::array& out, int src, mx::Stream stream) override {
    queue({out}, stream, [src](auto& g, auto& a, auto s) { g.recv(a[0], src, s); });
  }

 private:
  void queue(std::vector<mx::array> arrays, mx::Stream stream, Call call) {
    check(*link_);
    if (stream.device != mx::Device::cpu) {
      return call(*link_->group, arrays, stream);
    }
    // Holding the arrays would keep MLX from giving their memory to later results. Whoever uses
    // them holds them until this has run.
    Owners owners;
    std::vector<mx::array> views;
    for (auto& a : arrays) {
      owners.push_back(a.data_shared_ptr());
      views.push_back(mx::array::unsafe_weak_copy(a));
    }
    mx::cpu::get_command_encoder(stream).dispatch(
        [link = link_, call = std::move(call), views = std::move(views), owners = std::move(owners)] {
          run(*link, call, views, owners);
        });
  }

  int rank_;
  int size_;
  std::shared_ptr<Link> link_;
};

} // namespace

bool mlx_shim::is_for_collectives(mx::Stream stream) {
  auto& all = links();
  std::lock_guard lock(all.mutex);
  return all.stream == stream;
}

void mlx_shim::begin_exit() {
  auto& all = links();
  {
    std::lock_guard lock(all.mutex);
    all.exit_begun = Clock::now();
  }
  all.changed.notify_all();
}

void mlx_shim::leave_groups() {
  auto& all = links();
  for (auto& link : all.all) {
    link->group.reset();
  }
}

mx::distributed::Group mlx_shim::watch(mx::distributed::Group group) {
  if (group.size() == 1) {
    return group;
  }
  auto& raw = group.raw_group();
  auto& known = links().watched[raw.get()];
  if (!known) {
    known = std::make_shared<WatchedGroup>(raw);
  }
  return known;
}
